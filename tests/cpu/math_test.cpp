// Elementary functions against libm in f64 (f32) and in long double (f64), over their whole range:
// the bounds that docs/cpu_backend.md states, and what happens at infinities, zeros and NaN.
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <numbers>

#include "cpu/nest_harness.h"

namespace kiln::test {
namespace {

using Real = long double;

ir::Literal literal_of(DType dtype, const std::vector<double>& values) {
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(dtype, {static_cast<int64_t>(values.size())}, &data);
  for (size_t i = 0; i < values.size(); ++i) {
    ir::Literal::set(data, dtype, static_cast<int64_t>(i), values[i]);
  }
  return result;
}

// Floats of both signs with evenly spaced bit patterns, all exponents included.
std::vector<double> all_floats(uint32_t step) {
  std::vector<double> values;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += step) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (std::isfinite(value)) values.push_back(value);
  }
  return values;
}

std::vector<double> all_doubles(uint64_t count) {
  std::vector<double> values;
  for (uint64_t i = 0; i < count; ++i) {
    const double value = std::bit_cast<double>(i * (~uint64_t{0} / count));
    if (std::isfinite(value)) values.push_back(value);
  }
  return values;
}

std::vector<double> evenly(double low, double high, size_t count) {
  std::vector<double> values;
  for (size_t i = 0; i < count; ++i) {
    values.push_back(low + (high - low) * static_cast<double>(i) / static_cast<double>(count));
  }
  return values;
}

// Of both signs.
std::vector<double> powers_of_two(int low, int high) {
  std::vector<double> values;
  for (int power = low; power <= high; ++power) {
    values.push_back(std::ldexp(1.0, power));
    values.push_back(-values.back());
  }
  return values;
}

// Distance between neighbouring numbers of the dtype at x.
Real ulp(DType dtype, Real x) {
  const int mantissa = dtype == DType::F32 ? 23 : 52;
  const int lowest = dtype == DType::F32 ? -126 : -1022;
  const int exponent = x == 0 ? lowest : std::max(std::ilogb(x), lowest);
  return std::ldexp(Real{1}, exponent - mantissa);
}

Real largest(DType dtype) {
  return dtype == DType::F32 ? Real{std::numeric_limits<float>::max()}
                             : Real{std::numeric_limits<double>::max()};
}

struct Function {
  std::string body;  // of the graph: from %x (and %z) to %y
  std::function<Real(Real, Real)> exact;
  // Results may be zero below this many times the smallest normal number.
  Real underflow = 0;
};

std::vector<ir::Literal> run(const Function& function, DType dtype,
                             const std::vector<ir::Literal>& inputs, const std::string& variant) {
  const std::string n = "[" + std::to_string(inputs[0].shape[0]) + "]";
  const std::string type = std::string(dtype_name(dtype)) + n;
  std::string parameters = "%x: " + type;
  if (inputs.size() > 1) parameters += ", %z: " + type;
  const plan::Program program =
      plan::lower(plan::make_graph(graph_text(parameters, function.body)), cpu_backend().traits);
  return run_variant(program, variant, inputs);
}

// Errors in ulps, worst of all values. Denormal results count as much as others.
void expect_ulps(const Function& function, DType dtype, const std::vector<double>& x,
                 const std::vector<double>& z, double bound) {
  std::vector<ir::Literal> inputs = {literal_of(dtype, x)};
  if (!z.empty()) inputs.push_back(literal_of(dtype, z));
  const Real smallest =
      function.underflow * std::ldexp(Real{1}, dtype == DType::F32 ? -126 : -1022);
  for (const std::string& variant : runnable_variants()) {
    const ir::Literal y = run(function, dtype, inputs, variant)[0];
    Real worst = 0;
    int64_t where = 0;
    for (int64_t i = 0; i < y.elements(); ++i) {
      const Real a = inputs[0].as_double(i), b = z.empty() ? 0 : inputs[1].as_double(i);
      const Real expected = function.exact(a, b), got = y.as_double(i);
      if (std::isnan(expected) && std::isnan(got)) continue;
      if (std::fabs(expected) > largest(dtype) && std::isinf(got)) continue;
      if (std::fabs(expected) < smallest && std::fabs(got) <= smallest) continue;
      Real error = std::fabs(got - expected) / ulp(dtype, expected);
      if (std::isnan(error)) error = std::numeric_limits<Real>::infinity();
      if (error > worst) {
        worst = error;
        where = i;
      }
    }
    EXPECT_LE(worst, bound) << variant << " " << function.body << " at "
                            << inputs[0].as_double(where)
                            << (z.empty() ? "" : ", " + std::to_string(inputs[1].as_double(where)))
                            << ": got " << y.as_double(where);
    if (std::getenv("KILN_SHOW_ULPS")) {
      printf("%-12s %-40s %s %.3f at %g\n", variant.c_str(), function.body.c_str(),
             std::string(dtype_name(dtype)).c_str(), static_cast<double>(worst),
             inputs[0].as_double(where));
    }
  }
}

