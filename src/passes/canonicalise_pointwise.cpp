// Rules of `canonicalise` for pointwise ops. Each states itself as a formula.
#include <algorithm>
#include <cmath>
#include <set>

#include "ir/op_table.h"
#include "passes/canonicalise.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

using ir::Builder;
using ir::Node;
using ir::Op;
using ir::OpKind;
using ir::Shape;
using ir::Value;

bool is_known(const Value* x) {
  return literal_of(x) != nullptr || producer(x, Op::full) != nullptr;
}

// x, broadcast to the shape of the node's result.
Value* as_result(Rewriter& rewriter, Node& node, Value* x) {
  return rewriter.before(node).expand(x, node.output()->type.shape);
}

// The result shape without operand `skipped`; nothing where the operands do not broadcast.
std::optional<Shape> shape_without(const Node& node, size_t skipped) {
  Shape shape;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (i == skipped) continue;
    try {
      shape = ir::broadcast_shapes(shape, node.input(i)->type.shape);
    } catch (const CompileError&) {
      return std::nullopt;
    }
  }
  return shape;
}

// f(x, splat) -> f(x, scalar)
Value* uniform_operand_to_scalar(Rewriter& rewriter, Node& node) {
  if (node.inputs.size() < 2) return nullptr;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    Value* x = node.input(i);
    if (x->type.rank() == 0) continue;
    const auto value = uniform_value(x);
    if (!value || !is_exact(x->type.dtype, *value)) continue;
    if (shape_without(node, i) != node.output()->type.shape) continue;
    Builder builder = rewriter.before(node);
    std::vector<Value*> inputs = node.inputs;
    inputs[i] = builder.scalar(x->type.dtype, *value);
    return builder.value(node.op, std::move(inputs), node.attrs);
  }
  return nullptr;
}

std::optional<Op> mirrored(Op op) {
  if (ir::is_commutative(op)) return op;
  switch (op) {
    case Op::lt:
      return Op::gt;
    case Op::gt:
      return Op::lt;
    case Op::le:
      return Op::ge;
    case Op::ge:
      return Op::le;
    default:
      return std::nullopt;
  }
}

// f(constant, x) -> f'(x, constant)
Value* constant_to_the_right(Rewriter& rewriter, Node& node) {
  if (node.inputs.size() != 2 || !is_known(node.input(0)) || is_known(node.input(1)))
    return nullptr;
  const auto op = mirrored(node.op);
  if (!op) return nullptr;
  return rewriter.before(node).value(*op, {node.input(1), node.input(0)});
}

// Whether x + c is x, -0 included.
bool is_neutral_addend(double c, DType dtype) {
  return c == 0 && (!is_floating(dtype) || std::signbit(c));
}

// x + 0, x - 0, x * 1, x / 1, x^1, floor(x / 1) -> x; for integers x * 0 and x mod 1 -> 0
Value* neutral_operand(Rewriter& rewriter, Node& node) {
  if (node.inputs.size() != 2) return nullptr;
  const auto c = uniform_value(node.input(1));
  if (!c) return nullptr;
  const bool integer = is_integer(node.output()->type.dtype);
  switch (node.op) {
    case Op::add:
      return is_neutral_addend(*c, node.output()->type.dtype)
                 ? as_result(rewriter, node, node.input(0))
                 : nullptr;
    case Op::sub:
      return is_neutral_addend(-*c, node.output()->type.dtype)
                 ? as_result(rewriter, node, node.input(0))
                 : nullptr;
    case Op::bitwise_or:
    case Op::bitwise_xor:
      return *c == 0 ? as_result(rewriter, node, node.input(0)) : nullptr;
    case Op::mul:
      if (*c == 0 && !is_floating(node.output()->type.dtype)) return filled(rewriter, node, 0);
      return *c == 1 ? as_result(rewriter, node, node.input(0)) : nullptr;
    case Op::div:
    case Op::pow:
      return *c == 1 ? as_result(rewriter, node, node.input(0)) : nullptr;
    case Op::floor_div:
      return *c == 1 && integer ? as_result(rewriter, node, node.input(0)) : nullptr;
    case Op::remainder:
    case Op::fmod:
      return *c == 1 && integer ? filled(rewriter, node, 0) : nullptr;
    default:
      return nullptr;
  }
}

