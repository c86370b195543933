// plan::Program -> the CPU programs of an engine, one for each level.
//
// Kernels that differ only in their buffers share one compilation. The distinct ones are compiled
// in parallel, for each level in a module of its own; results are joined in program order, so that
// the bytes do not depend on the number of threads.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "backends/backend.h"
#include "backends/common/kernel_key.h"
#include "backends/common/parallel.h"
#include "backends/common/size_program.h"
#include "backends/cpu/compile/generate.h"
#include "backends/cpu/compile/image/llvm_threads.h"
#include "plan/form/kernels.h"
#include "plan/form/lifetimes.h"
#include "support/error.h"

namespace kiln {

namespace cpu {
namespace {

const char* kind_of(const plan::Kernel& kernel) {
  constexpr const char* kKinds[] = {"loop_nest", "matmul", "convolution", "attention"};
  return kKinds[kernel.body.index()];
}

std::vector<Target> choose_targets(const std::vector<std::string>& names) {
  std::vector<Target> result;
  for (const Target& target : all_targets()) {
    if (names.empty() || std::ranges::find(names, target.name) != names.end()) {
      result.push_back(target);
    }
  }
  for (const std::string& name : names) {
    if (std::ranges::none_of(result, [&](const Target& target) { return target.name == name; })) {
      throw CompileError("[cpu] got the variant " + name + ", expected x86-64-v3 or x86-64-v4");
    }
  }
  return result;
}

// Kernels of a program that have the same code.
struct Code {
  const plan::Kernel* kernel = nullptr;  // the first that uses it
  std::vector<plan::BufferId> buffers;   // of that kernel's key
  std::vector<int32_t> checks;           // of that kernel's key
  std::string hash;                      // of the key
  std::vector<std::string> sources;      // of all that use it
};

// A kernel of the program: which code it runs, and on which buffers in the order of its key.
struct Use {
  size_t code = 0;
  std::vector<plan::BufferId> buffers;
  std::vector<int32_t> checks;
};

struct DistinctKernels {
  std::vector<Code> codes;
  std::vector<Use> uses;  // in the order of the program's kernels

  explicit DistinctKernels(const plan::Program& program) {
    std::map<std::string, size_t> known;
    for (const plan::Kernel& kernel : program.kernels) {
      KernelKey key = key_of(program, kernel);
      const auto [it, fresh] = known.try_emplace(key.hash(), codes.size());
      if (fresh) codes.push_back({&kernel, key.buffers, key.checks, it->first, {}});
      auto& sources = codes[it->second].sources;
      sources.insert(sources.end(), kernel.sources.begin(), kernel.sources.end());
      uses.push_back({it->second, std::move(key.buffers), std::move(key.checks)});
    }
  }
};

// The constants that programs make out of others. What two of them ask for is made once.
class SharedConstants {
 public:
  // A number for make(contents of `original`).
  size_t add(const DerivedConstants::Entry& entry, plan::BufferId original) {
    const auto [it, fresh] = numbers_.try_emplace({original, entry.key}, entries_.size());
    if (fresh) entries_.push_back({original, entry.key, entry.make});
    return it->second;
  }

  const DerivedConstants::Entry& entry(size_t number) const { return entries_[number]; }

  std::vector<ir::Literal> make(const plan::Program& program, int threads) const {
    std::vector<ir::Literal> literals(entries_.size());
    run_parallel(entries_.size(), threads, [&](size_t, size_t i) {
      const auto original = static_cast<size_t>(entries_[i].original);
      literals[i] = entries_[i].make(program.buffers.at(original).literal);
    });
    return literals;
  }

 private:
  std::vector<DerivedConstants::Entry> entries_;
  std::map<std::pair<plan::BufferId, std::string>, size_t> numbers_;
};

// Assembles the program of one level out of its generated kernels.
class ProgramAssembler {
 public:
  // `sizes` has the slots of the interface. `generated` belong to the codes of `kernels`, pairwise.
  ProgramAssembler(const plan::Program& program, const DistinctKernels& kernels,
                   std::vector<GeneratedKernel> generated, const SizeProgram& sizes)
      : program_(program),
        kernels_(kernels),
        generated_(std::move(generated)),
        sizes_(sizes),
        interface_slots_(sizes.instructions().size()) {}

