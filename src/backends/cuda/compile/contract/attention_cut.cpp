#include "backends/cuda/compile/contract/attention_cut.h"

#include <algorithm>
#include <span>

namespace kiln::cuda {
namespace {

// A cut, and what it takes on an H100, in cycles, measured. Steps are as long as one group's chain of
// products and softmax, or as all groups of the multiprocessor take that share its units.
struct KnownCut {
  GroupCut cut;
  double shared_step;    // of each group of the multiprocessor
  double adjusted_step;  // the same with masks or biases; 0: registers are too few for these
  double lone_step;      // of a group alone
  double item;           // before the first step and after the last
};

constexpr GroupCut cut(int groups, int keys, int stages, int query_stages, int blocks) {
  return {.groups = groups,
          .keys = keys,
          .stages = stages,
          .query_stages = query_stages,
          .blocks = blocks};
}

constexpr KnownCut kNarrow[] = {
    {cut(1, 128, 2, 2, 2), 1225, 2440, 1500, 1950}, {cut(1, 64, 3, 2, 3), 715, 1130, 1000, 2400},
    {cut(2, 128, 3, 2, 1), 1170, 2780, 1500, 2400}, {cut(3, 64, 6, 2, 1), 545, 0, 900, 3500},
    {cut(4, 64, 6, 2, 1), 530, 0, 900, 4000},
};

constexpr KnownCut kMiddle[] = {
    {cut(2, 128, 2, 2, 1), 1700, 3000, 2000, 3100},
    {cut(1, 64, 2, 2, 2), 1030, 1500, 1300, 3700},
};

constexpr KnownCut kWide[] = {
    {cut(2, 64, 2, 1, 1), 2000, 2500, 2600, 3000},
};

constexpr int64_t kSharedBytes = 227 << 10;  // of a block

std::span<const KnownCut> cuts_for(int64_t width) {
  if (width <= 64) return kNarrow;
  if (width <= 128) return kMiddle;
  return kWide;
}

double ceildiv(double a, double b) {
  return static_cast<double>((static_cast<int64_t>(a) + static_cast<int64_t>(b) - 1) /
                             static_cast<int64_t>(b));
}

// Of a short last step; masks hide another number of keys from each tile, or take too many registers.
int last_keys(const AttentionSize& size, const GroupCut& cut) {
  const auto last = static_cast<int>(size.keys % cut.keys + 15) / 16 * 16;
  const bool suits = size.keys > cut.keys && 2 * last <= cut.keys;
  return suits && !size.causal && !size.adjusts ? last : 0;
}

double cycles(const AttentionSize& size, const KnownCut& known, int multiprocessors) {
  const GroupCut& cut = known.cut;
  const auto tiles = (size.rows + cut.rows() - 1) / cut.rows();
  const auto items = static_cast<double>(size.batches * tiles);
  const double own = ceildiv(items, multiprocessors);  // of a multiprocessor
  const double rounds = std::max(1.0, own / cut.blocks);
  const double resident = std::min<double>(cut.blocks, own);
  // Blocks have alike sums of the steps that a causal mask leaves, if each has several items.
  double steps = ceildiv(static_cast<double>(size.keys), cut.keys);
  if (const int last = last_keys(size, cut); last > 0) steps -= 1 - double{1} * last / cut.keys;
  if (size.causal && rounds > 1) {
    double sum = 0;
    for (int64_t tile = 1; tile <= tiles; ++tile)
      sum += std::min(steps, ceildiv(static_cast<double>(tile * cut.rows()), cut.keys));
    steps = sum / static_cast<double>(tiles);
  }
  // Alone in its round, a long item has short ones beside it.
  const double beside = size.causal && rounds <= 1 ? (1 + resident) / 2 : resident;
  const double shared = size.adjusts ? known.adjusted_step : known.shared_step;
  const double step = std::max(known.lone_step, beside * cut.groups * shared);
  return rounds * (steps * step + known.item);
}

}  // namespace

int GroupCut::loader_registers() const {
  if (groups > 2 || blocks > 2) return value_pad < 64 ? 40 : 32;
  return 56;
}

int GroupCut::reader_registers() const {
  const int all = 65536 / (blocks * threads()) / 8 * 8 * threads();
  return std::min(240, (all - 128 * loader_registers()) / (128 * groups) / 8 * 8);
}

int64_t GroupCut::shared_bytes() const {
  const int64_t panels_k = (head_pad + 63) / 64, panels_v = (value_pad + 63) / 64;
  const int64_t queries = std::max(panels_k, panels_v) * rows() * 128 + 16;
  const int64_t step = (panels_k + panels_v) * keys * 128 + 32;
  return query_stages * queries + stages * step + 1024;
}

GroupCut choose_group_cut(const AttentionSize& size, int multiprocessors) {
  const KnownCut* best = nullptr;
  double least = 0;
  for (const KnownCut& known : cuts_for(std::max(size.head_pad, size.value_pad))) {
    if (size.adjusts && known.adjusted_step == 0) continue;
    const double cost = cycles(size, known, multiprocessors);
    if (best != nullptr && cost >= least) continue;
    best = &known;
    least = cost;
  }
  GroupCut cut = best->cut;
  cut.last_keys = last_keys(size, cut);
  cut.head_pad = size.head_pad;
  cut.value_pad = size.value_pad;
  // A third stage where shared memory is left.
  GroupCut deeper = cut;
  ++deeper.stages;
  if (cut.blocks == 1 && cut.stages < 3 && deeper.shared_bytes() <= kSharedBytes) cut = deeper;
  return cut;
}

}  // namespace kiln::cuda
