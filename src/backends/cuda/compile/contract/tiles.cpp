#include "backends/cuda/compile/contract/tiles.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "backends/cuda/compile/contract/contraction.h"

namespace kiln::cuda {
namespace {

// A shape of tiles, and the share of the arithmetic units that its inner loop keeps busy.
struct Shape {
  Tile tile;
  double share;
};

// Shared memory stays below 99 KiB, which all generations have; two blocks of the larger tiles fit
// a multiprocessor of 164 KiB.
constexpr std::array kMmaShapes = {
    Shape{{128, 128, 32, 64, 64, 4}, 0.75}, Shape{{128, 64, 32, 64, 32, 4}, 0.62},
    Shape{{64, 128, 32, 32, 64, 4}, 0.62},  Shape{{64, 64, 64, 32, 32, 4}, 0.5},
    Shape{{128, 32, 64, 32, 32, 3}, 0.4},   Shape{{128, 16, 64, 32, 16, 3}, 0.25},
    Shape{{32, 64, 64, 32, 32, 4, 2}, 0.35}, Shape{{16, 64, 128, 16, 32, 3, 2}, 0.2},
    Shape{{16, 32, 128, 16, 32, 4, 4}, 0.14},
};

constexpr std::array kSimtShapes = {
    Shape{{128, 128, 8}, 0.7}, Shape{{64, 64, 16}, 0.5}, Shape{{32, 32, 16}, 0.25}};

double ceil_div(int64_t a, int64_t b) { return static_cast<double>((a + b - 1) / b); }

// Cycles of the whole product, roughly: rounds of tiles over the multiprocessors, each bound by
// arithmetic, by what a multiprocessor gets from the second-level cache (about 40 bytes a cycle), or
// by the latency of the steps; and what starting and ending costs.
double cycles(const Target& target, const ProductSize& size, const Shape& shape, int cluster,
              double fused_multiply_adds, int element) {
  const Tile& tile = shape.tile;
  const double depth = std::ceil(static_cast<double>(size.k) / cluster);
  const double tiles = static_cast<double>(size.batch) * ceil_div(size.m, tile.m) *
                       ceil_div(size.n, tile.n) * cluster;
  const double rounds = std::ceil(tiles / multiprocessors(target));
  const double arithmetic = tile.m * tile.n * depth / (fused_multiply_adds * shape.share);
  const double traffic = (tile.m + tile.n) * depth * element / 40;
  const double latency = 600 * depth / (tile.k * std::max(1, tile.stages - 1));
  const double result = tile.m * tile.n / 24.0 / cluster + (cluster > 1 ? 2000 + 100 * cluster : 0);
  return rounds * (std::max(arithmetic, traffic) + result) + latency + 2000;
}

template <size_t N>
Tile choose(const Target& target, const ProductSize& size, const std::array<Shape, N>& shapes,
            double fused_multiply_adds, int element) {
  Tile best;
  double least = 0;
  for (const Shape& shape : shapes) {
    for (int cluster : {1, 2, 4, 8}) {
      const bool possible = cluster == 1 || (target.sm >= 90 && size.k >= 2 * cluster * shape.tile.k &&
                                             shape.tile.m % cluster == 0);
      if (!possible) continue;
      const double cost = cycles(target, size, shape, cluster, fused_multiply_adds, element);
      if (best.m != 0 && cost >= least) continue;
      least = cost;
      best = shape.tile;
      best.cluster = cluster;
    }
  }
  return best;
}

}  // namespace

Tile choose_tile(const Target& target, const ProductSize& size) {
  const double rate = target.sm == 86 || target.sm == 89 ? 512 : 1024;
  return choose(target, size, kMmaShapes, rate, 2);
}

Tile choose_simt_tile(const Target& target, const ProductSize& size, int element) {
  const bool wide = element == 8;
  const double rate = wide ? (target.sm == 80 || target.sm == 90 ? 64 : 2)
                           : (target.sm == 80 ? 64 : 128);
  if (wide) {
    static constexpr std::array kWide = {kSimtShapes[1], kSimtShapes[2]};
    return choose(target, size, kWide, rate, element);
  }
  return choose(target, size, kSimtShapes, rate, element);
}

}  // namespace kiln::cuda
