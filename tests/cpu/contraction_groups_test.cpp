// Products of floats and weights of integers that have scales for groups along k, in 4 and 8 bits: every way to
// take rows, rests of everything, and elements at the ends of their range. Scales are powers of two, so that
// results are exact in any order.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <random>

#include "cpu/contraction_harness.h"
#include "plan/form/verify.h"

namespace kiln::test {
namespace {

using plan::BufferId;
using plan::Loop;

Loop loop(const char* name, const ir::Dim& extent) { return {ir::make_loop_symbol(name, extent)}; }

struct Product {
  int64_t m = 1, n = 1, k = 32, size = 32;
  int bits = 4;
  bool zeros = false;
  DType scale = DType::F32, left = DType::F32, out = DType::F32;
  bool dynamic_m = false, transposed_a = false;
  int64_t batches = 1;
  int64_t least = -8, greatest = 7;        // elements are between them
  std::function<float()> value = nullptr;  // of A; null: small integers
  int scale_exponent = -2;                 // of the least scale
};

class Maker {
 public:
  explicit Maker(const Product& product) : product_(product) {
    contraction_.program.traits.integer_weights = true;
  }

  ContractionProgram make() {
    const auto [m, n, k] = std::array{product_.m, product_.n, product_.k};
    const ir::Dim rows =
        product_.dynamic_m ? ir::Dim(contraction_.symbol("s", 1, 512, 4)) : ir::Dim(m);
    plan::MatMul matmul;
    if (product_.batches > 1) matmul.batch = {loop("b", product_.batches)};
    matmul.m = loop("m", rows);
    matmul.n = loop("n", n);
    matmul.k = loop("k", k);
    matmul.a = left(rows);
    const int64_t steps = (k + product_.size - 1) / product_.size * product_.size;
    matmul.b = of_columns({1, steps}, constant(DType::I8, {n, steps}, [this](int64_t) {
                            return static_cast<double>(integer(product_.least, product_.greatest));
                          }));
    matmul.formats.weight = DType::I8;
    matmul.groups = groups();
    contraction_.dtype = product_.out;
    matmul.out = out(rows);
    matmul.epilogue = plan::cast(plan::accumulator(DType::F32), product_.out);
    contraction_.add_kernel(std::move(matmul));
    plan::verify(contraction_.program);
    return std::move(contraction_);
  }

 private:
  bool has_batch() const { return product_.batches > 1; }
  plan::View of_columns(std::vector<ir::Dim> strides, BufferId buffer) const {
    if (has_batch()) strides.insert(strides.begin(), 0);
    return {buffer, 0, std::move(strides)};
  }

  plan::View left(const ir::Dim& rows) {
    const auto [m, k, b] = std::array{product_.m, product_.k, product_.batches};
    if (has_batch()) {
      const auto values = converted(literal({b, m, k}), product_.left);
      return {contraction_.input_of({b, rows, k}, values), 0, {rows * k, k, 1}};
    }
    const bool transposed = product_.transposed_a;
    const std::vector<int64_t> shape =
        transposed ? std::vector<int64_t>{k, m} : std::vector<int64_t>{m, k};
    const auto values = converted(literal(shape), product_.left);
    return transposed ? plan::View{contraction_.input_of({k, rows}, values), 0, {1, rows}}
                      : plan::View{contraction_.input_of({rows, k}, values), 0, {k, 1}};
  }

  ir::Literal literal(const std::vector<int64_t>& shape) {
    return product_.value ? float_literal(shape, product_.value)
                          : contraction_.random_literal(shape);
  }

  plan::Groups groups() {
    const int64_t count = (product_.k + product_.size - 1) / product_.size, n = product_.n;
    plan::Groups groups{product_.size, product_.bits, {}, {}};
    // 0 and negative ones too.
    const auto scale = [this](int64_t i) {
      return i % 7 == 3 ? 0
                        : std::ldexp(i % 5 == 2 ? -1.0 : 1.0,
                                     static_cast<int>(i % 3) + product_.scale_exponent);
    };
    groups.scales = {constant(product_.scale, {n, count}, scale), 0, {1, count}};
    if (product_.zeros)
      groups.zeros = {constant(DType::I8, {n, count}, [this](int64_t) { return integer(-8, 7); }),
                      0,
                      {1, count}};
    return groups;
  }

