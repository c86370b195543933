#include "capi/tensors.h"

#include <string>

#include "capi/options.h"
#include "engine/spec.h"

namespace kiln {
namespace {

static_assert(KILN_MAX_RANK == engine::kMaxRank);
static_assert(static_cast<int>(DType::Bool) == KILN_BOOL && kDTypeCount == KILN_BOOL + 1);
static_assert(static_cast<int>(DeviceType::Cpu) == KILN_CPU &&
              static_cast<int>(DeviceType::Cuda) == KILN_CUDA);

struct Place {
  const char* role;
  size_t index;
};

Status bad_tensor(Place place, const std::string& what) {
  return Status(StatusCode::InvalidArgument,
                std::string(place.role) + " " + std::to_string(place.index) + ": " + what);
}

Status check_size(Place place, const kiln_tensor& tensor, size_t stride) {
  const size_t size = tensor.struct_size;
  if (size < sizeof(kiln_tensor) || size > kMostStructBytes || size % alignof(kiln_tensor) != 0)
    return bad_tensor(place, "got struct_size " + std::to_string(size) +
                                 ", expected sizeof(kiln_tensor), which is " +
                                 std::to_string(sizeof(kiln_tensor)));
  if (size != stride)
    return bad_tensor(place, "got struct_size " + std::to_string(size) + ", expected " +
                                 std::to_string(stride) + " as in the tensor before");
  if (!is_zero_behind(&tensor, sizeof(kiln_tensor), size))
    return newer_fields(std::string(place.role) + " " + std::to_string(place.index));
  return Status();
}

Status to_view(Place place, const kiln_tensor& tensor, runtime::TensorView& view) {
  if (tensor.dtype < KILN_F32 || tensor.dtype > KILN_BOOL)
    return bad_tensor(place, "got dtype " + std::to_string(tensor.dtype) + ", expected 0..9");
  if (tensor.rank < 0 || tensor.rank > KILN_MAX_RANK)
    return bad_tensor(place, "got rank " + std::to_string(tensor.rank) + ", expected 0..16");
  if (tensor.rank > 0 && tensor.shape == nullptr) return bad_tensor(place, "its shape is null");
  const auto rank = static_cast<size_t>(tensor.rank);
  view.data = tensor.data;
  view.dtype = static_cast<DType>(tensor.dtype);
  view.shape = {tensor.shape, rank};
  view.strides = {tensor.strides, tensor.strides == nullptr ? 0 : rank};
  view.device = {static_cast<DeviceType>(tensor.device.type),
                 tensor.device.type == KILN_CPU ? 0 : tensor.device.index};
  return Status();
}

}  // namespace

Status Views::assign(const char* role, const kiln_tensor* tensors, size_t count) {
  if (count > 0 && tensors == nullptr)
    return Status(StatusCode::InvalidArgument, std::string("the ") + role + "s are null");
  if (count > few_.size()) many_.resize(count);
  views_ = {count > few_.size() ? many_.data() : few_.data(), count};
  const auto* at = reinterpret_cast<const std::byte*>(tensors);
  for (size_t i = 0; i < count; ++i, at += tensors->struct_size) {
    const auto& tensor = *reinterpret_cast<const kiln_tensor*>(at);
    const Place place{role, i};
    if (tensor.struct_size != sizeof(kiln_tensor) || tensors->struct_size != sizeof(kiln_tensor))
      KILN_RETURN_IF_ERROR(check_size(place, tensor, tensors->struct_size));
    KILN_RETURN_IF_ERROR(to_view(place, tensor, views_[i]));
  }
  return Status();
}

}  // namespace kiln
