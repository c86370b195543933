// Activation functions.
#include <numbers>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

Expr self(Call& call) { return {call, call.tensor("self")}; }

template <Op op>
Value* activation(Call& call) {
  return self(call).apply(op);
}

Expr clamp(const Expr& x, double low, double high) {
  return x.apply(Op::maximum, low).apply(Op::minimum, high);
}

Expr sigmoid_input(Call& call) { return floating(call, "self"); }

Value* import_sigmoid(Call& call) { return sigmoid_input(call).apply(Op::sigmoid); }
Value* import_tanh(Call& call) { return sigmoid_input(call).apply(Op::tanh); }

Value* import_gelu(Call& call) {
  return call.make(Op::gelu, {call.tensor("self")},
                   {{"approximate", call.text_or("approximate", "none")}});
}

Value* import_hardtanh(Call& call) {
  return clamp(self(call), call.real_or("min_val", -1), call.real_or("max_val", 1));
}

Value* import_relu6(Call& call) { return clamp(self(call), 0, 6); }
Expr compose_hardsigmoid(Call&, const Expr& x) { return clamp(x + 3, 0, 6) / 6; }

Expr compose_hardswish(Call&, const Expr& x) { return x * clamp(x + 3, 0, 6) / 6; }

// Of inference: the mean of the slopes that training draws from.
Expr compose_rrelu(Call& call, const Expr& x) {
  call.expect(!call.boolean_or("training", false), "rrelu in training mode",
              "a model in eval mode (call model.eval() before exporting)");
  const double slope = (call.real_or("lower", 0.125) + call.real_or("upper", 1.0 / 3)) / 2;
  return x.apply(Op::gt, 0).select(x, x * slope);
}

Expr compose_leaky_relu(Call& call, const Expr& x) {
  return x.apply(Op::gt, 0).select(x, x * call.real_or("negative_slope", 0.01));
}

Expr compose_elu(Call& call, const Expr& x) {
  const double alpha = call.real_or("alpha", 1), scale = call.real_or("scale", 1);
  const double input_scale = call.real_or("input_scale", 1);
  const Expr positive = scale == 1 ? x : x * scale;
  const Expr scaled = input_scale == 1 ? x : x * input_scale;
  const Expr negative = scaled.apply(Op::expm1) * (alpha * scale);
  return x.apply(Op::gt, 0).select(positive, negative);
}

Expr compose_celu(Call& call, const Expr& x) {
  const double alpha = call.real_or("alpha", 1);
  return x.apply(Op::gt, 0).select(x, (x / alpha).apply(Op::expm1) * alpha);
}

Expr compose_selu(Call&, const Expr& x) {
  constexpr double kAlpha = 1.6732632423543772848170429916717;
  constexpr double kScale = 1.0507009873554804934193349852946;
  return x.apply(Op::gt, 0).select(x * kScale, x.apply(Op::expm1) * (kAlpha * kScale));
}

// log(1 + e^(beta x)) / beta, and x itself where that is the same in floating point.
Expr softplus(const Expr& x, double beta, double threshold) {
  const Expr scaled = beta == 1 ? x : x * beta;
  const Expr soft = scaled.apply(Op::exp).apply(Op::log1p);
  return scaled.apply(Op::gt, threshold).select(x, beta == 1 ? soft : soft / beta);
}

Expr compose_softplus(Call& call, const Expr& x) {
  return softplus(x, call.real_or("beta", 1), call.real_or("threshold", 20));
}

// The rounding of beta * x is a relative error of its power, so f32 is not enough for it.
Value* import_softplus(Call& call) {
  return call.real_or("beta", 1) == 1 ? composed<compose_softplus>(call)
                                      : composed_in_f64<compose_softplus>(call);
}

// x * tanh(log(1 + p)) = x * n / (n + 2) with n = p (p + 2), p = e^x, which is 1 from 40 on.
Expr compose_mish(Call&, const Expr& x) {
  const Expr power = x.apply(Op::minimum, 40).apply(Op::exp);
  const Expr n = power * (power + 2);
  return x * (n / (n + 2));
}

// min(x, 0) - log1p(e^-|x|)
Expr compose_log_sigmoid(Call&, const Expr& x) {
  return x.apply(Op::minimum, 0) - (-x.apply(Op::abs)).apply(Op::exp).apply(Op::log1p);
}

std::vector<Value*> import_log_sigmoid_forward(Call& call) {
  call.expect(!call.output_used(1), "a use of its buffer", "inference");
  return {composed<compose_log_sigmoid>(call), nullptr};
}

