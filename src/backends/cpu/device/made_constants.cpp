#include "backends/cpu/device/made_constants.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <numbers>
#include <string>
#include <tuple>
#include <utility>

#include "support/cpu_count.h"
#include "support/file_map.h"
#include "support/half.h"
#include "support/thread_pool.h"

namespace kiln::cpu {
namespace {

using engine::BufferSpec;
using engine::WinogradSpec;

constexpr int64_t kTaps = 3;
constexpr int64_t kMostSide = 6;  // of a transformed filter
constexpr int64_t kBlock =
    128;  // elements that are transformed at once: they stay in the first-level cache
static_assert(kBlock >= engine::kWidestPanel);

using Line = std::array<double, kBlock>;

// Row j of G is 1, p, p^2 over the product of p - q for the other points q, with p the j-th point; the last,
// of infinity, is the highest coefficient. The points are 0, +-1/sqrt(2) and +-sqrt(2), or, for tiles of 2x2, 0 and +-1,
// where the first row has its sign turned, as in B^T. Rows of p and -p differ in the sign of the middle.
void transform(int64_t results, const std::array<const double*, kTaps>& g,
               const std::array<double*, kMostSide>& to, int64_t count) {
  constexpr double kRoot = std::numbers::sqrt2;
  const auto pair = [&](size_t row, double outer, double middle, double inner) {
    for (int64_t i = 0; i < count; ++i) {
      const double even = outer * g[0][i] + inner * g[2][i], odd = middle * g[1][i];
      to[row][i] = even + odd;
      to[row + 1][i] = even - odd;
    }
  };
  std::copy_n(g[0], count, to[0]);
  if (results == 2) {
    pair(1, 0.5, 0.5, 0.5);
    std::copy_n(g[2], count, to[3]);
  } else {
    pair(1, 1.0 / 6, kRoot / 6, 1.0 / 3);
    pair(3, -2.0 / 3, -kRoot / 3, -1.0 / 3);
    std::copy_n(g[2], count, to[5]);
  }
}

double widened(float value) { return static_cast<double>(value); }

// The filters of one engine's convolution; Element is how one of their elements lies in memory.
template <typename Element, float (*Widen)(Element)>
class Filters {
 public:
  Filters(const WinogradSpec& spec, const std::byte* from, std::byte* to)
      : spec_(spec), from_(from), to_(to), rows_(std::max<int64_t>(1, kBlock / spec.width)) {}

  int64_t tasks() const { return panels() * blocks(); }

  // Some channels of a panel.
  void run(int64_t task) const {
    const int64_t panel = task / blocks(), first = task % blocks() * rows_;
    const int64_t rows = std::min(rows_, spec_.channels - first), count = rows * spec_.width;
    std::array<Line, kTaps * kTaps> taps;
    for (int64_t tap = 0; tap < kTaps * kTaps; ++tap)
      for (int64_t row = 0; row < rows; ++row)
        read(panel, tap * spec_.channels + first + row,
             taps[static_cast<size_t>(tap)].data() + row * spec_.width);
    std::array<std::array<Line, kTaps>, kMostSide> half;  // [i][kx]: G g
    for (size_t kx = 0; kx < kTaps; ++kx) {
      std::array<double*, kMostSide> to{};
      for (size_t i = 0; i < kMostSide; ++i) to[i] = half[i][kx].data();
      transform(spec_.results,
                {taps[kx].data(), taps[kTaps + kx].data(), taps[2 * kTaps + kx].data()}, to, count);
    }
    const int64_t side = spec_.results + 2;
    std::array<Line, kMostSide> whole;
    std::array<double*, kMostSide> lines{};
    for (size_t i = 0; i < kMostSide; ++i) lines[i] = whole[i].data();
    for (int64_t i = 0; i < side; ++i) {
      const auto& line = half[static_cast<size_t>(i)];
      transform(spec_.results, {line[0].data(), line[1].data(), line[2].data()}, lines, count);
      for (int64_t j = 0; j < side; ++j)
        write(panel, (i * side + j) * spec_.channels + first, lines[static_cast<size_t>(j)], count);
    }
  }

 private:
  int64_t panels() const { return (spec_.outputs + spec_.width - 1) / spec_.width; }
  int64_t blocks() const { return (spec_.channels + rows_ - 1) / rows_; }

  // Row `k` of a panel of the result, out of the panels in the weights. Columns that there are not are zeros.
  void read(int64_t panel, int64_t k, double* to) const {
    const int64_t width = spec_.filter_width, step = spec_.filter_step;
    const int64_t row = k / step * step * width + k % step;
    const int64_t size = kTaps * kTaps * spec_.channels * width;
    for (int64_t i = 0; i < spec_.width; ++i) {
      const int64_t column = panel * spec_.width + i;
      to[i] = 0;
      if (column >= spec_.outputs) continue;
      const int64_t at = column / width * size + row + column % width * step;
      Element element;
      std::memcpy(&element, from_ + at * static_cast<int64_t>(sizeof(Element)), sizeof(Element));
      to[i] = widened(Widen(element));
    }
  }

