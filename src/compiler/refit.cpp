#include "compiler/refit.h"

#include <algorithm>

#include "backends/common/program_hash.h"
#include "compiler/stages.h"
#include "engine/reader.h"
#include "import/import.h"

namespace kiln {
namespace {

using engine::Spec;

std::optional<int64_t> constant_size(const Spec& spec, engine::Slot slot) {
  const engine::SizeInstruction& size = spec.sizes[static_cast<size_t>(slot)];
  if (size.op != engine::SizeOp::Constant) return std::nullopt;
  return size.immediate;
}

// The ranges with which the engine was compiled, as its inputs show them. Fixed sizes and those
// that are computed from others need none: where they differ, so does the plan.
std::vector<import::DimRange> ranges_of(const Spec& spec, const import::Model& model) {
  std::vector<import::DimRange> ranges;
  for (const engine::SymbolSpec& symbol : spec.symbols)
    ranges.push_back({spec.inputs[static_cast<size_t>(symbol.input)].name, symbol.dim,
                      symbol.size_at(symbol.min), symbol.size_at(symbol.opt),
                      symbol.size_at(symbol.max)});
  for (const engine::TensorSpec& input : spec.inputs) {
    for (size_t dim = 0; dim < input.shape.size(); ++dim) {
      if (const auto size = constant_size(spec, input.shape[dim]))
        ranges.push_back({input.name, static_cast<int32_t>(dim), *size, *size, *size});
    }
  }
  std::erase_if(ranges, [&](const import::DimRange& range) {
    return !model.is_dynamic(range.input, range.dim);
  });
  return ranges;
}

// "x: f32 of rank 2"; sizes show in the kernels.
std::string tensors_text(const std::vector<engine::TensorSpec>& tensors) {
  std::string text;
  for (const engine::TensorSpec& tensor : tensors)
    text += (text.empty() ? "" : ", ") + tensor.name + ": " +
            std::string(dtype_name(tensor.dtype)) + " of rank " +
            std::to_string(tensor.shape.size());
  return text;
}

std::string tensors_text(const plan::Program& program, const std::vector<plan::BufferId>& ids) {
  std::vector<engine::TensorSpec> tensors;
  for (const plan::BufferId id : ids) {
    const plan::Buffer& buffer = program.buffers[static_cast<size_t>(id)];
    tensors.push_back(
        {buffer.name, buffer.type.dtype, std::vector<engine::Slot>(buffer.type.rank())});
  }
  return tensors_text(tensors);
}

std::string kernel_text(const plan::Kernel& kernel) {
  std::string sources;
  for (const std::string& source : kernel.sources)
    sources += (sources.empty() ? "" : ", ") + source;
  return kernel.name + " (" + sources + ")";
}

// What differs from one of the engine's programs, as far as the engine tells.
std::string difference(const Spec& spec, const engine::ProgramSpec& made,
                       const plan::Program& program) {
  const auto compare = [](const char* what, const std::string& got, const std::string& expected) {
    return got == expected ? std::string()
                           : std::string("got the ") + what + " " + got + ", expected " + expected;
  };
  std::string text =
      compare("inputs", tensors_text(program, program.inputs), tensors_text(spec.inputs));
  if (text.empty())
    text = compare("outputs", tensors_text(program, program.outputs), tensors_text(spec.outputs));
  const std::vector<engine::StepSpec>& steps = made.steps;
  if (text.empty())
    text = compare("number of kernels", std::to_string(program.kernels.size()),
                   std::to_string(steps.size()));
  if (!text.empty()) return text;
  const std::vector<std::string> hashes = backend::kernel_hashes(program);
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (hashes[i] != made.kernels[static_cast<size_t>(steps[i].kernel)].key)
      return "got another kernel " + kernel_text(program.kernels[i]) +
             ": its shapes or operators differ, or values of weights are part of its code";
  }
  return "got kernels that are connected in another way";
}

std::string advice(const Spec& spec) {
  std::string text = "; compile the model again";
  if (!spec.refittable)
    text += ", as refittable (immutable_weights=False) if only values of weights differ";
  if (spec.producer != "kiln " KILN_VERSION)
    text += " (the engine was made by " + spec.producer + ", this is kiln " KILN_VERSION ")";
  return text;
}

// What the programs of an engine are for, each target once.
std::vector<TargetOptions> targets_of(const Spec& spec) {
  std::vector<TargetOptions> targets;
  for (const engine::ProgramSpec& program : spec.programs) {
    if (std::ranges::find(targets, program.target, &TargetOptions::name) == targets.end())
      targets.push_back({program.target, {}});
  }
  return targets;
}

// CompileError where a program of the engine was made of another plan than its target's.
void check_plan(const Spec& spec, const TargetPlan& plan) {
  const std::string hash = backend::program_hash(plan.program);
  for (const engine::ProgramSpec& made : spec.programs)
    if (made.target == plan.target.name && made.program_hash != hash)
      throw CompileError("[refit] " + difference(spec, made, plan.program) + advice(spec));
}

void check_refittable(const Spec& spec) {
  if (!spec.quantized.empty())
    throw CompileError("[refit] got an engine that was quantised when it was compiled (" +
                       spec.quantized + "): compile the model again");
  for (const engine::ProgramSpec& program : spec.programs) {
    if (!program.unknown.empty())
      throw CompileError("[refit] got an engine with the program " + program.name() +
                         ", whose weights this version of Kiln cannot replace: it does not know " +
                         program.unknown);
    if (program.program_hash.empty())
      throw CompileError("[refit] got an engine made by " + spec.producer +
                         ", which does not say of what its program " + program.name() +
                         " was made: compile the model again");
  }
}

}  // namespace

std::vector<std::byte> refit(std::span<const std::byte> engine, const import::Model& model,
                             const CompileOptions& options) {
  const Result<engine::View> view = engine::read(engine);
  if (!view.ok()) throw StatusError(view.status());
  const Spec& spec = view->spec;
  check_refittable(spec);
  CompileOptions same = options;
  same.targets = targets_of(spec);
  same.ranges = ranges_of(spec, model);
  same.disabled_passes = spec.disabled_passes;
  same.refittable = spec.refittable;
  same.emulate_precision_casts = spec.emulate_precision_casts;
  same.check_bounds = !spec.unchecked;
  same.tf32 = spec.tf32;
  const std::vector<TargetPlan> plans = plan_model(model, same);
  for (const TargetPlan& plan : plans) check_plan(spec, plan);
  std::vector<std::byte> bytes = write_refilled(spec, plans, same);
  report(options, "done", 1.0);
  return bytes;
}

}  // namespace kiln
