// A GPU of this machine that kernels are timed on while they are compiled.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "backends/cuda/compile/generate.h"
#include "backends/cuda/device/driver_api.h"
#include "support/status.h"

namespace kiln::cuda {

// Has a context of its own: a kernel that fails takes nothing along of the process that compiles.
// Any thread; one kernel runs at a time.
class TimingGpu {
 public:
  // The first GPU of exactly that generation (90 for sm_90). All who use it at a time share it, and the
  // last gives it back. Unsupported: there is none, and why.
  static Result<std::shared_ptr<TimingGpu>> open(int sm);
  // What GPUs of this machine are called, and the version of their driver: "NVIDIA L4; 12040". Empty
  // without a driver.
  static std::string machine();

  ~TimingGpu();
  TimingGpu(const TimingGpu&) = delete;
  TimingGpu& operator=(const TimingGpu&) = delete;

  // "NVIDIA H100 80GB HBM3; 13000"
  const std::string& name() const { return name_; }
  // Nanoseconds of a launch at the sizes to optimise for, with constants that lie in no cache and other
  // operands that do, as in a network. The contents of floating-point operands are unspecified and finite, of others zeros.
  Result<double> time(const plan::Program& program, const KernelText& kernel,
                      std::span<const std::byte> cubin);

 private:
  struct Memory;
  TimingGpu() = default;
  Status start(int index);

  std::string name_;
  api::CUcontext context_ = nullptr;
  api::CUstream stream_ = nullptr;
  std::unique_ptr<Memory> memory_;
};

// Bytes of a kernel's operands at the sizes to optimise for, in the order of its buffers.
std::vector<int64_t> operand_bytes(const plan::Program& program,
                                   const backend::GeneratedKernel& kernel);

}  // namespace kiln::cuda
