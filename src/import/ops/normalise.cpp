// Softmax and the norms.
#include <limits>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

template <Op op>
Value* import_softmax(Call& call) {
  Value* x = call.tensor("self");
  // half_to_float: the old form of a dtype argument.
  std::optional<DType> dtype = call.dtype("dtype");
  if (!dtype && call.boolean_or("half_to_float", false)) dtype = DType::F32;
  if (!dtype && !is_floating(x->type.dtype)) dtype = DType::F32;
  x = cast_if(call, x, dtype);
  const size_t rank = x->type.rank();
  const int64_t axis = call.axis("dim", rank);
  if (rank > 0) return call.make(op, {x}, {{"axis", axis}});
  Value* row = call.make(op, {call.builder().reshape(x, {1})}, {{"axis", int64_t{0}}});
  return call.builder().reshape(row, {});
}

// Zeros, not NaN, where a row is -inf throughout.
Value* import_safe_softmax(Call& call) {
  const Expr result(call, import_softmax<Op::softmax>(call));
  const Expr x(call, call.builder().cast(call.tensor("self"), result.value()->type.dtype));
  const size_t rank = x.value()->type.rank();
  if (rank == 0) return result;
  const Expr largest(call, reduce(call, Op::reduce_max, x, {call.axis("dim", rank)}, true));
  const Expr empty = largest.apply(Op::eq, -std::numeric_limits<double>::infinity());
  return empty.select(result.constant(0), result);
}

// A norm of operands in one dtype: half-precision input with f32 weights is computed in f32.
Value* norm_of(Call& call, Op op, Value* x, std::vector<Value*> weights, ir::Attrs attrs) {
  const DType dtype = x->type.dtype;
  DType compute = dtype;
  for (const Value* weight : weights) {
    if (weight != nullptr) compute = promote_types(compute, weight->type.dtype);
  }
  std::vector<Value*> operands{call.builder().cast(x, compute)};
  for (Value* weight : weights) {
    operands.push_back(weight == nullptr ? nullptr : call.builder().cast(weight, compute));
  }
  while (operands.size() > 1 && operands.back() == nullptr) operands.pop_back();
  return call.builder().cast(call.make(op, std::move(operands), std::move(attrs)), dtype);
}

Value* import_layer_norm(Call& call) {
  const auto axes = static_cast<int64_t>(call.dims("normalized_shape").size());
  return norm_of(call, Op::layer_norm, call.tensor("input"),
                 {call.optional_tensor("weight"), call.optional_tensor("bias")},
                 {{"axes", axes}, {"eps", call.real_or("eps", 1e-5)}});
}

void expect_unused(Call& call, size_t first, size_t last) {
  for (size_t i = first; i <= last; ++i) {
    call.expect(!call.output_used(i), "a use of the statistics (output " + std::to_string(i) + ")",
                "inference");
  }
}

// What a norm takes off and what it multiplies by: the mean and 1 / sqrt(variance + eps) along axes, in at least f32.
struct Statistics {
  Expr mean, variance, scale;
};

Statistics statistics(Call& call, Value* x, const std::vector<int64_t>& axes, bool keepdim,
                      DType compute) {
  const Expr wide(call, call.builder().cast(x, compute));
  const auto mean = [&](Value* of, bool keeps) {
    return Expr(call, reduce(call, Op::reduce_mean, of, axes, keeps));
  };
  const Expr centred = wide - mean(wide, true);
  const Expr variance = mean(centred * centred, keepdim);
  return {mean(wide, keepdim), variance, (variance + call.real_or("eps", 1e-5)).apply(Op::rsqrt)};
}

// PyTorch gives statistics the dtype that it computes the norm in.
DType statistics_dtype(Call& call, const Value* x) {
  const Value* weight = call.optional_tensor("weight");
  return weight == nullptr ? x->type.dtype : promote_types(x->type.dtype, weight->type.dtype);
}

