// Each rule of docs/plan.md is checked: a program that breaks it is refused, with the rule's
// number.
#include <gtest/gtest.h>

#include "plan/compare.h"
#include "plan/form/access.h"
#include "plan/form/parts.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

Program sample() {
  return lowered(R"(graph main(%x: f32[s, 6], %w: f32[4, 6]) symbols s in [1, 8] opt 2 {
  %a = neg(%x)
  %t = reduce_sum(%a) {axes = [1], keepdim = false}
  %l = linear(%a, %w)
  return %t as "t", %l as "l"
})");
}

std::string error_of(const Program& program) {
  try {
    verify(program);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "no error";
}

void expect_rule(const Program& program, const std::string& rule) {
  const std::string error = error_of(program);
  EXPECT_NE(error.find("plan rule " + rule + ","), std::string::npos) << error;
}

LoopNest& nest(Program& program, size_t kernel) {
  return std::get<LoopNest>(program.kernels[kernel].body);
}
Store& store(Program& program, size_t kernel) {
  return std::get<Store>(nest(program, kernel).stages.back());
}
MatMul& matmul(Program& program) { return std::get<MatMul>(program.kernels[2].body); }

Program with_formats(const Formats& formats) {
  Program program = sample();
  matmul(program).formats = formats;
  matmul(program).epilogue = cast(accumulator(formats.accumulator), DType::F32);
  return program;
}

TEST(VerifyTest, AcceptsWhatIsLowered) { EXPECT_EQ(error_of(sample()), "no error"); }

TEST(VerifyTest, P1Buffers) {
  Program program = sample();
  program.buffers[program.outputs[0]].kind = BufferKind::Temporary;
  expect_rule(program, "P1");
  program = sample();
  store(program, 0).buffer = 99;
  expect_rule(program, "P1");
}

TEST(VerifyTest, P2Names) {
  Program program = sample();
  program.kernels[1].name = program.kernels[0].name;
  expect_rule(program, "P2");
}

TEST(VerifyTest, P3Scopes) {
  Program program = sample();
  nest(program, 0).outer.pop_back();
  expect_rule(program, "P3");
  program = sample();
  nest(program, 0).outer.push_back(nest(program, 0).outer[0]);
  expect_rule(program, "P3");
  program = sample();
  matmul(program).epilogue =
      load_at(matmul(program).a.buffer, DType::F32, {0, Index(matmul(program).k.index)});
  expect_rule(program, "P3");
}

// Sizes that are known behind the kernel that writes their number.
TEST(VerifyTest, P14DataSizes) {
  const auto program_of = [] {
    return lowered(R"(graph main(%n: i64[]) symbols u in [0, 9] opt 4 {
  %c = data_size(%n) {size = u}
  %y = full() {shape = [u], dtype = f32, value = 1}
  return %y as "y"
})");
  };
  Program program = program_of();
  EXPECT_EQ(error_of(program), "no error");
  EXPECT_EQ(reads_of_sizes(program), std::vector<size_t>{1});
  std::swap(program.kernels[0], program.kernels[1]);
  expect_rule(program, "P3");
  EXPECT_THROW(reads_of_sizes(program), InternalError);
  program = program_of();
  program.buffers[program.data_sizes[0].count].type.dtype = DType::I32;
  EXPECT_NE(error_of(program), "no error");
  program = program_of();
  program.data_sizes[0].count = program.inputs[0];
  expect_rule(program, "P3");
}

TEST(VerifyTest, P4Types) {
  Program program = sample();
  store(program, 0).value = cast(store(program, 0).value, DType::F64);
  expect_rule(program, "P4");
  program = sample();
  store(program, 0).value = accumulator(DType::F32);
  expect_rule(program, "P4");
  program = sample();
  store(program, 1).value = reduced(1, DType::F32);
  expect_rule(program, "P4");
}

TEST(VerifyTest, P5Bounds) {
  Program program = sample();
  Store& target = store(program, 0);
  target.value = load_at(program.inputs[0], DType::F32, {target.indices[0], target.indices[1] + 1});
  expect_rule(program, "P5");
  program = sample();
  store(program, 0).indices[1] += 1;
  expect_rule(program, "P5");
}

