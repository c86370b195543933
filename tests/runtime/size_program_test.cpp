#include "runtime/size_program.h"

#include <gtest/gtest.h>

#include <limits>

namespace kiln::runtime {
namespace {

using engine::SizeInstruction;
using engine::SizeOp;
using engine::Slot;
using engine::Spec;

constexpr int64_t kLowest = std::numeric_limits<int64_t>::min();

// Slots 0 and 1 are the symbols a and b, slot 2 is `op` of them.
Spec make_spec(SizeOp op, int64_t a_min = 0, int64_t a_max = 0, int64_t b_min = 0,
               int64_t b_max = 0) {
  Spec spec;
  spec.symbols = {{"a", 0, 0, a_min, a_max, a_min}, {"b", 0, 1, b_min, b_max, b_min}};
  spec.sizes = {{SizeOp::Symbol, -1, -1, 0}, {SizeOp::Symbol, -1, -1, 1}, {op, 0, 1, 0}};
  return spec;
}

int64_t evaluate(SizeOp op, int64_t a, int64_t b) {
  const std::vector<int64_t> symbols = {a, b};
  const auto sizes = evaluate_sizes(make_spec(op), symbols);
  EXPECT_TRUE(sizes.ok());
  return sizes.ok() ? sizes->back() : -1;
}

bool fails(SizeOp op, int64_t a, int64_t b) {
  const std::vector<int64_t> symbols = {a, b};
  return !evaluate_sizes(make_spec(op), symbols).ok();
}

TEST(SizeProgram, Evaluates) {
  EXPECT_EQ(evaluate(SizeOp::Add, 7, -2), 5);
  EXPECT_EQ(evaluate(SizeOp::Sub, 7, 9), -2);
  EXPECT_EQ(evaluate(SizeOp::Mul, 7, -2), -14);
  EXPECT_EQ(evaluate(SizeOp::Min, 7, -2), -2);
  EXPECT_EQ(evaluate(SizeOp::Max, 7, -2), 7);
}

TEST(SizeProgram, DividesTowardsMinusInfinity) {
  EXPECT_EQ(evaluate(SizeOp::FloorDiv, 7, 2), 3);
  EXPECT_EQ(evaluate(SizeOp::FloorDiv, -7, 2), -4);
  EXPECT_EQ(evaluate(SizeOp::FloorDiv, 7, -2), -4);
  EXPECT_EQ(evaluate(SizeOp::FloorDiv, -8, 2), -4);
  EXPECT_EQ(evaluate(SizeOp::Mod, 7, 2), 1);
  EXPECT_EQ(evaluate(SizeOp::Mod, -7, 2), 1);
  EXPECT_EQ(evaluate(SizeOp::Mod, 7, -2), -1);
  EXPECT_EQ(evaluate(SizeOp::Mod, kLowest, -1), 0);
}

TEST(SizeProgram, RefusesOverflowAndZeroDivisors) {
  constexpr int64_t kHighest = std::numeric_limits<int64_t>::max();
  EXPECT_TRUE(fails(SizeOp::Add, kHighest, 1));
  EXPECT_TRUE(fails(SizeOp::Sub, kLowest, 1));
  EXPECT_TRUE(fails(SizeOp::Mul, kHighest, 2));
  EXPECT_TRUE(fails(SizeOp::FloorDiv, 1, 0));
  EXPECT_TRUE(fails(SizeOp::FloorDiv, kLowest, -1));
  EXPECT_TRUE(fails(SizeOp::Mod, 1, 0));
}

// Every value over the ranges lies in the interval, and the interval is tight where it can be.
TEST(SizeRanges, HoldEveryValue) {
  for (const SizeOp op : {SizeOp::Add, SizeOp::Sub, SizeOp::Mul, SizeOp::FloorDiv, SizeOp::Mod,
                          SizeOp::Min, SizeOp::Max})
    for (const auto& [low, high] : {std::pair(1, 3), std::pair(2, 9), std::pair(-4, 5)}) {
      const SizeRange range = size_ranges(make_spec(op, -6, 7, low, high)).back();
      for (int64_t a = -6; a <= 7; ++a)
        for (int64_t b = low; b <= high; ++b) {
          if (b == 0 && (op == SizeOp::FloorDiv || op == SizeOp::Mod)) continue;
          const int64_t value = evaluate(op, a, b);
          EXPECT_TRUE(range.min <= value && value <= range.max)
              << static_cast<int>(op) << " " << a << " " << b;
        }
    }
}

TEST(SizeRanges, AreTight) {
  const SizeRange product = size_ranges(make_spec(SizeOp::Mul, 1, 32, 8, 256)).back();
  EXPECT_EQ(product.min, 8);
  EXPECT_EQ(product.max, 32 * 256);
  const SizeRange quotient = size_ranges(make_spec(SizeOp::FloorDiv, 7, 32, 2, 2)).back();
  EXPECT_EQ(quotient.min, 3);
  EXPECT_EQ(quotient.max, 16);
}

TEST(SizeText, IsAFormula) {
  Spec spec = make_spec(SizeOp::Add);
  spec.sizes.push_back({SizeOp::Constant, -1, -1, 2});
  spec.sizes.push_back({SizeOp::Mul, 3, 2, 0});
  spec.sizes.push_back({SizeOp::Max, 4, 0, 0});
  EXPECT_EQ(size_str(spec, 0), "a");
  EXPECT_EQ(size_str(spec, 2), "a + b");
  EXPECT_EQ(size_str(spec, 4), "2*(a + b)");
  EXPECT_EQ(size_str(spec, 5), "max((2*(a + b)), a)");
}

TEST(SizeText, EndsSomewhere) {
  Spec spec = make_spec(SizeOp::Add);
  for (Slot slot = 3; slot < 60; ++slot) spec.sizes.push_back({SizeOp::Add, slot - 1, slot - 1, 0});
  EXPECT_LT(size_str(spec, 59).size(), 2000u);
}

// A name of a megabyte in every leaf, and a formula of a thousand short ones.
TEST(SizeText, IsShortWhateverTheFileSays) {
  Spec spec = make_spec(SizeOp::Add);
  for (Slot slot = 3; slot < 60; ++slot) spec.sizes.push_back({SizeOp::Mul, slot - 1, 0, 0});
  for (const size_t size : {1u, 64u, 65u, 1u << 20}) {
    for (engine::SymbolSpec& symbol : spec.symbols) symbol.name = std::string(size, 'n');
    for (Slot slot = 0; slot < 60; ++slot)
      EXPECT_LE(size_str(spec, slot).size(), kLongestFormula) << size << " " << slot;
  }
  EXPECT_EQ(size_str(spec, 0), std::string(64, 'n') + "...");
  EXPECT_TRUE(size_str(spec, 59).ends_with("..."));
}

}  // namespace
}  // namespace kiln::runtime