std::vector<Value*> import_native_layer_norm(Call& call) {
  Value* result = import_layer_norm(call);
  if (!call.output_used(1) && !call.output_used(2)) return {result, nullptr, nullptr};
  Value* x = call.tensor("input");
  const auto axes = static_cast<int64_t>(call.dims("normalized_shape").size());
  const auto rank = static_cast<int64_t>(x->type.rank());
  const Statistics of =
      statistics(call, x, range(rank - axes, rank), true, compute_dtype(x->type.dtype));
  const DType dtype = statistics_dtype(call, x);
  return {result, call.builder().cast(of.mean, dtype), call.builder().cast(of.scale, dtype)};
}

double machine_epsilon(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return 0x1p-52;
    case DType::F16:
      return 0x1p-10;
    case DType::BF16:
      return 0x1p-7;
    default:
      return 0x1p-23;
  }
}

Value* import_rms_norm(Call& call) {
  Value* x = call.tensor("input");
  const auto axes = static_cast<int64_t>(call.dims("normalized_shape").size());
  // By default the epsilon of the dtype that PyTorch computes in: f32 for half precision.
  const DType dtype = x->type.dtype == DType::F64 ? DType::F64 : DType::F32;
  return norm_of(call, Op::rms_norm, x, {call.optional_tensor("weight")},
                 {{"axes", axes}, {"eps", call.real_or("eps", machine_epsilon(dtype))}});
}

std::vector<Value*> import_fused_rms_norm(Call& call) {
  expect_unused(call, 1, 1);
  return {import_rms_norm(call), nullptr};
}

Value* group_norm(Call& call, int64_t groups) {
  return norm_of(call, Op::group_norm, call.tensor("input"),
                 {call.optional_tensor("weight"), call.optional_tensor("bias")},
                 {{"groups", groups}, {"eps", call.real_or("eps", 1e-5)}});
}

Value* import_group_norm(Call& call) { return group_norm(call, call.integer("num_groups")); }

std::vector<Value*> import_native_group_norm(Call& call) {
  const int64_t groups = call.integer("group");
  Value* result = group_norm(call, groups);
  if (!call.output_used(1) && !call.output_used(2)) return {result, nullptr, nullptr};
  Value* x = call.tensor("input");
  const ir::Shape& shape = x->type.shape;
  const ir::Dim elements = ir::product({shape.begin() + 1, shape.end()});
  Value* rows =
      call.builder().reshape(x, {shape[0], ir::Dim(groups), ir::floordiv(elements, groups)});
  const Statistics of = statistics(call, rows, {2}, false, compute_dtype(x->type.dtype));
  const DType dtype = statistics_dtype(call, x);
  return {result, call.builder().cast(of.mean, dtype), call.builder().cast(of.scale, dtype)};
}

// A per-channel operand of batch_norm; a constant where it is None.
Value* per_channel(Call& call, std::string_view name, const ir::Type& x, double fallback) {
  if (Value* value = call.optional_tensor(name)) return value;
  call.expect(x.shape[1].is_constant(), "the symbolic channel count " + x.shape[1].str(),
              "a constant");
  return call.make(Op::full, {},
                   {{"shape", ir::Shape{x.shape[1]}}, {"dtype", x.dtype}, {"value", fallback}});
}

Value* batch_norm(Call& call) {
  Value* x = call.tensor("input");
  call.expect(x->type.rank() >= 2, "an input of shape " + shape_text(x->type.shape), "[N, C, ...]");
  call.expect(call.has("running_mean") && call.has("running_var"), "no running statistics",
              "statistics (batch_norm without them normalises over the batch)");
  return norm_of(call, Op::batch_norm, x,
                 {per_channel(call, "weight", x->type, 1), per_channel(call, "bias", x->type, 0),
                  call.tensor("running_mean"), call.tensor("running_var")},
                 {{"eps", call.real_or("eps", 1e-5)}});
}

