#include "ir/dim.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "ir/size_overflow.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

class DimTest : public testing::Test {
 protected:
  SymbolPtr batch_ = make_size_symbol("b", 1, 32, 8);
  SymbolPtr length_ = make_size_symbol("s", 8, 256, 64);
  Dim b_ = batch_, s_ = length_;

  int64_t value(const Dim& dim, int64_t b, int64_t s) const {
    return dim.evaluate([&](const SymbolPtr& symbol) { return symbol == batch_ ? b : s; });
  }
};

TEST_F(DimTest, PolynomialsHaveOneForm) {
  EXPECT_EQ(b_ + s_, s_ + b_);
  EXPECT_EQ((b_ + 1) * (b_ - 1), b_ * b_ - 1);
  EXPECT_EQ(b_ - b_, Dim(0));
  EXPECT_EQ((b_ * 2 + s_ * 3).str(), "b*2 + s*3");
  EXPECT_EQ((b_ * s_ - 4).str(), "b*s - 4");
  EXPECT_EQ(Dim(0).str(), "0");
  EXPECT_FALSE(b_ == s_);
}

TEST_F(DimTest, SymbolsAreToldApartByIdentity) {
  const SymbolPtr other = make_size_symbol("b", 1, 32, 8);
  EXPECT_FALSE(Dim(other) == b_);
  EXPECT_FALSE(provably_equal(Dim(other), b_));
}

TEST_F(DimTest, BoundsFollowTheRanges) {
  EXPECT_EQ(b_.lower_bound(), 1);
  EXPECT_EQ(b_.upper_bound(), 32);
  EXPECT_EQ((b_ * s_ + 1).upper_bound(), 32 * 256 + 1);
  EXPECT_EQ((Dim(5) - b_).lower_bound(), 5 - 32);
  EXPECT_EQ(floordiv(s_, 16).upper_bound(), 16);
  EXPECT_EQ(mod(s_, 7).upper_bound(), 6);
  const Dim unbounded = make_size_symbol("n", 2, kDimInfinity, 4);
  EXPECT_EQ(unbounded.upper_bound(), kDimInfinity);
  EXPECT_EQ((unbounded * 4).lower_bound(), 8);
}

TEST_F(DimTest, DivisionSimplifies) {
  EXPECT_EQ(floordiv(b_ * 12, 4), b_ * 3);
  EXPECT_EQ(floordiv(b_ * s_, s_), b_);
  EXPECT_EQ(floordiv(b_ * 4 + 3, 4), b_);
  EXPECT_EQ(floordiv(b_, 64), Dim(0));
  EXPECT_EQ(floordiv(floordiv(s_, 2), 4), floordiv(s_, 8));
  EXPECT_EQ(floordiv(b_ * 6, 4), floordiv(b_ * 3, 2));
  EXPECT_EQ(mod(b_ * 12, 4), Dim(0));
  EXPECT_EQ(mod(b_, 64), b_);
  EXPECT_EQ(ceildiv(b_ * 4, 4), b_);
  EXPECT_THROW(floordiv(b_, 0), InternalError);
  EXPECT_THROW(mod(b_, 0), InternalError);
}

TEST_F(DimTest, SumsDivideTheirMultiples) {
  EXPECT_EQ(floordiv(b_ * s_ * 64 + b_ * 1024, b_ * (s_ + 16) * 4), Dim(16));
  EXPECT_EQ(floordiv(b_ * b_ - 1, b_ + 1), b_ - 1);
  EXPECT_EQ(mod(b_ * b_ - 1, b_ + 1), Dim(0));
  EXPECT_TRUE(provably_divisible((b_ + s_) * floordiv(s_, 3), b_ + s_));
  EXPECT_EQ(floordiv(Dim(0), b_ + s_), Dim(0));
  EXPECT_EQ(floordiv(-b_ - s_, b_ + s_), Dim(-1));
  // Not where something remains: of a coefficient, of a term, of numbers too large to be sure of.
  for (const Dim& a :
       {b_ * s_ * 3 + b_ * 3, b_ * b_, b_ * b_ + 2, b_ * (int64_t{1} << 40) * (s_ + 1)}) {
    const Dim divisor = a.mentions(length_) ? s_ * 2 + 2 : b_ + 1;
    EXPECT_FALSE(mod(a, divisor).is_constant(0)) << a.str();
    for (int64_t b : {1, 7, 32})
      for (int64_t s : {8, 9, 256})
        EXPECT_EQ(value(floordiv(a, divisor), b, s), value(a, b, s) / value(divisor, b, s))
            << a.str();
  }
}

