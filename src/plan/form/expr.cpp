#include "plan/form/expr.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "ir/op_table.h"
#include "plan/form/bounds.h"
#include "plan/form/fold.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

Expr make(ExprNode node) { return std::make_shared<const ExprNode>(std::move(node)); }

Expr make_apply(Op op, DType dtype, std::vector<Expr> args, bool gelu_tanh) {
  return make({.kind = ExprKind::Apply,
               .dtype = dtype,
               .op = op,
               .gelu_tanh = gelu_tanh,
               .args = std::move(args)});
}

Expr apply_folded(Op op, std::vector<Expr> args, bool gelu_tanh) {
  if (Expr folded = fold_apply(op, args, gelu_tanh)) return folded;
  std::vector<DType> dtypes;
  for (const Expr& arg : args) dtypes.push_back(arg->dtype);
  const DType dtype = result_dtype(op, dtypes);
  return make_apply(op, dtype, std::move(args), gelu_tanh);
}

// --- Sharing of equal nodes ---

// Orders nodes by content, operands by identity: operands are shared before the nodes that use
// them.
struct LessByContent {
  template <typename T>
  static int order(const T& a, const T& b) {
    return a < b ? -1 : (b < a ? 1 : 0);
  }
  static int compare(const ExprNode& a, const ExprNode& b) {
    if (int c = order(a.kind, b.kind)) return c;
    if (int c = order(a.dtype, b.dtype)) return c;
    if (int c = order(std::bit_cast<uint64_t>(a.number), std::bit_cast<uint64_t>(b.number)))
      return c;
    if (int c = order(a.integer, b.integer)) return c;
    if (int c = order(a.buffer, b.buffer)) return c;
    if (int c = order(a.slot, b.slot)) return c;
    if (int c = order(a.op, b.op)) return c;
    if (int c = order(a.gelu_tanh, b.gelu_tanh)) return c;
    if (int c = order(a.predicate.get(), b.predicate.get())) return c;
    if (int c = order(a.args, b.args)) return c;
    if (int c = order(a.check_kind, b.check_kind)) return c;
    if (int c = order(a.check, b.check)) return c;
    return ir::Dim::compare(a.index, b.index);
  }
  bool operator()(const Expr& a, const Expr& b) const { return compare(*a, *b) < 0; }
};

// Bottom-up rewriting of a DAG: every node once, equal results shared.
class Rewriter {
 public:
  explicit Rewriter(const std::function<Expr(const ExprNode&)>& replacement)
      : replacement_(replacement) {}

  Expr run(const Expr& expr) {
    if (!expr) return nullptr;
    if (auto it = memo_.find(expr.get()); it != memo_.end()) return it->second;
    Expr result = with_rewritten_operands(expr);
    if (Expr replaced = replacement_(*result)) result = replaced;
    keep_alive_.push_back(expr);
    return memo_[expr.get()] = result;
  }

 private:
  Expr with_rewritten_operands(const Expr& expr) {
    std::vector<Expr> args;
    for (const Expr& arg : expr->args) args.push_back(run(arg));
    Expr predicate = run(expr->predicate);
    if (args == expr->args && predicate == expr->predicate) return expr;
    return with_operands(*expr, std::move(args), std::move(predicate));
  }

  const std::function<Expr(const ExprNode&)>& replacement_;
  std::unordered_map<const ExprNode*, Expr> memo_;
  std::vector<Expr> keep_alive_;  // keys of memo_ must not be freed and reused
};

class Sharer {
 public:
  Expr run(const Expr& expr) {
    if (!expr) return nullptr;
    if (auto it = memo_.find(expr.get()); it != memo_.end()) return it->second;
    Expr result = expr;
    std::vector<Expr> args;
    for (const Expr& arg : expr->args) args.push_back(run(arg));
    Expr predicate = run(expr->predicate);
    if (args != expr->args || predicate != expr->predicate) {
      result = with_operands(*expr, std::move(args), std::move(predicate));
    }
    result = *nodes_.insert(result).first;
    keep_alive_.push_back(expr);
    return memo_[expr.get()] = result;
  }

 private:
  std::set<Expr, LessByContent> nodes_;
  std::unordered_map<const ExprNode*, Expr> memo_;
  std::vector<Expr> keep_alive_;
};

void visit_once(const Expr& expr, const std::function<void(const ExprNode&)>& visitor,
                std::unordered_set<const ExprNode*>& seen) {
  if (!expr || !seen.insert(expr.get()).second) return;
  for (const Expr& arg : expr->args) visit_once(arg, visitor, seen);
  visit_once(expr->predicate, visitor, seen);
  visitor(*expr);
}

