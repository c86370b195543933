// MatMul kernels: every size of tile, every source of B, strides, batches and epilogues.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/common/compile_program.h"
#include "backends/common/refill.h"
#include "backends/cpu/compile/cpu_backend.h"
#include "cpu/contraction_harness.h"
#include "plan/form/interpret.h"

namespace kiln::test {
namespace {

using plan::BufferId;
using plan::Loop;

Loop loop(const char* name, const ir::Dim& extent) { return {ir::make_loop_symbol(name, extent)}; }

struct Sizes {
  int64_t m = 1, n = 1, k = 1;
};

// Where B comes from, and how it lies.
enum class B { ConstantKN, ConstantNK, RuntimeKN, RuntimeNK };

std::string name_of(B b) {
  switch (b) {
    case B::ConstantKN:
      return "constant [k, n]";
    case B::ConstantNK:
      return "constant [n, k]";
    case B::RuntimeKN:
      return "run-time [k, n]";
    case B::RuntimeNK:
      return "run-time [n, k]";
  }
  return "";
}

struct Options {
  B b = B::ConstantKN;
  bool dynamic_m = false;
  bool transposed_out = false;
  DType dtype = DType::F32;
  bool transposed_a = false;
};

plan::View matrix(BufferId buffer, int64_t rows, int64_t columns, bool transposed) {
  return transposed ? plan::View{buffer, 0, {1, rows}} : plan::View{buffer, 0, {columns, 1}};
}

// out = a * b, with an epilogue made of the sum and the loops.
using Epilogue = std::function<plan::Expr(ContractionProgram&, const plan::MatMul&)>;

ContractionProgram make_matmul(const Sizes& sizes, const Options& options,
                               const Epilogue& epilogue = nullptr) {
  ContractionProgram contraction;
  contraction.dtype = options.dtype;
  const auto [m, n, k] = sizes;
  const ir::Dim rows =
      options.dynamic_m ? ir::Dim(contraction.symbol("s", 1, 512, 64)) : ir::Dim(m);
  plan::MatMul matmul;
  matmul.m = loop("m", rows);
  matmul.n = loop("n", n);
  matmul.k = loop("k", k);
  matmul.a = options.transposed_a ? plan::View{contraction.input({k, rows}, {k, m}), 0, {1, rows}}
                                  : plan::View{contraction.input({rows, k}, {m, k}), 0, {k, 1}};
  const bool transposed = options.b == B::ConstantNK || options.b == B::RuntimeNK;
  const bool constant = options.b == B::ConstantKN || options.b == B::ConstantNK;
  const std::vector<int64_t> shape =
      transposed ? std::vector<int64_t>{n, k} : std::vector<int64_t>{k, n};
  const ir::Shape type(shape.begin(), shape.end());
  matmul.b = matrix(constant ? contraction.constant(shape) : contraction.input(type, shape), k, n,
                    transposed);
  if (options.transposed_out) {
    matmul.out = {contraction.output({n, rows}), 0, {1, rows}};
  } else {
    matmul.out = {contraction.output({rows, n}), 0, {n, 1}};
  }
  matmul.formats = contraction.formats();
  if (constant) matmul.formats.weight = options.dtype;
  matmul.epilogue = epilogue ? epilogue(contraction, matmul) : contraction.sum(matmul.formats);
  contraction.add_kernel(std::move(matmul));
  return contraction;
}

TEST(ContractionMatMul, EveryRowCount) {
  for (int64_t m = 1; m <= 70; ++m) {
    SCOPED_TRACE("m = " + std::to_string(m));
    expect_matches_interpreter(make_matmul({m, 48, 20}, {}));
  }
}

TEST(ContractionMatMul, EveryRunTimeRowCount) {
  for (int64_t m :
       {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 31, 47, 48, 49, 64, 65, 97, 129, 200, 301}) {
    SCOPED_TRACE("m = " + std::to_string(m));
    expect_matches_interpreter(make_matmul({m, 40, 9}, {.dynamic_m = true}));
  }
}

// Tiles take as much of a panel as fits the registers.
TEST(ContractionMatMul, FewRowsOfEveryWidthAndType) {
  for (DType dtype : {DType::F32, DType::BF16, DType::F16, DType::F64}) {
    for (int64_t n : {16, 47, 64}) {
      for (int64_t m = 1; m <= 5; ++m) {
        SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n));
        expect_matches_interpreter(make_matmul({m, n, 37}, {.dtype = dtype}));
      }
      for (int64_t m : {1, 2}) {
        SCOPED_TRACE("any number of rows, " + std::to_string(m) + " x " + std::to_string(n));
        expect_matches_interpreter(make_matmul({m, n, 37}, {.dynamic_m = true, .dtype = dtype}));
      }
    }
  }
}

