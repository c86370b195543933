// Tensors made from nothing but sizes and numbers.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "import/ops/common.h"
#include "ir/scalar.h"

namespace kiln::import {
namespace {

using ir::Dim;

Value* full(Call& call, const ir::Shape& shape, DType dtype, const Number& value) {
  // `full` holds a double: what does not fit into one, or is not known, is expanded.
  const auto* integer = std::get_if<int64_t>(&value);
  const bool exact = integer == nullptr || std::abs(static_cast<double>(*integer)) <= 0x1p53;
  const auto* dim = std::get_if<Dim>(&value);
  if (!exact || (dim != nullptr && !dim->is_constant())) {
    return call.builder().expand(as_value(call.builder(), value, dtype), shape);
  }
  const double number = number_as_double(value);
  return call.make(Op::full, {},
                   {{"shape", shape}, {"dtype", dtype}, {"value", ir::held_number(dtype, number)}});
}

const char* size_argument(Call& call) { return call.has("size") ? "size" : "shape"; }

Value* import_full(Call& call) {
  const Number value = call.number("fill_value");
  return full(call, call.dims(size_argument(call)),
              call.dtype("dtype").value_or(number_dtype(value)), value);
}

template <int value>
Value* filled(Call& call) {
  return full(call, call.dims(size_argument(call)), call.dtype("dtype").value_or(DType::F32),
              int64_t{value});
}

template <int value>
Value* filled_like(Call& call) {
  const ir::Type& type = call.tensor("self")->type;
  return full(call, type.shape, call.dtype("dtype").value_or(type.dtype), int64_t{value});
}

template <int value>
Value* new_filled(Call& call) {
  const ir::Type& type = call.tensor("self")->type;
  return full(call, call.dims("size"), call.dtype("dtype").value_or(type.dtype), int64_t{value});
}

Value* import_full_like(Call& call) {
  const ir::Type& type = call.tensor("self")->type;
  return full(call, type.shape, call.dtype("dtype").value_or(type.dtype),
              call.number("fill_value"));
}

Value* import_new_full(Call& call) {
  const ir::Type& type = call.tensor("self")->type;
  return full(call, call.dims("size"), call.dtype("dtype").value_or(type.dtype),
              call.number("fill_value"));
}

Value* import_fill(Call& call) {
  const ir::Type& type = call.tensor("self")->type;
  Value* value = as_value(call.builder(), call.operand("value"), type.dtype);
  return call.builder().expand(value, type.shape);
}

Value* import_scalar_tensor(Call& call) {
  const Number value = call.number("s");
  return as_value(call.builder(), value, call.dtype("dtype").value_or(DType::F32));
}

bool is_real(const Number& number) { return std::holds_alternative<double>(number); }

Dim as_dim(const Number& number) {
  if (const auto* dim = std::get_if<Dim>(&number)) return *dim;
  if (const auto* flag = std::get_if<bool>(&number)) return *flag ? 1 : 0;
  return std::get<int64_t>(number);
}

Value* integer_range(Call& call, const Dim& start, const Dim& end, int64_t step, DType dtype) {
  call.expect(step != 0, "step 0", "another step");
  const Dim distance = step > 0 ? end - start : start - end;
  const Dim size = ir::max(0, ir::ceildiv(distance, std::abs(step)));
  Value* indices = call.make(
      Op::iota, {}, {{"size", size}, {"dtype", DType::I64}, {"start", start}, {"step", step}});
  return call.builder().cast(indices, dtype);
}

Value* range_of_symbolic_steps(Call& call, const Dim& start, const Dim& end, const Dim& step,
                               DType dtype) {
  call.expect(step.lower_bound() >= 1, "the symbolic step " + step.str(), "one that is positive");
  ir::Builder& builder = call.builder();
  const Expr count(call, iota(call, ir::max(0, ir::ceildiv(end - start, step))));
  const Expr by(call, as_value(builder, Number(step), DType::I64));
  const Expr first(call, as_value(builder, Number(start), DType::I64));
  return builder.cast(first + count * by, dtype);
}

// start + i * step, computed in f64 as PyTorch does.
Value* real_range(Call& call, double start, double end, double step, DType dtype) {
  call.expect(step != 0 && std::isfinite((end - start) / step), "step " + std::to_string(step),
              "a finite range");
  const auto count = static_cast<int64_t>(std::max(0.0, std::ceil((end - start) / step)));
  call.expect(count < int64_t{1} << 28, std::to_string(count) + " elements", "fewer than 2^28");
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, {count}, &data);
  for (int64_t i = 0; i < count; ++i)
    ir::Literal::set(data, dtype, i, start + static_cast<double>(i) * step);
  return call.builder().constant(std::move(literal));
}

// Numbers with a fraction for a dtype of integers: PyTorch truncates them first, and counts with
// what they were unless the dtype is i64.
Value* truncated_range(Call& call, double start, double end, double step, DType dtype) {
  call.expect(std::abs(start) < 0x1p53 && std::abs(end) < 0x1p53 && std::abs(step) < 0x1p53,
              "a range to " + std::to_string(end), "numbers below 2^53");
  const double first = std::trunc(start), by = std::trunc(step);
  call.expect(by != 0, "step " + std::to_string(step) + " for integers", "a step of 1 or more");
  const double distance = dtype == DType::I64 ? std::trunc(end) - first : end - start;
  const double count = std::ceil(distance / (dtype == DType::I64 ? by : step));
  const auto size = static_cast<int64_t>(std::max(0.0, count));
  Value* indices = call.make(Op::iota, {},
                             {{"size", Dim(size)},
                              {"dtype", DType::I64},
                              {"start", Dim(static_cast<int64_t>(first))},
                              {"step", static_cast<int64_t>(by)}});
  return call.builder().cast(indices, dtype);
}

// A whole number that a caller wrote with a point.
Number without_point(const Number& number) {
  const auto* value = std::get_if<double>(&number);
  const bool is_whole = value != nullptr && std::trunc(*value) == *value;
  return is_whole && std::abs(*value) < 0x1p53 ? Number(static_cast<int64_t>(*value)) : number;
}

bool is_symbolic(const Number& number) {
  const Dim* dim = std::get_if<Dim>(&number);
  return dim != nullptr && !dim->is_constant();
}

Value* import_arange(Call& call) {
  Number start = call.number_or("start", int64_t{0}), end = call.number("end");
  Number step = call.number_or("step", int64_t{1});
  bool real = is_real(start) || is_real(end) || is_real(step);
  const DType dtype = call.dtype("dtype").value_or(real ? DType::F32 : DType::I64);
  if (is_symbolic(start) || is_symbolic(end)) {
    for (Number* each : {&start, &end, &step}) *each = without_point(*each);
    real = is_real(start) || is_real(end) || is_real(step);
  }
  if (real) {
    const auto range = is_floating(dtype) ? real_range : truncated_range;
    return range(call, number_as_double(start), number_as_double(end), number_as_double(step),
                 dtype);
  }
  const Dim by = as_dim(step);
  if (!by.is_constant())
    return range_of_symbolic_steps(call, as_dim(start), as_dim(end), by, dtype);
  return integer_range(call, as_dim(start), as_dim(end), by.constant(), dtype);
}

// From both ends towards the middle, as PyTorch computes it.
Value* import_linspace(Call& call) {
  double start = call.real_or("start", 0), end = call.real_or("end", 0);
  const int64_t steps = call.integer("steps");
  call.expect(steps >= 0 && steps < int64_t{1} << 28, std::to_string(steps) + " steps",
              "0 to 2^28");
  const DType dtype = call.dtype("dtype").value_or(DType::F32);
  if (!is_floating(dtype)) start = std::trunc(start), end = std::trunc(end);
  const double step = steps > 1 ? (end - start) / static_cast<double>(steps - 1) : 0;
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, {steps}, &data);
  for (int64_t i = 0; i < steps; ++i) {
    const double value = i < steps / 2 ? start + step * static_cast<double>(i)
                                       : end - step * static_cast<double>(steps - 1 - i);
    ir::Literal::set(data, dtype, i, steps == 1 ? start : value);
  }
  return call.builder().constant(std::move(literal));
}

