#include "runtime/session.h"

#include <algorithm>
#include <cstring>

#include "runtime/check_failure.h"
#include "runtime/input_check.h"
#include "runtime/requirement_check.h"
#include "runtime/size_program.h"
#include "runtime/workspace.h"
#include "support/cpu_count.h"

namespace kiln::runtime {
namespace {

// Shapes that come back are not planned again.
constexpr size_t kMostBindings = 32;
constexpr int kMostThreads = 1024;
// Of what a GPU's copy engine reads. Of outputs it may read those that update inputs.
constexpr uintptr_t kDeviceAlignment = 16;

class BusyGuard {
 public:
  explicit BusyGuard(std::atomic_flag& flag)
      : flag_(flag), entered_(!flag.test_and_set(std::memory_order_acquire)) {}
  ~BusyGuard() {
    if (entered_) flag_.clear(std::memory_order_release);
  }
  bool entered() const { return entered_; }

 private:
  std::atomic_flag& flag_;
  const bool entered_;
};

[[gnu::cold]] Status in_use() {
  return Status(
      StatusCode::InvalidArgument,
      "the session is in use by another thread: a session serves one at a time, create one each");
}

[[gnu::cold]] Status check_device_index(const Device& device, int index) {
  const int count = device.memory->count();
  if (index >= 0 && index < count) return Status();
  if (count <= 0)
    return Status(StatusCode::Unsupported, std::string("this machine has no device for programs of "
                                                       "the target ") +
                                               device.target);
  return Status(StatusCode::InvalidArgument, "got device " + std::to_string(index) +
                                                 ", expected 0.." + std::to_string(count - 1) +
                                                 " for a program of the target " + device.target);
}

}  // namespace

Result<std::unique_ptr<Session>> Session::create(std::shared_ptr<const Engine> engine,
                                                 const SessionOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMostThreads)
    return Status(StatusCode::InvalidArgument, "got " + std::to_string(options.num_threads) +
                                                   " threads, expected 0.." +
                                                   std::to_string(kMostThreads));
  if (engine->view().stripped)
    return Status(
        StatusCode::Unsupported,
        "the engine has no weights (it was compiled to be stripped of them): fill them in "
        "with kiln_refit, `kiln refit` or torch_tensorrt.dynamo.refit_module_weights");
  if (engine->program() == nullptr)
    return Status(StatusCode::Unsupported,
                  "the engine was loaded to be described, without code: load it again to run it");
  KILN_RETURN_IF_ERROR(check_device_index(*engine->device(), options.device));
  KILN_RETURN_IF_ERROR(engine->executable()->find_functions());
  return std::unique_ptr<Session>(new Session(std::move(engine), options));
}

Session::Session(std::shared_ptr<const Engine> engine, const SessionOptions& options)
    : engine_(std::move(engine)),
      threads_(options.num_threads == 0 ? available_cpus() : options.num_threads),
      weight_budget_(options.weight_budget),
      memory_(*engine_->device()->memory, {engine_->device()->memory->type, options.device},
              options.allocator) {
  staged_.resize(engine_->spec().inputs.size());
  input_data_.resize(engine_->spec().inputs.size());
  output_data_.resize(engine_->spec().outputs.size());
  bindings_.reserve(kMostBindings + 1);
  workspaces_.resize(parts_of(*engine_->program()).size());
  workspace_data_.resize(workspaces_.size());
  for (size_t i = 0; i < engine_->spec().outputs.size(); ++i)
    if (const int32_t input = engine_->spec().outputs[i].updates; input != -1)
      updates_.push_back({.output = i, .input = static_cast<size_t>(input)});
  update_of_.resize(engine_->spec().inputs.size());
  for (Update& update : updates_) update_of_[update.input] = &update;
}

Session::~Session() {
  bindings_.clear();
  for (MemoryBlock& block : staged_) memory_.release(block, stream_);
  for (MemoryBlock& block : workspaces_) memory_.release(block, stream_);
}

Result<std::span<const BoundTensor>> Session::output_shapes(std::span<const TensorView> inputs) {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  last_ = nullptr;
  KILN_RETURN_IF_ERROR(bind(inputs));
  return std::span<const BoundTensor>(bindings_.front()->outputs());
}

