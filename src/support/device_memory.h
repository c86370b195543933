// The memory of the machines that programs run on: where tensors lie, and what can be done there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "support/status.h"

namespace kiln {

// Mirrors kiln_device_type in include/kiln/kiln.h: append, never renumber.
enum class DeviceType : int32_t { Cpu = 0, Cuda = 1 };

// One device of a type. There is one CPU, of index 0.
struct DeviceId {
  DeviceType type = DeviceType::Cpu;
  int32_t index = 0;

  bool operator==(const DeviceId&) const = default;
};

// "the CPU", "cuda:1"; "device type 7" for one that this version does not know.
std::string device_str(DeviceId device);

// A tensor whose elements are to lie row-major without gaps. It has at least one.
struct StridedCopy {
  const void* from = nullptr;
  std::byte* to = nullptr;   // the elements take nothing but the memory behind this
  size_t element_bytes = 0;  // 1, 2, 4 or 8
  std::span<const int64_t> shape;
  std::span<const int64_t> strides;  // in elements, any sign; empty: `from` is row-major already
};

// The memory of one type of device; `device` is an index below count(), `stream` one of the
// device's own kind or null, its default. Nothing here throws. Any thread may call any of it.
struct DeviceMemory {
  DeviceType type;
  // Whether work is queued on streams, so that a run may return before it is done. If not, streams
  // are refused before they get here.
  bool has_streams;
  // Devices that this process may use; 0 where the type's libraries or devices are missing.
  int (*count)();
  // kTensorAlignment; not null; `bytes` is not 0. The memory may be used by work on `stream`.
  // OutOfMemory: what was asked for and where.
  Result<std::byte*> (*allocate)(uint64_t bytes, int device, void* stream);
  // Work that uses the memory may be pending on `stream`.
  void (*release)(std::byte* data, uint64_t bytes, int device, void* stream);
  // In the order of `stream`.
  Status (*copy_strided)(const StridedCopy& copy, int device, void* stream);

  bool is_host() const { return type == DeviceType::Cpu; }
};

// That of this process.
extern const DeviceMemory kHostMemory;

}  // namespace kiln