// A sum of cosines over a period of as many values as there are, or of one fewer for windows that end as they begin.
Value* cosine_window(Call& call, double constant, double first, double second) {
  const int64_t count = call.integer("window_length");
  call.expect(count >= 0 && count < int64_t{1} << 28, std::to_string(count) + " values",
              "0 to 2^28");
  const DType dtype = call.dtype("dtype").value_or(DType::F32);
  const double period = static_cast<double>(count - (call.boolean_or("periodic", true) ? 0 : 1));
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, {count}, &data);
  for (int64_t i = 0; i < count; ++i) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / period;
    const double value = constant - first * std::cos(angle) + second * std::cos(2 * angle);
    ir::Literal::set(data, dtype, i, count == 1 ? 1 : value);
  }
  return call.builder().constant(std::move(literal));
}

Value* import_hann_window(Call& call) { return cosine_window(call, 0.5, 0.5, 0); }
Value* import_hamming_window(Call& call) {
  return cosine_window(call, call.real_or("alpha", 0.54), call.real_or("beta", 0.46), 0);
}
Value* import_blackman_window(Call& call) { return cosine_window(call, 0.42, 0.5, 0.08); }

// 1 where row and column are equal.
Value* import_eye(Call& call) {
  const Dim rows = call.dim("n"), columns = call.dim_or("m", rows);
  const Expr row(call, unsqueeze(call, integer_range(call, 0, rows, 1, DType::I64), 1));
  const Expr column(call, integer_range(call, 0, columns, 1, DType::I64));
  return call.builder().cast(row.apply(Op::eq, column), call.dtype("dtype").value_or(DType::F32));
}

