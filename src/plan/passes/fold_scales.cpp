// Scales of integers that become integers again are multiplied into one another, and zero points into what is added:
//
// Before: round(div(f32(acc - sums[n]) * scale[n] + bias[n], c)), the quantisation of a sum of products of integers.
// After: round(f32(acc - sums[n]) * scale'[n] + bias'[n]), with scale' = scale / c and bias' = bias / c. What is
// quantised twice, as a sum is before a residual is added, is folded both times. Products of scales are rounded
// once, so that the results are no further from the exact ones; other results than before are of places near the
// border between two integers.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "plan/form/fold.h"
#include "plan/form/kernels.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

using ir::Op;

bool is_apply(const Expr& expr, Op op) { return expr->kind == ExprKind::Apply && expr->op == op; }

bool mentions_sum(const Expr& expr) {
  bool found = false;
  visit(expr, [&](const ExprNode& node) {
    found |= node.kind == ExprKind::Accumulator || node.kind == ExprKind::Reduced;
  });
  return found;
}

// Zero, or far from what f32 does not hold as a normal number: products with denormal ones take Intel's cores hundreds
// of cycles.
bool is_usual(double number) {
  constexpr double kLeast = 0x1p-100, kMost = 0x1p100;
  return number == 0 || (std::abs(number) >= kLeast && std::abs(number) <= kMost);
}

// A number, or one for each element of a constant buffer, which `load` reads.
struct Factor {
  double number = 0;
  Expr load;
  std::vector<double> values;

  bool is_number() const { return load == nullptr; }
  double at(size_t i) const { return is_number() ? number : values[i]; }
};

bool is_same_place(const Expr& a, const Expr& b) {
  if (a->args.size() != b->args.size()) return false;
  for (size_t i = 0; i < a->args.size(); ++i) {
    const auto left = as_index(a->args[i]), right = as_index(b->args[i]);
    if (!left || !right || !(*left == *right)) return false;
  }
  return true;
}

template <typename Operation>
std::optional<Factor> combine(const Factor& a, const Factor& b, const Operation& operation) {
  const Factor& shape = b.is_number() ? a : b;
  Factor result{operation(a.number, b.number), shape.load, {}};
  if (shape.is_number()) return result;
  const bool both = !a.is_number() && !b.is_number();
  if (both && (a.values.size() != b.values.size() || !is_same_place(a.load, b.load)))
    return std::nullopt;
  for (size_t i = 0; i < shape.values.size(); ++i)
    result.values.push_back(operation(a.at(i), b.at(i)));
  return result;
}

std::optional<Factor> product(const Factor& a, const Factor& b) {
  return combine(a, b, [](double x, double y) { return x * y; });
}

std::optional<Factor> sum(const Factor& a, const Factor& b) {
  return combine(a, b, [](double x, double y) { return x + y; });
}

// The sum of terms, each an expression times a factor, and a factor.
struct Linear {
  std::vector<std::pair<Expr, Factor>> terms;
  Factor constant;
};

std::optional<Linear> added(Linear a, const Linear& b) {
  auto constant = sum(a.constant, b.constant);
  if (!constant) return std::nullopt;
  a.constant = std::move(*constant);
  a.terms.insert(a.terms.end(), b.terms.begin(), b.terms.end());
  return a;
}

std::optional<Linear> multiplied(Linear a, const Factor& factor) {
  auto constant = product(a.constant, factor);
  if (!constant) return std::nullopt;
  a.constant = std::move(*constant);
  for (auto& [term, own] : a.terms) {
    auto scaled = product(own, factor);
    if (!scaled) return std::nullopt;
    own = std::move(*scaled);
  }
  return a;
}

class Folder {
 public:
  explicit Folder(Program& program) : program_(program) {}

  bool changed() const { return changed_; }

  Expr fold(const Expr& value) {
    return rewrite(value, [&](const ExprNode& node) -> Expr {
      if (node.kind != ExprKind::Apply || node.op != Op::round || node.dtype != DType::F32)
        return nullptr;
      Expr scaled = without_scale(node.args[0]);
      if (scaled == nullptr) return nullptr;
      changed_ = true;
      return apply(Op::round, {std::move(scaled)});
    });
  }

 private:
  // What is rounded, with its last scale in its terms.
  Expr without_scale(const Expr& quotient) {
    const bool divides = is_apply(quotient, Op::div);
    if ((!divides && !is_apply(quotient, Op::mul)) || !mentions_sum(quotient)) return nullptr;
    const auto scale = as_scalar(quotient->args[1]);
    if (!scale) return nullptr;
    const double factor = divides ? 1 / scale->as_double() : scale->as_double();
    if (!std::isnormal(factor) || factor < 0) return nullptr;
    return multiply(quotient->args[0], factor);
  }

