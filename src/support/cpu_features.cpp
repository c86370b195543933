#include "support/cpu_features.h"

#include <cpuid.h>

#include <array>
#include <utility>

namespace kiln {
namespace {

constexpr uint32_t bit(int position) { return uint32_t{1} << position; }

// What one leaf of the CPUID instruction says.
struct Leaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;

  Leaf(uint32_t leaf, uint32_t subleaf) {
    if (!__get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx)) eax = ebx = ecx = edx = 0;
  }
};

constexpr bool all(uint32_t value, uint32_t bits) { return (value & bits) == bits; }

// The register sets that the operating system saves: a CPU may have AVX-512 under a system that
// does not.
uint32_t saved_register_sets() {
  uint32_t eax = 0, edx = 0;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return eax;
}

constexpr uint32_t kSavesYmm = bit(1) | bit(2);
constexpr uint32_t kSavesZmm = kSavesYmm | bit(5) | bit(6) | bit(7);

bool has_avx2_fma(const Leaf& leaf1, const Leaf& leaf7) {
  return all(leaf1.ecx, bit_FMA | bit_F16C | bit_MOVBE | bit_AVX) &&
         all(leaf7.ebx, bit_AVX2 | bit_BMI | bit_BMI2);
}

bool has_avx512(const Leaf& leaf7) {
  return all(leaf7.ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL);
}

constexpr std::array<std::pair<CpuFeature, const char*>, 6> kNames = {{
    {kCpuAvx2Fma, "avx2"},
    {kCpuAvx512, "avx512"},
    {kCpuAvx512Bf16, "avx512bf16"},
    {kCpuAvx512Vnni, "avx512vnni"},
    {kCpuAvxVnni, "avxvnni"},
    {kCpuAvx512Vbmi, "avx512vbmi"},
}};

}  // namespace

uint64_t detect_cpu_features() {
  const Leaf leaf1(1, 0), leaf7(7, 0), leaf7_1(7, 1);
  if (!all(leaf1.ecx, bit_OSXSAVE)) return 0;
  const uint32_t saved = saved_register_sets();
  if (!all(saved, kSavesYmm) || !has_avx2_fma(leaf1, leaf7)) return 0;

  uint64_t features = kCpuAvx2Fma;
  if (all(leaf7_1.eax, bit(4))) features |= kCpuAvxVnni;
  if (!all(saved, kSavesZmm) || !has_avx512(leaf7)) return features;
  features |= kCpuAvx512;
  if (all(leaf7_1.eax, bit(5))) features |= kCpuAvx512Bf16;
  if (all(leaf7.ecx, bit(11))) features |= kCpuAvx512Vnni;
  if (all(leaf7.ecx, bit(1))) features |= kCpuAvx512Vbmi;
  return features;
}

std::string cpu_features_str(uint64_t features) {
  std::string text;
  const auto append = [&](const std::string& name) {
    if (!text.empty()) text += " ";
    text += name;
  };
  for (const auto& [feature, name] : kNames) {
    if (features & feature) append(name);
    features &= ~uint64_t{feature};
  }
  for (int position = 0; features != 0; ++position, features >>= 1)
    if (features & 1) append("unknown" + std::to_string(position));
  return text.empty() ? "none" : text;
}

}  // namespace kiln