  // The code is in code(), the contents of the constants in take_constants().
  engine::ProgramSpec assemble(const Target& target, SharedConstants& shared) {
    result_.target = "cpu";
    result_.variant = target.name;
    result_.features = target.features.required();
    result_.program_hash = program_hash(program_);
    add_kernels();
    add_steps(shared);
    add_buffers(shared);
    const auto& sizes = sizes_.instructions();
    result_.sizes.assign(sizes.begin() + static_cast<std::ptrdiff_t>(interface_slots_),
                         sizes.end());
    return std::move(result_);
  }

  std::vector<std::byte> take_code() { return image_.take(); }

  // By buffer of the program that was assembled; `shared` are the literals of all shared constants.
  std::vector<ir::Literal> constants(const std::vector<ir::Literal>& shared) const {
    std::vector<ir::Literal> literals;
    for (const plan::BufferId id : placed_) {
      if (is_derived(id))
        literals.push_back(shared[derived_[derived_index(id)]]);
      else
        literals.push_back(buffer(id).kind == plan::BufferKind::Constant ? buffer(id).literal
                                                                         : ir::Literal());
    }
    return literals;
  }

 private:
  void add_kernels() {
    for (size_t i = 0; i < generated_.size(); ++i) {
      const Code& code = kernels_.codes[i];
      const FlatObject& object = generated_[i].object;
      const uint64_t entry = image_.append(object) + object.functions.front().offset;
      result_.kernels.push_back(
          {code.kernel->name, kind_of(*code.kernel), code.sources, code.hash, entry, ""});
    }
  }

  const plan::Buffer& buffer(plan::BufferId id) const {
    return program_.buffers.at(static_cast<size_t>(id));
  }

  // Derived constants are numbered after the program's buffers.
  bool is_derived(plan::BufferId id) const {
    return static_cast<size_t>(id) >= program_.buffers.size();
  }
  size_t derived_index(plan::BufferId id) const {
    return static_cast<size_t>(id) - program_.buffers.size();
  }

  // The buffer that this use of a kernel has in the place of `original`, a buffer of the code's
  // first kernel.
  plan::BufferId translate(const Use& use, plan::BufferId original, SharedConstants& shared) {
    const Code& code = kernels_.codes[use.code];
    if (const auto* entry = generated_[use.code].constants.find(original))
      return derive(shared.add(*entry, translate(use, entry->original, shared)));
    const auto it = std::ranges::find(code.buffers, original);
    KILN_CHECK(it != code.buffers.end(), "generated code uses a buffer that its kernel does not");
    return use.buffers[static_cast<size_t>(it - code.buffers.begin())];
  }

  plan::BufferId derive(size_t shared_number) {
    auto it = std::ranges::find(derived_, shared_number);
    if (it == derived_.end()) it = derived_.insert(it, shared_number);
    return static_cast<plan::BufferId>(program_.buffers.size()) +
           static_cast<plan::BufferId>(it - derived_.begin());
  }

  void add_steps(SharedConstants& shared) {
    for (const Use& use : kernels_.uses) {
      const KernelInterface& interface = generated_[use.code].interface;
      engine::StepSpec step;
      step.kernel = static_cast<int32_t>(use.code);
      for (plan::BufferId id : interface.buffers) {
        step.buffers.push_back(translate(use, id, shared));
        step.writes.push_back(task_writes(interface, id));
      }
      for (const ir::Dim& dim : interface.params) step.params.push_back(sizes_.slot(dim));
      step.tasks = sizes_.slot(interface.tasks);
      step.min_tasks_per_thread = interface.min_tasks_per_thread;
      if (!interface.scratch_bytes.is_constant(0)) {
        step.scratch_bytes = sizes_.slot(interface.scratch_bytes);
      }
      add_checks(use, step);
      result_.steps.push_back(std::move(step));
    }
  }

  // The slot of the most bytes of a buffer that one task writes; -1: none.
  engine::Slot task_writes(const KernelInterface& interface, plan::BufferId id) {
    const auto found = interface.task_writes.find(id);
    if (found == interface.task_writes.end()) return -1;
    const auto element = static_cast<int64_t>(dtype_size(buffer(id).type.dtype));
    return sizes_.slot(found->second * element);
  }

