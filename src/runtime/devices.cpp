#include "runtime/devices.h"

#include <algorithm>
#include <array>

#include "backends/cpu/device/executable.h"
#include "runtime/device_library.h"

namespace kiln::runtime {
namespace {

// What follows the first null is not in use.
constinit std::array<const Device*, 4> devices = {&cpu::kDevice};

// Opened once, whatever comes of it, and in use until the process ends.
const Result<const Device*>& cuda_library() {
  static const auto& library =
      *new Result<const Device*>(open_device_library("cuda", "libkiln_cuda.so"));
  return library;
}

// Device halves that are libraries of their own. Their names are here, never out of a file.
struct Library {
  std::string_view target;
  const Result<const Device*>& (*device)();
};
constexpr Library kLibraries[] = {{"cuda", cuda_library}};

}  // namespace

Result<const Device*> find_device(std::string_view target) {
  for (const Device* device : devices)
    if (device != nullptr && device->target == target) return device;
  for (const Library& library : kLibraries)
    if (library.target == target) return library.device();
  return Status(StatusCode::Unsupported, "there is no device for it");
}

bool add_device(const Device& device) {
  const auto free = std::ranges::find(devices, nullptr);
  if (free == devices.end()) return false;
  *free = &device;
  return true;
}

}  // namespace kiln::runtime
