#include "runtime/devices.h"

#include <algorithm>
#include <array>

#include "backends/cpu/device/executable.h"

namespace kiln::runtime {
namespace {

constexpr std::array kDevices = {&cpu::kDevice};

}  // namespace

const Device* find_device(std::string_view target) {
  const auto found = std::ranges::find_if(
      kDevices, [&](const Device* device) { return device->target == target; });
  return found == kDevices.end() ? nullptr : *found;
}

}  // namespace kiln::runtime
