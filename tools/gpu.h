// A GPU for `kiln run` and `kiln bench`: memory, a stream and clocks, through NVIDIA's driver, which is
// opened when a program for a GPU was loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kiln/kiln.h"

namespace tools {

struct GpuFunctions;

class Gpu {
 public:
  // As kiln_device counts GPUs. Failure where the driver or the GPU is missing.
  explicit Gpu(int index);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  kiln_device device() const { return {KILN_CUDA, index_}; }
  // Where runs are queued; of the caller's own, so that nothing else waits for it.
  void* stream() const { return stream_; }
  void synchronize();

  // Memory for `bytes` > 0, which is given back with release(). Failure where there is none: what was
  // asked for, and what is free.
  uint64_t allocate(size_t bytes);
  void release(uint64_t address);
  // Both return when the bytes are there, and wait for what was queued before.
  void copy_in(uint64_t to, const void* from, size_t bytes);
  void copy_out(void* to, uint64_t from, size_t bytes);

  // Notes a time in the stream; take_times() gives the microseconds between each and the next, once
  // the stream has come to the last.
  void mark();
  std::vector<double> take_times();

  // As the driver tells it; the clock is the highest.
  struct Size {
    int sm = 0;  // the generation: 90
    double multiprocessors = 0, hertz = 0, memory_bytes_a_second = 0;
  };
  Size size() const;

  // "NVIDIA H100 80GB HBM3, driver for CUDA 13.0"
  const std::string& name() const { return name_; }
  // Clocks, power and temperature at this moment, as NVML tells them; "" without NVML.
  std::string state() const;

 private:
  struct Nvml;

  void check(int result, const std::string& what) const;
  void open();

  const GpuFunctions& driver_;
  const int index_;
  int device_ = 0;  // the driver's name for it
  void* stream_ = nullptr;
  std::vector<void*> marks_;
  std::string name_;
  std::unique_ptr<Nvml> nvml_;
};

}  // namespace tools
