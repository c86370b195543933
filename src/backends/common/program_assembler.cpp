#include "backends/common/program_assembler.h"

#include <algorithm>

#include "backends/common/program_hash.h"
#include "plan/form/kernels.h"
#include "plan/form/parts.h"
#include "support/error.h"

namespace kiln::backend {
namespace {

const char* kind_of(const plan::Kernel& kernel) {
  constexpr const char* kKinds[] = {"loop_nest", "matmul",  "convolution", "attention",
                                    "sort",      "scatter", "custom"};
  return kKinds[kernel.body.index()];
}

engine::BufferSpec derived_spec(const DerivedConstants::Entry& entry) {
  engine::BufferSpec spec;
  spec.kind = engine::BufferKind::Constant;
  spec.source = entry.original;
  spec.transform = entry.key;
  return spec;
}

engine::BufferSpec made_spec(const engine::WinogradSpec& winograd) {
  engine::BufferSpec spec;
  spec.kind = engine::BufferKind::Constant;
  spec.winograd = winograd;
  const int64_t bytes = engine::winograd_bytes(winograd);
  KILN_CHECK(bytes > 0, "a kernel asks for filters that no load makes");
  spec.constant_bytes = static_cast<uint64_t>(bytes);
  return spec;
}

int32_t position(const std::vector<plan::BufferId>& list, plan::BufferId id) {
  const auto it = std::ranges::find(list, id);
  KILN_CHECK(it != list.end(), "a buffer is not in the list that it belongs to");
  return static_cast<int32_t>(it - list.begin());
}

}  // namespace

ProgramAssembler::ProgramAssembler(const plan::Program& program, const DistinctKernels& kernels,
                                   std::vector<GeneratedKernel> generated, const SizeProgram& sizes)
    : program_(program),
      kernels_(kernels),
      generated_(std::move(generated)),
      sizes_(sizes),
      interface_slots_(sizes.instructions().size()) {}

engine::ProgramSpec ProgramAssembler::assemble(std::string_view target, const Variant& variant,
                                               SharedConstants& shared) {
  result_.target = target;
  result_.variant = variant.name;
  result_.features = variant.features;
  result_.program_hash = program_hash(program_);
  const auto is_update = [&](plan::BufferId output) { return buffer(output).alias_of >= 0; };
  if (std::ranges::any_of(program_.outputs, is_update))
    result_.version = engine::kUpdateProgramVersion;
  if (!program_.data_sizes.empty()) result_.version = engine::kDataSizeProgramVersion;
  if (!program_.repeats.empty()) result_.version = engine::kRepeatProgramVersion;
  const auto is_custom = [](const plan::Kernel& kernel) {
    return std::holds_alternative<plan::Custom>(kernel.body);
  };
  if (std::ranges::any_of(program_.kernels, is_custom))
    result_.version = engine::kCallProgramVersion;
  add_kernels();
  add_steps(shared);
  add_buffers(shared);
  if (std::ranges::any_of(result_.buffers, &engine::BufferSpec::is_made_at_load))
    result_.version = engine::kProgramVersion;
  const auto& sizes = sizes_.instructions();
  result_.sizes.assign(sizes.begin() + static_cast<std::ptrdiff_t>(interface_slots_), sizes.end());
  return std::move(result_);
}

std::vector<ir::Literal> ProgramAssembler::constants(const std::vector<ir::Literal>& shared) const {
  std::vector<ir::Literal> literals;
  for (const plan::BufferId id : placed_) {
    if (is_derived(id))
      literals.push_back(derived(id).is_made_at_load() ? ir::Literal()
                                                       : shared[derived(id).shared]);
    else
      literals.push_back(buffer(id).kind == plan::BufferKind::Constant ? buffer(id).literal
                                                                       : ir::Literal());
  }
  return literals;
}

// --- Code ---

// Where the code of a kernel begins in that of the program.
uint64_t ProgramAssembler::place(const std::vector<std::byte>& code) {
  constexpr size_t kAlignment = 64;
  code_.resize((code_.size() + kAlignment - 1) / kAlignment * kAlignment);
  const uint64_t offset = code_.size();
  code_.insert(code_.end(), code.begin(), code.end());
  return offset;
}

void ProgramAssembler::add_kernels() {
  for (size_t i = 0; i < generated_.size(); ++i) {
    const DistinctKernels::Code& code = kernels_.codes[i];
    const GeneratedKernel& made = generated_[i];
    const uint64_t entry = made.code.empty() ? engine::kNoEntry : place(made.code) + made.entry;
    works_.push_back(plan::work_of(program_, *code.kernel));
    result_.kernels.push_back({code.kernel->name, kind_of(*code.kernel), code.sources, code.hash,
                               entry, made.function, works_.back().precision});
  }
}

// --- Steps ---

const plan::Buffer& ProgramAssembler::buffer(plan::BufferId id) const {
  return program_.buffers.at(static_cast<size_t>(id));
}

bool ProgramAssembler::is_derived(plan::BufferId id) const {
  return static_cast<size_t>(id) >= program_.buffers.size();
}

const ProgramAssembler::Derived& ProgramAssembler::derived(plan::BufferId id) const {
  return derived_[static_cast<size_t>(id) - program_.buffers.size()];
}

// The buffer that this use of a kernel has in the place of `original`, a buffer of the code's first
// kernel.
plan::BufferId ProgramAssembler::translate(const Use& use, plan::BufferId original,
                                           SharedConstants& shared) {
  const DistinctKernels::Code& code = kernels_.codes[use.code];
  if (const auto* entry = generated_[use.code].constants.find(original)) {
    const plan::BufferId from = translate(use, entry->original, shared);
    if (!entry->is_made_at_load()) return derive({shared.add(*entry, from), {}});
    Derived made{0, entry->winograd};
    made.winograd.filters = from;
    return derive(made);
  }
  const auto it = std::ranges::find(code.buffers, original);
  KILN_CHECK(it != code.buffers.end(), "generated code uses a buffer that its kernel does not");
  return use.buffers[static_cast<size_t>(it - code.buffers.begin())];
}

plan::BufferId ProgramAssembler::derive(const Derived& constant) {
  auto it = std::ranges::find(derived_, constant);
  if (it == derived_.end()) it = derived_.insert(it, constant);
  return static_cast<plan::BufferId>(program_.buffers.size()) +
         static_cast<plan::BufferId>(it - derived_.begin());
}

void ProgramAssembler::add_steps(SharedConstants& shared) {
  for (const Use& use : kernels_.uses) {
    const KernelInterface& interface = generated_[use.code].interface;
    engine::StepSpec step;
    step.kernel = static_cast<int32_t>(use.code);
    for (plan::BufferId id : interface.buffers) {
      step.buffers.push_back(translate(use, id, shared));
      step.writes.push_back(task_writes(interface, id));
    }
    for (const ir::Dim& dim : interface.params) step.params.push_back(sizes_.slot(dim));
    step.kind = generated_[use.code].kind;
    add_units(interface, step);
    step.scratch_bytes = optional_slot(interface.scratch_bytes);
    add_checks(use, step);
    const plan::Work& work = works_[use.code];
    step.operations = sizes_.slot(work.operations);
    step.bytes = sizes_.slot(work.bytes);
    result_.steps.push_back(std::move(step));
  }
}

void ProgramAssembler::add_units(const KernelInterface& interface, engine::StepSpec& step) {
  if (step.kind == engine::StepKind::Tasks) {
    step.tasks = sizes_.slot(interface.tasks);
    step.min_tasks_per_thread = interface.min_tasks_per_thread;
  }
  if (step.kind == engine::StepKind::Launch) {
    for (const ir::Dim& size : interface.grid) step.launch.grid.push_back(sizes_.slot(size));
    for (const ir::Dim& size : interface.block) step.launch.block.push_back(sizes_.slot(size));
    step.launch.shared_bytes = optional_slot(interface.shared_bytes);
    step.launch.programmatic = interface.programmatic;
    for (const TensorMapSpec& map : interface.tensor_maps)
      step.launch.tensor_maps.push_back(tensor_map(interface, map));
  }
}

engine::TensorMapSpec ProgramAssembler::tensor_map(const KernelInterface& interface,
                                                   const TensorMapSpec& map) {
  const auto narrow = [](const std::vector<int64_t>& numbers) {
    return std::vector<int32_t>(numbers.begin(), numbers.end());
  };
  engine::TensorMapSpec spec;
  spec.buffer = position(interface.buffers, map.buffer);
  spec.dtype = map.dtype;
  spec.offset = sizes_.slot(map.offset);
  for (const ir::Dim& size : map.sizes) spec.sizes.push_back(sizes_.slot(size));
  for (const ir::Dim& stride : map.strides) spec.strides.push_back(sizes_.slot(stride));
  spec.box = narrow(map.box);
  spec.element_strides = narrow(map.element_strides);
  spec.swizzle = static_cast<int32_t>(map.swizzle);
  spec.lower_corner = narrow(map.lower_corner);
  spec.upper_corner = narrow(map.upper_corner);
  spec.box_channels = static_cast<int32_t>(map.box_channels);
  spec.box_pixels = static_cast<int32_t>(map.box_pixels);
  return spec;
}

engine::Slot ProgramAssembler::optional_slot(const ir::Dim& size) {
  return size.is_constant(0) ? -1 : sizes_.slot(size);
}

// The slot of the most bytes of a buffer that one unit writes; -1: none.
engine::Slot ProgramAssembler::task_writes(const KernelInterface& interface, plan::BufferId id) {
  const auto found = interface.task_writes.find(id);
  if (found == interface.task_writes.end()) return -1;
  const auto element = static_cast<int64_t>(dtype_size(buffer(id).type.dtype));
  return sizes_.slot(found->second * element);
}

// The checks of a use, in the order of the code's bits.
void ProgramAssembler::add_checks(const Use& use, engine::StepSpec& step) {
  const DistinctKernels::Code& code = kernels_.codes[use.code];
  for (const int32_t original : generated_[use.code].interface.checks) {
    if (step.checks.size() == engine::kMostChecks) return;
    const auto it = std::ranges::find(code.checks, original);
    KILN_CHECK(it != code.checks.end(), "generated code makes a check that its kernel does not");
    const int32_t id = use.checks[static_cast<size_t>(it - code.checks.begin())];
    step.checks.push_back(check_spec(*code.kernel, original, id));
  }
}

// Check `id`, which a kernel knows as `original`.
engine::CheckSpec ProgramAssembler::check_spec(const plan::Kernel& kernel, int32_t original,
                                               int32_t id) {
  const plan::Check& check = program_.checks.at(static_cast<size_t>(id));
  engine::CheckSpec spec{check.operation, engine::CheckKind::Nonzero, -1, check.input, check.fault};
  plan::for_each_expr(kernel, [&](const plan::Expr& expr) {
    plan::visit(expr, [&](const plan::ExprNode& node) {
      if (node.kind != plan::ExprKind::Check || node.check != original) return;
      spec.kind = static_cast<engine::CheckKind>(node.check_kind);  // the same numbers
      if (spec.kind != engine::CheckKind::Nonzero) spec.size = sizes_.slot(node.index);
    });
  });
  return spec;
}

// --- Buffers ---

// The buffer whose memory this one has.
plan::BufferId ProgramAssembler::root_of(plan::BufferId id) const {
  while (buffer(id).alias_of >= 0) id = buffer(id).alias_of;
  return id;
}

// Inputs, outputs, and what a step or an alias uses; numbered anew, in order.
void ProgramAssembler::add_buffers(const SharedConstants& shared) {
  const size_t count = program_.buffers.size() + derived_.size();
  std::vector<bool> used(count, false);
  for (const engine::StepSpec& step : result_.steps) {
    for (int32_t id : step.buffers) used[static_cast<size_t>(id)] = true;
  }
  for (plan::BufferId id : program_.inputs) used[static_cast<size_t>(id)] = true;
  for (plan::BufferId id : program_.outputs) used[static_cast<size_t>(id)] = true;
  for (const plan::DataSize& size : program_.data_sizes)
    used[static_cast<size_t>(size.count)] = true;
  for (const plan::Repeat& repeat : program_.repeats)
    used[static_cast<size_t>(repeat.condition)] = true;
  for (size_t i = 0; i < derived_.size(); ++i) {
    if (derived_[i].is_made_at_load() && used[program_.buffers.size() + i])
      used[static_cast<size_t>(derived_[i].winograd.filters)] = true;
  }
  for (size_t id = 0; id < program_.buffers.size(); ++id) {
    if (used[id]) used[static_cast<size_t>(root_of(static_cast<plan::BufferId>(id)))] = true;
  }
  std::vector<int32_t> numbers(count, -1);
  std::vector<plan::Lifetime> lifetimes = plan::lifetimes(program_);
  add_data_sizes(lifetimes);
  add_repeats();
  for (size_t i = 0; i < count; ++i) {
    if (!used[i]) continue;
    const auto id = static_cast<plan::BufferId>(i);
    numbers[i] = static_cast<int32_t>(placed_.size());
    placed_.push_back(id);
    if (!is_derived(id))
      result_.buffers.push_back(buffer_spec(id, lifetimes));
    else if (derived(id).is_made_at_load())
      result_.buffers.push_back(made_spec(derived(id).winograd));
    else
      result_.buffers.push_back(derived_spec(shared.entry(derived(id).shared)));
  }
  renumber(numbers);
}

// Their numbers stay until they are read, which is before the step that first needs one.
void ProgramAssembler::add_data_sizes(std::vector<plan::Lifetime>& lifetimes) {
  const std::vector<size_t> steps = plan::reads_of_sizes(program_);
  for (size_t i = 0; i < steps.size(); ++i) {
    const plan::BufferId count = program_.data_sizes[i].count;
    const auto step = static_cast<int32_t>(steps[i]);
    result_.data_sizes.push_back({step, count});
    int32_t& last = lifetimes[static_cast<size_t>(root_of(count))].last;
    last = std::max(last, step - 1);
  }
}

// Each behind the one that it is in; kernels are steps.
void ProgramAssembler::add_repeats() {
  const std::vector<plan::KernelRange> ranges = plan::repeat_ranges(program_);
  for (size_t i = 0; i < ranges.size(); ++i)
    result_.repeats.push_back({static_cast<int32_t>(ranges[i].first),
                               static_cast<int32_t>(ranges[i].end), program_.repeats[i].condition});
}

engine::BufferSpec ProgramAssembler::buffer_spec(plan::BufferId id,
                                                 const std::vector<plan::Lifetime>& lifetimes) {
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

void ProgramAssembler::renumber(const std::vector<int32_t>& numbers) {
  for (engine::StepSpec& step : result_.steps) {
    for (int32_t& id : step.buffers) id = numbers[static_cast<size_t>(id)];
  }
  for (engine::DataSizeSource& size : result_.data_sizes)
    size.buffer = numbers[static_cast<size_t>(size.buffer)];
  for (engine::RepeatSpec& repeat : result_.repeats)
    repeat.buffer = numbers[static_cast<size_t>(repeat.buffer)];
  for (engine::BufferSpec& spec : result_.buffers) {
    if (spec.alias_of >= 0) spec.alias_of = numbers[static_cast<size_t>(spec.alias_of)];
    if (spec.is_made_at_load())
      spec.winograd.filters = numbers[static_cast<size_t>(spec.winograd.filters)];
  }
}

}  // namespace kiln::backend
