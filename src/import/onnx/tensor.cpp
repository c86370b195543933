// Elements of tensors: raw bytes, typed fields, and files beside the model.
#include "import/onnx/tensor.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <new>
#include <protozero/pbf_reader.hpp>

#include "import/onnx/fields.h"
#include "support/error.h"

namespace kiln::import::onnx {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;
using Bytes = std::span<const std::byte>;

constexpr int64_t kMaxElements = int64_t{1} << 48;

[[noreturn]] void fail(const Tensor& tensor, const std::string& got, const std::string& expected) {
  throw CompileError("[tensor " + tensor.name + "] got " + got + ", expected " + expected);
}

int64_t elements_of(const Tensor& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.dims) {
    if (size < 0) fail(tensor, "the size " + std::to_string(size), "0 or more");
    if (__builtin_mul_overflow(count, size, &count) || count > kMaxElements)
      fail(tensor, "more than 2^48 elements", "a tensor that fits into memory");
  }
  return count;
}

size_t bytes_for(const Tensor& tensor, DType dtype, int64_t count) {
  if (is_packed(tensor.data_type)) return static_cast<size_t>((count + 1) / 2);
  return static_cast<size_t>(count) * dtype_size(dtype);
}

// What a tensor's message has of elements.
struct Fields {
  std::optional<std::string_view> raw;
  std::vector<int64_t> integers;  // int32_data, int64_data or uint64_data
  std::vector<double> reals;      // float_data or double_data
};

template <typename Range, typename To>
void append(const Range& values, std::vector<To>& to) {
  for (const auto value : values) to.push_back(static_cast<To>(value));
}

void read_field(pbf_reader& reader, Fields& fields) {
  const bool packed = reader.wire_type() == pbf_wire_type::length_delimited;
  const auto expect_single = [&](pbf_wire_type kind) {
    if (reader.wire_type() != kind) throw protozero::unknown_pbf_wire_type_exception();
  };
  switch (reader.tag()) {
    case field::tensor::kRawData: {
      expect_single(pbf_wire_type::length_delimited);
      const protozero::data_view view = reader.get_view();
      fields.raw.emplace(view.data(), view.size());
      break;
    }
    case field::tensor::kInt32Data:
    case field::tensor::kInt64Data:
    case field::tensor::kUint64Data:
      if (packed) return append(reader.get_packed_int64(), fields.integers);
      expect_single(pbf_wire_type::varint);
      fields.integers.push_back(reader.get_int64());
      break;
    case field::tensor::kFloatData:
      if (packed) return append(reader.get_packed_float(), fields.reals);
      expect_single(pbf_wire_type::fixed32);
      fields.reals.push_back(static_cast<double>(reader.get_float()));
      break;
    case field::tensor::kDoubleData:
      if (packed) return append(reader.get_packed_double(), fields.reals);
      expect_single(pbf_wire_type::fixed64);
      fields.reals.push_back(reader.get_double());
      break;
    default:
      reader.skip();
  }
}

Fields read_fields(const Tensor& tensor) {
  Fields fields;
  try {
    pbf_reader reader(tensor.message.data(), tensor.message.size());
    while (reader.next()) read_field(reader, fields);
  } catch (const protozero::exception& error) {
    fail(tensor, std::string("bytes that are no tensor (") + error.what() + ")", "a sound file");
  }
  return fields;
}

// 16-bit floats lie in int32_data as their bits.
void store(std::byte* data, DType dtype, int64_t index, int64_t bits) {
  if (is_16_bit_float(dtype)) {
    const auto half = static_cast<uint16_t>(bits);
    std::memcpy(data + index * 2, &half, sizeof half);
  } else {
    ir::Literal::set_int(data, dtype, index, bits);
  }
}

ir::Literal from_fields(const Tensor& tensor, DType dtype, const Fields& fields) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, tensor.dims, &data);
  const int64_t count = literal.elements();
  const bool real = dtype == DType::F32 || dtype == DType::F64;
  const size_t given = real ? fields.reals.size() : fields.integers.size();
  if (given != static_cast<size_t>(count))
    fail(tensor, std::to_string(given) + " elements", std::to_string(count));
  for (int64_t i = 0; i < count; ++i) {
    if (real)
      ir::Literal::set(data, dtype, i, fields.reals[static_cast<size_t>(i)]);
    else
      store(data, dtype, i, fields.integers[static_cast<size_t>(i)]);
  }
  return literal;
}