TEST_F(DimTest, ProductsOfSumsDivideByEitherFactor) {
  std::mt19937 random(5);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const std::vector<Dim> atoms = {b_, s_, floordiv(s_, 3), mod(s_, 7), min(b_, s_ - 9)};
  const auto sum = [&] {
    Dim result(pick(-3, 3));
    for (int terms = pick(1, 3); terms > 0; --terms) {
      Dim product(pick(1, 4));
      for (int factors = pick(0, 2); factors > 0; --factors) product *= atoms[pick(0, 4)];
      result += product;
    }
    return result;
  };
  for (int round = 0; round < 500; ++round) {
    const Dim a = sum(), b = sum();
    if (b.is_constant(0)) continue;
    EXPECT_EQ(floordiv(a * b, b), a) << a.str() << " and " << b.str();
    EXPECT_EQ(mod(a * b, b), Dim(0)) << a.str() << " and " << b.str();
  }
}

TEST_F(DimTest, DivisionRoundsTowardsMinusInfinity) {
  EXPECT_EQ(floordiv(Dim(-7), 2), Dim(-4));
  EXPECT_EQ(mod(Dim(-7), 2), Dim(1));
  EXPECT_EQ(value(floordiv(b_ - 33, 4), 2, 8), -8);
  EXPECT_EQ(value(mod(b_ - 33, 4), 2, 8), 1);
}

TEST_F(DimTest, QuotientAndRemainderRecombine) {
  EXPECT_EQ(floordiv(s_, 7) * 7 + mod(s_, 7), s_);
  EXPECT_EQ(floordiv(b_ * s_ + 5, s_) * s_ + mod(b_ * s_ + 5, s_), b_ * s_ + 5);
  for (const Dim& divisor : {b_ + 1, b_ + s_ + 2, (b_ + 1) * (s_ - 3), b_ * 2 + s_}) {
    const Dim quotient = floordiv(s_ * 5, divisor), rest = mod(s_ * 5, divisor);
    EXPECT_EQ(quotient * divisor + rest, s_ * 5) << divisor.str();
    EXPECT_EQ((quotient * divisor + rest) * b_ * 3 - 4, b_ * s_ * 15 - 4) << divisor.str();
    EXPECT_FALSE(quotient * divisor - rest == s_ * 5) << divisor.str();
    EXPECT_FALSE(quotient * (divisor - 1) + rest == s_ * 5) << divisor.str();
    for (int64_t b : {1, 2, 32}) {
      for (int64_t s : {8, 9, 256}) {
        EXPECT_EQ(value(quotient * divisor + rest * 2, b, s),
                  value(s_ * 5, b, s) + value(rest, b, s));
      }
    }
  }
}

TEST_F(DimTest, LoopIndicesStayBelowTheirExtent) {
  const Dim i = make_loop_symbol("i", b_), j = make_loop_symbol("j", 32);
  EXPECT_TRUE(provably_less(i, b_));
  EXPECT_TRUE(provably_less_equal(0, i));
  EXPECT_EQ(floordiv(i * 32 + j, 32), i);
  EXPECT_EQ(mod(i * 32 + j, 32), j);
  const Dim k = make_loop_symbol("k", s_);
  EXPECT_EQ(floordiv(i * s_ + k, s_), i);
  EXPECT_EQ(mod(i * s_ + k, s_), k);
  EXPECT_TRUE(provably_less(i * s_ + k, b_ * s_));
}

