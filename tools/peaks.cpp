#include "peaks.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace tools {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// --- Loops of independent multiply-adds. In assembly: what is timed is what is written here, whatever the
// flags of this file. `steps` times 12 instructions (of AMX: 4), after whose registers are zeros. ---

#define KILN_LOOP(name, registers, instruction)                                                 \
  void name(int64_t steps) {                                                                    \
    asm volatile(                                                                               \
        "vzeroall\n"                                                                            \
        "1:\n"                                                                                  \
        ".irp i,0,1,2,3,4,5,6,7,8,9,10,11\n" instruction                                        \
        "\n.endr\n"                                                                             \
        "dec %0\n"                                                                              \
        "jnz 1b\n"                                                                              \
        "vzeroupper\n"                                                                          \
        : "+r"(steps)                                                                           \
        :                                                                                       \
        : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
          "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                \
  }

KILN_LOOP(f32_of_256, "ymm", "vfmadd231ps %%ymm14, %%ymm15, %%ymm\\i")
KILN_LOOP(f64_of_256, "ymm", "vfmadd231pd %%ymm14, %%ymm15, %%ymm\\i")
KILN_LOOP(f32_of_512, "zmm", "vfmadd231ps %%zmm14, %%zmm15, %%zmm\\i")
KILN_LOOP(f64_of_512, "zmm", "vfmadd231pd %%zmm14, %%zmm15, %%zmm\\i")
KILN_LOOP(bf16_of_512, "zmm", "vdpbf16ps %%zmm14, %%zmm15, %%zmm\\i")
KILN_LOOP(u8_of_512, "zmm", "vpdpbusd %%zmm14, %%zmm15, %%zmm\\i")
KILN_LOOP(u8_of_256, "ymm", "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm\\i")
// Without VNNI: half as many products, and an addition.
KILN_LOOP(words_of_512, "zmm",
          "vpmaddwd %%zmm14, %%zmm15, %%zmm13\nvpaddd %%zmm13, %%zmm\\i, %%zmm\\i")
KILN_LOOP(words_of_256, "ymm",
          "vpmaddwd %%ymm14, %%ymm15, %%ymm13\nvpaddd %%ymm13, %%ymm\\i, %%ymm\\i")
#undef KILN_LOOP

// Tiles of 16 rows of 64 bytes.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

#define KILN_TILE_LOOP(name, instruction)                                               \
  void name(int64_t steps) {                                                            \
    TileConfig config;                                                                  \
    for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = 16;          \
    asm volatile(                                                                       \
        "ldtilecfg %1\n"                                                                \
        ".irp i,0,1,2,3,4,5,6,7\ntilezero %%tmm\\i\n.endr\n"                            \
        "1:\n" instruction " %%tmm4, %%tmm6, %%tmm0\n" instruction                      \
        " %%tmm5, %%tmm6, %%tmm1\n" instruction " %%tmm4, %%tmm7, %%tmm2\n" instruction \
        " %%tmm5, %%tmm7, %%tmm3\n"                                                     \
        "dec %0\n"                                                                      \
        "jnz 1b\n"                                                                      \
        "tilerelease\n"                                                                 \
        : "+r"(steps)                                                                   \
        : "m"(config)                                                                   \
        : "cc", "memory");                                                              \
  }
KILN_TILE_LOOP(bf16_of_tiles, "tdpbf16ps")
KILN_TILE_LOOP(u8_of_tiles, "tdpbusd")
#undef KILN_TILE_LOOP

// Reads 256 bytes a step.
void read_memory(const std::byte* from, int64_t steps) {
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "prefetcht0 2048(%1)\n"
      "prefetcht0 2112(%1)\n"
      "prefetcht0 2176(%1)\n"
      "prefetcht0 2240(%1)\n"
      ".irp i,0,1,2,3,4,5,6,7\n"
      "vpor 32*\\i(%1), %%ymm\\i, %%ymm\\i\n"
      ".endr\n"
      "add $256, %1\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps), "+r"(from)
      :
      : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
}

// Seconds that all threads take for work(i), begun at one time.
double time_of(int threads, const std::function<void(int)>& work) {
  std::atomic<int> waiting{threads};
  std::atomic<bool> begin{false};
  std::vector<std::thread> others;
  const auto body = [&](int i) {
    waiting.fetch_sub(1);
    while (!begin.load()) std::this_thread::yield();
    work(i);
  };
  for (int i = 0; i < threads; ++i) others.emplace_back(body, i);
  while (waiting.load() > 0) std::this_thread::yield();
  const auto start = Clock::now();
  begin.store(true);
  for (std::thread& other : others) other.join();
  return seconds_since(start);
}

// Units of work a second, of all threads; the best of a few.
double best_rate(int threads, double units, const std::function<void(int)>& work) {
  constexpr int kTries = 10;
  double best = 0;
  for (int i = 0; i < kTries; ++i) best = std::max(best, threads * units / time_of(threads, work));
  return best;
}

// `operations` of one step.
double rate_of(void (*loop)(int64_t steps), double operations, int threads) {
  constexpr double kSeconds = 0.005;
  int64_t steps = 10000;
  loop(steps);
  const auto start = Clock::now();
  loop(steps);
  steps = std::max<int64_t>(1000, static_cast<int64_t>(static_cast<double>(steps) * kSeconds /
                                                       std::max(seconds_since(start), 1e-7)));
  return best_rate(threads, static_cast<double>(steps) * operations, [&](int) { loop(steps); });
}

double read_rate(int threads) {
  constexpr size_t kBytes = size_t{512} << 20;  // of all threads: more than caches hold
  constexpr size_t kSlack = 4096;               // that prefetching may ask for
  const size_t each = kBytes / static_cast<size_t>(threads) / 256 * 256;
  std::vector<std::vector<std::byte>> memory(static_cast<size_t>(threads));
  time_of(threads,
          [&](int i) { memory[static_cast<size_t>(i)].assign(each + kSlack, std::byte{1}); });
  return best_rate(threads, static_cast<double>(each), [&](int i) {
    read_memory(memory[static_cast<size_t>(i)].data(), static_cast<int64_t>(each / 256));
  });
}

// A process has to ask for tiles before it uses them.
bool may_use_tiles() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, of Linux's asm/prctl.h
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

}  // namespace

double Peaks::operations_in(const std::string& precision) const {
  const auto found = operations.find(precision);
  if (found != operations.end()) return found->second;
  const auto plain = operations.find("f32");
  return plain == operations.end() ? 0 : plain->second;
}

Peaks measure_cpu(const std::string& variant, int threads) {
  const auto has = [&](const char* word) { return variant.find(word) != std::string::npos; };
  const bool wide = has("v4");
  constexpr double kInstructions = 12, kTiles = 4;
  const double bits = wide ? 512 : 256;
  const auto rate = [&](void (*loop)(int64_t), double products_of_an_instruction) {
    return rate_of(loop, kInstructions * 2 * products_of_an_instruction, threads);
  };
  Peaks peaks;
  peaks.operations["f32"] = rate(wide ? f32_of_512 : f32_of_256, bits / 32);
  peaks.operations["f64"] = rate(wide ? f64_of_512 : f64_of_256, bits / 64);
  if (has("bf16") || has("amx")) peaks.operations["bf16"] = rate(bf16_of_512, bits / 16);
  if (has("vnni") || has("bf16") || has("amx"))
    peaks.operations["u8"] = rate(wide ? u8_of_512 : u8_of_256, bits / 8);
  else
    peaks.operations["u8"] = rate(wide ? words_of_512 : words_of_256, bits / 16);
  if (has("amx") && may_use_tiles()) {
    peaks.operations["bf16"] = rate_of(bf16_of_tiles, kTiles * 2 * 16 * 16 * 32, threads);
    peaks.operations["u8"] = rate_of(u8_of_tiles, kTiles * 2 * 16 * 16 * 64, threads);
  }
  peaks.bytes = read_rate(threads);
  return peaks;
}

Peaks peaks_of(const Gpu& gpu) {
  // Of one multiprocessor in a clock, dense, with sums of f32: from NVIDIA's papers on its architectures.
  struct Generation {
    int sm;
    double f32, f64, tf32, half, byte;
  };
  constexpr Generation kGenerations[] = {{80, 128, 128, 1024, 2048, 4096},
                                         {86, 256, 4, 256, 512, 1024},
                                         {89, 256, 4, 512, 1024, 2048},
                                         {90, 256, 256, 2048, 4096, 8192}};
  const Gpu::Size size = gpu.size();
  Peaks peaks;
  for (const Generation& each : kGenerations) {
    if (each.sm > size.sm) continue;
    const double clocks = size.multiprocessors * size.hertz;
    peaks.operations = {{"f32", clocks * each.f32},    {"f64", clocks * each.f64},
                        {"tf32", clocks * each.tf32},  {"f16", clocks * each.half},
                        {"bf16", clocks * each.half},  {"u8", clocks * each.byte},
                        {"f8e4m3", clocks * each.byte}};
  }
  peaks.bytes = size.memory_bytes_a_second;
  return peaks;
}

}  // namespace tools
