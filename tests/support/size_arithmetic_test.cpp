#include "support/size_arithmetic.h"

#include <gtest/gtest.h>

#include <limits>

namespace kiln {
namespace {

constexpr int64_t kLowest = std::numeric_limits<int64_t>::min();
constexpr int64_t kHighest = std::numeric_limits<int64_t>::max();

SizeValue apply(std::string_view name, SizeValue left, SizeValue right) {
  const auto function = size_function_named(name);
  EXPECT_TRUE(function.has_value()) << name;
  EXPECT_EQ(size_function_name(*function), name);
  return apply_size_function(*function, left, right);
}

TEST(SizeArithmetic, Computes) {
  EXPECT_EQ(apply("add", 7, 3), 10);
  EXPECT_EQ(apply("sub", 7, 10), -3);
  EXPECT_EQ(apply("mul", -7, 3), -21);
  EXPECT_EQ(apply("max", 7, 3), 7);
  EXPECT_EQ(apply("min", 7, 3), 3);
  EXPECT_EQ(apply("pow", 10, 2), 100);
  EXPECT_EQ(apply("pow", 0, 0), 1);
  EXPECT_EQ(apply("pow", -1, 3), -1);
  EXPECT_FALSE(size_function_named("plus").has_value());
  EXPECT_FALSE(size_function_named("").has_value());
}

TEST(SizeArithmetic, DividesLikePython) {
  EXPECT_EQ(apply("floordiv", 7, 2), 3);
  EXPECT_EQ(apply("floordiv", -7, 2), -4);
  EXPECT_EQ(apply("floordiv", 7, -2), -4);
  EXPECT_EQ(apply("floordiv", -7, -2), 3);
  EXPECT_EQ(apply("mod", -7, 2), 1);
  EXPECT_EQ(apply("mod", 7, -2), -1);
  EXPECT_EQ(apply("mod", -6, 2), 0);
  EXPECT_EQ(apply("mod", kLowest, -1), 0);
}

TEST(SizeArithmetic, Compares) {
  EXPECT_EQ(apply("eq", 7, 7), 1);
  EXPECT_EQ(apply("eq", 7, 8), 0);
  EXPECT_EQ(apply("ne", 7, 7), 0);
  EXPECT_EQ(apply("ne", 7, 8), 1);
  EXPECT_EQ(apply("lt", 7, 7), 0);
  EXPECT_EQ(apply("lt", 7, 8), 1);
  EXPECT_EQ(apply("le", 7, 7), 1);
  EXPECT_EQ(apply("le", 8, 7), 0);
  EXPECT_EQ(apply("gt", 7, 7), 0);
  EXPECT_EQ(apply("gt", 8, 7), 1);
  EXPECT_EQ(apply("ge", 7, 7), 1);
  EXPECT_EQ(apply("ge", 7, 8), 0);
  EXPECT_EQ(apply("and", 2, 3), 1);
  EXPECT_EQ(apply("and", 2, 0), 0);
  EXPECT_EQ(apply("or", 0, 3), 1);
  EXPECT_EQ(apply("or", 0, 0), 0);
}

TEST(SizeArithmetic, WhatHasNo64BitValueIsNothing) {
  EXPECT_EQ(apply("add", kHighest, 1), std::nullopt);
  EXPECT_EQ(apply("sub", kLowest, 1), std::nullopt);
  EXPECT_EQ(apply("mul", kHighest, 2), std::nullopt);
  EXPECT_EQ(apply("mul", kLowest, -1), std::nullopt);
  EXPECT_EQ(apply("floordiv", kLowest, -1), std::nullopt);
  EXPECT_EQ(apply("floordiv", 1, 0), std::nullopt);
  EXPECT_EQ(apply("mod", 1, 0), std::nullopt);
  EXPECT_EQ(apply("pow", 2, 63), std::nullopt);
  EXPECT_EQ(apply("pow", 2, kHighest), std::nullopt);
  EXPECT_EQ(apply("pow", 10, 19), std::nullopt);
  EXPECT_EQ(apply("pow", 2, -1), std::nullopt);
  EXPECT_EQ(apply("pow", 10, 18), 1'000'000'000'000'000'000);
  EXPECT_EQ(apply("pow", 1, kHighest), 1);
  EXPECT_EQ(apply("pow", 0, kHighest), 0);
  EXPECT_EQ(apply("pow", -1, kHighest), -1);
  EXPECT_EQ(apply("pow", -1, kHighest - 1), 1);
}

TEST(SizeArithmetic, NothingIsPassedOnUnlessTheFirstOperandDecides) {
  EXPECT_EQ(apply("add", std::nullopt, 1), std::nullopt);
  EXPECT_EQ(apply("max", 1, std::nullopt), std::nullopt);
  EXPECT_EQ(apply("and", 0, std::nullopt), 0);
  EXPECT_EQ(apply("and", 1, std::nullopt), std::nullopt);
  EXPECT_EQ(apply("or", 1, std::nullopt), 1);
  EXPECT_EQ(apply("or", 0, std::nullopt), std::nullopt);
  EXPECT_EQ(apply("and", std::nullopt, 0), std::nullopt);
}

}  // namespace
}  // namespace kiln