TEST_F(DimTest, DivisorsThatMayBeZeroAreNotWhereTheyDivide) {
  const SymbolPtr size = make_size_symbol("n", 0, 9, 4);
  const Dim n(size), i(make_loop_symbol("i", n)), k(make_loop_symbol("k", n * 2));
  EXPECT_EQ(floordiv(i, n), Dim(0));
  EXPECT_EQ(mod(i, n), i);
  EXPECT_TRUE(provably_less(mod(k, n), n));
  EXPECT_EQ(floordiv(k, n) * n + mod(k, n), k);
  EXPECT_EQ(mod(k, n).lower_bound(), 0);
  EXPECT_EQ(mod(k, n).upper_bound(), 8);
  const Dim negative = n - 1;
  EXPECT_FALSE(provably_less_equal(0, mod(k, negative)));
}

TEST_F(DimTest, MinAndMaxResolveWhereRangesDecide) {
  EXPECT_EQ(min(b_, 64), b_);
  EXPECT_EQ(max(b_, 1), b_);
  EXPECT_EQ(min(b_, 16).upper_bound(), 16);
  EXPECT_EQ(max(s_, 100).lower_bound(), 100);
  EXPECT_EQ(min(b_, s_).str(), min(s_, b_).str());
  EXPECT_EQ(value(max(b_, s_), 3, 9), 9);
}

TEST_F(DimTest, ProofsAreNotGuesses) {
  EXPECT_TRUE(provably_less(b_, 33));
  EXPECT_FALSE(provably_less(b_, 32));
  EXPECT_FALSE(provably_less(b_, s_));
  EXPECT_TRUE(provably_divisible(b_ * s_ * 4, s_ * 2));
  EXPECT_FALSE(provably_divisible(b_ * 3, 2));
  EXPECT_FALSE(provably_equal(floordiv(b_, 2) * 2, b_));
}

TEST_F(DimTest, SubstitutesAndEvaluates) {
  const Dim size = floordiv(b_ * s_, 3) + max(b_, 20);
  EXPECT_EQ(value(size, 4, 10), 13 + 20);
  EXPECT_EQ(size.substitute(batch_, 4).substitute(length_, 10), Dim(33));
  EXPECT_EQ((b_ * s_ + b_).substitute(batch_, s_), s_ * s_ + s_);
  EXPECT_EQ((b_ * s_).at_opt(), 8 * 64);
  EXPECT_EQ(size.symbols().size(), 2u);
  EXPECT_TRUE(size.mentions(length_));
}

TEST_F(DimTest, SplitsLinearly) {
  const auto split = (b_ * s_ * 2 + s_ + 5).as_linear_in(length_);
  ASSERT_TRUE(split.has_value());
  EXPECT_EQ(split->first, b_ * 2 + 1);
  EXPECT_EQ(split->second, Dim(5));
  EXPECT_FALSE((s_ * s_).as_linear_in(length_).has_value());
  EXPECT_FALSE(floordiv(s_, 2).as_linear_in(length_).has_value());
}

// Ranges whose products have no 64-bit value, by one symbol, by two and by three; and none at all.
TEST_F(DimTest, WideRangesProveNothingWrong) {
  for (const int shift : {21, 31, 32, 40, 59, 60}) {
    const int64_t max = int64_t{1} << shift;
    const Dim x = make_size_symbol("x", 0, max, 2), y = make_size_symbol("y", 0, max, 2),
              z = make_size_symbol("z", 0, max, max);
    for (const Dim& size : {x, x * y, x * y * z, x * x * x, x * y + z, x * 3 * y + 1}) {
      EXPECT_EQ(size.lower_bound(), size.is_constant() ? 0
                                                       : size.substitute([](const SymbolPtr&) {
                                                               return std::optional<Dim>(Dim(0));
                                                             })
                                                             .constant())
          << size.str();
      EXPECT_GE(size.upper_bound(), std::min(max, kDimInfinity)) << size.str();
      EXPECT_FALSE(provably_less(size, 4096)) << size.str();
      const auto at_two = [](const Dim& dim) {
        return dim.evaluate([](const SymbolPtr&) { return 2; });
      };
      // The number of blocks of a loop, as code generation makes it.
      EXPECT_EQ(at_two(ceildiv(size, 4096)), 1) << size.str();
      EXPECT_EQ(at_two(mod(size, 4096)), at_two(size)) << size.str();
      EXPECT_EQ(at_two(ir::min(size, 4096)), at_two(size)) << size.str();
      EXPECT_EQ(at_two(ir::max(size, 1)), at_two(size)) << size.str();
      EXPECT_GE(size.at_opt(), 2) << size.str();
    }
  }
}

