#include "engine/validate.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "engine/format.h"

namespace kiln::engine {
namespace {

// Targets whose programs this version can read. The stub (src/backends/stub) has no device in a
// product.
constexpr std::array<std::string_view, 3> kTargets = {"cpu", "cuda", "stub"};

// Far from overflow when it is taken from a size.
constexpr int64_t kLargestOffset = int64_t{1} << 60;

template <typename List>
bool is_index(int64_t value, const List& list) {
  return value >= 0 && static_cast<uint64_t>(value) < list.size();
}

// Collects the first failure. Every check after it is skipped over by the callers' loops or
// harmless.
class Checker {
 protected:
  explicit Checker(const Spec& spec, std::string where = "")
      : spec_(spec), where_(std::move(where)) {}

  bool expect(bool condition, const char* list, size_t index, const char* what) {
    if (!condition && status_.ok())
      status_ = Status(StatusCode::InvalidEngine, "damaged engine: " + where_ + list + " " +
                                                      std::to_string(index) + ": " + what);
    return condition;
  }

  // Of sizes that begin with slot `first`.
  void check_sizes(const std::vector<SizeInstruction>& sizes, size_t first) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const SizeInstruction& size = sizes[i];
      const auto slot = static_cast<int64_t>(first + i);
      if (!expect(size.op <= SizeOp::Max, "size", first + i, "unknown operation")) continue;
      if (size.op == SizeOp::Constant) continue;
      if (size.op == SizeOp::Symbol) {
        const size_t symbols = spec_.symbols.size() + spec_.data_sizes.size();
        if (expect(size.immediate >= 0 && static_cast<uint64_t>(size.immediate) < symbols, "size",
                   first + i, "unknown symbol"))
          expect(!is_before_bound(size, slot), "size", first + i, "its bound is no earlier size");
        continue;
      }
      expect(size.a >= 0 && size.a < slot && size.b >= 0 && size.b < slot, "size", first + i,
             "an operand is not an earlier size");
    }
  }

  // Whether a slot has the value of a data size whose bound comes later; its symbol exists.
  bool is_before_bound(const SizeInstruction& size, int64_t slot) const {
    const int64_t number = size.immediate - static_cast<int64_t>(spec_.symbols.size());
    return is_index(number, spec_.data_sizes) &&
           spec_.data_sizes[static_cast<size_t>(number)].bound >= slot;
  }

  const Spec& spec_;
  const std::string where_;
  Status status_;
};

class InterfaceChecker : Checker {
 public:
  explicit InterfaceChecker(const Spec& spec) : Checker(spec) {}

  Status run() {
    check_symbols();
    check_sizes(spec_.sizes, 0);
    check_tensors("input", spec_.inputs);
    check_tensors("output", spec_.outputs);
    check_updates();
    check_requirements();
    check_data_sizes();
    check_programs();
    return std::move(status_);
  }

 private:
  void check_symbols() {
    for (size_t i = 0; i < spec_.symbols.size(); ++i) {
      const SymbolSpec& symbol = spec_.symbols[i];
      const bool found =
          is_index(symbol.input, spec_.inputs) &&
          is_index(symbol.dim, spec_.inputs[static_cast<size_t>(symbol.input)].shape);
      expect(found, "symbol", i, "its input dimension does not exist");
      expect(0 <= symbol.min && symbol.min <= symbol.opt && symbol.opt <= symbol.max, "symbol", i,
             "its range is not in order");
      expect(
          symbol.factor >= 1 && symbol.offset >= -kLargestOffset && symbol.offset <= kLargestOffset,
          "symbol", i, "its factor or offset is out of range");
    }
  }

