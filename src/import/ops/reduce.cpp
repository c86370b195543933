// Reductions.
#include <algorithm>
#include <limits>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// Sums and products of integers and bools are i64, unless the call names a dtype.
Value* accumulator(Call& call) {
  Value* x = call.tensor("self");
  const DType natural = is_floating(x->type.dtype) ? x->type.dtype : DType::I64;
  return call.builder().cast(x, call.dtype("dtype").value_or(natural));
}

Value* import_sum(Call& call) {
  Value* x = accumulator(call);
  return reduce(call, Op::reduce_sum, x, call.axes_or_all("dim", x->type.rank()),
                call.boolean_or("keepdim", false));
}

Value* import_mean(Call& call) {
  Value* x = cast_if(call, call.tensor("self"), call.dtype("dtype"));
  return reduce(call, Op::reduce_mean, x, call.axes_or_all("dim", x->type.rank()),
                call.boolean_or("keepdim", false));
}

Value* import_prod(Call& call) {
  Value* x = accumulator(call);
  return reduce(call, Op::reduce_prod, x, call.axes_or_all("dim", x->type.rank()),
                call.boolean_or("keepdim", false));
}

using RequirementKind = ir::Requirement::Kind;

bool names_axes(Call& call) { return call.has("dim") && !call.integers("dim").empty(); }

template <Op op>
Value* extremum(Call& call) {
  Value* x = call.tensor("self");
  const std::vector<int64_t> axes = call.axes_or_all("dim", x->type.rank());
  require_elements(call, x, axes,
                   names_axes(call) ? RequirementKind::Index : RequirementKind::Sizes);
  return reduce(call, op, x, axes, call.boolean_or("keepdim", false));
}

std::vector<Value*> import_aminmax(Call& call) {
  return {extremum<Op::reduce_min>(call), extremum<Op::reduce_max>(call)};
}

// any is the maximum of bools, all the minimum.
template <Op op>
Value* any_all(Call& call) {
  Value* x = call.builder().cast(call.tensor("self"), DType::Bool);
  Value* result = reduce(call, op, x, call.axes_or_all("dim", x->type.rank()),
                         call.boolean_or("keepdim", false));
  // PyTorch keeps uint8 for old code's sake.
  const bool is_u8 = call.tensor("self")->type.dtype == DType::U8;
  return is_u8 ? call.builder().cast(result, DType::U8) : result;
}

Value* index_of(Call& call, Op op, Value* x, int64_t axis, bool keepdim) {
  if (x->type.rank() == 0) return call.builder().scalar(DType::I64, 0);
  return call.make(op, {x}, {{"axis", axis}, {"keepdim", keepdim}});
}

template <Op value_op, Op index_op>
std::vector<Value*> extremum_with_index(Call& call) {
  Value* x = call.tensor("self");
  const size_t rank = x->type.rank();
  const int64_t axis = call.axis("dim", rank);
  const bool keepdim = call.boolean_or("keepdim", false);
  const std::vector<int64_t> axes = rank == 0 ? std::vector<int64_t>{} : std::vector<int64_t>{axis};
  require_elements(call, x, axes, RequirementKind::Index);
  Value* index = call.output_used(1) ? index_of(call, index_op, x, axis, keepdim) : nullptr;
  return {reduce(call, value_op, x, axes, keepdim), index};
}

template <Op op>
Value* import_arg(Call& call) {
  Value* x = call.tensor("self");
  const bool keepdim = call.boolean_or("keepdim", false);
  const size_t rank = x->type.rank();
  if (call.has("dim")) {
    const int64_t axis = call.axis("dim", rank);
    if (rank > 0) require_elements(call, x, {axis}, RequirementKind::Index);
    return index_of(call, op, x, axis, keepdim);
  }
  require_elements(call, x, range(0, static_cast<int64_t>(rank)), RequirementKind::Index);
  Value* flat = call.builder().reshape(x, {x->type.elements()});
  Value* index = index_of(call, op, flat, 0, false);
  if (!keepdim) return index;
  return call.builder().reshape(index, ir::Shape(rank, ir::Dim(1)));
}

ir::Dim count_of(const Value* x, const std::vector<int64_t>& axes) {
  ir::Dim count(1);
  for (int64_t axis : axes) count *= x->type.shape[axis];
  return count;
}

struct Moments {
  Value* variance;
  Value* mean;
};

// The operand in the dtype to compute in; results are cast to its own.
Expr wide_self(Call& call, Value* x) {
  return {call, call.builder().cast(x, compute_dtype(x->type.dtype))};
}

