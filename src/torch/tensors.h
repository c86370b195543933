// PyTorch's tensors as the runtime sees them, through LibTorch's C functions alone.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kiln/kiln.h"
#include "torch/layouts.h"

namespace kiln::torch_op {

struct TensorDeleter {
  void operator()(AtenTensorHandle tensor) const { aoti_torch_delete_tensor_object(tensor); }
};
using OwnedTensor = std::unique_ptr<AtenTensorOpaque, TensorDeleter>;

// Throws std::runtime_error if a function of LibTorch failed; `what` says which.
void check_torch(AOTITorchError error, const char* what);

bool is_on_cpu(AtenTensorHandle tensor);

// What messages call a tensor: "output", "input 3". It becomes text only in an error.
struct TensorName {
  static constexpr size_t kNoIndex = SIZE_MAX;

  std::string_view text;
  size_t index = kNoIndex;

  std::string str() const;
};

// A view of a tensor in the memory of the CPU or of a GPU. Throws std::runtime_error for other
// devices, and for dtypes that engines do not take.
kiln_tensor view(AtenTensorHandle tensor, TensorName name);

// From the first byte of a tensor to the last; strides are not negative.
struct MemoryRange {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
};
MemoryRange range_of(const kiln_tensor& tensor);
bool overlap(const MemoryRange& a, const MemoryRange& b);

Shape row_major_strides(std::span<const int64_t> shape);

// Where a tensor lies; `name` is for errors.
kiln_device device_of(AtenTensorHandle tensor, TensorName name);

inline constexpr kiln_device kCpu = {KILN_CPU, 0};

// A new tensor; row-major without gaps if `strides` are empty.
OwnedTensor new_tensor(kiln_dtype dtype, std::span<const int64_t> shape,
                       std::span<const int64_t> strides = {}, kiln_device device = kCpu);

// A tensor that borrows memory in the CPU; row-major without gaps if `strides` are empty.
OwnedTensor borrow(const void* data, kiln_dtype dtype, std::span<const int64_t> shape,
                   std::span<const int64_t> strides = {});

// A copy of a tensor on another device, row-major without gaps.
OwnedTensor copy_to(kiln_device device, AtenTensorHandle tensor, TensorName name);

// Another handle of the same tensor.
OwnedTensor share(AtenTensorHandle tensor);

}  // namespace kiln::torch_op
