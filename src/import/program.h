// A torch.export program as plain data: what model.json says, decoded but not yet understood. The
// names are those of torch/_export/serde/schema.py, major version 8.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ir/graph.h"
#include "support/dtype.h"

namespace kiln::import {

struct Subgraph;

// ScalarType of torch.export, which is not that of c10.
struct ScalarType {
  int code = 0;
};
// The dtype that a code stands for; nothing for one that Kiln has no type for.
std::optional<DType> dtype_of(ScalarType type);
// What the parts of a complex type are: f32 of complex64. Nothing for a type that is not complex, and
// for complex32, which PyTorch hardly computes with itself.
std::optional<DType> part_dtype_of(ScalarType type);
// "float8_e4m3fn": the name in PyTorch, for messages.
std::string scalar_type_name(ScalarType type);

// A size: a number, or the srepr of an expression over symbols, with the value it had in the
// example.
struct SizeExpression {
  int64_t constant = 0;
  std::string expression;  // empty: a number
  std::optional<int64_t> hint;
};

struct TensorMeta {
  ScalarType dtype;
  std::vector<SizeExpression> sizes, strides;
  SizeExpression storage_offset;
};

// Refers to a tensor by name; an empty name is None.
struct TensorName {
  std::string name;
};
// Refers to a symbolic integer by name.
struct SizeName {
  std::string name;
};
// Refers to a condition on sizes by name.
struct ConditionName {
  std::string name;
};
using SizeArgument = std::variant<int64_t, SizeName>;
struct None {};
struct ComplexNumber {
  double re = 0, im = 0;
};
// Kinds that no importer asks for (device, layout, ...) or that none can use; the name is the
// schema's.
struct OtherArgument {
  std::string kind;
};

using Argument =
    std::variant<None, TensorName, std::vector<TensorName>, int64_t, SizeName, ConditionName,
                 std::vector<SizeArgument>, double, std::vector<double>, bool, std::vector<bool>,
                 std::string, ScalarType, ComplexNumber, std::shared_ptr<Subgraph>, OtherArgument>;

struct ProgramNode {
  std::string target;  // "torch.ops.aten.add.Tensor"
  std::vector<std::pair<std::string, Argument>> inputs;
  std::vector<Argument> outputs;
  ir::SourceLocation location;
  // Of import/functionalise.h: whose type the result has, whether the program has no such node, and
  // why it cannot be imported.
  std::string changes;
  bool made = false;
  std::string refusal;

  // What messages call it: its first output, or its target.
  const std::string& name() const;
  // The names of all outputs, those in lists included.
  std::vector<std::string> output_names() const;
};

struct ProgramGraph {
  std::vector<Argument> inputs, outputs;
  std::vector<ProgramNode> nodes;
  std::map<std::string, TensorMeta, std::less<>> tensor_values;
  std::map<std::string, SizeExpression, std::less<>> size_values;
  std::map<std::string, std::string, std::less<>> condition_values;  // expressions
};

// The body of a higher-order operator.
struct Subgraph {
  ProgramGraph graph;
};

enum class InputKind : uint8_t { User, Weight, Constant, Other };

struct InputSpec {
  InputKind kind = InputKind::User;
  std::string name;       // in the graph; empty for a user's None, number or string
  std::string source;     // Weight: the name in the state dict. Other: what it is
  Argument argument;      // User
  bool in_state = false;  // Weight: a parameter or buffer, and no constant of the code
};

struct OutputSpec {
  std::string kind;  // the schema's: "user_output", "buffer_mutation", ...
  Argument argument;
  std::string source;  // what is mutated
};

struct Range {
  std::optional<int64_t> min, max;  // none: unbounded
};

struct Program {
  ProgramGraph graph;
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  std::map<std::string, Range, std::less<>> ranges;             // by symbol name
  std::vector<std::string> guards;                              // import/guards.h
  std::map<std::string, std::string, std::less<>> input_paths;  // import/input_paths.h
};

// CompileError where the text is not such a program.
Program parse_program(std::string_view json);

// One entry of model_weights_config.json or model_constants_config.json.
struct WeightEntry {
  std::string name, path;
  bool pickled = false;
  std::optional<TensorMeta> meta;
};
std::vector<WeightEntry> parse_weights(std::string_view json, const std::string& what);

}  // namespace kiln::import