  void write(int64_t panel, int64_t k, const double* line, int64_t count) const {
    const int64_t points = (spec_.results + 2) * (spec_.results + 2);
    auto* to = reinterpret_cast<float*>(to_) + (panel * points * spec_.channels + k) * spec_.width;
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(line[i]);
  }

  const WinogradSpec& spec_;
  const std::byte* from_;
  std::byte* to_;
  const int64_t rows_;  // channels of a block
};

template <typename Element, float (*Widen)(Element)>
void make_filters(const WinogradSpec& winograd, const std::byte* from, std::byte* to,
                  ThreadPool& pool, int threads) {
  const Filters<Element, Widen> filters(winograd, from, to);
  pool.run(filters.tasks(), threads, 1, [&](const TaskRange& range) {
    for (int64_t task = range.begin; task < range.end; ++task) filters.run(task);
  });
}

float as_it_is(float value) { return value; }

void make_filters(const WinogradSpec& winograd, const std::byte* from, std::byte* to,
                  ThreadPool& pool, int threads) {
  if (winograd.dtype == DType::F32)
    make_filters<float, as_it_is>(winograd, from, to, pool, threads);
  else if (winograd.dtype == DType::F16)
    make_filters<uint16_t, f16_to_f32>(winograd, from, to, pool, threads);
  else
    make_filters<uint16_t, bf16_to_f32>(winograd, from, to, pool, threads);
}

// What is made alike: the place of the filters, and all numbers but the buffer's.
using Recipe = std::tuple<uint64_t, DType, int32_t, int64_t, int64_t, int32_t, int32_t, int32_t>;

Recipe recipe_of(const BufferSpec& filters, const WinogradSpec& made) {
  return {filters.offset, made.dtype, made.results,      made.channels,
          made.outputs,   made.width, made.filter_width, made.filter_step};
}

// Threads that are worth their start, a few MiB each.
int threads_for(uint64_t bytes) {
  constexpr uint64_t kBytesPerThread = 8 << 20, kMost = 8;
  const uint64_t wanted = std::clamp<uint64_t>(bytes / kBytesPerThread, 1, kMost);
  return std::min(static_cast<int>(wanted), available_cpus());
}

}  // namespace

Result<MadeConstants> MadeConstants::make(const engine::ProgramSpec& program,
                                          std::span<const std::byte> weights, bool is_mapped) {
  MadeConstants made;
  made.by_buffer_.resize(program.buffers.size(), nullptr);
  if (weights.empty() || std::ranges::none_of(program.buffers, &BufferSpec::is_made_at_load))
    return made;
  std::map<Recipe, std::vector<size_t>> recipes;
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const WinogradSpec& winograd = program.buffers[i].winograd;
    if (!program.buffers[i].is_made_at_load()) continue;
    const BufferSpec& filters = program.buffers[static_cast<size_t>(winograd.filters)];
    recipes[recipe_of(filters, winograd)].push_back(i);
  }
  // Filters of one output that are padded to the widest panel are at most this much larger.
  constexpr uint64_t kMostGrowth = 8 * engine::kWidestPanel;
  uint64_t bytes = 0;
  for (const auto& [recipe, buffers] : recipes) {
    bytes += align_up(program.buffers[buffers.front()].constant_bytes, kTensorAlignment);
    if (bytes / kMostGrowth > weights.size())
      return Status(StatusCode::InvalidEngine,
                    "damaged engine: " + program.name() + ": its load would make " +
                        std::to_string(bytes) + " bytes or more of " +
                        std::to_string(weights.size()) + " bytes of weights");
  }
  Result<AlignedBuffer> memory = AlignedBuffer::allocate(bytes);
  if (!memory.ok()) return memory.status();
  made.memory_ = std::move(*memory);
  std::byte* to = made.memory_.data();
  ThreadPool pool;
  const int threads = threads_for(bytes);
  for (const auto& [recipe, buffers] : recipes) {
    const BufferSpec& buffer = program.buffers[buffers.front()];
    const BufferSpec& filters = program.buffers[static_cast<size_t>(buffer.winograd.filters)];
    const std::span<const std::byte> from = weights.subspan(filters.offset, filters.constant_bytes);
    make_filters(buffer.winograd, from.data(), to, pool, threads);
    if (is_mapped) forget_pages(from);
    for (const size_t i : buffers) made.by_buffer_[i] = to;
    to += align_up(buffer.constant_bytes, kTensorAlignment);
  }
  return made;
}

void make_winograd_filters(const WinogradSpec& winograd, const std::byte* from, std::byte* to,
                           int threads) {
  ThreadPool pool;
  make_filters(winograd, from, to, pool, threads);
}

}  // namespace kiln::cpu
