#include "runtime/binding.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/requirement_check.h"
#include "runtime/size_program.h"
#include "runtime/workspace.h"
#include "support/aligned_buffer.h"

namespace kiln::runtime {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::ProgramSpec;
using engine::Slot;
using engine::Spec;
using engine::StepSpec;

using Sizes = std::span<const int64_t>;

// Of the part behind another one, for the sizes that were found.
constexpr size_t kMostNext = 8;

int64_t at(Sizes sizes, Slot slot) { return sizes[static_cast<size_t>(slot)]; }
bool is_sane(int64_t size) { return size >= 0 && size <= kLargestSize; }

Status bad_size(const std::string& what, int64_t size) {
  return Status(StatusCode::OutOfRange, what + " has the size " + std::to_string(size) +
                                            " for these input shapes, expected 0.." +
                                            std::to_string(kLargestSize));
}

Result<BoundTensor> bind_tensor(const engine::TensorSpec& tensor, Sizes sizes) {
  BoundTensor bound;
  bound.dtype = tensor.dtype;
  bound.bytes = dtype_size(tensor.dtype);
  for (const Slot slot : tensor.shape) {
    const int64_t extent = at(sizes, slot);
    if (!is_sane(extent)) return bad_size("a dimension of \"" + tensor.name + "\"", extent);
    bound.shape.push_back(extent);
  }
  // Zero elements, however large the other dimensions are.
  if (std::ranges::count(bound.shape, 0) > 0) bound.bytes = 0;
  for (const int64_t extent : bound.shape)
    if (__builtin_mul_overflow(bound.bytes, static_cast<uint64_t>(extent), &bound.bytes) ||
        bound.bytes > static_cast<uint64_t>(kLargestSize))
      return Status(StatusCode::OutOfRange,
                    "\"" + tensor.name + "\" is too large: " + shape_str(bound.shape));
  return bound;
}

// The units of a step: tasks, blocks of a grid, or the one call.
int64_t units_of(const StepSpec& step, Sizes sizes) {
  if (step.kind == engine::StepKind::Tasks) return at(sizes, step.tasks);
  int64_t units = 1;
  if (step.kind == engine::StepKind::Launch)
    for (const Slot slot : step.launch.grid)
      if (const int64_t size = at(sizes, slot); __builtin_mul_overflow(units, size, &units))
        return -1;
  return units;
}

// An interface, a program of it, and values for all slots that are known in a part of it.
class SizedProgram {
 public:
  // The symbols are within their ranges. `found` of them are data sizes: as many as a part begins with.
  static Result<SizedProgram> create(const Spec& spec, const ProgramSpec& program,
                                     const std::vector<int64_t>& symbols) {
    Result<std::vector<int64_t>> sizes = evaluate_sizes(spec, program, symbols);
    if (!sizes.ok()) return sizes.status();
    SizedProgram sized(spec, program, symbols.size() - spec.symbols.size());
    sized.sizes = std::move(*sizes);
    KILN_RETURN_IF_ERROR(sized.bind_tensors(symbols));
    KILN_RETURN_IF_ERROR(sized.check_buffers());
    KILN_RETURN_IF_ERROR(sized.check_steps());
    KILN_RETURN_IF_ERROR(sized.check_writes(symbols));
    Result<WorkspacePlan> plan =
        plan_workspace(program, sized.sizes, sized.buffer_parts, static_cast<int32_t>(sized.part));
    if (!plan.ok()) return plan.status();
    sized.workspace = std::move(*plan);
    return sized;
  }

  // The most that any step of the part needs of it for one thread.
  uint64_t scratch_bytes() const {
    uint64_t bytes = 0;
    for (size_t i = steps().first_step; i < steps().end_step; ++i)
      if (const Slot slot = program_->steps[i].scratch_bytes; slot != -1)
        bytes = std::max(bytes, static_cast<uint64_t>(at(sizes, slot)));
    return align_up(bytes, kTensorAlignment);
  }

  const ProgramPart& steps() const { return parts[part]; }
  bool is_last() const { return part + 1 == parts.size(); }

  std::vector<int64_t> sizes;
  std::vector<BoundTensor> inputs, outputs;
  std::vector<bool> known_outputs;  // empty: all are
  WorkspacePlan workspace;
  std::vector<ProgramPart> parts;
  size_t part = 0;
  std::vector<int32_t> buffer_parts;  // of a program with data sizes

