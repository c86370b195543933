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

// Of f32 as three products: a warp has two fragments of each operand, and the sums twice for a while.
constexpr std::array kExactShapes = {
    Shape{{128, 128, 16, 64, 32, 4}, 0.6},  Shape{{128, 64, 16, 64, 32, 4}, 0.6},
    Shape{{64, 64, 16, 32, 32, 4}, 0.56},   Shape{{64, 64, 32, 32, 32, 3}, 0.55},
    Shape{{128, 32, 32, 32, 32, 3}, 0.45},  Shape{{128, 16, 32, 32, 16, 3}, 0.25},
    Shape{{32, 64, 32, 32, 32, 4, 2}, 0.4}, Shape{{16, 64, 64, 16, 32, 3, 2}, 0.25},
    Shape{{16, 32, 64, 16, 32, 4, 4}, 0.2},
};

// The same on Hopper. Shares are of what those above are shares of.
constexpr std::array kExactGroupShapes = {
    Shape{{128, 128, 32, 16, 128, 4}, 1.3},
    Shape{{64, 128, 32, 16, 128, 3}, 1.2},
    Shape{{128, 64, 32, 16, 64, 4}, 0.95},
    Shape{{64, 64, 32, 16, 64, 3}, 1.05},
};

constexpr std::array kSimtShapes = {Shape{{128, 128, 8}, 0.7}, Shape{{64, 64, 16}, 0.5},
                                    Shape{{32, 32, 16}, 0.25}};

// On Hopper: blocks of a cluster lie in one part of the machine, fewer fit than there are multiprocessors.
int cluster_slots(int cluster) { return cluster <= 2 ? 132 : 120; }

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
  const int slots =
      target.sm == 90 && element == 4 ? cluster_slots(cluster) : multiprocessors(target);
  const double rounds = std::ceil(tiles / slots);
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

using CostedTiles = std::vector<std::pair<double, Tile>>;

template <size_t N>
CostedTiles costed(const Target& target, const ProductSize& size,
                   const std::array<Shape, N>& shapes, double fused_multiply_adds, int element) {
  CostedTiles tiles;
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
      tile.sums = size.sums;
    }
  }
  return tiles;
}

template <size_t N>
std::vector<Tile> rank(const Target& target, const ProductSize& size,
                       const std::array<Shape, N>& shapes, double fused_multiply_adds,
                       int element) {
  return by_cost(costed(target, size, shapes, fused_multiply_adds, element));
}

// --- Hopper ---

constexpr int64_t kHopperSharedBytes = 232448;
constexpr int kHopperMultiprocessors = 132;

// Whether the loads of the epilogue have room beside the sums: 16-bit elements of the rows of a group,
// two to a register.
bool holds_loads(const GroupTile& tile, const ProductSize& size) {
  // What is held is there while a step is multiplied.
  const int sums = tile.row_blocks * tile.n / 2 * (size.add_apart ? 2 : 1);
  const int loads = size.row_loads * tile.row_blocks * tile.columns() / 4;
  const int others = tile.groups > 4 ? 32 : tile.ping_pong && tile.groups > 2 ? 60 : 80;
  const int most = tile.groups > 2 ? tile.registers() - others : 180;
  return size.row_loads > 0 && sums + loads <= most;
}

// Whether the loads of the epilogue that are fetched a chunk ahead have room: of f32 they take twice
// as many registers.
bool has_room(const GroupTile& tile, const ProductSize& size) {
  if (!size.wide || size.row_loads == 0 || tile.one_tile || holds_loads(tile, size)) return true;
  return tile.row_blocks * tile.n / 2 <= tile.registers() - 80;
}

// Whether the few registers of a thread of six groups are enough for an epilogue.
bool suits_epilogue(const GroupTile& tile, const ProductSize& size) {
  constexpr int kSimple = 10;
  return tile.groups <= 4 || (size.epilogue_work <= kSimple && size.row_loads <= 1 && !size.wide);
}

// Whether what a product reads and writes of its rows is more than the second-level cache holds: many groups are then
// worth their smaller tiles, since each waits for memory.
bool streams(const ProductSize& size) {
  constexpr int64_t kCache = 50'000'000;
  const int64_t result = size.m * (size.n / size.sums) * (size.wide ? 4 : 2);
  return size.left_bytes + result + size.m * (size.n / size.sums) * 2 * size.row_loads > kCache;
}

