#include "ir/type.h"

#include <algorithm>
#include <cstring>

#include "ir/size_overflow.h"
#include "support/error.h"
#include "support/half.h"

namespace kiln::ir {
namespace {

template <typename T>
T load(std::span<const std::byte> bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* target, T value) {
  std::memcpy(target, &value, sizeof(T));
}

void store_int(std::byte* target, DType dtype, int64_t value) {
  switch (dtype) {
    case DType::I8:
    case DType::U8:
      return store(target, static_cast<uint8_t>(value));
    case DType::Bool:
      return store(target, static_cast<uint8_t>(value != 0));
    case DType::I16:
      return store(target, static_cast<int16_t>(value));
    case DType::I32:
      return store(target, static_cast<int32_t>(value));
    case DType::I64:
      return store(target, value);
    default:
      KILN_CHECK(false, "not an integer type");
  }
}

void store_float(std::byte* target, DType dtype, double value) {
  switch (dtype) {
    case DType::F64:
      return store(target, value);
    case DType::F32:
      return store(target, static_cast<float>(value));
    case DType::F16:
      return store(target, f32_to_f16(static_cast<float>(value)));
    case DType::BF16:
      return store(target, f32_to_bf16(static_cast<float>(value)));
    case DType::F8E4M3:
      return store(target, f32_to_f8e4m3(static_cast<float>(value)));
    default:
      KILN_CHECK(false, "not a floating type");
  }
}

}  // namespace

std::string Type::str() const {
  std::string result(dtype_name(dtype));
  result += "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) result += ", ";
    result += shape[i].str();
  }
  return result + "]";
}

int64_t Literal::elements() const {
  if (std::ranges::count(shape, 0) > 0) return 0;
  int64_t count = 1;
  for (int64_t size : shape) {
    if (__builtin_mul_overflow(count, size, &count))
      throw SizeOverflow("[size] got a constant of " + type().str() +
                         ", expected fewer than 2^63 elements");
  }
  return count;
}

Type Literal::type() const { return {dtype, Shape(shape.begin(), shape.end())}; }

Literal Literal::allocate(DType dtype, std::vector<int64_t> shape, std::byte** data) {
  Literal result;
  result.dtype = dtype;
  result.shape = std::move(shape);
  const auto size = static_cast<size_t>(
      (Dim(result.elements()) * static_cast<int64_t>(dtype_size(dtype))).constant());
  auto storage = std::make_shared<std::vector<std::byte>>(size);
  *data = storage->data();
  result.bytes = {storage->data(), size};
  result.owner = std::move(storage);
  return result;
}

Literal Literal::scalar(DType dtype, double value) {
  if (!is_floating(dtype)) {
    return scalar_int(dtype, dtype == DType::Bool ? value != 0 : static_cast<int64_t>(value));
  }
  std::byte* data = nullptr;
  Literal result = allocate(dtype, {}, &data);
  store_float(data, dtype, value);
  return result;
}

Literal Literal::scalar_int(DType dtype, int64_t value) {
  if (is_floating(dtype)) return scalar(dtype, static_cast<double>(value));
  std::byte* data = nullptr;
  Literal result = allocate(dtype, {}, &data);
  store_int(data, dtype, value);
  return result;
}

double Literal::as_double(int64_t index) const {
  switch (dtype) {
    case DType::F64:
      return load<double>(bytes, index);
    case DType::F32:
      return load<float>(bytes, index);
    case DType::F16:
      return f16_to_f32(load<uint16_t>(bytes, index));
    case DType::BF16:
      return bf16_to_f32(load<uint16_t>(bytes, index));
    case DType::F8E4M3:
      return f8e4m3_to_f32(load<uint8_t>(bytes, index));
    default:
      return static_cast<double>(as_int(index));
  }
}

int64_t Literal::as_int(int64_t index) const {
  switch (dtype) {
    case DType::I8:
      return load<int8_t>(bytes, index);
    case DType::U8:
    case DType::Bool:
      return load<uint8_t>(bytes, index);
    case DType::I16:
      return load<int16_t>(bytes, index);
    case DType::I32:
      return load<int32_t>(bytes, index);
    case DType::I64:
      return load<int64_t>(bytes, index);
    default:
      return static_cast<int64_t>(as_double(index));
  }
}

void Literal::set(std::byte* data, DType dtype, int64_t index, double value) {
  std::byte* target = data + index * static_cast<int64_t>(dtype_size(dtype));
  if (is_floating(dtype)) return store_float(target, dtype, value);
  store_int(target, dtype, dtype == DType::Bool ? value != 0 : static_cast<int64_t>(value));
}

void Literal::set_int(std::byte* data, DType dtype, int64_t index, int64_t value) {
  store_int(data + index * static_cast<int64_t>(dtype_size(dtype)), dtype, value);
}

void Literal::forget() const {
  if (!file || bytes.empty()) return;
  const std::span<const std::byte> all = file->bytes();
  if (bytes.data() >= all.data() && bytes.data() + bytes.size() <= all.data() + all.size())
    forget_pages(bytes);
}

uint64_t Literal::content_hash() const {
  // FNV-1a over whole words; the tail is padded with zeros. Stable across runs: it is printed in
  // dumps.
  constexpr uint64_t kPrime = 0x100000001b3;
  uint64_t hash = 0xcbf29ce484222325 ^ static_cast<uint64_t>(dtype);
  for (int64_t size : shape) hash = (hash ^ static_cast<uint64_t>(size)) * kPrime;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 29;
  }
  return hash;
}

bool Literal::same_content(const Literal& other) const {
  if (dtype != other.dtype || shape != other.shape || bytes.size() != other.bytes.size())
    return false;
  return bytes.data() == other.bytes.data() || bytes.empty() ||
         std::memcmp(bytes.data(), other.bytes.data(), bytes.size()) == 0;
}

}  // namespace kiln::ir
