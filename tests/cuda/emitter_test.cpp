// The emitter: positions, literals, operands, epilogues.
#include "backends/cuda/compile/emit/emitter.h"

#include <gtest/gtest.h>

#include <limits>

#include "backends/cuda/compile/emit/literals.h"
#include "backends/cuda/compile/nvrtc.h"
#include "cuda/kernels.h"
#include "plan/form/access.h"

namespace kiln::test {
namespace {

using cuda::Emitter;
using ir::Dim;

class CudaEmitter : public testing::Test {
 protected:
  plan::BufferId add_buffer(DType dtype, std::vector<Dim> shape) {
    plan::Buffer buffer;
    buffer.type = {dtype, ir::Shape(shape.begin(), shape.end())};
    return program_.add_buffer(buffer);
  }

  plan::Program program_;
  backend::GeneratedKernel result_{program_};
  cuda::KernelContext context_{program_, target_named("sm_90"), result_};
  Emitter emitter_{context_};
};

TEST_F(CudaEmitter, PositionsAreIntsWhereEveryStepFits) {
  const auto i = ir::make_loop_symbol("i", Dim(1 << 20));
  EXPECT_TRUE(cuda::fits_int(Dim(i) * 1000));
  EXPECT_FALSE(cuda::fits_int(Dim(i) * 3000));
  // The difference fits, its terms do not.
  const auto j = ir::make_loop_symbol("j", Dim(1 << 20));
  EXPECT_FALSE(cuda::fits_int(Dim(i) * 2000 - Dim(j) * 2000));
  const auto n = ir::make_size_symbol("n", 1, ir::kDimInfinity, 8);
  EXPECT_FALSE(cuda::fits_int(Dim(n)));
  EXPECT_STREQ(cuda::position_type(ir::mod(Dim(n), Dim(7))), "long long");
}

TEST_F(CudaEmitter, PositionsWidenBeforeTheyMultiply) {
  const auto i = ir::make_loop_symbol("i", Dim(1 << 20));
  emitter_.bind(i, "i");
  EXPECT_EQ(emitter_.position(Dim(i) * 8 + 1), "(i * 8 + 1)");
  EXPECT_EQ(emitter_.position(Dim(i) * 5000), "((long long)i * 5000ll)");
}

TEST_F(CudaEmitter, SizesAreParameters) {
  const auto n = ir::make_size_symbol("n", 1, 4096, 8);
  const auto i = ir::make_loop_symbol("i", Dim(n));
  emitter_.bind(i, "i");
  EXPECT_EQ(emitter_.position(Dim(i) * Dim(n) * 3 + Dim(n)), "(i * n0 + n1)");
  EXPECT_EQ(result_.interface.params, (std::vector<Dim>{Dim(n) * 3, Dim(n)}));
}

TEST_F(CudaEmitter, DivisionsByWhatMayBeZeroDoNotTrap) {
  const auto n = ir::make_size_symbol("n", 0, 4096, 8);
  const auto i = ir::make_loop_symbol("i", Dim(n) * Dim(n));
  emitter_.bind(i, "i");
  const std::string name = emitter_.position(ir::floordiv(Dim(i), Dim(n)));
  const std::string text = emitter_.finish({});
  EXPECT_NE(text.find(name + " = (int)((unsigned)i / (unsigned)(n0 == 0 ? 1 : n0))"),
            std::string::npos)
      << text.substr(text.find("extern"));
}

TEST_F(CudaEmitter, LiteralsAreExact) {
  EXPECT_EQ(cuda::floating_literal(DType::F32, 0.1), "0x1.99999ap-4f");
  EXPECT_EQ(cuda::floating_literal(DType::F64, 0.1), "0x1.999999999999ap-4");
  EXPECT_EQ(cuda::floating_literal(DType::F16, -0.0), "(-0x0p+0f)");
  EXPECT_EQ(cuda::floating_literal(DType::F32, -std::numeric_limits<double>::infinity()),
            "__int_as_float(0xff800000)");
  EXPECT_EQ(cuda::integer_literal(DType::I64, std::numeric_limits<int64_t>::min()),
            "(-9223372036854775807ll - 1)");
  EXPECT_EQ(cuda::integer_literal(DType::I8, -128), "(signed char)(-128)");
  EXPECT_EQ(cuda::integer_literal(DType::Bool, 1), "true");
}

TEST_F(CudaEmitter, OnlyWhatIsNotWrittenIsReadOnly) {
  const plan::BufferId x = add_buffer(DType::F16, {8}), y = add_buffer(DType::F32, {8});
  const auto i = ir::make_loop_symbol("i", Dim(8));
  emitter_.bind(i, "i");
  emitter_.store(y, {Dim(i)},
                 emitter_.value(plan::cast(plan::load_at(x, DType::F16, {Dim(i)}), DType::F32)));
  const std::string text = emitter_.finish({.threads = 64});
  EXPECT_NE(text.find("__launch_bounds__(64) kernel(const half_t* __restrict__ b0, float* b1) {"),
            std::string::npos);
}

// As the generators of contractions use it: a function of the kernel with the finished sum.
TEST_F(CudaEmitter, EpiloguesAreFunctionsOfTheirKernel) {
  const plan::BufferId bias = add_buffer(DType::F16, {64}), out = add_buffer(DType::F16, {32, 64});
  const plan::Loop m = plan::make_loop("m", 32), n = plan::make_loop("n", 64);
  const plan::Expr sum = plan::apply(
      ir::Op::add, {plan::accumulator(DType::F32),
                    plan::cast(plan::load_at(bias, DType::F16, {Dim(n.index)}), DType::F32)});
  emitter_.open("const auto finish = [&](float sum, int row, int column)");
  emitter_.bind(m.index, "row");
  emitter_.bind(n.index, "column");
  const std::string value = emitter_.value(plan::cast(plan::apply_gelu(sum, false), DType::F16),
                                           {.accumulators = {"sum"}});
  emitter_.store(out, {Dim(m.index), Dim(n.index)}, value);
  emitter_.close(";");
  emitter_.line("finish(1.0f, (int)threadIdx.x, (int)blockIdx.x);");
  const std::string text = emitter_.finish({.threads = 32});
  EXPECT_EQ(result_.interface.buffers, (std::vector<plan::BufferId>{bias, out}));
  if (!cuda::nvrtc_obstacle().empty()) GTEST_SKIP() << cuda::nvrtc_obstacle();
  EXPECT_EQ(problem_of(text, target_named("sm_90")), "");
}

}  // namespace
}  // namespace kiln::test
