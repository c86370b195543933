#include "backends/cpu/device/bound_program.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "backends/cpu/device/bound_call.h"
#include "support/aligned_buffer.h"
#include "support/thread_pool.h"

namespace kiln::cpu {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::Slot;
using engine::StepSpec;

// What is done next: a step, or another action if a condition is as it is said.
struct Action {
  enum class Kind : uint8_t { Step, LeaveUnless, AgainIf };

  Kind kind = Kind::Step;
  uint32_t step = 0;       // Step
  uint32_t condition = 0;  // of the others: its position in CpuProgram::pointers_
  size_t target = 0;       // and the action that is next if it is not true, or true
};

struct BoundStep {
  engine::CpuKernel kernel = nullptr;
  BoundCall* call = nullptr;       // in place of a kernel: into CpuProgram::calls_
  void* const* buffers = nullptr;  // into CpuProgram::pointers_
  const int64_t* params = nullptr;
  int64_t tasks = 0;
  int64_t grain = 1;
  int32_t threads = 1;
  uint64_t checks = 0;      // the bits of a kernel's result that mean something
  bool keeps_keys = false;  // or could: there is room for them
};

// The lowest `count` bits.
uint64_t mask_of(size_t count) {
  return count >= engine::kMostChecks ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

int64_t at(const BindRequest& request, Slot slot) {
  return request.sizes[static_cast<size_t>(slot)];
}

// Fewer threads where there is not enough work for all.
int32_t threads_for(const StepSpec& step, const BindRequest& request) {
  if (step.kind == engine::StepKind::Call) return 1;
  const int64_t wanted = at(request, step.tasks) / step.min_tasks_per_thread;
  return static_cast<int32_t>(std::clamp<int64_t>(wanted, 1, request.threads));
}

class CpuProgram : public BoundProgram {
 public:
  CpuProgram(const LoadedProgram& program, const BindRequest& request)
      : program_(program),
        first_step_(request.first_step),
        steps_of_part_(std::span(program.spec.steps)
                           .subspan(0, std::min(request.end_step, program.spec.steps.size()))
                           .subspan(request.first_step)),
        scratch_offset_(request.temporary_bytes) {}

  Status bind(const BindRequest& request) {
    find_scratch(request);
    KILN_RETURN_IF_ERROR(bind_steps(request));
    bind_repeats(request);
    return Status();
  }

  RunOutcome run(const RunRequest& request) override {
    for (const Use& use : input_uses_) pointers_[use.position] = request.inputs[use.index];
    for (const Use& use : output_uses_) pointers_[use.position] = request.outputs[use.index];
    set_workspace(request.workspace);
    for (const TemporaryUse& use : earlier_uses_)
      pointers_[use.position] = request.earlier[use.part] + use.offset;
    return request.profile == nullptr ? execute(request.cancel)
                                      : execute_profiled(request.cancel, *request.profile);
  }

 private:
  // A pointer that depends on the run.
  struct Use {
    uint32_t position = 0;  // in pointers_
    uint32_t index = 0;     // of the input or output
  };
  struct TemporaryUse {
    uint32_t position = 0;
    uint32_t part = 0;  // of the program, whose workspace it is in
    uint64_t offset = 0;
  };

  void find_scratch(const BindRequest& request) {
    uint64_t threads = 1;
    for (const StepSpec& step : steps_of_part_) {
      if (step.scratch_bytes == -1) continue;
      const auto bytes = static_cast<uint64_t>(at(request, step.scratch_bytes));
      scratch_stride_ = std::max(scratch_stride_, align_up(bytes, kTensorAlignment));
      threads = std::max(threads, static_cast<uint64_t>(threads_for(step, request)));
    }
    workspace_bytes_ = scratch_offset_ + scratch_stride_ * threads;
  }

  Status bind_steps(const BindRequest& request) {
    const std::span<const StepSpec> steps = steps_of_part_;
    size_t pointers = program_.spec.repeats.size(), params = 0;
    for (const StepSpec& step : steps) {
      pointers += step.buffers.size();
      params += step.params.size();
    }
    // The steps point into these: no growing from here on.
    pointers_.reserve(pointers);
    params_.reserve(params);
    steps_.reserve(steps.size());
    for (const StepSpec& step : steps) {
      const bool is_call = step.kind == engine::StepKind::Call;
      BoundStep bound;
      if (!is_call) bound.kernel = kernel(static_cast<size_t>(step.kernel));
      bound.buffers = pointers_.data() + pointers_.size();
      bound.params = params_.data() + params_.size();
      bound.tasks = is_call ? 1 : at(request, step.tasks);
      bound.threads = threads_for(step, request);
      bound.checks = mask_of(step.checks.size());
      bound.grain = std::max<int64_t>(1, step.min_tasks_per_thread / 4);
      bound.keeps_keys = step.scratch_bytes != -1 &&
                         at(request, step.scratch_bytes) >= static_cast<int64_t>(engine::kKeyBytes);
      for (const int32_t buffer : step.buffers) bind_pointer(static_cast<size_t>(buffer), request);
      for (const Slot slot : step.params) params_.push_back(at(request, slot));
      if (is_call) {
        auto call = BoundCall::create(program_.spec, step, request, {bound.buffers, bound.params});
        if (!call.ok()) return call.status();
        bound.call = calls_.emplace_back(std::move(*call)).get();
      }
      steps_.push_back(bound);
    }
    return Status();
  }

  // The repeats of the part as jumps between its steps. They nest, each behind the one that it is in.
  void bind_repeats(const BindRequest& request) {
    std::vector<engine::RepeatSpec> repeats;
    const size_t end_step = first_step_ + steps_of_part_.size();
    for (const engine::RepeatSpec& repeat : program_.spec.repeats)
      if (static_cast<size_t>(repeat.first_step) >= first_step_ &&
          static_cast<size_t>(repeat.end_step) <= end_step)
        repeats.push_back(repeat);
    if (repeats.empty()) return;
    std::vector<std::pair<int32_t, size_t>> open;  // where one ends, and the action that leaves it
    for (size_t step = first_step_, next = 0; step <= end_step; ++step) {
      const auto at = static_cast<int32_t>(step);
      for (; !open.empty() && open.back().first == at; open.pop_back()) {
        Action& leave = actions_[open.back().second];
        leave.target = actions_.size() + 1;
        actions_.push_back({.kind = Action::Kind::AgainIf,
                            .condition = leave.condition,
                            .target = open.back().second + 1});
      }
      for (; next < repeats.size() && repeats[next].first_step == at; ++next) {
        open.emplace_back(repeats[next].end_step, actions_.size());
        actions_.push_back({.kind = Action::Kind::LeaveUnless,
                            .condition = static_cast<uint32_t>(pointers_.size())});
        bind_pointer(static_cast<size_t>(repeats[next].buffer), request);
      }
      if (step < end_step) actions_.push_back({.step = static_cast<uint32_t>(step - first_step_)});
    }
  }

  engine::CpuKernel kernel(size_t index) const {
    const std::byte* entry = program_.code + program_.spec.kernels[index].entry;
    return reinterpret_cast<engine::CpuKernel>(reinterpret_cast<uintptr_t>(entry));
  }

  void bind_pointer(size_t index, const BindRequest& request) {
    const BufferSpec& buffer = program_.spec.buffers[index];
    const auto position = static_cast<uint32_t>(pointers_.size());
    void* pointer = nullptr;
    switch (buffer.kind) {
      case BufferKind::Input:
        input_uses_.push_back({position, static_cast<uint32_t>(buffer.index)});
        break;
      case BufferKind::Output:
        output_uses_.push_back({position, static_cast<uint32_t>(buffer.index)});
        break;
      case BufferKind::Temporary:
        bind_temporary(index, position, request);
        break;
      case BufferKind::Constant:
        pointer = const_cast<std::byte*>(buffer.is_made_at_load()
                                             ? program_.made.of(index)
                                             : program_.weights.data() + buffer.offset);
    }
    pointers_.push_back(pointer);
  }

  void bind_temporary(size_t index, uint32_t position, const BindRequest& request) {
    const int32_t part = request.parts.empty() ? 0 : request.parts[index];
    auto& uses = part == request.part ? temporary_uses_ : earlier_uses_;
    uses.push_back({position, static_cast<uint32_t>(part), request.offsets[index]});
  }

  void set_workspace(std::byte* workspace) {
    if (workspace == workspace_) return;
    workspace_ = workspace;
    for (const TemporaryUse& use : temporary_uses_)
      pointers_[use.position] = workspace + use.offset;
  }

  // All end at the first step with a check that fails.
  RunOutcome execute(CancelFlag cancel) {
    if (!actions_.empty()) return execute_actions(cancel, nullptr);
    ThreadPoolLease pool;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (is_cancelled(cancel)) return cancelled_outcome();
      if (const uint64_t failed = execute_step(steps_[i], pool)) return failure(i, failed);
    }
    return {};
  }

  RunOutcome execute_profiled(CancelFlag cancel, std::vector<StepTime>& profile) {
    const size_t begin = profile.size();
    if (!actions_.empty()) {
      // One for each step, however often it runs.
      for (const BoundStep& step : steps_) profile.push_back({0, step.threads, 0});
      return execute_actions(cancel, profile.data() + begin);
    }
    ThreadPoolLease pool;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (is_cancelled(cancel)) return cancelled_outcome();
      profile.push_back({0, steps_[i].threads, 0});
      if (const uint64_t failed = execute_timed(steps_[i], pool, profile.back()))
        return failure(i, failed);
    }
    return {};
  }