  // The checks of a use, in the order of the code's bits.
  void add_checks(const Use& use, engine::StepSpec& step) {
    const Code& code = kernels_.codes[use.code];
    for (const int32_t original : generated_[use.code].interface.checks) {
      if (step.checks.size() == engine::kMostChecks) return;
      const auto it = std::ranges::find(code.checks, original);
      KILN_CHECK(it != code.checks.end(), "generated code makes a check that its kernel does not");
      const int32_t id = use.checks[static_cast<size_t>(it - code.checks.begin())];
      step.checks.push_back(check_spec(*code.kernel, original, id));
    }
  }

  // Check `id`, which a kernel knows as `original`.
  engine::CheckSpec check_spec(const plan::Kernel& kernel, int32_t original, int32_t id) {
    const plan::Check& check = program_.checks.at(static_cast<size_t>(id));
    engine::CheckSpec spec{check.operation, engine::CheckKind::Nonzero, -1, check.input};
    plan::for_each_expr(kernel, [&](const plan::Expr& expr) {
      plan::visit(expr, [&](const plan::ExprNode& node) {
        if (node.kind != plan::ExprKind::Check || node.check != original) return;
        spec.kind = static_cast<engine::CheckKind>(node.check_kind);  // the same numbers
        if (spec.kind != engine::CheckKind::Nonzero) spec.size = sizes_.slot(node.index);
      });
    });
    return spec;
  }

  // The buffer whose memory this one has.
  plan::BufferId root_of(plan::BufferId id) const {
    while (buffer(id).alias_of >= 0) id = buffer(id).alias_of;
    return id;
  }

  // Inputs, outputs, and what a step or an alias uses; numbered anew, in order.
  void add_buffers(const SharedConstants& shared) {
    const size_t count = program_.buffers.size() + derived_.size();
    std::vector<bool> used(count, false);
    for (const engine::StepSpec& step : result_.steps) {
      for (int32_t id : step.buffers) used[static_cast<size_t>(id)] = true;
    }
    for (plan::BufferId id : program_.inputs) used[static_cast<size_t>(id)] = true;
    for (plan::BufferId id : program_.outputs) used[static_cast<size_t>(id)] = true;
    for (size_t id = 0; id < program_.buffers.size(); ++id) {
      if (used[id]) used[static_cast<size_t>(root_of(static_cast<plan::BufferId>(id)))] = true;
    }
    std::vector<int32_t> numbers(count, -1);
    const std::vector<plan::Lifetime> lifetimes = plan::lifetimes(program_);
    for (size_t i = 0; i < count; ++i) {
      if (!used[i]) continue;
      const auto id = static_cast<plan::BufferId>(i);
      numbers[i] = static_cast<int32_t>(placed_.size());
      placed_.push_back(id);
      result_.buffers.push_back(is_derived(id)
                                    ? derived_spec(shared.entry(derived_[derived_index(id)]))
                                    : buffer_spec(id, lifetimes));
    }
    renumber(numbers);
  }

  // The writer fills in the size of constants.
  static engine::BufferSpec derived_spec(const DerivedConstants::Entry& entry) {
    engine::BufferSpec spec;
    spec.kind = engine::BufferKind::Constant;
    spec.source = entry.original;
    spec.transform = entry.key;
    return spec;
  }

  engine::BufferSpec buffer_spec(plan::BufferId id, const std::vector<plan::Lifetime>& lifetimes) {
    const plan::Buffer& source = buffer(id);
    engine::BufferSpec spec;
    spec.kind = static_cast<engine::BufferKind>(source.kind);  // the same numbers
    if (source.kind == plan::BufferKind::Constant) {
      spec.source = id;
      return spec;
    }
    const auto element = static_cast<int64_t>(dtype_size(source.type.dtype));
    spec.bytes = sizes_.slot(source.type.elements() * element);
    if (source.kind == plan::BufferKind::Input) spec.index = position(program_.inputs, id);
    if (source.kind == plan::BufferKind::Output) spec.index = position(program_.outputs, id);
    if (source.kind == plan::BufferKind::Temporary) {
      const plan::BufferId root = root_of(id);
      spec.first_step = lifetimes[static_cast<size_t>(root)].first;
      spec.last_step = lifetimes[static_cast<size_t>(root)].last;
      spec.alias_of = root == id ? -1 : root;
    }
    return spec;
  }