// One group of a block that stays leaves room for a block of the next kernel on most multiprocessors, if it has half of
// them at most.
bool leaves_room(const GroupTile& tile, const ProductSize& size) {
  return 2 * ceil_div(size.m, tile.m()) * ceil_div(size.n, tile.n) <= kHopperMultiprocessors;
}

// Whether a tile is one for products of this size.
bool suits_size(const GroupTile& tile, const ProductSize& size) {
  if (tile.groups > 2 && tile.ping_pong) return streams(size);
  return tile.groups > 1 || tile.one_tile || leaves_room(tile, size);
}

// What a tile costs, in cycles: constants of a fit to the times of 1800 kernels of 78 products and
// convolutions on an H100, so that the tile chosen is near the fastest. They are about what one
// expects of the machine, but stand for whatever else is like them.
struct GroupCosts {
  double cache_bytes = 48.3;      // a cycle and multiprocessor, when all ask for some
  double few_cache_bytes = 74.4;  // the most that one gets
  double shared = 1.19;
  double shared_deep = 1.0;  // in long loops of blocks that share k
  double deep_steps = 64;
  double one_group = 1.17;         // one group alone waits between its steps
  double one_tile_of_two = 1.17;   // bound by arithmetic
  double one_tile_traffic = 1.48;  // of two, bound by the cache
  double step = 231;               // the least of a step
  double step_alone = 97.1;        // of one group
  double shared_k = 1.05;
  double store = 0.158;   // an element
  double work = 0.00637;  // an instruction of the epilogue, an element
  double load = 0.187;    // an element that the epilogue loads before the loop over k
  double late = 0.336;    // or a chunk ahead
  double begin = 1890;
  double turn_store = 0.444;  // where groups take turns
  double turn_work = 0.0177;
  double turns = 1.14;
  // Of more than two groups, one of which stores while others wait for loads.
  double more_store = 0.3;
  double more_work = 0.0068;
  double more_load = 0.2;
  double more_late = 0.6;
  double more_turns = 1;
  double more_tile = 270;     // of a group
  double more_caution = 1.1;  // they move more through the cache, which takes power
  double one_tile_store = 0.0166;
  double one_tile = 3450;
  double exchange = 1420;
  double exchange_block = 203;
  double exchange_element = 0.307;
};
constexpr GroupCosts kCosts;

// The loop over k of one tile: bound by arithmetic (2048 multiply-adds a cycle), by what comes from the
// second-level cache, by shared memory, of which each 64 rows read their part of A and all of B, or by
// the steps.
double loop_cycles(const ProductSize& size, const GroupTile& tile, double tiles) {
  const double depth = std::ceil(static_cast<double>(size.k) / tile.cluster);
  const double steps = std::ceil(depth / tile.k);
  const bool of_two = tile.one_tile && tile.groups == 2;
  const double alone_slow = tile.groups == 1 ? kCosts.one_group : 1;
  const double slow = of_two ? kCosts.one_tile_of_two : alone_slow;
  const double slow_traffic = of_two ? kCosts.one_tile_traffic : alone_slow;
  const int columns = tile.step_columns();
  const double arithmetic = tile.m() * columns * steps * tile.k / 2048 * slow;
  const double active = std::min<double>(tiles * tile.cluster, kHopperMultiprocessors);
  const double bytes =
      std::min(kCosts.few_cache_bytes, kCosts.cache_bytes * kHopperMultiprocessors / active);
  const double rows = std::min<double>(tile.m(), static_cast<double>(size.m)) + columns;
  const double traffic = rows * 2 * depth / bytes * slow_traffic;
  const int row_blocks = tile.row_blocks * (tile.ping_pong ? 1 : tile.groups);
  const bool deep = tile.cluster > 1 && steps >= kCosts.deep_steps;
  const double shared = (row_blocks * (2048 + 32.0 * columns) + (tile.m() + columns) * 32.0) / 128 *
                        (deep ? kCosts.shared_deep : kCosts.shared) * depth / 16;
  const bool alone = tile.groups == 1 || tile.ping_pong;
  const double latency = steps * (alone ? kCosts.step_alone : kCosts.step);
  return std::max({arithmetic, traffic, shared, latency}) *
         (tile.cluster > 1 ? kCosts.shared_k : 1);
}