DType recorded_dtype(Call& call, size_t output) {
  return call.scope().recorded_type(call.node().output_names()[output]).dtype;
}

Value* empty(Call& call, size_t output) {
  if (!call.output_used(output)) return nullptr;
  return call.make(
      Op::full, {},
      {{"shape", ir::Shape{0}}, {"dtype", recorded_dtype(call, output)}, {"value", 0.0}});
}

// PyTorch records f32 for running statistics of 16 bits.
Value* unchanged(Call& call, const char* name, size_t output) {
  if (!call.output_used(output)) return nullptr;
  return call.builder().cast(call.tensor(name), recorded_dtype(call, output));
}

// What normalising over the batch gives beside the result.
struct BatchNorm {
  Value *result, *mean, *scale;
  Value *running_mean, *running_var;  // moved towards the batch's; null without them
};

// Statistics of a batch have the widest dtype of the operands. PyTorch may record another one of 16 bits.
DType batch_statistics_dtype(Call& call) {
  DType dtype = call.tensor("input")->type.dtype;
  for (const char* name : {"weight", "bias", "running_mean", "running_var"}) {
    const Value* operand = call.optional_tensor(name);
    if (operand != nullptr) dtype = promote_types(dtype, operand->type.dtype);
  }
  return dtype;
}

void expect_recorded(Call& call, size_t output, DType dtype) {
  call.expect(!call.output_used(output) || recorded_dtype(call, output) == dtype,
              "statistics of a batch of 16 bits that are recorded as another dtype than PyTorch's "
              "kernels give",
              std::string(dtype_name(dtype)));
}

// The running variance counts the elements less one, that of the batch all of them. `outputs`: how many the operator has.
BatchNorm batch_norm_of_batch(Call& call, size_t outputs) {
  if (outputs > 1) {
    const DType given = batch_statistics_dtype(call);
    for (const size_t i : {size_t{1}, size_t{2}}) expect_recorded(call, i, given);
  }
  if (outputs > 3) {
    expect_recorded(call, outputs - 2, call.tensor("running_mean")->type.dtype);
    expect_recorded(call, outputs - 1, call.tensor("running_var")->type.dtype);
  }
  call.compute_in_f32();
  ir::Builder& builder = call.builder();
  Value* x = call.tensor("input");
  const auto rank = static_cast<int64_t>(x->type.rank());
  call.expect(rank >= 2, "an input of shape " + shape_text(x->type.shape), "[N, C, ...]");
  std::vector<int64_t> axes = range(0, rank);
  axes.erase(axes.begin() + 1);
  // In f64, as PyTorch's kernels for CPUs.
  const Statistics of = statistics(call, x, axes, false, DType::F64);
  const DType wide = x->type.dtype;
  ir::Shape along(x->type.rank(), ir::Dim(1));
  along[1] = x->type.shape[1];
  const auto channel = [&](Value* value) {
    return Expr(call, builder.reshape(builder.cast(value, wide), along));
  };
  Expr result = (Expr(call, x) - channel(of.mean)) * channel(of.scale);
  if (Value* weight = call.optional_tensor("weight")) result = result * channel(weight);
  if (Value* bias = call.optional_tensor("bias")) result = result + channel(bias);
  const DType dtype = batch_statistics_dtype(call);  // 16 bits are made of f32 where it is recorded
  BatchNorm norm{builder.cast(result, x->type.dtype), builder.cast(of.mean, dtype),
                 builder.cast(of.scale, dtype), nullptr, nullptr};
  if (!call.has("running_mean") || !call.has("running_var")) return norm;
  ir::Dim elements(1);
  for (const int64_t axis : axes) elements *= x->type.shape[axis];
  const Expr count(call, as_value(builder, Number(elements), DType::F64));
  const double momentum = call.real_or("momentum", 0.1);
  const auto moved = [&](const char* name, const Expr& towards) {
    Value* before = call.tensor(name);
    const Expr kept = Expr(call, builder.cast(before, DType::F64)) * (1 - momentum);
    return builder.cast(kept + towards * momentum, before->type.dtype);
  };
  norm.running_mean = moved("running_mean", of.mean);
  norm.running_var = moved("running_var", of.variance * (count / (count - 1)));
  return norm;
}

