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

std::vector<Value*> import_native_layer_norm(Call& call) {
  expect_unused(call, 1, 2);
  return {import_layer_norm(call), nullptr, nullptr};
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
  expect_unused(call, 1, 2);
  return {group_norm(call, call.integer("group")), nullptr, nullptr};
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

Value* import_batch_norm(Call& call) {
  call.expect(!call.boolean_or("training", false), "batch_norm in training mode",
              "a model in eval mode (call model.eval() before exporting)");
  return batch_norm(call);
}

std::vector<Value*> import_native_batch_norm(Call& call) {
  call.expect(!call.boolean_or("training", false), "batch_norm in training mode",
              "a model in eval mode (call model.eval() before exporting)");
  expect_unused(call, 1, 2);
  return {batch_norm(call), nullptr, nullptr};
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
    {"aten._native_batch_norm_legit_no_training.default", import_native_batch_norm},
};

}  // namespace

Rows normalise_rows() { return kRows; }

}  // namespace kiln::import
