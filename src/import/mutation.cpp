#include "import/mutation.h"

#include <algorithm>

#include "import/views.h"

namespace kiln::import {
namespace {

const std::string* first_tensor(const ProgramNode& node) {
  for (const auto& [name, argument] : node.inputs) {
    if (const auto* tensor = std::get_if<TensorName>(&argument)) return &tensor->name;
  }
  return nullptr;
}

bool shares_memory(const ProgramNode& node) {
  return find_view(operator_name(node.target)) != nullptr ||
         functional_target(node.target).has_value();
}

}  // namespace

std::string_view operator_name(std::string_view target) {
  const size_t overload = target.rfind('.');
  if (overload == std::string_view::npos || overload == 0) return target;
  const size_t start = target.rfind('.', overload - 1);
  const size_t begin = start == std::string_view::npos ? 0 : start + 1;
  return target.substr(begin, overload - begin);
}

std::optional<std::string> functional_target(std::string_view target) {
  const std::string_view name = operator_name(target);
  const bool in_place = name.size() > 1 && name.ends_with('_') && !name.ends_with("__");
  if (!in_place || name == "detach_" || name == "requires_grad_") return std::nullopt;
  std::string result(target);
  result.erase(result.rfind('.') - 1, 1);
  return result;
}

Aliases::Aliases(const ProgramGraph& graph) : graph_(graph) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const ProgramNode& node = graph.nodes[i];
    for (const std::string& output : node.output_names()) made_by_[output] = i;
    if (shares_memory(node)) share(node);
  }
}

// Results share memory with the first tensor, or with all of a list.
void Aliases::share(const ProgramNode& node) {
  std::vector<std::string> names = node.output_names();
  if (const std::string* operand = first_tensor(node)) {
    names.push_back(*operand);
  } else {
    for (const auto& [name, argument] : node.inputs)
      if (const auto* list = std::get_if<std::vector<TensorName>>(&argument))
        for (const TensorName& tensor : *list) names.push_back(tensor.name);
  }
  if (names.size() == node.output_names().size()) return;
  std::string root = root_of(names.back());
  for (const std::string& name : names) {
    std::string other = root_of(name);
    if (!made_by_.contains(other)) std::swap(root, other);  // an input stays a root
    if (other != root) roots_[other] = root;
  }
}

std::string Aliases::root_of(std::string name) const {
  for (auto found = roots_.find(name); found != roots_.end(); found = roots_.find(name))
    name = found->second;
  return name;
}

// Names made by this node or later come from the new value.
bool Aliases::sees_old(const Argument& argument, const std::string& root, size_t index) const {
  const auto sees = [&](const std::string& name) {
    if (root_of(name) != root || name == *first_tensor(graph_.nodes[index])) return false;
    const auto made = made_by_.find(name);
    return made == made_by_.end() || made->second < index;
  };
  if (const auto* tensor = std::get_if<TensorName>(&argument)) return sees(tensor->name);
  if (const auto* list = std::get_if<std::vector<TensorName>>(&argument)) {
    return std::ranges::any_of(*list, [&](const TensorName& tensor) { return sees(tensor.name); });
  }
  return false;
}

std::optional<std::string> Aliases::hazard(size_t index) const {
  const std::string* operand = first_tensor(graph_.nodes[index]);
  if (operand == nullptr) return "got no operand, expected a tensor to change in place";
  const std::string root = root_of(*operand);
  if (!made_by_.contains(root)) {
    return "got a change of " + root +
           " in place, expected it among the results of the program (export it with "
           "torch.export.export(...).run_decompositions({}), which puts it there)";
  }
  const std::string expected =
      ", expected a functional graph (ExportedProgram.run_decompositions() gives one)";
  for (size_t i = index; i < graph_.nodes.size(); ++i) {
    for (const auto& [name, argument] : graph_.nodes[i].inputs) {
      if (sees_old(argument, root, index)) {
        return "got a change in place of memory that " + graph_.nodes[i].name() +
               " sees under another name" + expected;
      }
    }
  }
  for (const Argument& output : graph_.outputs) {
    if (sees_old(output, root, index)) {
      return "got a change in place of memory that is returned under another name" + expected;
    }
  }
  return std::nullopt;
}

}  // namespace kiln::import
