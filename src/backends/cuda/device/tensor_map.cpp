#include "backends/cuda/device/tensor_map.h"

namespace kiln::cuda {
namespace {

// CUtensorMapDataType
int data_type(DType dtype) {
  switch (dtype) {
    case DType::F16:
      return 6;
    case DType::F32:
      return 11;  // TFLOAT32: rounded on the way, for products that take no more
    case DType::F64:
      return 8;
    case DType::BF16:
      return 9;
    case DType::I16:
      return 1;
    case DType::I32:
      return 3;
    case DType::I64:
      return 5;
    default:
      return 0;  // bytes
  }
}

// CUtensorMapSwizzle of a number of bytes
int swizzle(int bytes) { return bytes == 128 ? 3 : bytes == 64 ? 2 : bytes == 32 ? 1 : 0; }

// CU_TENSOR_MAP_L2_PROMOTION_L2_256B: rows of boxes are read whole.
constexpr int kPromotion = 3;

}  // namespace

TensorMap::TensorMap(const engine::TensorMapSpec& spec, const BindRequest& request) : spec_(spec) {
  const auto at = [&](engine::Slot slot) {
    return static_cast<uint64_t>(request.sizes[static_cast<size_t>(slot)]);
  };
  offset_ = at(spec.offset);
  for (const engine::Slot slot : spec.sizes) sizes_.push_back(at(slot));
  for (const engine::Slot slot : spec.strides) strides_.push_back(at(slot));
  box_.assign(spec.box.begin(), spec.box.end());
  element_strides_.assign(spec.element_strides.begin(), spec.element_strides.end());
  element_strides_.resize(sizes_.size(), 1);
}

Status TensorMap::encode(uint64_t address, const std::string& kernel, api::CUtensorMap& map) const {
  void* const begin = reinterpret_cast<void*>(address + offset_);
  const auto rank = static_cast<uint32_t>(sizes_.size());
  const api::CUresult result =
      spec_.lower_corner.empty()
          ? driver().cuTensorMapEncodeTiled(
                &map, data_type(spec_.dtype), rank, begin, sizes_.data(), strides_.data(),
                box_.data(), element_strides_.data(), 0, swizzle(spec_.swizzle), kPromotion, 0)
          : driver().cuTensorMapEncodeIm2col(
                &map, data_type(spec_.dtype), rank, begin, sizes_.data(), strides_.data(),
                spec_.lower_corner.data(), spec_.upper_corner.data(),
                static_cast<uint32_t>(spec_.box_channels), static_cast<uint32_t>(spec_.box_pixels),
                element_strides_.data(), 0, swizzle(spec_.swizzle), kPromotion, 0);
  KILN_RETURN_IF_CUDA_ERROR(result, "mapping a tensor for " + kernel);
  return Status();
}

}  // namespace kiln::cuda
