#include "ir/graph.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "support/error.h"

namespace kiln::ir {
namespace {

void collect_symbols(const Shape& shape, std::vector<SymbolPtr>& out) {
  for (const Dim& dim : shape) {
    for (const SymbolPtr& symbol : dim.symbols()) out.push_back(symbol);
  }
}

}  // namespace

const Attr& Node::find_attr(std::string_view name) const {
  const auto found = attrs.find(name);
  KILN_CHECK(found != attrs.end(),
             "[" + std::string(op_name(op)) + "] has no attribute " + std::string(name));
  return found->second;
}

void Node::wrong_attr_type(std::string_view name) const {
  KILN_CHECK(false, "[" + std::string(op_name(op)) + "] attribute " + std::string(name) +
                        " is of another type");
  std::abort();
}

Value* Graph::new_value(std::string name, Type type) {
  auto value = std::make_unique<Value>();
  value->id = next_id_++;
  value->name = std::move(name);
  value->type = std::move(type);
  values_.push_back(std::move(value));
  return values_.back().get();
}

Value* Graph::add_input(std::string name, Type type) {
  Value* value = new_value(unique_name(name), std::move(type));
  value->index = static_cast<uint32_t>(inputs_.size());
  inputs_.push_back(value);
  return value;
}

Node* Graph::add_node(Op op, std::vector<Value*> inputs, Attrs attrs,
                      std::vector<Type> output_types, Node* before) {
  auto owned = std::make_unique<Node>();
  Node* node = owned.get();
  node->op = op;
  node->inputs = std::move(inputs);
  for (Value* input : node->inputs)
    if (input != nullptr) input->uses_.push_back(node);
  node->attrs = std::move(attrs);
  for (Type& type : output_types) {
    Value* value = new_value(unique_name(op_name(op)), std::move(type));
    value->producer = node;
    value->index = static_cast<uint32_t>(node->outputs.size());
    node->outputs.push_back(value);
  }
  const auto place = before ? before->position_ : nodes_.end();
  node->position_ = nodes_.insert(place, std::move(owned));
  return node;
}

void Graph::set_outputs(std::vector<Value*> outputs, std::vector<std::string> names) {
  if (names.empty()) {
    for (size_t i = 0; i < outputs.size(); ++i) names.push_back("output" + std::to_string(i));
  }
  KILN_CHECK(names.size() == outputs.size(), "one name per output");
  outputs_ = std::move(outputs);
  output_names_ = std::move(names);
}

std::vector<SymbolPtr> Graph::size_symbols() const {
  std::vector<SymbolPtr> result = outer_symbols;
  for (const Value* input : inputs_) collect_symbols(input->type.shape, result);
  std::sort(result.begin(), result.end(),
            [](const SymbolPtr& a, const SymbolPtr& b) { return a->id < b->id; });
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

std::vector<SymbolPtr> Graph::data_symbols() const {
  std::vector<SymbolPtr> result;
  for (const auto& node : nodes_)
    if (node->op == Op::data_size) result.push_back(node->attr<Dim>("size").as_symbol());
  return result;
}

std::vector<SymbolPtr> Graph::known_symbols() const {
  std::vector<SymbolPtr> result = size_symbols();
  const std::vector<SymbolPtr> found = data_symbols();
  result.insert(result.end(), found.begin(), found.end());
  return result;
}

void Graph::replace_all_uses(Value* from, Value* to) {
  if (from == to) return;
  for (Node* node : from->uses_) std::ranges::replace(node->inputs, from, to);
  to->uses_.insert(to->uses_.end(), from->uses_.begin(), from->uses_.end());
  from->uses_.clear();
  std::ranges::replace(outputs_, from, to);
}

void Graph::set_input(Node* node, size_t index, Value* value) {
  forget_uses(node);
  node->inputs.at(index) = value;
  for (Value* input : node->inputs)
    if (input != nullptr) input->uses_.push_back(node);
}

// From the back: a node that goes is mostly a late one.
void Graph::forget_uses(Node* node) {
  for (Value* input : node->inputs) {
    if (input == nullptr) continue;
    const auto found = std::find(input->uses_.rbegin(), input->uses_.rend(), node);
    *found = input->uses_.back();
    input->uses_.pop_back();
  }
}

void Graph::erase(Node* node) {
  for (const Value* output : node->outputs) {
    KILN_CHECK(use_count(output) == 0, "%" + output->name + " is still used");
  }
  forget_uses(node);
  nodes_.erase(node->position_);
}

bool may_fail(const Node& node) {
  if (node.op == Op::check_index || node.op == Op::check_nonzero || node.op == Op::data_size ||
      node.op == Op::custom)
    return true;
  if (node.op != Op::repeat) return false;
  return std::ranges::any_of(node.attr<std::shared_ptr<Graph>>("body")->nodes(),
                             [](const auto& inner) { return may_fail(*inner); });
}

// Nodes that no output depends on are dead, but for checks: what they find is an error, whoever
// reads what they checked. So is a size that is out of its range.
size_t Graph::erase_dead() {
  std::set<const Node*> live;
  for (const Value* output : outputs_) live.insert(output->producer);
  for (const auto& node : nodes_) {
    if (may_fail(*node)) live.insert(node.get());
  }
  size_t count = 0;
  for (auto place = nodes_.end(); place != nodes_.begin();) {
    --place;
    if (live.contains(place->get())) {
      for (const Value* input : (*place)->inputs) {
        if (input != nullptr) live.insert(input->producer);
      }
    } else {
      forget_uses(place->get());
      place = nodes_.erase(place);
      ++count;
    }
  }
  return count;
}

size_t Graph::use_count(const Value* value) const {
  return value->uses_.size() + std::ranges::count(outputs_, value);
}

std::string Graph::unique_name(std::string_view stem) {
  if (name_counts_.emplace(stem, 0).second) return std::string(stem);
  while (true) {
    const int count = ++name_counts_.find(stem)->second;
    std::string candidate = std::string(stem) + "_" + std::to_string(count);
    if (name_counts_.emplace(candidate, 0).second) return candidate;
  }
}

void Graph::rename(Value* value, std::string_view name) {
  if (value->name == name) return;
  name_counts_.erase(value->name);
  value->name = unique_name(name);
}

}  // namespace kiln::ir
