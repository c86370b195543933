#include "import/mutation.h"

#include <algorithm>
#include <array>

namespace kiln::import {
namespace {

// Operators whose result may share memory with their first operand; copies at times, which is no
// harm here.
constexpr std::array<std::string_view, 44> kViews{"alias",
                                                  "broadcast_to",
                                                  "chunk",
                                                  "conj",
                                                  "contiguous",
                                                  "detach",
                                                  "detach_",
                                                  "diagonal",
                                                  "dropout",
                                                  "expand",
                                                  "expand_as",
                                                  "feature_dropout",
                                                  "flatten",
                                                  "lift_fresh",
                                                  "mT",
                                                  "movedim",
                                                  "moveaxis",
                                                  "narrow",
                                                  "numpy_T",
                                                  "permute",
                                                  "positive",
                                                  "real",
                                                  "reshape",
                                                  "reshape_as",
                                                  "resolve_conj",
                                                  "select",
                                                  "slice",
                                                  "split",
                                                  "split_with_sizes",
                                                  "squeeze",
                                                  "swapaxes",
                                                  "swapdims",
                                                  "t",
                                                  "tensor_split",
                                                  "to",
                                                  "transpose",
                                                  "unbind",
                                                  "unflatten",
                                                  "unfold",
                                                  "unsqueeze",
                                                  "view",
                                                  "view_as",
                                                  "requires_grad_",
                                                  "resolve_neg"};

const std::string* first_tensor(const ProgramNode& node) {
  for (const auto& [name, argument] : node.inputs) {
    if (const auto* tensor = std::get_if<TensorName>(&argument)) return &tensor->name;
  }
  return nullptr;
}

bool shares_memory(const ProgramNode& node) {
  const std::string_view name = operator_name(node.target);
  return std::ranges::find(kViews, name) != kViews.end() ||
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
    const std::string* operand = first_tensor(node);
    for (const std::string& output : node.output_names()) {
      made_by_[output] = i;
      if (operand != nullptr && shares_memory(node)) roots_[output] = root_of(*operand);
    }
  }
}

const std::string& Aliases::root_of(const std::string& name) const {
  const auto found = roots_.find(name);
  return found == roots_.end() ? name : found->second;
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
  const std::string& root = root_of(*operand);
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
