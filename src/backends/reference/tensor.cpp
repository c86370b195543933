#include "backends/reference/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ir/scalar.h"
#include "support/error.h"
#include "support/half.h"

namespace kiln::reference {
namespace {

template <typename T>
T convert(double value) {
  if constexpr (std::is_same_v<T, int64_t>) return ir::to_integer(value, DType::I64);
  return static_cast<T>(value);
}

template <typename Element, typename T, typename Decode>
void load_as(const Literal& literal, std::vector<T>& out, const Decode& decode) {
  for (size_t i = 0; i < out.size(); ++i) {
    Element element;
    std::memcpy(&element, literal.bytes.data() + i * sizeof(Element), sizeof(Element));
    out[i] = decode(element);
  }
}

template <typename Element, typename T, typename Encode>
void store_as(const std::vector<T>& values, std::byte* out, const Encode& encode) {
  for (size_t i = 0; i < values.size(); ++i) {
    const Element element = encode(values[i]);
    std::memcpy(out + i * sizeof(Element), &element, sizeof(Element));
  }
}

}  // namespace

void Call::fail(const std::string& got, const std::string& expected) const {
  throw CompileError("[" + std::string(ir::op_name(node.op)) + "] got " + got + ", expected " +
                     expected);
}

Sizes Call::dims(std::string_view name) const {
  Sizes result;
  for (const ir::Dim& dim : node.attr<std::vector<ir::Dim>>(name))
    result.push_back(dim.evaluate(size_of));
  return result;
}

int64_t product(const Sizes& sizes) {
  int64_t result = 1;
  for (int64_t size : sizes) result *= size;
  return result;
}

Sizes row_major_strides(const Sizes& shape) {
  Sizes strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

Sizes broadcast(const Sizes& a, const Sizes& b) {
  Sizes result = a.size() >= b.size() ? a : b;
  const Sizes& shorter = a.size() >= b.size() ? b : a;
  const size_t offset = result.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    if (shorter[i] == 1 || shorter[i] == result[offset + i]) continue;
    if (result[offset + i] != 1)
      throw CompileError("[broadcast] got sizes that are neither equal nor 1");
    result[offset + i] = shorter[i];
  }
  return result;
}

Sizes broadcast_strides(const Sizes& operand, const Sizes& result) {
  const Sizes own = row_major_strides(operand);
  Sizes strides(result.size(), 0);
  const size_t offset = result.size() - operand.size();
  for (size_t i = 0; i < operand.size(); ++i) {
    if (operand[i] != 1) strides[offset + i] = own[i];
  }
  return strides;
}

template <typename T>
std::vector<T> load(const Literal& literal) {
  std::vector<T> out(literal.elements());
  const auto plain = [](auto element) {
    if constexpr (std::is_integral_v<decltype(element)>) return static_cast<T>(element);
    return convert<T>(element);
  };
  switch (literal.dtype) {
    case DType::F32:
      load_as<float>(literal, out, plain);
      break;
    case DType::F64:
      load_as<double>(literal, out, plain);
      break;
    case DType::F16:
      load_as<uint16_t>(literal, out, [](uint16_t bits) { return convert<T>(f16_to_f32(bits)); });
      break;
    case DType::BF16:
      load_as<uint16_t>(literal, out, [](uint16_t bits) { return convert<T>(bf16_to_f32(bits)); });
      break;
    case DType::F8E4M3:
      load_as<uint8_t>(literal, out, [](uint8_t code) { return convert<T>(f8e4m3_to_f32(code)); });
      break;
    case DType::I8:
      load_as<int8_t>(literal, out, plain);
      break;
    case DType::U8:
    case DType::Bool:
      load_as<uint8_t>(literal, out, plain);
      break;
    case DType::I16:
      load_as<int16_t>(literal, out, plain);
      break;
    case DType::I32:
      load_as<int32_t>(literal, out, plain);
      break;
    case DType::I64:
      load_as<int64_t>(literal, out, plain);
      break;
  }
  return out;
}

template <typename T>
Literal store(const std::vector<T>& values, DType dtype, Sizes shape) {
  std::byte* data = nullptr;
  Literal result = Literal::allocate(dtype, std::move(shape), &data);
  KILN_CHECK(result.elements() == static_cast<int64_t>(values.size()),
             "elements for another shape");
  const auto integer = [&](T value) {
    if constexpr (std::is_same_v<T, int64_t>) return value;
    return ir::to_integer(static_cast<double>(value), dtype);
  };
  const auto single = [](T value) { return static_cast<float>(value); };
  switch (dtype) {
    case DType::F32:
      store_as<float>(values, data, single);
      break;
    case DType::F64:
      store_as<double>(values, data, [](T value) { return static_cast<double>(value); });
      break;
    case DType::F16:
      store_as<uint16_t>(values, data, [&](T value) { return f32_to_f16(single(value)); });
      break;
    case DType::BF16:
      store_as<uint16_t>(values, data, [&](T value) { return f32_to_bf16(single(value)); });
      break;
    case DType::F8E4M3:
      store_as<uint8_t>(values, data, [&](T value) { return f32_to_f8e4m3(single(value)); });
      break;
    case DType::I8:
    case DType::U8:
      store_as<uint8_t>(values, data, integer);
      break;
    case DType::I16:
      store_as<uint16_t>(values, data, integer);
      break;
    case DType::I32:
      store_as<uint32_t>(values, data, integer);
      break;
    case DType::I64:
      store_as<int64_t>(values, data, integer);
      break;
    case DType::Bool:
      store_as<uint8_t>(values, data, [](T value) -> uint8_t { return value != 0; });
      break;
  }
  return result;
}

template std::vector<double> load<double>(const Literal&);
template std::vector<int64_t> load<int64_t>(const Literal&);
template Literal store<double>(const std::vector<double>&, DType, Sizes);
template Literal store<int64_t>(const std::vector<int64_t>&, DType, Sizes);

void Walk::next() {
  for (size_t d = shape_.size(); d-- > 0;) {
    offset_ += strides_[d];
    if (++index_[d] < shape_[d]) return;
    offset_ -= strides_[d] * shape_[d];
    index_[d] = 0;
  }
}

Literal rearrange(const Literal& input, Sizes shape,
                  const std::function<int64_t(const Sizes& index)>& offset_of, double fill) {
  const size_t item = dtype_size(input.dtype);
  std::byte* data = nullptr;
  Literal result = Literal::allocate(input.dtype, shape, &data);
  const Literal filler = store(std::vector<double>{fill}, input.dtype, {});
  const int64_t count = result.elements();
  Sizes index(shape.size(), 0);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t offset = offset_of(index);
    const std::byte* source = offset < 0 ? filler.bytes.data() : input.bytes.data() + offset * item;
    std::memcpy(data + i * item, source, item);
    for (size_t d = shape.size(); d-- > 0 && ++index[d] == shape[d];) index[d] = 0;
  }
  return result;
}

Split split_at(const Sizes& shape, int64_t axis) {
  Split split;
  for (size_t i = 0; i < shape.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    (at < axis ? split.outer : at == axis ? split.size : split.inner) *= shape[i];
  }
  return split;
}

}  // namespace kiln::reference