TEST(ContractionMatMul, OddSizesFromEverySource) {
  for (B b : {B::ConstantKN, B::ConstantNK, B::RuntimeKN, B::RuntimeNK}) {
    for (const Sizes& sizes :
         {Sizes{5, 1, 1}, Sizes{1, 2, 3}, Sizes{7, 15, 17}, Sizes{3, 16, 5}, Sizes{13, 17, 16},
          Sizes{9, 33, 31}, Sizes{2, 47, 64}, Sizes{6, 65, 33}, Sizes{20, 96, 50}, Sizes{4, 100, 2},
          Sizes{11, 130, 129}, Sizes{1, 1040, 7}}) {
      SCOPED_TRACE(name_of(b) + " " + std::to_string(sizes.m) + " x " + std::to_string(sizes.n) +
                   " x " + std::to_string(sizes.k));
      expect_matches_interpreter(make_matmul(sizes, {.b = b}));
    }
  }
}

TEST(ContractionMatMul, EmptySumIsZero) {
  expect_matches_interpreter(make_matmul({3, 20, 0}, {}));
  expect_matches_interpreter(make_matmul({3, 20, 0}, {.b = B::RuntimeKN}));
}

// Sums that are made of several runs: one step more and less than a whole number of them, and rests.
TEST(ContractionMatMul, LongSums) {
  constexpr int64_t kRun = 16 << 10;
  for (int64_t k : {kRun - 1, kRun, kRun + 1, 2 * kRun, 2 * kRun + 37}) {
    for (int64_t m : {1, 3, 13}) {
      SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(k));
      expect_matches_interpreter(make_matmul({m, 17, k}, {}));
    }
    expect_matches_interpreter(make_matmul({2, 17, k}, {.b = B::RuntimeNK, .dynamic_m = true}));
  }
  for (DType dtype : {DType::BF16, DType::F16, DType::F64})
    expect_matches_interpreter(make_matmul({3, 33, 4 * kRun + 5}, {.dtype = dtype}),
                               Tolerance{1e-5});
}

TEST(ContractionMatMul, ManyTasks) { expect_matches_interpreter(make_matmul({150, 200, 300}, {})); }

TEST(ContractionMatMul, TransposedOutput) {
  expect_matches_interpreter(make_matmul({37, 50, 11}, {.transposed_out = true}));
  expect_matches_interpreter(
      make_matmul({37, 50, 11}, {.dynamic_m = true, .transposed_out = true}));
}

plan::Expr bias_of(ContractionProgram& contraction, const plan::MatMul& matmul) {
  const BufferId bias = contraction.constant({matmul.n.extent().constant()});
  return plan::load_at(bias, DType::F32, {matmul.n.index});
}

plan::Expr residual_of(ContractionProgram& contraction, const plan::MatMul& matmul, int64_t m) {
  const BufferId residual =
      contraction.input({matmul.m.extent(), matmul.n.extent()}, {m, matmul.n.extent().constant()});
  return plan::load_at(residual, DType::F32, {matmul.m.index, matmul.n.index});
}

