// Expressions: what a kernel computes at one point of its iteration space.
//
// Immutable and shared. Positions are ir::Dims over size symbols and loop indices; values are
// Exprs. An Expr is made by the functions below, which fold what is known: comparisons decided by
// ranges, selects with a constant condition.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ir/dim.h"
#include "ir/graph.h"
#include "support/dtype.h"

namespace kiln::plan {

using Index = ir::Dim;
using BufferId = int32_t;

enum class ExprKind : uint8_t {
  Constant,  // `number` (floating) or `integer`
  Position,  // the value of `index`, i64
  Load,  // buffer[args...], each an i64 Expr; if `predicate`, zero and no access where it is false
  Reduced,      // the result of reduction stage `slot` of the same kernel
  Accumulator,  // the finished sum of a contraction, in its epilogue
  Apply,        // the pointwise op `op` on args: Unary, Binary and Ternary kinds of ops.def, `cast`
                // included
};

struct ExprNode;
using Expr = std::shared_ptr<const ExprNode>;

struct ExprNode {
  ExprKind kind = ExprKind::Constant;
  DType dtype = DType::F32;
  double number = 0;
  int64_t integer = 0;
  Index index = {};
  BufferId buffer = -1;
  int32_t slot = -1;
  ir::Op op = ir::Op::constant;
  bool gelu_tanh = false;  // Apply gelu: the tanh form
  std::vector<Expr> args = {};
  Expr predicate = {};  // Load only; bool
};

Expr constant(DType dtype, double value);
Expr constant_int(DType dtype, int64_t value);
Expr position(Index index);
Expr load(BufferId buffer, DType dtype, std::vector<Expr> indices, Expr predicate = nullptr);
Expr load_at(BufferId buffer, DType dtype, const std::vector<Index>& indices,
             Expr predicate = nullptr);
Expr reduced(int32_t slot, DType dtype);
Expr accumulator(DType dtype);
// The op applied to operands of the right dtypes; the result dtype follows ops.def (comparisons
// give bool).
Expr apply(ir::Op op, std::vector<Expr> args);
Expr apply_gelu(Expr x, bool tanh_form);
Expr cast(Expr value, DType dtype);
Expr logical_and(Expr a, Expr b);  // null means true

// Rewrites bottom-up; the function returns null for a node that stays as it is (with rewritten
// operands).
Expr rewrite(const Expr& expr, const std::function<Expr(const ExprNode&)>& replacement);
// Replaces loop indices in every position.
Expr substitute(const Expr& expr,
                const std::function<std::optional<Index>(const ir::SymbolPtr&)>& replacement);
void visit(const Expr& expr, const std::function<void(const ExprNode&)>& visitor);
// Whether a value is one of its dtype for certain. Others are results of 16-bit arithmetic, which
// backends may keep in f32 until they are stored or cast.
bool is_rounded(const Expr& expr);
// Number of Apply nodes, shared ones counted once: a measure of cost.
int64_t operation_count(const Expr& expr);
std::string to_string(const Expr& expr);

}  // namespace kiln::plan
