// One node of an ONNX model as its importer sees it: inputs, attributes, what is known of them, and
// the means to build.
//
// Two ways lead to the IR: the helpers of import/ops/common.h, which take `call()`, and PyTorch's
// operators by name, `aten("aten.lstm.input", ...)`, where ONNX has the same one.
#pragma once

#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "import/onnx/known.h"
#include "import/onnx/proto.h"
#include "import/onnx/tensor.h"
#include "import/ops/common.h"

namespace kiln::import::onnx {

using ir::Dim;
using ir::Shape;
using ir::Value;

// What the nodes of an import share. `known` and `packed` are about values of `graph`, as long as it is the one.
struct Context {
  ir::Graph& graph;
  ir::Builder& builder;
  KnownElements& known;
  TensorFiles& files;
  // Constants of 4 bits, whose values have an 8-bit dtype: for DequantizeLinear only.
  std::set<const Value*> packed;
};

// An argument of one of PyTorch's operators. A null value, and a null in a list, is None.
struct AtenArgument {
  std::string name;
  std::variant<Value*, std::vector<Value*>, Dim, std::vector<Dim>, std::vector<int64_t>, double,
               std::vector<double>, bool, std::string, DType>
      value;
};
using AtenArguments = std::vector<AtenArgument>;

class NodeCall {
 public:
  // `version`: of the operator set that the node's domain has here. An input that is left out is
  // null.
  NodeCall(const Node& node, int64_t version, std::vector<Value*> inputs, Context& context);
  NodeCall(const NodeCall&) = delete;
  NodeCall& operator=(const NodeCall&) = delete;

  const Node& node() const { return node_; }
  int64_t version() const { return version_; }
  Call& call() { return call_; }
  ir::Builder& builder() const { return context_.builder; }
  Context& context() const { return context_; }

  // Inputs: those that are left out are null.
  size_t input_count() const { return inputs_.size(); }
  bool has_input(size_t i) const { return i < inputs_.size() && inputs_[i] != nullptr; }
  Value* input(size_t i);
  Value* optional_input(size_t i);
  std::vector<Value*> inputs();  // all of them

  // Elements of an input that must be known now, because shapes depend on them.
  std::vector<Dim> dims(size_t i);
  std::vector<int64_t> integers(size_t i);
  std::vector<double> reals(size_t i);
  Dim dim(size_t i);
  int64_t integer(size_t i);
  // Null where they are not known.
  const Elements* known(Value* value) const { return context_.known.find(value); }

  // Attributes; what no importer has asked for is an error in the end.
  bool has(std::string_view name);
  int64_t integer(std::string_view name);
  int64_t integer_or(std::string_view name, int64_t fallback);
  bool flag_or(std::string_view name, bool fallback) { return integer_or(name, fallback) != 0; }
  double real_or(std::string_view name, double fallback);
  std::string text_or(std::string_view name, std::string fallback);
  std::vector<int64_t> integers_or(std::string_view name, std::vector<int64_t> fallback);
  std::vector<double> reals_or(std::string_view name, std::vector<double> fallback);
  std::vector<std::string> texts_or(std::string_view name, std::vector<std::string> fallback);
  const Tensor& tensor(std::string_view name);
  const Graph& graph(std::string_view name);
  // An attribute that says nothing about the result.
  void ignore(std::string_view name) { (void)has(name); }

  // A list that newer versions have as input i and older ones as an attribute; nothing if neither.
  std::optional<std::vector<int64_t>> list(size_t i, std::string_view name);

  int64_t axis(int64_t axis, size_t rank) const;
  // Sorted; CompileError for one that is given twice.
  std::vector<int64_t> axes(std::vector<int64_t> axes, size_t rank) const;

  size_t output_count() const { return node_.outputs.size(); }
  bool output_used(size_t i) const { return i < output_count() && !node_.outputs[i].empty(); }

  Value* make(ir::Op op, std::vector<Value*> inputs, ir::Attrs attrs = {}) const {
    return builder().value(op, std::move(inputs), std::move(attrs));
  }
  Expr expr(Value* value) const { return {call_, value}; }
  Expr input_expr(size_t i) { return expr(input(i)); }
  Value* integer_constant(const std::vector<int64_t>& values, DType dtype = DType::I64) const;
  Value* real_constant(DType dtype, const std::vector<double>& values,
                       std::vector<int64_t> shape) const;
  // Sizes as a vector of i64.
  Value* dims_value(const std::vector<Dim>& dims) const;

  // PyTorch's operator of that name.
  Value* aten(std::string_view target, const AtenArguments& arguments);
  // One that gives several tensors; those not `used` may be null.
  std::vector<Value*> aten_many(std::string_view target, const AtenArguments& arguments,
                                const std::vector<bool>& used);

  // CompileError "got X, expected Y"; the importer adds the node.
  [[noreturn]] void fail(const std::string& got, const std::string& expected) const {
    call_.fail(got, expected);
  }
  void expect(bool condition, const std::string& got, const std::string& expected) const {
    if (!condition) fail(got, expected);
  }
  // Attributes and inputs that the importer did not look at: it would have ignored them.
  void expect_all_read() const;

 private:
  const Attribute* find(std::string_view name, int64_t type);
  const Elements& known_input(size_t i);

  const Node& node_;
  int64_t version_;
  std::vector<Value*> inputs_;
  Context& context_;
  std::set<std::string, std::less<>> read_attributes_;
  std::vector<bool> read_inputs_;
  ProgramGraph program_;
  SymbolRanges program_ranges_;
  Symbols symbols_;
  ProgramNode program_node_;
  Scope scope_;
  Call call_;
};

// "Gelu of com.microsoft, version 1", for messages.
std::string operator_text(const Node& node, int64_t version);

}  // namespace kiln::import::onnx
