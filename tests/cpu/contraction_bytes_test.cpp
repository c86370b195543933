// Products of bytes, u8 by i8 with sums of i32, and of floats by weights of i8: every size of tile and rest of K,
// and the extremes at which instructions that saturate would show.
#include <gtest/gtest.h>

#include <functional>

#include "cpu/contraction_harness.h"

namespace kiln::test {
namespace {

using plan::BufferId;
using plan::Loop;

constexpr plan::Formats kIntegers{DType::U8, DType::I8, DType::I32, DType::I8};

Loop loop(const char* name, const ir::Dim& extent) { return {ir::make_loop_symbol(name, extent)}; }

// The values of both operands.
enum class Values { Random, Largest, Least, Alternating };
constexpr Values kExtremes[] = {Values::Largest, Values::Least, Values::Alternating};

class Bytes {
 public:
  explicit Bytes(Values values) : values_(values) {}
  ir::Literal left(const std::vector<int64_t>& shape) {
    return literal(DType::U8, shape, [&](int64_t) -> int64_t {
      return values_ == Values::Random ? next() & 0xFF : 255;
    });
  }
  ir::Literal right(const std::vector<int64_t>& shape) {
    return literal(DType::I8, shape, [&](int64_t i) -> int64_t {
      if (values_ == Values::Random) return static_cast<int8_t>(next() & 0xFF);
      if (values_ == Values::Alternating) return i % 2 == 0 ? 127 : -128;
      return values_ == Values::Largest ? 127 : -128;
    });
  }

 private:
  static ir::Literal literal(DType dtype, const std::vector<int64_t>& shape,
                             const std::function<int64_t(int64_t)>& value) {
    std::byte* data = nullptr;
    ir::Literal result = ir::Literal::allocate(dtype, shape, &data);
    for (int64_t i = 0; i < result.elements(); ++i) ir::Literal::set_int(data, dtype, i, value(i));
    return result;
  }
  uint32_t next() {
    state_ = state_ * 1664525u + 1013904223u;
    return state_ >> 16;
  }

