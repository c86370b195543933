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
  Reduced,  // the result of reduction stage `slot` of the same kernel
  Accumulator,  // the finished sum of a contraction, in its epilogue: `slot` 0, or 1 of its pair or second sum
  Apply,  // the pointwise op `op` on args: Unary, Binary and Ternary kinds of ops.def, `cast`
          // included
  Check,  // args[0]; where it fails `check_kind`, and `predicate` is not false, the run is an
          // error: check `check` of the program
};

// What a Check asks of its operand.
enum class CheckKind : uint8_t {
  Index,         // 0 <= i < size
  IndexFromEnd,  // -size <= i < size
  Nonzero,
};

struct ExprNode;
using Expr = std::shared_ptr<const ExprNode>;

struct ExprNode {
  ExprKind kind = ExprKind::Constant;
  DType dtype = DType::F32;
  double number = 0;
  int64_t integer = 0;
  Index index = {};  // Position; Check of an index: the size
  BufferId buffer = -1;
  int32_t slot = -1;
  ir::Op op = ir::Op::constant;
  bool gelu_tanh = false;  // Apply gelu: the tanh form
  std::vector<Expr> args = {};
  Expr predicate = {};  // Load and Check only; bool
  CheckKind check_kind = CheckKind::Index;
  int32_t check = -1;
};

Expr constant(DType dtype, double value);
Expr constant_int(DType dtype, int64_t value);
Expr position(Index index);
Expr load(BufferId buffer, DType dtype, std::vector<Expr> indices, Expr predicate = nullptr);
Expr load_at(BufferId buffer, DType dtype, const std::vector<Index>& indices,
             Expr predicate = nullptr);
Expr reduced(int32_t slot, DType dtype);
Expr accumulator(DType dtype, int32_t slot = 0);
// The op applied to operands of the right dtypes; the result dtype follows ops.def (comparisons
// give bool).
Expr apply(ir::Op op, std::vector<Expr> args);
Expr apply_gelu(Expr x, bool tanh_form);
Expr cast(Expr value, DType dtype);
// A Load, an Apply or a Check of other operands.
Expr with_operands(const ExprNode& node, std::vector<Expr> args, Expr predicate);
Expr logical_and(Expr a, Expr b);  // null means true
// The value itself where the check provably holds.
Expr check(Expr value, CheckKind kind, Index size, int32_t id, Expr predicate = nullptr);
// An i64 or integer that is negative where the operand of a Check fails: what kernels collect.
Expr failure(const ExprNode& check);

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
bool has_checks(const Expr& expr);
std::string to_string(const Expr& expr);

}  // namespace kiln::plan
