#include "capi/tensor_check.h"

#include <string>

#include "capi/options.h"
#include "engine/spec.h"
#include "support/device_memory.h"

namespace kiln {

static_assert(KILN_MAX_RANK == engine::kMaxRank);
static_assert(static_cast<int>(DType::F8E4M3) == KILN_F8E4M3 && kDTypeCount == KILN_F8E4M3 + 1);
static_assert(static_cast<int>(DeviceType::Cpu) == KILN_CPU &&
              static_cast<int>(DeviceType::Cuda) == KILN_CUDA);

Status check_tensor(const char* role, size_t index, const kiln_tensor& tensor, size_t struct_size) {
  const std::string name = std::string(role) + " " + std::to_string(index);
  const auto bad = [&](const std::string& what) {
    return Status(StatusCode::InvalidArgument, name + ": " + what);
  };
  const size_t size = tensor.struct_size;
  const std::string got_size = "got struct_size " + std::to_string(size) + ", expected ";
  if (size < sizeof(kiln_tensor) || size > kMostStructBytes || size % alignof(kiln_tensor) != 0)
    return bad(got_size + "sizeof(kiln_tensor), which is " + std::to_string(sizeof(kiln_tensor)));
  if (size != struct_size)
    return bad(got_size + std::to_string(struct_size) + " as in the tensor before");
  if (!is_zero_behind(&tensor, sizeof(kiln_tensor), size)) return newer_fields(name);
  if (tensor.dtype < KILN_F32 || tensor.dtype > KILN_F8E4M3)
    return bad("got dtype " + std::to_string(tensor.dtype) + ", expected 0..10");
  if (tensor.rank < 0 || tensor.rank > KILN_MAX_RANK)
    return bad("got rank " + std::to_string(tensor.rank) + ", expected 0..16");
  if (tensor.rank > 0 && tensor.shape == nullptr) return bad("its shape is null");
  return Status();
}

}  // namespace kiln
