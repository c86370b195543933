// An engine bound to one set of input shapes: everything of a run that does not depend on the data.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/engine.h"
#include "runtime/tensor.h"
#include "support/status.h"

namespace kiln::runtime {

struct BoundTensor {
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;

  bool matches(const TensorView& tensor) const;
};

struct BoundStep {
  engine::CpuKernel kernel = nullptr;
  void* const* buffers = nullptr;  // into Binding::pointers_
  const int64_t* params = nullptr;
  int64_t tasks = 0;
  int64_t grain = 1;
  int32_t threads = 1;
  uint64_t checks = 0;  // the bits of a kernel's result that mean something
};

class Binding {
 public:
  // `symbols` are within their ranges.
  static Result<std::unique_ptr<Binding>> create(const Engine& engine, std::vector<int64_t> symbols,
                                                 int threads);

  const std::vector<int64_t>& symbols() const { return symbols_; }
  const std::vector<BoundTensor>& inputs() const { return inputs_; }
  const std::vector<BoundTensor>& outputs() const { return outputs_; }
  const std::vector<BoundStep>& steps() const { return steps_; }

  // Memory that a run needs, kTensorAlignment: temporaries, then `threads` blocks of scratch.
  uint64_t memory_bytes() const { return scratch_offset_ + scratch_stride_ * threads_; }
  uint64_t scratch_offset() const { return scratch_offset_; }
  uint64_t scratch_stride() const { return scratch_stride_; }

  // Patch the pointers that the kernels get.
  void set_input(size_t index, void* data) { patch(input_uses_[index], data); }
  void set_output(size_t index, void* data) { patch(output_uses_[index], data); }
  void set_memory(std::byte* memory);

 private:
  using Uses = std::vector<uint32_t>;  // positions in pointers_

  struct TemporaryUse {
    uint32_t position = 0;
    uint64_t offset = 0;
  };

  Binding() = default;
  Status bind_tensors(const engine::Spec& spec, std::span<const int64_t> sizes);
  Status check_sizes(const engine::Spec& spec, std::span<const int64_t> sizes) const;
  Status check_writes(const engine::Spec& spec, std::span<const int64_t> sizes) const;
  Status bind_memory(const engine::Spec& spec, std::span<const int64_t> sizes, int threads);
  void bind_steps(const Engine& engine, std::span<const int64_t> sizes, int threads);
  void bind_pointer(const Engine& engine, size_t buffer);
  void patch(const Uses& uses, void* data) {
    for (const uint32_t position : uses) pointers_[position] = data;
  }

  std::vector<int64_t> symbols_;
  std::vector<BoundTensor> inputs_, outputs_;
  std::vector<BoundStep> steps_;
  std::vector<void*> pointers_;
  std::vector<int64_t> params_;
  std::vector<Uses> input_uses_, output_uses_;
  std::vector<TemporaryUse> temporary_uses_;
  std::vector<uint64_t> offsets_;  // of temporaries, by buffer
  uint64_t scratch_offset_ = 0, scratch_stride_ = 0, threads_ = 1;
  std::byte* memory_ = nullptr;
};

}  // namespace kiln::runtime
