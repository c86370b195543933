#include "placed_arrays.h"

namespace tools {

PlacedArrays::PlacedArrays(std::vector<Array>& arrays, Gpu* gpu)
    : arrays_(arrays), gpu_(gpu), addresses_(arrays.size(), 0) {
  for (size_t i = 0; i < arrays.size(); ++i) {
    const Array& array = arrays[i];
    if (gpu == nullptr) {
      tensors_.push_back(as_tensor(array));
      continue;
    }
    if (!array.data.empty()) {
      addresses_[i] = gpu->allocate(array.data.size());
      gpu->copy_in(addresses_[i], array.data.data(), array.data.size());
    }
    tensors_.emplace_back(reinterpret_cast<const void*>(addresses_[i]), array.dtype, array.shape,
                          array.strides, gpu->device());
  }
}

PlacedArrays::~PlacedArrays() {
  for (const uint64_t address : addresses_)
    if (address != 0) gpu_->release(address);
}

std::vector<kiln_tensor> PlacedArrays::views() const {
  std::vector<kiln_tensor> views;
  for (const kiln::Tensor& tensor : tensors_) views.push_back(tensor.view());
  return views;
}

void PlacedArrays::fetch() {
  for (size_t i = 0; i < arrays_.size(); ++i)
    if (addresses_[i] != 0)
      gpu_->copy_out(arrays_[i].data.data(), addresses_[i], arrays_[i].data.size());
}

}  // namespace tools
