#include "backends/reference/array.h"

#include <cstring>

#include "support/error.h"
#include "support/half.h"

namespace kiln::reference {
namespace {

template <typename T>
void store(std::byte* bytes, int64_t i, T value) {
  std::memcpy(bytes + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

void store_element(DType dtype, std::byte* bytes, int64_t i, double number, int64_t integer) {
  switch (dtype) {
    case DType::F32:
      return store(bytes, i, static_cast<float>(number));
    case DType::F64:
      return store(bytes, i, number);
    case DType::F16:
      return store(bytes, i, f32_to_f16(static_cast<float>(number)));
    case DType::BF16:
      return store(bytes, i, f32_to_bf16(static_cast<float>(number)));
    case DType::I8:
      return store(bytes, i, static_cast<int8_t>(integer));
    case DType::U8:
      return store(bytes, i, static_cast<uint8_t>(integer));
    case DType::I16:
      return store(bytes, i, static_cast<int16_t>(integer));
    case DType::I32:
      return store(bytes, i, static_cast<int32_t>(integer));
    case DType::I64:
      return store(bytes, i, integer);
    case DType::Bool:
      return store(bytes, i, static_cast<uint8_t>(integer != 0));
  }
}

}  // namespace

Array Array::zeros(DType dtype, Sizes shape) {
  Array result;
  result.dtype = dtype;
  result.shape = std::move(shape);
  const auto count = static_cast<size_t>(element_count(result.shape));
  if (is_floating(dtype)) {
    result.floats.resize(count);
  } else {
    result.integers.resize(count);
  }
  return result;
}

Array Array::from(const ir::Literal& literal) {
  Array result = zeros(literal.dtype, literal.shape);
  for (int64_t i = 0; i < result.elements(); ++i) {
    if (result.floating()) {
      result.floats[static_cast<size_t>(i)] = literal.as_double(i);
    } else {
      result.integers[static_cast<size_t>(i)] = literal.as_int(i);
    }
  }
  return result;
}

ir::Literal Array::literal() const {
  std::byte* bytes = nullptr;
  ir::Literal result = ir::Literal::allocate(dtype, shape, &bytes);
  for (int64_t i = 0; i < elements(); ++i) {
    const auto at = static_cast<size_t>(i);
    store_element(dtype, bytes, i, floating() ? floats[at] : 0, floating() ? 0 : integers[at]);
  }
  return result;
}

int64_t Array::elements() const { return element_count(shape); }

double Array::as_double(int64_t i) const {
  const auto at = static_cast<size_t>(i);
  return floating() ? floats[at] : static_cast<double>(integers[at]);
}

int64_t Array::as_int(int64_t i) const {
  const auto at = static_cast<size_t>(i);
  return floating() ? static_cast<int64_t>(floats[at]) : integers[at];
}

void Array::copy_element(int64_t i, const Array& other, int64_t j) {
  KILN_CHECK(dtype == other.dtype);
  if (floating()) {
    floats[static_cast<size_t>(i)] = other.floats[static_cast<size_t>(j)];
  } else {
    integers[static_cast<size_t>(i)] = other.integers[static_cast<size_t>(j)];
  }
}

void Array::set(int64_t i, double value) {
  if (!floating()) return set_int(i, static_cast<int64_t>(value));
  floats[static_cast<size_t>(i)] = value;
}

void Array::set_int(int64_t i, int64_t value) {
  if (floating()) return set(i, static_cast<double>(value));
  integers[static_cast<size_t>(i)] = dtype == DType::Bool ? value != 0 : value;
}

int64_t element_count(const Sizes& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

Sizes row_major_strides(const Sizes& shape) {
  Sizes strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

int64_t offset_of(const Sizes& index, const Sizes& strides) {
  int64_t offset = 0;
  for (size_t i = 0; i < index.size(); ++i) offset += index[i] * strides[i];
  return offset;
}

int64_t broadcast_offset(const Sizes& index, const Sizes& shape) {
  const size_t lead = index.size() - shape.size();
  int64_t offset = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    offset = offset * shape[i] + (shape[i] == 1 ? 0 : index[lead + i]);
  }
  return offset;
}

void for_each_index(const Sizes& shape, const std::function<void(const Sizes&, int64_t)>& visitor) {
  const int64_t count = element_count(shape);
  Sizes index(shape.size(), 0);
  for (int64_t position = 0; position < count; ++position) {
    visitor(index, position);
    for (size_t axis = shape.size(); axis-- > 0;) {
      if (++index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
}

Sizes Call::sizes(const std::vector<ir::Dim>& dims) const {
  Sizes result;
  for (const ir::Dim& dim : dims) result.push_back(size(dim));
  return result;
}

Array Call::result() const {
  const ir::Type& type = node.output()->type;
  return Array::zeros(type.dtype, sizes(type.shape));
}

}  // namespace kiln::reference
