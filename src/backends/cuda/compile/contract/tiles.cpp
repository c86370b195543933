#include "backends/cuda/compile/contract/tiles.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "backends/cuda/compile/contract/contraction.h"

namespace kiln::cuda {
namespace {

// A shape of tiles, and the share of the arithmetic units that its inner loop keeps busy.
struct Shape {
  Tile tile;
  double share;
};

// Of 16-bit elements; of f32, k is half as much. Shared memory stays below 99 KiB, which all
// generations have; two blocks of the larger tiles fit a multiprocessor of 164 KiB.
constexpr std::array kMmaShapes = {
    Shape{{128, 128, 32, 64, 64, 4}, 0.75},   Shape{{128, 64, 32, 64, 32, 4}, 0.62},
    Shape{{64, 128, 32, 32, 64, 4}, 0.62},    Shape{{64, 64, 64, 32, 32, 4}, 0.5},
    Shape{{128, 32, 64, 32, 32, 3}, 0.4},     Shape{{128, 16, 64, 32, 16, 3}, 0.25},
    Shape{{32, 64, 64, 32, 32, 4, 2}, 0.35},  Shape{{16, 64, 128, 16, 32, 3, 2}, 0.2},
    Shape{{16, 32, 128, 16, 32, 4, 4}, 0.14},
};

constexpr std::array kSimtShapes = {Shape{{128, 128, 8}, 0.7}, Shape{{64, 64, 16}, 0.5},
                                    Shape{{32, 32, 16}, 0.25}};

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

// Tiles with their costs, the cheapest first; of equal ones the earlier.
template <typename Any>
std::vector<Any> by_cost(std::vector<std::pair<double, Any>> tiles) {
  std::ranges::stable_sort(tiles, {}, [](const auto& tile) { return tile.first; });
  std::vector<Any> result;
  for (auto& [cost, tile] : tiles) result.push_back(tile);
  return result;
}

template <size_t N>
std::vector<Tile> rank(const Target& target, const ProductSize& size,
                       const std::array<Shape, N>& shapes, double fused_multiply_adds,
                       int element) {
  std::vector<std::pair<double, Tile>> tiles;
  for (const Shape& shape : shapes) {
    for (int cluster : {1, 2, 4, 8}) {
      const bool possible =
          cluster == 1 ||
          (target.sm >= 90 && size.k >= 2 * cluster * shape.tile.k && shape.tile.m % cluster == 0);
      if (!possible) continue;
      Tile& tile =
          tiles
              .emplace_back(cycles(target, size, shape, cluster, fused_multiply_adds, element),
                            shape.tile)
              .second;
      tile.cluster = cluster;
    }
  }
  return by_cost(std::move(tiles));
}

// --- Hopper ---

constexpr int64_t kHopperSharedBytes = 232448;
constexpr int kHopperMultiprocessors = 132;

// Blocks of a cluster lie in one part of the machine: fewer fit than there are multiprocessors.
int cluster_slots(int cluster) { return cluster <= 2 ? 132 : 120; }

// Whether the loads of the epilogue have room beside the sums: 16-bit elements of the rows of a group,
// two to a register.
bool holds_loads(const GroupTile& tile, const ProductSize& size) {
  const int sums = tile.row_blocks * tile.n / 2;
  const int loads = size.row_loads * tile.row_blocks * tile.n / 4;
  return size.row_loads > 0 && sums + loads <= (tile.groups == 3 ? 80 : 180);
}

// Whether the loads of the epilogue that are fetched a chunk ahead have room: of f32 they take twice
// as many registers.
bool has_room(const GroupTile& tile, const ProductSize& size) {
  if (!size.wide || size.row_loads == 0 || tile.one_tile || holds_loads(tile, size)) return true;
  return tile.row_blocks * tile.n / 2 <= (tile.groups == 3 ? 80 : 160);
}

// Cycles of the whole product: 2048 multiply-adds a cycle of a multiprocessor, which gets 58 bytes a
// cycle from the second-level cache when all ask for some, and what storing tiles takes. A group that
// stores while the other multiplies does so alone and beside its traffic in shared memory.
double group_cycles(const ProductSize& size, const GroupTile& tile) {
  const double depth = std::ceil(static_cast<double>(size.k) / tile.cluster);
  const double tiles = ceil_div(size.m, tile.m()) * ceil_div(size.n, tile.n);
  const double area = static_cast<double>(tile.m()) * tile.n;
  const double rows = std::min<double>(tile.m(), static_cast<double>(size.m)) + tile.n;
  // One group alone waits between its steps.
  const double arithmetic = area * depth / 2048 * (tile.groups == 1 ? 1.2 : 1.0);
  const double traffic = rows * 2 * depth / 58 * (tile.groups == 1 ? 1.2 : 1.0);
  const double main = std::max({arithmetic, traffic, depth / tile.k * 60});
  const double rounds = std::ceil(tiles * tile.cluster / cluster_slots(tile.cluster));
  const double work = 0.01 * size.epilogue_work;  // an element
  if (tile.one_tile) {
    const double exchange = tile.cluster > 1 ? 2500 + 250 * tile.cluster + area / 4 : 0;
    return rounds * (main + area * (0.1 + work) / tile.cluster + exchange + 4000);
  }
  // What is loaded a chunk ahead is late.
  const double late = size.row_loads > 0 && !holds_loads(tile, size) ? 0.3 : 0;
  if (tile.ping_pong) {
    const double store = area * (0.5 + late + 3 * work);
    return rounds * std::max(main * 1.05, (main + store) / 2) + store / 2 + 5000;
  }
  return rounds * (main + area * (0.15 + late + work)) + 5000;
}

// As many stages as fit, at most 8.
void fill_stages(GroupTile& tile) {
  for (tile.stages = 8; tile.stages > 2 && tile.shared_bytes() > kHopperSharedBytes;) --tile.stages;
  if (tile.stages >= 4 || tile.one_tile) return;
  GroupTile narrow = tile;
  narrow.chunk = 32;
  narrow.stages = tile.stages + 1;
  if (narrow.shared_bytes() <= kHopperSharedBytes) tile = narrow;
}

std::vector<GroupTile> group_tiles(int step) {
  std::vector<GroupTile> tiles;
  const auto add = [&](GroupTile tile) {
    tile.k = step;
    // What is fetched ahead needs registers, of which 192 sums leave few.
    const bool many_sums = tile.row_blocks * tile.n >= 384;
    tile.chunk = tile.n % 64 == 0 && !many_sums ? 64 : 32;
    fill_stages(tile);
    tiles.push_back(tile);
  };
  for (const auto& [row_blocks, n] :
       {std::pair{2, 192}, {2, 128}, {3, 128}, {1, 256}, {1, 128}, {2, 64}})
    add({.groups = 2, .row_blocks = row_blocks, .n = n, .ping_pong = true});
  for (const auto& [row_blocks, n] :
       {std::pair{1, 192}, {1, 256}, {2, 96}, {2, 128}, {1, 128}, {1, 96}, {1, 64}})
    add({.groups = 2, .row_blocks = row_blocks, .n = n});
  for (int n : {192, 128, 64}) add({.groups = 3, .row_blocks = 1, .n = n});
  for (int groups : {1, 2}) {
    for (int n : {32, 64, 96, 128}) {
      for (int cluster : {1, 2, 4, 8})
        add({.groups = groups, .row_blocks = 1, .n = n, .one_tile = true, .cluster = cluster});
    }
  }
  return tiles;
}

}  // namespace

int64_t GroupTile::shared_bytes() const {
  const int64_t ring = int64_t{stages} * (m() + n) * k * 2 + 16 * stages;
  const int64_t chunks = one_tile ? 0 : int64_t{groups} * 4 * 16 * (chunk + 4) * 4;
  return std::max(ring + chunks, one_tile ? m() * int64_t{n + 4} * 4 : 0) + 1024;
}

std::vector<GroupTile> rank_group_tiles(const ProductSize& size) {
  static const std::vector<GroupTile> kWide = group_tiles(64), kNarrow = group_tiles(32);
  std::vector<std::pair<double, GroupTile>> tiles;
  for (GroupTile tile : size.step == 64 ? kWide : kNarrow) {
    if (tile.cluster > 1 && size.k < int64_t{2} * tile.k * tile.cluster) continue;
    if (!has_room(tile, size)) continue;
    tile.hold_loads = !tile.one_tile && holds_loads(tile, size);
    tiles.emplace_back(group_cycles(size, tile), tile);
  }
  return by_cost(std::move(tiles));
}

std::vector<Tile> rank_tiles(const Target& target, const ProductSize& size, int element) {
  static constexpr auto kTf32Shapes = [] {
    auto shapes = kMmaShapes;
    for (Shape& shape : shapes) shape.tile.k /= 2;
    return shapes;
  }();
  const double rate = target.sm == 86 || target.sm == 89 ? 512 : 1024;
  return element == 2 ? rank(target, size, kMmaShapes, rate, element)
                      : rank(target, size, kTf32Shapes, rate / 2, element);
}

std::vector<HopperWay> hopper_ways(const std::vector<GroupTile>& groups,
                                   const std::vector<Tile>& tiles) {
  std::vector<HopperWay> ways;
  for (size_t i = 0; i < groups.size(); ++i) {
    ways.emplace_back(groups[i]);
    // One without the copy engine for four with it: it is seldom the better one.
    if (i % 4 == 2 && i / 4 < tiles.size()) ways.emplace_back(tiles[i / 4]);
  }
  return ways;
}

int min_blocks(const Tile& tile) { return tile.m >= 64 ? 1 : 2; }

std::vector<Tile> rank_simt_tiles(const Target& target, const ProductSize& size, int element) {
  const bool wide = element == 8;
  const double rate =
      wide ? (target.sm == 80 || target.sm == 90 ? 64 : 2) : (target.sm == 80 ? 64 : 128);
  if (wide) {
    static constexpr std::array kWide = {kSimtShapes[1], kSimtShapes[2]};
    return rank(target, size, kWide, rate, element);
  }
  return rank(target, size, kSimtShapes, rate, element);
}

}  // namespace kiln::cuda