  void check_tensors(const char* list, const std::vector<TensorSpec>& tensors) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      expect(static_cast<int>(tensors[i].dtype) < kDTypeCount, list, i, "unknown dtype");
      expect(tensors[i].shape.size() <= kMaxRank, list, i, "its rank is too high");
      for (const Slot slot : tensors[i].shape)
        expect(is_index(slot, spec_.sizes), list, i, "unknown size");
    }
  }

  // A reader that does not know of them must not run such a program.
  void check_updates() {
    std::vector<bool> updated(spec_.inputs.size(), false);
    bool any = false;
    for (size_t i = 0; i < spec_.inputs.size(); ++i)
      expect(spec_.inputs[i].updates == -1, "input", i, "it updates another");
    for (size_t i = 0; i < spec_.outputs.size(); ++i) {
      const TensorSpec& output = spec_.outputs[i];
      if (output.updates == -1) continue;
      any = true;
      if (!expect(is_index(output.updates, spec_.inputs), "output", i,
                  "it updates an unknown input"))
        continue;
      const auto at = static_cast<size_t>(output.updates);
      expect(output.dtype == spec_.inputs[at].dtype && output.shape == spec_.inputs[at].shape,
             "output", i, "it updates an input of another type");
      expect(!updated[at], "output", i, "it updates an input that another one updates");
      updated[at] = true;
    }
    for (size_t i = 0; i < spec_.programs.size() && any; ++i)
      expect(spec_.programs[i].version > kPlainProgramVersion, "program", i,
             "its version has no outputs that update inputs");
  }

  void check_requirements() {
    for (size_t i = 0; i < spec_.requirements.size(); ++i) {
      const RequirementSpec& requirement = spec_.requirements[i];
      expect(is_index(requirement.condition, spec_.sizes), "requirement", i, "unknown size");
      expect(requirement.kind <= RequirementKind::Index, "requirement", i, "unknown kind");
    }
  }

  // What is known when: a size is checked against what was known before it, and inputs against what they
  // say themselves. A reader that does not know of such sizes must not run the programs.
  void check_data_sizes() {
    if (spec_.data_sizes.empty() || !status_.ok()) return;
    const std::vector<int32_t> known = known_after(spec_);
    for (size_t i = 0; i < spec_.data_sizes.size(); ++i) {
      const DataSizeSpec& size = spec_.data_sizes[i];
      expect(0 <= size.min && size.min <= size.opt && size.opt <= size.max, "data size", i,
             "its range is not in order");
      if (size.bound == -1) continue;
      if (expect(is_index(size.bound, spec_.sizes), "data size", i, "unknown bound"))
        expect(known[static_cast<size_t>(size.bound)] <= static_cast<int32_t>(i), "data size", i,
               "its bound is known after it");
    }
    for (size_t i = 0; i < spec_.inputs.size(); ++i)
      for (const Slot slot : spec_.inputs[i].shape)
        expect(known[static_cast<size_t>(slot)] == 0, "input", i, "its shape depends on data");
    for (size_t i = 0; i < spec_.programs.size(); ++i)
      expect(spec_.programs[i].version > kUpdateProgramVersion, "program", i,
             "its version has no sizes that depend on data");
  }

  void check_programs() {
    expect(!spec_.programs.empty(), "program", 0, "there is none");
    for (size_t i = 0; i < spec_.programs.size(); ++i) {
      const ProgramSpec& program = spec_.programs[i];
      expect(!program.target.empty(), "program", i, "it says no target");
      for (const std::string& name : program.features)
        expect(!name.empty() && name.find(' ') == std::string::npos, "program", i,
               "the name of a feature is empty or has a space");
    }
  }
};

class ProgramChecker : Checker {
 public:
  ProgramChecker(const Spec& spec, const ProgramSpec& program, std::optional<uint64_t> weights_size)
      : Checker(spec, program.name() + ": "), program_(program), weights_size_(weights_size) {}

  Status run() {
    check_sizes(program_.sizes, spec_.sizes.size());
    check_buffers();
    check_aliases();
    check_kernels();
    check_steps();
    check_data_sizes();
    check_repeats();
    return std::move(status_);
  }

 private:
  bool is_slot(Slot slot) const {
    return slot >= 0 && static_cast<size_t>(slot) < spec_.sizes.size() + program_.sizes.size();
  }

  void check_buffers() {
    for (size_t i = 0; i < program_.buffers.size(); ++i) {
      const BufferSpec& buffer = program_.buffers[i];
      if (!expect(buffer.kind <= BufferKind::Temporary, "buffer", i, "unknown kind")) continue;
      if (buffer.kind == BufferKind::Constant) {
        if (buffer.is_made_at_load())
          check_made(buffer, i);
        else
          expect(lies_in_weights(buffer), "buffer", i, "it lies outside the weights");
        continue;
      }
      expect(is_slot(buffer.bytes), "buffer", i, "unknown size");
      if (buffer.kind == BufferKind::Input)
        expect(is_index(buffer.index, spec_.inputs), "buffer", i, "unknown input");
      else if (buffer.kind == BufferKind::Output)
        expect(is_index(buffer.index, spec_.outputs), "buffer", i, "unknown output");
      else
        expect(0 <= buffer.first_step && buffer.first_step <= buffer.last_step &&
                   is_index(buffer.last_step, program_.steps),
               "buffer", i, "its lifetime is not a range of steps");
    }
  }

