// What a machine can do at most: what rooflines are compared with.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "gpu.h"

namespace tools {

struct Peaks {
  // Operations a second, a multiply-add being two, by what is multiplied: "f32", "bf16", "u8".
  std::map<std::string, double> operations;
  double bytes = 0;  // of memory read in a second

  // Of a kernel that computes in `precision`; what the machine does not multiply is computed as f32.
  double operations_in(const std::string& precision) const;
};

// Measured, in about half a second: loops of the best multiply-add that programs of that variant
// ("x86-64-v4-bf16") use, on as many threads at a time, and reading of memory that no cache holds.
Peaks measure_cpu(const std::string& variant, int threads);

// By what its makers say: multiprocessors, clocks and width of the memory.
Peaks peaks_of(const Gpu& gpu);

}  // namespace tools
