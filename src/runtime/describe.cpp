#include "runtime/describe.h"

#include "runtime/binding.h"
#include "runtime/size_program.h"
#include "support/cpu_features.h"
#include "support/json_writer.h"

namespace kiln::runtime {
namespace {

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

void write_tensor(JsonWriter& json, const Spec& spec, const engine::TensorSpec& tensor,
                  const std::vector<DimInfo>& dims) {
  json.begin_object().key("name").value(tensor.name);
  json.key("dtype").value(dtype_name(tensor.dtype));
  json.key("shape").value(symbolic_shape(spec, tensor));
  json.key("dims").begin_array();
  for (const DimInfo& dim : dims) {
    json.begin_object().key("min").value(dim.min).key("opt").value(dim.opt);
    json.key("max").value(dim.max).end_object();
  }
  json.end_array().end_object();
}

void write_tensors(JsonWriter& json, const Engine& engine) {
  const Spec& spec = engine.spec();
  json.key("inputs").begin_array();
  for (size_t i = 0; i < spec.inputs.size(); ++i)
    write_tensor(json, spec, spec.inputs[i], engine.input_dims(i));
  json.end_array().key("outputs").begin_array();
  for (size_t i = 0; i < spec.outputs.size(); ++i)
    write_tensor(json, spec, spec.outputs[i], engine.output_dims(i));
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

// What a session on one thread allocates; null where the shapes need more than there can be.
void write_workspace(JsonWriter& json, const Engine& engine, const char* name,
                     int64_t engine::SymbolSpec::* size) {
  std::vector<int64_t> symbols;
  for (const engine::SymbolSpec& symbol : engine.spec().symbols) symbols.push_back(symbol.*size);
  const auto binding = Binding::create(engine, std::move(symbols), 1);
  json.key(name);
  if (binding.ok())
    json.value((*binding)->memory_bytes());
  else
    json.null();
}

void write_memory(JsonWriter& json, const Engine& engine) {
  json.key("memory").begin_object();
  json.key("weights_bytes").value(engine.view().weights.size());
  json.key("stripped").value(engine.view().stripped);
  write_workspace(json, engine, "workspace_bytes_at_min", &engine::SymbolSpec::min);
  write_workspace(json, engine, "workspace_bytes_at_opt", &engine::SymbolSpec::opt);
  write_workspace(json, engine, "workspace_bytes_at_max", &engine::SymbolSpec::max);
  json.key("buffers").value(engine.spec().buffers.size());
  json.key("steps").value(engine.spec().steps.size());
  json.end_object();
}

void write_variants(JsonWriter& json, const Spec& spec) {
  const uint64_t available = detect_cpu_features();
  json.key("variants").begin_array();
  for (const engine::CodeVariant& variant : spec.variants) {
    json.begin_object().key("name").value(variant.name);
    json.key("needs").value(cpu_features_str(variant.cpu_features));
    json.key("runs_here").value((variant.cpu_features & ~available) == 0);
    json.key("code_bytes").value(variant.code.size()).end_object();
  }
  json.end_array();
}

void write_kernels(JsonWriter& json, const Spec& spec) {
  json.key("kernels").begin_array();
  for (const engine::KernelSpec& kernel : spec.kernels) {
    json.begin_object().key("name").value(kernel.name).key("kind").value(kernel.kind);
    json.key("sources");
    write_strings(json, kernel.sources);
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
  explicit SourceWriter(const Spec& spec) {
    for (const engine::KernelSpec& kernel : spec.kernels) left_ += kRepeats * text_size(kernel);
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

}  // namespace

std::string describe(const Engine& engine) {
  const Spec& spec = engine.spec();
  JsonWriter json;
  json.begin_object().key("name").value(spec.name);
  json.key("producer").value(spec.producer).key("target").value(spec.target);
  json.key("format_version").value(engine.view().format_version);
  json.key("content_hash").value(engine.view().content_hash);
  json.key("cpu_variant").value(engine.variant().name);
  json.key("program_hash").value(spec.program_hash);
  json.key("refittable").value(spec.refittable);
  json.key("emulate_precision_casts").value(spec.emulate_precision_casts);
  json.key("check_bounds").value(!spec.unchecked);
  json.key("metadata").value(spec.metadata);
  json.key("disabled_passes");
  write_strings(json, spec.disabled_passes);
  write_tensors(json, engine);
  write_symbols(json, spec);
  write_memory(json, engine);
  write_variants(json, spec);
  write_kernels(json, spec);
  write_sections(json, engine.view());
  return json.end_object().text();
}

std::string describe_profile(const Session& session) {
  const Spec& spec = session.engine().spec();
  SourceWriter sources(spec);
  JsonWriter json;
  json.begin_array();
  for (size_t i = 0; i < session.profile().size(); ++i) {
    const StepTime& time = session.profile()[i];
    const auto& kernel = spec.kernels[static_cast<size_t>(spec.steps[i].kernel)];
    json.begin_object();
    sources.write(json, kernel);
    json.key("tasks").value(time.tasks).key("threads").value(time.threads);
    json.key("nanoseconds").value(time.nanoseconds).end_object();
  }
  return json.end_array().text();
}

}  // namespace kiln::runtime
