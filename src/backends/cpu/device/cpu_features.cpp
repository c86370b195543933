#include "backends/cpu/device/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace kiln::cpu {
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
constexpr int kTileData = 18;  // the component of the saved state that a process has to ask for
constexpr uint32_t kSavesTiles = kSavesZmm | bit(17) | bit(kTileData);

bool has_avx2_fma(const Leaf& leaf1, const Leaf& leaf7) {
  return all(leaf1.ecx, bit_FMA | bit_F16C | bit_MOVBE | bit_AVX) &&
         all(leaf7.ebx, bit_AVX2 | bit_BMI | bit_BMI2);
}

bool has_avx512(const Leaf& leaf7) {
  return all(leaf7.ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL);
}

std::array<CpuFeature, 9> detect() {
  const Leaf leaf1(1, 0), leaf7(7, 0), leaf7_1(7, 1);
  const uint32_t saved = all(leaf1.ecx, bit_OSXSAVE) ? saved_register_sets() : 0;
  const bool avx2 = all(saved, kSavesYmm) && has_avx2_fma(leaf1, leaf7);
  const bool avx512 = avx2 && all(saved, kSavesZmm) && has_avx512(leaf7);
  const bool tiles = avx512 && all(saved, kSavesTiles) && all(leaf7.edx, bit(24));
  return {{
      {"avx2", avx2},
      {"avx512", avx512},
      {"avx512bf16", avx512 && all(leaf7_1.eax, bit(5))},
      {"avx512vnni", avx512 && all(leaf7.ecx, bit(11))},
      {"avxvnni", avx2 && all(leaf7_1.eax, bit(4))},
      {"avx512vbmi", avx512 && all(leaf7.ecx, bit(1))},
      {"amxtile", tiles},
      {"amxbf16", tiles && all(leaf7.edx, bit(22))},
      {"amxint8", tiles && all(leaf7.edx, bit(25))},
  }};
}

}  // namespace

std::span<const CpuFeature> cpu_features() {
  static const std::array kFeatures = detect();
  return kFeatures;
}

const CpuFeature* find_cpu_feature(std::string_view name) {
  const auto features = cpu_features();
  const auto found = std::ranges::find(features, name, &CpuFeature::name);
  return found == features.end() ? nullptr : &*found;
}

bool has_cpu_feature(std::string_view name) {
  const CpuFeature* feature = find_cpu_feature(name);
  return feature != nullptr && feature->present;
}

bool has_quick_bf16_pairs() {
  // "GenuineIntel", by ebx, edx and ecx.
  const Leaf vendor(0, 0);
  const bool is_intel =
      vendor.ebx == 0x756E6547 && vendor.edx == 0x49656E69 && vendor.ecx == 0x6C65746E;
  return has_cpu_feature("avx512bf16") && !is_intel;
}

bool allow_tiles() {
  // ARCH_REQ_XCOMP_PERM of asm/prctl.h, which older headers lack.
  constexpr long kRequestPermission = 0x1023;
  static const bool kAllowed =
      has_cpu_feature("amxtile") && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return kAllowed;
}

std::string cpu_features_str() {
  std::string text;
  for (const auto& [name, present] : cpu_features())
    if (present) text.append(text.empty() ? "" : " ").append(name);
  return text.empty() ? "none" : text;
}

}  // namespace kiln::cpu
