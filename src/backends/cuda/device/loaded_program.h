// A program in the memory of one GPU: its kernels and its constants, but for those that are streamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backends/cuda/device/gpu.h"
#include "backends/cuda/device/weight_stream.h"
#include "engine/spec.h"
#include "support/status.h"

namespace kiln::cuda {

// Immutable, shared by all sessions on that GPU.
class LoadedProgram {
 public:
  // Copies the constants that the program uses, each once: those that are streamed, because the others
  // have to be within `budget` bytes, to pinned memory. Returns when they have arrived.
  static Result<std::unique_ptr<LoadedProgram>> load(const engine::ProgramSpec& program,
                                                     std::span<const std::byte> weights,
                                                     const Gpu& gpu, uint64_t budget);
  ~LoadedProgram();
  LoadedProgram(const LoadedProgram&) = delete;
  LoadedProgram& operator=(const LoadedProgram&) = delete;

  const engine::ProgramSpec& spec() const { return spec_; }
  const Gpu& gpu() const { return gpu_; }
  // Null for a kernel that no launch uses.
  api::CUfunction function(size_t kernel) const { return functions_[kernel]; }
  // Where a Constant buffer lies; 0 for one that is streamed.
  api::CUdeviceptr constant(size_t buffer) const { return constants_[buffer]; }
  const StreamPlan& stream_plan() const { return stream_plan_; }
  // Where weights that are streamed lie in pinned memory.
  const std::map<WeightPlace, const std::byte*>& streamed() const { return streamed_; }

 private:
  LoadedProgram(const engine::ProgramSpec& program, const Gpu& gpu) : spec_(program), gpu_(gpu) {}

  Status load_kernels();
  Status load_kernel(size_t index);
  Status load_constants(std::span<const std::byte> weights);
  Status load_streamed(std::span<const WeightPlace> places, std::span<const std::byte> weights);

  const engine::ProgramSpec& spec_;
  const Gpu& gpu_;
  std::vector<api::CUmodule> modules_;
  std::vector<api::CUfunction> functions_;
  std::vector<api::CUdeviceptr> constants_;
  api::CUdeviceptr memory_ = 0;  // of all constants on the GPU
  StreamPlan stream_plan_;
  std::map<WeightPlace, const std::byte*> streamed_;
  void* pinned_ = nullptr;  // of all that are streamed
};

}  // namespace kiln::cuda