TEST(ContractionMatMul, BiasReluAndResidual) {
  for (bool dynamic : {false, true}) {
    for (int64_t n : {48, 50, 3}) {
      auto epilogue = [](ContractionProgram& contraction, const plan::MatMul& matmul) {
        plan::Expr sum =
            plan::apply(ir::Op::add, {plan::accumulator(DType::F32), bias_of(contraction, matmul)});
        sum = plan::apply(ir::Op::relu, {sum});
        return plan::apply(ir::Op::add, {sum, residual_of(contraction, matmul, 29)});
      };
      SCOPED_TRACE("n = " + std::to_string(n));
      expect_matches_interpreter(make_matmul({29, n, 12}, {.dynamic_m = dynamic}, epilogue));
    }
  }
}

TEST(ContractionMatMul, HeavyEpilogue) {
  auto epilogue = [](ContractionProgram& contraction, const plan::MatMul& matmul) {
    plan::Expr sum = plan::apply(
        ir::Op::mul, {plan::accumulator(DType::F32), plan::constant(DType::F32, 0.125)});
    sum = plan::apply_gelu(plan::apply(ir::Op::add, {sum, bias_of(contraction, matmul)}), false);
    for (double factor : {0.5, 0.25, 2.0, 0.75}) {
      sum = plan::apply(ir::Op::mul, {sum, plan::constant(DType::F32, factor)});
      sum = plan::apply(ir::Op::tanh, {sum});
    }
    return plan::apply(ir::Op::add, {sum, residual_of(contraction, matmul, 21)});
  };
  expect_matches_interpreter(make_matmul({21, 70, 9}, {}, epilogue), 1e-6);
  expect_matches_interpreter(make_matmul({21, 70, 9}, {.dynamic_m = true}, epilogue), 1e-6);
}

TEST(ContractionMatMul, EpilogueThatReadsPositions) {
  auto epilogue = [](ContractionProgram&, const plan::MatMul& matmul) {
    const plan::Expr position =
        plan::cast(plan::position(ir::Dim(matmul.m.index) * 100 + matmul.n.index), DType::F32);
    return plan::apply(ir::Op::add, {plan::accumulator(DType::F32), position});
  };
  expect_matches_interpreter(make_matmul({19, 50, 4}, {}, epilogue));
}

// a[b, m, k] * b[b or 0, k, n] as heads of a fused projection: rows far apart, results interleaved.
TEST(ContractionMatMul, BatchedAndStrided) {
  for (bool broadcast : {false, true}) {
    for (int64_t n : {32, 21}) {
      const int64_t batch = 3, heads = 2, m = 10, k = 17;
      ContractionProgram contraction;
      plan::MatMul matmul;
      matmul.batch = {loop("b", batch), loop("h", heads)};
      matmul.m = loop("m", m);
      matmul.n = loop("n", n);
      matmul.k = loop("k", k);
      const BufferId a = contraction.input({batch, m, heads, k}, {batch, m, heads, k});
      const BufferId b = contraction.input({heads, k, n}, {heads, k, n});
      const BufferId out = contraction.output({batch, m, heads, n});
      matmul.a = {a, 0, {m * heads * k, k, heads * k, 1}};
      matmul.b = {b, 0, {0, broadcast ? 0 : k * n, n, 1}};
      matmul.out = {out, 0, {m * heads * n, n, heads * n, 1}};
      matmul.epilogue = plan::accumulator(DType::F32);
      contraction.add_kernel(std::move(matmul));
      SCOPED_TRACE("n = " + std::to_string(n) + (broadcast ? ", broadcast" : ""));
      expect_matches_interpreter(contraction);
    }
  }
}

// scores[b, m, n] = q[b, m, :] . k[b, n, :], with both sizes known at run time only.
TEST(ContractionMatMul, RunTimeSizes) {
  for (int64_t length : {1, 5, 16, 33, 70}) {
    ContractionProgram contraction;
    const ir::Dim size = contraction.symbol("s", 1, 100, 32);
    const int64_t batch = 2, k = 24;
    plan::MatMul scores;
    scores.batch = {loop("b", batch)};
    scores.m = loop("m", size);
    scores.n = loop("n", size);
    scores.k = loop("k", k);
    scores.a = {contraction.input({batch, size, k}, {batch, length, k}), 0, {size * k, k, 1}};
    scores.b = {contraction.input({batch, size, k}, {batch, length, k}), 0, {size * k, 1, k}};
    scores.out = {contraction.output({batch, size, size}), 0, {size * size, size, 1}};
    scores.epilogue = plan::accumulator(DType::F32);
    contraction.add_kernel(std::move(scores));
    SCOPED_TRACE("length " + std::to_string(length));
    expect_matches_interpreter(contraction);
  }
}

