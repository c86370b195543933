// Products of AMX: registers of 16 rows of 64 bytes ("tiles"), 16 multiply-adds of bf16 or 32 of bytes
// for each element of the result in one instruction.
//
// A tile of A is rows of A as they lie in memory, 16 steps (pairs of bf16, quads of bytes) of each; a
// tile of B is 16 steps of a panel that is packed in pairs or quads, 16 columns of it. Sums stay in
// tiles over a run of K, go to memory as rows, and become results from there. Tiles have one shape for
// all of a kernel, since another configuration would clear them: rows of A that are no multiple of it
// are covered by a last tile that begins earlier and computes some rows again, and what is left of K
// has tiles of its own.
#pragma once

#include <vector>

#include "backends/cpu/compile/contract/contraction.h"

namespace kiln::cpu {

constexpr int64_t kAmxRows = 16;                   // of a tile, at most
constexpr int64_t kAmxSteps = 16;                  // of a tile
constexpr int64_t kAmxColumns = 16;                // of a tile of sums
constexpr int64_t kAmxStepBytes = 4;               // a pair of bf16, a quad of bytes
constexpr int64_t kAmxRowBytes = kAmxColumns * 4;  // of a tile of sums
constexpr int64_t kAmxWorkFactor = 8;  // multiply-adds for one of vectors, in the same time
// In scratch: a configuration, a vector of results (Output::lane_slot), and sums from here on.
constexpr int64_t kAmxSlotPlace = 64, kAmxSumsPlace = 256;

// Whether a target has tiles for these steps, and so many rows at a time that are runs of so many steps are
// worth them.
bool multiplies_tiles(const Target& target, Steps steps, int64_t rows, int64_t run);

// The rows of each tile that splits counts in this range, which come in one size or in two that differ by
// one: as even as possible, and no more than there are. `smallest` is the value of the least count, for a
// range that is known at run time only.
llvm::Value* amx_rows(Emitter& emitter, CountRange counts, llvm::Value* smallest);

// Runs compute(first, count) for tiles of rows two by two, and one for the last of an odd number: `count` is 2
// or 1. Then finish(tile, number of it in the block) for each of them, which is emitted once.
void for_amx_blocks(Emitter& emitter, llvm::Value* tiles,
                    const std::function<void(llvm::Value* first, int count)>& compute,
                    const std::function<void(llvm::Value* tile, llvm::Value* in_block)>& finish);

// Where tile number `tile` of so many rows begins, and how many of its rows the one before it has done.
struct AmxRowSpan {
  llvm::Value* first = nullptr;
  llvm::Value* done = nullptr;
};
AmxRowSpan amx_row_span(Emitter& emitter, llvm::Value* tile, llvm::Value* rows, llvm::Value* count);

// What is the same for all blocks of a kernel. A block is up to two tiles of rows by `columns` tiles.
struct AmxShape {
  bool has_bytes = false;
  int columns = 2;              // 1 to 3, or to 2 if there is a rest
  llvm::Value* rows = nullptr;  // of every tile of A
  ir::Dim rest = 0;  // steps at the end of each run beyond whole tiles, fewer than a tile has
  int64_t steps = kAmxSteps;  // of a tile
};
// Tiles of columns of a block for a panel, and whether runs leave a rest.
int amx_columns(int64_t panel_width, const ir::Dim& rest);

// Where a block reads; strides in bytes.
struct AmxOperands {
  std::vector<llvm::Value*> a;      // a row of each tile of rows: the first
  llvm::Value* a_stride = nullptr;  // from a row to the next
  int64_t a_step = 0;               // from a tile of the run to the next; 0: they are neighbours
  llvm::Value* b = nullptr;
  int64_t b_stride = 0;           // from a step of the panel to the next
  llvm::Value* tiles = nullptr;   // of the run, whole ones
  llvm::Value* is_end = nullptr;  // whether the rest follows, if there is one; null: it does
  // With each tile of B so many lines are fetched, at a distance from where it begins.
  llvm::Value* prefetch_distance = nullptr;
  int prefetch_lines = 0;
  // For a panel that is read for so many blocks: each fetches a part of what comes so many bytes later.
  // `block`: the value of its number.
  void prefetch_b(Emitter& emitter, int64_t blocks, llvm::Value* block, int64_t distance);
};

// Emits what tiles do. Between configure() and release() nothing else may configure them.
class AmxTiles {
 public:
  AmxTiles(Emitter& emitter, AmxShape shape) : emitter_(emitter), shape_(std::move(shape)) {}

  // `memory`: 64 bytes of scratch.
  void configure(llvm::Value* memory);
  void release();

  // The sums of a block of so many tiles of rows, in memory: a tile of rows after another, each
  // of kAmxRows rows of shape.columns tiles of columns.
  int64_t row_bytes() const { return shape_.columns * kAmxRowBytes; }
  int64_t tile_bytes() const { return kAmxRows * row_bytes(); }
  void clear(int rows);
  void load(int rows, llvm::Value* from);
  void store(int rows, llvm::Value* to);
  // The same for tiles whose rows are elsewhere, so many bytes apart.
  void store(const std::vector<llvm::Value*>& places, int64_t stride);

  // Adds the products of a run, and returns where B goes on behind it (behind the rest, if it has one).
  llvm::Value* multiply(const AmxOperands& operands);

 private:
  struct Registers;
  struct Place {
    std::vector<llvm::Value*> a;
    llvm::Value* b = nullptr;
  };
  Registers registers(bool of_rest) const;
  int sum(int row, int column) const { return row * shape_.columns + column; }
  std::vector<llvm::Value*> places(int rows, llvm::Value* memory);
  void for_sums(const std::vector<llvm::Value*>& places, int64_t stride, llvm::Intrinsic::ID what);
  void add_products(const Registers& registers, const Place& at, const AmxOperands& operands);
  llvm::ConstantInt* tile(int number) {
    return emitter_.ir().getInt8(static_cast<uint8_t>(number));
  }

  Emitter& emitter_;
  AmxShape shape_;
};

}  // namespace kiln::cpu