// Tiles of groups that take turns. One that stores while another multiplies does so alone and beside its traffic.
double turns_cycles(const ProductSize& size, const GroupTile& tile, double main, double rounds) {
  const bool more = tile.groups > 2;
  const bool late = size.row_loads > 0 && !holds_loads(tile, size);
  const double held = (more ? kCosts.more_load : kCosts.load) * size.row_loads;
  const double load = late ? (more ? kCosts.more_late : kCosts.late) : held;
  const double element = (more ? kCosts.more_store : kCosts.turn_store) + load +
                         (more ? kCosts.more_work : kCosts.turn_work) * size.epilogue_work;
  const double store =
      static_cast<double>(tile.m()) * tile.columns() * element + (more ? kCosts.more_tile : 0);
  const double turn = main * (more ? kCosts.more_turns : kCosts.turns);
  const double all = rounds * std::max(turn, (main + store) / tile.groups) + store -
                     store / tile.groups + kCosts.begin;
  return all * (more ? kCosts.more_caution : 1);
}

// The whole product: rounds of tiles, what storing them takes, and what beginning and ending does.
double group_cycles(const ProductSize& size, const GroupTile& tile) {
  const double tiles = ceil_div(size.m, tile.m()) * ceil_div(size.n, tile.n);
  const double sums = static_cast<double>(tile.m()) * tile.n, area = sums / tile.sums;
  const double main = loop_cycles(size, tile, tiles);
  const double rounds = std::ceil(tiles * tile.cluster / cluster_slots(tile.cluster));
  const double loads = kCosts.load * size.row_loads;
  if (tile.one_tile) {
    const double exchange = tile.cluster > 1
                                ? kCosts.exchange + kCosts.exchange_block * tile.cluster +
                                      sums * kCosts.exchange_element
                                : 0;
    const double store =
        area * (kCosts.one_tile_store + kCosts.work * size.epilogue_work + loads) / tile.cluster;
    return rounds * (main + store + exchange + kCosts.one_tile);
  }
  // What is loaded a chunk ahead is late.
  const double late = size.row_loads > 0 && !holds_loads(tile, size) ? kCosts.late : loads;
  if (tile.ping_pong) return turns_cycles(size, tile, main, rounds);
  return rounds * (main + area * (kCosts.store + late + kCosts.work * size.epilogue_work)) +
         kCosts.begin;
}

// As many stages as fit, at most 8.
void fill_stages(GroupTile& tile) {
  for (tile.stages = 8; tile.stages > 2 && tile.shared_bytes() > kHopperSharedBytes;) --tile.stages;
}

// Whether there are registers for the sums of a tile and those of a step, or of half of it (tile_wgmma.cuh).
// Where groups take turns, nobody multiplies while one adds.
bool can_add_apart(const GroupTile& tile) {
  const int sums = tile.row_blocks * tile.n / 2;
  const bool few = tile.groups == 3 || (tile.one_tile && tile.groups == 2);
  return !tile.ping_pong && sums + (sums > 96 ? sums / 2 : sums) <= (few ? 128 : 192);
}

std::vector<GroupTile> group_tiles(int step, bool add_apart = false) {
  std::vector<GroupTile> tiles;
  const auto add = [&](GroupTile tile) {
    tile.k = step;
    tile.add_apart = add_apart;
    if (add_apart && !can_add_apart(tile)) return;
    fill_stages(tile);
    tiles.push_back(tile);
  };
  for (const auto& [row_blocks, n] : {std::pair{2, 128}, {1, 256}, {1, 128}, {2, 64}})
    add({.groups = 2, .row_blocks = row_blocks, .n = n, .ping_pong = true});
  for (const auto& [groups, n] :
       {std::pair{3, 128}, {3, 96}, {3, 64}, {4, 128}, {4, 96}, {4, 64}, {6, 64}})
    add({.groups = groups, .row_blocks = 1, .n = n, .ping_pong = true});
  for (const auto& [row_blocks, n] :
       {std::pair{1, 192}, {1, 160}, {1, 256}, {2, 96}, {2, 128}, {1, 128}, {1, 96}, {1, 64}})
    add({.groups = 2, .row_blocks = row_blocks, .n = n});
  for (int n : {192, 128, 64}) add({.groups = 3, .row_blocks = 1, .n = n});
  if (!add_apart)
    for (int n : {32, 64, 96, 128}) add({.groups = 1, .row_blocks = 1, .n = n});
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
  const int64_t ring = int64_t{stages} * (m() + step_columns()) * k * 2 + 16 * stages;
  const int64_t touched = one_tile ? 0 : int64_t{groups} * 4 * (pairs ? 128 + 1024 : 128);
  return std::max(ring + touched, one_tile ? m() * int64_t{n + 4} * 4 : 0) + 1024;
}

