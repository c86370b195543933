// plan::Program -> the CPU part of an engine.
//
// Kernels that differ only in their buffers share one compilation. The distinct ones are compiled
// in parallel, each in a module of its own; results are joined in program order, so that the bytes
// do not depend on the number of threads.
#include <algorithm>
#include <atomic>
#include <map>

#include "backends/backend.h"
#include "backends/common/kernel_key.h"
#include "backends/common/parallel.h"
#include "backends/common/size_program.h"
#include "backends/cpu/compile/generate.h"
#include "plan/form/kernels.h"
#include "plan/form/lifetimes.h"
#include "support/cpu_features.h"
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

uint64_t required_features(const Target& target) {
  return target.avx512() ? kCpuAvx2Fma | kCpuAvx512 : uint64_t{kCpuAvx2Fma};
}

class ProgramCompiler {
 public:
  ProgramCompiler(const plan::Program& program, const BackendOptions& options)
      : program_(program),
        options_(options),
        targets_(choose_targets(options.variants)),
        sizes_(program.symbols) {}

  CompiledProgram run() {
    find_distinct_kernels();
    generate_code();
    place_inputs_and_outputs();
    add_steps();
    add_buffers();
    make_derived_constants();
    join_images();
    engine::Spec& spec = result_.spec;
    spec.program_hash = program_hash(program_);
    spec.name = program_.name;
    spec.producer = "kiln " KILN_VERSION;
    spec.target = "cpu";
    spec.symbols = find_symbols(program_);
    spec.sizes = sizes_.instructions();
    return std::move(result_);
  }

 private:
  // A kernel of the program: which code it runs, and on which buffers in the order of its key.
  struct Use {
    size_t code = 0;
    std::vector<plan::BufferId> buffers;
    std::vector<int32_t> checks;
  };
  struct Code {
    const plan::Kernel* kernel = nullptr;  // the first that uses it
    std::vector<plan::BufferId> buffers;   // of that kernel's key
    std::vector<int32_t> checks;           // of that kernel's key
    std::optional<GeneratedKernel> generated;
  };

  void find_distinct_kernels() {
    std::map<std::string, size_t> known;
    for (const plan::Kernel& kernel : program_.kernels) {
      KernelKey key = key_of(program_, kernel);
      const auto [it, fresh] = known.try_emplace(key.hash(), codes_.size());
      if (fresh) {
        codes_.push_back({&kernel, key.buffers, key.checks, std::nullopt});
        result_.spec.kernels.push_back({kernel.name, kind_of(kernel), {}, it->first});
      }
      auto& sources = result_.spec.kernels[it->second].sources;
      sources.insert(sources.end(), kernel.sources.begin(), kernel.sources.end());
      uses_.push_back({it->second, std::move(key.buffers), std::move(key.checks)});
    }
  }

  void generate_code() {
    const size_t workers = worker_count(codes_.size(), options_.compile_threads);
    std::vector<std::vector<Machine>> machines(workers);
    for (std::vector<Machine>& set : machines) {
      for (const Target& target : targets_) set.emplace_back(target);
    }
    std::atomic<size_t> done{0};
    run_parallel(codes_.size(), options_.compile_threads, [&](size_t worker, size_t i) {
      codes_[i].generated =
          generate_kernel(program_, *codes_[i].kernel, targets_, machines[worker]);
      const size_t finished = ++done;
      if (worker == 0 && options_.progress) {  // worker 0 is the calling thread
        options_.progress(static_cast<double>(finished) / static_cast<double>(codes_.size()));
      }
    });
  }

  // --- Buffers
  // ------------------------------------------------------------------------------------

  const plan::Buffer& buffer(plan::BufferId id) const {
    return program_.buffers.at(static_cast<size_t>(id));
  }

  engine::TensorSpec tensor_spec(plan::BufferId id) {
    engine::TensorSpec spec{buffer(id).name, buffer(id).type.dtype, {}};
    for (const ir::Dim& dim : buffer(id).type.shape) spec.shape.push_back(sizes_.slot(dim));
    return spec;
  }

  void place_inputs_and_outputs() {
    for (plan::BufferId id : program_.inputs) result_.spec.inputs.push_back(tensor_spec(id));
    for (plan::BufferId id : program_.outputs) result_.spec.outputs.push_back(tensor_spec(id));
  }

  // The buffer that this use of a kernel has in the place of `original`, a buffer of the code's
  // first kernel.
  plan::BufferId translate(const Use& use, plan::BufferId original) {
    const Code& code = codes_[use.code];
    if (const auto* entry = code.generated->constants.find(original)) {
      return derive(translate(use, entry->original), *entry);
    }
    const auto it = std::ranges::find(code.buffers, original);
    KILN_CHECK(it != code.buffers.end(), "generated code uses a buffer that its kernel does not");
    return use.buffers[static_cast<size_t>(it - code.buffers.begin())];
  }

  // Numbered after the program's buffers.
  plan::BufferId derive(plan::BufferId original, const DerivedConstants::Entry& entry) {
    const auto next = static_cast<plan::BufferId>(program_.buffers.size() + derived_.size());
    const auto [it, fresh] = derived_ids_.try_emplace({original, entry.key}, next);
    if (fresh) derived_.push_back({original, entry.key, entry.make});
    return it->second;
  }