// out[b, m, n] = p[b, m, :] * v[b, :, n] with a run-time K.
void check_run_time_depth(DType dtype) {
  for (int64_t length : {1, 6, 31, 32, 33, 40, 64}) {
    for (int64_t n : {32, 20}) {
      ContractionProgram contraction;
      contraction.dtype = dtype;
      const ir::Dim size = contraction.symbol("s", 1, 100, 32);
      plan::MatMul matmul;
      matmul.m = loop("m", size);
      matmul.n = loop("n", n);
      matmul.k = loop("k", size);
      matmul.a = {contraction.input({size, size}, {length, length}), 0, {size, 1}};
      matmul.b = {contraction.input({size, n}, {length, n}), 0, {n, 1}};
      matmul.out = {contraction.output({size, n}), 0, {n, 1}};
      matmul.formats = contraction.formats();
      matmul.epilogue = contraction.sum(matmul.formats);
      contraction.add_kernel(std::move(matmul));
      SCOPED_TRACE("length " + std::to_string(length) + ", n " + std::to_string(n));
      expect_matches_interpreter(contraction);
    }
  }
}

TEST(ContractionMatMul, RunTimeDepth) {
  for (DType dtype : {DType::F32, DType::BF16}) check_run_time_depth(dtype);
}

// Levels that serve some programs alone are in those, and share the packed weight with the others.
TEST(ContractionMatMul, ProductsOfBf16HaveALevelOfTheirOwn) {
  const auto compiled = [](DType dtype, const Sizes& sizes) {
    const ContractionProgram contraction = make_matmul(sizes, {.dtype = dtype});
    return backend::compile_program(cpu_backend(), contraction.program, {{}, 1});
  };
  using Names = std::vector<std::string>;
  const Names plain = {"x86-64-v4", "x86-64-v3"};
  const Names pairs = {"x86-64-v4-bf16", "x86-64-v4", "x86-64-v3"};
  const Names tiles = {"x86-64-v4-amx", "x86-64-v4-bf16", "x86-64-v4", "x86-64-v3"};
  for (const auto& [dtype, sizes, names] : {std::tuple(DType::F32, Sizes{30, 48, 64}, plain),
                                            std::tuple(DType::F16, Sizes{30, 48, 64}, plain),
                                            std::tuple(DType::BF16, Sizes{3, 48, 21}, pairs),
                                            std::tuple(DType::BF16, Sizes{30, 48, 53}, tiles)}) {
    const CompiledProgram program = compiled(dtype, sizes);
    Names found;
    for (const engine::ProgramSpec& part : program.spec.programs) found.push_back(part.variant);
    EXPECT_EQ(found, names) << dtype_name(dtype);
    const auto weight = [&](size_t p) {
      const auto& constants = program.constants[p];
      return std::ranges::find_if(constants, [](const auto& c) { return !c.bytes.empty(); })
          ->bytes.data();
    };
    for (size_t p = 1; p < names.size(); ++p) EXPECT_EQ(weight(p), weight(0));
  }
}

