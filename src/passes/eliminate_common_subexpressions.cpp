#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "ir/op_table.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Literal;
using ir::Node;
using ir::Value;

// Constants up to this size are compared by content, larger ones by where their bytes lie:
// comparing all weights of a model with each other would read them all for nothing.
constexpr size_t kCompareBytes = 4096;

// A node written as a string: two nodes compute the same if and only if their keys are equal.
class Key {
 public:
  explicit Key(const Node& node) {
    add(static_cast<uint64_t>(node.op));
    std::vector<uint64_t> operands;
    for (const Value* input : node.inputs) operands.push_back(input ? input->id : ~uint64_t{0});
    if (ir::is_commutative(node.op)) std::sort(operands.begin(), operands.end());
    for (uint64_t id : operands) add(id);
    for (const auto& [name, value] : node.attrs) {
      add(name);
      add(value.index());
      std::visit([this](const auto& v) { add(v); }, value);
    }
  }
  std::string take() { return std::move(text_); }

 private:
  void add(uint64_t value) { add_bytes(&value, sizeof(value)); }
  void add(int64_t value) { add(static_cast<uint64_t>(value)); }
  void add(bool value) { add(static_cast<uint64_t>(value)); }
  void add(double value) { add(std::bit_cast<uint64_t>(value)); }
  void add(DType value) { add(static_cast<uint64_t>(value)); }
  void add(const std::string& value) {
    add(static_cast<uint64_t>(value.size()));
    text_ += value;
  }
  void add(const ir::Dim& value) { add(value.str()); }  // names of symbols are unique: rule R1
  template <typename T>
  void add(const std::vector<T>& values) {
    add(static_cast<uint64_t>(values.size()));
    for (const T& value : values) add(value);
  }
  void add(const Literal& literal) {
    add(literal.dtype);
    add(literal.shape);
    if (literal.bytes.size() <= kCompareBytes && !literal.replaceable) {
      add_bytes(literal.bytes.data(), literal.bytes.size());
    } else {
      add(reinterpret_cast<uint64_t>(literal.bytes.data()));
    }
  }
  // A graph is equal to itself alone.
  void add(const std::shared_ptr<ir::Graph>& graph) {
    add(reinterpret_cast<uint64_t>(graph.get()));
  }
  void add_bytes(const void* data, size_t size) {
    if (size != 0) text_.append(static_cast<const char*>(data), size);
  }

  std::string text_;
};

}  // namespace

// op(a, b) twice -> op(a, b) once; the first in graph order stays. Holds afterwards: no two nodes
// of one op have equal operands and attributes, but for custom ones. Constants count as nodes, so equal constants become
// one.
bool eliminate_common_subexpressions(ir::Graph& graph, PassContext&) {
  std::vector<Node*> replaced;
  std::unordered_map<std::string, Node*> seen;
  for (const auto& node : graph.nodes()) {
    if (node->op == ir::Op::custom) continue;  // nobody knows what it does
    const auto [found, fresh] = seen.emplace(Key(*node).take(), node.get());
    if (fresh) continue;
    for (size_t i = 0; i < node->outputs.size(); ++i) {
      graph.replace_all_uses(node->outputs[i], found->second->outputs[i]);
    }
    replaced.push_back(node.get());
  }
  erase_replaced(graph, replaced);
  return !replaced.empty();
}

}  // namespace kiln::passes
