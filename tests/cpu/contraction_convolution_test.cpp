// Convolution kernels over kernel sizes, strides, paddings, dilations and groups.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "cpu/contraction_harness.h"

namespace kiln::test {
namespace {

using plan::BufferId;
using plan::Loop;

Loop loop(const char* name, const ir::Dim& extent) { return {ir::make_loop_symbol(name, extent)}; }

struct Case {
  int64_t batch = 1, height = 8, width = 9, channels = 5, outputs = 7;
  int64_t kernel_h = 3, kernel_w = 3, stride = 1, padding = 0, dilation = 1, groups = 1;
  bool dynamic = false;  // batch, height and width are run-time sizes
  DType dtype = DType::F32;
  int64_t winograd = 0;  // side of its tiles

  std::string name() const {
    std::string text;
    for (int64_t part : {batch, height, width, channels, outputs, kernel_h, kernel_w, stride,
                         padding, dilation, groups, winograd}) {
      text += std::to_string(part) + " ";
    }
    return text + (dynamic ? "dynamic " : "static ") + std::string(dtype_name(dtype));
  }
};

using Epilogue = std::function<plan::Expr(ContractionProgram&, const plan::Convolution&)>;

ContractionProgram make_convolution(const Case& c, const Epilogue& epilogue = nullptr) {
  ContractionProgram contraction;
  contraction.dtype = c.dtype;
  plan::Convolution conv;
  const ir::Dim batch = c.dynamic ? ir::Dim(contraction.symbol("n", 1, 16, 2)) : ir::Dim(c.batch);
  conv.height = c.dynamic ? ir::Dim(contraction.symbol("h", 1, 64, 8)) : ir::Dim(c.height);
  conv.width = c.dynamic ? ir::Dim(contraction.symbol("w", 1, 64, 8)) : ir::Dim(c.width);
  const int64_t span_h = (c.kernel_h - 1) * c.dilation + 1,
                span_w = (c.kernel_w - 1) * c.dilation + 1;
  conv.b = loop("b", batch);
  conv.y = loop("y", ir::floordiv(conv.height + 2 * c.padding - span_h, c.stride) + 1);
  conv.x = loop("x", ir::floordiv(conv.width + 2 * c.padding - span_w, c.stride) + 1);
  conv.o = loop("o", c.outputs);
  conv.channels = c.channels;
  conv.groups = c.groups;
  conv.kernel_h = c.kernel_h;
  conv.kernel_w = c.kernel_w;
  conv.stride_h = conv.stride_w = c.stride;
  conv.dilation_h = conv.dilation_w = c.dilation;
  conv.pad_top = conv.pad_left = c.padding;
  // The weight first: it is the same one whatever the run-time sizes are.
  conv.weight = contraction.constant({c.outputs, c.kernel_h, c.kernel_w, c.channels / c.groups});
  conv.input = contraction.input({batch, conv.height, conv.width, c.channels},
                                 {c.batch, c.height, c.width, c.channels});
  conv.out = contraction.output({batch, conv.y.extent(), conv.x.extent(), c.outputs});
  conv.formats = contraction.formats();
  conv.formats.weight = c.dtype;
  conv.winograd = c.winograd;
  conv.epilogue = epilogue ? epilogue(contraction, conv) : contraction.sum(conv.formats);
  contraction.add_kernel(std::move(conv));
  return contraction;
}

void check(const Case& c) {
  SCOPED_TRACE(c.name());
  expect_matches_interpreter(make_convolution(c));
}

TEST(ContractionConvolution, KernelSizes) {
  for (int64_t kernel_h : {1, 2, 3, 5, 7}) {
    for (int64_t kernel_w : {1, 3, 4, 7}) check({.kernel_h = kernel_h, .kernel_w = kernel_w});
  }
}

TEST(ContractionConvolution, StridesPaddingsDilations) {
  for (int64_t stride : {1, 2, 3}) {
    for (int64_t padding : {0, 1, 2, 3}) {
      for (int64_t dilation : {1, 2, 3}) {
        check({.batch = 2, .stride = stride, .padding = padding, .dilation = dilation});
      }
    }
  }
}

TEST(ContractionConvolution, Groups) {
  check({.channels = 8, .outputs = 8, .padding = 1, .groups = 2});
  check({.channels = 12, .outputs = 36, .padding = 1, .groups = 3});
  check({.channels = 32, .outputs = 64, .padding = 1, .groups = 2});
  check({.channels = 20, .outputs = 10, .stride = 2, .padding = 1, .dilation = 2, .groups = 5});
  check({.channels = 6, .outputs = 6, .padding = 1, .groups = 6});
}

TEST(ContractionConvolution, WidthsOfOutputs) {
  for (int64_t outputs : {1, 8, 15, 16, 17, 31, 32, 33, 40, 48, 64, 65, 96, 100}) {
    check({.height = 5, .width = 6, .channels = 4, .outputs = outputs, .padding = 1});
  }
}

TEST(ContractionConvolution, WidthsOfRows) {
  for (int64_t width = 1; width <= 31; ++width)
    check({.height = 3, .width = width, .channels = 3, .padding = 1});
}

TEST(ContractionConvolution, Types) {
  for (DType dtype : kFloatingTypes) {
    check({.padding = 1, .dtype = dtype});
    check({.batch = 2, .outputs = 48, .padding = 1, .dynamic = true, .dtype = dtype});
    check({.channels = 32, .outputs = 64, .padding = 1, .groups = 2, .dtype = dtype});
    check({.height = 5, .width = 3, .channels = 20, .outputs = 40, .stride = 2, .dtype = dtype});
    check({.channels = 24,
           .outputs = 100,
           .kernel_h = 1,
           .kernel_w = 1,
           .stride = 2,
           .dtype = dtype});
  }
}

// Kernel rows of bf16 that are an odd number of elements: with AVX512-BF16 they end with half a pair.
TEST(ContractionConvolution, HalfPairs) {
  for (int64_t width : {7, 20, 33}) {
    for (int64_t stride : {1, 2}) {
      for (int64_t outputs : {16, 20, 64}) {
        check({.batch = 2,
               .height = 9,
               .width = width,
               .channels = 3,
               .outputs = outputs,
               .kernel_h = 7,
               .kernel_w = 7,
               .stride = stride,
               .padding = 3,
               .dtype = DType::BF16});
        check({.width = width,
               .channels = 3,
               .outputs = outputs,
               .stride = stride,
               .padding = 1,
               .dynamic = true,
               .dtype = DType::BF16});
      }
    }
    check({.width = width, .channels = 3, .outputs = 32, .dtype = DType::BF16});
    check({.width = width, .channels = 5, .kernel_w = 5, .padding = 1, .dtype = DType::BF16});
    check({.width = width, .channels = 3, .kernel_w = 1, .dtype = DType::BF16});
  }
}

// Tiles of AMX: pixels of a row and channels that fill them or do not.
TEST(ContractionConvolution, Tiles) {
  const auto check_bf16 = [](Case c) {
    c.dtype = DType::BF16;
    SCOPED_TRACE(c.name());
    expect_tiles_match_interpreter(make_convolution(c));
  };
  const Case usual{.channels = 16, .dtype = DType::BF16};
  EXPECT_TRUE(serves("x86-64-v4-amx", make_convolution(usual).program));
  if (const std::string reason = missing_amx(); !reason.empty()) GTEST_SKIP() << reason;
  for (int64_t width : {7, 8, 16, 17, 18, 20, 33, 50})
    check_bf16({.width = width, .channels = 32, .outputs = 48, .padding = 1});
  for (int64_t channels : {6, 12, 24, 40, 48, 100})
    check_bf16({.width = 20, .channels = channels, .outputs = 50, .padding = 1});
  // Odd numbers of channels get a zero.
  for (int64_t channels : {3, 5, 15, 17, 31, 33, 63, 65, 129})
    check_bf16({.width = 19, .channels = channels, .outputs = 20, .padding = 1});
  for (int64_t width : {9, 13, 30, 35})
    check_bf16({.batch = 2,
                .width = width,
                .channels = 3,
                .outputs = 64,
                .kernel_h = 7,
                .kernel_w = 7,
                .stride = 2,
                .padding = 3});
  check_bf16({.width = 30, .channels = 7, .outputs = 20, .padding = 2, .dilation = 2});
  check_bf16({.width = 30, .channels = 1, .outputs = 20, .kernel_h = 5, .kernel_w = 9});
  check_bf16({.batch = 2, .width = 9, .channels = 7, .padding = 1, .dynamic = true});
  // Sums in progress between chunks of channels.
  for (int64_t width : {7, 35})
    check_bf16({.height = 2, .width = width, .channels = 1024, .outputs = 20, .padding = 1});
  check_bf16({.height = 2, .width = 9, .channels = 2048, .outputs = 10, .padding = 1, .groups = 2});
  check_bf16({.batch = 3, .width = 30, .channels = 32, .outputs = 70, .stride = 2, .padding = 1});
  check_bf16({.width = 30, .channels = 32, .outputs = 20, .padding = 2, .dilation = 2});
  check_bf16({.width = 12, .channels = 64, .outputs = 128, .padding = 1, .groups = 2});
  check_bf16(
      {.width = 12, .channels = 64, .outputs = 24, .kernel_h = 1, .kernel_w = 1, .stride = 2});
  check_bf16({.height = 20, .width = 40, .channels = 64, .outputs = 32, .padding = 1});
  for (int64_t width : {5, 16, 39})
    check_bf16({.batch = 2,
                .height = 11,
                .width = width,
                .channels = 20,
                .outputs = 20,
                .padding = 1,
                .dynamic = true});
}

TEST(ContractionConvolution, PaddingBeyondTheImage) {
  check({.height = 1, .width = 1, .kernel_h = 5, .kernel_w = 5, .padding = 2});
  check({.height = 2, .width = 2, .kernel_h = 1, .kernel_w = 1, .padding = 3});
  check({.height = 3, .width = 2, .stride = 4, .padding = 4});
}

TEST(ContractionConvolution, Stems) {
  check({.height = 30,
         .width = 34,
         .channels = 3,
         .outputs = 32,
         .kernel_h = 7,
         .kernel_w = 7,
         .stride = 2,
         .padding = 3});
  check({.height = 32,
         .width = 48,
         .channels = 3,
         .outputs = 48,
         .kernel_h = 16,
         .kernel_w = 16,
         .stride = 16});
  check({.height = 12,
         .width = 16,
         .channels = 24,
         .outputs = 40,
         .kernel_h = 2,
         .kernel_w = 2,
         .stride = 2});
  check({.height = 7,
         .width = 9,
         .channels = 24,
         .outputs = 40,
         .kernel_h = 1,
         .kernel_w = 1,
         .stride = 2});
}

TEST(ContractionConvolution, OneDimension) {
  check({.batch = 3,
         .height = 1,
         .width = 40,
         .channels = 10,
         .outputs = 20,
         .kernel_h = 1,
         .kernel_w = 3});
}

TEST(ContractionConvolution, RunTimeSizes) {
  for (int64_t size : {3, 4, 7, 15, 20}) {
    check({.batch = 2, .height = size, .width = size + 1, .padding = 1, .dynamic = true});
    check({.batch = 3, .height = size, .width = size, .stride = 2, .padding = 1, .dynamic = true});
    check({.batch = 1,
           .height = size,
           .width = size + 2,
           .kernel_h = 2,
           .kernel_w = 2,
           .stride = 2,
           .dynamic = true});
  }
}

// Deep sums are cut in chunks of channels, the last of them smaller if none divides them.
TEST(ContractionConvolution, Chunks) {
  for (int64_t channels : {272, 512, 600}) {
    check({.height = 4, .width = 9, .channels = channels, .outputs = 40, .padding = 1});
    check({.height = 9, .width = 6, .channels = channels, .outputs = 20, .stride = 2});
  }
  check({.height = 4, .width = 5, .channels = 320, .outputs = 16, .dilation = 2});
  check({.batch = 2, .height = 3, .width = 40, .channels = 512, .outputs = 8, .padding = 2});
  check({.height = 3,
         .width = 3,
         .channels = 2400,
         .outputs = 33,
         .kernel_h = 1,
         .kernel_w = 1,
         .stride = 2});
  check({.height = 5, .width = 6, .channels = 1024, .outputs = 32, .padding = 1, .groups = 2});
  check({.height = 5, .width = 6, .channels = 544, .outputs = 96, .padding = 1, .groups = 2});
  for (int64_t size : {3, 7, 12}) {
    check({.batch = 2,
           .height = size,
           .width = size + 1,
           .channels = 288,
           .outputs = 16,
           .padding = 1,
           .dynamic = true});
  }
  for (DType dtype : kFloatingTypes) {
    check({.height = 4, .width = 8, .channels = 384, .outputs = 24, .padding = 1, .dtype = dtype});
    check({.height = 4, .width = 8, .channels = 272, .outputs = 24, .dtype = dtype});
  }
}

TEST(ContractionConvolution, PackedWeightsFollowFromTheirKeys) {
  const Case whole{.channels = 32, .outputs = 24, .padding = 1};
  const Case chunks{.channels = 512, .outputs = 24, .padding = 1};
  const Case rest{.channels = 272, .outputs = 24, .padding = 1};
  for (DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    for (int64_t channels : {40, 21}) {
      for (int64_t tile : {2, 4}) {
        const Case c{
            .channels = channels, .outputs = 24, .padding = 1, .dtype = dtype, .winograd = tile};
        SCOPED_TRACE(c.name());
        expect_constants_derivable(make_convolution(c).program);
      }
    }
  }
  for (Case c : {whole, chunks, rest}) {
    for (DType dtype : kFloatingTypes) {
      c.dtype = dtype;
      SCOPED_TRACE(c.name());
      expect_constants_derivable(make_convolution(c).program);
    }
  }
}

// Operands have a standard deviation of 2 and sums of n terms one of 4 sqrt(n). In units of rounding of that, a sum
// in f32 has errors of some 0.4 sqrt(n), tiles of 4x4 twice as much and some for the transforms: five times that.
double winograd_tolerance(const Case& c) {
  const double terms = std::sqrt(static_cast<double>(9 * c.channels));
  // Results of 16 bits may be rounded to a neighbour.
  const double rounding = c.dtype == DType::BF16 ? 0x1p-7 : c.dtype == DType::F16 ? 0x1p-10 : 0;
  return 4 * terms * 0x1p-24 * (20 + 5 * terms) + rounding;
}

plan::Expr bias_residual_relu(ContractionProgram& contraction, const plan::Convolution& conv) {
  const BufferId bias = contraction.constant({conv.o.extent().constant()});
  const BufferId residual =
      contraction.input({conv.b.extent(), conv.y.extent(), conv.x.extent(), conv.o.extent()},
                        {conv.b.extent().constant(), conv.y.extent().constant(),
                         conv.x.extent().constant(), conv.o.extent().constant()});
  plan::Expr sum = plan::accumulator(DType::F32);
  sum = plan::apply(ir::Op::add, {sum, plan::load_at(bias, DType::F32, {conv.o.index})});
  const plan::Expr element =
      plan::load_at(residual, DType::F32, {conv.b.index, conv.y.index, conv.x.index, conv.o.index});
  return plan::apply(ir::Op::relu, {plan::apply(ir::Op::add, {sum, element})});
}

// Of one program, whose run-time sizes these are.
void check_winograd_runs(std::vector<Case> runs) {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    for (int64_t tile : {2, 4}) {
      std::vector<ContractionProgram> programs;
      for (Case& run : runs) {
        run.winograd = tile;
        run.dtype = dtype;
        programs.push_back(make_convolution(run));
      }
      SCOPED_TRACE(runs.front().name());
      expect_runs_match_interpreter(programs, winograd_tolerance(runs.front()));
    }
  }
}

void check_winograd(const Case& c) { check_winograd_runs({c}); }

TEST(ContractionWinograd, Sizes) {
  for (int64_t size : {3, 4, 5, 6, 7, 8, 11}) {
    check_winograd({.height = size, .width = size + 2, .channels = 16, .outputs = 32});
    check_winograd(
        {.height = size + 1, .width = size, .channels = 16, .outputs = 16, .padding = 1});
  }
  check_winograd({.height = 1, .width = 1, .channels = 32, .outputs = 16, .padding = 1});
  check_winograd({.height = 2, .width = 9, .channels = 16, .outputs = 16, .padding = 2});
  check_winograd({.height = 1, .width = 5, .channels = 16, .outputs = 16, .padding = 5});
}

TEST(ContractionWinograd, Channels) {
  for (int64_t channels : {1, 7, 8, 17, 24, 40, 64, 130}) {
    check_winograd({.batch = 2, .channels = channels, .outputs = 20, .padding = 1});
  }
  for (int64_t outputs : {1, 8, 15, 16, 31, 33, 48, 64, 100, 144}) {
    check_winograd({.channels = 16, .outputs = outputs, .padding = 1});
  }
}

TEST(ContractionWinograd, ManyBlocks) {
  check_winograd(
      {.batch = 3, .height = 33, .width = 30, .channels = 24, .outputs = 80, .padding = 1});
  if (kTakesLarge)
    check_winograd({.height = 61, .width = 50, .channels = 64, .outputs = 32, .padding = 1});
}

// Few tasks of much work: blocks have 2, 4 and 8 parts.
TEST(ContractionWinograd, PartsOfBlocks) {
  check_winograd({.height = 17, .width = 15, .channels = 64, .outputs = 48, .padding = 1});
  check_winograd({.height = 23, .width = 26, .channels = 130, .outputs = 20, .padding = 1});
  check_winograd({.height = 29, .width = 30, .channels = 130, .outputs = 16, .padding = 1});
  std::vector<Case> runs;
  for (int64_t size : {1, 3, 9, 20})
    runs.push_back({.height = size,
                    .width = 31,
                    .channels = 130,
                    .outputs = 33,
                    .padding = 1,
                    .dynamic = true});
  check_winograd_runs(runs);
}

TEST(ContractionWinograd, RunTimeSizes) {
  std::vector<Case> runs;
  for (int64_t size : {1, 2, 3, 7, 15, 20, 33}) {
    runs.push_back({.batch = 2,
                    .height = size,
                    .width = size + 1,
                    .channels = 20,
                    .outputs = 33,
                    .padding = 1,
                    .dynamic = true});
  }
  check_winograd_runs(runs);
}

TEST(ContractionWinograd, RandomShapes) {
  std::mt19937 generator(13);
  auto pick = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(generator() % (high - low + 1));
  };
  for (int i = 0; i < (kTakesLarge ? 25 : 10); ++i) {
    Case c;
    c.padding = pick(0, 2);
    c.batch = pick(1, 4);
    c.height = pick(3, 24);
    c.width = pick(3, 24);
    c.channels = pick(1, 90);
    c.outputs = pick(1, 110);
    c.dynamic = pick(0, 3) == 0 && c.padding > 0;
    check_winograd(c);
  }
}

