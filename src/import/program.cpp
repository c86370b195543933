// The JSON schema: one function per structure of it.
#include "import/program.h"

#include <algorithm>
#include <array>

#include "import/input_paths.h"
#include "import/json.h"
#include "support/error.h"

namespace kiln::import {
namespace {

constexpr int64_t kSchemaMajor = 8;
constexpr int kMaxGraphDepth = 8;

ProgramGraph read_graph(JsonElement element, int depth);

SizeExpression read_size(JsonElement element) {
  const auto [tag, value] = json_union(element, "size");
  SizeExpression result;
  if (tag == "as_int") {
    result.constant = json_integer(value, tag);
    return result;
  }
  if (tag != "as_expr")
    throw CompileError("[model] got a size " + std::string(tag) + ", expected as_int or as_expr");
  result.expression = json_string_member(value, "expr_str");
  if (const auto hint = json_find(value, "hint")) {
    const auto [kind, number] = json_union(*hint, "hint");
    if (kind == "as_int") result.hint = json_integer(number, kind);
  }
  return result;
}

std::vector<SizeExpression> read_sizes(JsonElement element, std::string_view key) {
  std::vector<SizeExpression> result;
  for (const JsonElement size : json_array(json_member(element, key), key)) {
    result.push_back(read_size(size));
  }
  return result;
}

TensorMeta read_tensor_meta(JsonElement element) {
  TensorMeta result;
  result.dtype.code = static_cast<int>(json_integer_member(element, "dtype"));
  result.sizes = read_sizes(element, "sizes");
  result.strides = read_sizes(element, "strides");
  result.storage_offset = read_size(json_member(element, "storage_offset"));
  return result;
}

TensorName read_tensor_name(JsonElement element) { return {json_string_member(element, "name")}; }

TensorName read_optional_tensor(JsonElement element) {
  const auto [tag, value] = json_union(element, "optional tensor");
  return tag == "as_tensor" ? read_tensor_name(value) : TensorName{};
}

SizeArgument read_size_argument(JsonElement element) {
  const auto [tag, value] = json_union(element, "size argument");
  if (tag == "as_int") return json_integer(value, tag);
  return SizeName{json_string(value, tag)};
}

template <typename T, typename Read>
std::vector<T> read_list(JsonElement element, std::string_view key, const Read& read) {
  std::vector<T> result;
  for (const JsonElement item : json_array(element, key)) result.push_back(read(item));
  return result;
}

Argument read_scalar(std::string_view tag, JsonElement value) {
  if (tag == "as_int") return json_integer(value, tag);
  if (tag == "as_float") return json_number(value, tag);
  if (tag == "as_bool") return json_boolean(value, tag);
  if (tag == "as_string") return json_string(value, tag);
  if (tag == "as_complex")
    return ComplexNumber{json_number(json_member(value, "real"), "real"),
                         json_number(json_member(value, "imag"), "imag")};
  if (tag == "as_scalar_type") return ScalarType{static_cast<int>(json_integer(value, tag))};
  return OtherArgument{std::string(tag)};
}

Argument read_symbolic(std::string_view tag, JsonElement value) {
  const auto [kind, inner] = json_union(value, tag);
  if (kind == "as_name") {
    if (tag == "as_sym_int") return SizeName{json_string(inner, kind)};
    if (tag == "as_sym_bool") return ConditionName{json_string(inner, kind)};
    return OtherArgument{std::string(tag)};
  }
  return read_scalar(kind, inner);
}

Argument read_sequence(std::string_view tag, JsonElement value) {
  if (tag == "as_tensors") return read_list<TensorName>(value, tag, read_tensor_name);
  if (tag == "as_optional_tensors") return read_list<TensorName>(value, tag, read_optional_tensor);
  if (tag == "as_ints") {
    return read_list<SizeArgument>(value, tag,
                                   [](JsonElement item) { return json_integer(item, "as_ints"); });
  }
  if (tag == "as_sym_ints") return read_list<SizeArgument>(value, tag, read_size_argument);
  if (tag == "as_floats") {
    return read_list<double>(value, tag,
                             [](JsonElement item) { return json_number(item, "as_floats"); });
  }
  if (tag == "as_bools") {
    return read_list<bool>(value, tag,
                           [](JsonElement item) { return json_boolean(item, "as_bools"); });
  }
  return read_scalar(tag, value);
}

Argument read_argument(JsonElement element, int depth) {
  const auto [tag, value] = json_union(element, "argument");
  if (tag == "as_none") return None{};
  if (tag == "as_tensor") return read_tensor_name(value);
  if (tag == "as_optional_tensor") {
    const TensorName name = read_optional_tensor(value);
    return name.name.empty() ? Argument(None{}) : Argument(name);
  }
  if (tag == "as_sym_int" || tag == "as_sym_float" || tag == "as_sym_bool") {
    return read_symbolic(tag, value);
  }
  if (tag == "as_graph") {
    auto subgraph = std::make_shared<Subgraph>();
    subgraph->graph = read_graph(json_member(value, "graph"), depth + 1);
    return subgraph;
  }
  return read_sequence(tag, value);
}

// The innermost frame of a Python stack trace: "modeling_bert.py:84 in forward".
ir::SourceLocation location_of(std::string_view trace) {
  const size_t start = trace.rfind("File \"");
  if (start == std::string_view::npos) return {};
  const std::string_view frame = trace.substr(start + 6, trace.find('\n', start) - start - 6);
  const size_t quote = frame.find('"'), line = frame.find(", line ");
  if (quote == std::string_view::npos || line == std::string_view::npos) return {};
  const std::string_view path = frame.substr(0, quote);
  std::string result(path.substr(path.rfind('/') + 1));
  const std::string_view rest = frame.substr(line + 7);
  const size_t comma = rest.find(',');
  result += ":" + std::string(rest.substr(0, comma));
  if (comma != std::string_view::npos) result += std::string(rest.substr(comma + 1));
  return result;
}

ProgramNode read_node(JsonElement element, int depth) {
  ProgramNode result;
  result.target = json_string_member(element, "target");
  for (const JsonElement input : json_array(json_member(element, "inputs"), "inputs")) {
    result.inputs.emplace_back(json_string_member(input, "name"),
                               read_argument(json_member(input, "arg"), depth));
  }
  for (const JsonElement output : json_array(json_member(element, "outputs"), "outputs")) {
    result.outputs.push_back(read_argument(output, depth));
  }
  if (const auto metadata = json_find(element, "metadata")) {
    if (const auto trace = json_find(*metadata, "stack_trace")) {
      result.location = location_of(json_string(*trace, "stack_trace"));
    }
  }
  return result;
}

ProgramGraph read_graph(JsonElement element, int depth) {
  if (depth > kMaxGraphDepth)
    throw CompileError("[model] got graphs nested too deeply, expected at most 8 levels");
  ProgramGraph result;
  const auto arguments = [&](std::string_view key) {
    return read_list<Argument>(json_member(element, key), key,
                               [&](JsonElement item) { return read_argument(item, depth); });
  };
  result.inputs = arguments("inputs");
  result.outputs = arguments("outputs");
  result.nodes = read_list<ProgramNode>(json_member(element, "nodes"), "nodes",
                                        [&](JsonElement item) { return read_node(item, depth); });
  for (const auto field : json_object(json_member(element, "tensor_values"), "tensor_values")) {
    result.tensor_values.emplace(field.key, read_tensor_meta(field.value));
  }
  for (const auto field : json_object(json_member(element, "sym_int_values"), "sym_int_values")) {
    result.size_values.emplace(field.key, read_size(field.value));
  }
  if (const auto conditions = json_find(element, "sym_bool_values")) {
    for (const auto field : json_object(*conditions, "sym_bool_values")) {
      const auto [tag, value] = json_union(field.value, "condition");
      if (tag == "as_expr")
        result.condition_values.emplace(field.key, json_string_member(value, "expr_str"));
    }
  }
  return result;
}

std::string argument_name(const Argument& argument) {
  if (const auto* tensor = std::get_if<TensorName>(&argument)) return tensor->name;
  if (const auto* size = std::get_if<SizeName>(&argument)) return size->name;
  return {};
}

InputSpec read_weight_spec(JsonElement value, std::string_view source_key) {
  return {InputKind::Weight,
          json_string_member(json_member(value, "arg"), "name"),
          json_string_member(value, source_key),
          {},
          source_key != "tensor_constant_name"};
}

InputSpec read_input_spec(JsonElement element) {
  const auto [tag, value] = json_union(element, "input_specs");
  if (tag == "parameter") return read_weight_spec(value, "parameter_name");
  if (tag == "buffer") return read_weight_spec(value, "buffer_name");
  if (tag == "tensor_constant") return read_weight_spec(value, "tensor_constant_name");
  if (tag == "constant_input")
    return {InputKind::Constant, json_string_member(value, "name"), "", {}, false};
  if (tag != "user_input") return {InputKind::Other, "", std::string(tag), {}, false};
  InputSpec result;
  result.argument = read_argument(json_member(value, "arg"), 0);
  result.name = argument_name(result.argument);
  return result;
}

OutputSpec read_output_spec(JsonElement element) {
  const auto [tag, value] = json_union(element, "output_specs");
  OutputSpec result;
  result.kind = tag;
  const JsonElement argument = json_member(value, "arg");
  if (tag == "user_output") {
    result.argument = read_argument(argument, 0);
  } else {
    result.argument = read_tensor_name(argument);
  }
  for (const std::string_view key : {"buffer_name", "parameter_name", "user_input_name"}) {
    if (const auto source = json_find(value, key)) result.source = json_string(*source, key);
  }
  return result;
}

std::optional<int64_t> read_bound(JsonElement element, std::string_view key) {
  // Infinity is written as null.
  const auto value = json_find(element, key);
  return value ? std::optional(json_integer(*value, key)) : std::nullopt;
}

// The names of the user's inputs; empty for what is no tensor.
std::vector<std::string> tensor_inputs(const std::vector<InputSpec>& inputs) {
  std::vector<std::string> names;
  for (const InputSpec& input : inputs) {
    const bool is_tensor = std::holds_alternative<TensorName>(input.argument);
    if (input.kind == InputKind::User) names.push_back(is_tensor ? input.name : std::string());
    if (input.kind == InputKind::Constant) names.emplace_back();
  }
  return names;
}

void check_version(JsonElement root) {
  const JsonElement version = json_member(root, "schema_version");
  const int64_t major = json_integer_member(version, "major");
  if (major == kSchemaMajor) return;
  throw CompileError("[model] got schema version " + std::to_string(major) + ", expected " +
                     std::to_string(kSchemaMajor) + " (torch 2.11 or newer)");
}

struct ScalarTypeRow {
  int code;
  std::string_view name;
  std::optional<DType> dtype;
  std::optional<DType> part = std::nullopt;  // of a complex type
};

constexpr std::array<ScalarTypeRow, 21> kScalarTypes{{
    {1, "uint8", DType::U8},
    {2, "int8", DType::I8},
    {3, "int16", DType::I16},
    {4, "int32", DType::I32},
    {5, "int64", DType::I64},
    {6, "float16", DType::F16},
    {7, "float32", DType::F32},
    {8, "float64", DType::F64},
    {9, "complex32", std::nullopt},
    {10, "complex64", std::nullopt, DType::F32},
    {11, "complex128", std::nullopt, DType::F64},
    {12, "bool", DType::Bool},
    {13, "bfloat16", DType::BF16},
    {28, "uint16", std::nullopt},
    {29, "float8_e4m3fn", DType::F8E4M3},
    {30, "float8_e5m2", std::nullopt},
    {31, "float8_e4m3fnuz", std::nullopt},
    {32, "float8_e5m2fnuz", std::nullopt},
    {33, "float8_e8m0fnu", std::nullopt},
    {34, "uint32", std::nullopt},
    {35, "uint64", std::nullopt},
}};

const ScalarTypeRow* find_scalar_type(ScalarType type) {
  const auto* row = std::ranges::find(kScalarTypes, type.code, &ScalarTypeRow::code);
  return row == kScalarTypes.end() ? nullptr : row;
}

}  // namespace

std::optional<DType> dtype_of(ScalarType type) {
  const ScalarTypeRow* row = find_scalar_type(type);
  return row == nullptr ? std::nullopt : row->dtype;
}

std::optional<DType> part_dtype_of(ScalarType type) {
  const ScalarTypeRow* row = find_scalar_type(type);
  return row == nullptr ? std::nullopt : row->part;
}

std::string scalar_type_name(ScalarType type) {
  const ScalarTypeRow* row = find_scalar_type(type);
  return row == nullptr ? "scalar type " + std::to_string(type.code) : std::string(row->name);
}

const std::string& ProgramNode::name() const {
  for (const Argument& output : outputs) {
    if (const auto* tensor = std::get_if<TensorName>(&output)) return tensor->name;
    if (const auto* size = std::get_if<SizeName>(&output)) return size->name;
    if (const auto* list = std::get_if<std::vector<TensorName>>(&output)) {
      if (!list->empty()) return list->front().name;
    }
  }
  return target;
}

std::vector<std::string> ProgramNode::output_names() const {
  std::vector<std::string> result;
  for (const Argument& output : outputs) {
    if (const auto* list = std::get_if<std::vector<TensorName>>(&output)) {
      for (const TensorName& tensor : *list) result.push_back(tensor.name);
    } else {
      result.push_back(argument_name(output));
    }
  }
  return result;
}

Program parse_program(std::string_view json) {
  const JsonDocument document(json, "model.json");
  check_version(document.root());
  const JsonElement module = json_member(document.root(), "graph_module");
  Program result;
  result.graph = read_graph(json_member(module, "graph"), 0);
  const JsonElement signature = json_member(module, "signature");
  result.inputs =
      read_list<InputSpec>(json_member(signature, "input_specs"), "input_specs", read_input_spec);
  result.outputs = read_list<OutputSpec>(json_member(signature, "output_specs"), "output_specs",
                                         read_output_spec);
  const JsonElement ranges = json_member(document.root(), "range_constraints");
  for (const auto field : json_object(ranges, "range_constraints")) {
    result.ranges.emplace(
        field.key, Range{read_bound(field.value, "min_val"), read_bound(field.value, "max_val")});
  }
  if (const auto guards = json_find(document.root(), "guards_code")) {
    result.guards = read_list<std::string>(*guards, "guards_code", [](JsonElement guard) {
      return json_string(guard, "guards_code");
    });
  }
  if (const auto calls = json_find(module, "module_call_graph"))
    result.input_paths = read_input_paths(*calls, tensor_inputs(result.inputs));
  return result;
}

std::vector<WeightEntry> parse_weights(std::string_view json, const std::string& what) {
  const JsonDocument document(json, what);
  std::vector<WeightEntry> result;
  for (const auto field : json_object(json_member(document.root(), "config"), "config")) {
    WeightEntry entry;
    entry.name = field.key;
    entry.path = json_string_member(field.value, "path_name");
    if (const auto pickled = json_find(field.value, "use_pickle")) {
      entry.pickled = json_boolean(*pickled, "use_pickle");
    }
    if (const auto meta = json_find(field.value, "tensor_meta"))
      entry.meta = read_tensor_meta(*meta);
    result.push_back(std::move(entry));
  }
  return result;
}

}  // namespace kiln::import