  // Sizes say that a load reads and writes inside of both.
  void check_made(const BufferSpec& buffer, size_t i) {
    expect(program_.version > kCallProgramVersion, "buffer", i,
           "the version of its program has no constants that a load makes");
    expect(buffer.offset == 0, "buffer", i, "it is made by a load and lies in the weights");
    if (!expect(is_index(buffer.winograd.filters, program_.buffers), "buffer", i,
                "it is made of an unknown buffer"))
      return;
    const BufferSpec& filters = program_.buffers[static_cast<size_t>(buffer.winograd.filters)];
    if (!expect(filters.kind == BufferKind::Constant && !filters.is_made_at_load(), "buffer", i,
                "it is made of a buffer that is not in the weights"))
      return;
    const int64_t from = winograd_filter_bytes(buffer.winograd),
                  to = winograd_bytes(buffer.winograd);
    expect(from > 0 && static_cast<uint64_t>(from) == filters.constant_bytes && to > 0 &&
               static_cast<uint64_t>(to) == buffer.constant_bytes,
           "buffer", i, "it is made of filters of another size");
  }

  bool lies_in_weights(const BufferSpec& buffer) const {
    if (!weights_size_) return buffer.offset == 0;
    return buffer.offset % kConstantAlignment == 0 && buffer.offset <= *weights_size_ &&
           buffer.constant_bytes <= *weights_size_ - buffer.offset;
  }

  // Following alias_of must end: every chain is walked once, marked as it goes.
  void check_aliases() {
    enum class Mark : uint8_t { New, Walking, Done };
    std::vector<Mark> marks(program_.buffers.size(), Mark::New);
    for (size_t i = 0; i < program_.buffers.size(); ++i) {
      size_t at = i;
      while (marks[at] == Mark::New && program_.buffers[at].alias_of != -1) {
        marks[at] = Mark::Walking;
        if (!expect(is_alias_target(program_.buffers[at]), "buffer", at, "it aliases no temporary"))
          return;
        at = static_cast<size_t>(program_.buffers[at].alias_of);
      }
      if (!expect(marks[at] != Mark::Walking, "buffer", at, "it is an alias of itself")) return;
      mark_chain(i, marks, Mark::Done);
    }
  }

  bool is_alias_target(const BufferSpec& buffer) const {
    return buffer.kind == BufferKind::Temporary && is_index(buffer.alias_of, program_.buffers) &&
           program_.buffers[static_cast<size_t>(buffer.alias_of)].kind == BufferKind::Temporary;
  }

  template <typename Mark>
  void mark_chain(size_t at, std::vector<Mark>& marks, Mark done) const {
    while (marks[at] != done) {
      marks[at] = done;
      if (program_.buffers[at].alias_of == -1) return;
      at = static_cast<size_t>(program_.buffers[at].alias_of);
    }
  }

  void check_kernels() {
    for (size_t i = 0; i < program_.kernels.size(); ++i) {
      const uint64_t entry = program_.kernels[i].entry;
      expect(entry == kNoEntry || entry < program_.code.size(), "kernel", i,
             "its entry point lies outside the code");
    }
  }