  static int32_t position(const std::vector<plan::BufferId>& list, plan::BufferId id) {
    const auto it = std::ranges::find(list, id);
    KILN_CHECK(it != list.end(), "an input or output buffer is not listed in the program");
    return static_cast<int32_t>(it - list.begin());
  }

  void renumber(const std::vector<int32_t>& numbers) {
    for (engine::StepSpec& step : result_.steps) {
      for (int32_t& id : step.buffers) id = numbers[static_cast<size_t>(id)];
    }
    for (engine::BufferSpec& spec : result_.buffers) {
      if (spec.alias_of >= 0) spec.alias_of = numbers[static_cast<size_t>(spec.alias_of)];
    }
  }

  const plan::Program& program_;
  const DistinctKernels& kernels_;
  std::vector<GeneratedKernel> generated_;  // by code
  SizeProgram sizes_;
  size_t interface_slots_;
  Image image_;
  engine::ProgramSpec result_;
  std::vector<size_t> derived_;         // numbers of shared constants
  std::vector<plan::BufferId> placed_;  // by buffer of the result
};

// Generates the kernels for all levels: by level and code.
std::vector<std::vector<GeneratedKernel>> generate_all(const plan::Program& program,
                                                       const DistinctKernels& kernels,
                                                       const std::vector<Target>& targets,
                                                       const BackendOptions& options) {
  const size_t jobs = targets.size() * kernels.codes.size();
  std::vector<std::optional<GeneratedKernel>> generated(jobs);
  const auto make_worker = [&]() -> LlvmWorker {
    const auto machines = std::make_shared<std::vector<Machine>>();
    for (const Target& target : targets) machines->emplace_back(target);
    return [&, machines](size_t job) {
      const size_t target = job % targets.size();
      generated[job] = generate_kernel(program, *kernels.codes[job / targets.size()].kernel,
                                       targets[target], (*machines)[target]);
    };
  };
  run_on_llvm_threads(jobs, options.compile_threads, make_worker, [&](size_t done) {
    if (options.progress) options.progress(static_cast<double>(done) / static_cast<double>(jobs));
  });
  std::vector<std::vector<GeneratedKernel>> result(targets.size());
  for (size_t job = 0; job < jobs; ++job)
    result[job % targets.size()].push_back(std::move(*generated[job]));
  return result;
}

engine::TensorSpec tensor_spec(const plan::Program& program, plan::BufferId id,
                               SizeProgram& sizes) {
  const plan::Buffer& buffer = program.buffers.at(static_cast<size_t>(id));
  engine::TensorSpec spec{buffer.name, buffer.type.dtype, {}};
  for (const ir::Dim& dim : buffer.type.shape) spec.shape.push_back(sizes.slot(dim));
  return spec;
}

// What callers see of a program. `sizes` gets its slots.
engine::Spec make_interface(const plan::Program& program, SizeProgram& sizes) {
  engine::Spec spec;
  spec.name = program.name;
  spec.producer = "kiln " KILN_VERSION;
  spec.symbols = find_symbols(program);
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
}  // namespace cpu

CompiledProgram compile_for_cpu(const plan::Program& program, const BackendOptions& options) {
  const std::vector<cpu::Target> targets = cpu::choose_targets(options.variants);
  const cpu::DistinctKernels kernels(program);
  auto generated = cpu::generate_all(program, kernels, targets, options);

  CompiledProgram result;
  cpu::SizeProgram sizes(program.symbols);
  result.spec = cpu::make_interface(program, sizes);
  cpu::SharedConstants shared;
  std::vector<cpu::ProgramAssembler> assemblers;
  for (size_t i = 0; i < targets.size(); ++i) {
    auto& assembler = assemblers.emplace_back(program, kernels, std::move(generated[i]), sizes);
    result.spec.programs.push_back(assembler.assemble(targets[i], shared));
    result.code.push_back(assembler.take_code());
  }
  const std::vector<ir::Literal> literals = shared.make(program, options.compile_threads);
  for (size_t i = 0; i < targets.size(); ++i) {
    result.spec.programs[i].code = result.code[i];
    result.constants.push_back(assemblers[i].constants(literals));
  }
  return result;
}

}  // namespace kiln
