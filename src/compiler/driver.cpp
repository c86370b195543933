#include "compiler/driver.h"

#include "compiler/cached_compile.h"
#include "compiler/stages.h"
#include "support/atomic_file.h"

namespace kiln {
namespace {

std::vector<std::byte> compile_planned(std::vector<TargetPlan> plans,
                                       const CompileOptions& options) {
  const CompiledProgram compiled = compile_plans(plans, options);
  report(options, "write", 0.95);
  return write_engine(compiled.spec, compiled.constants, weights_of(options));
}

Status try_to_write(std::span<const std::byte> bytes, const std::string& path) {
  Result<AtomicFile> file = AtomicFile::create(path);
  if (!file.ok()) return file.status();
  KILN_RETURN_IF_ERROR(file->write_at(0, bytes));
  return file->commit();
}

void compile_and_stream(const import::Model& model, const CompileOptions& options,
                        const std::string& path) {
  const CompiledProgram compiled = compile_plans(plan_model(model, options), options);
  report(options, "write", 0.95);
  const Status status =
      engine::write_file(compiled.spec, contents_of(compiled.constants), path, weights_of(options));
  if (!status.ok()) throw StatusError(status);
}

}  // namespace

std::vector<std::byte> compile(ir::Graph graph, const CompileOptions& options) {
  std::vector<std::byte> bytes = compile_planned(plan_graph(std::move(graph), options), options);
  report(options, "done", 1.0);
  return bytes;
}

std::vector<std::byte> compile(const import::Model& model, const CompileOptions& options) {
  std::vector<std::byte> bytes = options.cache.directory.empty()
                                     ? compile_planned(plan_model(model, options), options)
                                     : compile_cached(model, options);
  report(options, "done", 1.0);
  return bytes;
}

void write_bytes(std::span<const std::byte> bytes, const std::string& path) {
  if (const Status status = try_to_write(bytes, path); !status.ok()) throw StatusError(status);
}

void compile_to_file(const import::Model& model, const CompileOptions& options,
                     const std::string& path) {
  if (options.cache.directory.empty())
    compile_and_stream(model, options, path);
  else
    write_bytes(compile_cached(model, options), path);
  report(options, "done", 1.0);
}

}  // namespace kiln
