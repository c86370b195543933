// The stages of a compile, for the ways through them: compiling, the cache, refitting.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "compiler/driver.h"
#include "engine/writer.h"

namespace kiln {

void report(const CompileOptions& options, std::string_view stage, double fraction);

// Import, passes over the graph, plan, passes over the plan: all that comes before the backend.
plan::Program plan_model(const import::Model& model, const CompileOptions& options);
plan::Program plan_graph(ir::Graph graph, const CompileOptions& options);

// Generates code.
CompiledProgram compile_program(const plan::Program& program, const CompileOptions& options);

// The bytes of an engine file. StatusError where they cannot be made.
std::vector<std::byte> write_engine(const engine::Spec& spec, const EngineConstants& constants,
                                    engine::Weights weights);
// What the writer takes; borrows the literals' bytes.
std::vector<engine::ProgramConstants> contents_of(const EngineConstants& constants);
// A spec with the constants of a program of the same program hash.
std::vector<std::byte> write_refilled(const engine::Spec& spec, const plan::Program& program,
                                      const CompileOptions& options);
engine::Weights weights_of(const CompileOptions& options);

}  // namespace kiln