bool is_rounded_once(const Expr& expr, std::unordered_set<const ExprNode*>& seen) {
  if (!is_16_bit_float(expr->dtype) || !seen.insert(expr.get()).second) return true;
  if (expr->kind == ExprKind::Reduced || expr->kind == ExprKind::Accumulator) return false;
  if (expr->kind != ExprKind::Apply || expr->op == Op::cast) return true;
  return !ir::rounds_result(expr->op) &&
         std::ranges::all_of(expr->args, [&](const Expr& x) { return is_rounded_once(x, seen); });
}

// --- Text ---

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  std::string result(text, end);
  return result.find_first_of(".e") == std::string::npos ? result + ".0" : result;
}

std::string join(const std::vector<Expr>& args) {
  std::string result;
  for (const Expr& arg : args) result += (result.empty() ? "" : ", ") + to_string(arg);
  return result;
}

std::string constant_text(const ExprNode& node) {
  if (node.dtype == DType::Bool) return node.integer != 0 ? "true" : "false";
  if (is_floating(node.dtype)) return number_text(node.number);
  return std::to_string(node.integer);
}

std::string apply_text(const ExprNode& node) {
  std::string name(op_name(node.op));
  if (node.op == Op::cast) name = dtype_name(node.dtype);
  if (node.op == Op::gelu && node.gelu_tanh) name = "gelu_tanh";
  return name + "(" + join(node.args) + ")";
}

std::string check_text(const ExprNode& node) {
  if (node.check_kind == CheckKind::Nonzero) return "nonzero(" + to_string(node.args[0]) + ")";
  const char* least = node.check_kind == CheckKind::IndexFromEnd ? " from either end" : "";
  return "index(" + to_string(node.args[0]) + " of " + node.index.str() + least + ")";
}

bool provably_holds(const Expr& value, CheckKind kind, const Index& size, const Expr& predicate) {
  if (kind == CheckKind::Index) return provably_in_range(value, size, predicate);
  if (kind == CheckKind::IndexFromEnd) {
    return provably_in_range(value, -size, size, predicate);
  }
  if (const auto known = as_scalar(value)) return known->integer != 0;
  const auto index = as_index(value);
  return index && (index->lower_bound() > 0 || index->upper_bound() < 0);
}

}  // namespace

Expr constant(DType dtype, double value) {
  const Scalar scalar = ir::make_scalar(dtype, value);
  return make({.kind = ExprKind::Constant,
               .dtype = dtype,
               .number = scalar.number,
               .integer = scalar.integer});
}

Expr constant_int(DType dtype, int64_t value) {
  const Scalar scalar = ir::make_scalar_int(dtype, value);
  return make({.kind = ExprKind::Constant,
               .dtype = dtype,
               .number = scalar.number,
               .integer = scalar.integer});
}

Expr position(Index index) {
  if (index.is_constant()) return constant_int(DType::I64, index.constant());
  return make({.kind = ExprKind::Position, .dtype = DType::I64, .index = std::move(index)});
}

Expr load(BufferId buffer, DType dtype, std::vector<Expr> indices, Expr predicate) {
  if (predicate) {
    if (const auto known = as_scalar(predicate)) {
      if (!known->truth()) return constant_int(dtype, 0);
      predicate = nullptr;
    }
  }
  return make({.kind = ExprKind::Load,
               .dtype = dtype,
               .buffer = buffer,
               .args = std::move(indices),
               .predicate = std::move(predicate)});
}

Expr load_at(BufferId buffer, DType dtype, const std::vector<Index>& indices, Expr predicate) {
  std::vector<Expr> args;
  for (const Index& index : indices) args.push_back(position(index));
  return load(buffer, dtype, std::move(args), std::move(predicate));
}

Expr reduced(int32_t slot, DType dtype) {
  return make({.kind = ExprKind::Reduced, .dtype = dtype, .slot = slot});
}

Expr accumulator(DType dtype, int32_t slot) {
  return make({.kind = ExprKind::Accumulator, .dtype = dtype, .slot = slot});
}

Expr apply(Op op, std::vector<Expr> args) {
  KILN_CHECK(op != Op::cast, "casts are made by cast()");
  const size_t first = op == Op::where ? 1 : 0;
  for (size_t i = first + 1; i < args.size(); ++i) {
    KILN_CHECK(args[i]->dtype == args[first]->dtype,
               "[" + std::string(op_name(op)) + "] got operands of different dtypes");
  }
  return apply_folded(op, std::move(args), false);
}

Expr apply_gelu(Expr x, bool tanh_form) {
  return apply_folded(Op::gelu, {std::move(x)}, tanh_form);
}

