// Sizes of the tiles of product kernels.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "backends/cuda/compile/kernel_context.h"

namespace kiln::cuda {

// A product as the choice of its tile sees it, at the sizes to optimise for.
struct ProductSize {
  int64_t batch = 1, m = 1, n = 1, k = 1;
  int step = 64;           // of k, on Hopper: 64 or 32
  int row_loads = 0;       // of the epilogue, that each row has of its own; of f32, twice as many
  bool wide = false;       // elements are f32
  bool add_apart = false;  // of f8e4m3: the sums of each step, as GroupTile has it
  int epilogue_work = 0;   // instructions an element, about
  int sums = 1;            // of each element: n counts all of them
  bool pairs = false;      // the result may be finished as pairs of elements; on Hopper
  bool in_turns = false;   // each step adds to one of the sums alone; on Hopper
  int64_t left_bytes = 0;  // of the left operand in memory; on Hopper
};

// What a block of threads computes (tile_mma.cuh, tile_exact.cuh, tile_simt.cuh).
struct Tile {
  int m = 0, n = 0, k = 0;
  int warp_m = 0, warp_n = 0;  // of a warp; tensor cores only
  int stages = 0;
  int groups = 1;               // of warps that share a step
  int cluster = 1;              // blocks that share k
  bool three_products = false;  // of f32, for each
  bool float8 = false;          // elements are f8e4m3
  bool rounded_sums = false;    // of f8e4m3, which may have about 14 bits
  bool by_groups = false;       // on Hopper: tile_exact.cuh; warp_m is 16, warp_n is n
  int sums = 1;                 // of an element of the result, of which it has n / sums columns

  int columns() const { return n / sums; }

  // Of a block on tensor cores.
  int threads() const { return m / warp_m * (n / warp_n) * groups * 32; }
  // For operands of `element` bytes.
  int64_t shared_bytes(int element) const;
};

// Those that are possible for a product, the best by a model of the cost first; at least one.
// For f16 and bf16 on tensor cores, for f32 as TF32, and for integers: `element` bytes each, 1, 2 or 4.
std::vector<Tile> rank_tiles(const Target& target, const ProductSize& size, int element);
// For f8e4m3; `rounded`: sums may have about 14 bits.
std::vector<Tile> rank_float8_tiles(const Target& target, const ProductSize& size, bool rounded);
// For f32 as three products of TF32; `along_k`: neighbours of B along k are neighbours in memory.
std::vector<Tile> rank_exact_tiles(const Target& target, const ProductSize& size, bool along_k);
// For f32 and f64: `element` bytes a sum.
std::vector<Tile> rank_simt_tiles(const Target& target, const ProductSize& size, int element);

// What a block of tile_wgmma.cuh computes: consumer groups of 64 * row_blocks rows each. Along k, it and
// the size that it is chosen for are in 2 bytes: elements of f32 count twice, two bytes once.
struct GroupTile {
  int groups = 2, row_blocks = 1, n = 0, k = 64, stages = 0;
  bool ping_pong = false;   // each group has tiles of its own
  bool one_tile = false;    // a block has one tile and ends
  int cluster = 1;          // blocks that share k; one_tile only
  bool hold_loads = false;  // what the epilogue loads waits in registers
  bool add_apart = false;   // the sums of each step
  int sums = 1;             // as of a Tile
  bool pairs = false;       // results as group_pairs.cuh has them; blocks stay
  bool in_turns = false;    // of the sums: a step has the right operand of one of them

  int columns() const { return n / sums; }
  int step_columns() const { return in_turns ? columns() : n; }
  int m() const { return 64 * row_blocks * (ping_pong ? 1 : groups); }
  int threads() const { return 128 * (groups + 1); }
  // Of a thread of the producer, and of the other groups: 64K in all, in units of 8 for each of 128.
  int producer_registers() const { return groups == 3 ? 32 : 24; }
  int registers() const {
    if (groups > 4) return 80;
    if (groups == 4) return 112;
    return groups == 3 ? 160 : 240;
  }
  int64_t shared_bytes() const;
};
// On tensor cores of Hopper: as above.
std::vector<GroupTile> rank_group_tiles(const ProductSize& size);

// What Hopper has for a product that the copy engine can bring: tile_wgmma.cuh, and tile_mma.cuh, which is
// the better one at times. In the order in which they are worth a try.
using HopperWay = std::variant<GroupTile, Tile>;
std::vector<HopperWay> hopper_ways(const std::vector<GroupTile>& groups,
                                   const std::vector<Tile>& tiles);

// What a block of windows.cuh computes: rows of 16 pixels, one or two of them a warp.
struct WindowTile {
  static constexpr int kX = 16, kWarps = 8;
  int warp_rows = 1, n = 64;
  int y() const { return kWarps * warp_rows; }
};

// Blocks of a multiprocessor that registers are to be left for.
int min_blocks(const Tile& tile);

}  // namespace kiln::cuda
