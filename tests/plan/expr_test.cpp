// Folding in the constructors of expressions, and rewriting of shared ones.
#include "plan/form/expr.h"

#include <gtest/gtest.h>

#include "plan/form/fold.h"
#include "plan/form/rewrite.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

class ExprTest : public testing::Test {
 protected:
  Index i{ir::make_loop_symbol("i", 8)}, j{ir::make_loop_symbol("j", 4)};
  Expr x = load_at(0, DType::F32, {i, j});
  Expr flag = load_at(1, DType::Bool, {i});

  static std::string text(const Expr& expr) { return to_string(expr); }
  static Expr f32(double value) { return constant(DType::F32, value); }
};

TEST_F(ExprTest, FoldsConstants) {
  EXPECT_EQ(text(apply(Op::add, {f32(1), f32(2)})), "3.0");
  EXPECT_EQ(text(apply(Op::lt, {f32(1), f32(2)})), "true");
  EXPECT_EQ(text(cast(f32(-2.7), DType::I64)), "-2");
  EXPECT_EQ(text(cast(constant_int(DType::I64, 300), DType::U8)), "44");
  EXPECT_EQ(text(apply(Op::div, {constant_int(DType::I64, -7), constant_int(DType::I64, 2)})),
            "-3");
  EXPECT_EQ(text(apply(Op::floor_div, {constant_int(DType::I64, -7), constant_int(DType::I64, 2)})),
            "-4");
}

TEST_F(ExprTest, DecidesComparisonsOfPositionsByTheirRanges) {
  EXPECT_EQ(text(apply(Op::lt, {position(i), position(8)})), "true");
  EXPECT_EQ(text(apply(Op::lt, {position(i), position(0)})), "false");
  EXPECT_EQ(text(apply(Op::ge, {position(i), position(j)})), "ge(i, j)");
  EXPECT_EQ(text(apply(Op::eq, {position(i + j), position(j + i)})), "true");
  EXPECT_EQ(text(apply(Op::ne, {position(i), position(9)})), "true");
}

TEST_F(ExprTest, AWrappedLoopIndexIsTheLoopIndex) {
  const Expr index = position(i);
  const Expr wrapped = apply(Op::where, {apply(Op::lt, {index, position(0)}),
                                         apply(Op::add, {index, position(8)}), index});
  EXPECT_EQ(text(wrapped), "i");
  EXPECT_EQ(text(apply(Op::minimum, {wrapped, position(7)})), "i");
}

TEST_F(ExprTest, ArithmeticOfPositionsIsAPosition) {
  EXPECT_EQ(text(apply(Op::floor_div, {position(i * 4 + j), position(4)})), "i");
  EXPECT_EQ(text(apply(Op::remainder, {position(i * 4 + j), position(4)})), "j");
  EXPECT_EQ(text(apply(Op::neg, {position(i)})), "-i");
  EXPECT_EQ(apply(Op::mul, {position(i), position(j)})->kind, ExprKind::Position);
}

TEST_F(ExprTest, FoldsIdentities) {
  EXPECT_EQ(apply(Op::mul, {x, f32(1)}), x);
  EXPECT_EQ(apply(Op::add, {f32(-0.0), x}), x);
  EXPECT_NE(apply(Op::add, {f32(0), x}), x) << "x may be -0";
  EXPECT_EQ(apply(Op::pow, {x, f32(1)}), x);
  EXPECT_EQ(text(apply(Op::pow, {x, f32(2)})), "mul(%0[i, j], %0[i, j])");
  EXPECT_EQ(apply(Op::where, {constant_int(DType::Bool, 1), x, f32(2)}), x);
  EXPECT_EQ(apply(Op::where, {flag, x, x}), x);
  EXPECT_EQ(text(apply(Op::mul, {x, f32(0)})), "mul(%0[i, j], 0.0)") << "x may be NaN";
}

