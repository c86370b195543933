#include "gpu.h"

#include <dlfcn.h>

#include <cstdio>

#include "failure.h"

// Name, parameters; all return 0 for success. As in cuda.h and nvml.h, whose binary interfaces are stable.
// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's
#define KILN_DRIVER_FUNCTIONS(X)                                               \
  X(cuInit, unsigned flags)                                                    \
  X(cuDriverGetVersion, int* version)                                          \
  X(cuGetErrorString, int error, const char** text)                            \
  X(cuDeviceGet, int* device, int index)                                       \
  X(cuDeviceGetName, char* name, int size, int device)                         \
  X(cuDeviceGetPCIBusId, char* text, int size, int device)                     \
  X(cuDeviceGetAttribute, int* value, int attribute, int device)               \
  X(cuDevicePrimaryCtxRetain, void** context, int device)                      \
  X(cuDevicePrimaryCtxRelease_v2, int device)                                  \
  X(cuCtxSetCurrent, void* context)                                            \
  X(cuMemGetInfo_v2, size_t* free, size_t* total)                              \
  X(cuMemAlloc_v2, uint64_t* address, size_t bytes)                            \
  X(cuMemFree_v2, uint64_t address)                                            \
  X(cuMemcpyHtoDAsync_v2, uint64_t to, const void* from, size_t, void* stream) \
  X(cuMemcpyDtoHAsync_v2, void* to, uint64_t from, size_t, void* stream)       \
  X(cuStreamCreate, void** stream, unsigned flags)                             \
  X(cuStreamDestroy_v2, void* stream)                                          \
  X(cuStreamSynchronize, void* stream)                                         \
  X(cuEventCreate, void** event, unsigned flags)                               \
  X(cuEventRecord, void* event, void* stream)                                  \
  X(cuEventElapsedTime, float* milliseconds, void* start, void* end)           \
  X(cuEventDestroy_v2, void* event)

#define KILN_NVML_FUNCTIONS(X)                                           \
  X(nvmlInit_v2)                                                         \
  X(nvmlShutdown)                                                        \
  X(nvmlDeviceGetHandleByPciBusId_v2, const char* bus, void** device)    \
  X(nvmlDeviceGetClockInfo, void* device, int type, unsigned* megahertz) \
  X(nvmlDeviceGetPowerUsage, void* device, unsigned* milliwatts)         \
  X(nvmlDeviceGetEnforcedPowerLimit, void* device, unsigned* milliwatts) \
  X(nvmlDeviceGetTemperature, void* device, int sensor, unsigned* celsius)