// The low half of a byte comes first.
ir::Literal unpack(const Tensor& tensor, DType dtype, Bytes bytes) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, tensor.dims, &data);
  const int64_t count = literal.elements();
  for (int64_t i = 0; i < count; ++i) {
    const auto both = std::to_integer<int>(bytes[static_cast<size_t>(i / 2)]);
    const int bits = i % 2 == 0 ? both & 15 : both >> 4;
    ir::Literal::set_int(data, dtype, i, dtype == DType::I8 && bits > 7 ? bits - 16 : bits);
  }
  return literal;
}

ir::Literal from_bytes(const Tensor& tensor, DType dtype, Bytes bytes,
                       const std::shared_ptr<const FileMap>& file) {
  const int64_t count = elements_of(tensor);
  const size_t expected = bytes_for(tensor, dtype, count);
  if (bytes.size() != expected)
    fail(tensor, std::to_string(bytes.size()) + " bytes", std::to_string(expected));
  if (is_packed(tensor.data_type)) return unpack(tensor, dtype, bytes);
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  if (address % dtype_size(dtype) != 0 || dtype == DType::Bool) {
    std::byte* data = nullptr;
    ir::Literal copy = ir::Literal::allocate(dtype, tensor.dims, &data);
    if (!bytes.empty()) std::memcpy(data, bytes.data(), bytes.size());
    // Any other number than 0 is true, and kept as 1.
    if (dtype == DType::Bool)
      std::transform(data, data + bytes.size(), data,
                     [](std::byte b) { return std::byte{b != std::byte{0}}; });
    return copy;
  }
  ir::Literal literal;
  literal.dtype = dtype;
  literal.shape = tensor.dims;
  literal.bytes = bytes;
  literal.owner = literal.file = file;
  return literal;
}

uint64_t external_number(const Tensor& tensor, std::string_view key, uint64_t fallback) {
  const auto found = tensor.external.find(key);
  if (found == tensor.external.end()) return fallback;
  const std::string& text = found->second;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail(tensor, "the " + std::string(key) + " \"" + text + "\" of external data", "a number");
  return value;
}

// A file below the model's folder: a model must not make us read any other.
std::filesystem::path external_path(const Tensor& tensor, const std::string& folder) {
  const auto found = tensor.external.find("location");
  const std::string location = found == tensor.external.end() ? "" : found->second;
  const std::filesystem::path path(location);
  const bool climbs = std::ranges::find(path, std::filesystem::path("..")) != path.end();
  if (location.empty() || path.is_absolute() || climbs || location.find('\0') != std::string::npos)
    fail(tensor, "external data in \"" + location + "\"",
         "a relative path within the model's folder");
  std::error_code error;
  const auto base = std::filesystem::weakly_canonical(folder.empty() ? "." : folder, error);
  const auto target = std::filesystem::weakly_canonical(base / path, error);
  if (std::mismatch(base.begin(), base.end(), target.begin(), target.end()).first != base.end())
    fail(tensor, "external data in " + target.string(), "a file within " + base.string());
  return target;
}

constexpr struct {
  int64_t data_type;
  std::optional<DType> dtype;
  const char* name;
} kDataTypes[] = {
    {0, {}, "UNDEFINED"},
    {field::kFloat, DType::F32, "FLOAT"},
    {field::kUint8, DType::U8, "UINT8"},
    {field::kInt8, DType::I8, "INT8"},
    {field::kUint16, {}, "UINT16"},
    {field::kInt16, DType::I16, "INT16"},
    {field::kInt32, DType::I32, "INT32"},
    {field::kInt64, DType::I64, "INT64"},
    {field::kString, {}, "STRING"},
    {field::kBool, DType::Bool, "BOOL"},
    {field::kFloat16, DType::F16, "FLOAT16"},
    {field::kDouble, DType::F64, "DOUBLE"},
    {field::kUint32, {}, "UINT32"},
    {field::kUint64, {}, "UINT64"},
    {14, {}, "COMPLEX64"},
    {15, {}, "COMPLEX128"},
    {field::kBfloat16, DType::BF16, "BFLOAT16"},
    {17, {}, "FLOAT8E4M3FN"},
    {18, {}, "FLOAT8E4M3FNUZ"},
    {19, {}, "FLOAT8E5M2"},
    {20, {}, "FLOAT8E5M2FNUZ"},
    {field::kUint4, {}, "UINT4"},
    {field::kInt4, {}, "INT4"},
    {23, {}, "FLOAT4E2M1"},
    {24, {}, "FLOAT8E8M0"},
    {25, {}, "UINT2"},
    {26, {}, "INT2"},
    {27, {}, "FLOAT6E2M3"},
    {28, {}, "FLOAT6E3M2"},
};

}  // namespace

