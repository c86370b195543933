// The stages of a compile, for the ways through them: compiling, the cache, refitting.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "compiler/driver.h"
#include "engine/writer.h"

namespace kiln {

// To the log and to whoever compiles.
void warn(const CompileOptions& options, const std::string& text);
void report(const CompileOptions& options, std::string_view stage, double fraction);

// A model as it is planned for one target, by the traits of its backend.
struct TargetPlan {
  TargetOptions target;
  plan::Program program;
};

// Passes over a graph up to quantise_layers.
void prepare_graph(ir::Graph& graph, const CompileOptions& options);
// Sets of inputs in the order of the graph's. A set all of whose arrays have an axis more in front than the graph's
// inputs is that many sets. CompileError, which begins with "[what] set 3: ", for what are not inputs of the
// graph, and for elements that are not finite.
std::vector<std::vector<ir::Literal>> arrange_samples(const ir::Graph& graph,
                                                      const Samples& samples, const char* what);

// Import, passes over the graph, and for each target of the options plan and passes over the plan: all
// that comes before the backends.
std::vector<TargetPlan> plan_model(const import::Model& model, const CompileOptions& options);
// The same without calibration: as the quantisation says, which was prepared.
std::vector<TargetPlan> plan_model(const import::Model& model, const CompileOptions& options,
                                   const passes::Quantisation& quantisation);
std::vector<TargetPlan> plan_graph(ir::Graph graph, const CompileOptions& options,
                                   const passes::Quantisation& quantisation = {});

// Generates code: one engine with the programs for all targets.
CompiledProgram compile_plans(const std::vector<TargetPlan>& plans, const CompileOptions& options);

// The bytes of an engine file. StatusError where they cannot be made.
std::vector<std::byte> write_engine(const engine::Spec& spec, const EngineConstants& constants,
                                    engine::Weights weights);
// What the writer takes; borrows the literals' bytes.
std::vector<engine::ProgramConstants> contents_of(const EngineConstants& constants);
// A spec with the constants of plans of the same program hashes: one for the target of each program.
std::vector<std::byte> write_refilled(const engine::Spec& spec,
                                      const std::vector<TargetPlan>& plans,
                                      const CompileOptions& options);
engine::Weights weights_of(const CompileOptions& options);

}  // namespace kiln
