#include "backends/common/compile_program.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>

#include "backends/common/program_assembler.h"
#include "support/error.h"

namespace kiln::backend {
namespace {

std::string names_of(const std::vector<Variant>& variants) {
  std::string names;
  for (const Variant& variant : variants) names += (names.empty() ? "" : " or ") + variant.name;
  return names;
}

// In the backend's order: the best first.
std::vector<Variant> choose_variants(const Backend& backend, const plan::Program& program,
                                     const std::vector<std::string>& names) {
  std::vector<Variant> result;
  for (const Variant& variant : backend.variants) {
    const bool wanted = names.empty() ? variant.serves == nullptr || variant.serves(program)
                                      : std::ranges::find(names, variant.name) != names.end();
    if (wanted) result.push_back(variant);
  }
  for (const std::string& name : names) {
    if (std::ranges::find(result, name, &Variant::name) == result.end())
      throw CompileError("[" + std::string(backend.name) + "] got the variant " + name +
                         ", expected " + names_of(backend.variants));
  }
  return result;
}

// Generates the kernels for all variants: by variant and code.
std::vector<std::vector<GeneratedKernel>> generate_all(const Backend& backend,
                                                       const plan::Program& program,
                                                       const DistinctKernels& kernels,
                                                       const std::vector<Variant>& variants,
                                                       const BackendOptions& options) {
  const size_t jobs = variants.size() * kernels.codes.size();
  std::vector<std::optional<GeneratedKernel>> generated(jobs);
  const auto make_worker = [&]() -> Worker {
    const auto generators = std::make_shared<std::vector<std::unique_ptr<KernelGenerator>>>();
    for (const Variant& variant : variants)
      generators->push_back(backend.make_generator(variant, options.generators));
    return [&, generators](size_t job) {
      const plan::Kernel& kernel = *kernels.codes[job / variants.size()].kernel;
      generated[job] = (*generators)[job % variants.size()]->generate(program, kernel);
    };
  };
  backend.run_workers(jobs, options.compile_threads, make_worker, [&](size_t done) {
    if (options.progress) options.progress(static_cast<double>(done) / static_cast<double>(jobs));
  });
  std::vector<std::vector<GeneratedKernel>> result(variants.size());
  for (size_t job = 0; job < jobs; ++job)
    result[job % variants.size()].push_back(std::move(*generated[job]));
  return result;
}

// A name that is a file's in its folder, whatever the model calls its operators.
std::string file_name(std::string name) {
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-') c = '_';
  return name;
}

// Writes the texts of kernels as VARIANT_KERNEL.ENDING.
void dump(const std::string& directory, const Variant& variant, const DistinctKernels& kernels,
          const std::vector<GeneratedKernel>& generated) {
  for (size_t i = 0; i < generated.size() && !directory.empty(); ++i) {
    if (generated[i].text.empty()) continue;
    const std::string path = directory + "/" +
                             file_name(variant.name + "_" + kernels.codes[i].kernel->name) +
                             generated[i].text_ending;
    std::ofstream file(path);
    file << generated[i].text;
    if (!file.flush())
      throw CompileError("[" + variant.name + "] cannot write the text of a kernel to " + path);
  }
}

engine::TensorSpec tensor_spec(const plan::Program& program, plan::BufferId id,
                               SizeProgram& sizes) {
  const plan::Buffer& buffer = program.buffers.at(static_cast<size_t>(id));
  engine::TensorSpec spec{buffer.name, buffer.type.dtype, {}};
  for (const ir::Dim& dim : buffer.type.shape) spec.shape.push_back(sizes.slot(dim));
  const auto updated = std::ranges::find(program.inputs, buffer.alias_of);
  if (buffer.kind == plan::BufferKind::Output && updated != program.inputs.end())
    spec.updates = static_cast<int32_t>(updated - program.inputs.begin());
  return spec;
}

// What callers see of a program. `sizes` gets its slots.
engine::Spec make_interface(const plan::Program& program, SizeProgram& sizes) {
  engine::Spec spec;
  spec.name = program.name;
  spec.producer = "kiln " KILN_VERSION;
  spec.symbols = find_symbols(program);
  for (const plan::DataSize& size : program.data_sizes)  // before any slot that has one
    spec.data_sizes.push_back({size.symbol->name, size.symbol->min, size.symbol->max,
                               size.symbol->opt, size.bound ? sizes.slot(*size.bound) : -1});
  for (plan::BufferId id : program.inputs) spec.inputs.push_back(tensor_spec(program, id, sizes));
  for (plan::BufferId id : program.outputs) spec.outputs.push_back(tensor_spec(program, id, sizes));
  for (const ir::Requirement& requirement : program.requirements)
    spec.requirements.push_back({sizes.slot(requirement.condition),
                                 static_cast<engine::RequirementKind>(requirement.kind),
                                 requirement.operation, requirement.expected});
  spec.sizes = sizes.instructions();
  return spec;
}

}  // namespace

CompiledProgram compile_program(const Backend& backend, const plan::Program& program,
                                const BackendOptions& options) {
  const std::vector<Variant> variants = choose_variants(backend, program, options.variants);
  const DistinctKernels kernels(program);
  auto generated = generate_all(backend, program, kernels, variants, options);

  CompiledProgram result;
  SizeProgram sizes(program.symbols);
  result.spec = make_interface(program, sizes);
  SharedConstants shared;
  std::vector<ProgramAssembler> assemblers;
  for (size_t i = 0; i < variants.size(); ++i) {
    dump(options.dump_directory, variants[i], kernels, generated[i]);
    auto& assembler = assemblers.emplace_back(program, kernels, std::move(generated[i]), sizes);
    result.spec.programs.push_back(assembler.assemble(backend.name, variants[i], shared));
    result.code.push_back(assembler.take_code());
  }
  const std::vector<ir::Literal> literals = shared.make(program, options.compile_threads);
  for (size_t i = 0; i < variants.size(); ++i) {
    engine::ProgramSpec& made = result.spec.programs[i];
    made.code = result.code[i];
    const auto& constants = result.constants.emplace_back(assemblers[i].constants(literals));
    for (size_t k = 0; k < constants.size(); ++k)
      if (!made.buffers[k].is_made_at_load())
        made.buffers[k].constant_bytes = constants[k].bytes.size();
  }
  return result;
}

}  // namespace kiln::backend
