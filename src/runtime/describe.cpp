#include "runtime/describe.h"

#include <algorithm>

#include "runtime/binding.h"
#include "runtime/choose_program.h"
#include "runtime/size_program.h"
#include "runtime/size_text.h"
#include "support/json_writer.h"

namespace kiln::runtime {
namespace {

using engine::ProgramSpec;
using engine::Spec;

void write_strings(JsonWriter& json, const std::vector<std::string>& strings) {
  json.begin_array();
  for (const std::string& string : strings) json.value(string);
  json.end_array();
}

std::string symbolic_shape(const Spec& spec, const engine::TensorSpec& tensor) {
  std::string text = "[";
  for (const engine::Slot slot : tensor.shape)
    text.append(text.size() == 1 ? "" : ", ").append(size_str(spec, slot));
  return text + "]";
}

void write_tensor(JsonWriter& json, const Spec& spec, const SizeText& sizes,
                  const engine::TensorSpec& tensor, const std::vector<DimInfo>& dims) {
  json.begin_object().key("name").value(tensor.name);
  json.key("dtype").value(dtype_name(tensor.dtype));
  json.key("shape").value(symbolic_shape(spec, tensor));
  json.key("dims").begin_array();
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    json.begin_object().key("size").value(sizes.operand(tensor.shape[axis]).data());
    json.key("min").value(dims[axis].min).key("opt").value(dims[axis].opt);
    json.key("max").value(dims[axis].max).end_object();
  }
  json.end_array();
  if (tensor.updates != -1)
    json.key("updates").value(spec.inputs[static_cast<size_t>(tensor.updates)].name);
  json.end_object();
}

void write_tensors(JsonWriter& json, const Engine& engine) {
  const Spec& spec = engine.spec();
  const SizeText sizes(spec);
  json.key("sizes");
  sizes.write_instructions(json);
  json.key("inputs").begin_array();
  for (size_t i = 0; i < spec.inputs.size(); ++i)
    write_tensor(json, spec, sizes, spec.inputs[i], engine.input_dims(i));
  json.end_array().key("outputs").begin_array();
  for (size_t i = 0; i < spec.outputs.size(); ++i)
    write_tensor(json, spec, sizes, spec.outputs[i], engine.output_dims(i));
  json.end_array();
}

void write_symbols(JsonWriter& json, const Spec& spec) {
  json.key("symbols").begin_array();
  for (const engine::SymbolSpec& symbol : spec.symbols) {
    json.begin_object().key("name").value(symbol.name);
    json.key("input").value(symbol.input).key("dim").value(symbol.dim);
    json.key("min").value(symbol.min).key("opt").value(symbol.opt);
    json.key("max").value(symbol.max);
    json.key("factor").value(symbol.factor).key("offset").value(symbol.offset).end_object();
  }
  json.end_array();
}

void write_data_sizes(JsonWriter& json, const Spec& spec) {
  const SizeText sizes(spec);
  json.key("data_sizes").begin_array();
  for (const engine::DataSizeSpec& size : spec.data_sizes) {
    json.begin_object().key("name").value(size.name);
    json.key("min").value(size.min).key("opt").value(size.opt).key("max").value(size.max);
    json.key("bound");
    if (size.bound == -1)
      json.null();
    else
      json.value(sizes.operand(size.bound).data());
    json.end_object();
  }
  json.end_array();
}

void write_requirements(JsonWriter& json, const Spec& spec) {
  json.key("requirements").begin_array();
  for (const engine::RequirementSpec& requirement : spec.requirements) {
    json.begin_object().key("operation").value(requirement.operation);
    json.key("expected").value(requirement.expected).end_object();
  }
  json.end_array();
}

// What a session on one thread allocates; null where the shapes need more than there can be.
void write_workspace(JsonWriter& json, const Spec& spec, const ProgramSpec& program,
                     const auto& size_of) {
  std::vector<int64_t> symbols;
  for (const engine::SymbolSpec& symbol : spec.symbols) symbols.push_back(size_of(symbol));
  for (const engine::DataSizeSpec& size : spec.data_sizes) symbols.push_back(size_of(size));
  const Result<uint64_t> bytes = workspace_bytes(spec, program, symbols);
  if (bytes.ok())
    json.value(*bytes);
  else
    json.null();
}

void write_memory(JsonWriter& json, const engine::View& view, const ProgramSpec& program) {
  json.key("memory").begin_object();
  json.key("weights_bytes").value(view.weights.size());
  json.key("stripped").value(view.stripped);
  json.key("workspace_bytes_at_min");
  write_workspace(json, view.spec, program, [](const auto& symbol) { return symbol.min; });
  json.key("workspace_bytes_at_opt");
  write_workspace(json, view.spec, program, [](const auto& symbol) { return symbol.opt; });
  json.key("workspace_bytes_at_max");
  write_workspace(json, view.spec, program, [](const auto& symbol) { return symbol.max; });
  json.key("buffers").value(program.buffers.size());
  json.key("steps").value(program.steps.size());
  json.end_object();
}

void write_programs(JsonWriter& json, const Spec& spec, const std::vector<Status>& read) {
  json.key("programs").begin_array();
  for (size_t i = 0; i < spec.programs.size(); ++i) {
    const ProgramSpec& program = spec.programs[i];
    const std::string obstacle = read[i].ok() ? obstacle_to(program) : read[i].message();
    json.begin_object().key("target").value(program.target);
    json.key("variant").value(program.variant);
    json.key("needs");
    write_strings(json, program.features);
    json.key("runs_here").value(obstacle.empty());
    json.key("obstacle").value(obstacle);
    json.key("kernels").value(program.kernels.size());
    json.key("steps").value(program.steps.size());
    json.key("code_bytes").value(program.code.size()).end_object();
  }
  json.end_array();
}

bool is_custom(const engine::KernelSpec& kernel) { return kernel.kind == "custom"; }

// The names of the kernels of the user's own that the program calls, each once.
void write_custom_kernels(JsonWriter& json, const ProgramSpec& program) {
  std::vector<std::string> names;
  for (const engine::KernelSpec& kernel : program.kernels)
    if (is_custom(kernel)) names.push_back(engine::called_kernel(kernel.function));
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  json.key("custom_kernels");
  write_strings(json, names);
}

void write_kernels(JsonWriter& json, const ProgramSpec& program) {
  json.key("kernels").begin_array();
  for (const engine::KernelSpec& kernel : program.kernels) {
    json.begin_object().key("name").value(kernel.name).key("kind").value(kernel.kind);
    json.key("sources");
    write_strings(json, kernel.sources);
    if (is_custom(kernel)) {
      json.key("function").value(engine::called_kernel(kernel.function));
      json.key("arguments").value(engine::call_arguments(kernel.function));
    } else if (!kernel.function.empty()) {  // of launches and calls
      json.key("function").value(kernel.function);
      json.key("entry").value(kernel.entry == engine::kNoEntry ? 0 : kernel.entry);
    }
    json.end_object();
  }
  json.end_array();
}

void write_sections(JsonWriter& json, const engine::View& view) {
  json.key("sections").begin_array();
  for (const engine::SectionInfo& section : view.sections) {
    json.begin_object().key("name").value(section.name).key("offset").value(section.offset);
    json.key("size").value(section.size).key("hash").value(section.hash).end_object();
  }
  json.end_array();
}

uint64_t text_size(const engine::KernelSpec& kernel) {
  uint64_t size = kernel.name.size() + kernel.kind.size();
  for (const std::string& source : kernel.sources) size += source.size() + 3;
  return size;
}

// Name, kind and sources of the kernels that steps run. A kernel that many steps run is written as
// often, which a forged engine could use to ask for far more text than it has: past a multiple of
// what all kernels have, "..." stands for them.
class SourceWriter {
 public:
  explicit SourceWriter(const ProgramSpec& program) {
    for (const engine::KernelSpec& kernel : program.kernels) left_ += kRepeats * text_size(kernel);
  }

