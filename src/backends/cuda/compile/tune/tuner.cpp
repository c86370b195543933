#include "backends/cuda/compile/tune/tuner.h"

#include <cmath>
#include <future>
#include <optional>
#include <semaphore>

#include "backends/cuda/compile/nvrtc.h"
#include "support/cpu_count.h"
#include "support/log.h"

namespace kiln::cuda {
namespace {

// A later way has to take less than this share of an earlier one's time: runs differ by a percent or two,
// and what is not faster for sure is not worth other bytes.
constexpr double kClearlyFaster = 0.97;

// At most as many compilations at a time as there are cores, whoever asks for them.
class CompileSlot {
 public:
  CompileSlot() { slots().acquire(); }
  ~CompileSlot() { slots().release(); }
  CompileSlot(const CompileSlot&) = delete;
  CompileSlot& operator=(const CompileSlot&) = delete;

 private:
  static std::counting_semaphore<>& slots() {
    static std::counting_semaphore<> slots(available_cpus());
    return slots;
  }
};

using Code = std::optional<std::vector<std::byte>>;

// Nothing for those that do not compile.
std::vector<Code> compile_all(size_t count, const Tuner::Compile& compile) {
  std::vector<std::future<Code>> running;
  for (size_t i = 0; i < count; ++i) {
    running.push_back(
        std::async(std::launch::async | std::launch::deferred, [&compile, i]() -> Code {
          const CompileSlot slot;
          try {
            return compile(i);
          } catch (const std::exception&) {
            return std::nullopt;
          }
        }));
  }
  std::vector<Code> codes;
  for (std::future<Code>& code : running) codes.push_back(code.get());
  return codes;
}

void add(std::string& text, const std::vector<ir::Dim>& dims) {
  for (const ir::Dim& dim : dims) text += std::to_string(dim.at_opt()) + ",";
  text += ";";
}

}  // namespace

Tuner::Tuner(const Target& target, backend::Tuning& tuning) : tuning_(tuning) {
  Result<std::shared_ptr<TimingGpu>> gpu = TimingGpu::open(target.sm);
  if (gpu.ok())
    gpu_ = std::move(*gpu);
  else
    tuning.warn("kernels for " + std::string(target.name) + " are not timed: " +
                gpu.status().message() + "; they are chosen by a model of the machine");
}

Hash128 Tuner::key_of(const plan::Program& program, std::span<const KernelText> ways) const {
  std::string text = "1;" + gpu_->name() + ";" + nvrtc_version() + ";";
  for (const KernelText& way : ways) {
    const backend::KernelInterface& interface = way.kernel.interface;
    text += std::to_string(way.text.size()) + ":" + way.text;
    for (const auto* dims : {&interface.grid, &interface.block, &interface.params})
      add(text, *dims);
    add(text, {interface.shared_bytes, interface.scratch_bytes});
    for (const backend::TensorMapSpec& map : interface.tensor_maps) {
      add(text, map.sizes);
      add(text, map.strides);
    }
    for (const int64_t bytes : operand_bytes(program, way.kernel))
      text += std::to_string(bytes) + ",";
  }
  return hash128(std::as_bytes(std::span(text)));
}

size_t Tuner::choose(const plan::Program& program, std::span<const KernelText> ways,
                     const Compile& compile) const {
  if (gpu_ == nullptr || ways.size() < 2) return 0;
  const Hash128 key = key_of(program, ways);
  if (const auto known = tuning_.find(key); known && *known < ways.size()) return *known;
  const std::vector<Code> codes = compile_all(ways.size(), compile);
  const auto time = [&](size_t i) -> std::optional<double> {
    if (!codes[i]) return std::nullopt;
    const Result<double> result = gpu_->time(program, ways[i], *codes[i]);
    if (result.ok()) return *result;
    tuning_.warn("a kernel could not be timed on " + gpu_->name() + ": " +
                 result.status().message());
    return std::nullopt;
  };
  std::vector<std::optional<double>> times;
  for (size_t i = 0; i < ways.size(); ++i) times.push_back(time(i));
  const auto is_faster = [](const auto& a, const auto& b) {
    return a && (!b || *a < kClearlyFaster * *b);
  };
  const size_t best =
      static_cast<size_t>(std::ranges::min_element(times, is_faster) - times.begin());
  if (!times[best]) return 0;
  // Once more, one after the other: what else the machine does may have been in the way of the first.
  size_t fastest = best;
  if (best != 0 && times[0]) {
    const std::optional<double> first = time(0);
    if (!is_faster(time(best), first)) fastest = 0;
  }
  std::string text;
  for (const auto& each : times) text += each ? " " + std::to_string(std::lround(*each)) : " -";
  log(LogLevel::Info,
      "tuning: took way " + std::to_string(fastest) + " of those of" + text + " ns");
  tuning_.add(key, static_cast<uint32_t>(fastest));
  return fastest;
}

}  // namespace kiln::cuda
