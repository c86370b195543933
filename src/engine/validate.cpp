#include "engine/validate.h"

#include <string>

#include "engine/format.h"

namespace kiln::engine {
namespace {

// Collects the first failure. Every check after it is skipped over by the callers' loops or
// harmless.
class Checker {
 public:
  Checker(const Spec& spec, std::optional<uint64_t> weights_size)
      : spec_(spec), weights_size_(weights_size) {}

  Status run() {
    check_symbols();
    check_sizes();
    check_tensors("input", spec_.inputs);
    check_tensors("output", spec_.outputs);
    check_buffers();
    check_aliases();
    check_steps();
    check_variants();
    return std::move(status_);
  }

 private:
  bool expect(bool condition, const char* list, size_t index, const char* what) {
    if (!condition && status_.ok())
      status_ = Status(StatusCode::InvalidEngine, std::string("damaged engine: ") + list + " " +
                                                      std::to_string(index) + ": " + what);
    return condition;
  }

  template <typename List>
  static bool is_index(int64_t value, const List& list) {
    return value >= 0 && static_cast<uint64_t>(value) < list.size();
  }
  // Far from overflow when it is taken from a size.
  static constexpr int64_t kLargestOffset = int64_t{1} << 60;

  bool is_slot(Slot slot) const { return is_index(slot, spec_.sizes); }

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

  void check_sizes() {
    for (size_t i = 0; i < spec_.sizes.size(); ++i) {
      const SizeInstruction& size = spec_.sizes[i];
      if (!expect(size.op <= SizeOp::Max, "size", i, "unknown operation")) continue;
      if (size.op == SizeOp::Constant) continue;
      if (size.op == SizeOp::Symbol) {
        expect(is_index(size.immediate, spec_.symbols), "size", i, "unknown symbol");
        continue;
      }
      const auto slot = static_cast<int64_t>(i);
      expect(size.a >= 0 && size.a < slot && size.b >= 0 && size.b < slot, "size", i,
             "an operand is not an earlier size");
    }
  }

  void check_tensors(const char* list, const std::vector<TensorSpec>& tensors) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      expect(static_cast<int>(tensors[i].dtype) < kDTypeCount, list, i, "unknown dtype");
      expect(tensors[i].shape.size() <= kMaxRank, list, i, "its rank is too high");
      for (const Slot slot : tensors[i].shape) expect(is_slot(slot), list, i, "unknown size");
    }
  }

  void check_buffers() {
    for (size_t i = 0; i < spec_.buffers.size(); ++i) {
      const BufferSpec& buffer = spec_.buffers[i];
      if (!expect(buffer.kind <= BufferKind::Temporary, "buffer", i, "unknown kind")) continue;
      if (buffer.kind == BufferKind::Constant) {
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
                   is_index(buffer.last_step, spec_.steps),
               "buffer", i, "its lifetime is not a range of steps");
    }
  }

  bool lies_in_weights(const BufferSpec& buffer) const {
    if (!weights_size_) return buffer.offset == 0;
    return buffer.offset % kConstantAlignment == 0 && buffer.offset <= *weights_size_ &&
           buffer.constant_bytes <= *weights_size_ - buffer.offset;
  }

  // Following alias_of must end: every chain is walked once, marked as it goes.
  void check_aliases() {
    enum class Mark : uint8_t { New, Walking, Done };
    std::vector<Mark> marks(spec_.buffers.size(), Mark::New);
    for (size_t i = 0; i < spec_.buffers.size(); ++i) {
      size_t at = i;
      while (marks[at] == Mark::New && spec_.buffers[at].alias_of != -1) {
        marks[at] = Mark::Walking;
        if (!expect(is_alias_target(spec_.buffers[at]), "buffer", at, "it aliases no temporary"))
          return;
        at = static_cast<size_t>(spec_.buffers[at].alias_of);
      }
      if (!expect(marks[at] != Mark::Walking, "buffer", at, "it is an alias of itself")) return;
      mark_chain(i, marks, Mark::Done);
    }
  }

  bool is_alias_target(const BufferSpec& buffer) const {
    return buffer.kind == BufferKind::Temporary && is_index(buffer.alias_of, spec_.buffers) &&
           spec_.buffers[static_cast<size_t>(buffer.alias_of)].kind == BufferKind::Temporary;
  }

  template <typename Mark>
  void mark_chain(size_t at, std::vector<Mark>& marks, Mark done) const {
    while (marks[at] != done) {
      marks[at] = done;
      if (spec_.buffers[at].alias_of == -1) return;
      at = static_cast<size_t>(spec_.buffers[at].alias_of);
    }
  }

  void check_steps() {
    for (size_t i = 0; i < spec_.steps.size(); ++i) {
      const StepSpec& step = spec_.steps[i];
      expect(is_index(step.kernel, spec_.kernels), "step", i, "unknown kernel");
      expect(is_slot(step.tasks), "step", i, "unknown number of tasks");
      expect(step.min_tasks_per_thread >= 1, "step", i, "fewer than one task per thread");
      expect(step.scratch_bytes == -1 || is_slot(step.scratch_bytes), "step", i,
             "unknown scratch size");
      for (const Slot slot : step.params) expect(is_slot(slot), "step", i, "unknown parameter");
      expect(step.writes.empty() || step.writes.size() == step.buffers.size(), "step", i,
             "it does not say of every buffer what it writes");
      for (const Slot slot : step.writes)
        expect(slot == -1 || is_slot(slot), "step", i, "unknown size of what a task writes");
      for (const int32_t buffer : step.buffers)
        if (expect(is_index(buffer, spec_.buffers), "step", i, "unknown buffer"))
          expect(is_live(spec_.buffers[static_cast<size_t>(buffer)], i), "step", i,
                 "it uses a temporary outside its lifetime");
      check_checks(step.checks, i);
    }
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

  static bool is_live(const BufferSpec& buffer, size_t step) {
    const auto at = static_cast<int64_t>(step);
    return buffer.kind != BufferKind::Temporary ||
           (buffer.first_step <= at && at <= buffer.last_step);
  }

  void check_variants() {
    expect(!spec_.variants.empty(), "variant", 0, "there is none");
    for (size_t i = 0; i < spec_.variants.size(); ++i) {
      const CodeVariant& variant = spec_.variants[i];
      expect(variant.entry.size() == spec_.kernels.size(), "variant", i,
             "it has another number of entry points than there are kernels");
      for (const uint64_t entry : variant.entry)
        expect(entry < variant.code.size(), "variant", i, "an entry point lies outside the code");
    }
  }

  const Spec& spec_;
  const std::optional<uint64_t> weights_size_;
  Status status_;
};

}  // namespace

Status validate(const Spec& spec, std::optional<uint64_t> weights_size) {
  return Checker(spec, weights_size).run();
}

}  // namespace kiln::engine