  void write(JsonWriter& json, const engine::KernelSpec& kernel) {
    const bool fits = text_size(kernel) <= left_;
    if (fits) left_ -= text_size(kernel);
    json.key("kernel").value(fits ? kernel.name : "...").key("kind").value(fits ? kernel.kind : "");
    json.key("sources");
    write_strings(json, fits ? kernel.sources : std::vector<std::string>());
  }

 private:
  static constexpr uint64_t kRepeats = 16;
  uint64_t left_ = uint64_t{1} << 20;  // enough for any small engine
};

// The program that the description goes into: the one that runs, or of those that the caller asked for
// the one that would, or else the first that this version of Kiln knows. Without any, one without
// buffers and steps.
const ProgramSpec& shown_program(const Engine& engine, const Spec& spec,
                                 const std::vector<Status>& read) {
  static const ProgramSpec kNone;
  if (engine.program() != nullptr)
    return spec.programs[static_cast<size_t>(engine.program() - engine.spec().programs.data())];
  const ProgramSpec *known = nullptr, *slow = nullptr;
  for (size_t i = 0; i < spec.programs.size(); ++i) {
    const ProgramSpec& program = spec.programs[i];
    if (!engine.wanted().fits(program) || !read[i].ok() || !program.unknown.empty()) continue;
    if (known == nullptr) known = &program;
    if (!obstacle_to(program).empty()) continue;
    if (!runs_slowly(program)) return program;
    if (slow == nullptr) slow = &program;
  }
  if (slow != nullptr) return *slow;
  return known == nullptr ? kNone : *known;
}

}  // namespace

