#include <algorithm>
#include <cmath>

#include "passes/pass.h"
#include "passes/recognise_attention.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Dim;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;
using Axes = std::vector<int64_t>;

bool close(double got, double expected) {
  return std::abs(got - expected) <= 1e-6 * std::abs(expected);
}

// A product as a number times values, whichever way it was bracketed; x / c counts as x * (1 / c).
struct Product {
  double scale = 1;
  std::vector<Value*> factors;
};

void collect_factors(Value* value, Product& product) {
  if (value->type.rank() == 0) {
    if (const auto number = uniform_value(value)) {
      product.scale *= *number;
      return;
    }
  }
  if (const Node* mul = producer(value, Op::mul)) {
    collect_factors(mul->input(0), product);
    collect_factors(mul->input(1), product);
    return;
  }
  if (const Node* div = producer(value, Op::div)) {
    const auto number = uniform_value(div->input(1));
    if (number && div->input(1)->type.rank() == 0) {
      collect_factors(div->input(0), product);
      product.scale /= *number;
      return;
    }
  }
  product.factors.push_back(value);
}

Product product_of(Value* value) {
  Product product;
  collect_factors(value, product);
  return product;
}

// x of x + c, if the value is that sum.
Value* minus_scalar(const Value* value, double c) {
  const Node* add = producer(value, Op::add);
  if (add == nullptr || add->input(1)->type.rank() != 0) return nullptr;
  const auto number = uniform_value(add->input(1));
  return number && close(*number, c) ? add->input(0) : nullptr;
}

bool is_power(const Product& product, const Value* x, size_t exponent) {
  return product.factors.size() == exponent &&
         std::all_of(product.factors.begin(), product.factors.end(),
                     [&](const Value* factor) { return factor == x; });
}

// value is sqrt(2/pi) * (x + 0.044715 x^3), or the same with x taken out of the bracket
bool is_tanh_argument(Value* value, const Value* x) {
  constexpr double kCubic = 0.044715;
  const Product product = product_of(value);
  if (!close(product.scale, std::sqrt(2 / M_PI))) return false;
  if (product.factors.size() == 1) {
    const Node* add = producer(product.factors[0], Op::add);
    if (add == nullptr) return false;
    for (size_t i = 0; i < 2; ++i) {
      const Product cube = product_of(add->input(i));
      if (add->input(1 - i) == x && close(cube.scale, kCubic) && is_power(cube, x, 3)) return true;
    }
    return false;
  }
  if (product.factors.size() != 2) return false;
  for (size_t i = 0; i < 2; ++i) {
    Value* square = minus_scalar(product.factors[i], 1);
    if (product.factors[1 - i] != x || square == nullptr) continue;
    const Product inner = product_of(square);
    return close(inner.scale, kCubic) && is_power(inner, x, 2);
  }
  return false;
}

// 0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) -> gelu(x, tanh)
// 0.5 * x * (1 + erf(x / sqrt(2)))                      -> gelu(x, none)
Value* composed_gelu(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  const Product product = product_of(node.output());
  if (product.factors.size() != 2 || !close(product.scale, 0.5)) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    Value* x = product.factors[i];
    Value* inner = minus_scalar(product.factors[1 - i], 1);
    if (inner == nullptr || x->type != node.output()->type) continue;
    std::string form;
    if (const Node* tanh = producer(inner, Op::tanh)) {
      if (is_tanh_argument(tanh->input(0), x)) form = "tanh";
    } else if (const Node* erf = producer(inner, Op::erf)) {
      const Product argument = product_of(erf->input(0));
      if (close(argument.scale, std::sqrt(0.5)) && is_power(argument, x, 1)) form = "none";
    }
    if (!form.empty()) return rewriter.before(node).value(Op::gelu, {x}, {{"approximate", form}});
  }
  return nullptr;
}

// x * sigmoid(x) -> silu(x)
Value* composed_silu(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    const Node* sigmoid = producer(node.input(i), Op::sigmoid);
    if (sigmoid == nullptr || sigmoid->input(0) != node.input(1 - i)) continue;
    return rewriter.before(node).value(Op::silu, {node.input(1 - i)});
  }
  return nullptr;
}

// The number of last axes over which value is mean(x^2), kept as size 1; 0 if it is not.
int64_t mean_of_squares_axes(const Value* value, const Value* x) {
  const Node* mean = producer(value, Op::reduce_mean);
  if (mean == nullptr || !mean->attr<bool>("keepdim")) return 0;
  const Node* square = producer(mean->input(0), Op::mul);
  if (square == nullptr || square->input(0) != x || square->input(1) != x) return 0;
  const Axes& axes = mean->attr<Axes>("axes");
  const int64_t rank = static_cast<int64_t>(x->type.rank()),
                count = static_cast<int64_t>(axes.size());
  for (int64_t i = 0; i < count; ++i) {
    if (axes[i] != rank - count + i) return 0;
  }
  return count;
}

// x * rsqrt(mean(x^2) + eps) -> rms_norm(x)
Value* composed_rms_norm(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    Value* x = node.input(1 - i);
    const Node* rsqrt = producer(node.input(i), Op::rsqrt);
    const Node* add = rsqrt ? producer(rsqrt->input(0), Op::add) : nullptr;
    if (add == nullptr) continue;
    const auto eps = uniform_value(add->input(1));
    const int64_t axes = mean_of_squares_axes(add->input(0), x);
    if (!eps || axes == 0 || !is_floating(x->type.dtype)) continue;
    return rewriter.before(node).value(Op::rms_norm, {x}, {{"axes", axes}, {"eps", *eps}});
  }
  return nullptr;
}

// rms_norm(x) * weight -> rms_norm(x, weight)
Value* weight_of_rms_norm(Rewriter& rewriter, Node& node) {
  if (node.op != Op::mul) return nullptr;
  for (size_t i = 0; i < 2; ++i) {
    const Node* norm = producer(node.input(i), Op::rms_norm);
    Value* weight = node.input(1 - i);
    if (norm == nullptr || norm->input(1) != nullptr || !rewriter.used_once(norm->output()))
      continue;
    const Shape& shape = norm->output()->type.shape;
    const Shape normalised(shape.end() - norm->attr<int64_t>("axes"), shape.end());
    if (weight->type.shape != normalised) continue;
    return rewriter.before(node).value(Op::rms_norm, {norm->input(0), weight}, norm->attrs);
  }
  return nullptr;
}

}  // namespace

// Compositions that have an op of their own become it: better code, and fewer roundings. Expects a
// canonical graph (constants on the right, powers as products); the formulas are with the functions
// above. Constants must agree to 1e-6.
bool recognise_patterns(ir::Graph& graph, PassContext& context) {
  return rewrite(graph, [&](Rewriter& rewriter, Node& node) -> Value* {
    if (Value* result = repeated_heads(rewriter, node)) return result;
    const bool rounds = is_16_bit_float(node.output()->type.dtype);
    if (rounds && context.emulate_precision_casts) return nullptr;
    for (auto* rule : {composed_gelu, composed_silu, composed_rms_norm, weight_of_rms_norm,
                       composed_attention}) {
      if (Value* result = rule(rewriter, node)) return result;
    }
    return nullptr;
  });
}

}  // namespace kiln::passes
