#include "compiler/driver.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>

#include "backends/reference/reference.h"
#include "engine/writer.h"
#include "passes/pass.h"
#include "plan/lower.h"
#include "plan/pass.h"
#include "support/nearest.h"

namespace kiln {
namespace {

#ifdef NDEBUG
constexpr bool kAlwaysVerify = false;
#else
constexpr bool kAlwaysVerify = true;
#endif

constexpr std::string_view kGenerateCode = "generate code";

void report(const CompileOptions& options, std::string_view stage, double fraction) {
  if (options.progress) options.progress(stage, fraction);
}

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw CompileError("cannot make the folder " + path + ": " + error.message());
}

// The names of disabled passes, by the pipeline that they belong to.
struct Disabled {
  std::vector<std::string> graph, plan;
};

Disabled split_disabled(const std::vector<std::string>& disabled) {
  std::vector<std::string_view> names;
  for (const passes::PassInfo& pass : passes::all_passes()) names.push_back(pass.name);
  const auto first_plan_pass = static_cast<std::ptrdiff_t>(names.size());
  for (const plan::PassInfo& pass : plan::all_passes()) names.push_back(pass.name);

  Disabled result;
  for (const std::string& name : disabled) {
    const auto found = std::ranges::find(names, name);
    if (found == names.end())
      throw CompileError("[passes] got \"" + name +
                         "\", expected the name of a pass; the nearest is \"" +
                         std::string(nearest_name(name, names)) + "\"");
    (found - names.begin() < first_plan_pass ? result.graph : result.plan).push_back(name);
  }
  return result;
}

std::vector<ir::Literal> evaluate_constant(const ir::Node& node,
                                           std::span<const ir::Literal* const> inputs) {
  return reference::evaluate(node, inputs, [](const ir::SymbolPtr& symbol) -> int64_t {
    throw InternalError("constant folding of a node that depends on the size " + symbol->name);
  });
}

CompiledProgram compile_program(ir::Graph graph, const CompileOptions& options) {
  const bool verify = options.verify_passes || kAlwaysVerify;
  const Disabled disabled = split_disabled(options.disabled_passes);
  if (!options.dump_directory.empty()) make_folder(options.dump_directory);

  report(options, "optimise", 0.1);
  passes::PassContext context{.evaluate = evaluate_constant};
  passes::run_pipeline(graph, context, {disabled.graph, verify, options.dump_directory});

  report(options, "plan", 0.2);
  plan::Program program = plan::lower(graph);
  plan::run_pipeline(program, {disabled.plan, verify, options.dump_directory});

  report(options, kGenerateCode, 0.3);
  BackendOptions backend = options.backend;
  backend.progress = [&](double done) { report(options, kGenerateCode, 0.3 + 0.65 * done); };
  return compile_for_cpu(program, backend);
}

ir::Graph import_model(const import::Model& model, const CompileOptions& options) {
  report(options, "import", 0.0);
  return import::import_graph(model, options.ranges);
}

std::vector<std::span<const std::byte>> constant_bytes(const CompiledProgram& program) {
  std::vector<std::span<const std::byte>> bytes;
  for (const ir::Literal& literal : program.constants) bytes.push_back(literal.bytes);
  return bytes;
}

}  // namespace

std::vector<std::byte> compile(ir::Graph graph, const CompileOptions& options) {
  const CompiledProgram program = compile_program(std::move(graph), options);
  report(options, "write", 0.95);
  Result<std::vector<std::byte>> bytes = engine::write(program.spec, constant_bytes(program));
  if (!bytes.ok()) throw StatusError(bytes.status());
  report(options, "done", 1.0);
  return std::move(*bytes);
}

std::vector<std::byte> compile(const import::Model& model, const CompileOptions& options) {
  return compile(import_model(model, options), options);
}

void compile_to_file(const import::Model& model, const CompileOptions& options,
                     const std::string& path) {
  const CompiledProgram program = compile_program(import_model(model, options), options);
  report(options, "write", 0.95);
  const Status status = engine::write_file(program.spec, constant_bytes(program), path);
  if (!status.ok()) throw StatusError(status);
  report(options, "done", 1.0);
}

}  // namespace kiln
