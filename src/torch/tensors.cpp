#include "torch/tensors.h"

#include <array>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>

namespace kiln::torch_op {
namespace {

struct DTypePair {
  int32_t torch;
  kiln_dtype kiln;
};

const std::array<DTypePair, 11>& dtype_pairs() {
  static const std::array<DTypePair, 11> kPairs{{{aoti_torch_dtype_float32(), KILN_F32},
                                                 {aoti_torch_dtype_float64(), KILN_F64},
                                                 {aoti_torch_dtype_float16(), KILN_F16},
                                                 {aoti_torch_dtype_bfloat16(), KILN_BF16},
                                                 {aoti_torch_dtype_int8(), KILN_I8},
                                                 {aoti_torch_dtype_uint8(), KILN_U8},
                                                 {aoti_torch_dtype_int16(), KILN_I16},
                                                 {aoti_torch_dtype_int32(), KILN_I32},
                                                 {aoti_torch_dtype_int64(), KILN_I64},
                                                 {aoti_torch_dtype_bool(), KILN_BOOL},
                                                 {aoti_torch_dtype_float8_e4m3fn(), KILN_F8E4M3}}};
  return kPairs;
}

std::optional<kiln_dtype> to_kiln(int32_t dtype) {
  for (const DTypePair& pair : dtype_pairs()) {
    if (pair.torch == dtype) {
      return pair.kiln;
    }
  }
  return std::nullopt;
}

int32_t to_torch(kiln_dtype dtype) {
  for (const DTypePair& pair : dtype_pairs()) {
    if (pair.kiln == dtype) {
      return pair.torch;
    }
  }
  throw std::runtime_error(
      "[execute_engine] the engine has an output of a dtype that PyTorch lacks");
}

int64_t bytes_of(kiln_dtype dtype) {
  switch (dtype) {
    case KILN_F64:
    case KILN_I64:
      return 8;
    case KILN_F32:
    case KILN_I32:
      return 4;
    case KILN_F16:
    case KILN_BF16:
    case KILN_I16:
      return 2;
    default:
      return 1;
  }
}

}  // namespace

void check_torch(AOTITorchError error, const char* what) {
  if (error != AOTI_TORCH_SUCCESS) {
    throw std::runtime_error(std::string("[execute_engine] PyTorch failed to ") + what);
  }
}

bool is_on_cpu(AtenTensorHandle tensor) {
  int32_t type = 0;
  check_torch(aoti_torch_get_device_type(tensor, &type), "tell the device of a tensor");
  return type == aoti_torch_device_type_cpu();
}

std::string TensorName::str() const {
  return std::string(text) + (index == kNoIndex ? "" : " " + std::to_string(index));
}

kiln_device device_of(AtenTensorHandle tensor, TensorName name) {
  if (is_on_cpu(tensor)) return {KILN_CPU, 0};
  int32_t type = 0, index = 0;
  check_torch(aoti_torch_get_device_type(tensor, &type), "tell the device of a tensor");
  check_torch(aoti_torch_get_device_index(tensor, &index), "tell the device of a tensor");
  if (type == aoti_torch_device_type_cuda()) return {KILN_CUDA, index};
  throw std::runtime_error("[execute_engine] " + name.str() +
                           " is not in CPU memory, nor in that of a GPU: pass tensor.cpu()");
}

kiln_tensor view(AtenTensorHandle tensor, TensorName name) {
  const kiln_device device = device_of(tensor, name);
  int32_t dtype = 0;
  int64_t rank = 0;
  int64_t *shape = nullptr, *strides = nullptr;
  void* data = nullptr;
  check_torch(aoti_torch_get_dtype(tensor, &dtype), "tell the dtype of a tensor");
  check_torch(aoti_torch_get_dim(tensor, &rank), "tell the rank of a tensor");
  check_torch(aoti_torch_get_sizes(tensor, &shape), "tell the shape of a tensor");
  check_torch(aoti_torch_get_strides(tensor, &strides), "tell the strides of a tensor");
  check_torch(aoti_torch_get_data_ptr(tensor, &data), "tell where a tensor lies");
  const std::optional<kiln_dtype> kiln_type = to_kiln(dtype);
  if (!kiln_type) {
    throw std::runtime_error("[execute_engine] " + name.str() +
                             " has a dtype that engines do not take (PyTorch's code " +
                             std::to_string(dtype) + ")");
  }
  return {
      sizeof(kiln_tensor), data, *kiln_type, static_cast<int32_t>(rank), shape, strides, device};
}

MemoryRange range_of(const kiln_tensor& tensor) {
  int64_t last = 0;
  for (int32_t axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] == 0) return {nullptr, nullptr};
    last += (tensor.shape[axis] - 1) * tensor.strides[axis];
  }
  const auto* begin = static_cast<const std::byte*>(tensor.data);
  return {begin, begin + (last + 1) * bytes_of(tensor.dtype)};
}

bool overlap(const MemoryRange& a, const MemoryRange& b) {
  return std::less<>()(a.begin, b.end) && std::less<>()(b.begin, a.end);
}

Shape row_major_strides(std::span<const int64_t> shape) {
  Shape strides;
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape[axis] > 0 ? shape[axis] : 1;
  }
  return strides;
}

OwnedTensor new_tensor(kiln_dtype dtype, std::span<const int64_t> shape,
                       std::span<const int64_t> strides, kiln_device device) {
  const Shape row_major = row_major_strides(shape);
  const int32_t type =
      device.type == KILN_CUDA ? aoti_torch_device_type_cuda() : aoti_torch_device_type_cpu();
  const int64_t* steps = strides.empty() ? row_major.data() : strides.data();
  AtenTensorHandle handle = nullptr;
  check_torch(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), steps,
                                       to_torch(dtype), type, device.index, &handle),
              "allocate a tensor");
  return OwnedTensor(handle);
}

OwnedTensor borrow(const void* data, kiln_dtype dtype, std::span<const int64_t> shape,
                   std::span<const int64_t> strides) {
  const Shape row_major = row_major_strides(shape);
  AtenTensorHandle handle = nullptr;
  check_torch(aoti_torch_create_tensor_from_blob(
                  const_cast<void*>(data), static_cast<int64_t>(shape.size()), shape.data(),
                  strides.empty() ? row_major.data() : strides.data(), 0, to_torch(dtype),
                  aoti_torch_device_type_cpu(), 0, &handle),
              "make a tensor of borrowed memory");
  return OwnedTensor(handle);
}

OwnedTensor copy_to(kiln_device device, AtenTensorHandle tensor, TensorName name) {
  const kiln_tensor from = view(tensor, name);
  OwnedTensor copy =
      new_tensor(from.dtype, {from.shape, static_cast<size_t>(from.rank)}, {}, device);
  check_torch(aoti_torch_copy_(copy.get(), tensor, 0), "copy a tensor to another device");
  return copy;
}

OwnedTensor share(AtenTensorHandle tensor) {
  AtenTensorHandle handle = nullptr;
  check_torch(aoti_torch_new_tensor_handle(tensor, &handle), "share a tensor");
  return OwnedTensor(handle);
}

}  // namespace kiln::torch_op
