// Walks the nodes of a program and builds the graph.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "import/equal_sizes.h"
#include "import/import.h"
#include "import/model.h"
#include "import/mutation.h"
#include "import/registry.h"
#include "import/scope.h"

namespace kiln::import {

// The sizes that the symbols of the program stand for: read off the inputs' shapes, ranges
// overridden by the caller.
Symbols make_symbols(const Program& program, std::span<const DimRange> ranges);

class Importer {
 public:
  Importer(const LoadedModel& model, std::span<const DimRange> ranges,
           bool replaceable_weights = false, EqualSizes equal = {});

  ir::Graph import_graph();
  std::vector<NodeSupport> check_support();

 private:
  void check_inputs() const;
  void bind_inputs(Scope& scope);
  void bind_weight(Scope& scope, const InputSpec& spec);
  void bind_updated(Scope& scope);
  void add_guards(const Scope& scope);
  void import_nodes(Scope& scope, const Aliases& aliases);
  void import_node(Scope& scope, const Aliases& aliases, size_t index);
  // `changed` is the name of the operand, whose type the result has.
  void import_in_place(Call& call, const Row& row, const std::string& changed);
  std::vector<ir::Value*> import_body(const Scope& outer, const ProgramGraph& body,
                                      const std::vector<ir::Value*>& operands,
                                      ir::Builder& builder);
  void import_control(Call& call, std::string_view target);
  void set_outputs(Scope& scope);
  ir::Value* output_value(Scope& scope, const OutputSpec& spec, size_t index);
  // The importer of one node failed: its outputs become inputs, so that later nodes can be checked.
  void substitute_outputs(Scope& scope, const ProgramNode& node);

  const LoadedModel& model_;
  const bool replaceable_weights_;
  const EqualSizes equal_;
  Symbols symbols_;
  ir::Graph graph_;
  ir::Builder builder_;
};

}  // namespace kiln::import