  // Limits are multiplied as what they limit.
  Expr multiply(const Expr& value, double factor) {
    if (is_apply(value, Op::relu)) {
      Expr inside = multiply(value->args[0], factor);
      return inside ? apply(Op::relu, {std::move(inside)}) : nullptr;
    }
    if (is_apply(value, Op::maximum) || is_apply(value, Op::minimum)) {
      const auto limit = as_scalar(value->args[1]);
      Expr inside = limit ? multiply(value->args[0], factor) : nullptr;
      if (inside == nullptr) return nullptr;
      return apply(value->op, {std::move(inside), constant(DType::F32, limit->number * factor)});
    }
    const auto form = linear(value);
    const auto scaled = form ? multiplied(*form, {factor, {}, {}}) : std::nullopt;
    return scaled ? expression(*scaled) : nullptr;
  }

  // Nothing where factors do not fit each other.
  std::optional<Linear> linear(const Expr& value) {
    if (auto factor = constant_factor(value)) return Linear{{}, std::move(*factor)};
    const Linear whole{{{value, Factor{1, {}, {}}}}, {}};
    if (value->kind != ExprKind::Apply || value->dtype != DType::F32) return whole;
    const bool is_sum = value->op == Op::add || value->op == Op::sub;
    if (!is_sum && value->op != Op::mul && value->op != Op::div) return whole;
    const auto left = linear(value->args[0]), right = linear(value->args[1]);
    if (!left || !right) return std::nullopt;
    if (value->op == Op::add) return added(*left, *right);
    if (value->op == Op::sub) {
      const auto negative = multiplied(*right, {-1, {}, {}});
      return negative ? added(*left, *negative) : std::nullopt;
    }
    if (value->op == Op::div)
      return right->terms.empty() && right->constant.is_number()
                 ? multiplied(*left, {1 / right->constant.number, {}, {}})
                 : whole;
    if (right->terms.empty()) return multiplied(*left, right->constant);
    if (left->terms.empty()) return multiplied(*right, left->constant);
    return whole;
  }

  std::optional<Factor> constant_factor(const Expr& value) const {
    if (value->dtype != DType::F32) return std::nullopt;
    if (const auto number = as_scalar(value)) return Factor{number->as_double(), {}, {}};
    if (value->kind != ExprKind::Load || value->predicate) return std::nullopt;
    const Buffer& buffer = program_.buffers[static_cast<size_t>(value->buffer)];
    if (buffer.kind != BufferKind::Constant || buffer.literal.dtype != DType::F32 ||
        buffer.literal.replaceable)
      return std::nullopt;
    Factor factor{0, value, {}};
    for (int64_t i = 0; i < buffer.literal.elements(); ++i)
      factor.values.push_back(buffer.literal.as_double(i));
    return factor;
  }

  // Terms with sums are added last: what they wait for takes longest. Null where a factor is too large or small.
  Expr expression(const Linear& form) {
    Expr result;
    if (!form.constant.is_number() || form.constant.number != 0) {
      result = expression(form.constant);
      if (result == nullptr) return nullptr;
    }
    for (const bool last : {false, true}) {
      for (const auto& [term, factor] : form.terms) {
        if (mentions_sum(term) != last) continue;
        Expr scale = expression(factor);
        if (scale == nullptr) return nullptr;
        Expr scaled = apply(Op::mul, {term, std::move(scale)});
        result = result ? apply(Op::add, {std::move(scaled), std::move(result)}) : scaled;
      }
    }
    return result ? result : constant(DType::F32, 0);
  }

  Expr expression(const Factor& factor) {
    if (factor.is_number())
      return is_usual(factor.number) ? constant(DType::F32, factor.number) : nullptr;
    if (!std::ranges::all_of(factor.values, is_usual)) return nullptr;
    const Buffer& source = program_.buffers[static_cast<size_t>(factor.load->buffer)];
    std::byte* data = nullptr;
    Buffer folded{BufferKind::Constant, source.name + "_folded", source.type,
                  ir::Literal::allocate(DType::F32, source.literal.shape, &data)};
    for (size_t i = 0; i < factor.values.size(); ++i)
      ir::Literal::set(data, DType::F32, static_cast<int64_t>(i), factor.values[i]);
    return load(program_.add_buffer(std::move(folded)), DType::F32, factor.load->args);
  }

  Program& program_;
  bool changed_ = false;
};

// Sums of products of bytes.
bool has_integer_sums(const Kernel& kernel) {
  if (const auto* matmul = std::get_if<MatMul>(&kernel.body))
    return matmul->formats.accumulator == DType::I32;
  if (const auto* convolution = std::get_if<Convolution>(&kernel.body))
    return convolution->formats.accumulator == DType::I32;
  const auto* nest = std::get_if<LoopNest>(&kernel.body);
  return nest != nullptr && !nest->stages.empty() && sums_byte_products(nest->stages.front());
}

}  // namespace

bool fold_scales(Program& program) {
  if (!program.traits.folds_scales) return false;
  Folder folder(program);
  for (Kernel& kernel : program.kernels) {
    if (!has_integer_sums(kernel)) continue;
    transform_exprs(kernel, [&](const Expr& value) { return folder.fold(value); });
  }
  return folder.changed();
}

}  // namespace kiln::plan