Result<std::span<const BoundTensor>> Session::result_shapes() {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  if (last_ == nullptr)
    return Status(
        StatusCode::InvalidArgument,
        "got no run that succeeded just before, expected one: its results have the shapes");
  return std::span<const BoundTensor>(last_->outputs());
}

Status Session::run(std::span<const TensorView> inputs, std::span<const TensorView> outputs,
                    const RunOptions& options) {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  last_ = nullptr;
  KILN_RETURN_IF_ERROR(use_stream(options.stream));
  KILN_RETURN_IF_ERROR(bind(inputs));
  KILN_RETURN_IF_ERROR(set_inputs(inputs));
  if (options.outputs.allocate == nullptr || !outputs.empty())
    KILN_RETURN_IF_ERROR(set_outputs(outputs));
  else
    KILN_RETURN_IF_ERROR(ask_for_outputs(options.outputs, *bindings_.front(), nullptr));
  if (updates_.empty()) return execute(inputs, options);
  KILN_RETURN_IF_ERROR(place_updates(inputs));
  KILN_RETURN_IF_ERROR(execute(inputs, options));
  return write_back();
}

Status Session::synchronize() {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  stream_ = nullptr;  // the caller's may go
  return wait();
}

Status Session::use_stream(void* stream) {
  if (stream == stream_) return Status();
  if (!memory_.has_streams())
    return Status(StatusCode::InvalidArgument,
                  "got a stream for a program that runs on a CPU, expected none");
  Status earlier = wait();
  stream_ = stream;
  return earlier;
}

// The first failure counts.
Status Session::wait() {
  Status first;
  for (const auto& binding : bindings_)
    if (Status status = finish(*binding); first.ok()) first = std::move(status);
  return first;
}

// The inputs of the runs that this waits for are gone.
Status Session::finish(Binding& binding) {
  return status_of(binding.program().synchronize(), binding, {});
}

Status Session::bind(std::span<const TensorView> inputs) {
  if (is_current(inputs)) return Status();
  const engine::Spec& spec = engine_->spec();
  Result<std::vector<int64_t>> symbols = read_symbols(spec, inputs);
  if (!symbols.ok()) return symbols.status();
  KILN_RETURN_IF_ERROR(activate(std::move(*symbols)));
  return check_input_shapes(spec, bindings_.front()->inputs(), inputs);
}

bool Session::is_current(std::span<const TensorView> inputs) const {
  if (bindings_.empty()) return false;
  const std::vector<BoundTensor>& expected = bindings_.front()->inputs();
  if (inputs.size() != expected.size()) return false;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (!expected[i].matches(inputs[i])) return false;
  return true;
}

// Makes the binding of these symbols the first one.
Status Session::activate(std::vector<int64_t> symbols) {
  const auto found = std::ranges::find_if(
      bindings_, [&](const auto& binding) { return binding->symbols() == symbols; });
  if (found != bindings_.end()) {
    std::rotate(bindings_.begin(), found, found + 1);
    return Status();
  }
  KILN_RETURN_IF_ERROR(check_requirements(engine_->spec(), symbols));
  Result<std::unique_ptr<Binding>> binding =
      Binding::create(*engine_, std::move(symbols), placement());
  if (!binding.ok()) return binding.status();
  bindings_.insert(bindings_.begin(), std::move(*binding));
  if (bindings_.size() <= kMostBindings) return Status();
  Status late = finish(*bindings_.back());
  bindings_.pop_back();
  return late;
}

Status Session::set_inputs(std::span<const TensorView> inputs) {
  const Binding& binding = *bindings_.front();
  const std::vector<engine::TensorSpec>& specs = engine_->spec().inputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    void* data = inputs[i].data;
    if (inputs[i].device != memory_.device())
      return wrong_device("input", specs[i], i, inputs[i].device, memory_.device());
    if (binding.inputs()[i].bytes > 0) {
      if (data == nullptr) return null_data("input", specs[i], i);
      if (!is_contiguous(inputs[i]) && update_of_[i] == nullptr) {
        Result<void*> staged = stage(i, inputs[i]);
        if (!staged.ok()) return staged.status();
        data = *staged;
      }
    }
    input_data_[i] = data;
  }
  return Status();
}

