// Decodes messages of the ONNX schema.
#include "import/onnx/proto.h"

#include <simdjson.h>
#include <algorithm>
#include <protozero/pbf_reader.hpp>

#include "import/onnx/fields.h"
#include "support/error.h"

namespace kiln::import::onnx {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

// Graphs in attributes of nodes in graphs.
constexpr int kMaxDepth = 32;
// Protobuf's own limit for a message.
constexpr size_t kMaxBytes = size_t{1} << 31;

// protozero looks at bounds, and takes the kind of a field for granted.
void expect_kind(const pbf_reader& reader, pbf_wire_type kind) {
  if (reader.wire_type() != kind) throw protozero::unknown_pbf_wire_type_exception();
}

std::string text_of(pbf_reader& reader) {
  expect_kind(reader, pbf_wire_type::length_delimited);
  std::string text = reader.get_string();
  if (!simdjson::validate_utf8(text.data(), text.size()) || text.find('\0') != std::string::npos)
    throw CompileError("[onnx] got text that is not UTF-8, expected a sound file");
  return text;
}

// int32, int64 and enums are written alike.
int64_t integer_of(pbf_reader& reader) {
  expect_kind(reader, pbf_wire_type::varint);
  return reader.get_int64();
}

double real_of(pbf_reader& reader) {
  expect_kind(reader, pbf_wire_type::fixed32);
  return static_cast<double>(reader.get_float());
}

pbf_reader message_of(pbf_reader& reader) {
  expect_kind(reader, pbf_wire_type::length_delimited);
  return reader.get_message();
}

// Repeated numbers: packed, or one by one.
void append_integers(pbf_reader& reader, std::vector<int64_t>& to) {
  if (reader.wire_type() != pbf_wire_type::length_delimited)
    return to.push_back(integer_of(reader));
  for (const int64_t value : reader.get_packed_int64()) to.push_back(value);
}

void append_floats(pbf_reader& reader, std::vector<double>& to) {
  if (reader.wire_type() != pbf_wire_type::length_delimited) return to.push_back(real_of(reader));
  for (const float value : reader.get_packed_float()) to.push_back(static_cast<double>(value));
}

std::string_view bytes_of(const pbf_reader& reader) {
  return {reader.data().data(), reader.data().size()};
}

Graph parse_graph(pbf_reader reader, int depth);

std::pair<std::string, std::string> parse_entry(pbf_reader reader) {
  std::pair<std::string, std::string> entry;
  while (reader.next()) {
    if (reader.tag() == field::tensor::kKey)
      entry.first = text_of(reader);
    else if (reader.tag() == field::tensor::kValue)
      entry.second = text_of(reader);
    else
      reader.skip();
  }
  return entry;
}

Tensor parse_tensor(pbf_reader reader) {
  Tensor tensor;
  tensor.message = bytes_of(reader);
  while (reader.next()) {
    switch (reader.tag()) {
      case field::tensor::kName:
        tensor.name = text_of(reader);
        break;
      case field::tensor::kDataType:
        tensor.data_type = integer_of(reader);
        break;
      case field::tensor::kDims:
        append_integers(reader, tensor.dims);
        break;
      case field::tensor::kDataLocation:
        tensor.is_external = integer_of(reader) == field::tensor::kExternal;
        break;
      case field::tensor::kExternalData:
        tensor.external.insert(parse_entry(message_of(reader)));
        break;
      default:
        reader.skip();
    }
  }
  return tensor;
}

Attribute parse_attribute(pbf_reader reader, int depth) {
  Attribute attribute;
  while (reader.next()) {
    switch (reader.tag()) {
      case field::attribute::kName:
        attribute.name = text_of(reader);
        break;
      case field::attribute::kType:
        attribute.type = integer_of(reader);
        break;
      case field::attribute::kRefAttrName:
        attribute.reference = text_of(reader);
        break;
      case field::attribute::kF:
        attribute.real = real_of(reader);
        break;
      case field::attribute::kI:
        attribute.integer = integer_of(reader);
        break;
      case field::attribute::kS:
        attribute.text = text_of(reader);
        break;
      case field::attribute::kT:
        attribute.tensor = std::make_shared<Tensor>(parse_tensor(message_of(reader)));
        break;
      case field::attribute::kG:
        attribute.graph = std::make_shared<Graph>(parse_graph(message_of(reader), depth + 1));
        break;
      case field::attribute::kFloats:
        append_floats(reader, attribute.reals);
        break;
      case field::attribute::kInts:
        append_integers(reader, attribute.integers);
        break;
      case field::attribute::kStrings:
        attribute.texts.push_back(text_of(reader));
        break;
      default:
        reader.skip();
    }
  }
  return attribute;
}

Node parse_node(pbf_reader reader, int depth) {
  Node node;
  while (reader.next()) {
    switch (reader.tag()) {
      case field::node::kInput:
        node.inputs.push_back(text_of(reader));
        break;
      case field::node::kOutput:
        node.outputs.push_back(text_of(reader));
        break;
      case field::node::kName:
        node.name = text_of(reader);
        break;
      case field::node::kOpType:
        node.op_type = text_of(reader);
        break;
      case field::node::kDomain:
        node.domain = text_of(reader);
        break;
      case field::node::kOverload:
        node.overload = text_of(reader);
        break;
      case field::node::kAttribute:
        node.attributes.push_back(parse_attribute(message_of(reader), depth));
        break;
      default:
        reader.skip();
    }
  }
  if (node.domain == "ai.onnx") node.domain.clear();
  return node;
}

Dimension parse_dimension(pbf_reader reader) {
  Dimension dimension;
  while (reader.next()) {
    if (reader.tag() == field::type::kDimValue)
      dimension.value = integer_of(reader);
    else if (reader.tag() == field::type::kDimParam)
      dimension.param = text_of(reader);
    else
      reader.skip();
  }
  return dimension;
}

std::vector<Dimension> parse_shape(pbf_reader reader) {
  std::vector<Dimension> shape;
  while (reader.next()) {
    if (reader.tag() == field::type::kDim)
      shape.push_back(parse_dimension(message_of(reader)));
    else
      reader.skip();
  }
  return shape;
}

void parse_tensor_type(pbf_reader reader, ValueInfo& info) {
  while (reader.next()) {
    if (reader.tag() == field::type::kElemType)
      info.data_type = integer_of(reader);
    else if (reader.tag() == field::type::kShape)
      info.shape = parse_shape(message_of(reader));
    else
      reader.skip();
  }
}

void parse_type(pbf_reader reader, ValueInfo& info) {
  while (reader.next()) {
    switch (reader.tag()) {
      case field::type::kTensor:
        info.kind = "tensor";
        parse_tensor_type(message_of(reader), info);
        continue;
      case field::type::kSequence:
        info.kind = "a sequence";
        break;
      case field::type::kMap:
        info.kind = "a map";
        break;
      case field::type::kSparseTensor:
        info.kind = "a sparse tensor";
        break;
      case field::type::kOptional:
        info.kind = "an optional";
        break;
      case field::type::kOpaque:
        info.kind = "an opaque type";
        break;
      default:
        break;
    }
    reader.skip();
  }
}

ValueInfo parse_value_info(pbf_reader reader) {
  ValueInfo info;
  while (reader.next()) {
    if (reader.tag() == field::value_info::kName)
      info.name = text_of(reader);
    else if (reader.tag() == field::value_info::kType)
      parse_type(message_of(reader), info);
    else
      reader.skip();
  }
  return info;
}

Graph parse_graph(pbf_reader reader, int depth) {
  if (depth > kMaxDepth)
    throw CompileError("[onnx] got graphs nested deeper than " + std::to_string(kMaxDepth) +
                       ", expected a model of ONNX");
  Graph graph;
  while (reader.next()) {
    switch (reader.tag()) {
      case field::graph::kNode:
        graph.nodes.push_back(parse_node(message_of(reader), depth));
        break;
      case field::graph::kName:
        graph.name = text_of(reader);
        break;
      case field::graph::kInitializer:
        graph.initializers.push_back(parse_tensor(message_of(reader)));
        break;
      case field::graph::kInput:
        graph.inputs.push_back(parse_value_info(message_of(reader)));
        break;
      case field::graph::kOutput:
        graph.outputs.push_back(parse_value_info(message_of(reader)));
        break;
      case field::graph::kValueInfo:
        graph.value_infos.push_back(parse_value_info(message_of(reader)));
        break;
      case field::graph::kSparseInitializer:
        graph.has_sparse_initializers = true;
        reader.skip();
        break;
      default:
        reader.skip();
    }
  }
  return graph;
}

void parse_opset(pbf_reader reader, Opsets& opsets) {
  std::string domain;
  int64_t version = 0;
  while (reader.next()) {
    if (reader.tag() == field::opset::kDomain)
      domain = text_of(reader);
    else if (reader.tag() == field::opset::kVersion)
      version = integer_of(reader);
    else
      reader.skip();
  }
  opsets[domain == "ai.onnx" ? std::string() : domain] = version;
}

Function parse_function(pbf_reader reader) {
  Function function;
  while (reader.next()) {
    switch (reader.tag()) {
      case field::function::kName:
        function.name = text_of(reader);
        break;
      case field::function::kDomain:
        function.domain = text_of(reader);
        break;
      case field::function::kOverload:
        function.overload = text_of(reader);
        break;
      case field::function::kInput:
        function.inputs.push_back(text_of(reader));
        break;
      case field::function::kOutput:
        function.outputs.push_back(text_of(reader));
        break;
      case field::function::kNode:
        function.nodes.push_back(parse_node(message_of(reader), 0));
        break;
      case field::function::kAttributeProto:
        function.defaults.push_back(parse_attribute(message_of(reader), 0));
        break;
      case field::function::kOpsetImport:
        parse_opset(message_of(reader), function.opsets);
        break;
      default:
        reader.skip();
    }
  }
  if (function.domain == "ai.onnx") function.domain.clear();
  return function;
}

ModelProto parse(pbf_reader reader) {
  ModelProto model;
  bool has_graph = false;
  while (reader.next()) {
    switch (reader.tag()) {
      case field::model::kIrVersion:
        model.ir_version = integer_of(reader);
        break;
      case field::model::kOpsetImport:
        parse_opset(message_of(reader), model.opsets);
        break;
      case field::model::kFunctions:
        model.functions.push_back(parse_function(message_of(reader)));
        break;
      case field::model::kGraph:
        model.graph = parse_graph(message_of(reader), 0);
        has_graph = true;
        break;
      default:
        reader.skip();
    }
  }
  if (!has_graph || model.opsets.empty())
    throw CompileError(
        "[onnx] got a message without a graph or opset_import, expected an ONNX model");
  return model;
}

}  // namespace

const Attribute* Node::find(std::string_view wanted) const {
  const auto found = std::ranges::find(attributes, wanted, &Attribute::name);
  return found == attributes.end() ? nullptr : &*found;
}

ModelProto parse_model(std::span<const std::byte> bytes) {
  if (bytes.size() >= kMaxBytes)
    throw CompileError("[onnx] got a file of " + std::to_string(bytes.size()) +
                       " bytes, expected less than 2 GiB (keep weights as external data)");
  try {
    return parse(pbf_reader(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  } catch (const protozero::exception& error) {
    throw CompileError(std::string("[onnx] got bytes that are no ONNX model (") + error.what() +
                       "), expected a file that onnx.save wrote, as a whole");
  }
}

}  // namespace kiln::import::onnx
