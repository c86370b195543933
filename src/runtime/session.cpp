#include "runtime/session.h"

#include <algorithm>
#include <chrono>

#include "runtime/check_failure.h"
#include "runtime/input_check.h"

namespace kiln::runtime {
namespace {

// Shapes that come back are not planned again.
constexpr size_t kMostBindings = 32;
constexpr int kMostThreads = 1024;

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

Status in_use() {
  return Status(
      StatusCode::InvalidArgument,
      "the session is in use by another thread: a session serves one at a time, create one each");
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
  const int threads = options.num_threads == 0 ? available_cpus() : options.num_threads;
  std::unique_ptr<Session> session(new Session(std::move(engine), threads));
  session->staged_.resize(session->engine_->spec().inputs.size());
  session->bindings_.reserve(kMostBindings + 1);
  return session;
}

Result<std::span<const BoundTensor>> Session::output_shapes(std::span<const TensorView> inputs) {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  KILN_RETURN_IF_ERROR(bind(inputs));
  return std::span<const BoundTensor>(bindings_.front()->outputs());
}

Status Session::run(std::span<const TensorView> inputs, std::span<const TensorView> outputs) {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  KILN_RETURN_IF_ERROR(bind(inputs));
  KILN_RETURN_IF_ERROR(set_inputs(inputs));
  KILN_RETURN_IF_ERROR(set_outputs(outputs));
  KILN_RETURN_IF_ERROR(provide_memory());
  return profiling_ ? execute_profiled(inputs) : execute(inputs);
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
  Result<std::unique_ptr<Binding>> binding =
      Binding::create(*engine_, std::move(symbols), threads_);
  if (!binding.ok()) return binding.status();
  bindings_.insert(bindings_.begin(), std::move(*binding));
  if (bindings_.size() > kMostBindings) bindings_.pop_back();
  return Status();
}

Status Session::set_inputs(std::span<const TensorView> inputs) {
  Binding& binding = *bindings_.front();
  for (size_t i = 0; i < inputs.size(); ++i) {
    void* data = inputs[i].data;
    if (binding.inputs()[i].bytes > 0) {
      KILN_RETURN_IF_ERROR(check_data("input", engine_->spec().inputs[i], i, inputs[i]));
      if (!is_contiguous(inputs[i])) {
        Result<void*> staged = stage(i, inputs[i]);
        if (!staged.ok()) return staged.status();
        data = *staged;
      }
    }
    binding.set_input(i, data);
  }
  return Status();
}

Result<void*> Session::stage(size_t index, const TensorView& input) {
  const uint64_t bytes = bindings_.front()->inputs()[index].bytes;
  AlignedBuffer& buffer = staged_[index];
  if (buffer.size() < bytes) {
    Result<AlignedBuffer> larger = AlignedBuffer::allocate(bytes);
    if (!larger.ok()) return larger.status();
    buffer = std::move(*larger);
  }
  copy_to_contiguous(input, buffer.data());
  return static_cast<void*>(buffer.data());
}

Status Session::set_outputs(std::span<const TensorView> outputs) {
  Binding& binding = *bindings_.front();
  const engine::Spec& spec = engine_->spec();
  KILN_RETURN_IF_ERROR(check_count("output", outputs.size(), spec.outputs.size()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const BoundTensor& expected = binding.outputs()[i];
    KILN_RETURN_IF_ERROR(check_output(spec.outputs[i], i, expected, outputs[i]));
    if (expected.bytes > 0)
      KILN_RETURN_IF_ERROR(check_data("output", spec.outputs[i], i, outputs[i]));
    binding.set_output(i, outputs[i].data);
  }
  return Status();
}

Status Session::provide_memory() {
  Binding& binding = *bindings_.front();
  if (memory_.size() < binding.memory_bytes()) {
    memory_ = AlignedBuffer();  // its contents are not needed: never hold both
    Result<AlignedBuffer> larger = AlignedBuffer::allocate(binding.memory_bytes());
    if (!larger.ok()) return larger.status();
    memory_ = std::move(*larger);
  }
  binding.set_memory(memory_.data());
  return Status();
}

Status Session::execute(std::span<const TensorView> inputs) {
  ThreadPoolLease pool;
  const std::vector<BoundStep>& steps = bindings_.front()->steps();
  for (size_t i = 0; i < steps.size(); ++i) {
    if (const uint64_t failed = execute_step(steps[i], pool)) return failure_of(i, failed, inputs);
  }
  return Status();
}

uint64_t Session::execute_step(const BoundStep& step, ThreadPoolLease& pool) {
  const Binding& binding = *bindings_.front();
  std::byte* const scratch = memory_.data() + binding.scratch_offset();
  if (step.threads == 1) {
    if (step.tasks == 0) return 0;
    return step.kernel(step.buffers, step.params, scratch, 0, step.tasks) & step.checks;
  }
  if (pool == nullptr) pool = lend_thread_pool();
  const uint64_t stride = binding.scratch_stride();
  std::atomic<uint64_t> failed{0};
  pool->run(step.tasks, step.threads, step.grain, [&](int thread, int64_t begin, int64_t end) {
    const uint64_t bits = step.kernel(step.buffers, step.params,
                                      scratch + static_cast<uint64_t>(thread) * stride, begin, end);
    if (bits != 0) failed.fetch_or(bits, std::memory_order_relaxed);
  });
  return failed.load(std::memory_order_relaxed) & step.checks;
}

Status Session::failure_of(size_t step, uint64_t failed, std::span<const TensorView> inputs) const {
  return check_failure(engine_->spec(), engine_->spec().steps[step], failed,
                       bindings_.front()->symbols(), inputs);
}

Status Session::execute_profiled(std::span<const TensorView> inputs) {
  using Clock = std::chrono::steady_clock;
  ThreadPoolLease pool;
  profile_.clear();
  const std::vector<BoundStep>& steps = bindings_.front()->steps();
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto start = Clock::now();
    const uint64_t failed = execute_step(steps[i], pool);
    const auto time = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
    profile_.push_back({steps[i].tasks, steps[i].threads, time.count()});
    if (failed != 0) return failure_of(i, failed, inputs);
  }
  return Status();
}

}  // namespace kiln::runtime