 private:
  SizedProgram(const Spec& spec, const ProgramSpec& program, size_t found)
      : parts(parts_of(program)), spec_(&spec), program_(&program), found_(found) {
    while (parts[part].known < found && !is_last()) ++part;
    if (spec.data_sizes.empty()) return;
    buffer_parts = parts_of_buffers(program, parts);
    known_after_ = engine::known_after(spec, &program);
  }

  bool is_known(Slot slot) const {
    return known_after_.empty() ||
           static_cast<size_t>(known_after_[static_cast<size_t>(slot)]) <= found_;
  }

  Status bind_tensors(std::span<const int64_t> symbols) {
    for (const auto& [tensors, bound] :
         {std::pair(&spec_->inputs, &inputs), std::pair(&spec_->outputs, &outputs)})
      for (const engine::TensorSpec& tensor : *tensors) {
        if (!std::ranges::all_of(tensor.shape, [&](Slot slot) { return is_known(slot); })) {
          bound->push_back(largest(tensor, symbols));
          continue;
        }
        Result<BoundTensor> result = bind_tensor(tensor, sizes);
        if (!result.ok()) return result.status();
        bound->push_back(std::move(*result));
      }
    return Status();
  }

  // What an output may be at most; its memory is asked for when its shape is known.
  BoundTensor largest(const engine::TensorSpec& tensor, std::span<const int64_t> symbols) {
    known_outputs.resize(spec_->outputs.size(), true);
    known_outputs[outputs.size()] = false;
    const std::vector<SizeRange> ranges = size_ranges(*spec_, symbols);
    BoundTensor bound{tensor.dtype, {}, 0};
    for (const Slot slot : tensor.shape)
      bound.shape.push_back(std::max<int64_t>(ranges[static_cast<size_t>(slot)].max, 0));
    return bound;
  }

  // Kernels read and write whole buffers: the sizes they were compiled for must be those of the
  // tensors behind them.
  Status check_buffers() const {
    for (size_t i = 0; i < program_->buffers.size(); ++i) {
      const BufferSpec& buffer = program_->buffers[i];
      if (buffer.kind == BufferKind::Constant || !is_known(buffer.bytes)) continue;
      const int64_t bytes = at(sizes, buffer.bytes);
      if (!is_sane(bytes)) return bad_size("buffer " + std::to_string(i), bytes);
      if (buffer.kind == BufferKind::Temporary) continue;
      const bool is_input = buffer.kind == BufferKind::Input;
      const auto index = static_cast<size_t>(buffer.index);
      const bool has_shape = is_input || known_outputs.empty() || known_outputs[index];
      const BoundTensor& tensor = is_input ? inputs[index] : outputs[index];
      // However many rows data finds, of no elements each they have none.
      if (!has_shape && bytes == 0) continue;
      if (!has_shape || tensor.bytes != static_cast<uint64_t>(bytes))
        return Status(StatusCode::InvalidEngine, "damaged engine: buffer " + std::to_string(i) +
                                                     " has another size than its tensor");
    }
    return check_counts();
  }

  // A data size is read where it was written: 8 bytes. So is a condition.
  Status check_counts() const {
    for (const engine::DataSizeSource& size : program_->data_sizes) {
      const Slot bytes = program_->buffers[static_cast<size_t>(size.buffer)].bytes;
      if (is_known(bytes) && at(sizes, bytes) != static_cast<int64_t>(sizeof(int64_t)))
        return Status(StatusCode::InvalidEngine, "damaged engine: buffer " +
                                                     std::to_string(size.buffer) +
                                                     " holds no size that depends on data");
    }
    for (const engine::RepeatSpec& repeat : program_->repeats) {
      const Slot bytes = program_->buffers[static_cast<size_t>(repeat.buffer)].bytes;
      if (is_known(bytes) && at(sizes, bytes) < 1)
        return Status(
            StatusCode::InvalidEngine,
            "damaged engine: buffer " + std::to_string(repeat.buffer) + " holds no condition");
    }
    return Status();
  }

  Status check_steps() const {
    for (size_t i = steps().first_step; i < steps().end_step; ++i) {
      const StepSpec& step = program_->steps[i];
      const int64_t units = units_of(step, sizes);
      if (!is_sane(units)) return bad_size("step " + std::to_string(i), units);
      const int64_t scratch = step.scratch_bytes == -1 ? 0 : at(sizes, step.scratch_bytes);
      if (!is_sane(scratch)) return bad_size("the scratch of step " + std::to_string(i), scratch);
    }
    return Status();
  }

