#include "runtime/binding.h"

#include <algorithm>
#include <limits>

#include "runtime/size_program.h"
#include "runtime/workspace.h"
#include "support/aligned_buffer.h"

namespace kiln::runtime {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
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

Status unwritten(const Spec& spec, const std::vector<int64_t>& symbols, size_t buffer,
                 uint64_t promised, uint64_t bytes) {
  std::string where = "buffer " + std::to_string(buffer);
  const BufferSpec& found = spec.buffers[buffer];
  if (found.kind == BufferKind::Output)
    where = "output \"" + spec.outputs[static_cast<size_t>(found.index)].name + "\"";
  std::string given;
  for (size_t i = 0; i < symbols.size(); ++i)
    given += (i == 0 ? " for " : ", ") + spec.symbols[i].name + " = " + std::to_string(symbols[i]);
  return Status(StatusCode::InvalidEngine,
                "damaged engine: its steps write at most " + std::to_string(promised) + " of the " +
                    std::to_string(bytes) + " bytes of " + where + given);
}

// Fewer threads where there is not enough work for all.
int32_t threads_for(const StepSpec& step, int64_t tasks, int threads) {
  return static_cast<int32_t>(std::clamp<int64_t>(tasks / step.min_tasks_per_thread, 1, threads));
}

// The lowest `count` bits.
uint64_t mask_of(size_t count) {
  return count >= engine::kMostChecks ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

}  // namespace

bool BoundTensor::matches(const TensorView& tensor) const {
  return tensor.dtype == dtype && std::ranges::equal(tensor.shape, shape);
}

Result<std::unique_ptr<Binding>> Binding::create(const Engine& engine, std::vector<int64_t> symbols,
                                                 int threads) {
  const Spec& spec = engine.spec();
  const Result<std::vector<int64_t>> sizes = evaluate_sizes(spec, symbols);
  if (!sizes.ok()) return sizes.status();

  std::unique_ptr<Binding> binding(new Binding);
  binding->symbols_ = std::move(symbols);
  KILN_RETURN_IF_ERROR(binding->bind_tensors(spec, *sizes));
  KILN_RETURN_IF_ERROR(binding->check_sizes(spec, *sizes));
  KILN_RETURN_IF_ERROR(binding->check_writes(spec, *sizes));
  KILN_RETURN_IF_ERROR(binding->bind_memory(spec, *sizes, threads));
  binding->bind_steps(engine, *sizes, threads);
  return binding;
}

Status Binding::bind_tensors(const Spec& spec, Sizes sizes) {
  for (const auto& [tensors, bound] :
       {std::pair(&spec.inputs, &inputs_), std::pair(&spec.outputs, &outputs_)})
    for (const engine::TensorSpec& tensor : *tensors) {
      Result<BoundTensor> result = bind_tensor(tensor, sizes);
      if (!result.ok()) return result.status();
      bound->push_back(std::move(*result));
    }
  return Status();
}

// Kernels read and write whole buffers: the sizes they were compiled for must be those of the
// tensors behind them.
Status Binding::check_sizes(const Spec& spec, Sizes sizes) const {
  for (size_t i = 0; i < spec.buffers.size(); ++i) {
    const BufferSpec& buffer = spec.buffers[i];
    if (buffer.kind == BufferKind::Constant) continue;
    const int64_t bytes = at(sizes, buffer.bytes);
    if (!is_sane(bytes)) return bad_size("buffer " + std::to_string(i), bytes);
    if (buffer.kind == BufferKind::Temporary) continue;
    const auto& tensors = buffer.kind == BufferKind::Input ? inputs_ : outputs_;
    if (tensors[static_cast<size_t>(buffer.index)].bytes != static_cast<uint64_t>(bytes))
      return Status(StatusCode::InvalidEngine, "damaged engine: buffer " + std::to_string(i) +
                                                   " has another size than its tensor");
  }
  for (size_t i = 0; i < spec.steps.size(); ++i) {
    const StepSpec& step = spec.steps[i];
    const int64_t tasks = at(sizes, step.tasks);
    if (!is_sane(tasks)) return bad_size("step " + std::to_string(i), tasks);
    const int64_t scratch = step.scratch_bytes == -1 ? 0 : at(sizes, step.scratch_bytes);
    if (!is_sane(scratch)) return bad_size("the scratch of step " + std::to_string(i), scratch);
  }
  return Status();
}

// Every byte that a later step or the caller reads must have been promised to some task: whatever
// went wrong with the number of tasks, memory that nobody wrote is never a result.
Status Binding::check_writes(const Spec& spec, Sizes sizes) const {
  std::vector<uint64_t> promised(spec.buffers.size(), 0);
  std::vector<bool> wanted(spec.buffers.size(), false);  // temporaries that a step reads
  for (size_t i = 0; i < spec.steps.size(); ++i) {
    const StepSpec& step = spec.steps[i];
    if (step.writes.empty()) return Status();  // an older file
    for (size_t k = 0; k < step.writes.size(); ++k) {
      const auto buffer = static_cast<size_t>(step.buffers[k]);
      if (step.writes[k] == -1) {
        wanted[buffer] = spec.buffers[buffer].kind == BufferKind::Temporary;
        continue;
      }
      const int64_t each = at(sizes, step.writes[k]);
      if (each < 0) return bad_size("what a task of step " + std::to_string(i) + " writes", each);
      uint64_t bytes = 0, &sum = promised[buffer];
      if (__builtin_mul_overflow(static_cast<uint64_t>(each),
                                 static_cast<uint64_t>(at(sizes, step.tasks)), &bytes) ||
          __builtin_add_overflow(sum, bytes, &sum))
        sum = std::numeric_limits<uint64_t>::max();
    }
  }
  for (size_t i = 0; i < spec.buffers.size(); ++i) {
    const BufferSpec& buffer = spec.buffers[i];
    if (buffer.kind != BufferKind::Output && !wanted[i]) continue;
    const auto bytes = static_cast<uint64_t>(at(sizes, buffer.bytes));
    if (promised[i] < bytes) return unwritten(spec, symbols_, i, promised[i], bytes);
  }
  return Status();
}

Status Binding::bind_memory(const Spec& spec, Sizes sizes, int threads) {
  Result<WorkspacePlan> plan = plan_workspace(spec, sizes);
  if (!plan.ok()) return plan.status();
  offsets_ = std::move(plan->offsets);
  scratch_offset_ = plan->size;
  for (const StepSpec& step : spec.steps) {
    if (step.scratch_bytes == -1) continue;
    const auto bytes = static_cast<uint64_t>(at(sizes, step.scratch_bytes));
    scratch_stride_ = std::max(scratch_stride_, align_up(bytes, kTensorAlignment));
    threads_ = std::max<uint64_t>(
        threads_, static_cast<uint64_t>(threads_for(step, at(sizes, step.tasks), threads)));
  }
  return Status();
}

void Binding::bind_steps(const Engine& engine, Sizes sizes, int threads) {
  const Spec& spec = engine.spec();
  size_t pointers = 0, params = 0;
  for (const StepSpec& step : spec.steps) {
    pointers += step.buffers.size();
    params += step.params.size();
  }
  // The steps point into these: no growing from here on.
  pointers_.reserve(pointers);
  params_.reserve(params);
  steps_.reserve(spec.steps.size());
  input_uses_.resize(spec.inputs.size());
  output_uses_.resize(spec.outputs.size());

  for (const StepSpec& step : spec.steps) {
    BoundStep bound;
    bound.kernel = engine.kernel(static_cast<size_t>(step.kernel));
    bound.buffers = pointers_.data() + pointers_.size();
    bound.params = params_.data() + params_.size();
    bound.tasks = at(sizes, step.tasks);
    bound.threads = threads_for(step, bound.tasks, threads);
    bound.checks = mask_of(step.checks.size());
    bound.grain = std::max<int64_t>(1, step.min_tasks_per_thread / 4);
    for (const int32_t buffer : step.buffers) bind_pointer(engine, static_cast<size_t>(buffer));
    for (const Slot slot : step.params) params_.push_back(at(sizes, slot));
    steps_.push_back(bound);
  }
}

void Binding::bind_pointer(const Engine& engine, size_t index) {
  const BufferSpec& buffer = engine.spec().buffers[index];
  const auto position = static_cast<uint32_t>(pointers_.size());
  void* pointer = nullptr;
  switch (buffer.kind) {
    case BufferKind::Input:
      input_uses_[static_cast<size_t>(buffer.index)].push_back(position);
      break;
    case BufferKind::Output:
      output_uses_[static_cast<size_t>(buffer.index)].push_back(position);
      break;
    case BufferKind::Temporary:
      temporary_uses_.push_back({position, offsets_[index]});
      break;
    case BufferKind::Constant:
      pointer = const_cast<std::byte*>(engine.constant(buffer));
  }
  pointers_.push_back(pointer);
}

void Binding::set_memory(std::byte* memory) {
  if (memory == memory_) return;
  memory_ = memory;
  for (const TemporaryUse& use : temporary_uses_) pointers_[use.position] = memory + use.offset;
}

}  // namespace kiln::runtime
