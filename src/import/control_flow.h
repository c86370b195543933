// Operators of torch.export that hold graphs: modes that wrap one, branches and loops.
//
// Both branches of a condition on data are computed and chosen between, which is right because programs have no side
// effects; where a branch may fail, or has a loop, only the one that is meant runs. Short loops of a known number of steps
// are unrolled, others repeat a graph.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "import/call.h"

namespace kiln::import {

// The results of a graph of the program for some operands, null for those that are no tensors.
// Operands are in the order of the graph's inputs, and values of the graph that the builder makes.
using ImportBody = std::function<std::vector<ir::Value*>(
    const ProgramGraph& body, const std::vector<ir::Value*>& operands, ir::Builder& builder)>;

bool is_control_flow(std::string_view target);

// The results of a node with such a target. CompileError for what an engine cannot do.
std::vector<ir::Value*> import_control_flow(Call& call, std::string_view target,
                                            const ImportBody& import_body);

// The id of the value that is made next.
uint32_t next_id(const ir::Graph& graph);

// Whether a run may end because of a value that the nodes from an id on compute.
bool adds_checks(const ir::Graph& graph, uint32_t first_id);

}  // namespace kiln::import