Value* narrow_result(Call& call, const Expr& result) {
  return call.builder().cast(result, call.tensor("self")->type.dtype);
}

// Two passes in f64, as in PyTorch's kernels for CPUs: a mean that is rounded to f32 is off by more than differences
// that are far smaller, and squares of f32 and bf16 overflow. f16 has neither.
Moments moments(Call& call) {
  Value* self = call.tensor("self");
  const DType wide = self->type.dtype == DType::F16 ? DType::F32 : DType::F64;
  const Expr x(call, call.builder().cast(self, wide));
  const ir::Type& type = x.value()->type;
  const std::vector<int64_t> axes = call.axes_or_all("dim", type.rank());
  const bool keepdim = call.boolean_or("keepdim", false);
  double correction = call.boolean_or("unbiased", true) ? 1 : 0;
  correction = call.real_or("correction", correction);
  const Expr mean(call, reduce(call, Op::reduce_mean, x, axes, true));
  const Expr centred = x - mean;
  const Expr sum(call, reduce(call, Op::reduce_sum, centred * centred, axes, keepdim));
  const Expr count(call, as_value(call.builder(), Number(count_of(x, axes)), type.dtype));
  const Expr divisor = (count - correction).apply(Op::maximum, 0);
  return {sum / divisor, reduce(call, Op::reduce_mean, x, axes, keepdim)};
}

Value* import_var(Call& call) { return narrow_result(call, {call, moments(call).variance}); }
Value* import_std(Call& call) {
  return narrow_result(call, Expr(call, moments(call).variance).apply(Op::sqrt));
}

std::vector<Value*> import_var_mean(Call& call) {
  call.compute_in_f32();
  const Moments result = moments(call);
  return {narrow_result(call, {call, result.variance}), narrow_result(call, {call, result.mean})};
}

std::vector<Value*> import_std_mean(Call& call) {
  call.compute_in_f32();
  const Moments result = moments(call);
  const Expr deviation = Expr(call, result.variance).apply(Op::sqrt);
  return {narrow_result(call, deviation), narrow_result(call, {call, result.mean})};
}

// m + log(sum(e^(x - m))), m the maximum, or 0 where that is infinite.
Value* import_logsumexp(Call& call) {
  const Expr self = floating(call, "self");
  const Expr x = wide_self(call, self);
  const std::vector<int64_t> axes = call.axes_or_all("dim", x.value()->type.rank());
  const Expr largest(call, reduce(call, Op::reduce_max, x, axes, true));
  const Expr offset = largest.apply(Op::isinf).select(largest.constant(0), largest);
  const Expr sum(call, reduce(call, Op::reduce_sum, (x - offset).apply(Op::exp), axes, true));
  Value* result = call.builder().cast(sum.apply(Op::log) + offset, self.value()->type.dtype);
  if (call.boolean_or("keepdim", false)) return result;
  const bool keeps = axes.empty();
  return keeps ? result : reduce(call, Op::reduce_max, result, axes, false);  // axes of size 1
}

Value* import_norm(Call& call) {
  Value* self = cast_if(call, call.tensor("self"), call.dtype("dtype"));
  const Expr x = wide_self(call, self);
  const double order = call.real_or(call.has("p") ? "p" : "ord", 2);
  const std::vector<int64_t> axes = call.axes_or_all("dim", self->type.rank());
  const bool has_identity = order >= 0 && order < std::numeric_limits<double>::infinity();
  if (!has_identity) require_elements(call, self, axes, RequirementKind::Sizes);
  const bool keepdim = call.boolean_or("keepdim", false);
  // The norm of one element is its magnitude, whose square may be too large or too small.
  const bool of_one = std::ranges::all_of(
      axes, [&](int64_t axis) { return self->type.shape[axis].is_constant(1); });
  if (of_one && order != 0) {
    Value* magnitude = call.builder().cast(x.apply(Op::abs), self->type.dtype);
    return keepdim ? magnitude : reduce(call, Op::reduce_max, magnitude, axes, false);
  }
  const Expr result = vector_norm(call, order == 2 ? x : x.apply(Op::abs), order, axes, keepdim);
  return call.builder().cast(result, self->type.dtype);
}

Value* import_count_nonzero(Call& call) {
  const Expr x(call, call.tensor("self"));
  Value* ones = call.builder().cast(x.apply(Op::ne, 0), DType::I64);
  return reduce(call, Op::reduce_sum, ones, call.axes_or_all("dim", ones->type.rank()), false);
}