TEST_F(ExprTest, FoldsConjunctions) {
  EXPECT_EQ(logical_and(nullptr, flag), flag);
  EXPECT_EQ(logical_and(flag, nullptr), flag);
  EXPECT_EQ(logical_and(flag, constant_int(DType::Bool, 1)), flag);
  EXPECT_EQ(text(logical_and(flag, constant_int(DType::Bool, 0))), "false");
  EXPECT_EQ(logical_and(flag, flag), flag);
}

TEST_F(ExprTest, CastsThatLoseNothingVanish) {
  EXPECT_EQ(cast(x, DType::F32), x);
  EXPECT_EQ(text(cast(cast(flag, DType::I64), DType::F32)), "f32(%1[i])");
  EXPECT_EQ(cast(cast(flag, DType::F32), DType::Bool), flag);
  EXPECT_EQ(text(cast(cast(x, DType::F64), DType::F32)), "%0[i, j]");
  EXPECT_EQ(text(cast(cast(x, DType::F16), DType::F32)), "f32(f16(%0[i, j]))");
  const Expr half = cast(x, DType::F16), square = apply(Op::mul, {half, half});
  EXPECT_EQ(cast(cast(half, DType::F32), DType::F16), half);
  EXPECT_EQ(text(cast(cast(square, DType::F32), DType::F16)),
            "f16(f32(mul(f16(%0[i, j]), f16(%0[i, j]))))");
  EXPECT_EQ(text(cast(cast(position(i), DType::I32), DType::I64)), "i");
}

TEST_F(ExprTest, LoadsWithKnownPredicates) {
  EXPECT_EQ(load_at(0, DType::F32, {i}, constant_int(DType::Bool, 1))->predicate, nullptr);
  EXPECT_EQ(text(load_at(0, DType::F32, {i}, constant_int(DType::Bool, 0))), "0.0");
}

TEST_F(ExprTest, RefusesOperandsOfDifferentDtypes) {
  EXPECT_THROW(apply(Op::add, {x, position(i)}), InternalError);
}

TEST_F(ExprTest, RewritingKeepsSharedNodesShared) {
  Expr deep = x;
  for (int k = 0; k < 60; ++k) deep = apply(Op::mul, {deep, deep});
  EXPECT_EQ(operation_count(deep), 60);
  int visits = 0;
  const Expr moved = rewrite(deep, [&](const ExprNode& node) -> Expr {
    ++visits;
    return node.kind == ExprKind::Load ? load_at(5, DType::F32, {j}) : nullptr;
  });
  EXPECT_EQ(operation_count(moved), 60);
  EXPECT_LT(visits, 100);
}

TEST_F(ExprTest, RewritingSharesEqualNodes) {
  const Expr a = apply(Op::exp, {load_at(0, DType::F32, {i})});
  const Expr b = apply(Op::exp, {load_at(0, DType::F32, {i})});
  const Expr sum = rewrite(apply(Op::add, {a, b}), [](const ExprNode&) { return Expr(); });
  EXPECT_EQ(sum->args[0], sum->args[1]);
}

TEST_F(ExprTest, SubstitutionFoldsWhatBecomesKnown) {
  const Expr inside = apply(Op::lt, {position(i), position(j)});
  const Expr value = apply(Op::where, {inside, x, f32(0)});
  const auto first = [&](const ir::SymbolPtr& symbol) -> std::optional<Index> {
    return symbol == i.as_symbol() ? std::optional<Index>(4) : std::nullopt;
  };
  EXPECT_EQ(text(substitute(value, first)), "0.0");
}

TEST_F(ExprTest, PositionsOfDataBecomeArithmetic) {
  const Expr data = load_at(2, DType::I64, {j});
  const Expr value = load_at(0, DType::F32, {i * 3 + 1, ir::mod(i, 5)});
  const auto map = [&](const ir::SymbolPtr& s) { return s == i.as_symbol() ? data : nullptr; };
  EXPECT_EQ(text(substitute_values(value, map)), "%0[add(mul(3, %2[j]), 1), remainder(%2[j], 5)]");
}

}  // namespace
}  // namespace kiln::plan
