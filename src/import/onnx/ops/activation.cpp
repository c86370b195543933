// Activations.
#include <cmath>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

template <Op op>
Value* plain(NodeCall& call) {
  return call.make(op, {call.input(0)});
}

using Composition = Expr (*)(NodeCall& call, const Expr& x);
template <Composition function>
Value* activation(NodeCall& call) {
  return composed(call, call.input(0), [&](const Expr& x) { return function(call, x); });
}

Expr select_positive(const Expr& x, const Expr& yes, const Expr& no) {
  return x.apply(Op::gt, 0).select(yes, no);
}

// log(1 + e^x) without an overflow.
Expr softplus(NodeCall&, const Expr& x) {
  return x.apply(Op::maximum, 0) + (-x.apply(Op::abs)).apply(Op::exp).apply(Op::log1p);
}

Expr mish(NodeCall& call, const Expr& x) { return x * softplus(call, x).apply(Op::tanh); }

Expr softsign(NodeCall&, const Expr& x) { return x / (x.apply(Op::abs) + 1); }

Expr elu(NodeCall& call, const Expr& x) {
  return select_positive(x, x, x.apply(Op::expm1) * call.real_or("alpha", 1));
}

Expr selu(NodeCall& call, const Expr& x) {
  const double alpha = call.real_or("alpha", 1.67326319217681884765625);
  const double gamma = call.real_or("gamma", 1.05070102214813232421875);
  return select_positive(x, x, x.apply(Op::expm1) * alpha) * gamma;
}

// max(0, x) + min(0, alpha * (e^(x / alpha) - 1))
Expr celu(NodeCall& call, const Expr& x) {
  const double alpha = call.real_or("alpha", 1);
  return select_positive(x, x, (x / alpha).apply(Op::expm1) * alpha);
}

Expr leaky_relu(NodeCall& call, const Expr& x) {
  return x.apply(Op::lt, 0).select(x * call.real_or("alpha", 0.01F), x);
}

Expr thresholded_relu(NodeCall& call, const Expr& x) {
  return x.apply(Op::gt, call.real_or("alpha", 1)).select(x, x.constant(0));
}

Expr clamp01(const Expr& x) { return x.apply(Op::maximum, 0).apply(Op::minimum, 1); }

Expr hard_sigmoid(NodeCall& call, const Expr& x) {
  return clamp01(x * call.real_or("alpha", 0.2F) + call.real_or("beta", 0.5));
}

Expr hard_swish(NodeCall&, const Expr& x) { return x * clamp01(x / 6 + 0.5); }

Expr swish(NodeCall& call, const Expr& x) {
  const double alpha = call.real_or("alpha", 1);
  if (alpha == 1) return x.apply(Op::silu);
  return x * (x * alpha).apply(Op::sigmoid);
}

Value* import_gelu(NodeCall& call) {
  const std::string how = call.text_or("approximate", "none");
  call.expect(how == "none" || how == "tanh", "approximate \"" + how + "\"", "none or tanh");
  return call.make(Op::gelu, {call.input(0)}, {{"approximate", how}});
}

// Also of integers.
Value* import_shrink(NodeCall& call) {
  const double lambd = call.real_or("lambd", 0.5), bias = call.real_or("bias", 0);
  Value* x = call.input(0);
  const DType dtype = x->type.dtype;
  const DType compute = is_floating(dtype) ? compute_dtype(dtype) : DType::F64;
  const Expr wide = call.expr(call.builder().cast(x, compute));
  const Expr inner = wide.apply(Op::gt, lambd).select(wide - bias, wide.constant(0));
  return call.builder().cast(wide.apply(Op::lt, -lambd).select(wide + bias, inner), dtype);
}

Value* import_prelu(NodeCall& call) {
  const Expr x = call.input_expr(0);
  Value* given = call.input(1);
  // One slope for each channel, before all operands broadcast from the right.
  if (call.version() < 7 && rank_of(given) == 1 && rank_of(x.value()) > 1)
    given = along_axis(call, given, x.value()->type.rank(), 1);
  const Expr slope = call.expr(given);
  return x.apply(Op::lt, x.constant(0)).select(x * slope, x);
}

constexpr OperatorRow kRows[] = {
    {"Celu", activation<celu>},
    {"Elu", activation<elu>},
    {"Gelu", import_gelu},
    {"HardSigmoid", activation<hard_sigmoid>},
    {"HardSwish", activation<hard_swish>},
    {"LeakyRelu", activation<leaky_relu>},
    {"Mish", activation<mish>},
    {"PRelu", import_prelu},
    {"Relu", plain<Op::relu>},
    {"Selu", activation<selu>},
    {"Shrink", import_shrink},
    {"Sigmoid", plain<Op::sigmoid>},
    {"Softplus", activation<softplus>},
    {"Softsign", activation<softsign>},
    {"Swish", activation<swish>},
    {"Tanh", plain<Op::tanh>},
    {"ThresholdedRelu", activation<thresholded_relu>},
};

}  // namespace

OperatorRows activation_operators() { return kRows; }

}  // namespace kiln::import::onnx