  // Every byte that a later step or the caller reads must have been promised to some unit: whatever
  // went wrong with the number of tasks, memory that nobody wrote is never a result. Of a buffer that
  // is said when the part ends in which it is used last.
  Status check_writes(const std::vector<int64_t>& symbols) const {
    const std::vector<BufferSpec>& buffers = program_->buffers;
    const std::vector<int32_t> repeats = engine::innermost_repeats(*program_);
    std::vector<uint64_t> promised(buffers.size(), 0);
    std::vector<bool> wanted(buffers.size(), false);  // temporaries that are read
    for (const engine::DataSizeSource& size : program_->data_sizes)
      wanted[static_cast<size_t>(size.buffer)] = true;
    for (const engine::RepeatSpec& repeat : program_->repeats)
      wanted[static_cast<size_t>(repeat.buffer)] = true;
    for (size_t i = 0; i < steps().end_step; ++i) {
      const StepSpec& step = program_->steps[i];
      const auto units = static_cast<uint64_t>(units_of(step, sizes));
      const int32_t repeat = repeats.empty() ? -1 : repeats[i];
      for (size_t k = 0; k < step.writes.size(); ++k) {
        const auto buffer = static_cast<size_t>(step.buffers[k]);
        if (step.writes[k] == -1) {
          wanted[buffer] = buffers[buffer].kind == BufferKind::Temporary;
          continue;
        }
        if (!runs_always(buffers[buffer], repeat)) continue;
        const int64_t each = at(sizes, step.writes[k]);
        if (each < 0) return bad_size("what a task of step " + std::to_string(i) + " writes", each);
        uint64_t bytes = 0, &sum = promised[buffer];
        if (__builtin_mul_overflow(static_cast<uint64_t>(each), units, &bytes) ||
            __builtin_add_overflow(sum, bytes, &sum))
          sum = std::numeric_limits<uint64_t>::max();
      }
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      if (!is_due(buffers[i], wanted[i])) continue;
      const auto bytes = static_cast<uint64_t>(at(sizes, buffers[i].bytes));
      if (promised[i] < bytes) return unwritten(symbols, i, promised[i], bytes);
    }
    return Status();
  }

  // A step that repeats may never run. That counts for what others read, not for what is gone with it.
  bool runs_always(const BufferSpec& buffer, int32_t repeat) const {
    return repeat == -1 ||
           (buffer.kind == BufferKind::Temporary &&
            buffer.first_step >= program_->repeats[static_cast<size_t>(repeat)].first_step);
  }

  bool is_due(const BufferSpec& buffer, bool wanted) const {
    if (buffer.kind == BufferKind::Output) return is_last() && !updates_input(buffer);
    const auto last = static_cast<size_t>(buffer.last_step);
    return wanted && buffer.kind == BufferKind::Temporary &&
           (is_last() ? last >= steps().first_step
                      : steps().first_step <= last && last < steps().end_step);
  }

  // Holds the input to begin with.
  bool updates_input(const BufferSpec& buffer) const {
    return spec_->outputs[static_cast<size_t>(buffer.index)].updates != -1;
  }

  Status unwritten(const std::vector<int64_t>& symbols, size_t buffer, uint64_t promised,
                   uint64_t bytes) const {
    std::string where = "buffer " + std::to_string(buffer);
    const BufferSpec& found = program_->buffers[buffer];
    if (found.kind == BufferKind::Output)
      where = "output \"" + spec_->outputs[static_cast<size_t>(found.index)].name + "\"";
    std::string given;
    const size_t known = spec_->symbols.size();
    for (size_t i = 0; i < symbols.size(); ++i)
      given += (i == 0 ? " for " : ", ") +
               (i < known ? spec_->symbols[i].name : spec_->data_sizes[i - known].name) + " = " +
               std::to_string(symbols[i]);
    return Status(StatusCode::InvalidEngine,
                  "damaged engine: its steps write at most " + std::to_string(promised) +
                      " of the " + std::to_string(bytes) + " bytes of " + where + given);
  }

  const Spec* spec_;
  const ProgramSpec* program_;
  size_t found_;                      // data sizes
  std::vector<int32_t> known_after_;  // by slot; of a program with data sizes
};

}  // namespace

bool BoundTensor::matches(const TensorView& tensor) const {
  return tensor.dtype == dtype && std::ranges::equal(tensor.shape, shape);
}

Result<std::unique_ptr<Binding>> Binding::create(const Engine& engine, std::vector<int64_t> symbols,
                                                 const Placement& placement) {
  return create(engine, std::move(symbols), placement, nullptr);
}