  void add_steps() {
    for (const Use& use : uses_) {
      const KernelInterface& interface = codes_[use.code].generated->interface;
      engine::StepSpec step;
      step.kernel = static_cast<int32_t>(use.code);
      for (plan::BufferId id : interface.buffers) {
        step.buffers.push_back(translate(use, id));
        step.writes.push_back(task_writes(interface, id));
      }
      for (const ir::Dim& dim : interface.params) step.params.push_back(sizes_.slot(dim));
      step.tasks = sizes_.slot(interface.tasks);
      step.min_tasks_per_thread = interface.min_tasks_per_thread;
      if (!interface.scratch_bytes.is_constant(0)) {
        step.scratch_bytes = sizes_.slot(interface.scratch_bytes);
      }
      add_checks(use, step);
      result_.spec.steps.push_back(std::move(step));
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
    const Code& code = codes_[use.code];
    for (const int32_t original : code.generated->interface.checks) {
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

  bool is_constant(plan::BufferId id) const {
    return static_cast<size_t>(id) >= program_.buffers.size() ||
           buffer(id).kind == plan::BufferKind::Constant;
  }

  // Inputs, outputs, and what a step or an alias uses; numbered anew, in order.
  void add_buffers() {
    const size_t count = program_.buffers.size() + derived_.size();
    std::vector<bool> used(count, false);
    for (const engine::StepSpec& step : result_.spec.steps) {
      for (int32_t id : step.buffers) used[static_cast<size_t>(id)] = true;
    }
    for (plan::BufferId id : program_.inputs) used[static_cast<size_t>(id)] = true;
    for (plan::BufferId id : program_.outputs) used[static_cast<size_t>(id)] = true;
    for (size_t id = 0; id < program_.buffers.size(); ++id) {
      if (used[id]) used[static_cast<size_t>(root_of(static_cast<plan::BufferId>(id)))] = true;
    }
    numbers_.assign(count, -1);
    const std::vector<plan::Lifetime> lifetimes = plan::lifetimes(program_);
    for (size_t id = 0; id < count; ++id) {
      if (!used[id]) continue;
      numbers_[id] = static_cast<int32_t>(result_.spec.buffers.size());
      add_buffer(static_cast<plan::BufferId>(id), lifetimes);
    }
    renumber();
  }

  void add_buffer(plan::BufferId id, const std::vector<plan::Lifetime>& lifetimes) {
    engine::BufferSpec spec;
    ir::Literal literal;
    if (is_constant(id)) {
      spec.kind = engine::BufferKind::Constant;
      spec.source = id;
      if (static_cast<size_t>(id) < program_.buffers.size()) literal = buffer(id).literal;
      spec.constant_bytes = literal.bytes.size();
    } else {
      const plan::Buffer& source = buffer(id);
      const auto element = static_cast<int64_t>(dtype_size(source.type.dtype));
      spec.bytes = sizes_.slot(source.type.elements() * element);
      spec.kind = static_cast<engine::BufferKind>(source.kind);  // the same numbers
      if (source.kind == plan::BufferKind::Input) spec.index = position(program_.inputs, id);
      if (source.kind == plan::BufferKind::Output) spec.index = position(program_.outputs, id);
      if (source.kind == plan::BufferKind::Temporary) {
        const plan::BufferId root = root_of(id);
        spec.first_step = lifetimes[static_cast<size_t>(root)].first;
        spec.last_step = lifetimes[static_cast<size_t>(root)].last;
        spec.alias_of = root == id ? -1 : root;
      }
    }
    result_.spec.buffers.push_back(spec);
    result_.constants.push_back(std::move(literal));
  }

  static int32_t position(const std::vector<plan::BufferId>& list, plan::BufferId id) {
    const auto it = std::ranges::find(list, id);
    KILN_CHECK(it != list.end(), "an input or output buffer is not listed in the program");
    return static_cast<int32_t>(it - list.begin());
  }

  void renumber() {
    for (engine::StepSpec& step : result_.spec.steps) {
      for (int32_t& id : step.buffers) id = numbers_[static_cast<size_t>(id)];
    }
    for (engine::BufferSpec& spec : result_.spec.buffers) {
      if (spec.alias_of >= 0) spec.alias_of = numbers_[static_cast<size_t>(spec.alias_of)];
    }
  }

  void make_derived_constants() {
    run_parallel(derived_.size(), options_.compile_threads, [&](size_t, size_t i) {
      const DerivedConstants::Entry& entry = derived_[i];
      const auto number = static_cast<size_t>(numbers_[program_.buffers.size() + i]);
      ir::Literal literal = entry.make(buffer(entry.original).literal);
      engine::BufferSpec& spec = result_.spec.buffers[number];
      spec.source = entry.original;
      spec.transform = entry.key;
      spec.constant_bytes = literal.bytes.size();
      result_.constants[number] = std::move(literal);
    });
  }

  // --- Code
  // ---------------------------------------------------------------------------------------

  void join_images() {
    for (size_t t = 0; t < targets_.size(); ++t) {
      Image image;
      engine::CodeVariant variant{targets_[t].name, required_features(targets_[t]), {}, {}};
      for (const Code& code : codes_) {
        const FlatObject& object = code.generated->objects[t];
        variant.entry.push_back(image.append(object) + object.functions.front().offset);
      }
      result_.code.push_back(image.take());
      result_.spec.variants.push_back(std::move(variant));
    }
    for (size_t t = 0; t < targets_.size(); ++t) {
      result_.spec.variants[t].code = result_.code[t];
    }
  }

  const plan::Program& program_;
  const BackendOptions& options_;
  const std::vector<Target> targets_;
  SizeProgram sizes_;
  CompiledProgram result_;
  std::vector<Code> codes_;
  std::vector<Use> uses_;
  std::vector<DerivedConstants::Entry> derived_;
  std::map<std::pair<plan::BufferId, std::string>, plan::BufferId> derived_ids_;
  std::vector<int32_t> numbers_;  // of the program's and the derived buffers in the spec
};

}  // namespace
}  // namespace cpu

CompiledProgram compile_for_cpu(const plan::Program& program, const BackendOptions& options) {
  return cpu::ProgramCompiler(program, options).run();
}

}  // namespace kiln