Result<void*> Session::stage(size_t index, const TensorView& input) {
  MemoryBlock& block = staged_[index];
  KILN_RETURN_IF_ERROR(memory_.grow(block, bindings_.front()->inputs()[index].bytes, stream_));
  KILN_RETURN_IF_ERROR(memory_.copy(copy_of(input, block.data), stream_));
  return static_cast<void*>(block.data);
}

Status Session::set_outputs(std::span<const TensorView> outputs) {
  const Binding& binding = *bindings_.front();
  const std::vector<engine::TensorSpec>& specs = engine_->spec().outputs;
  if (outputs.size() != specs.size()) return wrong_count("output", outputs.size(), specs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const BoundTensor& expected = binding.outputs()[i];
    if (!binding.is_known(i) && std::ranges::max(expected.shape) > kLargestSize)
      return no_bound(specs[i], i);
    if (!expected.matches(outputs[i]) || !is_contiguous(outputs[i]))
      return wrong_output(specs[i], i, expected, outputs[i]);
    if (outputs[i].device != memory_.device())
      return wrong_device("output", specs[i], i, outputs[i].device, memory_.device());
    const bool has_elements =
        binding.is_known(i) ? expected.bytes > 0 : std::ranges::count(expected.shape, 0) == 0;
    if (has_elements && outputs[i].data == nullptr) return null_data("output", specs[i], i);
    output_data_[i] = outputs[i].data;
  }
  return Status();
}

// Those whose shapes became known with a part of the program.
Status Session::ask_for_outputs(const OutputHook& hook, const Binding& binding,
                                const Binding* before) {
  const std::vector<BoundTensor>& tensors = binding.outputs();
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!binding.is_known(i) || (before != nullptr && before->is_known(i))) continue;
    output_data_[i] = hook.allocate(hook.user, {i, tensors[i], memory_.device()});
    if (output_data_[i] == nullptr && tensors[i].bytes > 0)
      return no_output_memory(engine_->spec().outputs[i], i, tensors[i].bytes);
  }
  return Status();
}

// The program has an input that is updated and the output that does so in one place, which holds the
// input when it begins.
Status Session::place_updates(std::span<const TensorView> inputs) {
  for (Update& update : updates_) {
    const TensorView& input = inputs[update.input];
    const uint64_t bytes = bindings_.front()->inputs()[update.input].bytes;
    void* data = output_data_[update.output];
    update.write_back = nullptr;
    update.in_place = bytes > 0 && data == input.data && is_contiguous(input);
    if (bytes == 0) continue;
    if (!update.in_place) {
      if (overlap({data, bytes}, range_of(input)))
        return wrong_update(engine_->spec(), update.output, update.input);
      KILN_RETURN_IF_ERROR(memory_.copy(copy_of(input, static_cast<std::byte*>(data)), stream_));
    }
    input_data_[update.input] = data;
  }
  input_ranges_.clear();
  for (const TensorView& input : inputs) input_ranges_.push_back(range_of(input));
  for (const Update& update : updates_)
    if (update.in_place) KILN_RETURN_IF_ERROR(keep_others(update.input, inputs));
  if (memory_.is_host()) return Status();
  for (Update& update : updates_) KILN_RETURN_IF_ERROR(align(update));
  return Status();
}

// Memory that cannot be mapped gets its output when the run is over.
Status Session::align(Update& update) {
  void*& data = output_data_[update.output];
  const BoundTensor& tensor = bindings_.front()->outputs()[update.output];
  if (tensor.bytes == 0 || reinterpret_cast<uintptr_t>(data) % kDeviceAlignment == 0)
    return Status();
  Result<void*> staged = stage(update.input, {data, tensor.dtype, tensor.shape, {}, device()});
  if (!staged.ok()) return staged.status();
  update.write_back = data;
  data = input_data_[update.input] = *staged;
  return Status();
}

// Other inputs that lie in the memory of one that is updated in place are what they were before.
Status Session::keep_others(size_t input, std::span<const TensorView> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (i == input || !overlap(input_ranges_[input], input_ranges_[i])) continue;
    const Update* other = update_of_[i];
    if (other != nullptr && !other->in_place) continue;
    if (other != nullptr) return updated_twice(engine_->spec(), input, i);
    Result<void*> staged = stage(i, inputs[i]);
    if (!staged.ok()) return staged.status();
    input_data_[i] = *staged;
  }
  return Status();
}

