// Operators of torch.export that hold graphs: modes that wrap one, branches, and loops of a known number of steps.
//
// An engine computes everything it has, in order. So both branches of a condition on data are computed and chosen between,
// which is right because programs have no side effects, and loops are unrolled.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "import/call.h"

namespace kiln::import {

// The results of a graph of the program for some operands, null for those that are no tensors.
// Operands are in the order of the graph's inputs.
using ImportBody = std::function<std::vector<ir::Value*>(const ProgramGraph& body,
                                                         const std::vector<ir::Value*>& operands)>;

bool is_control_flow(std::string_view target);

// The results of a node with such a target. CompileError for what an engine cannot do.
std::vector<ir::Value*> import_control_flow(Call& call, std::string_view target, ir::Graph& graph,
                                            const ImportBody& import_body);

// The id of the value that is made next.
uint32_t next_id(const ir::Graph& graph);

// Whether a run may end because of a value that the nodes from an id on compute.
bool adds_checks(const ir::Graph& graph, uint32_t first_id);

}  // namespace kiln::import