TEST(VerifyTest, P5AcceptsPredicates) {
  Program program = sample();
  Store& target = store(program, 0);
  const Index next = target.indices[1] + 1;
  const Expr inside = apply(ir::Op::lt, {position(next), position(6)});
  target.value = load_at(program.inputs[0], DType::F32, {target.indices[0], next}, inside);
  EXPECT_EQ(error_of(program), "no error");
}

TEST(VerifyTest, P6Views) {
  Program program = sample();
  matmul(program).a.offset = 1;
  expect_rule(program, "P6");
  program = sample();
  matmul(program).out.strides.pop_back();
  expect_rule(program, "P6");
}

TEST(VerifyTest, P7Order) {
  Program program = sample();
  std::swap(program.kernels[0], program.kernels[1]);
  expect_rule(program, "P7");
  program = sample();
  program.kernels.pop_back();
  expect_rule(program, "P7");
  program = sample();
  store(program, 0).buffer = program.inputs[0];
  expect_rule(program, "P7");
}

TEST(VerifyTest, P8Aliases) {
  Program program = sample();
  Buffer& temporary = program.buffers[store(program, 0).buffer];
  temporary.alias_of = program.inputs[0];
  expect_rule(program, "P8");
  program = lowered(
      "graph main(%x: f32[4]) {\n %a = neg(%x)\n %b = exp(%a)\n %c = add(%a, %b)\n return %c\n}");
  program.buffers[store(program, 1).buffer].alias_of = store(program, 0).buffer;
  expect_rule(program, "P8");
}

TEST(VerifyTest, P9Checks) {
  const auto with_check = [](CheckKind kind, Expr value, int32_t id) {
    Program program = sample();
    program.checks = {{"embedding", -1}};
    Store& target = store(program, 0);
    const Expr checked = check(std::move(value), kind, 2, id);
    target.value = apply(ir::Op::add, {target.value, cast(checked, DType::F32)});
    return program;
  };
  const Program plain = sample();
  const Expr element = load_at(plain.inputs[0], DType::F32, {0, 0});
  const Expr index = cast(element, DType::I64);
  EXPECT_EQ(error_of(with_check(CheckKind::Index, index, 0)), "no error");
  expect_rule(with_check(CheckKind::Index, index, 1), "P9");
  expect_rule(with_check(CheckKind::Index, index, -1), "P9");
  expect_rule(with_check(CheckKind::Index, cast(index, DType::I32), 0), "P4");
  expect_rule(with_check(CheckKind::Nonzero, element, 0), "P4");
  Program program = with_check(CheckKind::Index, index, 0);
  matmul(program).epilogue =
      apply(ir::Op::add,
            {matmul(program).epilogue, cast(check(index, CheckKind::Index, 2, 0), DType::F32)});
  expect_rule(program, "P9");
}

Program places() {
  return lowered(
      R"(graph main(%x: f32[s, 4], %i: i64[9, 1], %v: f32[9, 4]) symbols s in [1, 9] opt 5 {
  %o = argsort(%x) {axis = 1, descending = false, count = 2}
  %y = scatter(%x, %i, %v) {axis = 0, combine = "sum"}
  return %o as "o", %y as "y"
})");
}

TEST(VerifyTest, SortsAndScatters) {
  EXPECT_EQ(error_of(places()), "no error");
  Program program = places();
  std::get<Sort>(program.kernels[0].body).out.buffer = program.outputs[1];
  expect_rule(program, "P4");
  program = places();
  std::get<Sort>(program.kernels[0].body).out.offset = 1;
  expect_rule(program, "P6");
  program = places();
  auto* scatter = &std::get<Scatter>(program.kernels[1].body);
  scatter->index = cast(scatter->index, DType::I32);
  expect_rule(program, "P4");
  program = places();
  scatter = &std::get<Scatter>(program.kernels[1].body);
  scatter->value = load_at(program.inputs[0], DType::F32, {Index(scatter->write.index), 0});
  expect_rule(program, "P5");
  program = places();
  scatter = &std::get<Scatter>(program.kernels[1].body);
  scatter->initial = load_at(program.inputs[0], DType::F32, {Index(scatter->write.index), 0});
  expect_rule(program, "P3");
}

