// A driver for tests of what happens where a GPU cannot do something: a library libcuda.so.1 without a
// GPU behind it. Memory is the CPU's, and kernels do nothing.
#pragma once

#include <dlfcn.h>

#include <cstddef>

namespace kiln::test {

// What the GPU is, and what it does not do from now on.
struct FakeGpu {
  const char* name = "Fake GPU";
  int sm = 90;
  // Beside it there are one of sm_100 and one of sm_120. Of them all, that of the calling thread.
  int current = 0;
  int driver_version = 12020;  // of CUDA: 12.2
  size_t free_bytes = size_t{96} << 20, total_bytes = size_t{80} << 30;
  size_t largest_allocation = ~size_t{0};  // larger ones fail for want of memory
  size_t largest_host_allocation = ~size_t{0};
  int load_result = 0;  // of loading code
  // Called at every launch with the kernel's parameters, unless null.
  void (*at_launch)(void** parameters) = nullptr;

  // What is there: nothing, once everything was given back.
  int allocations = 0, host_allocations = 0, modules = 0, graphs = 0, streams = 0, events = 0;
  int launches = 0;
  size_t allocated_bytes = 0;  // in all allocations, those that were given back too
  int contexts = 0;
  int things() const {
    return allocations + host_allocations + modules + graphs + streams + events + contexts;
  }

  // How long everything takes between two events, by the code that was loaded last: its first byte, or the
  // number of loads where that is none of these.
  float milliseconds[4] = {1, 1, 1, 1};
  int loads = 0, loaded = 0;
};

}  // namespace kiln::test

// Of the process.
extern "C" kiln::test::FakeGpu* kiln_fake_gpu(void);

namespace kiln::test {

// That of the driver that dlopen finds; null where it is another driver, or none.
inline FakeGpu* find_fake_gpu() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  const auto find = reinterpret_cast<decltype(&kiln_fake_gpu)>(dlsym(library, "kiln_fake_gpu"));
  return find == nullptr ? nullptr : find();
}

}  // namespace kiln::test
