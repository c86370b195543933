// Expressions: the walk over their DAG. Every value has a name; the compiler moves what does not change
// in a loop out of it.
#include <algorithm>
#include <array>

#include "backends/cuda/compile/emit/emitter.h"
#include "backends/cuda/compile/emit/literals.h"
#include "ir/op_table.h"
#include "plan/form/access.h"
#include "support/error.h"

namespace kiln::cuda {

using ir::Dim;
using ir::Op;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;

namespace {

bool is_apply(const Expr& expr, Op op) { return expr->kind == ExprKind::Apply && expr->op == op; }

// exp(x - r) with r out of a reduction.
bool is_softmax_term(const Expr& expr) {
  return is_apply(expr, Op::exp) && is_apply(expr->args[0], Op::sub) &&
         expr->args[0]->args[1]->kind == ExprKind::Reduced;
}

// Operators of C++ that mean what the op does, on floating operands (arithmetic) or on all
// (comparisons).
struct Operator {
  Op op;
  const char* text;
  bool compares;
};
constexpr Operator kOperators[] = {
    {Op::add, " + ", false}, {Op::sub, " - ", false}, {Op::mul, " * ", false},
    {Op::div, " / ", false}, {Op::eq, " == ", true},  {Op::ne, " != ", true},
    {Op::lt, " < ", true},   {Op::le, " <= ", true},  {Op::gt, " > ", true},
    {Op::ge, " >= ", true},
};

const Operator* find_operator(const ExprNode& node) {
  const auto found = std::ranges::find(kOperators, node.op, &Operator::op);
  if (found == std::end(kOperators)) return nullptr;
  return found->compares || is_floating(node.args[0]->dtype) ? found : nullptr;
}

// x^n for the exponents that models use; empty: another one.
std::string power_of_constant(const std::string& x, const ExprNode& exponent) {
  if (exponent.kind != ExprKind::Constant || !is_floating(exponent.dtype)) return "";
  const double n = exponent.number;
  if (n == 1) return x;
  if (n == 2) return x + " * " + x;
  if (n == 3) return x + " * " + x + " * " + x;
  if (n == 4) return "(" + x + " * " + x + ") * (" + x + " * " + x + ")";
  if (n == -1) return "op_reciprocal(" + x + ")";
  if (n == -2) return "op_reciprocal(" + x + " * " + x + ")";
  if (n == 0.5) return "power_half(" + x + ")";
  if (n == -0.5) return "power_minus_half(" + x + ")";
  return "";
}

// Of the function of math.cuh.
std::string function_name(const ExprNode& node) {
  std::string name(op_name(node.op));
  if (node.gelu_tanh) name += "_tanh";
  const bool has_narrow = node.op == Op::gelu || node.op == Op::silu || node.op == Op::sigmoid;
  return has_narrow && is_16_bit_float(node.dtype) ? name + "_narrow" : name;
}

std::string rounded(const std::string& value, DType dtype) {
  if (dtype == DType::F16) return "round_to_half(" + value + ")";
  if (dtype == DType::BF16) return "round_to_bfloat(" + value + ")";
  if (dtype == DType::F8E4M3) return "round_to_float8(" + value + ")";
  return value;
}

// As ir::to_integer says.
std::string conversion(const std::string& x, DType from, DType to) {
  if (from == to) return x;
  const std::string type = register_type(to);
  if (to == DType::Bool) return x + " != " + (is_floating(from) ? floating_literal(from, 0) : "0");
  if (is_floating(to)) return rounded("(" + type + ")" + x, to);
  if (!is_floating(from)) return "(" + type + ")" + x;
  const bool is_long = to == DType::I64 || to == DType::U8;
  return "(" + type + ")" + (is_long ? "to_long(" : "to_int(") + x + ")";
}

}  // namespace

// One walk: what its expressions share has one name.
class ExprEmitter {
 public:
  ExprEmitter(Emitter& emitter, const Leaves& leaves) : emitter_(emitter), leaves_(leaves) {}

  std::string run(const Expr& expr) {
    const std::string result = node(expr);
    plan::visit(expr, [&](const ExprNode& inner) {
      if (inner.kind == ExprKind::Check) note_failure(inner);
    });
    return result;
  }

  std::string offset(const ExprNode& load) {
    const backend::ElementOffset offset = element_offset(emitter_.program(), load);
    std::string text;
    for (const auto& [expr, stride] : offset.dynamic) {
      text += (text.empty() ? "" : " + ") + node(expr);
      if (!stride.is_constant(1)) text += " * " + emitter_.position(stride);
    }
    if (text.empty() || !offset.linear.is_constant(0))
      text += (text.empty() ? "" : " + ") + emitter_.position(offset.linear);
    return text;
  }

 private:
  void note_failure(const ExprNode& check) {
    failures_.push_back(plan::failure(check));
    const std::string bits = node(failures_.back());
    // The sign bit is what counts, of numbers without sign too.
    const std::string sign = failures_.back()->dtype == DType::U8 ? "(signed char)" : "";
    emitter_.note_failure(check.check, sign + bits + " < 0");
  }