TEST(ContractionWinograd, Epilogues) {
  for (int64_t outputs : {32, 35}) {
    for (int64_t tile : {2, 4}) {
      const Case c{.batch = 2, .channels = 16, .outputs = outputs, .padding = 1, .winograd = tile};
      SCOPED_TRACE(c.name());
      expect_matches_interpreter(make_convolution(c, bias_residual_relu), 1e-4);
    }
  }
}

// Pixels that compete for the cache are copied apart.
TEST(ContractionConvolution, PixelsThatAlias) {
  check({.height = 7,
         .width = 9,
         .channels = 512,
         .outputs = 16,
         .kernel_h = 1,
         .kernel_w = 1,
         .stride = 2});
  check({.height = 6,
         .width = 8,
         .channels = 256,
         .outputs = 16,
         .kernel_h = 2,
         .kernel_w = 2,
         .stride = 2});
  check({.height = 6, .width = 8, .channels = 1024, .outputs = 64, .padding = 1, .groups = 8});
  check({.height = 4, .width = 6, .channels = 512, .outputs = 512, .padding = 1, .groups = 128});
  check({.height = 4,
         .width = 6,
         .channels = 1024,
         .outputs = 16,
         .kernel_w = 1,
         .dtype = DType::BF16});
}

TEST(ContractionConvolution, RandomShapes) {
  std::mt19937 generator(11);
  auto pick = [&](std::initializer_list<int64_t> values) {
    return values.begin()[generator() % values.size()];
  };
  for (int i = 0; i < 60; ++i) {
    Case c;
    c.batch = pick({1, 1, 2});
    c.kernel_h = pick({1, 2, 3, 3, 5});
    c.kernel_w = pick({1, 2, 3, 3, 5});
    c.dilation = pick({1, 1, 2});
    c.height = (c.kernel_h - 1) * c.dilation + pick({1, 2, 5, 8});
    c.width = (c.kernel_w - 1) * c.dilation + pick({1, 3, 6, 7, 14, 15});
    c.groups = pick({1, 1, 1, 2, 4});
    c.channels = c.groups * pick({4, 8, 17, 64, 130, 256, 300, 528});
    c.outputs = c.groups * pick({1, 4, 8, 15, 16, 33, 48});
    c.stride = pick({1, 1, 2, 3});
    c.padding = pick({0, 1, 2});
    c.dynamic = generator() % 3 == 0;
    c.dtype = pick({0, 0, 1}) == 0 ? DType::F32 : kFloatingTypes[generator() % 4];
    check(c);
  }
}

TEST(ContractionConvolution, ManyTasks) {
  check({.batch = 2, .height = 40, .width = 40, .channels = 40, .outputs = 96, .padding = 1});
}

TEST(ContractionConvolution, BiasResidualRelu) {
  for (int64_t outputs : {32, 35}) {
    const Case c{.batch = 2, .outputs = outputs, .padding = 1};
    SCOPED_TRACE(c.name());
    expect_matches_interpreter(make_convolution(c, bias_residual_relu));
  }
}

TEST(ContractionConvolution, HeavyEpilogue) {
  auto epilogue = [](ContractionProgram&, const plan::Convolution&) {
    plan::Expr sum = plan::apply(
        ir::Op::mul, {plan::accumulator(DType::F32), plan::constant(DType::F32, 0.0625)});
    for (int i = 0; i < 5; ++i)
      sum = plan::apply(ir::Op::tanh, {plan::apply(ir::Op::add, {sum, sum})});
    return sum;
  };
  expect_matches_interpreter(make_convolution({.outputs = 20, .padding = 1}, epilogue), 1e-5);
}

}  // namespace
}  // namespace kiln::test