  RunOutcome execute_actions(CancelFlag cancel, StepTime* times) {
    ThreadPoolLease pool;
    for (size_t next = 0; next < actions_.size();) {
      const Action& action = actions_[next++];
      if (action.kind != Action::Kind::Step) {
        const bool is_true = *static_cast<const uint8_t*>(pointers_[action.condition]) != 0;
        if (is_true == (action.kind == Action::Kind::AgainIf)) next = action.target;
        continue;
      }
      if (is_cancelled(cancel)) return cancelled_outcome();
      const BoundStep& step = steps_[action.step];
      const uint64_t failed = times == nullptr ? execute_step(step, pool)
                                               : execute_timed(step, pool, times[action.step]);
      if (failed != 0) return failure(action.step, failed);
    }
    return {};
  }

  uint64_t execute_timed(const BoundStep& step, ThreadPoolLease& pool, StepTime& time) const {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const uint64_t failed = execute_step(step, pool);
    time.nanoseconds +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
    time.tasks += step.tasks;
    return failed;
  }

  // How the run ends at a step.
  RunOutcome failure(size_t step, uint64_t failed) const {
    if (steps_[step].call != nullptr) return {steps_[step].call->failure(), first_step_ + step, 0};
    return {Status(), first_step_ + step, failed};
  }