// [2, n]: the rows and columns of a triangle of a matrix, row by row.
template <bool is_upper>
Value* import_triangle_indices(Call& call) {
  const int64_t rows = call.integer("row"), columns = call.integer("col");
  const int64_t offset = call.integer_or("offset", 0);
  constexpr int64_t kMost = 1 << 13;
  call.expect(rows >= 0 && columns >= 0 && rows <= kMost && columns <= kMost,
              std::to_string(rows) + " by " + std::to_string(columns),
              "sizes of at most " + std::to_string(kMost));
  std::vector<int64_t> places, of_columns;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t begin = is_upper ? std::max<int64_t>(0, i + offset) : 0;
    const int64_t end = is_upper ? columns : std::min(columns, i + offset + 1);
    for (int64_t j = begin; j < end; ++j) {
      places.push_back(i);
      of_columns.push_back(j);
    }
  }
  places.insert(places.end(), of_columns.begin(), of_columns.end());
  const auto count = static_cast<int64_t>(of_columns.size());
  Value* indices = call.builder().reshape(index_constant(call, places), {2, count});
  return call.builder().cast(indices, call.dtype("dtype").value_or(DType::I64));
}

std::vector<Value*> import_meshgrid(Call& call) {
  const std::vector<Value*> axes = call.tensors("tensors");
  const bool xy = call.text_or("indexing", "ij") == "xy" && axes.size() >= 2;
  ir::Shape shape;
  for (const Value* axis : axes) shape.push_back(axis->type.elements());
  if (xy) std::swap(shape[0], shape[1]);
  std::vector<Value*> result;
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t place = xy && i < 2 ? 1 - i : i;
    ir::Shape column(axes.size() - place, Dim(1));
    column[0] = shape[place];
    result.push_back(call.builder().expand(call.builder().reshape(axes[i], column), shape));
  }
  return result;
}

constexpr Row kRows[] = {
    {"aten.full.default", import_full},
    {"aten.zeros.default", filled<0>},
    {"aten.ones.default", filled<1>},
    {"aten.empty.memory_format", filled<0>},
    {"aten.full_like.default", import_full_like},
    {"aten.zeros_like.default", filled_like<0>},
    {"aten.zero.default", filled_like<0>},
    {"aten.ones_like.default", filled_like<1>},
    {"aten.empty_like.default", filled_like<0>},
    {"aten.new_full.default", import_new_full},
    {"aten.new_zeros.default", new_filled<0>},
    {"aten.new_ones.default", new_filled<1>},
    {"aten.new_empty.default", new_filled<0>},
    {"aten.fill.Scalar", import_fill},
    {"aten.fill.Tensor", import_fill},
    {"aten.scalar_tensor.default", import_scalar_tensor},
    {"aten.arange.default", import_arange},
    {"aten.arange.start", import_arange},
    {"aten.arange.start_step", import_arange},
    {"aten.linspace.default", import_linspace},
    {"aten.hann_window.default", import_hann_window},
    {"aten.hann_window.periodic", import_hann_window},
    {"aten.hamming_window.default", import_hamming_window},
    {"aten.hamming_window.periodic", import_hamming_window},
    {"aten.hamming_window.periodic_alpha", import_hamming_window},
    {"aten.hamming_window.periodic_alpha_beta", import_hamming_window},
    {"aten.blackman_window.default", import_blackman_window},
    {"aten.blackman_window.periodic", import_blackman_window},
    {"aten.eye.default", import_eye},
    {"aten.eye.m", import_eye},
    {"aten.tril_indices.default", import_triangle_indices<false>},
    {"aten.triu_indices.default", import_triangle_indices<true>},
    {"aten.meshgrid.default", import_meshgrid},
    {"aten.meshgrid.indexing", import_meshgrid},
};

}  // namespace

Rows create_rows() { return kRows; }

}  // namespace kiln::import
