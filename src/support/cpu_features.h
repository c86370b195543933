// CPU features that engine code may require.
#pragma once

#include <cstdint>
#include <string>

namespace kiln {

// Stored in engine files: append, never renumber.
enum CpuFeature : uint64_t {
  kCpuAvx2Fma = 1u << 0,  // x86-64-v3: AVX2, FMA, F16C, BMI2
  kCpuAvx512 = 1u << 1,   // x86-64-v4: AVX-512 F, BW, CD, DQ, VL
  kCpuAvx512Bf16 = 1u << 2,
  kCpuAvx512Vnni = 1u << 3,
  kCpuAvxVnni = 1u << 4,
  kCpuAvx512Vbmi = 1u << 5,
};

// The features of this machine, operating system support included.
uint64_t detect_cpu_features();
std::string cpu_features_str(uint64_t features);

}  // namespace kiln