std::vector<GroupTile> rank_group_tiles(const ProductSize& size) {
  static const std::vector<GroupTile> kWide = group_tiles(64), kNarrow = group_tiles(32),
                                      kApart = group_tiles(64, true);
  std::vector<std::pair<double, GroupTile>> tiles;
  for (GroupTile tile : size.add_apart ? kApart : size.step == 64 ? kWide : kNarrow) {
    if (tile.cluster > 1 && size.k < int64_t{2} * tile.k * tile.cluster) continue;
    // A row of 32 columns of each is what a warp writes at a time.
    if (size.sums > 1 && tile.n % (32 * size.sums) != 0) continue;
    tile.sums = size.sums;
    tile.in_turns = size.in_turns;
    tile.pairs = size.pairs && !tile.one_tile;
    if (tile.in_turns || tile.pairs) fill_stages(tile);
    if (!has_room(tile, size) || !suits_epilogue(tile, size)) continue;
    if (!suits_size(tile, size)) continue;
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
  static constexpr auto kByteShapes = [] {
    auto shapes = kMmaShapes;
    for (Shape& shape : shapes) shape.tile.k *= 2;
    return shapes;
  }();
  const double rate = target.sm == 86 || target.sm == 89 ? 512 : 1024;
  if (element == 1) return rank(target, size, kByteShapes, rate, element);
  return element == 2 ? rank(target, size, kMmaShapes, rate, element)
                      : rank(target, size, kTf32Shapes, rate / 2, element);
}

std::vector<Tile> rank_float8_tiles(const Target& target, const ProductSize& size, bool rounded) {
  // Sums that are added apart take registers as those of three products do.
  static constexpr auto kApartShapes = [] {
    auto shapes = kExactShapes;
    for (Shape& shape : shapes) shape.tile.k *= 4;
    return shapes;
  }();
  const bool has_float8 = target.sm == 89 && rounded;
  const double rate = target.sm == 86 || (target.sm == 89 && !has_float8) ? 512 : 1024;
  std::vector<Tile> tiles = rounded && !has_float8 ? rank_tiles(target, size, 1)
                                                   : rank(target, size, kApartShapes, rate, 1);
  for (Tile& tile : tiles) {
    tile.float8 = true;
    tile.rounded_sums = rounded;
  }
  return tiles;
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

std::vector<Tile> rank_exact_tiles(const Target& target, const ProductSize& size, bool along_k) {
  constexpr double kRate = 512.0 / 3;
  CostedTiles tiles = costed(target, size, kExactShapes, kRate, 4);
  if (target.sm == 90 && along_k) {
    for (auto& [cost, tile] : costed(target, size, kExactGroupShapes, kRate, 4)) {
      tile.by_groups = true;
      tiles.emplace_back(cost, tile);
    }
  }
  for (auto& [cost, tile] : tiles) tile.three_products = true;
  return by_cost(std::move(tiles));
}

int64_t Tile::shared_bytes(int element) const {
  const int64_t ring = int64_t{stages} * (m + n) * k * element;
  const int64_t split = by_groups ? int64_t{2} * n * k * element + 1024 : 0;
  return ring + split;
}

int min_blocks(const Tile& tile) {
  if (tile.stages == 0) return tile.m >= 64 ? 1 : 2;  // tile_simt.cuh: the largest needs all
  if (!tile.three_products && !tile.float8) return 2;
  // With 255 or 168 registers for a thread.
  return std::max(1, (tile.warp_m * tile.warp_n > 1024 ? 256 : 384) / tile.threads());
}

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