  // The bits of the checks that failed; of a call any, if it failed.
  uint64_t execute_step(const BoundStep& step, ThreadPoolLease& pool) const {
    if (step.call != nullptr) return step.call->run() ? 0 : 1;
    std::byte* const scratch = workspace_ + scratch_offset_;
    const auto clear_keys = [&](std::byte* memory) {
      if (step.keeps_keys) std::memset(memory, 0xff, engine::kKeyBytes);
    };
    if (step.threads == 1) {
      if (step.tasks == 0) return 0;
      clear_keys(scratch);
      return step.kernel(step.buffers, step.params, scratch, 0, step.tasks) & step.checks;
    }
    if (pool == nullptr) pool = lend_thread_pool();
    const uint64_t stride = scratch_stride_;
    std::atomic<uint64_t> failed{0};
    pool->run(step.tasks, step.threads, step.grain, [&](const TaskRange& range) {
      std::byte* const memory = scratch + static_cast<uint64_t>(range.thread) * stride;
      if (range.is_first) clear_keys(memory);
      const uint64_t bits = step.kernel(step.buffers, step.params, memory, range.begin, range.end);
      if (bits != 0) failed.fetch_or(bits, std::memory_order_relaxed);
    });
    return failed.load(std::memory_order_relaxed) & step.checks;
  }

  const LoadedProgram program_;
  const size_t first_step_;  // of the part of the program
  const std::span<const StepSpec> steps_of_part_;
  std::vector<BoundStep> steps_;
  std::vector<std::unique_ptr<BoundCall>> calls_;
  std::vector<Action> actions_;  // of a part with repeats
  std::vector<void*> pointers_;
  std::vector<int64_t> params_;
  std::vector<Use> input_uses_, output_uses_;
  std::vector<TemporaryUse> temporary_uses_, earlier_uses_;
  uint64_t scratch_offset_ = 0, scratch_stride_ = 0;
  std::byte* workspace_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<BoundProgram>> bind_program(const LoadedProgram& program,
                                                   const BindRequest& request) {
  auto bound = std::make_unique<CpuProgram>(program, request);
  KILN_RETURN_IF_ERROR(bound->bind(request));
  return std::unique_ptr<BoundProgram>(std::move(bound));
}

}  // namespace kiln::cpu