  void check_steps() {
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const StepSpec& step = program_.steps[i];
      if (expect(is_index(step.kernel, program_.kernels), "step", i, "unknown kernel"))
        check_kind(step, program_.kernels[static_cast<size_t>(step.kernel)], i);
      expect(step.scratch_bytes == -1 || is_slot(step.scratch_bytes), "step", i,
             "unknown scratch size");
      for (const Slot slot : {step.operations, step.bytes})
        expect(slot == -1 || is_slot(slot), "step", i, "unknown amount of work");
      for (const Slot slot : step.params) expect(is_slot(slot), "step", i, "unknown parameter");
      expect(step.writes.size() == step.buffers.size(), "step", i,
             "it does not say of every buffer what it writes");
      for (const Slot slot : step.writes)
        expect(slot == -1 || is_slot(slot), "step", i, "unknown size of what it writes");
      for (const int32_t buffer : step.buffers)
        if (expect(is_index(buffer, program_.buffers), "step", i, "unknown buffer"))
          expect(is_live(program_.buffers[static_cast<size_t>(buffer)], i), "step", i,
                 "it uses a temporary outside its lifetime");
      check_checks(step.checks, i);
    }
  }

  void check_kind(const StepSpec& step, const KernelSpec& kernel, size_t i) {
    switch (step.kind) {
      case StepKind::Tasks:
        expect(kernel.entry != kNoEntry, "step", i, "its kernel has no entry point");
        expect(is_slot(step.tasks), "step", i, "unknown number of tasks");
        expect(step.min_tasks_per_thread >= 1, "step", i, "fewer than one task per thread");
        break;
      case StepKind::Launch:
        expect(!kernel.function.empty(), "step", i, "its kernel has no function");
        check_grid(step.launch.grid, i);
        check_grid(step.launch.block, i);
        expect(step.launch.shared_bytes == -1 || is_slot(step.launch.shared_bytes), "step", i,
               "unknown size of shared memory");
        for (const TensorMapSpec& map : step.launch.tensor_maps) check_tensor_map(step, map, i);
        break;
      case StepKind::Call:
        expect(!kernel.function.empty(), "step", i, "its kernel has no function");
        if (program_.target == "cpu" && program_.version > kRepeatProgramVersion)
          check_call(step, i);
    }
  }

  // The value of a parameter that is the same for all shapes.
  std::optional<int64_t> constant_param(const StepSpec& step, size_t index) const {
    if (index >= step.params.size() || !is_slot(step.params[index])) return std::nullopt;
    const auto slot = static_cast<size_t>(step.params[index]), own = spec_.sizes.size();
    const SizeInstruction& size = slot < own ? spec_.sizes[slot] : program_.sizes[slot - own];
    return size.op == SizeOp::Constant ? std::optional(size.immediate) : std::nullopt;
  }

  // What a kernel of the user's own is told of its tensors; the sizes are compared with the buffers when they are
  // known.
  void check_call(const StepSpec& step, size_t i) {
    size_t params = 0;
    bool writes = false;
    for (size_t k = 0; k < step.buffers.size() && k < step.writes.size(); ++k) {
      const auto dtype = constant_param(step, params), rank = constant_param(step, params + 1);
      expect(dtype && *dtype >= 0 && *dtype < kDTypeCount, "step", i,
             "a tensor of its call has no dtype");
      if (!expect(rank && *rank >= 0 && *rank <= static_cast<int64_t>(kMaxRank), "step", i,
                  "a tensor of its call has no rank"))
        return;
      params += 2 + static_cast<size_t>(*rank);
      const bool is_written = step.writes[k] != -1;
      expect(is_written || !writes, "step", i, "its call reads a tensor behind one that it writes");
      writes |= is_written;
      if (!is_written || !is_index(step.buffers[k], program_.buffers)) continue;
      const BufferKind kind = program_.buffers[static_cast<size_t>(step.buffers[k])].kind;
      expect(kind == BufferKind::Output || kind == BufferKind::Temporary, "step", i,
             "its call writes an input or a constant");
      expect(std::ranges::count(step.buffers, step.buffers[k]) == 1, "step", i,
             "its call writes a tensor that it has twice");
    }
    expect(params == step.params.size(), "step", i,
           "its call has another number of sizes than its tensors");
  }

  void check_tensor_map(const StepSpec& step, const TensorMapSpec& map, size_t i) {
    constexpr size_t kMostAxes = 5;
    const size_t axes = map.sizes.size();
    expect(is_index(map.buffer, step.buffers), "step", i, "it maps a buffer that it does not use");
    expect(static_cast<int>(map.dtype) < kDTypeCount, "step", i, "unknown dtype of a tensor map");
    expect(is_slot(map.offset), "step", i, "unknown offset of a tensor map");
    const bool is_image = !map.lower_corner.empty();
    expect(axes >= 1 && axes <= kMostAxes && map.strides.size() + 1 == axes &&
               (map.element_strides.empty() || map.element_strides.size() == axes) &&
               (is_image ? axes >= 3 && map.lower_corner.size() + 2 == axes &&
                               map.upper_corner.size() + 2 == axes
                         : map.box.size() == axes && map.upper_corner.empty()),
           "step", i, "a tensor map with too few or too many axes");
    for (const Slot slot : map.sizes)
      expect(is_slot(slot), "step", i, "unknown size of a tensor map");
    for (const Slot slot : map.strides)
      expect(is_slot(slot), "step", i, "unknown stride of a tensor map");
  }

  void check_grid(const std::vector<Slot>& sizes, size_t step) {
    expect(sizes.size() >= 1 && sizes.size() <= 3, "step", step,
           "its grid or block has not 1 to 3 sizes");
    for (const Slot slot : sizes)
      expect(is_slot(slot), "step", step, "unknown size of a grid or block");
  }

  void check_checks(const std::vector<CheckSpec>& checks, size_t step) {
    expect(checks.size() <= kMostChecks, "step", step, "it has more checks than a kernel has bits");
    for (const CheckSpec& check : checks) {
      expect(check.kind <= CheckKind::Nonzero, "step", step, "unknown kind of check");
      expect(check.kind == CheckKind::Nonzero ? check.size == -1 : is_slot(check.size), "step",
             step, "unknown size of a check");
      expect(check.input == -1 || is_index(check.input, spec_.inputs), "step", step,
             "unknown input of a check");
    }
  }

  // A step has what is known before it, and so has a buffer when it begins to live.
  void check_data_sizes() {
    const std::vector<DataSizeSource>& sizes = program_.data_sizes;
    expect(sizes.size() == spec_.data_sizes.size(), "data size", sizes.size(),
           "it has another number of them than the interface");
    if (!status_.ok() || sizes.empty()) return;
    known_ = known_after(spec_, &program_);
    for (size_t i = 0; i < sizes.size(); ++i) check_source(i);
    for (size_t i = 0; i < program_.buffers.size() && status_.ok(); ++i) check_begin(i);
    for (size_t i = 0; i < program_.steps.size() && status_.ok(); ++i) check_known(i);
  }

  // How many data sizes are known when a step runs.
  int32_t known_at(size_t step) const {
    const auto unknown = std::ranges::upper_bound(program_.data_sizes, static_cast<int64_t>(step),
                                                  {}, &DataSizeSource::step);
    return static_cast<int32_t>(unknown - program_.data_sizes.begin());
  }
  bool is_known(Slot slot, int32_t sizes) const {
    return slot == -1 || known_[static_cast<size_t>(slot)] <= sizes;
  }

  // Ranges of steps without a step in common, or one within the other; no size is found in between.
  void check_repeats() {
    const std::vector<RepeatSpec>& repeats = program_.repeats;
    expect(repeats.empty() || program_.version > kDataSizeProgramVersion, "repeat", 0,
           "the version of its program has none");
    std::vector<int32_t> open;  // where those end that the next may be in
    for (size_t i = 0; i < repeats.size() && status_.ok(); ++i) {
      const RepeatSpec& repeat = repeats[i];
      const bool is_range = 1 <= repeat.first_step && repeat.first_step < repeat.end_step &&
                            is_index(repeat.end_step - 1, program_.steps);
      if (!expect(is_range, "repeat", i, "it is no range of steps behind another step")) return;
      while (!open.empty() && open.back() <= repeat.first_step) open.pop_back();
      expect(i == 0 || repeats[i - 1].first_step <= repeat.first_step, "repeat", i,
             "it is out of order");
      expect(open.empty() || repeat.end_step <= open.back(), "repeat", i,
             "it ends behind the one that it is in");
      open.push_back(repeat.end_step);
      check_condition(repeat, i);
      expect(known_at(static_cast<size_t>(repeat.first_step)) ==
                 known_at(static_cast<size_t>(repeat.end_step) - 1),
             "repeat", i, "a size is found within it");
    }
  }

  void check_condition(const RepeatSpec& repeat, size_t i) {
    if (!expect(is_index(repeat.buffer, program_.buffers), "repeat", i, "unknown buffer")) return;
    const BufferSpec& buffer = program_.buffers[static_cast<size_t>(repeat.buffer)];
    expect(buffer.kind == BufferKind::Output || buffer.kind == BufferKind::Temporary, "repeat", i,
           "its condition is not written");
    expect(is_live(buffer, static_cast<size_t>(repeat.first_step) - 1) &&
               is_live(buffer, static_cast<size_t>(repeat.end_step) - 1),
           "repeat", i, "its condition is not there all the time");
    if (!known_.empty())
      expect(is_known(buffer.bytes, known_at(static_cast<size_t>(repeat.first_step) - 1)), "repeat",
             i, "the size of its condition is not known");
  }

  void check_source(size_t i) {
    const DataSizeSource& size = program_.data_sizes[i];
    const int32_t before = i == 0 ? 1 : program_.data_sizes[i - 1].step;
    const bool in_order =
        size.step >= before && static_cast<uint64_t>(size.step) <= program_.steps.size();
    if (!expect(in_order, "data size", i, "it is read out of order") ||
        !expect(is_index(size.buffer, program_.buffers), "data size", i, "unknown buffer"))
      return;
    const BufferSpec& buffer = program_.buffers[static_cast<size_t>(size.buffer)];
    const auto step = static_cast<size_t>(size.step) - 1;
    expect(buffer.kind == BufferKind::Output || buffer.kind == BufferKind::Temporary, "data size",
           i, "its buffer is not written");
    expect(is_live(buffer, step), "data size", i, "its buffer is not there any more");
    expect(is_known(buffer.bytes, known_at(step)), "data size", i,
           "its buffer's size depends on it");
  }

  void check_begin(size_t i) {
    const BufferSpec& buffer = program_.buffers[i];
    if (buffer.kind != BufferKind::Temporary) return;
    const int32_t known = known_at(static_cast<size_t>(buffer.first_step));
    expect(is_known(buffer.bytes, known), "buffer", i, "its size is not known when it begins");
    if (buffer.alias_of == -1) return;
    const BufferSpec& target = program_.buffers[static_cast<size_t>(buffer.alias_of)];
    expect(known_at(static_cast<size_t>(target.first_step)) == known, "buffer", i,
           "it aliases one that begins with other sizes");
  }

  void check_known(size_t i) {
    const StepSpec& step = program_.steps[i];
    const int32_t known = known_at(i);
    bool all = is_known(step.tasks, known) && is_known(step.scratch_bytes, known);
    for (const Slot slot : step.params) all &= is_known(slot, known);
    for (const Slot slot : step.writes) all &= is_known(slot, known);
    for (const CheckSpec& check : step.checks) all &= is_known(check.size, known);
    for (const int32_t buffer : step.buffers)
      all &= is_known(program_.buffers[static_cast<size_t>(buffer)].bytes, known);
    expect(all, "step", i, "it uses a size that is not known yet");
  }

  static bool is_live(const BufferSpec& buffer, size_t step) {
    const auto at = static_cast<int64_t>(step);
    return buffer.kind != BufferKind::Temporary ||
           (buffer.first_step <= at && at <= buffer.last_step);
  }

  const ProgramSpec& program_;
  const std::optional<uint64_t> weights_size_;
  std::vector<int32_t> known_;  // by slot: data sizes that are known before it is
};

}  // namespace

