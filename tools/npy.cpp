#include "npy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <span>
#include <string_view>

#include "failure.h"

namespace tools {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct DTypeRow {
  kiln_dtype dtype;
  size_t size;
  const char* name;
  const char* descr;
};

constexpr std::array kDTypes = {
    DTypeRow{KILN_F32, 4, "float32", "<f4"},       DTypeRow{KILN_F64, 8, "float64", "<f8"},
    DTypeRow{KILN_F16, 2, "float16", "<f2"},       DTypeRow{KILN_BF16, 2, "bfloat16", ""},
    DTypeRow{KILN_I8, 1, "int8", "|i1"},           DTypeRow{KILN_U8, 1, "uint8", "|u1"},
    DTypeRow{KILN_I16, 2, "int16", "<i2"},         DTypeRow{KILN_I32, 4, "int32", "<i4"},
    DTypeRow{KILN_I64, 8, "int64", "<i8"},         DTypeRow{KILN_BOOL, 1, "bool", "|b1"},
    DTypeRow{KILN_F8E4M3, 1, "float8_e4m3fn", ""},
};

const DTypeRow& row_of(kiln_dtype dtype) { return kDTypes.at(static_cast<size_t>(dtype)); }

// The Python dict literal in the header: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3),
// }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string path) : text_(text), path_(std::move(path)) {}

  std::string_view descr() {
    seek("descr");
    expect('\'');
    const size_t end = text_.find('\'', at_);
    if (end == std::string_view::npos) malformed("an unfinished descr");
    return text_.substr(at_, end - at_);
  }

  bool fortran_order() {
    seek("fortran_order");
    const bool value = text_.substr(at_).starts_with("True");
    if (!value && !text_.substr(at_).starts_with("False")) malformed("a bad fortran_order");
    return value;
  }

  std::vector<int64_t> shape() {
    seek("shape");
    expect('(');
    std::vector<int64_t> sizes;
    for (skip_spaces(); peek() != ')'; skip_spaces()) {
      sizes.push_back(number());
      skip_spaces();
      if (peek() == ',') ++at_;
    }
    return sizes;
  }

 private:
  [[noreturn]] void malformed(const std::string& what) const {
    throw Failure(path_ + ": not a .npy file: its header has " + what);
  }
  char peek() const {
    if (at_ >= text_.size()) malformed("no end");
    return text_[at_];
  }
  void skip_spaces() {
    while (peek() == ' ') ++at_;
  }
  void expect(char wanted) {
    if (peek() != wanted) malformed(std::string("no ") + wanted);
    ++at_;
  }
  // Moves to the value of a key.
  void seek(std::string_view key) {
    const std::string quoted = "'" + std::string(key) + "'";
    at_ = text_.find(quoted);
    if (at_ == std::string_view::npos) malformed("no " + quoted);
    at_ += quoted.size();
    skip_spaces();
    expect(':');
    skip_spaces();
  }
  int64_t number() {
    int64_t value = 0;
    const size_t begin = at_;
    for (; std::isdigit(static_cast<unsigned char>(peek())) != 0; ++at_)
      if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
          __builtin_add_overflow(value, int64_t{text_[at_] - '0'}, &value))
        malformed("a size that overflows");
    if (at_ == begin) malformed("a bad shape");
    return value;
  }

  std::string_view text_;
  std::string path_;
  size_t at_ = 0;
};

// Where the header's text begins and how long it is.
std::pair<size_t, size_t> header_range(std::string_view bytes, const std::string& path) {
  if (bytes.size() < 10 || !bytes.starts_with(kMagic)) throw Failure(path + ": not a .npy file");
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(bytes[i])); };
  const bool version_1 = byte(6) == 1;
  const size_t begin = version_1 ? 10 : 12;
  if (bytes.size() < begin) throw Failure(path + ": truncated .npy file");
  size_t size = byte(8) | byte(9) << 8;
  if (!version_1) size |= byte(10) << 16 | byte(11) << 24;
  if (size > bytes.size() - begin) throw Failure(path + ": truncated .npy file");
  return {begin, size};
}