TEST_F(DimTest, SizesWithoutA64BitValueAreAnErrorThatNamesThem) {
  const Dim wide = int64_t{1} << 40;
  const auto expect_overflow = [](const auto& compute, const std::string& text) {
    try {
      compute();
      ADD_FAILURE() << "expected an overflow of " << text;
    } catch (const SizeOverflow& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  };
  expect_overflow([&] { return wide * wide; }, "(1099511627776) * (1099511627776)");
  expect_overflow([&] { return product({wide, b_, wide}); }, "(b*1099511627776) * (1099511627776)");
  expect_overflow([&] { return Dim(INT64_MAX) + 1; }, "9223372036854775807 + 1");
  expect_overflow([&] { return -Dim(INT64_MIN); }, "-9223372036854775808");
  expect_overflow([&] { return (b_ * s_).evaluate([](const SymbolPtr&) { return 1LL << 32; }); },
                  "4294967296 * 4294967296");
  EXPECT_EQ(product({wide, wide, 0}), Dim(0));  // no element
  EXPECT_EQ(saturating_product({1LL << 40, 1LL << 40, 3}), kDimInfinity);
  EXPECT_EQ(saturating_product({1LL << 40, 1LL << 40, 0}), 0);
  EXPECT_FALSE(provably_less(Dim(INT64_MIN), Dim(INT64_MAX)));
}

// At the largest sizes the index itself has no 64-bit value, and the distance to its end has.
TEST_F(DimTest, OneEndOfABoundMayOverflow) {
  for (const int64_t most :
       {int64_t{1} << 31, int64_t{1} << 32, int64_t{1} << 40, (int64_t{1} << 60) - 1}) {
    const Dim rows = make_size_symbol("rows", 1, most, 2),
              columns = make_size_symbol("columns", 1, most, 2);
    const Dim elements = rows * columns;
    const Dim flat = make_loop_symbol("flat", elements), row = make_loop_symbol("row", rows),
              column = make_loop_symbol("column", columns);
    EXPECT_TRUE(provably_less(flat, elements)) << most;
    EXPECT_FALSE(provably_less(flat, elements - 1)) << most;
    EXPECT_TRUE(provably_less(row * columns + column, elements)) << most;
    EXPECT_FALSE(provably_less(row * columns + column + 1, elements)) << most;
    EXPECT_TRUE(provably_less_equal(0, row * columns + column)) << most;
  }
}

TEST_F(DimTest, ConstantsKnowThemselves) {
  EXPECT_TRUE(Dim(3).is_constant(3));
  EXPECT_TRUE(Dim().is_constant(0));
  EXPECT_EQ(Dim(-3).constant(), -3);
  EXPECT_THROW(b_.constant(), InternalError);
  EXPECT_EQ(b_.as_symbol(), batch_);
  EXPECT_EQ((b_ + 1).as_symbol(), nullptr);
  EXPECT_EQ(product({b_, 2, s_}), b_ * s_ * 2);
  EXPECT_EQ(product({}), Dim(1));
}

// Deeper than proofs go: a bound that cannot be improved is no reason to go on looking for one.
TEST_F(DimTest, BoundsOfDeepDivisionsEnd) {
  const SymbolPtr size = make_size_symbol("s", 1, 100, 8);
  Dim nested(0);
  for (int level = 0; level < 9; ++level) {
    nested = floordiv(nested * 2 + Dim(make_loop_symbol("i", size)), 3);
  }
  EXPECT_EQ(nested.lower_bound(), 0);
  EXPECT_GE(nested.upper_bound(), 33);
}

}  // namespace
}  // namespace kiln::ir
