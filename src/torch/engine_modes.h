// Modes that the calls of an engine may be in: results written to the memory of the call before,
// and kernels timed. They belong to the address of the engine's bytes, are switched from Python,
// and cost one atomic load where no engine has any.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "kiln/kiln.h"

namespace kiln::torch_op {

inline constexpr uint32_t kReuseOutputs = 1;
inline constexpr uint32_t kProfile = 2;

// The flags never change: switching a mode makes a new object, so that calls under way finish with
// what they began with.
class EngineModes {
 public:
  explicit EngineModes(uint32_t flags) : flags_(flags) {}

  uint32_t flags() const { return flags_; }
  // The results of the last call, for the caller alone; empty while another call has them.
  std::vector<torch::stable::Tensor> take_outputs();

  // Call these around a run; the second keeps what the modes want kept.
  void before_run(kiln_session* session) const;
  void after_run(kiln_session* session, const std::vector<torch::stable::Tensor>& outputs);
  // Times of the kernels of the last run as JSON, "" before the first.
  std::string profile() const;

 private:
  const uint32_t flags_;
  mutable std::mutex mutex_;
  std::vector<torch::stable::Tensor> outputs_;
  std::string profile_;
};

// Null if the engine at this address has no modes.
std::shared_ptr<EngineModes> find_modes(const void* data);
void set_modes(const void* data, uint32_t flags);

// Whether a result of an earlier call can take one of this call: the same dtype (PyTorch's code)
// and shape, dense, and in no memory that an input uses.
bool can_reuse(const torch::stable::Tensor& output, int32_t dtype, std::span<const int64_t> shape,
               std::span<const kiln_tensor> inputs);

}  // namespace kiln::torch_op