std::vector<int64_t> column_major_strides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides;
  int64_t stride = 1;
  for (const int64_t size : shape) {
    strides.push_back(stride);
    stride *= std::max<int64_t>(size, 1);
  }
  return strides;
}

std::vector<std::byte> widen_bfloat16(const std::vector<std::byte>& data) {
  std::vector<std::byte> wide(data.size() * 2);
  for (size_t i = 0; i < data.size(); i += 2) {
    wide[i * 2 + 2] = data[i];
    wide[i * 2 + 3] = data[i + 1];
  }
  return wide;
}

std::vector<std::byte> widen_float8(const std::vector<std::byte>& data) {
  std::vector<std::byte> wide(data.size() * sizeof(float));
  for (size_t i = 0; i < data.size(); ++i) {
    const auto code = static_cast<int>(data[i]);
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if ((code & 0x7f) == 0x7f) value = std::numeric_limits<float>::quiet_NaN();
    value = std::copysign(value, (code & 0x80) != 0 ? -1.0f : 1.0f);
    std::memcpy(wide.data() + i * sizeof(float), &value, sizeof(float));
  }
  return wide;
}

std::string shape_tuple(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += std::to_string(size) + ", ";
  return text + ")";
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw Failure("cannot open " + path);
  std::string bytes(static_cast<size_t>(file.tellg()), '\0');
  file.seekg(0);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
    throw Failure("cannot read " + path);
  return bytes;
}

size_t element_size(kiln_dtype dtype) { return row_of(dtype).size; }
const char* dtype_name(kiln_dtype dtype) { return row_of(dtype).name; }

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape)
    if (__builtin_mul_overflow(count, size, &count)) throw Failure("a shape that overflows");
  return count;
}

kiln::Tensor as_tensor(const Array& array) {
  return {array.data.data(), array.dtype, array.shape, array.strides};
}

Array read_npy(const std::string& path) { return parse_npy(read_file(path), path); }

Array parse_npy(std::string_view bytes, const std::string& path) {
  const auto [begin, size] = header_range(bytes, path);
  HeaderParser header(bytes.substr(begin, size), path);

  const std::string_view descr = header.descr();
  const auto row = std::ranges::find_if(kDTypes, [&](const DTypeRow& candidate) {
    return !descr.empty() && candidate.descr == descr;
  });
  if (row == kDTypes.end())
    throw Failure(path + ": got dtype " + std::string(descr) +
                  ", expected a little-endian number or bool");

  Array array;
  array.dtype = row->dtype;
  array.shape = header.shape();
  if (header.fortran_order()) array.strides = column_major_strides(array.shape);
  size_t wanted = 0;
  const auto count = static_cast<size_t>(element_count(array.shape));
  if (__builtin_mul_overflow(count, row->size, &wanted) || wanted != bytes.size() - begin - size)
    throw Failure(path + ": got " + std::to_string(bytes.size() - begin - size) +
                  " bytes of data, expected shape " + shape_tuple(array.shape) + " of " +
                  row->name);
  array.data.resize(wanted);
  std::memcpy(array.data.data(), bytes.data() + begin + size, wanted);
  return array;
}

void write_npy(const std::string& path, const Array& array) {
  if (array.dtype == KILN_BF16) {
    write_npy(path, {KILN_F32, array.shape, array.strides, widen_bfloat16(array.data)});
    return;
  }
  if (array.dtype == KILN_F8E4M3) {
    write_npy(path, {KILN_F32, array.shape, array.strides, widen_float8(array.data)});
    return;
  }
  std::string header = std::string("{'descr': '") + row_of(array.dtype).descr +
                       "', 'fortran_order': False, 'shape': " + shape_tuple(array.shape) + ", }";
  header.append(63 - (kMagic.size() + 4 + header.size()) % 64, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file << kMagic << '\x01' << '\0' << static_cast<char>(header.size() & 0xff)
       << static_cast<char>(header.size() >> 8) << header;
  file.write(reinterpret_cast<const char*>(array.data.data()),
             static_cast<std::streamsize>(array.data.size()));
  file.close();
  if (!file) throw Failure("cannot write " + path);
}

}  // namespace tools