bool is_packed(int64_t data_type) {
  return data_type == field::kUint4 || data_type == field::kInt4;
}

std::optional<DType> dtype_of(int64_t data_type) {
  for (const auto& row : kDataTypes)
    if (row.data_type == data_type) return row.dtype;
  return std::nullopt;
}

std::string data_type_name(int64_t data_type) {
  for (const auto& row : kDataTypes)
    if (row.data_type == data_type) return row.name;
  return "number " + std::to_string(data_type);
}

DType known_dtype(int64_t data_type, const std::string& what) {
  if (const auto dtype = dtype_of(data_type)) return *dtype;
  throw CompileError("got the type " + data_type_name(data_type) + " for " + what +
                     ", expected one that Kiln has: floats of 16, 32 and 64 bits, signed integers "
                     "of 8 to 64 bits, UINT8 or BOOL");
}

std::shared_ptr<const FileMap> TensorFiles::open(const Tensor& tensor) {
  const std::string path = external_path(tensor, folder_).string();
  if (const auto found = external_.find(path); found != external_.end()) return found->second;
  Result<FileMap> map = FileMap::open(path);
  if (map.status().code() == StatusCode::OutOfMemory) throw std::bad_alloc();
  if (!map.ok()) fail(tensor, "external data that cannot be read: " + map.status().message(), "it");
  return external_[path] = std::make_shared<const FileMap>(std::move(*map));
}

std::span<const std::byte> TensorFiles::external_bytes(const Tensor& tensor) {
  const Bytes bytes = open(tensor)->bytes();
  const uint64_t offset = external_number(tensor, "offset", 0);
  if (offset > bytes.size())
    fail(tensor, "the offset " + std::to_string(offset) + " of external data",
         "at most its size, " + std::to_string(bytes.size()));
  const uint64_t rest = bytes.size() - offset;
  const uint64_t length = external_number(tensor, "length", rest);
  if (length > rest)
    fail(tensor, std::to_string(length) + " bytes of external data at " + std::to_string(offset),
         "no more than the file has: " + std::to_string(rest));
  return bytes.subspan(offset, length);
}

ir::Literal TensorFiles::literal(const Tensor& tensor) {
  const bool packed = is_packed(tensor.data_type);
  const DType dtype = packed ? (tensor.data_type == field::kInt4 ? DType::I8 : DType::U8)
                             : known_dtype(tensor.data_type, "tensor " + tensor.name);
  const int64_t count = elements_of(tensor);
  if (tensor.is_external) {
    const auto owner = open(tensor);
    Bytes bytes = external_bytes(tensor);
    // Without a length the file's rest may be padding.
    const size_t wanted = bytes_for(tensor, dtype, count);
    if (!tensor.external.contains("length") && bytes.size() > wanted) bytes = bytes.first(wanted);
    return from_bytes(tensor, dtype, bytes, owner);
  }
  const Fields fields = read_fields(tensor);
  if (fields.raw)
    return from_bytes(tensor, dtype,
                      std::as_bytes(std::span(fields.raw->data(), fields.raw->size())), model_);
  if (packed) {
    std::vector<std::byte> bytes;
    for (const int64_t value : fields.integers) bytes.push_back(static_cast<std::byte>(value));
    return from_bytes(tensor, dtype, bytes, nullptr);
  }
  // Never more elements than the message has bytes: memory is asked for what is there.
  const size_t given = fields.reals.size() + fields.integers.size();
  if (given != static_cast<size_t>(count))
    fail(tensor, std::to_string(given) + " elements", std::to_string(count));
  return from_fields(tensor, dtype, fields);
}

}  // namespace kiln::import::onnx