// Tiles of AMX: rows and columns that fill them or do not, rests of K, and blocks of it.
TEST(ContractionMatMul, Tiles) {
  const auto make = [](const Sizes& sizes, Options options = {}) {
    options.dtype = DType::BF16;
    return make_matmul(sizes, options);
  };
  const auto check = [&](const Sizes& sizes, const Options& options = {}) {
    SCOPED_TRACE(name_of(options.b) + " " + std::to_string(sizes.m) + " x " +
                 std::to_string(sizes.n) + " x " + std::to_string(sizes.k));
    expect_tiles_match_interpreter(make(sizes, options));
  };
  EXPECT_TRUE(serves("x86-64-v4-amx", make({5, 3, 16}).program));
  EXPECT_FALSE(serves("x86-64-v4-amx", make({4, 3, 16}).program));
  EXPECT_FALSE(serves("x86-64-v4-amx", make({5, 3, 7}).program));
  if (const std::string reason = missing_amx(); !reason.empty()) GTEST_SKIP() << reason;
  for (int64_t m = 5; m <= 50; m += 3) check({m, 48, 32});
  for (int64_t m : {1, 4, 5, 15, 16, 17, 31, 33, 64, 127, 260})
    check({m, 40, 50}, {.dynamic_m = true});
  for (int64_t k = 8; k <= 80; k += 3) check({19, 33, k});
  for (int64_t k : {383, 384, 385, 512, 550, 1024}) check({70, 50, k});
  for (int64_t n : {1, 16, 17, 31, 32, 47, 48, 49, 64, 97, 128}) check({36, n, 64});
  check({520, 64, 64});
  for (B b : {B::ConstantNK, B::RuntimeKN, B::RuntimeNK}) {
    for (int64_t k : {32, 50, 65, 400}) check({40, 50, k}, {.b = b});
  }
  check({37, 50, 33}, {.transposed_out = true});
  check({37, 50, 33}, {.transposed_a = true});
}

// Products with an infinity or a NaN are what they are as f32, in whatever place of a tile.
TEST(ContractionMatMul, TilesOfInfinitiesAndNans) {
  if (const std::string reason = missing_amx(); !reason.empty()) GTEST_SKIP() << reason;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int64_t k : {32, 44}) {
    ContractionProgram contraction =
        make_matmul({21, 20, k}, {.b = B::RuntimeNK, .dtype = DType::BF16});
    for (ir::Literal& input : contraction.inputs) {
      int64_t i = 0;
      const ir::Literal usual = input;
      input = converted(float_literal(input.shape,
                                      [&] {
                                        const int64_t at = i++;
                                        if (at == 3 * k + 5) return kInfinity;
                                        if (at == 7 * k + 1) return -kInfinity;
                                        if (at == 9 * k + k - 1)
                                          return std::numeric_limits<float>::quiet_NaN();
                                        return static_cast<float>(usual.as_double(at));
                                      }),
                        DType::BF16);
    }
    expect_tiles_match_interpreter(contraction);
  }
}

TEST(ContractionMatMul, EveryTypeFromEverySource) {
  for (DType dtype : kFloatingTypes) {
    for (B b : {B::ConstantKN, B::ConstantNK, B::RuntimeKN, B::RuntimeNK}) {
      for (const Sizes& sizes : {Sizes{1, 48, 20}, Sizes{1, 2, 3}, Sizes{7, 17, 33},
                                 Sizes{15, 64, 16}, Sizes{16, 64, 16}, Sizes{37, 100, 21},
                                 Sizes{64, 96, 256}, Sizes{5, 1, 1}, Sizes{70, 30, 512}}) {
        SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + name_of(b) + " " +
                     std::to_string(sizes.m) + " x " + std::to_string(sizes.n) + " x " +
                     std::to_string(sizes.k));
        expect_matches_interpreter(make_matmul(sizes, {.b = b, .dtype = dtype}));
      }
    }
  }
}

TEST(ContractionMatMul, EveryTypeWithStridesAndRunTimeRows) {
  for (DType dtype : kFloatingTypes) {
    for (int64_t m : {1, 6, 13, 40, 300}) {
      SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(m));
      expect_matches_interpreter(make_matmul({m, 40, 9}, {.dynamic_m = true, .dtype = dtype}));
    }
    SCOPED_TRACE(std::string(dtype_name(dtype)));
    expect_matches_interpreter(make_matmul({37, 50, 11}, {.transposed_out = true, .dtype = dtype}));
    expect_matches_interpreter(make_matmul({37, 50, 11}, {.dtype = dtype, .transposed_a = true}));
    expect_matches_interpreter(make_matmul({3, 20, 0}, {.dtype = dtype}));
  }
}

