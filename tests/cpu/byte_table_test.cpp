// Functions of a byte, which are tables: every value of it, tails and epilogues, on every CPU level.
#include <cmath>
#include <cstdio>

#include "cpu/nest_harness.h"
#include "plan/passes/pass.h"

namespace kiln::test {
namespace {

// Every byte, again and again.
ir::Literal all_bytes(DType dtype, const std::vector<int64_t>& shape) {
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(dtype, shape, &data);
  for (int64_t i = 0; i < result.elements(); ++i)
    ir::Literal::set_int(data, dtype, i, (i * 7 + 3) & 0xFF);
  return result;
}

std::string scale(const std::string& name, float value) {
  char number[40];
  std::snprintf(number, sizeof number, "%.17g", static_cast<double>(value));
  return "\n %" + name + " = full() {dtype = f32, shape = [], value = " + number + "}";
}

std::string zero(const std::string& name, int value) {
  return "\n %" + name + " = full() {dtype = i64, shape = [], value = " + std::to_string(value) +
         "}";
}

std::string range_of(const std::string& dtype) {
  return dtype == "u8" ? ", quant_min = 0, quant_max = 255" : ", quant_min = -128, quant_max = 127";
}

// x becomes a byte again behind a function.
std::string between_bytes(const std::string& function, const std::string& dtype) {
  return scale("s", 0.043F) + zero("z", dtype == "u8" ? 117 : -11) + scale("t", 0.0113F) +
         "\n %d = dequantize(%x, %s, %z) {dtype = f32}\n %f = " + function +
         "\n %y = quantize(%f, %t, %z) {dtype = " + dtype + range_of(dtype) + "}";
}

plan::Program planned(const plan::Program& lowered, const std::vector<std::string>& disabled = {}) {
  plan::Program program = lowered;
  plan::run_pipeline(program, {.disabled = disabled, .verify = true, .dump_directory = {}});
  return program;
}

bool has_table(const plan::Program& program) {
  return plan::to_text(program).find("table_1") != std::string::npos;
}

const std::vector<std::string> kFunctions = {"gelu(%d) {approximate = \"none\"}",
                                             "gelu(%d) {approximate = \"tanh\"}",
                                             "silu(%d)",
                                             "sigmoid(%d)",
                                             "tanh(%d)",
                                             "exp(%d)"};

// Rows of 37 have a tail on every level, and those of 1 are scalars.
TEST(ByteTableTest, HoldsWhatTheFunctionGives) {
  for (const std::string& function : kFunctions) {
    for (const std::string dtype : {"u8", "i8"}) {
      for (const int64_t columns : {1, 37, 64}) {
        const std::string type = dtype + "[s0, " + std::to_string(columns) + "]";
        const std::string text = graph_text("%x: " + type, between_bytes(function, dtype));
        SCOPED_TRACE(text);
        const plan::Program lowered = plan::lower(plan::make_graph(text), cpu_backend().traits);
        const plan::Program program = planned(lowered);
        ASSERT_TRUE(has_table(program));
        const std::vector<ir::Literal> inputs = {all_bytes(*dtype_from_name(dtype), {41, columns})};
        expect_compiled(program, inputs, 0);
        // What the table holds is what the function gives as it is written.
        const ir::Literal with = plan::interpret(program, inputs)[0];
        const ir::Literal without = plan::interpret(lowered, inputs)[0];
        for (int64_t i = 0; i < with.elements(); ++i)
          ASSERT_EQ(with.as_int(i), without.as_int(i)) << "element " << i;
      }
    }
  }
}

// Code without tables rounds in other places: a byte in a hundred may be a step apart, at the border between two.
TEST(ByteTableTest, AgreesWithCodeThatComputesIt) {
  for (const std::string& function : kFunctions) {
    const std::string text = graph_text("%x: u8[256]", between_bytes(function, "u8"));
    SCOPED_TRACE(text);
    const plan::Program lowered = plan::lower(plan::make_graph(text), cpu_backend().traits);
    const plan::Program computes = planned(lowered, {"tabulate_bytes"});
    ASSERT_FALSE(has_table(computes));
    const std::vector<ir::Literal> inputs = {all_bytes(DType::U8, {256})};
    for (const std::string& variant : runnable_variants()) {
      const ir::Literal looked_up = run_variant(planned(lowered), variant, inputs)[0];
      const ir::Literal computed = run_variant(computes, variant, inputs)[0];
      int apart = 0;
      for (int64_t i = 0; i < 256; ++i) {
        const int64_t steps = std::abs(looked_up.as_int(i) - computed.as_int(i));
        ASSERT_LE(steps, 1) << variant << ", element " << i;
        apart += steps != 0;
      }
      EXPECT_LE(apart, 2) << variant;
    }
  }
}

// In the epilogue of a product, behind its own quantisation; of few and many rows, with a rest of columns.
TEST(ByteTableTest, FollowsAProductOfBytes) {
  for (const int64_t columns : {33, 96}) {
    const std::string n = std::to_string(columns);
    const std::string text =
        graph_text("%x: u8[s0, 40], %wq: i8[" + n + ", 40]",
                   scale("s", 0.02F) + zero("z", 120) + scale("ws", 0.01F) + scale("t", 0.043F) +
                       "\n %d = dequantize(%x, %s, %z) {dtype = f32}"
                       "\n %w = dequantize(%wq, %ws) {dtype = f32}"
                       "\n %p = linear(%d, %w)"
                       "\n %b = quantize(%p, %s, %z) {dtype = u8, quant_min = 0, quant_max = 255}"
                       "\n %c = dequantize(%b, %s, %z) {dtype = f32}"
                       "\n %f = gelu(%c) {approximate = \"none\"}"
                       "\n %y = quantize(%f, %t, %z) {dtype = u8, quant_min = 0, quant_max = 255}");
    SCOPED_TRACE(text);
    const plan::Program program =
        planned(plan::lower(plan::make_graph(text), cpu_backend().traits));
    ASSERT_TRUE(has_table(program));
    ASSERT_EQ(program.kernels.size(), 1U);
    const ir::Literal unread = all_bytes(DType::I8, {columns, 40});  // weights are constants
    for (const int64_t rows : {1, 7, 41})
      expect_compiled(program, {all_bytes(DType::U8, {rows, 40}), unread}, 0);
  }
}

// A table among other work, an element of it for all lanes, and one that is looked up for a table.
TEST(ByteTableTest, IsAmongOtherWork) {
  const std::string text =
      graph_text("%x: u8[s0, 37], %v: u8[s0, 1], %r: f32[37]",
                 between_bytes("silu(%d)", "u8") +
                     "\n %k = dequantize(%y, %s, %z) {dtype = f32}"
                     "\n %dv = dequantize(%v, %s, %z) {dtype = f32}"
                     "\n %g = tanh(%dv)"
                     "\n %q = quantize(%g, %t, %z) {dtype = u8, quant_min = 0, quant_max = 255}"
                     "\n %h = dequantize(%q, %t, %z) {dtype = f32}"
                     "\n %m = mul(%k, %h)\n %o = add(%m, %r)",
                 "%o");
  const plan::Program program = planned(plan::lower(plan::make_graph(text), cpu_backend().traits));
  ASSERT_TRUE(has_table(program));
  std::byte* data = nullptr;
  ir::Literal row = ir::Literal::allocate(DType::F32, {37}, &data);
  for (int64_t i = 0; i < 37; ++i) ir::Literal::set(data, DType::F32, i, 0.25 * (i - 18));
  expect_compiled(program, {all_bytes(DType::U8, {41, 37}), all_bytes(DType::U8, {41, 1}), row},
                  1e-6);
}

}  // namespace
}  // namespace kiln::test