// Operands of bool: x and true -> x, x and false -> false, x or true -> true, x == true -> x, x !=
// true -> not x
Value* logical_identity(Rewriter& rewriter, Node& node) {
  if (node.inputs.size() != 2 || node.input(0)->type.dtype != DType::Bool) return nullptr;
  const auto c = uniform_value(node.input(1));
  if (!c) return nullptr;
  const bool truth = *c != 0;
  Value* x = node.input(0);
  switch (node.op) {
    case Op::bitwise_and:
    case Op::minimum:
      return truth ? as_result(rewriter, node, x) : filled(rewriter, node, 0);
    case Op::bitwise_or:
    case Op::maximum:
    case Op::add:
      return truth ? filled(rewriter, node, 1) : as_result(rewriter, node, x);
    case Op::eq:
    case Op::ne: {
      const bool same = truth == (node.op == Op::eq);
      if (!same) x = rewriter.before(node).value(Op::logical_not, {x});
      return as_result(rewriter, node, x);
    }
    default:
      return nullptr;
  }
}

// f(x, x) -> x for maximum, minimum, and, or
Value* equal_operands(Rewriter&, Node& node) {
  if (node.inputs.size() != 2 || node.input(0) != node.input(1)) return nullptr;
  const bool idempotent = node.op == Op::maximum || node.op == Op::minimum ||
                          node.op == Op::bitwise_and || node.op == Op::bitwise_or;
  return idempotent ? node.input(0) : nullptr;
}

// x^2 -> x*x, x^3 -> x*x*x, x^-1 -> 1/x. Roots stay: sqrt and rsqrt differ from pow at -inf and -0.
Value* power_to_products(Rewriter& rewriter, Node& node) {
  if (node.op != Op::pow || node.input(1)->type.rank() != 0) return nullptr;
  const auto exponent = uniform_value(node.input(1));
  if (!exponent) return nullptr;
  Value* x = node.input(0);
  Builder builder = rewriter.before(node);
  if (*exponent == 2) return builder.value(Op::mul, {x, x});
  if (*exponent == 3) return builder.value(Op::mul, {builder.value(Op::mul, {x, x}), x});
  if (!is_floating(x->type.dtype)) return nullptr;
  if (*exponent == -1) return builder.value(Op::reciprocal, {x});
  return nullptr;
}

// x / 2^n -> x * 2^-n, which is exact; the bounds keep 2^-n a normal number in every floating dtype
Value* division_by_power_of_two(Rewriter& rewriter, Node& node) {
  if (node.op != Op::div || !is_floating(node.output()->type.dtype)) return nullptr;
  if (node.input(1)->type.rank() != 0) return nullptr;
  const auto c = uniform_value(node.input(1));
  if (!c || *c == 0 || !std::isfinite(*c)) return nullptr;
  int exponent = 0;
  if (std::abs(std::frexp(*c, &exponent)) != 0.5 || std::abs(exponent) > 14) return nullptr;
  Builder builder = rewriter.before(node);
  Value* factor = builder.scalar(node.output()->type.dtype, 1 / *c);
  return builder.value(Op::mul, {node.input(0), factor});
}

// x - c -> x + -c
Value* subtraction_of_scalar(Rewriter& rewriter, Node& node) {
  const DType dtype = node.output()->type.dtype;
  if (node.op != Op::sub || node.input(1)->type.rank() != 0) return nullptr;
  if (!is_floating(dtype) && !is_signed_integer(dtype)) return nullptr;
  const auto c = uniform_value(node.input(1));
  if (!c || !is_exact(dtype, *c) || !is_exact(dtype, -*c)) return nullptr;
  Builder builder = rewriter.before(node);
  return builder.value(Op::add, {node.input(0), builder.scalar(dtype, -*c)});
}

// (x + a) + b -> x + (a + b) for integers
Value* sum_of_scalars(Rewriter& rewriter, Node& node) {
  const DType dtype = node.output()->type.dtype;
  if (node.op != Op::add || !is_integer(dtype) || node.input(1)->type.rank() != 0) return nullptr;
  const Node* inner = producer(node.input(0), Op::add);
  if (inner == nullptr || inner->input(1)->type.rank() != 0) return nullptr;
  const auto a = uniform_value(inner->input(1)), b = uniform_value(node.input(1));
  if (!a || !b || !is_exact(dtype, *a + *b)) return nullptr;
  Builder builder = rewriter.before(node);
  return builder.value(Op::add, {inner->input(0), builder.scalar(dtype, *a + *b)});
}

// max(x, 0) -> relu(x)
Value* maximum_to_relu(Rewriter& rewriter, Node& node) {
  if (node.op != Op::maximum || !is_floating(node.output()->type.dtype)) return nullptr;
  if (node.input(1)->type.rank() != 0 || uniform_value(node.input(1)) != 0.0) return nullptr;
  return rewriter.before(node).value(Op::relu, {node.input(0)});
}