Expr cast(Expr value, DType dtype) {
  if (Expr folded = fold_cast(value, dtype)) return folded;
  return make_apply(Op::cast, dtype, {std::move(value)}, false);
}

Expr with_operands(const ExprNode& node, std::vector<Expr> args, Expr predicate) {
  if (node.kind == ExprKind::Load) {
    return load(node.buffer, node.dtype, std::move(args), std::move(predicate));
  }
  if (node.kind == ExprKind::Check) {
    return check(std::move(args[0]), node.check_kind, node.index, node.check, std::move(predicate));
  }
  if (node.op == Op::cast) return cast(args[0], node.dtype);
  return apply_folded(node.op, std::move(args), node.gelu_tanh);
}

Expr logical_and(Expr a, Expr b) {
  if (!a) return b;
  if (!b) return a;
  return apply(Op::bitwise_and, {std::move(a), std::move(b)});
}

Expr check(Expr value, CheckKind kind, Index size, int32_t id, Expr predicate) {
  if (predicate) {
    if (const auto known = as_scalar(predicate)) {
      if (!known->truth()) return value;
      predicate = nullptr;
    }
  }
  if (provably_holds(value, kind, size, predicate)) return value;
  const DType dtype = value->dtype;
  return make({.kind = ExprKind::Check,
               .dtype = dtype,
               .index = std::move(size),
               .args = {std::move(value)},
               .predicate = std::move(predicate),
               .check_kind = kind,
               .check = id});
}

// 0 <= i < size where neither i nor size - 1 - i is negative, and -size <= i < size where neither
// i + size nor size - 1 - i is: what overflows is the sum of an i that is too large, or the
// difference of one that is too small, and the other term is negative then. A bit pattern is 0
// where its sign alone is set in ~d & (d - 1).
Expr failure(const ExprNode& check) {
  const Expr& value = check.args[0];
  Expr result;
  if (check.check_kind == CheckKind::Nonzero) {
    const Expr less = apply(Op::sub, {value, constant_int(value->dtype, 1)});
    result = apply(Op::bitwise_and, {apply(Op::bitwise_not, {value}), less});
  } else {
    const Expr from_end = apply(Op::sub, {position(check.index - 1), value});
    const bool both = check.check_kind == CheckKind::IndexFromEnd;
    const Expr least = both ? apply(Op::add, {value, position(check.index)}) : value;
    result = apply(Op::bitwise_or, {least, from_end});
  }
  if (!check.predicate) return result;
  return apply(Op::where, {check.predicate, result, constant_int(result->dtype, 0)});
}

Expr rewrite(const Expr& expr, const std::function<Expr(const ExprNode&)>& replacement) {
  return Sharer().run(Rewriter(replacement).run(expr));
}

Expr substitute(const Expr& expr,
                const std::function<std::optional<Index>(const ir::SymbolPtr&)>& replacement) {
  return rewrite(expr, [&](const ExprNode& node) -> Expr {
    if (node.kind != ExprKind::Position) return nullptr;
    Index index = node.index.substitute(replacement);
    return index == node.index ? nullptr : position(std::move(index));
  });
}

void visit(const Expr& expr, const std::function<void(const ExprNode&)>& visitor) {
  std::unordered_set<const ExprNode*> seen;
  visit_once(expr, visitor, seen);
}

bool is_rounded(const Expr& expr) {
  std::unordered_set<const ExprNode*> seen;
  return is_rounded_once(expr, seen);
}

int64_t operation_count(const Expr& expr) {
  int64_t count = 0;
  visit(expr, [&](const ExprNode& node) { count += node.kind == ExprKind::Apply; });
  return count;
}

bool has_checks(const Expr& expr) {
  bool found = false;
  visit(expr, [&](const ExprNode& node) { found |= node.kind == ExprKind::Check; });
  return found;
}

std::string to_string(const Expr& expr) {
  switch (expr->kind) {
    case ExprKind::Constant:
      return constant_text(*expr);
    case ExprKind::Position:
      return expr->index.str();
    case ExprKind::Load: {
      std::string text("%");
      text.append(std::to_string(expr->buffer)).append("[").append(join(expr->args)).append("]");
      return expr->predicate ? text + " if " + to_string(expr->predicate) : text;
    }
    case ExprKind::Reduced:
      return std::string("r").append(std::to_string(expr->slot));
    case ExprKind::Accumulator:
      return expr->slot == 0 ? "acc" : "acc" + std::to_string(expr->slot);
    case ExprKind::Apply:
      return apply_text(*expr);
    case ExprKind::Check:
      return expr->predicate ? check_text(*expr) + " if " + to_string(expr->predicate)
                             : check_text(*expr);
  }
  return {};
}

}  // namespace kiln::plan
