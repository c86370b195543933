// In-place operators: values in the IR never change, so x.add_(y) gives the name x a new value.
// That is right only where nothing else sees the memory of x.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "import/program.h"

namespace kiln::import {

// "add_" of "torch.ops.aten.add_.Tensor".
std::string_view operator_name(std::string_view target);

// "aten.add.Tensor" for "aten.add_.Tensor"; nothing for a target that changes no operand.
std::optional<std::string> functional_target(std::string_view target);

// Which names of a graph may share memory.
class Aliases {
 public:
  explicit Aliases(const ProgramGraph& graph);
  // Why the in-place node at `index` cannot be imported; nothing if it can.
  std::optional<std::string> hazard(size_t index) const;

 private:
  void share(const ProgramNode& node);
  std::string root_of(std::string name) const;
  // Whether the argument sees the memory of `root` under a name from before node `index`, other
  // than the changed one.
  bool sees_old(const Argument& argument, const std::string& root, size_t index) const;

  const ProgramGraph& graph_;
  std::map<std::string, std::string, std::less<>>
      roots_;  // a view -> what it is a view of, perhaps one too
  std::map<std::string, size_t, std::less<>> made_by_;  // index of the node
};

}  // namespace kiln::import