Function unary(const std::string& op, std::function<Real(Real)> exact) {
  return {" %y = " + op + "(%x)", [exact](Real x, Real) { return exact(x); }};
}

Function binary(const std::string& op, std::function<Real(Real, Real)> exact) {
  return {" %y = " + op + "(%x, %z)", std::move(exact)};
}

#ifdef KILN_SANITIZES_ADDRESSES  // looks at the code, for which fewer numbers do
constexpr uint32_t kStep = 1'499'977;
constexpr uint64_t kDoubles = 2'000;
#else
constexpr uint32_t kStep = 4999;
constexpr uint64_t kDoubles = 500'000;
#endif

struct UnaryCase {
  std::string op;
  Real (*exact)(Real);
  double f32_bound, f64_bound;
  Real underflow = 0;
};

class UnaryTest : public testing::TestWithParam<UnaryCase> {};

TEST_P(UnaryTest, EveryMagnitude) {
  const UnaryCase& c = GetParam();
  Function function = unary(c.op, c.exact);
  function.underflow = c.underflow;
  const std::vector<double> f32 = all_floats(kStep), f64 = all_doubles(kDoubles);
  expect_ulps(function, DType::F32, f32, {}, c.f32_bound);
  expect_ulps(function, DType::F32, powers_of_two(-149, 127), {}, c.f32_bound);
  expect_ulps(function, DType::F64, powers_of_two(-1074, 1023), {}, c.f64_bound);
  expect_ulps(function, DType::F32, evenly(-20, 20, 200'000), {}, c.f32_bound);
  expect_ulps(function, DType::F64, evenly(-750, 750, 200'000), {}, c.f64_bound);
  expect_ulps(function, DType::F64, f64, {}, c.f64_bound);
  expect_ulps(function, DType::F64, evenly(-20, 20, 200'000), {}, c.f64_bound);
}

Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }
Real silu(Real x) { return x / (1 + std::exp(-x)); }

INSTANTIATE_TEST_SUITE_P(
    All, UnaryTest,
    testing::Values(UnaryCase{"exp", [](Real x) { return std::exp(x); }, 1, 1},
                    UnaryCase{"exp2", [](Real x) { return std::exp2(x); }, 1, 1},
                    UnaryCase{"expm1", [](Real x) { return std::expm1(x); }, 1.5, 2},
                    UnaryCase{"log", [](Real x) { return std::log(x); }, 1, 1},
                    UnaryCase{"log2", [](Real x) { return std::log2(x); }, 0.51, 1},
                    UnaryCase{"log10", [](Real x) { return std::log10(x); }, 0.51, 1},
                    UnaryCase{"log1p", [](Real x) { return std::log1p(x); }, 1.5, 1.5},
                    UnaryCase{"sqrt", [](Real x) { return std::sqrt(x); }, 0.501, 0.501},
                    UnaryCase{"rsqrt", [](Real x) { return 1 / std::sqrt(x); }, 1.5, 1.5},
                    UnaryCase{"reciprocal", [](Real x) { return 1 / x; }, 0.501, 0.501},
                    UnaryCase{"sin", [](Real x) { return std::sin(x); }, 2, 2},
                    UnaryCase{"cos", [](Real x) { return std::cos(x); }, 2, 2},
                    UnaryCase{"tan", [](Real x) { return std::tan(x); }, 0.51, 4},
                    UnaryCase{"asin", [](Real x) { return std::asin(x); }, 0.51, 4},
                    UnaryCase{"acos", [](Real x) { return std::acos(x); }, 0.51, 4},
                    UnaryCase{"sinh", [](Real x) { return std::sinh(x); }, 0.51, 2.5},
                    UnaryCase{"cosh", [](Real x) { return std::cosh(x); }, 0.51, 2},
                    UnaryCase{"asinh", [](Real x) { return std::asinh(x); }, 0.51, 4},
                    UnaryCase{"acosh", [](Real x) { return std::acosh(x); }, 0.51, 4},
                    UnaryCase{"atanh", [](Real x) { return std::atanh(x); }, 0.51, 4},
                    UnaryCase{"erfc", [](Real x) { return std::erfc(x); }, 0.51, 4},
                    UnaryCase{"tanh", [](Real x) { return std::tanh(x); }, 2, 2.5},
                    UnaryCase{"erf", [](Real x) { return std::erf(x); }, 2.5, 4},
                    UnaryCase{"sigmoid", sigmoid, 2.5, 2.5, 1},
                    UnaryCase{"silu", silu, 3, 3, 1024}),
    [](const auto& info) { return info.param.op; });

// --- Two operands -------------------------------------------------------------------------------

// Pairs of every combination of some values.
struct Pairs {
  std::vector<double> a, b;
};

Pairs all_pairs(const std::vector<double>& a, const std::vector<double>& b) {
  Pairs pairs;
  for (double x : a) {
    for (double y : b) {
      pairs.a.push_back(x);
      pairs.b.push_back(y);
    }
  }
  return pairs;
}

void expect_ulps(const Function& function, const Pairs& pairs, double f32_bound, double f64_bound) {
  expect_ulps(function, DType::F32, pairs.a, pairs.b, f32_bound);
  expect_ulps(function, DType::F64, pairs.a, pairs.b, f64_bound);
}

TEST(MathTest, Pow) {
  const Function pow = binary("pow", [](Real a, Real b) { return std::pow(a, b); });
  expect_ulps(pow, all_pairs(evenly(0.01, 30, 500), evenly(-6, 6, 301)), 0.6, 1.2);
  expect_ulps(pow, all_pairs(evenly(-9, 9, 37), evenly(-9, 9, 19)), 0.6, 1.2);
  expect_ulps(pow, all_pairs(evenly(0.9, 1.1, 200), evenly(-7000, 7000, 301)), 0.6, 1.2);
}

TEST(MathTest, Hypot) {
  const Function hypot = binary("hypot", [](Real a, Real b) { return std::hypot(a, b); });
  expect_ulps(hypot, all_pairs(evenly(-5, 5, 301), evenly(-7, 7, 299)), 0.51, 1.5);
  expect_ulps(hypot, DType::F32, {1e20, 3e38, 1e-30, 1e-44}, {1e20, 1e38, 1e-30, 1e-44}, 0.51);
  expect_ulps(hypot, DType::F64, {1e200, 1e308, 1e-200, 5e-324}, {1e200, 1e308, 2e-200, 5e-324},
              1.5);
}

TEST(MathTest, Atan2) {
  const Function atan2 = binary("atan2", [](Real a, Real b) { return std::atan2(a, b); });
  expect_ulps(atan2, all_pairs(evenly(-5, 5, 601), evenly(-7, 7, 599)), 2.5, 2.5);
  expect_ulps(atan2, all_pairs({0.0, -0.0, 1e-30, 1e30, -1e30}, {0.0, -0.0, 1e-30, -1e30, 1e30}),
              2.5, 2.5);
  expect_ulps(atan2, DType::F32, {3e38, 2e38, 1e-45}, {2e38, 3e38, 3e-45}, 2.5);
  expect_ulps(atan2, DType::F64, {1.7e308, 1e308, 5e-324}, {1e308, 1.7e308, 2e-323}, 2.5);
}

// Operands that f32 holds exactly, so that f64 sees the same ones.
std::vector<double> coarse(double low, double high, size_t count) {
  std::vector<double> values = evenly(low, high, count);
  for (double& value : values) value = static_cast<float>(value);
  return values;
}

TEST(MathTest, DivisionsWithRest) {
  const Pairs pairs = all_pairs(coarse(-1000, 1000, 701), coarse(-3, 3, 499));
  const auto floored = [](Real a, Real b) {
    const Real rest = std::fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
  };
  expect_ulps(binary("fmod", [](Real a, Real b) { return std::fmod(a, b); }), pairs, 0.5, 0.5);
  expect_ulps(binary("remainder", floored), pairs, 0.5, 0.5);
  expect_ulps(binary("floor_div", [](Real a, Real b) { return std::floor(a / b); }), pairs, 0.5,
              0.5);
  // Ratios up to the largest over the smallest number.
  const std::vector<double> f32 = {3e38f, 1e20f, -1e18f, 3e15f, 1e10f, 1e-40f};
  const Pairs far = all_pairs(f32, {3.0, 0.7f, 1e-3f, -1e-20f, 0x1p-149, 0x1p127});
  const std::vector<double> f64 = {1.7e308, -1e200, 1e100, 1e-310};
  const Pairs farther = all_pairs(f64, {3.0, 0.7, -1e-100, 0x1p-1074, 3e-320, 0x1p1023});
  const Function fmod = binary("fmod", [](Real a, Real b) { return std::fmod(a, b); });
  expect_ulps(fmod, DType::F32, far.a, far.b, 0);
  expect_ulps(fmod, DType::F64, farther.a, farther.b, 0);
}

TEST(MathTest, Gelu) {
  const auto exact = [](Real x, Real) {
    return x / 2 * std::erfc(-x / std::numbers::sqrt2_v<Real>);
  };
  const auto by_tanh = [](Real x, Real) {
    const Real slope = std::sqrt(2 / std::numbers::pi_v<Real>);
    return x / (1 + std::exp(-2 * slope * x * (1 + 0.044715L * x * x)));
  };
  const Function none{" %y = gelu(%x) {approximate = \"none\"}", exact};
  const Function tanh{" %y = gelu(%x) {approximate = \"tanh\"}", by_tanh, 1024};
  expect_ulps(none, DType::F32, all_floats(kStep), {}, 4);
  expect_ulps(tanh, DType::F32, all_floats(kStep), {}, 4);
  expect_ulps(none, DType::F32, evenly(-15, 15, 200'000), {}, 4);
  expect_ulps(tanh, DType::F32, evenly(-12, 12, 200'000), {}, 4);
  // The exact value itself is off by up to one: its exponent has 64 bits.
  expect_ulps(none, DType::F64, evenly(-39, 39, 200'000), {}, 5);
  expect_ulps(tanh, DType::F64, evenly(-22, 22, 200'000), {}, 4);
}

// NaN stays NaN whatever its payload, which must not end up in an exponent.
TEST(MathTest, EveryNan) {
  std::vector<float> values;
  for (uint32_t bits = 0x7f800001; bits < 0x7fffffff; bits += 4999) {
    values.push_back(std::bit_cast<float>(bits));
    values.push_back(std::bit_cast<float>(bits | 0x80000000U));
  }
  std::byte* data = nullptr;
  const auto count = static_cast<int64_t>(values.size());
  const ir::Literal input = ir::Literal::allocate(DType::F32, {count}, &data);
  std::memcpy(data, values.data(), values.size() * sizeof(float));
  for (const char* op :
       {"exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "tan", "sinh", "cosh", "tanh",
        "asinh", "erf", "erfc", "sigmoid", "silu", "relu", "rsqrt"}) {
    for (const std::string& variant : runnable_variants()) {
      const Function function = unary(op, [](Real x) { return x; });
      const ir::Literal y = run(function, DType::F32, {input}, variant)[0];
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_TRUE(std::isnan(y.as_double(i)))
            << variant << " " << op << " gives " << y.as_double(i);
      }
    }
  }
}

// --- Values that are not ordinary numbers -------------------------------------------------------

TEST(MathTest, SpecialValues) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const std::vector<double> x = {0.0,   -0.0,   inf,  -inf,  nan, 1.0,  -1.0,
                                 1e-40, -1e-40, 3e38, -3e38, 0.5, 88.8, -104};
  for (const char* op :
       {"exp2",  "log2",  "log10", "tan",   "asin",  "acos",       "sinh",  "cosh",       "asinh",
        "acosh", "atanh", "erfc",  "sin",   "cos",   "neg",        "abs",   "sign",       "exp",
        "expm1", "log",   "log1p", "sqrt",  "rsqrt", "reciprocal", "tanh",  "erf",        "sigmoid",
        "relu",  "floor", "ceil",  "round", "trunc", "isnan",      "isinf", "logical_not"}) {
    for (DType dtype : {DType::F32, DType::F64}) {
      const std::string text = graph_text("%x: " + std::string(dtype_name(dtype)) + "[14]",
                                          " %y = " + std::string(op) + "(%x)");
      expect_compiled(plan::lower(plan::make_graph(text), cpu_backend().traits),
                      {literal_of(dtype, x)}, 1e-6);
    }
  }
  const Pairs pairs = all_pairs(x, x);
  for (const char* op : {"hypot", "fmod", "remainder", "floor_div", "maximum", "minimum", "pow",
                         "atan2", "div", "eq", "ne", "lt", "le", "gt", "ge"}) {
    for (DType dtype : {DType::F32, DType::F64}) {
      const std::string type = std::string(dtype_name(dtype)) + "[196]";
      const std::string text =
          graph_text("%x: " + type + ", %z: " + type, " %y = " + std::string(op) + "(%x, %z)");
      expect_compiled(plan::lower(plan::make_graph(text), cpu_backend().traits),
                      {literal_of(dtype, pairs.a), literal_of(dtype, pairs.b)}, 1e-6);
    }
  }
}

}  // namespace
}  // namespace kiln::test