Result<std::unique_ptr<Binding>> Binding::create(const Engine& engine, std::vector<int64_t> symbols,
                                                 const Placement& placement,
                                                 const Binding* before) {
  Result<SizedProgram> sized = SizedProgram::create(engine.spec(), *engine.program(), symbols);
  if (!sized.ok()) return sized.status();
  std::vector<uint64_t>& offsets = sized->workspace.offsets;
  if (before != nullptr)
    for (size_t i = 0; i < offsets.size(); ++i)
      if (sized->buffer_parts[i] < static_cast<int32_t>(sized->part))
        offsets[i] = before->offsets_[i];
  Result<std::unique_ptr<BoundProgram>> program =
      engine.executable()->bind({.sizes = sized->sizes,
                                 .offsets = offsets,
                                 .temporary_bytes = sized->workspace.size,
                                 .parts = sized->buffer_parts,
                                 .part = static_cast<int32_t>(sized->part),
                                 .first_step = sized->steps().first_step,
                                 .end_step = sized->steps().end_step,
                                 .threads = placement.threads,
                                 .device = placement.device,
                                 .weight_budget = placement.weight_budget});
  if (!program.ok()) return program.status();
  std::unique_ptr<Binding> binding(new Binding);
  binding->symbols_ = std::move(symbols);
  binding->inputs_ = std::move(sized->inputs);
  binding->outputs_ = std::move(sized->outputs);
  binding->known_outputs_ = std::move(sized->known_outputs);
  binding->program_ = std::move(*program);
  const std::vector<int32_t> repeats = engine::innermost_repeats(*engine.program());
  for (size_t i = sized->steps().first_step; i < sized->steps().end_step; ++i) {
    const StepSpec& step = engine.program()->steps[i];
    const auto known = [&](Slot slot) { return slot == -1 ? -1 : at(sized->sizes, slot); };
    const bool is_counted = repeats.empty() || repeats[i] == -1;  // not how often
    binding->work_.push_back(is_counted ? StepWork{known(step.operations), known(step.bytes)}
                                        : StepWork{});
  }
  if (engine.spec().data_sizes.empty()) return binding;
  const size_t known = sized->steps().known;
  binding->part_ = sized->part;
  binding->ends_with_ = {known, sized->is_last() ? known : sized->parts[sized->part + 1].known};
  binding->offsets_ = std::move(offsets);
  binding->buffer_parts_ = std::move(sized->buffer_parts);
  return binding;
}

Result<Binding*> Binding::next(const Engine& engine, std::span<const int64_t> found,
                               const Placement& placement) {
  const auto is_of = [&](const std::unique_ptr<Binding>& binding) {
    return std::ranges::equal(std::span(binding->symbols_).subspan(symbols_.size()), found);
  };
  const auto known = std::ranges::find_if(next_, is_of);
  if (known != next_.end()) {
    std::rotate(next_.begin(), known, known + 1);
    return next_.front().get();
  }
  std::vector<int64_t> symbols = symbols_;
  symbols.insert(symbols.end(), found.begin(), found.end());
  KILN_RETURN_IF_ERROR(check_requirements(engine.spec(), symbols, ends_with_.first));
  Result<std::unique_ptr<Binding>> made = create(engine, std::move(symbols), placement, this);
  if (!made.ok()) return made.status();
  next_.insert(next_.begin(), std::move(*made));
  if (next_.size() > kMostNext) next_.pop_back();
  return next_.front().get();
}

std::vector<int64_t> largest_data_sizes(const Spec& spec, std::span<const int64_t> symbols) {
  const std::vector<SizeRange> ranges = size_ranges(spec, symbols);
  std::vector<int64_t> result;
  for (const engine::DataSizeSpec& size : spec.data_sizes)
    result.push_back(size.bound == -1
                         ? size.max
                         : std::min(size.max, ranges[static_cast<size_t>(size.bound)].max));
  return result;
}

Result<uint64_t> workspace_bytes(const Spec& spec, const ProgramSpec& program,
                                 const std::vector<int64_t>& symbols) {
  uint64_t bytes = 0;
  for (const ProgramPart& part : parts_of(program)) {
    const std::vector<int64_t> known(
        symbols.begin(),
        symbols.begin() + static_cast<std::ptrdiff_t>(spec.symbols.size() + part.known));
    const Result<SizedProgram> sized = SizedProgram::create(spec, program, known);
    if (!sized.ok()) return sized.status();
    bytes += sized->workspace.size + sized->scratch_bytes();
  }
  return bytes;
}

}  // namespace kiln::runtime
