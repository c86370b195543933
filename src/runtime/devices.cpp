#include "runtime/devices.h"

#include <algorithm>
#include <array>

#include "backends/cpu/device/executable.h"
#include "backends/cuda/device/executable.h"

namespace kiln::runtime {
namespace {

// What follows the first null is not in use.
constinit std::array<const Device*, 4> devices = {&cpu::kDevice, &cuda::kDevice};

}  // namespace

const Device* find_device(std::string_view target) {
  const auto found = std::ranges::find_if(
      devices, [&](const Device* device) { return device == nullptr || device->target == target; });
  return found == devices.end() ? nullptr : *found;
}

bool add_device(const Device& device) {
  const auto free = std::ranges::find(devices, nullptr);
  if (free == devices.end()) return false;
  *free = &device;
  return true;
}

}  // namespace kiln::runtime
