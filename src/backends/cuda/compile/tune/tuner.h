// Which way to compute a kernel is the fastest on a GPU of this machine.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backends/common/tuning.h"
#include "backends/cuda/compile/tune/timing_gpu.h"

namespace kiln::cuda {

class Tuner {
 public:
  // Opens the GPU; where there is none for the target, choose() gives 0 always.
  Tuner(const Target& target, backend::Tuning& tuning);

  int candidates() const { return gpu_ == nullptr ? 1 : tuning_.candidates(); }
  // Compiles the i-th way, on a thread of its own; may throw.
  using Compile = std::function<std::vector<std::byte>(size_t i)>;
  // The fastest of several ways, the cost model's choice first: known already, or compiled and timed.
  // Ways that do not work are left out. A later one has to be faster by more than times vary.
  size_t choose(const plan::Program& program, std::span<const KernelText> ways,
                const Compile& compile) const;
  // What a choice depends on, hashed: the ways, the machine, the versions of what makes code.
  Hash128 key_of(const plan::Program& program, std::span<const KernelText> ways) const;

 private:
  backend::Tuning& tuning_;
  std::shared_ptr<TimingGpu> gpu_;
};

}  // namespace kiln::cuda
