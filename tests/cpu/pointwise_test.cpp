// Every pointwise op on every element type.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "cpu/nest_harness.h"
#include "plan/passes/pass.h"

namespace kiln::test {
namespace {

const std::vector<std::string> kFloats = {"f32", "f64", "f16", "bf16"};
const std::vector<std::string> kIntegers = {"i64", "i32", "i16", "i8", "u8"};

double tolerance_of(const std::string& dtype) {
  if (dtype == "f16") return 1e-3;
  return dtype == "bf16" ? 1e-2 : 1e-5;
}

// Integers over the whole range of the type, small ones and the extremes often.
ir::Literal integers(DType dtype, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(dtype, {count}, &data);
  const auto size = static_cast<int64_t>(dtype_size(dtype));
  std::uniform_int_distribution<int> byte(0, 255), choice(0, 3), small(-3, 3);
  for (int64_t i = 0; i < count; ++i) {
    const int kind = choice(random);
    const int64_t value = small(random);
    for (int64_t b = 0; b < size; ++b) {
      const bool top = b == size - 1;
      int bits = kind == 0 ? byte(random)
                           : static_cast<int>((value >> (8 * std::min<int64_t>(b, 7))) & 255);
      if (kind == 1) bits = value < 0 ? (top ? 0x80 : 0) : (top ? 0x7f : 0xff);
      data[i * size + b] = std::byte{static_cast<uint8_t>(bits)};
    }
  }
  return result;
}

// Numbers of both signs, with fractions where the type has them.
ir::Literal around_zero(DType dtype) {
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(dtype, {41}, &data);
  for (int64_t i = 0; i < 41; ++i)
    ir::Literal::set(data, dtype, i, static_cast<double>(i - 20) * 5.75);
  return result;
}

void check_integers(const std::string& op, const std::string& dtype, int operands) {
  constexpr int64_t kCount = 301;
  const std::string type = dtype + "[301]";
  std::string parameters = "%x: " + type;
  std::vector<ir::Literal> inputs = {integers(*dtype_from_name(dtype), kCount, 1)};
  if (operands == 2) {
    parameters += ", %z: " + type;
    inputs.push_back(integers(*dtype_from_name(dtype), kCount, 2));
  }
  const std::string text =
      graph_text(parameters, " %y = " + op + (operands == 2 ? "(%x, %z)" : "(%x)"));
  expect_compiled(plan::lower(plan::make_graph(text), cpu_backend().traits), inputs, 0);
}

TEST(PointwiseTest, FloatingUnary) {
  for (const std::string& dtype : kFloats) {
    for (const char* op :
         {"neg",  "abs",   "sign",  "exp",   "expm1",   "sqrt",        "rsqrt", "reciprocal",
          "sin",  "cos",   "tanh",  "erf",   "sigmoid", "relu",        "silu",  "floor",
          "ceil", "round", "trunc", "isnan", "isinf",   "logical_not", "log",   "log1p"}) {
      expect_compiled(
          graph_text("%x: " + dtype + "[s0]",
                     " %a = abs(%x)\n %y = " + std::string(op) + "(%a)\n %z = neg(%x)", "%y, %z"),
          {.tolerance = tolerance_of(dtype) * 4});
    }
  }
}

TEST(PointwiseTest, FloatingBinary) {
  for (const std::string& dtype : kFloats) {
    for (const char* op : {"add", "sub", "mul", "div", "atan2", "maximum", "minimum", "eq", "ne",
                           "lt", "le", "gt", "ge"}) {
      expect_compiled(graph_text("%x: " + dtype + "[s0], %z: " + dtype + "[s0]",
                                 " %y = " + std::string(op) + "(%x, %z)"),
                      {.tolerance = tolerance_of(dtype)});
    }
  }
}

TEST(PointwiseTest, PowersOfConstants) {
  for (const char* exponent : {"0", "1", "2", "3", "4", "-1", "-2", "0.5", "-0.5", "2.5", "-3"}) {
    for (const std::string dtype : {"f32", "f64"}) {
      expect_compiled(graph_text("%x: " + dtype + "[s0]",
                                 " %e = full() {dtype = " + dtype + ", shape = [], value = " +
                                     exponent + "}\n %a = abs(%x)\n %y = pow(%a, %e)"),
                      {.tolerance = 1e-5});
    }
  }
}

TEST(PointwiseTest, IntegerUnary) {
  for (const std::string& dtype : kIntegers) {
    for (const char* op :
         {"neg", "abs", "sign", "relu", "bitwise_not", "logical_not", "floor", "trunc"}) {
      check_integers(op, dtype, 1);
    }
  }
}

TEST(PointwiseTest, IntegerBinary) {
  for (const std::string& dtype : kIntegers) {
    for (const char* op :
         {"add", "sub", "mul", "div", "floor_div", "remainder", "fmod", "pow", "maximum", "minimum",
          "bitwise_and", "bitwise_or", "bitwise_xor", "eq", "ne", "lt", "le", "gt", "ge"}) {
      check_integers(op, dtype, 2);
    }
  }
}

TEST(PointwiseTest, Bool) {
  for (const char* op : {"add", "mul", "maximum", "minimum", "bitwise_and", "bitwise_or",
                         "bitwise_xor", "eq", "ne", "lt", "ge"}) {
    expect_compiled(
        graph_text("%x: bool[s0], %z: bool[s0]", " %y = " + std::string(op) + "(%x, %z)"));
  }
  expect_compiled(
      graph_text("%x: bool[s0]", " %y = logical_not(%x)\n %z = bitwise_not(%x)", "%y, %z"));
  expect_compiled(graph_text("%c: bool[s0], %x: f32[s0], %z: f32[s0]", " %y = where(%c, %x, %z)"));
  expect_compiled(graph_text("%c: bool[s0], %x: i64[s0], %z: i64[s0]", " %y = where(%c, %x, %z)"));
}

// What is quantised with constants, as ONNX and PyTorch write it: halves and their neighbours, and what is beyond the
// range, is exact.
TEST(PointwiseTest, Quantisation) {
  for (const float scale : {0.03646150603890419F, 0.25F, 1e-8F, 7.3e4F}) {
    std::vector<float> values = {0.0F, -0.0F, INFINITY, -INFINITY, NAN, 3e38F, -3e38F, 1e-40F};
    for (int half = -280; half <= 540; ++half) {
      const float middle = (static_cast<float>(half) * 0.5F) * scale;
      float below = middle, above = middle;
      values.push_back(middle);
      for (int step = 0; step < 3; ++step) {
        values.push_back(below = std::nextafter(below, -INFINITY));
        values.push_back(above = std::nextafter(above, INFINITY));
      }
    }
    size_t next = 0;
    const ir::Literal x =
        float_literal({static_cast<int64_t>(values.size())}, [&] { return values[next++]; });
    char number[32];
    std::snprintf(number, sizeof(number), "%.17g", static_cast<double>(scale));
    const auto scalar = [](const std::string& name, const std::string& value) {
      return " %" + name + " = full() {dtype = f32, shape = [], value = " + value + "}\n";
    };
    std::string body = scalar("c", number) + scalar("most", "255") + scalar("few", "15") +
                       " %q = div(%x, %c)\n %r = round(%q)\n";
    std::string results;
    for (const char* zero : {"0", "3", "138", "255"}) {
      const std::string z(zero);
      body += scalar("z" + z, z) + " %a" + z + " = add(%r, %z" + z + ")\n %l" + z + " = relu(%a" +
              z + ")\n %m" + z + " = minimum(%l" + z + ", %" + (z == "3" ? "few" : "most") +
              ")\n %u" + z + " = cast(%m" + z + ") {dtype = u8}\n";
      results += (results.empty() ? "%u" : ", %u") + z;
    }
    const std::string text =
        graph_text("%x: f32[" + std::to_string(values.size()) + "]", body, results);
    plan::Program program = plan::lower(plan::make_graph(text), cpu_backend().traits);
    plan::run_pipeline(program, {.disabled = {}, .verify = true, .dump_directory = {}});
    expect_compiled(program, {x}, 0);
  }
}

TEST(PointwiseTest, CastsBetweenAllTypes) {
  std::vector<std::string> all = kFloats;
  all.insert(all.end(), kIntegers.begin(), kIntegers.end());
  all.emplace_back("bool");
  for (const std::string& from : all) {
    std::string body, results;
    for (const std::string& to : all) {
      if (from == to) continue;
      body += " %to_" + to + " = cast(%x) {dtype = " + to + "}\n";
      results += (results.empty() ? "%to_" : ", %to_") + to;
    }
    const plan::Program program = plan::lower(
        plan::make_graph(graph_text("%x: " + from + "[41]", body, results)), cpu_backend().traits);
    expect_compiled(program, {around_zero(*dtype_from_name(from))}, 1e-6);
  }
}

}  // namespace
}  // namespace kiln::test
