#include "runtime/session.h"

#include <algorithm>

#include "runtime/check_failure.h"
#include "runtime/input_check.h"
#include "runtime/requirement_check.h"
#include "support/thread_pool.h"

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
  if (engine->program() == nullptr)
    return Status(StatusCode::Unsupported,
                  "the engine was loaded to be described, without code: load it again to run it");
  const int threads = options.num_threads == 0 ? available_cpus() : options.num_threads;
  std::unique_ptr<Session> session(new Session(std::move(engine), threads));
  const engine::Spec& spec = session->engine_->spec();
  session->staged_.resize(spec.inputs.size());
  session->input_data_.resize(spec.inputs.size());
  session->output_data_.resize(spec.outputs.size());
  session->bindings_.reserve(kMostBindings + 1);
  return session;
}

Result<std::span<const BoundTensor>> Session::output_shapes(std::span<const TensorView> inputs) {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  KILN_RETURN_IF_ERROR(bind(inputs));
  return std::span<const BoundTensor>(bindings_.front()->outputs());
}

Status Session::run(std::span<const TensorView> inputs, std::span<const TensorView> outputs,
                    void* stream) {
  const BusyGuard guard(busy_);
  if (!guard.entered()) return in_use();
  KILN_RETURN_IF_ERROR(bind(inputs));
  KILN_RETURN_IF_ERROR(set_inputs(inputs));
  KILN_RETURN_IF_ERROR(set_outputs(outputs));
  KILN_RETURN_IF_ERROR(provide_memory());
  return execute(inputs, stream);
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
      Binding::create(*engine_, std::move(symbols), threads_);
  if (!binding.ok()) return binding.status();
  bindings_.insert(bindings_.begin(), std::move(*binding));
  if (bindings_.size() > kMostBindings) bindings_.pop_back();
  return Status();
}

Status Session::set_inputs(std::span<const TensorView> inputs) {
  const Binding& binding = *bindings_.front();
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
    input_data_[i] = data;
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
  const Binding& binding = *bindings_.front();
  const engine::Spec& spec = engine_->spec();
  KILN_RETURN_IF_ERROR(check_count("output", outputs.size(), spec.outputs.size()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const BoundTensor& expected = binding.outputs()[i];
    KILN_RETURN_IF_ERROR(check_output(spec.outputs[i], i, expected, outputs[i]));
    if (expected.bytes > 0)
      KILN_RETURN_IF_ERROR(check_data("output", spec.outputs[i], i, outputs[i]));
    output_data_[i] = outputs[i].data;
  }
  return Status();
}

Status Session::provide_memory() {
  const uint64_t needed = bindings_.front()->program().workspace_bytes();
  if (memory_.size() >= needed) return Status();
  memory_ = AlignedBuffer();  // its contents are not needed: never hold both
  Result<AlignedBuffer> larger = AlignedBuffer::allocate(needed);
  if (!larger.ok()) return larger.status();
  memory_ = std::move(*larger);
  return Status();
}

Status Session::execute(std::span<const TensorView> inputs, void* stream) {
  const Binding& binding = *bindings_.front();
  if (profiling_) profile_.clear();
  RunOutcome outcome = binding.program().run({.inputs = input_data_,
                                              .outputs = output_data_,
                                              .workspace = memory_.data(),
                                              .stream = stream,
                                              .profile = profiling_ ? &profile_ : nullptr});
  if (outcome.failed_checks == 0) return std::move(outcome.status);
  return check_failure(engine_->spec(), {*engine_->program(), outcome.step, outcome.failed_checks},
                       binding.symbols(), inputs);
}

}  // namespace kiln::runtime