void expect_inference(Call& call) {
  call.expect(!call.boolean_or("training", false), "batch_norm in training mode",
              "a model in eval mode (call model.eval() before exporting)");
}

Value* import_batch_norm(Call& call) {
  if (!call.has("running_mean") && !call.has("running_var"))
    return batch_norm_of_batch(call, 1).result;
  expect_inference(call);
  return batch_norm(call);
}

// On a CPU the statistics that are kept of an inference are empty.
std::vector<Value*> import_native_batch_norm(Call& call) {
  if (!call.has("running_mean") && !call.has("running_var")) {
    const BatchNorm norm = batch_norm_of_batch(call, 3);
    return {norm.result, norm.mean, norm.scale};
  }
  expect_inference(call);
  return {batch_norm(call), empty(call, 1), empty(call, 2)};
}

// Running statistics are results.
std::vector<Value*> import_functional_batch_norm(Call& call) {
  if (!call.boolean_or("training", false))
    return {batch_norm(call), empty(call, 1), empty(call, 2), unchanged(call, "running_mean", 3),
            unchanged(call, "running_var", 4)};
  const BatchNorm norm = batch_norm_of_batch(call, 5);
  return {norm.result, norm.mean, norm.scale, norm.running_mean, norm.running_var};
}

std::vector<Value*> import_batch_norm_with_update(Call& call) {
  const BatchNorm norm = batch_norm_of_batch(call, 6);
  return {norm.result, norm.mean, norm.scale, empty(call, 3), norm.running_mean, norm.running_var};
}

// Each channel of each sample on its own: group norm with one channel per group.
Value* import_instance_norm(Call& call) {
  Value* x = call.tensor("input");
  if (!call.boolean_or("use_input_stats", true)) return batch_norm(call);
  call.expect(x->type.rank() >= 3 && x->type.shape[1].is_constant(),
              "an input of shape " + shape_text(x->type.shape), "[N, C, ...] with a constant C");
  return group_norm(call, x->type.shape[1].constant());
}

constexpr Row kRows[] = {
    {"aten.softmax.int", import_softmax<Op::softmax>},
    {"aten._softmax.default", import_softmax<Op::softmax>},
    {"aten.special_softmax.default", import_softmax<Op::softmax>},
    {"aten._safe_softmax.default", import_safe_softmax},
    {"aten.log_softmax.int", import_softmax<Op::log_softmax>},
    {"aten._log_softmax.default", import_softmax<Op::log_softmax>},
    {"aten.layer_norm.default", import_layer_norm},
    {"aten.native_layer_norm.default", import_native_layer_norm},
    {"aten.rms_norm.default", import_rms_norm},
    {"aten._fused_rms_norm.default", import_fused_rms_norm},
    {"aten.group_norm.default", import_group_norm},
    {"aten.native_group_norm.default", import_native_group_norm},
    {"aten.instance_norm.default", import_instance_norm},
    {"aten.batch_norm.default", import_batch_norm},
    {"aten.native_batch_norm.default", import_native_batch_norm},
    {"aten._native_batch_norm_legit.default", import_native_batch_norm},
    {"aten._native_batch_norm_legit.no_stats", import_native_batch_norm},
    {"aten._native_batch_norm_legit_functional.default", import_functional_batch_norm},
    {"aten._batch_norm_with_update_functional.default", import_batch_norm_with_update},
    {"aten._native_batch_norm_legit_no_training.default", import_native_batch_norm},
};

}  // namespace

Rows normalise_rows() { return kRows; }

}  // namespace kiln::import