// The weight belongs to axis 1, or is one number.
Value* import_prelu(Call& call) {
  const Expr x = self(call);
  Value* weight = call.tensor("weight");
  const size_t rank = x.value()->type.rank();
  if (weight->type.rank() == 1) {
    ir::Shape shape(rank, ir::Dim(1));
    if (rank > 1) shape[1] = weight->type.shape[0];
    weight = call.builder().reshape(weight, shape);
  }
  return x.apply(Op::gt, 0).select(x, x * Expr(call, weight));
}

Expr compose_softsign(Call&, const Expr& x) { return x / (x.apply(Op::abs) + 1); }

Value* import_hardshrink(Call& call) {
  const Expr x = self(call);
  return x.apply(Op::abs).apply(Op::le, call.real_or("lambd", 0.5)).select(x.constant(0), x);
}

Expr compose_softshrink(Call& call, const Expr& x) {
  const double lambda = call.real_or("lambd", 0.5);
  const Expr below = x.apply(Op::lt, -lambda).select(x + lambda, x * 0);  // NaN stays NaN
  return x.apply(Op::gt, lambda).select(x - lambda, below);
}

// PyTorch compares in f32: a threshold that is rounded to 16 bits may be what lies above it.
Value* import_threshold(Call& call) {
  const Expr x = self(call);
  const Expr wide(call, call.builder().cast(x, compute_dtype(x.value()->type.dtype)));
  return wide.apply(Op::le, call.real_or("threshold", 0))
      .select(x.constant(call.real_or("value", 0)), x);
}

// The first half of an axis times the sigmoid of the second.
Value* import_glu(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis_or("dim", x->type.rank(), -1);
  call.expect(x->type.rank() > 0, "a scalar", "rank 1 or more");
  const ir::Dim half = ir::floordiv(x->type.shape[axis], 2);
  call.expect(ir::provably_equal(half * 2, x->type.shape[axis]),
              "the odd size " + x->type.shape[axis].str(), "an even one");
  const DType dtype = x->type.dtype;
  const auto part = [&](const ir::Dim& start) {
    Value* values = slice(call, x, axis, start, half);
    return Expr(call, call.builder().cast(values, compute_dtype(dtype)));
  };
  return call.builder().cast(part(0) * part(half).apply(Op::sigmoid), dtype);
}

// Dropout does nothing at inference.
Value* import_dropout(Call& call) {
  call.expect(!call.boolean_or("train", false) || call.real_or("p", 0.5) == 0,
              "dropout in training mode",
              "a model in eval mode (call model.eval() before exporting)");
  return call.tensor(call.has("input") ? "input" : "self");
}

// The mask keeps everything.
std::vector<Value*> import_native_dropout(Call& call) {
  Value* x = import_dropout(call);
  if (!call.output_used(1)) return {x, nullptr};
  return {x, call.builder().expand(call.builder().scalar(DType::Bool, 1), x->type.shape)};
}

constexpr Row kRows[] = {
    {"aten.relu.default", activation<Op::relu>},
    {"aten.relu6.default", import_relu6},
    {"aten.hardtanh.default", import_hardtanh},
    {"aten.hardsigmoid.default", composed<compose_hardsigmoid>},
    {"aten.hardswish.default", composed<compose_hardswish>},
    {"aten.sigmoid.default", import_sigmoid},
    {"aten.special_expit.default", import_sigmoid},
    {"aten.tanh.default", import_tanh},
    {"aten.silu.default", activation<Op::silu>},
    {"aten.gelu.default", import_gelu},
    {"aten.leaky_relu.default", composed<compose_leaky_relu>},
    {"aten.rrelu.default", composed<compose_rrelu>},
    {"aten.elu.default", composed<compose_elu>},
    {"aten.celu.default", composed<compose_celu>},
    {"aten.selu.default", composed<compose_selu>},
    {"aten.softplus.default", import_softplus},
    {"aten.mish.default", composed<compose_mish>},
    {"aten.log_sigmoid.default", composed<compose_log_sigmoid>},
    {"aten.log_sigmoid_forward.default", import_log_sigmoid_forward},
    {"aten.prelu.default", in_f32<import_prelu>},
    {"aten._prelu_kernel.default", in_f32<import_prelu>},
    {"aten.softsign.default", composed<compose_softsign>},
    {"aten.hardshrink.default", import_hardshrink},
    {"aten.softshrink.default", composed<compose_softshrink>},
    {"aten.threshold.default", import_threshold},
    {"aten.glu.default", in_f32<import_glu>},
    {"aten.dropout.default", import_dropout},
    {"aten.feature_dropout.default", import_dropout},
    {"aten.alpha_dropout.default", import_dropout},
    {"aten.native_dropout.default", import_native_dropout},
};

}  // namespace

Rows activation_rows() { return kRows; }

}  // namespace kiln::import