  std::string node(const Expr& expr) {
    if (const auto it = values_.find(expr.get()); it != values_.end()) return it->second;
    return values_[expr.get()] = compute(expr);
  }

  std::string compute(const Expr& expr) {
    switch (expr->kind) {
      case ExprKind::Constant:
        return is_floating(expr->dtype) ? floating_literal(expr->dtype, expr->number)
                                        : integer_literal(expr->dtype, expr->integer);
      case ExprKind::Position:
        return "(long long)" + emitter_.position(expr->index);
      case ExprKind::Load:
        return load(*expr);
      case ExprKind::Reduced:
        return leaves_.reduced.at(static_cast<size_t>(expr->slot));
      case ExprKind::Accumulator:
        KILN_CHECK(static_cast<size_t>(expr->slot) < leaves_.accumulators.size(),
                   "an accumulator outside of an epilogue");
        return leaves_.accumulators[static_cast<size_t>(expr->slot)];
      case ExprKind::Apply:
        return emitter_.declare(register_type(expr->dtype), "v", apply(*expr));
      case ExprKind::Check:
        return node(expr->args[0]);
    }
    throw InternalError("unknown kind of expression");
  }

  std::string apply(const ExprNode& node) {
    std::vector<std::string> args;
    for (const Expr& arg : node.args) args.push_back(this->node(arg));
    const DType dtype = node.args[0]->dtype;
    if (node.op == Op::cast) {
      const bool is_value = plan::is_rounded(node.args[0]);
      return conversion(is_value ? args[0] : rounded(args[0], dtype), dtype, node.dtype);
    }
    if (node.op == Op::where) return args[0] + " ? " + args[1] + " : " + args[2];
    if (node.op == Op::logical_not && dtype == DType::Bool) return "!" + args[0];
    // A softmax: one division a row instead of one an element. Its sum is 1 at least; other divisors
    // may have no reciprocal.
    if (node.op == Op::div && is_floating(dtype) && node.args[1]->kind == ExprKind::Reduced &&
        is_softmax_term(node.args[0]))
      return args[0] + " * op_reciprocal(" + args[1] + ")";
    if (const Operator* found = find_operator(node)) return args[0] + found->text + args[1];
    if (node.op == Op::pow) {
      if (const std::string simple = power_of_constant(args[0], *node.args[1]); !simple.empty())
        return simple;
    }
    std::string text = "op_" + function_name(node) + "(" + args[0];
    for (size_t i = 1; i < args.size(); ++i) text += ", " + args[i];
    return text + ")";
  }

  // --- Loads ---

  std::string load(const ExprNode& node) {
    if (const auto it = leaves_.loads.find(&node); it != leaves_.loads.end()) return it->second;
    const std::string type = register_type(node.dtype);
    const std::string predicate = node.predicate ? this->node(node.predicate) : "";
    const std::string at = offset(node);  // first: it reads buffers too
    std::string text = "from_memory(" + emitter_.buffer(node.buffer) + "[" + at + "])";
    if (node.predicate) {
      const std::string zero = is_floating(node.dtype) ? floating_literal(node.dtype, 0)
                                                       : integer_literal(node.dtype, 0);
      text = predicate + " ? " + text + " : " + zero;
    }
    return emitter_.declare(type, "x", text);
  }

  Emitter& emitter_;
  const Leaves& leaves_;
  std::map<const ExprNode*, std::string> values_;  // never iterated
  std::vector<Expr> failures_;                     // their nodes are keys of the map
};

std::string Emitter::value(const Expr& expr, const Leaves& leaves) {
  return ExprEmitter(*this, leaves).run(expr);
}

std::vector<std::string> Emitter::values(const std::vector<Expr>& exprs, const Leaves& leaves) {
  ExprEmitter emitter(*this, leaves);
  std::vector<std::string> result;
  for (const Expr& expr : exprs) result.push_back(emitter.run(expr));
  return result;
}

backend::ElementOffset element_offset(const plan::Program& program, const ExprNode& load) {
  return backend::element_offset(program, load.buffer, load.args);
}

std::string Emitter::offset(const ExprNode& load) {
  const Leaves none;
  return ExprEmitter(*this, none).offset(load);
}

std::string Emitter::element(plan::BufferId buffer, const std::vector<plan::Index>& indices) {
  const auto& shape = program().buffers.at(static_cast<size_t>(buffer)).type.shape;
  const Dim offset = indices.size() == 1 ? indices[0] : plan::linearize(shape, indices);
  return this->buffer(buffer) + "[" + position(offset) + "]";
}

void Emitter::store(plan::BufferId buffer, const std::vector<plan::Index>& indices,
                    const std::string& value) {
  written_buffer(buffer);
  line(element(buffer, indices) + " = to_memory<" + memory_type(dtype_of(buffer)) + ">(" + value +
       ");");
}

}  // namespace kiln::cuda