// f(f(x)) -> x for neg, logical_not of bool, bitwise_not; f(f(x)) -> f(x) for abs, relu and the
// roundings
Value* repeated_unary(Rewriter&, Node& node) {
  const Node* inner = producer(node.input(0), node.op);
  if (inner == nullptr) return nullptr;
  switch (node.op) {
    case Op::neg:
    case Op::bitwise_not:
      return inner->input(0);
    case Op::logical_not:
      return inner->input(0)->type.dtype == DType::Bool ? inner->input(0) : nullptr;
    case Op::abs:
    case Op::relu:
    case Op::floor:
    case Op::ceil:
    case Op::round:
    case Op::trunc:
    case Op::sign:
      return inner->output();
    default:
      return nullptr;
  }
}

// not (a == b) -> a != b, and the other way round
Value* negated_comparison(Rewriter& rewriter, Node& node) {
  if (node.op != Op::logical_not) return nullptr;
  for (const auto& [from, to] : {std::pair{Op::eq, Op::ne}, std::pair{Op::ne, Op::eq}}) {
    if (const Node* inner = producer(node.input(0), from)) {
      return rewriter.before(node).value(to, inner->inputs);
    }
  }
  return nullptr;
}

// Whether a value is one of its dtype for certain, and not a result of 16-bit arithmetic that a
// kernel may hold in f32 (plan::is_rounded says the same of expressions).
bool is_rounded(const Value* value, std::set<const Value*>& seen) {
  if (!is_16_bit_float(value->type.dtype) || !seen.insert(value).second) return true;
  const Node* maker = value->producer;
  if (maker == nullptr || maker->op == Op::cast || ir::op_info(maker->op).kind == OpKind::Source) {
    return true;
  }
  return !ir::rounds_result(maker->op) && std::ranges::all_of(maker->inputs, [&](const Value* x) {
    return x == nullptr || is_rounded(x, seen);
  });
}

// cast(x, its own dtype) -> x; cast(cast(x, wider), dtype) -> cast(x, dtype).
Value* idle_cast(Rewriter& rewriter, Node& node) {
  if (node.op != Op::cast) return nullptr;
  const DType target = node.output()->type.dtype;
  Value* x = node.input(0);
  if (x->type.dtype == target) return x;
  const Node* inner = producer(x, Op::cast);
  if (inner == nullptr) return nullptr;
  Value* innermost = inner->input(0);
  std::set<const Value*> seen;
  const bool rounded = is_rounded(innermost, seen);
  if (!casts_merge(innermost->type.dtype, x->type.dtype, target, rounded)) return nullptr;
  return rewriter.before(node).cast(innermost, target);
}

// where(true, a, b) -> a; where(false, a, b) -> b; where(c, a, a) -> a
Value* decided_where(Rewriter& rewriter, Node& node) {
  if (node.op != Op::where) return nullptr;
  if (node.input(1) == node.input(2)) return as_result(rewriter, node, node.input(1));
  const auto condition = uniform_value(node.input(0));
  if (!condition) return nullptr;
  return as_result(rewriter, node, node.input(*condition != 0 ? 1 : 2));
}

// check(x) -> x for a constant that passes for every size
Value* idle_check(Rewriter&, Node& node) {
  if (node.op != Op::check_index && node.op != Op::check_nonzero) return nullptr;
  const ir::Literal* literal = literal_of(node.input(0));
  if (literal == nullptr || literal->replaceable) return nullptr;
  const bool is_index = node.op == Op::check_index;
  const int64_t size = is_index ? node.attr<ir::Dim>("size").lower_bound() : 0;
  const int64_t least = is_index && node.attr<bool>("negative") ? -size : 0;
  for (int64_t i = 0; i < literal->elements(); ++i) {
    const int64_t value = literal->as_int(i);
    if (is_index ? value < least || value >= size : value == 0) return nullptr;
  }
  return node.input(0);
}

}  // namespace

Value* canonicalise_pointwise(Rewriter& rewriter, Node& node) {
  for (auto* rule : {uniform_operand_to_scalar, constant_to_the_right, logical_identity,
                     neutral_operand, equal_operands, power_to_products, division_by_power_of_two,
                     subtraction_of_scalar, sum_of_scalars, maximum_to_relu, repeated_unary,
                     negated_comparison, idle_cast, idle_check, decided_where}) {
    if (Value* result = rule(rewriter, node)) return result;
  }
  return nullptr;
}

}  // namespace kiln::passes
