#include "backends/stub/device/executable.h"

#include <chrono>
#include <string>

#include "backends/stub/device/check_code.h"
#include "backends/stub/device/machine.h"

namespace kiln::stub {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::StepSpec;

// Everything of a run that does not depend on the data; it works on one thread.
class StubProgram : public BoundProgram {
 public:
  StubProgram(const engine::ProgramSpec& program, std::span<const Instruction> code,
              std::span<const std::byte> weights, const BindRequest& request)
      : program_(program), code_(code), offsets_(request.offsets.begin(), request.offsets.end()) {
    workspace_bytes_ = request.temporary_bytes;
    for (const BufferSpec& buffer : program.buffers)
      memory_.push_back(bind(buffer, weights, request));
    for (const StepSpec& step : program.steps) {
      tasks_.push_back(at(request, step.tasks));
      auto& params = params_.emplace_back();
      for (const engine::Slot slot : step.params) params.push_back(at(request, slot));
    }
  }

  RunOutcome run(const RunRequest& request) override {
    place(request);
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      if (is_cancelled(request.cancel)) return cancelled_outcome();
      const auto start = std::chrono::steady_clock::now();
      RunOutcome outcome = run_step(i);
      const auto time = std::chrono::steady_clock::now() - start;
      if (request.profile != nullptr)
        request.profile->push_back(
            {tasks_[i], 1, std::chrono::duration_cast<std::chrono::nanoseconds>(time).count()});
      if (!outcome.ok()) return outcome;
    }
    return {};
  }

 private:
  static int64_t at(const BindRequest& request, engine::Slot slot) {
    return request.sizes[static_cast<size_t>(slot)];
  }

  static Memory bind(const BufferSpec& buffer, std::span<const std::byte> weights,
                     const BindRequest& request) {
    if (buffer.kind == BufferKind::Constant)
      return {const_cast<std::byte*>(weights.data()) + buffer.offset, buffer.constant_bytes, false};
    return {nullptr, static_cast<uint64_t>(at(request, buffer.bytes)),
            buffer.kind != BufferKind::Input};
  }

  void place(const RunRequest& request) {
    for (size_t i = 0; i < memory_.size(); ++i) {
      const BufferSpec& buffer = program_.buffers[i];
      const auto index = static_cast<size_t>(buffer.index);
      if (buffer.kind == BufferKind::Input)
        memory_[i].data = static_cast<std::byte*>(request.inputs[index]);
      if (buffer.kind == BufferKind::Output)
        memory_[i].data = static_cast<std::byte*>(request.outputs[index]);
      if (buffer.kind == BufferKind::Temporary) memory_[i].data = request.workspace + offsets_[i];
    }
  }

  RunOutcome run_step(size_t index) {
    const StepSpec& step = program_.steps[index];
    const engine::KernelSpec& kernel = program_.kernels[static_cast<size_t>(step.kernel)];
    buffers_.clear();
    for (const int32_t id : step.buffers) buffers_.push_back(memory_[static_cast<size_t>(id)]);
    const Call call{&code_[kernel.entry / sizeof(Instruction)], buffers_, params_[index]};
    RunOutcome outcome;
    outcome.step = index;
    for (int64_t task = 0; task < tasks_[index]; ++task) {
      const TaskOutcome done = run_task(call, task, registers_);
      outcome.failed_checks |= done.failed_checks;
      if (done.out_of_bounds) {
        outcome.status = Status(StatusCode::InvalidEngine,
                                "kernel " + kernel.name + " leaves one of its buffers");
        break;
      }
    }
    return outcome;
  }

  const engine::ProgramSpec& program_;
  const std::span<const Instruction> code_;
  const std::vector<uint64_t> offsets_;
  std::vector<Memory> memory_;                // by buffer
  std::vector<int64_t> tasks_;                // by step
  std::vector<std::vector<int64_t>> params_;  // by step
  std::vector<Memory> buffers_;               // of the current step
  std::vector<Register> registers_;
};

class StubExecutable : public Executable {
 public:
  StubExecutable(const LoadRequest& request, std::vector<Instruction> code)
      : program_(*request.program), weights_(request.weights), code_(std::move(code)) {}

  Result<std::unique_ptr<BoundProgram>> bind(const BindRequest& request) const override {
    return std::unique_ptr<BoundProgram>(new StubProgram(program_, code_, weights_, request));
  }

 private:
  const engine::ProgramSpec& program_;
  const std::span<const std::byte> weights_;
  const std::vector<Instruction> code_;
};

// The machine is in every process.
std::string obstacle(const engine::ProgramSpec& program) {
  return program.features.empty() ? "" : "the stub has no features";
}

Result<std::unique_ptr<Executable>> load(const LoadRequest& request) {
  for (const StepSpec& step : request.program->steps)
    if (step.kind != engine::StepKind::Tasks)
      return Status(StatusCode::Unsupported, "the stub runs steps of tasks, and no others");
  Result<std::vector<Instruction>> code = read_code(*request.program);
  if (!code.ok()) return code.status();
  return std::unique_ptr<Executable>(new StubExecutable(request, std::move(*code)));
}

}  // namespace

const Device kDevice = {
    .target = "stub", .memory = &kHostMemory, .obstacle = obstacle, .load = load};

}  // namespace kiln::stub
