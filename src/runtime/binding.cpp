#include "runtime/binding.h"

#include <algorithm>
#include <limits>
#include <utility>

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

// An interface, a program of it, and values for all of their slots.
class SizedProgram {
 public:
  // The symbols are within their ranges.
  static Result<SizedProgram> create(const Spec& spec, const ProgramSpec& program,
                                     const std::vector<int64_t>& symbols) {
    Result<std::vector<int64_t>> sizes = evaluate_sizes(spec, program, symbols);
    if (!sizes.ok()) return sizes.status();
    SizedProgram sized(spec, program);
    sized.sizes = std::move(*sizes);
    KILN_RETURN_IF_ERROR(sized.bind_tensors());
    KILN_RETURN_IF_ERROR(sized.check_buffers());
    KILN_RETURN_IF_ERROR(sized.check_steps());
    KILN_RETURN_IF_ERROR(sized.check_writes(symbols));
    Result<WorkspacePlan> plan = plan_workspace(program, sized.sizes);
    if (!plan.ok()) return plan.status();
    sized.workspace = std::move(*plan);
    return sized;
  }

  // The most that any step needs of it for one thread.
  uint64_t scratch_bytes() const {
    uint64_t bytes = 0;
    for (const StepSpec& step : program_->steps)
      if (step.scratch_bytes != -1)
        bytes = std::max(bytes, static_cast<uint64_t>(at(sizes, step.scratch_bytes)));
    return align_up(bytes, kTensorAlignment);
  }

  std::vector<int64_t> sizes;
  std::vector<BoundTensor> inputs, outputs;
  WorkspacePlan workspace;

 private:
  SizedProgram(const Spec& spec, const ProgramSpec& program) : spec_(&spec), program_(&program) {}

  Status bind_tensors() {
    for (const auto& [tensors, bound] :
         {std::pair(&spec_->inputs, &inputs), std::pair(&spec_->outputs, &outputs)})
      for (const engine::TensorSpec& tensor : *tensors) {
        Result<BoundTensor> result = bind_tensor(tensor, sizes);
        if (!result.ok()) return result.status();
        bound->push_back(std::move(*result));
      }
    return Status();
  }

  // Kernels read and write whole buffers: the sizes they were compiled for must be those of the
  // tensors behind them.
  Status check_buffers() const {
    for (size_t i = 0; i < program_->buffers.size(); ++i) {
      const BufferSpec& buffer = program_->buffers[i];
      if (buffer.kind == BufferKind::Constant) continue;
      const int64_t bytes = at(sizes, buffer.bytes);
      if (!is_sane(bytes)) return bad_size("buffer " + std::to_string(i), bytes);
      if (buffer.kind == BufferKind::Temporary) continue;
      const auto& tensors = buffer.kind == BufferKind::Input ? inputs : outputs;
      if (tensors[static_cast<size_t>(buffer.index)].bytes != static_cast<uint64_t>(bytes))
        return Status(StatusCode::InvalidEngine, "damaged engine: buffer " + std::to_string(i) +
                                                     " has another size than its tensor");
    }
    return Status();
  }

  Status check_steps() const {
    for (size_t i = 0; i < program_->steps.size(); ++i) {
      const StepSpec& step = program_->steps[i];
      const int64_t units = units_of(step, sizes);
      if (!is_sane(units)) return bad_size("step " + std::to_string(i), units);
      const int64_t scratch = step.scratch_bytes == -1 ? 0 : at(sizes, step.scratch_bytes);
      if (!is_sane(scratch)) return bad_size("the scratch of step " + std::to_string(i), scratch);
    }
    return Status();
  }

  // Every byte that a later step or the caller reads must have been promised to some unit: whatever
  // went wrong with the number of tasks, memory that nobody wrote is never a result.
  Status check_writes(const std::vector<int64_t>& symbols) const {
    const std::vector<BufferSpec>& buffers = program_->buffers;
    std::vector<uint64_t> promised(buffers.size(), 0);
    std::vector<bool> wanted(buffers.size(), false);  // temporaries that a step reads
    for (size_t i = 0; i < program_->steps.size(); ++i) {
      const StepSpec& step = program_->steps[i];
      const auto units = static_cast<uint64_t>(units_of(step, sizes));
      for (size_t k = 0; k < step.writes.size(); ++k) {
        const auto buffer = static_cast<size_t>(step.buffers[k]);
        if (step.writes[k] == -1) {
          wanted[buffer] = buffers[buffer].kind == BufferKind::Temporary;
          continue;
        }
        const int64_t each = at(sizes, step.writes[k]);
        if (each < 0) return bad_size("what a task of step " + std::to_string(i) + " writes", each);
        uint64_t bytes = 0, &sum = promised[buffer];
        if (__builtin_mul_overflow(static_cast<uint64_t>(each), units, &bytes) ||
            __builtin_add_overflow(sum, bytes, &sum))
          sum = std::numeric_limits<uint64_t>::max();
      }
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      if (buffers[i].kind == BufferKind::Output ? updates_input(buffers[i]) : !wanted[i]) continue;
      const auto bytes = static_cast<uint64_t>(at(sizes, buffers[i].bytes));
      if (promised[i] < bytes) return unwritten(symbols, i, promised[i], bytes);
    }
    return Status();
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
    for (size_t i = 0; i < symbols.size(); ++i)
      given +=
          (i == 0 ? " for " : ", ") + spec_->symbols[i].name + " = " + std::to_string(symbols[i]);
    return Status(StatusCode::InvalidEngine,
                  "damaged engine: its steps write at most " + std::to_string(promised) +
                      " of the " + std::to_string(bytes) + " bytes of " + where + given);
  }

  const Spec* spec_;
  const ProgramSpec* program_;
};

}  // namespace

bool BoundTensor::matches(const TensorView& tensor) const {
  return tensor.dtype == dtype && std::ranges::equal(tensor.shape, shape);
}

Result<std::unique_ptr<Binding>> Binding::create(const Engine& engine, std::vector<int64_t> symbols,
                                                 const Placement& placement) {
  Result<SizedProgram> sized = SizedProgram::create(engine.spec(), *engine.program(), symbols);
  if (!sized.ok()) return sized.status();
  Result<std::unique_ptr<BoundProgram>> program =
      engine.executable()->bind({.sizes = sized->sizes,
                                 .offsets = sized->workspace.offsets,
                                 .temporary_bytes = sized->workspace.size,
                                 .threads = placement.threads,
                                 .device = placement.device,
                                 .weight_budget = placement.weight_budget});
  if (!program.ok()) return program.status();
  std::unique_ptr<Binding> binding(new Binding);
  binding->symbols_ = std::move(symbols);
  binding->inputs_ = std::move(sized->inputs);
  binding->outputs_ = std::move(sized->outputs);
  binding->program_ = std::move(*program);
  for (const StepSpec& step : engine.program()->steps) {
    const auto known = [&](Slot slot) { return slot == -1 ? -1 : at(sized->sizes, slot); };
    binding->work_.push_back({known(step.operations), known(step.bytes)});
  }
  return binding;
}

Result<uint64_t> workspace_bytes(const Spec& spec, const ProgramSpec& program,
                                 const std::vector<int64_t>& symbols) {
  const Result<SizedProgram> sized = SizedProgram::create(spec, program, symbols);
  if (!sized.ok()) return sized.status();
  return sized->workspace.size + sized->scratch_bytes();
}

}  // namespace kiln::runtime