Status Session::write_back() {
  const Binding& binding = *bindings_.front();
  for (const Update& update : updates_) {
    if (update.write_back == nullptr) continue;
    const BoundTensor& tensor = binding.outputs()[update.output];
    KILN_RETURN_IF_ERROR(memory_.copy({.from = output_data_[update.output],
                                       .to = static_cast<std::byte*>(update.write_back),
                                       .element_bytes = dtype_size(tensor.dtype),
                                       .shape = tensor.shape,
                                       .strides = {}},
                                      stream_));
  }
  return Status();
}

// Part by part: what one finds in its data are sizes of those behind it.
Status Session::execute(std::span<const TensorView> inputs, const RunOptions& options) {
  if (profiling_) {
    profile_.clear();
    profiled_work_.clear();
  }
  Binding* binding = bindings_.front().get();
  KILN_RETURN_IF_ERROR(execute(*binding, 0, inputs, options.cancel));
  for (size_t part = 1; part < workspaces_.size(); ++part) {
    const Binding* before = binding;
    Result<Binding*> next = continue_run(*binding);
    if (!next.ok()) return next.status();
    binding = *next;
    if (options.outputs.allocate != nullptr)
      KILN_RETURN_IF_ERROR(ask_for_outputs(options.outputs, *binding, before));
    KILN_RETURN_IF_ERROR(execute(*binding, part, inputs, options.cancel));
  }
  last_ = binding;
  return Status();
}

Status Session::execute(const Binding& binding, size_t part, std::span<const TensorView> inputs,
                        CancelFlag cancel) {
  MemoryBlock& workspace = workspaces_[part];
  KILN_RETURN_IF_ERROR(memory_.grow(workspace, binding.program().workspace_bytes(), stream_));
  workspace_data_[part] = workspace.data;
  if (profiling_)
    profiled_work_.insert(profiled_work_.end(), binding.work().begin(), binding.work().end());
  return status_of(binding.program().run({.inputs = input_data_,
                                          .outputs = output_data_,
                                          .workspace = workspace.data,
                                          .earlier = std::span(workspace_data_).first(part),
                                          .stream = stream_,
                                          .cancel = cancel,
                                          .profile = profiling_ ? &profile_ : nullptr}),
                   binding, inputs);
}

Result<Binding*> Session::continue_run(Binding& binding) {
  KILN_RETURN_IF_ERROR(find_data_sizes(binding));
  return binding.next(*engine_, found_, placement());
}

// Reads what a part wrote. A size that is out of its range is an error, whatever the kernels would make
// of it.
Status Session::find_data_sizes(const Binding& binding) {
  const engine::Spec& spec = engine_->spec();
  found_.clear();
  const std::vector<int64_t> largest = largest_data_sizes(spec, binding.symbols());
  for (size_t i = binding.ends_with().first; i < binding.ends_with().second; ++i) {
    const auto buffer = static_cast<size_t>(engine_->program()->data_sizes[i].buffer);
    const int64_t size = count_in(binding, buffer);
    if (size < spec.data_sizes[i].min || size > largest[i])
      return wrong_data_size(spec.data_sizes[i], size, largest[i]);
    found_.push_back(size);
  }
  return Status();
}

int64_t Session::count_in(const Binding& binding, size_t buffer) const {
  const engine::BufferSpec& spec = engine_->program()->buffers[buffer];
  const void* data = nullptr;
  if (spec.kind == engine::BufferKind::Output) {
    data = output_data_[static_cast<size_t>(spec.index)];
  } else {
    const auto [part, offset] = binding.place_of(buffer);
    data = workspace_data_[part] + offset;
  }
  int64_t count = 0;
  std::memcpy(&count, data, sizeof(count));
  return count;
}

// Looks into the inputs only where they are in reach and those of the run that failed.
Status Session::status_of(RunOutcome outcome, const Binding& binding,
                          std::span<const TensorView> inputs) const {
  if (outcome.failed_checks == 0) return std::move(outcome.status);
  return check_failure(engine_->spec(), {*engine_->program(), outcome.step, outcome.failed_checks},
                       binding.symbols(), memory_.is_host() ? inputs : inputs.first(0));
}

}  // namespace kiln::runtime