Status validate_interface(const Spec& spec) { return InterfaceChecker(spec).run(); }

Status validate_program(const Spec& spec, const ProgramSpec& program,
                        std::optional<uint64_t> weights_size) {
  return ProgramChecker(spec, program, weights_size).run();
}

std::string unknown_of_head(const ProgramSpec& program) {
  if (std::ranges::find(kTargets, program.target) == kTargets.end())
    return "the target \"" + program.target + "\"";
  if (program.version < kPlainProgramVersion || program.version > kProgramVersion)
    return "version " + std::to_string(program.version) + " of programs";
  return "";
}

std::string unknown_of(const ProgramSpec& program) {
  if (std::string unknown = unknown_of_head(program); !unknown.empty()) return unknown;
  if (!program.data_sizes.empty() && program.target != "cpu")
    return "sizes that depend on data in a program for " + program.target;
  if (!program.repeats.empty() && program.target != "cpu")
    return "steps that repeat in a program for " + program.target;
  if (program.target != "cpu" && std::ranges::any_of(program.buffers, &BufferSpec::is_made_at_load))
    return "constants that a load makes in a program for " + program.target;
  for (size_t i = 0; i < program.steps.size(); ++i)
    if (program.steps[i].kind > StepKind::Call)
      return "the kind of step " + std::to_string(i) + ", " +
             std::to_string(static_cast<int>(program.steps[i].kind));
  return "";
}

}  // namespace kiln::engine