// x[1:] - x[:-1] along an axis, n times; of bools: whether they differ.
Value* import_diff(Call& call) {
  Value* x = call.tensor("self");
  const int64_t axis = call.axis_or("dim", x->type.rank(), -1);
  std::vector<Value*> parts{x};
  if (call.has("prepend")) parts.insert(parts.begin(), call.tensor("prepend"));
  if (call.has("append")) parts.push_back(call.tensor("append"));
  if (parts.size() > 1) x = call.make(Op::concat, parts, {{"axis", axis}});
  const Op op = x->type.dtype == DType::Bool ? Op::ne : Op::sub;
  for (int64_t n = call.integer_or("n", 1); n > 0; --n) {
    if (x->type.shape[axis].is_constant(0)) break;
    const ir::Dim size = x->type.shape[axis] - 1;
    x = call.make(op, {slice(call, x, axis, 1, size), slice(call, x, axis, 0, size)});
  }
  return x;
}

constexpr Row kRows[] = {
    {"aten.sum.default", import_sum},
    {"aten.sum.dim_IntList", import_sum},
    {"aten.mean.default", import_mean},
    {"aten.mean.dim", import_mean},
    {"aten.prod.default", import_prod},
    {"aten.prod.dim_int", import_prod},
    {"aten.amax.default", extremum<Op::reduce_max>},
    {"aten.amin.default", extremum<Op::reduce_min>},
    {"aten.aminmax.default", import_aminmax},
    {"aten.max.default", extremum<Op::reduce_max>},
    {"aten.min.default", extremum<Op::reduce_min>},
    {"aten.max.dim", extremum_with_index<Op::reduce_max, Op::argmax>},
    {"aten.min.dim", extremum_with_index<Op::reduce_min, Op::argmin>},
    {"aten.argmax.default", import_arg<Op::argmax>},
    {"aten.argmin.default", import_arg<Op::argmin>},
    {"aten.any.default", any_all<Op::reduce_max>},
    {"aten.any.dim", any_all<Op::reduce_max>},
    {"aten.any.dims", any_all<Op::reduce_max>},
    {"aten.all.default", any_all<Op::reduce_min>},
    {"aten.all.dim", any_all<Op::reduce_min>},
    {"aten.all.dims", any_all<Op::reduce_min>},
    {"aten.var.default", in_f32<import_var>},
    {"aten.var.dim", in_f32<import_var>},
    {"aten.var.correction", in_f32<import_var>},
    {"aten.std.default", in_f32<import_std>},
    {"aten.std.dim", in_f32<import_std>},
    {"aten.std.correction", in_f32<import_std>},
    {"aten.var_mean.default", import_var_mean},
    {"aten.var_mean.dim", import_var_mean},
    {"aten.var_mean.correction", import_var_mean},
    {"aten.std_mean.default", import_std_mean},
    {"aten.std_mean.dim", import_std_mean},
    {"aten.std_mean.correction", import_std_mean},
    {"aten.logsumexp.default", import_logsumexp},
    {"aten.linalg_vector_norm.default", in_f32<import_norm>},
    {"aten.norm.Scalar", in_f32<import_norm>},
    {"aten.norm.ScalarOpt_dim", in_f32<import_norm>},
    {"aten.norm.ScalarOpt_dim_dtype", in_f32<import_norm>},
    {"aten.norm.ScalarOpt_dtype", in_f32<import_norm>},
    {"aten.count_nonzero.default", import_count_nonzero},
    {"aten.count_nonzero.dim_IntList", import_count_nonzero},
    {"aten.diff.default", import_diff},
};

}  // namespace

Expr vector_norm(Call& call, const Expr& magnitude, double order, const std::vector<int64_t>& axes,
                 bool keepdim) {
  const auto sum = [&](const Expr& terms) {
    return Expr(call, reduce(call, Op::reduce_sum, terms, axes, keepdim));
  };
  if (order == 2) return sum(magnitude * magnitude).apply(Op::sqrt);
  if (order == 1) return sum(magnitude);
  if (order == 0)
    return sum(
        {call, call.builder().cast(magnitude.apply(Op::ne, 0), magnitude.value()->type.dtype)});
  if (order == std::numeric_limits<double>::infinity()) {
    return {call, reduce(call, Op::reduce_max, magnitude, axes, keepdim)};
  }
  if (order == -std::numeric_limits<double>::infinity()) {
    return {call, reduce(call, Op::reduce_min, magnitude, axes, keepdim)};
  }
  return sum(magnitude.apply(Op::pow, order)).apply(Op::pow, 1 / order);
}

Rows reduce_rows() { return kRows; }

}  // namespace kiln::import
