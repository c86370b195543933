// A GPU of this machine: its primary context, which PyTorch uses too.
#pragma once

#include <memory>
#include <string>

#include "backends/cuda/device/driver.h"
#include "support/status.h"

namespace kiln::cuda {

class Gpu {
 public:
  // Number of GPUs; 0 where there is no driver.
  static int count();
  // The one of the calling thread's context; 0 if it has none.
  static int current();
  // Made at first and never released, as CUDA's own runtime does it.
  static Result<const Gpu*> get(int index);

  int index() const { return index_; }
  const std::string& name() const { return name_; }  // "NVIDIA H100 80GB HBM3"
  int sm() const { return sm_; }                     // 90
  api::CUcontext context() const { return context_; }
  // "cuda:0 (NVIDIA H100 80GB HBM3, sm_90)"
  std::string str() const;

 private:
  friend struct GpuTable;
  Gpu() = default;
  Status open(int index);

  int index_ = 0, sm_ = 0;
  std::string name_;
  api::CUcontext context_ = nullptr;
};

// Whether code for a generation, 86 for "sm_86", runs on another: on the same major number and from
// that minor one on.
constexpr bool runs_on(int code_sm, int gpu_sm) {
  return code_sm / 10 == gpu_sm / 10 && code_sm <= gpu_sm;
}

// The context of a GPU is the calling thread's while this lives.
class CurrentContext {
 public:
  explicit CurrentContext(const Gpu& gpu);
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  bool pushed_ = false;
};

// While this lives, the calling thread may allocate and load although a caller captures a stream:
// nothing of it belongs to the capture.
class OutsideCapture {
 public:
  OutsideCapture() { driver().cuThreadExchangeStreamCaptureMode(&mode_); }
  ~OutsideCapture() { driver().cuThreadExchangeStreamCaptureMode(&mode_); }
  OutsideCapture(const OutsideCapture&) = delete;
  OutsideCapture& operator=(const OutsideCapture&) = delete;

 private:
  int mode_ = api::kCaptureRelaxed;
};

}  // namespace kiln::cuda
