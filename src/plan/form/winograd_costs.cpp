#include "plan/form/winograd_costs.h"

#include <algorithm>

#include "ir/size_overflow.h"

namespace kiln::plan {
namespace {

// Large sizes saturate: then both sides are equal, and nothing changes.
int64_t product(std::initializer_list<int64_t> factors) { return ir::saturating_product(factors); }

// Fewer channels would leave tiles empty, whatever the costs.
constexpr int64_t kFewestChannels = 16;
// A choice that is closer than this, in percent, is not worth its rounding.
constexpr int64_t kLargestShare = 95;

struct Sizes {
  int64_t images, height, width, channels, outputs;
};

int64_t opt(const ir::Dim& dim) {
  constexpr int64_t kLargest = int64_t{1} << 40;
  return std::clamp<int64_t>(dim.at_opt(), 1, kLargest);
}

int64_t sum(int64_t a, int64_t b) { return a > INT64_MAX - b ? INT64_MAX : a + b; }

// In multiply-adds of f32.
int64_t direct_cost(const Sizes& sizes, const WinogradCosts& costs) {
  const int64_t filters = product({9, sizes.channels, sizes.outputs});
  return sum(product({sizes.images, sizes.height, sizes.width, filters}),
             product({filters, costs.weight}));
}

int64_t winograd_cost(const Sizes& sizes, const WinogradCosts& costs, int64_t results) {
  const int64_t points = (results + 2) * (results + 2);
  const int64_t tiles = product({sizes.images, (sizes.height + results - 1) / results,
                                 (sizes.width + results - 1) / results});
  const int64_t filters = product({points, sizes.channels, sizes.outputs});
  const int64_t transforms = product(
      {tiles, points,
       sum(product({sizes.channels, costs.pixel}), product({sizes.outputs, costs.result}))});
  return sum(sum(product({std::max(tiles, costs.fewest_rows), filters}), transforms),
             product({filters, costs.weight}));
}

Sizes sizes_of(const Convolution& c) {
  return {opt(c.b.extent()), opt(c.y.extent()), opt(c.x.extent()), c.channels,
          c.o.extent().constant()};
}

int64_t limit(const Sizes& sizes, const WinogradCosts& costs) {
  return direct_cost(sizes, costs) / 100 * kLargestShare;
}

}  // namespace

int64_t best_winograd_tile(const Convolution& c, const WinogradCosts& costs) {
  if (!c.o.extent().is_constant()) return 0;
  const Sizes sizes = sizes_of(c);
  if (std::min(sizes.channels, sizes.outputs) < kFewestChannels) return 0;
  int64_t best = 0, least = limit(sizes, costs);
  for (int64_t results : {2, 4}) {
    const int64_t cost = winograd_cost(sizes, costs, results);
    if (cost >= least) continue;
    best = results;
    least = cost;
  }
  return best;
}

bool is_worth_winograd(const Convolution& c, WinogradCosts costs, int64_t rate) {
  const Sizes sizes = sizes_of(c);
  const int64_t most = limit(sizes, costs) / rate;
  costs.weight *= rate;
  return winograd_cost(sizes, costs, c.winograd) < most;
}

}  // namespace kiln::plan