TEST(VerifyTest, P10Formats) {
  using enum DType;
  EXPECT_EQ(error_of(with_formats({F32, F32, F32, F32})), "no error");
  EXPECT_EQ(error_of(with_formats({BF16, F16, F32, F16})), "no error");
  EXPECT_EQ(error_of(with_formats({F32, F64, F64, F64})), "no error");
  expect_rule(with_formats({BF16, BF16, BF16, BF16}), "P10");
  expect_rule(with_formats({F64, F32, F32, F32}), "P10");
  expect_rule(with_formats({I8, I8, I32, I8}), "P10");
  Program program = with_formats({F32, F32, F32, BF16});
  EXPECT_EQ(error_of(program), "no error");
  matmul(program).b.buffer = program.inputs[1];  // no constant
  expect_rule(program, "P10");
  expect_rule(with_formats({F32, BF16, F32, F32}), "P10");
  program = with_formats({F32, F32, F64, F32});
  matmul(program).epilogue = accumulator(F32);
  expect_rule(program, "P4");
}

// The sample with a weight of i8 and, for sums of i32, an input of u8.
Program with_bytes(const Formats& formats, DType left) {
  Program program = with_formats(formats);
  Buffer& weight = program.buffers[matmul(program).b.buffer];
  std::byte* data = nullptr;
  weight.literal = ir::Literal::allocate(DType::I8, weight.literal.shape, &data);
  weight.type = weight.literal.type();
  if (left == DType::F32) return program;
  BufferId& rows = matmul(program).a.buffer;
  rows = program.add_buffer(
      {BufferKind::Input, "bytes", {left, program.buffers[rows].type.shape}, {}, -1});
  return program;
}

TEST(VerifyTest, P10Integers) {
  using enum DType;
  const Formats integers{U8, I8, I32, I8};
  EXPECT_EQ(error_of(with_bytes(integers, U8)), "no error");
  EXPECT_EQ(error_of(with_bytes({F32, F32, F32, I8}, F32)), "no error");
  expect_rule(with_bytes(integers, F32), "P10");
  expect_rule(with_bytes(integers, I8), "P10");
  expect_rule(with_bytes({I8, I8, I32, I8}, I8), "P10");
  expect_rule(with_formats(integers), "P10");  // a weight of f32
  expect_rule(with_formats({F32, F32, F32, I8}), "P10");
  Program program = with_bytes(integers, U8);
  program.traits.integer_products = false;
  expect_rule(program, "P10");
  const auto computed = [](Program sample) {
    sample.buffers[matmul(sample).b.buffer].kind = BufferKind::Input;
    return sample;
  };
  EXPECT_EQ(error_of(computed(with_bytes(integers, U8))), "no error");
  expect_rule(computed(with_bytes({F32, F32, F32, I8}, F32)), "P10");
}

TEST(VerifyTest, P15Groups) {
  using enum DType;
  const auto with_groups = [](int64_t size, DType scale) {
    Program sample = with_bytes({F32, F32, F32, I8}, F32);
    MatMul& product = matmul(sample);
    const int64_t n = product.n.extent().constant(), k = product.k.extent().constant();
    const int64_t groups = (k + size - 1) / size;
    std::byte* data = nullptr;
    Buffer scales{BufferKind::Constant, "scales", {scale, {n, groups}}, {}, -1};
    scales.literal = ir::Literal::allocate(scale, {n, groups}, &data);
    product.groups = Groups{size, 8, {sample.add_buffer(scales), 0, {1, groups}}, {}};
    return sample;
  };
  Program sample = with_groups(1, F32);
  EXPECT_EQ(error_of(sample), "no error");
  EXPECT_EQ(error_of(with_groups(1, BF16)), "no error");
  expect_rule(with_groups(1, F64), "P15");
  expect_rule(with_groups(1, I8), "P15");
  matmul(sample).groups->bits = 5;
  expect_rule(sample, "P15");
  sample = with_groups(1, F32);
  matmul(sample).groups->size = 0;
  expect_rule(sample, "P15");
  sample = with_groups(1, F32);
  sample.buffers[matmul(sample).groups->scales.buffer].kind = BufferKind::Temporary;
  EXPECT_NE(error_of(sample), "no error");
  sample = with_groups(1, F32);
  matmul(sample).groups->scales.offset = 1;
  expect_rule(sample, "P6");
  // More steps in the last group than b has rows.
  expect_rule(with_groups(matmul(sample).k.extent().constant() + 1, F32), "P6");
}

