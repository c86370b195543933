// The SSA graph: values, nodes and the graph that owns them.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ir/type.h"

namespace kiln::ir {

// One enumerator per row of ops.def, in its order.
enum class Op : uint16_t {
#define KILN_OP(name, ...) name,
#include "ir/ops.def"
#undef KILN_OP
};

std::string_view op_name(Op op);
std::optional<Op> op_from_name(std::string_view name);

class Graph;

// A list of Dims is a list of sizes or offsets that may be symbolic. A graph is one that the node runs, and
// belongs to it alone.
using Attr =
    std::variant<bool, int64_t, double, std::string, DType, std::vector<int64_t>,
                 std::vector<double>, Dim, std::vector<Dim>, Literal, std::shared_ptr<Graph>>;
// Ordered by name, so that every walk over it is deterministic.
using Attrs = std::map<std::string, Attr, std::less<>>;

// What has to be true of the sizes of a call besides the types of the inputs: `condition` is other
// than 0. The model asks for it, or an operator for which PyTorch raises an IndexError otherwise.
struct Requirement {
  enum class Kind : uint8_t { Sizes, Index };

  Dim condition;
  std::string expected;   // for people: "x.size(0) % 2 == 0"
  std::string operation;  // "amax"; empty: the model's own
  Kind kind = Kind::Sizes;
};

struct Node;

struct Value {
  uint32_t id = 0;
  std::string name;  // unique in the graph, as in the model where it came from one
  Type type;
  Node* producer = nullptr;  // null for a graph input
  uint32_t index = 0;        // which output of the producer, or which graph input

 private:
  friend class Graph;
  std::vector<Node*> uses_;  // one for each operand that is this value, in no order
};

// Where a node comes from in the user's model: "modeling_bert.py:84 in forward". Empty when
// unknown.
using SourceLocation = std::string;

struct Node {
  Op op = Op::constant;
  std::vector<Value*>
      inputs;  // null where an optional operand is absent; the graph alone writes them
  Attrs attrs;
  std::vector<Value*> outputs;
  SourceLocation location;

  Value* output() const { return outputs.front(); }
  Value* input(size_t i) const { return i < inputs.size() ? inputs[i] : nullptr; }
  bool has_attr(std::string_view name) const { return attrs.find(name) != attrs.end(); }
  // The attribute as T; InternalError if it is missing or of another type.
  template <typename T>
  const T& attr(std::string_view name) const {
    return get_attr<T>(name);
  }
  template <typename T>
  T attr_or(std::string_view name, T fallback) const {
    return has_attr(name) ? get_attr<T>(name) : fallback;
  }

 private:
  friend class Graph;
  const Attr& find_attr(std::string_view name) const;
  [[noreturn]] void wrong_attr_type(std::string_view name) const;
  template <typename T>
  const T& get_attr(std::string_view name) const {
    if (const T* value = std::get_if<T>(&find_attr(name))) return *value;
    wrong_attr_type(name);
  }
  std::list<std::unique_ptr<Node>>::iterator position_;  // in the graph's list
};

// Whether a run may end because of the values that the node finds: it stays, whether or not its results are used.
bool may_fail(const Node& node);

// Owns its nodes and values. Nodes are kept in a topological order (rule R3 of docs/ir.md).
class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  Graph(Graph&&) = default;
  Graph& operator=(Graph&&) = default;

  std::string name = "main";
  std::vector<Requirement> requirements;  // passes leave them alone
  // Outputs that are what an input is to be after a run: the input's position by the output's. They
  // are written to its memory. Passes leave them alone.
  std::map<size_t, size_t> updates;
  // Of a graph that a node runs: the sizes of the graph around it, which it may mention.
  std::vector<SymbolPtr> outer_symbols;

  Value* add_input(std::string name, Type type);
  // Appends a node, or inserts it before `before`. Output types are given by the caller: see
  // ir/builder.h for inference.
  Node* add_node(Op op, std::vector<Value*> inputs, Attrs attrs, std::vector<Type> output_types,
                 Node* before = nullptr);
  void set_outputs(std::vector<Value*> outputs, std::vector<std::string> names = {});

  const std::vector<Value*>& inputs() const { return inputs_; }
  const std::vector<Value*>& outputs() const { return outputs_; }
  const std::vector<std::string>& output_names() const { return output_names_; }
  const std::list<std::unique_ptr<Node>>& nodes() const { return nodes_; }

  // Size symbols of the graph's inputs, and those around it, in order of creation.
  std::vector<SymbolPtr> size_symbols() const;
  // Those that are found in the data, by data_size nodes, in graph order.
  std::vector<SymbolPtr> data_symbols() const;
  // Both: what a graph of the next node may mention.
  std::vector<SymbolPtr> known_symbols() const;

  // Redirects every use of `from`, graph outputs included.
  void replace_all_uses(Value* from, Value* to);
  // Redirects one operand of a node.
  void set_input(Node* node, size_t index, Value* value);
  // Removes a node without users; InternalError if an output is still used.
  void erase(Node* node);
  // Removes every node that no graph output depends on; returns how many.
  size_t erase_dead();
  // How many operands and graph outputs refer to the value.
  size_t use_count(const Value* value) const;
  // The nodes that use the value, one for each operand that is the value, in no order. Valid until uses change.
  const std::vector<Node*>& users(const Value* value) const { return value->uses_; }
  std::string unique_name(std::string_view stem);
  // Gives the value another name, made unique.
  void rename(Value* value, std::string_view name);

 private:
  Value* new_value(std::string name, Type type);
  void forget_uses(Node* node);

  std::vector<std::unique_ptr<Value>> values_;
  std::list<std::unique_ptr<Node>> nodes_;
  std::vector<Value*> inputs_, outputs_;
  std::vector<std::string> output_names_;
  std::map<std::string, int, std::less<>> name_counts_;
  uint32_t next_id_ = 0;
};

}  // namespace kiln::ir