  plan::View out(const ir::Dim& rows) {
    if (!has_batch()) return {contraction_.output({rows, product_.n}), 0, {product_.n, 1}};
    return {contraction_.output({product_.batches, rows, product_.n}),
            0,
            {rows * product_.n, product_.n, 1}};
  }

  BufferId constant(DType dtype, const std::vector<int64_t>& shape,
                    const std::function<double(int64_t)>& value) {
    std::byte* data = nullptr;
    plan::Buffer buffer;
    buffer.kind = plan::BufferKind::Constant;
    buffer.name = "constant" + std::to_string(contraction_.program.buffers.size());
    buffer.literal = ir::Literal::allocate(dtype, shape, &data);
    buffer.type = buffer.literal.type();
    for (int64_t i = 0; i < buffer.literal.elements(); ++i) {
      if (dtype == DType::I8)
        ir::Literal::set_int(data, dtype, i, static_cast<int64_t>(value(i)));
      else
        ir::Literal::set(data, dtype, i, value(i));
    }
    return contraction_.program.add_buffer(std::move(buffer));
  }

  int64_t integer(int64_t least, int64_t greatest) {
    state_ = state_ * 1664525u + 1013904223u;
    return least + static_cast<int64_t>(state_ >> 16) % (greatest - least + 1);
  }