  Values values_;
  uint32_t state_ = 12345;
};

BufferId constant(ContractionProgram& contraction, ir::Literal literal) {
  plan::Buffer buffer;
  buffer.kind = plan::BufferKind::Constant;
  buffer.name = "constant" + std::to_string(contraction.program.buffers.size());
  buffer.type = literal.type();
  buffer.literal = std::move(literal);
  return contraction.program.add_buffer(std::move(buffer));
}

struct Product {
  int64_t m = 1, n = 1, k = 1;
  Values values = Values::Random;
  bool dynamic_m = false, transposed_a = false, transposed_b = true;
  bool requantises = false;  // to u8, through f32, as the epilogue of a quantised model
  DType left = DType::U8;    // or floats, whose weights alone are bytes
  bool computed_b = false;   // the right operand is an input
};

// cast(clamp(round(f32(sum) * 2^-7) + 128, 0, 255)) as u8
plan::Expr requantised(const plan::Expr& sum) {
  const auto number = [](double value) { return plan::constant(DType::F32, value); };
  plan::Expr value = plan::cast(sum, DType::F32);
  value = plan::apply(ir::Op::round, {plan::apply(ir::Op::mul, {value, number(1.0 / 128)})});
  value = plan::apply(ir::Op::add, {value, number(128)});
  value = plan::apply(ir::Op::maximum, {value, number(0)});
  return plan::cast(plan::apply(ir::Op::minimum, {value, number(255)}), DType::U8);
}

ContractionProgram make_matmul(const Product& product) {
  ContractionProgram contraction;
  plan::TargetTraits& traits = contraction.program.traits;
  traits.integer_products = traits.integer_convolutions = traits.integer_weights = true;
  const auto [m, n, k] = std::array{product.m, product.n, product.k};
  const bool has_bytes = product.left == DType::U8;
  const ir::Dim rows =
      product.dynamic_m ? ir::Dim(contraction.symbol("s", 1, 512, 64)) : ir::Dim(m);
  Bytes bytes(product.values);
  plan::MatMul matmul;
  matmul.m = loop("m", rows);
  matmul.n = loop("n", n);
  matmul.k = loop("k", k);
  const auto left = [&](const std::vector<int64_t>& shape) {
    return has_bytes ? bytes.left(shape)
                     : converted(contraction.random_literal(shape), product.left);
  };
  contraction.dtype = DType::F32;
  matmul.a = product.transposed_a
                 ? plan::View{contraction.input_of({k, rows}, left({k, m})), 0, {1, rows}}
                 : plan::View{contraction.input_of({rows, k}, left({m, k})), 0, {k, 1}};
  const auto right = [&](const std::vector<int64_t>& shape) {
    if (!product.computed_b) return constant(contraction, bytes.right(shape));
    return contraction.input_of({shape[0], shape[1]}, bytes.right(shape));
  };
  matmul.b = product.transposed_b ? plan::View{right({n, k}), 0, {1, k}}
                                  : plan::View{right({k, n}), 0, {n, 1}};
  matmul.formats = kIntegers;
  if (!has_bytes) {
    matmul.formats = plan::Formats();
    matmul.formats.weight = DType::I8;
  }
  contraction.dtype = product.requantises ? DType::U8 : has_bytes ? DType::I32 : DType::F32;
  matmul.out = {contraction.output({rows, n}), 0, {n, 1}};
  const plan::Expr sum = plan::accumulator(matmul.formats.accumulator);
  matmul.epilogue = product.requantises ? requantised(sum) : sum;
  contraction.add_kernel(std::move(matmul));
  return contraction;
}

std::string name_of(const Product& product) {
  return std::to_string(product.m) + " x " + std::to_string(product.n) + " x " +
         std::to_string(product.k);
}

void check(const Product& product) {
  SCOPED_TRACE(name_of(product));
  expect_matches_interpreter(make_matmul(product));
}

TEST(ContractionBytes, EveryRowCount) {
  for (int64_t m = 1; m <= 40; ++m) check({.m = m, .n = 48, .k = 20});
}

TEST(ContractionBytes, EveryRunTimeRowCount) {
  for (int64_t m : {1, 2, 5, 7, 8, 9, 16, 17, 48, 49, 65, 129})
    check({.m = m, .n = 40, .k = 9, .dynamic_m = true});
}

TEST(ContractionBytes, EveryRestOfK) {
  for (int64_t k = 1; k <= 40; ++k) check({.m = 5, .n = 33, .k = k});
  for (int64_t k : {63, 64, 65, 66, 67, 127, 255, 257, 1030}) check({.m = 3, .n = 17, .k = k});
}

TEST(ContractionBytes, EveryWidth) {
  for (int64_t n = 1; n <= 70; n += 3) check({.m = 7, .n = n, .k = 14});
  for (int64_t n : {96, 100, 130, 1040}) check({.m = 7, .n = n, .k = 16, .transposed_b = false});
}

TEST(ContractionBytes, TransposedRows) {
  check({.m = 21, .n = 30, .k = 19, .transposed_a = true});
  check({.m = 33, .n = 16, .k = 32, .dynamic_m = true, .transposed_a = true});
}

TEST(ContractionBytes, NothingSaturates) {
  for (Values values : kExtremes) {
    for (int64_t k : {2, 4, 7, 64, 1000}) check({.m = 6, .n = 20, .k = k, .values = values});
    check({.m = 1, .n = 2, .k = 65536, .values = values});  // the longest sum that i32 holds
  }
}

TEST(ContractionBytes, ManyTasks) { check({.m = 150, .n = 200, .k = 300}); }

TEST(ContractionBytes, Requantised) {
  for (int64_t m : {1, 5, 30}) check({.m = m, .n = 50, .k = 24, .requantises = true});
  check({.m = 9, .n = 31, .k = 13, .dynamic_m = true, .requantises = true});
}

TEST(ContractionBytes, BothOperandsOfTheRun) {
  for (bool transposed : {false, true}) {
    for (int64_t k = 1; k <= 18; ++k)
      check({.m = 5, .n = 33, .k = k, .transposed_b = transposed, .computed_b = true});
    for (int64_t n : {1, 7, 16, 31, 48, 64, 100})
      check({.m = 18, .n = n, .k = 197, .transposed_b = transposed, .computed_b = true});
    check({.m = 9,
           .n = 40,
           .k = 64,
           .dynamic_m = true,
           .transposed_b = transposed,
           .computed_b = true});
    for (Values values : kExtremes)
      check({.m = 4,
             .n = 20,
             .k = 1001,
             .values = values,
             .transposed_b = transposed,
             .computed_b = true});
  }
}

TEST(ContractionBytes, WeightsOfFloats) {
  for (DType left : {DType::F32, DType::BF16, DType::F16}) {
    for (int64_t m : {1, 3, 20}) check({.m = m, .n = 50, .k = 33, .left = left});
    check({.m = 4, .n = 100, .k = 16, .dynamic_m = true, .transposed_b = false, .left = left});
  }
}

// Tiles of AMX: rows and columns that fill them or do not, rests of K, and blocks of it.
TEST(ContractionBytes, Tiles) {
  EXPECT_TRUE(serves("x86-64-v4-amx", make_matmul({.m = 5, .n = 3, .k = 32}).program));
  EXPECT_FALSE(serves("x86-64-v4-amx", make_matmul({.m = 4, .n = 3, .k = 32}).program));
  if (const std::string reason = missing_amx(); !reason.empty()) GTEST_SKIP() << reason;
  const auto tiles = [](const Product& product) {
    SCOPED_TRACE(name_of(product));
    expect_tiles_match_interpreter(make_matmul(product));
  };
  for (int64_t m = 5; m <= 50; m += 3) tiles({.m = m, .n = 48, .k = 64});
  for (int64_t m : {1, 4, 5, 15, 16, 17, 31, 33, 64, 127, 260})
    tiles({.m = m, .n = 40, .k = 100, .dynamic_m = true, .requantises = m % 2 == 0});
  for (int64_t k = 33; k <= 132; k += 3) tiles({.m = 19, .n = 33, .k = k});
  for (int64_t k : {767, 768, 769, 1024, 1100, 2048}) tiles({.m = 70, .n = 50, .k = k});
  for (int64_t n : {1, 16, 17, 31, 32, 47, 48, 49, 64, 97, 128})
    tiles({.m = 36, .n = n, .k = 128, .requantises = n % 2 == 0});
  tiles({.m = 520, .n = 64, .k = 128});
  tiles({.m = 21, .n = 30, .k = 99, .transposed_a = true});
  for (bool transposed : {false, true}) {
    for (int64_t k : {64, 100, 130, 800})
      tiles({.m = 40, .n = 50, .k = k, .transposed_b = transposed, .computed_b = true});
  }
  for (Values values : kExtremes) tiles({.m = 20, .n = 20, .k = 1000, .values = values});
}

struct Image {
  int64_t batch = 1, height = 8, width = 9, channels = 8, outputs = 7;
  int64_t kernel_h = 3, kernel_w = 3, stride = 1, border = 0, dilation = 1, groups = 1;
  int64_t padding = 0;  // what stands outside of the image
  bool dynamic = false;
  Values values = Values::Random;
};

ContractionProgram make_convolution(const Image& c) {
  ContractionProgram contraction;
  plan::TargetTraits& traits = contraction.program.traits;
  traits.integer_products = traits.integer_convolutions = traits.integer_weights = true;
  contraction.dtype = DType::I32;
  Bytes bytes(c.values);
  plan::Convolution conv;
  const ir::Dim batch = c.dynamic ? ir::Dim(contraction.symbol("n", 1, 16, 2)) : ir::Dim(c.batch);
  conv.height = c.dynamic ? ir::Dim(contraction.symbol("h", 1, 64, 8)) : ir::Dim(c.height);
  conv.width = c.dynamic ? ir::Dim(contraction.symbol("w", 1, 64, 8)) : ir::Dim(c.width);
  const int64_t span_h = (c.kernel_h - 1) * c.dilation + 1;
  const int64_t span_w = (c.kernel_w - 1) * c.dilation + 1;
  conv.b = loop("b", batch);
  conv.y = loop("y", ir::floordiv(conv.height + 2 * c.border - span_h, c.stride) + 1);
  conv.x = loop("x", ir::floordiv(conv.width + 2 * c.border - span_w, c.stride) + 1);
  conv.o = loop("o", c.outputs);
  conv.channels = c.channels;
  conv.groups = c.groups;
  conv.kernel_h = c.kernel_h;
  conv.kernel_w = c.kernel_w;
  conv.stride_h = conv.stride_w = c.stride;
  conv.dilation_h = conv.dilation_w = c.dilation;
  conv.pad_top = conv.pad_left = c.border;
  conv.padding = c.padding;
  conv.input = contraction.input_of({batch, conv.height, conv.width, c.channels},
                                    bytes.left({c.batch, c.height, c.width, c.channels}));
  conv.weight = constant(contraction,
                         bytes.right({c.outputs, c.kernel_h, c.kernel_w, c.channels / c.groups}));
  conv.out = contraction.output({batch, conv.y.extent(), conv.x.extent(), c.outputs});
  conv.formats = kIntegers;
  conv.epilogue = plan::accumulator(DType::I32);
  contraction.add_kernel(std::move(conv));
  return contraction;
}

std::string name_of(const Image& c) {
  return std::to_string(c.channels) + " channels, width " + std::to_string(c.width) + ", " +
         std::to_string(c.kernel_h) + " x " + std::to_string(c.kernel_w) + ", stride " +
         std::to_string(c.stride) + ", border " + std::to_string(c.border) + ", dilation " +
         std::to_string(c.dilation);
}

void check(const Image& c) {
  SCOPED_TRACE(name_of(c));
  expect_matches_interpreter(make_convolution(c));
}

TEST(ContractionBytes, KernelsAndChannels) {
  for (int64_t channels : {1, 3, 4, 6, 8, 17}) {
    for (int64_t kernel : {1, 2, 3, 7})
      check({.channels = channels, .kernel_h = kernel, .kernel_w = kernel});
  }
}

TEST(ContractionBytes, StridesBordersDilations) {
  for (int64_t channels : {3, 8}) {
    for (int64_t stride : {1, 2}) {
      for (int64_t border : {0, 1, 3}) {
        for (int64_t dilation : {1, 2}) {
          check({.batch = 2,
                 .channels = channels,
                 .stride = stride,
                 .border = border,
                 .dilation = dilation,
                 .padding = 131});
        }
      }
    }
  }
}

TEST(ContractionBytes, Groups) {
  check({.channels = 8, .outputs = 8, .border = 1, .groups = 2, .padding = 255});
  check({.channels = 12, .outputs = 36, .border = 1, .groups = 2});
  check({.channels = 20, .outputs = 10, .stride = 2, .border = 1, .dilation = 2, .groups = 5});
}

TEST(ContractionBytes, RunTimeImages) {
  for (int64_t channels : {3, 16}) {
    check({.batch = 2,
           .height = 11,
           .width = 6,
           .channels = channels,
           .outputs = 20,
           .border = 1,
           .padding = 7,
           .dynamic = true});
  }
}

TEST(ContractionBytes, ImagesByTiles) {
  EXPECT_TRUE(serves("x86-64-v4-amx", make_convolution({.channels = 32}).program));
  if (const std::string reason = missing_amx(); !reason.empty()) GTEST_SKIP() << reason;
  const auto tiles = [](const Image& image) {
    SCOPED_TRACE(name_of(image));
    expect_tiles_match_interpreter(make_convolution(image));
  };
  for (int64_t width : {8, 16, 17, 18, 20, 33, 50})
    tiles({.width = width, .channels = 64, .outputs = 48, .border = 1, .padding = 131});
  for (int64_t channels : {5, 11, 15, 17, 24, 31, 33, 60, 63, 65, 96, 130})
    tiles({.width = 20, .channels = channels, .outputs = 50, .border = 1, .padding = 9});
  tiles({.width = 30,
         .channels = 3,
         .outputs = 64,
         .kernel_h = 7,
         .kernel_w = 7,
         .stride = 2,
         .border = 3,
         .padding = 131});
  tiles({.batch = 3, .width = 30, .channels = 64, .outputs = 70, .stride = 2, .border = 1});
  tiles({.width = 30, .channels = 64, .outputs = 20, .border = 2, .dilation = 2, .padding = 3});
  tiles({.width = 12, .channels = 128, .outputs = 128, .border = 1, .groups = 2, .padding = 255});
  tiles({.width = 12, .channels = 128, .outputs = 48, .kernel_h = 1, .kernel_w = 1, .stride = 2});
  for (int64_t width : {5, 16, 39})
    tiles({.batch = 2,
           .height = 11,
           .width = width,
           .channels = 40,
           .outputs = 20,
           .border = 1,
           .padding = 7,
           .dynamic = true});
}

TEST(ContractionBytes, DeepSumsInChunks) {
  for (int64_t channels : {1056, 2048, 1100})
    check(
        {.height = 3, .width = 3, .channels = channels, .outputs = 5, .border = 1, .padding = 128});
}

TEST(ContractionBytes, ConvolutionsDoNotSaturate) {
  for (Values values : kExtremes)
    check({.channels = 24, .outputs = 18, .border = 1, .padding = 255, .values = values});
}

TEST(ContractionBytes, WeightsArePackedFromTheirKeys) {
  expect_constants_derivable(make_matmul({.m = 3, .n = 21, .k = 14}).program);
  expect_constants_derivable(make_matmul({.m = 3, .n = 21, .k = 14, .left = DType::F32}).program);
  expect_constants_derivable(make_convolution({.channels = 3, .border = 1}).program);
  expect_constants_derivable(make_convolution({.channels = 12, .outputs = 8, .groups = 2}).program);
  expect_constants_derivable(
      make_convolution({.height = 3, .width = 3, .channels = 1056, .outputs = 5}).program);
}

}  // namespace
}  // namespace kiln::test
