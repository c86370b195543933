// CUDA kernels on the CPU: their text, compiled by the C++ compiler that built this program.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kiln::test {

using HostKernel = void (*)(void** arguments);

// A launch.
struct Work {
  HostKernel kernel = nullptr;
  void** arguments = nullptr;  // the address of each
  int64_t blocks = 0;
  int threads = 0;  // of a block
  // Threads run from barrier to barrier, the last one first: what lacks a barrier sees another order.
  bool descending = false;
};

// What is wrong with its barriers; empty if nothing is.
std::string run_grid(const Work& work);

// A library of kernels, numbered as their texts are. std::runtime_error: they do not compile. Unloaded
// with the process.
class HostKernels {
 public:
  explicit HostKernels(const std::vector<std::string>& texts);
  HostKernel find(size_t number) const;

 private:
  void* library_ = nullptr;
};

}  // namespace kiln::test