  const Product product_;
  ContractionProgram contraction_;
  uint32_t state_ = 12345;
};

void check(const Product& product, std::optional<double> bound = std::nullopt) {
  SCOPED_TRACE(std::to_string(product.m) + " x " + std::to_string(product.n) + " x " +
               std::to_string(product.k) + ", groups of " + std::to_string(product.size) + ", " +
               std::to_string(product.bits) + " bits" + (product.zeros ? ", zeros" : ""));
  // Sums of 16-bit results are rounded in the end alone.
  const double tolerance = product.out == DType::F32 ? 0 : product.out == DType::F16 ? 1e-3 : 8e-3;
  expect_matches_interpreter(Maker(product).make(), bound.value_or(tolerance));
}

TEST(ContractionGroups, EveryRowCount) {
  for (int64_t m = 1; m <= 20; ++m)
    check({.m = m, .n = 48, .k = 64, .bits = m % 3 == 0 ? 8 : 4, .zeros = m % 2 == 0});
  check({.m = 300, .n = 70, .k = 64});
}

// Constants do not depend on the number of rows: one program for all.
TEST(ContractionGroups, EveryRunTimeRowCount) {
  for (bool zeros : {false, true}) {
    std::vector<ContractionProgram> runs;
    for (int64_t m : {1, 2, 3, 4, 5, 8, 9, 10, 17, 48, 49, 300})
      runs.push_back(Maker({.m = m, .n = 40, .k = 64, .zeros = zeros, .dynamic_m = true}).make());
    expect_runs_match_interpreter(runs, 0);
  }
}

TEST(ContractionGroups, SizesOfGroups) {
  bool zeros = false;
  for (int bits : {4, 8}) {
    for (const auto& [k, size] : std::vector<std::array<int64_t, 2>>{{8, 8},
                                                                     {96, 32},
                                                                     {128, 64},
                                                                     {256, 128},
                                                                     {40, 40},
                                                                     {37, 37},
                                                                     {1, 1},
                                                                     {72, 24},
                                                                     {50, 32},
                                                                     {65, 64}}) {
      for (int64_t m : {1, 12}) {
        check({.m = m, .n = 33, .k = k, .size = size, .bits = bits, .zeros = zeros});
        zeros = !zeros;
      }
      zeros = !zeros;
    }
  }
  for (int64_t size : {1, 3, 5, 12, 25}) check({.m = 2, .n = 20, .k = 60, .size = size, .bits = 8});
}

TEST(ContractionGroups, EveryWidth) {
  for (int64_t n : {1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 200})
    for (int64_t m : {1, 11}) check({.m = m, .n = n, .k = 64, .zeros = n % 2 == 0});
}

TEST(ContractionGroups, ManyTasks) {
  check({.m = 1, .n = 300, .k = 4096, .size = 128});
  check({.m = 130, .n = 150, .k = 1024, .size = 64, .zeros = true});
}

TEST(ContractionGroups, EndsOfTheRange) {
  for (const auto& [least, greatest, bits] : std::vector<std::array<int64_t, 3>>{
           {-8, -8, 4}, {7, 7, 4}, {0, 0, 4}, {-128, -128, 8}, {127, 127, 8}, {-128, 127, 8}}) {
    for (int64_t m : {1, 10}) {
      check({.m = m,
             .n = 40,
             .k = 64,
             .bits = static_cast<int>(bits),
             .zeros = m == 1,
             .least = least,
             .greatest = greatest});
    }
  }
}

TEST(ContractionGroups, Types) {
  for (DType scale : {DType::F32, DType::F16, DType::BF16}) {
    for (DType left : {DType::F32, DType::F16, DType::BF16}) {
      for (int64_t m : {1, 14})
        check({.m = m, .n = 50, .k = 64, .zeros = true, .scale = scale, .left = left, .out = left});
    }
  }
}

// A single row of 4-bit weights is multiplied in fixed point: numbers of all digits, and of different sizes in a group.
TEST(ContractionGroups, RowsInFixedPoint) {
  std::mt19937 generator(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  int i = 0;
  struct Kind {
    std::function<float()> value;
    double bound;
    double half_bound = 8e-3;
  };
  const std::vector<Kind> kinds = {
      {[&] { return uniform(generator); }, 5e-5},
      {[&] { return i++ % 2 == 0 ? 1.0F : -1.0F; }, 5e-5},  // the largest digits
      {[&] { return std::nextafterf(i++ % 3 == 0 ? -2.0F : 2.0F, 0); }, 5e-5},  // most bits
      {[&] { return std::ldexp(uniform(generator), -(i++ % 24)); }, 5e-5},
      {[&] { return i++ % 64 < 32 ? 0.0F : -0.0F; }, 0},
      {[&] { return i++ / 32 % 2 == 0 ? 0.0F : uniform(generator); }, 5e-5},
      // What a group loses is small beside its largest, which is where results that are small lose theirs.
      {[&] { return i++ % 32 == 5 ? 20.0F : uniform(generator); }, 3e-4, 3e-2},
      // There is more to lose: these are multiplied in f32.
      {[&] { return i++ == 5 ? 1e6F : uniform(generator); }, 5e-5},
      {[&] {
         const int at = i++;
         return at == 5 || at == 6 ? 771.0F * static_cast<float>(at * at) : uniform(generator);
       },
       1e-4},
  };
  for (const Kind& kind : kinds) {
    for (bool zeros : {false, true}) {
      for (const auto& [k, size] :
           std::vector<std::array<int64_t, 2>>{{8, 8}, {72, 24}, {256, 128}, {50, 50}}) {
        i = 0;
        Product product{.m = 1, .n = 40, .k = k, .size = size, .zeros = zeros, .value = kind.value};
        check(product, kind.bound);
        if (k < 72) continue;
        i = 0;
        product.left = product.out = zeros ? DType::F16 : DType::BF16;
        check(product, kind.half_bound);
      }
    }
  }
  // Long sums cancel, in any order.
  check({.m = 1, .n = 40, .k = 8192, .size = 8192, .value = kinds[0].value}, 1e-3);
}

// What fixed point does not hold.
TEST(ContractionGroups, RowsOfUnusualNumbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  int i = 0;
  const auto with = [&](float number) {
    return [&i, number] { return i++ == 37 ? number : 1.0F; };
  };
  for (float number : {kInfinity, -kInfinity, std::nanf(""), 1e30F}) {
    i = 0;
    check({.m = 1, .n = 40, .k = 96, .zeros = number > 0, .value = with(number)}, 2e-6);
  }
  // All of a group: from where units would be denormal to denormals themselves, and to the largest.
  for (int exponent : {-149, -140, -127, -126, -100, -62, -61, -60, -59, 0, 100, 115}) {
    for (bool zeros : {false, true}) {
      const auto value = [&] {
        i = i * 5 % 31 + 1;
        return std::ldexp(static_cast<float>(i), exponent);
      };
      // Results are about 1.
      const int scale = std::clamp(-exponent - 10, -120, 120);
      check({.m = 1, .n = 40, .k = 64, .zeros = zeros, .value = value, .scale_exponent = scale},
            2e-6);
    }
  }
}

// What one row is in fixed point goes with its batch, and an element may be anywhere.
TEST(ContractionGroups, SingleRowsOfBatches) {
  for (DType left : {DType::F32, DType::BF16}) {
    for (int64_t n : {40, 300})
      check({.m = 1, .n = n, .k = 64, .left = left, .out = left, .batches = 5});
    check({.m = 1, .n = 40, .k = 64, .left = left, .out = left, .transposed_a = true});
    check({.m = 1, .n = 40, .k = 37, .size = 37, .left = left, .out = left, .transposed_a = true});
  }
  check({.m = 1, .n = 40, .k = 64, .dynamic_m = true, .transposed_a = true});
}

TEST(ContractionGroups, RowsThatAreNoRows) {
  for (int64_t m : {2, 20}) {
    check({.m = m, .n = 40, .k = 64, .transposed_a = true});
    check({.m = m, .n = 40, .k = 37, .size = 37, .dynamic_m = true, .transposed_a = true});
    check({.m = m, .n = 40, .k = 64, .left = DType::BF16, .batches = 3});
  }
}

// Tiles of AMX multiply what is unpacked where A is bf16: rows that fill them or do not, rests of K, blocks of it.
TEST(ContractionGroups, Tiles) {
  const auto make = [](Product product) {
    product.left = product.out = DType::BF16;
    return Maker(product).make();
  };
  EXPECT_TRUE(serves("x86-64-v4-amx", make({.m = 9, .n = 3, .k = 32}).program));
  EXPECT_FALSE(serves("x86-64-v4-amx", make({.m = 8, .n = 3, .k = 32}).program));
  EXPECT_FALSE(
      serves("x86-64-v4-amx", make({.m = 9, .n = 3, .k = 37, .size = 37, .bits = 8}).program));
  if (const std::string reason = missing_amx(); !reason.empty()) GTEST_SKIP() << reason;
  const auto check_tiles = [&](const Product& product) {
    SCOPED_TRACE(std::to_string(product.m) + " x " + std::to_string(product.n) + " x " +
                 std::to_string(product.k) + ", groups of " + std::to_string(product.size));
    expect_tiles_match_interpreter(make(product), 8e-3);
  };
  bool zeros = false;
  for (int64_t m : {9, 15, 16, 17, 31, 33, 64, 130, 300})
    check_tiles({.m = m, .n = 40, .k = 64, .zeros = zeros = !zeros});
  for (int64_t m : {1, 8, 9, 20, 300})
    check_tiles({.m = m, .n = 40, .k = 64, .zeros = true, .dynamic_m = true});
  for (int bits : {4, 8}) {
    for (const auto& [k, size] : std::vector<std::array<int64_t, 2>>{
             {8, 8}, {96, 32}, {256, 128}, {40, 40}, {72, 24}, {50, 32}, {65, 64}, {1024, 128}}) {
      check_tiles({.m = 40, .n = 33, .k = k, .size = size, .bits = bits, .zeros = zeros = !zeros});
    }
  }
  for (int64_t n : {1, 15, 17, 31, 32, 33, 65, 200}) check_tiles({.m = 20, .n = n, .k = 64});
  for (DType scale : {DType::F16, DType::BF16}) check_tiles({.m = 20, .n = 50, .scale = scale});
  check_tiles({.m = 20, .n = 40, .k = 64, .transposed_a = true});
  check_tiles({.m = 20, .n = 40, .k = 64, .batches = 3});
}

TEST(ContractionGroups, WeightsCanBeMadeAgain) {
  expect_constants_derivable(Maker({.m = 2, .n = 40, .k = 64, .zeros = true}).make().program);
  expect_constants_derivable(Maker({.m = 2, .n = 40, .k = 64, .bits = 8}).make().program);
}

}  // namespace
}  // namespace kiln::test
