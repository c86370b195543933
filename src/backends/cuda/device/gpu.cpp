#include "backends/cuda/device/gpu.h"

#include <deque>
#include <mutex>

namespace kiln::cuda {

// One entry for each GPU, opened when it is first used.
struct GpuTable {
  struct Entry {
    std::once_flag opened;
    Gpu gpu;
    Status status;
  };
  std::deque<Entry> entries;

  GpuTable() {
    std::string reason;
    int count = 0;
    if (const api::Functions* driver = find_driver(reason);
        driver != nullptr && driver->cuDeviceGetCount(&count) == api::kSuccess)
      for (int i = 0; i < count; ++i) entries.emplace_back();
  }

  static GpuTable& instance() {
    static GpuTable& table = *new GpuTable;  // outlives every thread
    return table;
  }

  const Entry& open(int index) {
    Entry& entry = entries[static_cast<size_t>(index)];
    std::call_once(entry.opened, [&] { entry.status = entry.gpu.open(index); });
    return entry;
  }
};

int Gpu::count() { return static_cast<int>(GpuTable::instance().entries.size()); }

int Gpu::current() {
  api::CUcontext context = nullptr;
  api::CUdevice device = 0;
  if (count() == 0 || driver().cuCtxGetCurrent(&context) != api::kSuccess || context == nullptr ||
      driver().cuCtxGetDevice(&device) != api::kSuccess)
    return 0;
  return device;
}

Result<const Gpu*> Gpu::get(int index) {
  std::string reason;
  if (find_driver(reason) == nullptr) return Status(StatusCode::Unsupported, "[cuda] " + reason);
  if (index < 0 || index >= count())
    return Status(StatusCode::InvalidArgument, "[cuda] got GPU " + std::to_string(index) +
                                                   ", expected 0.." + std::to_string(count() - 1));
  const GpuTable::Entry& entry = GpuTable::instance().open(index);
  if (!entry.status.ok()) return entry.status;
  return &entry.gpu;
}

Status Gpu::open(int index) {
  index_ = index;
  api::CUdevice device = 0;
  int major = 0, minor = 0;
  char name[256] = {};
  KILN_RETURN_IF_CUDA_ERROR(driver().cuDeviceGet(&device, index), "opening a GPU");
  KILN_RETURN_IF_CUDA_ERROR(driver().cuDeviceGetName(name, sizeof(name) - 1, device),
                            "asking a GPU for its name");
  KILN_RETURN_IF_CUDA_ERROR(driver().cuDeviceGetAttribute(&major, api::kMajor, device),
                            "asking a GPU for its generation");
  KILN_RETURN_IF_CUDA_ERROR(driver().cuDeviceGetAttribute(&minor, api::kMinor, device),
                            "asking a GPU for its generation");
  name_ = name;
  sm_ = 10 * major + minor;
  KILN_RETURN_IF_CUDA_ERROR(driver().cuDevicePrimaryCtxRetain(&context_, device),
                            "opening the context of " + str());
  return Status();
}

std::string Gpu::str() const {
  return "cuda:" + std::to_string(index_) + " (" + name_ + ", sm_" + std::to_string(sm_) + ")";
}

CurrentContext::CurrentContext(const Gpu& gpu) {
  api::CUcontext current = nullptr;
  driver().cuCtxGetCurrent(&current);
  pushed_ =
      current != gpu.context() && driver().cuCtxPushCurrent_v2(gpu.context()) == api::kSuccess;
}

CurrentContext::~CurrentContext() {
  api::CUcontext popped = nullptr;
  if (pushed_) driver().cuCtxPopCurrent_v2(&popped);
}

}  // namespace kiln::cuda