Result<std::string> describe(const Engine& engine) {
  Result<engine::View> again = engine::read_interface(engine.view().bytes);
  if (!again.ok()) return again.status();
  engine::View& view = *again;
  std::vector<Status> read;
  for (size_t i = 0; i < view.spec.programs.size(); ++i)
    read.push_back(engine::read_program(view, i));
  const Spec& spec = view.spec;
  const ProgramSpec& shown = shown_program(engine, spec, read);
  JsonWriter json;
  json.begin_object().key("name").value(spec.name);
  json.key("producer").value(spec.producer);
  json.key("target").value(shown.target).key("variant").value(shown.variant);
  json.key("runs_here").value(engine.program() != nullptr || obstacle_to(shown).empty());
  json.key("format_version").value(view.format_version);
  json.key("content_hash").value(view.content_hash);
  json.key("program_hash").value(shown.program_hash);
  json.key("refittable").value(spec.refittable);
  json.key("emulate_precision_casts").value(spec.emulate_precision_casts);
  json.key("check_bounds").value(!spec.unchecked);
  json.key("tf32").begin_array();
  if ((spec.tf32 & engine::kTf32Products) != 0) json.value("matmul");
  if ((spec.tf32 & engine::kTf32Convolutions) != 0) json.value("convolution");
  json.end_array();
  json.key("quantized").value(spec.quantized);
  json.key("metadata").value(spec.metadata);
  json.key("disabled_passes");
  write_strings(json, spec.disabled_passes);
  write_tensors(json, engine);
  write_symbols(json, spec);
  write_data_sizes(json, spec);
  write_requirements(json, spec);
  write_memory(json, view, shown);
  write_programs(json, spec, read);
  write_custom_kernels(json, shown);
  write_kernels(json, shown);
  write_sections(json, view);
  return json.end_object().text();
}

std::string describe_profile(const Session& session) {
  const ProgramSpec& program = *session.engine().program();
  SourceWriter sources(program);
  JsonWriter json;
  json.begin_array();
  for (size_t i = 0; i < session.profile().size(); ++i) {
    const StepTime& time = session.profile()[i];
    const auto& kernel = program.kernels[static_cast<size_t>(program.steps[i].kernel)];
    json.begin_object();
    sources.write(json, kernel);
    json.key("tasks").value(time.tasks).key("threads").value(time.threads);
    json.key("nanoseconds").value(time.nanoseconds);
    const StepWork work =
        i < session.profiled_work().size() ? session.profiled_work()[i] : StepWork();
    if (work.operations >= 0) json.key("operations").value(work.operations);
    if (work.bytes >= 0) json.key("bytes").value(work.bytes);
    json.key("precision").value(kernel.precision).end_object();
  }
  return json.end_array().text();
}

}  // namespace kiln::runtime
