// An ONNX model as plain data: the messages of the official schema that a compiler needs, decoded
// but not yet understood. Text and tensors refer to the bytes of the file, which must outlive them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kiln::import::onnx {

struct Graph;

// The elements stay in the message: see onnx/tensor.h.
struct Tensor {
  std::string name;
  int64_t data_type = 0;
  std::vector<int64_t> dims;
  std::string_view message;
  bool is_external = false;
  std::map<std::string, std::string, std::less<>> external;  // location, offset, length
};

struct Attribute {
  std::string name;
  int64_t type = 0;       // field::attribute::Type
  std::string reference;  // in a function: the attribute of its call that this one is
  double real = 0;
  int64_t integer = 0;
  std::string text;
  std::shared_ptr<const Tensor> tensor;
  std::shared_ptr<const Graph> graph;
  std::vector<double> reals;
  std::vector<int64_t> integers;
  std::vector<std::string> texts;
};

struct Node {
  std::string name, op_type, domain, overload;
  std::vector<std::string> inputs, outputs;  // empty: left out
  std::vector<Attribute> attributes;

  const Attribute* find(std::string_view name) const;
};

// A size: a number, the name of one, or nothing.
struct Dimension {
  std::optional<int64_t> value;
  std::string param;
};

struct ValueInfo {
  std::string name;
  std::string kind = "an unknown type";  // "tensor", or what it is instead
  int64_t data_type = 0;
  std::optional<std::vector<Dimension>> shape;  // nothing: not even the rank is known

  bool is_tensor() const { return kind == "tensor"; }
};

struct Graph {
  std::string name;
  std::vector<Node> nodes;
  std::vector<Tensor> initializers;
  std::vector<ValueInfo> inputs, outputs, value_infos;
  bool has_sparse_initializers = false;
};

// Versions of operator sets by domain; "" is ai.onnx.
using Opsets = std::map<std::string, int64_t, std::less<>>;

struct Function {
  std::string name, domain, overload;
  std::vector<std::string> inputs, outputs;
  std::vector<Attribute> defaults;
  std::vector<Node> nodes;
  Opsets opsets;
};

struct ModelProto {
  int64_t ir_version = 0;
  Opsets opsets;
  Graph graph;
  std::vector<Function> functions;
};

// CompileError where the bytes are not such a message.
ModelProto parse_model(std::span<const std::byte> bytes);

}  // namespace kiln::import::onnx