// The sample with a weight of f8e4m3 and, if the left format is that too, such an input.
Program with_float8(const Formats& formats) {
  Program program = with_formats(formats);
  Buffer& weight = program.buffers[matmul(program).b.buffer];
  std::byte* data = nullptr;
  weight.literal = ir::Literal::allocate(DType::F8E4M3, weight.literal.shape, &data);
  weight.type = weight.literal.type();
  BufferId& rows = matmul(program).a.buffer;
  if (formats.left == DType::F8E4M3)
    rows = program.add_buffer(
        {BufferKind::Input, "codes", {DType::F8E4M3, program.buffers[rows].type.shape}, {}, -1});
  return program;
}

TEST(VerifyTest, P10Float8) {
  using enum DType;
  const Formats both{F8E4M3, F8E4M3, F32, F8E4M3}, weight{F32, F32, F32, F8E4M3};
  EXPECT_EQ(error_of(with_float8(both)), "no error");
  EXPECT_EQ(error_of(with_float8(weight)), "no error");
  expect_rule(with_float8({F8E4M3, F32, F32, F32}), "P10");
  expect_rule(with_float8({F8E4M3, F8E4M3, F64, F8E4M3}), "P10");
  Program program = with_float8(both);
  program.traits.float8_products = false;
  expect_rule(program, "P10");
  program = with_float8(weight);
  program.traits.float8_weight_rows = 0;
  expect_rule(program, "P10");
}

TEST(VerifyTest, P16Pools) {
  const auto pooled = [](const std::string& type, const Pool& pool) {
    Program program = lowered("graph main(%x: " + type + "[2, 9, 9, 3], %w: " + type +
                              "[8, 3, 3, 3]) {\n  %y = convolution(%x, %w) {stride = [1, 1], "
                              "padding_before = [1, 1], padding_after = [1, 1], dilation = [1, 1], "
                              "groups = 1, layout = \"nhwc\"}\n  return %y as \"y\"\n}");
    std::get<Convolution>(program.kernels.back().body).pool = pool;
    return program;
  };
  Pool same{make_loop("py", 9), make_loop("px", 9), 3, 3, 1, 1, 1, 1};
  EXPECT_EQ(error_of(pooled("f16", same)), "no error");
  expect_rule(pooled("f32", same), "P16");
  same.pad_top = 3;  // a window without results
  expect_rule(pooled("f16", same), "P16");
  same = {make_loop("py", 4), make_loop("px", 9), 3, 3, 1, 1, 1, 1};
  expect_rule(pooled("f16", same), "P6");
}

TEST(VerifyTest, P19SecondSums) {
  const auto added = [](const std::string& type, const PixelSum& second) {
    Program program =
        lowered("graph main(%x: " + type + "[2, 9, 9, 8], %z: " + type +
                "[2, 17, 18, 16], %w: " + type + "[24, 3, 3, 8], %w2: " + type +
                "[24, 1, 1, 16]) {\n  %c = convolution(%x, %w) {stride = [1, 1], "
                "padding_before = [1, 1], padding_after = [1, 1], dilation = [1, 1], "
                "groups = 1, layout = \"nhwc\"}\n  %e = convolution(%z, %w2) {stride = "
                "[2, 2], padding_before = [0, 0], padding_after = [0, 0], dilation = "
                "[1, 1], groups = 1, layout = \"nhwc\"}\n"
                "  return %c as \"c\", %e as \"e\"\n}");
    PixelSum whole = second;
    const auto& e = std::get<Convolution>(program.kernels.at(1).body);
    whole.input = e.input;
    whole.weight = e.weight;
    std::get<Convolution>(program.kernels.at(0).body).second = whole;
    return program;
  };
  const PixelSum second{.height = 17, .width = 18, .channels = 16, .stride_h = 2, .stride_w = 2};
  EXPECT_EQ(error_of(added("f16", second)), "no error");
  expect_rule(added("f32", second), "P19");
  PixelSum other = second;
  other.channels = 8;
  expect_rule(added("f16", other), "P6");
  other = second;
  other.stride_h = 3;  // rows that there are not
  expect_rule(added("f16", other), "P19");
}

}  // namespace
}  // namespace kiln::plan
