// A call of a kernel of the user's own, bound to sizes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/cpu/device/custom_kernels.h"
#include "backends/executable.h"

namespace kiln::cpu {

class BoundCall {
 public:
  // What a step resolves to, as for other kernels; the pointers may change from run to run.
  struct Arguments {
    void* const* buffers = nullptr;
    const int64_t* params = nullptr;
  };

  // Unsupported: the process has no such kernel. InvalidEngine: a tensor is not all of its buffer.
  static Result<std::unique_ptr<BoundCall>> create(const engine::ProgramSpec& program,
                                                   const engine::StepSpec& step,
                                                   const BindRequest& request,
                                                   const Arguments& arguments);

  // False: it failed, and failure() says how.
  bool run();
  // Of the last run, which failed.
  Status failure() const { return failure_; }

 private:
  BoundCall(const engine::KernelSpec& kernel, const CustomKernel& function,
            const Arguments& arguments)
      : name_(engine::called_kernel(kernel.function)),
        json_(engine::call_arguments(kernel.function)),
        function_(function),
        buffers_(arguments.buffers) {}

  // The kernel's own text for its error.
  static void set_error(const kiln_kernel_call* call, const char* text);

  bool fail(const std::string& reason);
  // Of the bytes of each input.
  std::vector<uint32_t> input_checksums() const;
  Status add_tensors(const engine::ProgramSpec& program, const engine::StepSpec& step,
                     const BindRequest& request, const int64_t* params);

  const std::string name_, json_;
  const CustomKernel function_;
  void* const* const buffers_;
  std::vector<kiln_tensor> tensors_;  // the inputs in front
  kiln_kernel_call call_{};
  // Archives do not say which operators change their arguments, so that the first call is watched.
  bool is_known_to_read_ = false;
  std::string error_;  // of the current run; empty: none
  Status failure_;
};

}  // namespace kiln::cpu
