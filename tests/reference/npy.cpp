#include "reference/npy.h"

#include <array>
#include <cstring>
#include <fstream>
#include <sstream>

#include "support/error.h"

namespace kiln::test {
namespace {

struct Row {
  const char* descr;
  DType dtype;
};

constexpr std::array<Row, 10> kDescriptions{{{"<f4", DType::F32},
                                             {"<f8", DType::F64},
                                             {"<f2", DType::F16},
                                             {"<u2", DType::BF16},
                                             {"|i1", DType::I8},
                                             {"|u1", DType::U8},
                                             {"<i2", DType::I16},
                                             {"<i4", DType::I32},
                                             {"<i8", DType::I64},
                                             {"|b1", DType::Bool}}};

constexpr size_t kPreamble = 10;  // magic, version, 16-bit header length

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw CompileError("cannot read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

DType parse_dtype(const std::string& header, const std::string& path) {
  for (const Row& row : kDescriptions) {
    if (header.find("'" + std::string(row.descr) + "'") != std::string::npos) return row.dtype;
  }
  throw CompileError(path + " has another dtype: " + header);
}

// "'shape': (2, 3), "
std::vector<int64_t> parse_shape(const std::string& header) {
  std::vector<int64_t> shape;
  const size_t open = header.find('(');
  std::istringstream list(header.substr(open + 1, header.find(')', open) - open - 1));
  for (std::string item; std::getline(list, item, ',');) {
    if (item.find_first_of("0123456789") != std::string::npos) shape.push_back(std::stoll(item));
  }
  return shape;
}

}  // namespace

ir::Literal read_npy(const std::string& path) {
  const std::string file = read_file(path);
  if (file.size() < kPreamble || !file.starts_with("\x93NUMPY"))
    throw CompileError(path + " is no .npy file");
  uint16_t length = 0;
  std::memcpy(&length, file.data() + 8, sizeof(length));
  const std::string header = file.substr(kPreamble, length);
  std::byte* data = nullptr;
  ir::Literal literal =
      ir::Literal::allocate(parse_dtype(header, path), parse_shape(header), &data);
  const size_t start = kPreamble + length;
  if (file.size() - start < literal.bytes.size()) throw CompileError(path + " is too short");
  std::memcpy(data, file.data() + start, literal.bytes.size());
  return literal;
}

void write_npy(const std::string& path, const ir::Literal& literal) {
  std::string descr;
  for (const Row& row : kDescriptions) {
    if (row.dtype == literal.dtype) descr = row.descr;
  }
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (";
  for (int64_t size : literal.shape) header += std::to_string(size) + ", ";
  header += "), }";
  header.append(63 - (kPreamble + header.size()) % 64, ' ');
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8);
  file.write(reinterpret_cast<const char*>(&length), sizeof(length));
  file << header;
  file.write(reinterpret_cast<const char*>(literal.bytes.data()),
             static_cast<std::streamsize>(literal.bytes.size()));
  if (!file) throw CompileError("cannot write " + path);
}

}  // namespace kiln::test
