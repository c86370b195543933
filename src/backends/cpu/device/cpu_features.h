// Features of the CPU by name, as programs for the target "cpu" list them.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace kiln::cpu {

// Names in engine files: append, never rename. docs/engine_format.md says what each stands for.
struct CpuFeature {
  std::string_view name;
  bool present = false;  // on this machine, support by the operating system included
};
std::span<const CpuFeature> cpu_features();

// Null for a name that this version does not know.
const CpuFeature* find_cpu_feature(std::string_view name);
bool has_cpu_feature(std::string_view name);

// Whether vdpbf16ps, which avx512bf16 has, is no slower than the two multiplications in f32 that it stands for. It is on
// Intel's cores, by half.
bool has_quick_bf16_pairs();

// Asks the operating system, once in a process, to let all of its threads use AMX tiles: none may before. It
// refuses if a thread has an alternate signal stack that is too small for their 8 KiB, and from then on refuses
// such stacks. False if it did, or where there are no tiles.
bool allow_tiles();

// What this machine has: "avx2 avx512", or "none".
std::string cpu_features_str();

}  // namespace kiln::cpu