#define KILN_DECLARE(name, ...) int (*name)(__VA_ARGS__) = nullptr;
#define KILN_FIND(name, ...)                                      \
  name = reinterpret_cast<decltype(name)>(dlsym(library, #name)); \
  if (missing.empty() && name == nullptr) missing = #name;

namespace tools {
namespace {

constexpr int kOutOfMemory = 2;
constexpr unsigned kNonBlocking = 1;           // CU_STREAM_NON_BLOCKING
constexpr int kSmClock = 1, kMemoryClock = 2;  // nvmlClockType_t

}  // namespace

struct GpuFunctions {
  KILN_DRIVER_FUNCTIONS(KILN_DECLARE)

  static const GpuFunctions& get() {
    static const GpuFunctions kFunctions;
    return kFunctions;
  }

 private:
  GpuFunctions() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      throw Failure("there is no NVIDIA driver on this machine (libcuda.so.1 was not found)");
    std::string missing;
    KILN_DRIVER_FUNCTIONS(KILN_FIND)
    if (!missing.empty()) throw Failure("the NVIDIA driver is too old: it lacks " + missing);
    if (const int result = cuInit(0); result != 0)
      throw Failure("the NVIDIA driver does not start: error " + std::to_string(result));
  }
};

struct Gpu::Nvml {
  KILN_NVML_FUNCTIONS(KILN_DECLARE)
  void* device = nullptr;  // null: nothing is known of it

  explicit Nvml(const char* bus) {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    std::string missing;
    KILN_NVML_FUNCTIONS(KILN_FIND)
    if (!missing.empty() || nvmlInit_v2() != 0) return;
    if (nvmlDeviceGetHandleByPciBusId_v2(bus, &device) != 0) device = nullptr;
  }
  ~Nvml() {
    if (device != nullptr) nvmlShutdown();
  }

  std::string state() const {
    unsigned sm = 0, memory = 0, power = 0, limit = 0, celsius = 0;
    if (device == nullptr || nvmlDeviceGetClockInfo(device, kSmClock, &sm) != 0 ||
        nvmlDeviceGetClockInfo(device, kMemoryClock, &memory) != 0 ||
        nvmlDeviceGetPowerUsage(device, &power) != 0 ||
        nvmlDeviceGetEnforcedPowerLimit(device, &limit) != 0 ||
        nvmlDeviceGetTemperature(device, 0, &celsius) != 0)
      return "";
    char text[128];
    std::snprintf(text, sizeof(text), "%u MHz, memory %u MHz, %.0f of %.0f W, %u C", sm, memory,
                  power / 1e3, limit / 1e3, celsius);
    return text;
  }
};
// NOLINTEND(readability-identifier-naming)

Gpu::Gpu(int index) : driver_(GpuFunctions::get()), index_(index) {
  check(driver_.cuDeviceGet(&device_, index), "opening GPU " + std::to_string(index));
  void* context = nullptr;
  check(driver_.cuDevicePrimaryCtxRetain(&context, device_), "opening the context of a GPU");
  try {
    check(driver_.cuCtxSetCurrent(context), "choosing a GPU");
    open();
  } catch (...) {
    driver_.cuDevicePrimaryCtxRelease_v2(device_);
    throw;
  }
}

void Gpu::open() {
  char name[256] = {}, bus[32] = {};
  int version = 0;
  check(driver_.cuDeviceGetName(name, sizeof(name) - 1, device_), "asking a GPU for its name");
  check(driver_.cuDeviceGetPCIBusId(bus, sizeof(bus) - 1, device_), "asking a GPU for its place");
  check(driver_.cuDriverGetVersion(&version), "asking the driver for its version");
  name_ = std::string(name) + ", driver for CUDA " + std::to_string(version / 1000) + "." +
          std::to_string(version % 1000 / 10);
  nvml_ = std::make_unique<Nvml>(bus);
  check(driver_.cuStreamCreate(&stream_, kNonBlocking), "making a stream");
}

Gpu::Size Gpu::size() const {
  const auto attribute = [&](int which) {  // CUdevice_attribute
    int value = 0;
    check(driver_.cuDeviceGetAttribute(&value, which, device_), "asking a GPU for its size");
    return value;
  };
  constexpr int kMajor = 75, kMinor = 76, kMultiprocessors = 16, kKilohertz = 13;
  constexpr int kMemoryKilohertz = 36, kBusBits = 37;
  constexpr double kTransfersOfAClock = 2;
  return {10 * attribute(kMajor) + attribute(kMinor),
          static_cast<double>(attribute(kMultiprocessors)), 1e3 * attribute(kKilohertz),
          1e3 * attribute(kMemoryKilohertz) * kTransfersOfAClock * attribute(kBusBits) / 8};
}

Gpu::~Gpu() {
  for (void* mark : marks_) driver_.cuEventDestroy_v2(mark);
  driver_.cuStreamDestroy_v2(stream_);
  driver_.cuDevicePrimaryCtxRelease_v2(device_);
}

void Gpu::check(int result, const std::string& what) const {
  if (result == 0) return;
  const char* text = nullptr;
  driver_.cuGetErrorString(result, &text);
  throw Failure(what + " failed: " + (text == nullptr ? std::to_string(result) : text));
}

void Gpu::synchronize() { check(driver_.cuStreamSynchronize(stream_), "waiting for the GPU"); }

uint64_t Gpu::allocate(size_t bytes) {
  uint64_t address = 0;
  const int result = driver_.cuMemAlloc_v2(&address, bytes);
  const std::string what = "allocating " + std::to_string(bytes) + " bytes on the GPU";
  size_t free = 0, total = 0;
  if (result == kOutOfMemory && driver_.cuMemGetInfo_v2(&free, &total) == 0)
    throw Failure(what + " failed for want of memory: " + std::to_string(free >> 20) + " of " +
                  std::to_string(total >> 20) + " MiB are free");
  check(result, what);
  return address;
}

void Gpu::release(uint64_t address) { driver_.cuMemFree_v2(address); }

void Gpu::copy_in(uint64_t to, const void* from, size_t bytes) {
  check(driver_.cuMemcpyHtoDAsync_v2(to, from, bytes, stream_), "copying to the GPU");
  synchronize();
}

void Gpu::copy_out(void* to, uint64_t from, size_t bytes) {
  check(driver_.cuMemcpyDtoHAsync_v2(to, from, bytes, stream_), "copying from the GPU");
  synchronize();
}

void Gpu::mark() {
  void* event = nullptr;
  check(driver_.cuEventCreate(&event, 0), "making an event");
  marks_.push_back(event);
  check(driver_.cuEventRecord(event, stream_), "noting a time");
}

std::vector<double> Gpu::take_times() {
  synchronize();
  std::vector<double> times;
  for (size_t i = 1; i < marks_.size(); ++i) {
    float milliseconds = 0;
    check(driver_.cuEventElapsedTime(&milliseconds, marks_[i - 1], marks_[i]), "reading a time");
    times.push_back(milliseconds * 1e3);
  }
  for (void* mark : marks_) driver_.cuEventDestroy_v2(mark);
  marks_.clear();
  return times;
}

std::string Gpu::state() const { return nvml_->state(); }

}  // namespace tools
