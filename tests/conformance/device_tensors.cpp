#include "conformance/device_tensors.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "backends/cuda/device/gpu.h"
#include "backends/cuda/device/memory.h"

namespace kiln::conformance {
namespace {

constexpr size_t kGuard = 256;
constexpr std::byte kPattern{0xA5};

void check(cuda::api::CUresult result) {
  if (result != cuda::api::kSuccess)
    throw std::runtime_error(cuda::error_status(result, "a copy of a test").message());
}

const cuda::Gpu& gpu_of(DeviceId device) {
  const Result<const cuda::Gpu*> gpu = cuda::Gpu::get(device.index);
  if (!gpu.ok()) throw std::runtime_error(gpu.status().message());
  return **gpu;
}

// Guard, contents, guard.
std::vector<std::byte> guarded(std::span<const std::byte> contents) {
  std::vector<std::byte> bytes(contents.size() + 2 * kGuard, kPattern);
  std::ranges::copy(contents, bytes.begin() + kGuard);
  return bytes;
}

}  // namespace

DeviceTensors::DeviceTensors(std::span<const ir::Literal> literals, DeviceId device)
    : literals_(literals), device_(device) {
  for (const ir::Literal& literal : literals) {
    auto* data = const_cast<std::byte*>(literal.bytes.data());
    if (device.type == DeviceType::Cuda) {
      const cuda::CurrentContext current(gpu_of(device));
      const std::vector<std::byte> bytes = guarded(literal.bytes);
      const Result<std::byte*> block =
          cuda::kGpuMemory.allocate(bytes.size(), device.index, nullptr);
      if (!block.ok()) throw std::runtime_error(block.status().message());
      blocks_.push_back(*block);
      data = *block + kGuard;
      check(cuda::driver().cuMemcpyHtoDAsync_v2(reinterpret_cast<uint64_t>(*block), bytes.data(),
                                                bytes.size(), nullptr));
      check(cuda::driver().cuStreamSynchronize(nullptr));
    }
    views_.push_back({data, literal.dtype, literal.shape, {}, device});
  }
}

DeviceTensors::~DeviceTensors() {
  for (std::byte* block : blocks_) cuda::kGpuMemory.release(block, 0, device_.index, nullptr);
}

void DeviceTensors::fetch() {
  if (device_.type != DeviceType::Cuda) return;
  const cuda::CurrentContext current(gpu_of(device_));
  for (size_t i = 0; i < literals_.size(); ++i) {
    const size_t size = literals_[i].bytes.size();
    std::vector<std::byte> bytes(size + 2 * kGuard);
    check(cuda::driver().cuMemcpyDtoHAsync_v2(bytes.data(), reinterpret_cast<uint64_t>(blocks_[i]),
                                              bytes.size(), nullptr));
    check(cuda::driver().cuStreamSynchronize(nullptr));
    const auto is_pattern = [](std::byte byte) { return byte == kPattern; };
    if (!std::all_of(bytes.begin(), bytes.begin() + kGuard, is_pattern) ||
        !std::all_of(bytes.end() - kGuard, bytes.end(), is_pattern))
      throw std::runtime_error("memory outside tensor " + std::to_string(i) + " was written to");
    if (size > 0)
      std::memcpy(const_cast<std::byte*>(literals_[i].bytes.data()), bytes.data() + kGuard, size);
  }
}

}  // namespace kiln::conformance
