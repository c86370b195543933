#include "backends/cuda/device/executable.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>
#include <string_view>

#include "backends/cuda/call.h"
#include "backends/cuda/device/bound_program.h"
#include "backends/cuda/device/gpu.h"
#include "backends/cuda/device/loaded_program.h"
#include "backends/cuda/device/memory.h"
#include "backends/cuda/device/weight_stream.h"

namespace kiln::cuda {
namespace {

// 90 of "sm_90" or "compute_90"; 0 for a feature that does not begin so.
int generation_of(std::string_view feature, std::string_view prefix) {
  int sm = 0;
  if (!feature.starts_with(prefix)) return 0;
  feature.remove_prefix(prefix.size());
  const auto [end, error] = std::from_chars(feature.data(), feature.data() + feature.size(), sm);
  return error == std::errc() && end == feature.data() + feature.size() ? sm : 0;
}

// Why a GPU cannot run a program; empty: it can.
std::string obstacle_on(const Gpu& gpu, const engine::ProgramSpec& program) {
  for (const std::string& feature : program.features) {
    const int sm = generation_of(feature, kFeaturePrefix);
    const int ptx = generation_of(feature, kPtxFeaturePrefix);
    if (sm == 0 && ptx == 0)
      return "it needs \"" + feature + "\", which this version of Kiln does not know";
    const bool runs = sm != 0 ? runs_on(sm, gpu.sm()) : ptx <= gpu.sm();
    if (!runs) return gpu.str() + " does not run code for " + feature;
  }
  return "";
}

// Of the GPU that a session would run on by default.
std::string obstacle(const engine::ProgramSpec& program) {
  const Result<const Gpu*> gpu = Gpu::get(Gpu::current());
  return gpu.ok() ? obstacle_on(**gpu, program) : gpu.status().message();
}

class CudaExecutable : public Executable {
 public:
  explicit CudaExecutable(const LoadRequest& request)
      : program_(*request.program), weights_(request.weights) {}

  Result<std::unique_ptr<BoundProgram>> bind(const BindRequest& request) const override {
    Result<std::shared_ptr<const LoadedProgram>> loaded =
        loaded_on(request.device, request.weight_budget);
    if (!loaded.ok()) return loaded.status();
    return bind_program(std::move(*loaded), request);
  }

  uint64_t streamable_bytes() const override { return cuda::streamable_bytes(program_); }

 private:
  // Loaded when the first session on a GPU needs it, and shared by those with its budget. The latest
  // one is kept although no session may need it; it goes before another is loaded.
  Result<std::shared_ptr<const LoadedProgram>> loaded_on(int device, uint64_t budget) const {
    const Result<const Gpu*> gpu = Gpu::get(device);
    if (!gpu.ok()) return gpu.status();
    if (std::string reason = obstacle_on(**gpu, program_); !reason.empty())
      return Status(StatusCode::Unsupported, "[cuda] " + reason);
    budget = std::min(budget, streamable_bytes());
    const std::lock_guard lock(mutex_);
    Loaded& loaded = loaded_[device];
    std::weak_ptr<const LoadedProgram>& place = loaded.by_budget[budget];
    if (auto found = place.lock()) return loaded.latest = std::move(found);
    loaded.latest = nullptr;
    auto made = LoadedProgram::load(program_, weights_, **gpu, budget);
    if (!made.ok()) return made.status();
    loaded.latest = std::move(*made);
    place = loaded.latest;
    return loaded.latest;
  }

  struct Loaded {
    std::shared_ptr<const LoadedProgram> latest;
    std::map<uint64_t, std::weak_ptr<const LoadedProgram>> by_budget;
  };

  const engine::ProgramSpec& program_;
  const std::span<const std::byte> weights_;
  mutable std::mutex mutex_;
  mutable std::map<int, Loaded> loaded_;  // by GPU
};

Result<std::unique_ptr<Executable>> load(const LoadRequest& request) {
  for (const engine::StepSpec& step : request.program->steps)
    if (step.kind != engine::StepKind::Launch)
      return Status(StatusCode::Unsupported,
                    "[cuda] the program has steps that are no launches, which this version of Kiln "
                    "does not run on a GPU");
  return std::unique_ptr<Executable>(new CudaExecutable(request));
}

}  // namespace

const Device kDevice = {"cuda", &kGpuMemory, obstacle, load};

}  // namespace kiln::cuda
