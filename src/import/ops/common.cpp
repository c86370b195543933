#include "import/ops/common.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "import/size_condition.h"

namespace kiln::import {

Expr floating(Call& call, std::string_view name) {
  Value* x = call.tensor(name);
  return {call, is_floating(x->type.dtype) ? x : call.builder().cast(x, DType::F32)};
}

DType compute_dtype(DType dtype) {
  return dtype == DType::F16 || dtype == DType::BF16 ? DType::F32 : dtype;
}

Value* mask_for(Call& call, Value* mask, DType query) {
  const DType dtype = mask->type.dtype;
  if (dtype == DType::Bool || dtype == query) return mask;
  return call.builder().cast(mask, compute_dtype(query));
}

Value* cast_if(Call& call, Value* x, std::optional<DType> dtype) {
  return dtype ? call.builder().cast(x, *dtype) : x;
}

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> result(end > begin ? end - begin : 0);
  std::iota(result.begin(), result.end(), begin);
  return result;
}

Value* move_axis(Call& call, Value* x, int64_t from, int64_t to) {
  if (from == to) return x;
  std::vector<int64_t> axes = range(0, static_cast<int64_t>(x->type.rank()));
  axes.erase(axes.begin() + from);
  axes.insert(axes.begin() + to, from);
  return call.builder().permute(x, axes);
}

Value* slice(Call& call, Value* x, int64_t axis, ir::Dim start, ir::Dim size) {
  if (start.is_constant(0) && size == x->type.shape[axis]) return x;
  return call.make(Op::slice, {x},
                   {{"axis", axis},
                    {"start", std::move(start)},
                    {"size", std::move(size)},
                    {"step", int64_t{1}}});
}

Value* reduce(Call& call, Op op, Value* x, std::vector<int64_t> axes, bool keepdim) {
  if (axes.empty()) return x;
  return call.make(op, {x}, {{"axes", std::move(axes)}, {"keepdim", keepdim}});
}

void require_elements(Call& call, const Value* x, const std::vector<int64_t>& axes,
                      ir::Requirement::Kind kind) {
  for (const int64_t axis : axes)
    call.builder().require({x->type.shape[axis],
                            "a size other than 0 for dimension " + std::to_string(axis) + " of " +
                                x->name + ", which is reduced",
                            call.operation(), kind});
}

void require_part(Call& call, const Value* part, const Value* whole, int64_t axis) {
  const ir::Dim size = part->type.shape[axis], most = whole->type.shape[axis];
  call.builder().require({is_at_most(size, most),
                          "dimension " + std::to_string(axis) + " of " + part->name +
                              " no larger than that of " + whole->name,
                          call.operation(), ir::Requirement::Kind::Sizes});
}

Value* unsqueeze(Call& call, Value* x, int64_t axis) {
  ir::Shape shape = x->type.shape;
  shape.insert(shape.begin() + axis, ir::Dim(1));
  return call.builder().reshape(x, std::move(shape));
}

Value* iota(Call& call, const ir::Dim& size, DType dtype) {
  return call.make(Op::iota, {},
                   {{"size", size}, {"dtype", dtype}, {"start", ir::Dim(0)}, {"step", int64_t{1}}});
}

Value* index_constant(Call& call, const std::vector<int64_t>& numbers) {
  std::byte* data = nullptr;
  ir::Literal literal =
      ir::Literal::allocate(DType::I64, {static_cast<int64_t>(numbers.size())}, &data);
  std::ranges::copy(numbers, reinterpret_cast<int64_t*>(data));
  return call.builder().constant(std::move(literal));
}

Value* pad_constant(Call& call, Value* x, const std::vector<ir::Dim>& before,
                    const std::vector<ir::Dim>& after, double value) {
  return call.make(
      Op::pad, {x},
      {{"before", before}, {"after", after}, {"value", value}, {"mode", std::string("constant")}});
}

void expect_empty(const Call& call, const Value* index, size_t rank) {
  call.expect(index->type.elements().is_constant(0),
              "an index of rank " + std::to_string(index->type.rank()) + " that may have elements",
              "rank " + std::to_string(rank));
}

Value* as_index(Call& call, Value* index) {
  call.expect(is_integer(index->type.dtype),
              "an index of " + std::string(dtype_name(index->type.dtype)),
              "integers (a mask selects as many elements as the data says)");
  return call.builder().cast(index, DType::I64);
}

void refuse_byte_mask(Call& call, const Value* index) {
  call.expect(index->type.dtype != DType::U8, "an index of u8, which PyTorch takes as a mask",
              "i32 or i64");
}

void require_data(Call& call, Value* condition, std::string_view fault, std::string_view name) {
  const auto rank = static_cast<int64_t>(condition->type.rank());
  if (rank > 0) condition = reduce(call, Op::reduce_min, condition, range(0, rank), false);
  call.make(Op::check_nonzero, {call.builder().cast(condition, DType::I32)},
            {{"operator", name.empty() ? call.operation() : std::string(name)},
             {"fault", std::string(fault)}});
}

Value* checked_index(Call& call, Value* index, const ir::Dim& size, bool negative,
                     std::string_view name) {
  return call.make(Op::check_index, {as_index(call, index)},
                   {{"size", size}, {"negative", negative}, {"operator", std::string(name)}});
}

void expect_work(Call& call, std::initializer_list<ir::Dim> sizes, int64_t limit) {
  double work = 1;
  for (const ir::Dim& size : sizes) work *= static_cast<double>(size.upper_bound());
  if (work <= static_cast<double>(limit)) return;
  std::string got;
  for (const ir::Dim& size : sizes) {
    got += (got.empty() ? "" : " * ") +
           (size.is_constant() ? size.str() : "up to " + std::to_string(size.upper_bound()));
  }
  call.fail("sizes of " + got,
            "at most " + std::to_string(limit) + " in all, because each is compared with each");
}

std::string shape_text(const ir::Shape& shape) {
  std::string result = "[";
  for (const ir::Dim& dim : shape) {
    if (result.size() > 1) result += ", ";
    result += dim.str();
  }
  return result + "]";
}

std::vector<int64_t> per_axis(Call& call, std::vector<int64_t> values, size_t count) {
  if (values.size() == 1) values.assign(count, values[0]);
  call.expect(values.size() == count, std::to_string(values.size()) + " values",
              "1 or " + std::to_string(count));
  return values;
}

std::vector<int64_t> per_axis(Call& call, std::string_view name, size_t count, int64_t fallback) {
  std::vector<int64_t> values = call.integers_or(name, {});
  if (values.empty()) return std::vector<int64_t>(count, fallback);
  return per_axis(call, std::move(values), count);
}

}  // namespace kiln::import
