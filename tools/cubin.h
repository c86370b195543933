// What the code of a kernel for NVIDIA GPUs, a cubin or PTX, says of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace tools {

// Of a block, but for the registers and the stack, which are those of a thread.
struct KernelResources {
  uint32_t registers = 0;
  uint32_t stack_bytes = 0;   // in local memory: spilled registers among others
  uint64_t shared_bytes = 0;  // that the code declares, and what the GPU adds to that
};

// Of a function of the cubin that `code` begins with; nothing where that is none, or does not tell.
std::optional<KernelResources> resources_of(std::span<const std::byte> code,
                                            const std::string& function);
// The bytes of the cubin that `code` begins with; none where that is none.
std::span<const std::byte> cubin_in(std::span<const std::byte> code);
// The PTX that `code` begins with, without the zero byte behind it; none where that is none.
std::span<const std::byte> ptx_in(std::span<const std::byte> code);

}  // namespace tools