// 16-bit weights are 16 bits an element in the engine, and a refit makes the same constants.
TEST(ContractionMatMul, ConstantsArePackedAsTheWeightFormatSays) {
  for (DType dtype : kFloatingTypes) {
    SCOPED_TRACE(std::string(dtype_name(dtype)));
    const plan::Program program = make_matmul({4, 40, 24}, {.dtype = dtype}).program;
    const CompiledProgram compiled =
        backend::compile_program(cpu_backend(), program, {{"x86-64-v3"}, 1});
    const EngineConstants refilled =
        backend::refill_constants(cpu_backend(), compiled.spec, program, 1);
    const std::vector<engine::BufferSpec>& buffers = compiled.spec.programs.at(0).buffers;
    int packed = 0;
    for (size_t i = 0; i < buffers.size(); ++i) {
      if (buffers[i].transform.empty()) continue;
      ++packed;
      const ir::Literal& constant = compiled.constants.at(0).at(i);
      EXPECT_EQ(constant.dtype, dtype);
      EXPECT_EQ(constant.bytes.size(), 48 * 24 * dtype_size(dtype));
      EXPECT_TRUE(std::ranges::equal(constant.bytes, refilled.at(0).at(i).bytes));
    }
    EXPECT_EQ(packed, 1);
  }
}

// Sums of f32 stored as f64, column after column.
TEST(ContractionMatMul, TransposedOutputOfAWiderType) {
  ContractionProgram contraction = make_matmul({37, 50, 11}, {.transposed_out = true});
  auto& matmul = std::get<plan::MatMul>(contraction.program.kernels[0].body);
  contraction.program.buffers[matmul.out.buffer].type.dtype = DType::F64;
  matmul.epilogue = plan::cast(matmul.epilogue, DType::F64);
  expect_matches_interpreter(contraction);
}

// Operands are rounded to what they are multiplied as: an integer and a thousandth of it is the integer.
TEST(ContractionMatMul, OperandsThatAreRoundedAsTheyAreRead) {
  const auto blur = [](ir::Literal& literal) {
    int64_t i = 0;
    literal = float_literal(literal.shape, [&] {
      return static_cast<float>(literal.as_double(i++)) * (1 + 1.0F / 1024);
    });
  };
  for (B b : {B::ConstantKN, B::ConstantNK, B::RuntimeKN, B::RuntimeNK}) {
    for (int64_t m : {1, 40}) {
      SCOPED_TRACE(name_of(b) + " " + std::to_string(m));
      ContractionProgram contraction = make_matmul({m, 48, 33}, {.b = b});
      auto& matmul = std::get<plan::MatMul>(contraction.program.kernels[0].body);
      for (ir::Literal& input : contraction.inputs) blur(input);
      plan::Buffer& weight = contraction.program.buffers[matmul.b.buffer];
      if (weight.kind == plan::BufferKind::Constant) blur(weight.literal);
      matmul.formats = {DType::BF16, DType::BF16, DType::F32, DType::BF16};
      const auto expected = plan::interpret(contraction.program, contraction.inputs);
      EXPECT_EQ(expected[0].as_double(0), std::round(expected[0].as_double(0)));
      expect_matches_interpreter(contraction);
    }
  }
}

// A itself transposed, and a window of a larger matrix.
TEST(ContractionMatMul, StridedA) {
  ContractionProgram contraction;
  const int64_t m = 23, n = 18, k = 13;
  plan::MatMul matmul;
  matmul.m = loop("m", m);
  matmul.n = loop("n", n);
  matmul.k = loop("k", k);
  matmul.a = {contraction.input({k + 2, m + 3}, {k + 2, m + 3}), 2 * (m + 3) + 1, {1, m + 3}};
  matmul.b = {contraction.constant({k, n}), 0, {n, 1}};
  matmul.out = {contraction.output({m, n}), 0, {n, 1}};
  matmul.epilogue = plan::accumulator(DType::F32);
  contraction.add_kernel(std::move(matmul));
  expect_matches_interpreter(contraction);
}

}  // namespace
}  // namespace kiln::test
