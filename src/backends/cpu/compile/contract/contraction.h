// What matmul, convolution and attention share around the micro-kernel: how rows are split in
// tiles, and how the sums of a tile become results.
#pragma once

#include <functional>

#include "backends/cpu/compile/contract/micro_kernel.h"
#include "backends/cpu/compile/emit/thread_work.h"

namespace kiln::cpu {

// An inclusive range of counts known at compile time.
struct CountRange {
  int64_t low = 0, high = 0;
};
CountRange range_of(const ir::Dim& dim);

// Part `part` of `parts` of equal size, give or take one.
struct Span {
  llvm::Value* begin = nullptr;
  llvm::Value* count = nullptr;
};
Span even_part(Emitter& emitter, llvm::Value* part, llvm::Value* parts, llvm::Value* count);
// The sizes of the parts when `count` is split in the fewest parts of at most `most`.
CountRange part_range(CountRange count, int64_t most);

// Splits `count` rows in the fewest tiles of at most `most`, as even as possible, and runs
// `body(first row, rows)` for each; the body is emitted once per size that can occur. `after(first
// row, rows)`, if any, is emitted once and runs after each tile.
struct RowTiles {
  llvm::Value* count = nullptr;
  CountRange range;
  int most = 1;
};
size_t count_sizes(const RowTiles& tiles);
void for_row_tiles(Emitter& emitter, const RowTiles& tiles,
                   const std::function<void(llvm::Value*, int)>& body,
                   const std::function<void(llvm::Value*, llvm::Value*)>& after);

// Where the sums of a contraction go.
struct Output {
  std::function<void(llvm::Value*)> bind_row;  // binds the indices that follow from the row
  ir::SymbolPtr column;
  llvm::Value* column_end = nullptr;  // columns from here on are not stored
  ir::Dim columns;                    // how many there are, in each run that ends at column_end
  DType sum = DType::F32;             // of the tile
  plan::BufferId buffer = -1;
  ir::Dim row_stride, column_stride;  // elements
  plan::Expr epilogue;
  llvm::Value* lane_slot = nullptr;  // scratch of a vector of results; null: behind the staged tile
};

// Those of a matrix product: what does not depend on how its columns are cut.
Output output_of(Emitter& emitter, const plan::MatMul& matmul);

// The element at zero of the last two indices of a view, for the batch that is bound.
llvm::Value* view_address(Emitter& emitter, const std::vector<plan::Loop>& batch,
                          const plan::View& view);

// Applies the epilogue to tiles and stores them. A cheap epilogue works on the accumulators; others
// take the tile from memory, row by row, so that their code exists once, for all sizes of tiles.
class TileWriter {
 public:
  // `staging` is scratch for one tile: staging_bytes(). `sizes` is the number of tile sizes that
  // are emitted.
  TileWriter(Emitter& emitter, Output output, llvm::Value* staging, size_t sizes);
  // Of sizes: whatever the epilogue, `finish` alone is called, for sums that are in `staging` already.
  static constexpr size_t kStaged = SIZE_MAX;

  // For tiles of `sum` whose results are stored as `result`: a tile, and a vector of results.
  static int64_t staging_bytes(const Target& target, DType sum, DType result);

  // The tile's sums, for columns first_column ...; `origin` is the address of the element at row 0
  // and column 0.
  void write(Tile tile, const Accumulators& sums, llvm::Value* origin, llvm::Value* first_row,
             llvm::Value* first_column);
  // After write: finishes `rows` rows. Emitted once per place that writes tiles, after all its
  // sizes.
  void finish(int vectors, llvm::Value* rows, llvm::Value* origin, llvm::Value* first_row,
              llvm::Value* first_column);

 private:
  // Applies the epilogue to one vector; `whole` if all of its columns exist.
  void write_vector(llvm::Value* sum, llvm::Value* origin, llvm::Value* row, llvm::Value* column,
                    bool whole);
  void store_lanes(llvm::Value* value, llvm::Value* address, llvm::Value* valid);
  DType result() const { return emitter_.program().buffers[output_.buffer].type.dtype; }
  int64_t sum_vector_bytes() const {
    return emitter_.target().lanes() * ElementFormat(output_.sum).bytes();
  }

  Emitter& emitter_;
  Output output_;
  llvm::Value* staging_;
  bool direct_ = true;
};

// The columns that one register tile takes of a packed panel `panel_width` wide.
struct TileWidth {
  int vectors = 1;
  int64_t columns = 16;
};
TileWidth tile_width(const Target& target, int64_t panel_width);
// The same where no tile has more than `most.rows` rows, up to kMostPanelRows: as much of a panel as fits the registers, because a panel that
// is walked part by part is not read in the order in which it lies.
constexpr int64_t kMostPanelRows = 4;
TileWidth tile_width(const Target& target, int64_t panel_width, Tile most);

// Runs `body(task, keys)` for each task of the call, with `count` keys. What a body returns are the
// keys that the thread's next one for this step gets, -1 for the first: they tell whether what the last
// task prepared can be used again. After reserve_keys(), and after scratch_bytes is known, to which their place is added.
using TaskBody = std::function<Emitter::Carried(llvm::Value* task, const Emitter::Carried& keys)>;
void for_tasks(Emitter& emitter, size_t count, const TaskBody& body);
// The same for the numbers begin ... end - 1, which stand for the tasks of the call.
struct Numbers {
  llvm::Value *begin = nullptr, *end = nullptr;
};
void for_tasks(Emitter& emitter, const Numbers& numbers, size_t count, const TaskBody& body);

// The opt of a size, at least 1: what blockings are chosen for.
int64_t positive_opt(const ir::Dim& dim);
// The least that a size may be, at least 1: enough tasks for all threads are wanted there too, as for one image
// where up to 32 may come. More of them cost little, since those of a block share what it prepared.
int64_t positive_least(const ir::Dim& dim);

// <lanes x i1>: true where first + lane < limit.
llvm::Value* mask_below(Emitter& emitter, llvm::Value* first, llvm::Value* limit);
// flat = index of the innermost loop + its extent * (...): binds the index of each loop.
void bind_flat(Emitter& emitter, const std::vector<plan::Loop>& loops, llvm::Value* flat);
llvm::Value* smaller(Emitter& emitter, llvm::Value* a, llvm::Value* b);
// if (condition) body().
void when(Emitter& emitter, llvm::Value* condition, const std::function<void()>& body);

// The width of packed panels for N columns: the best tile that wastes little on the last panel.
// Wide panels where there are many rows, because each panel reads all of them again; narrower ones
// have taller tiles, which read less of B.
int64_t panel_width(int64_t columns, int64_t rows);

// The most rows of a tile, when tiles split counts in this range. Run-time counts get shorter
// tiles: fewer sizes, less code.
int tile_rows(const Target& target, int vectors, CountRange counts, DType sum = DType::F32,
              Steps steps = Steps::Single);

}  // namespace kiln::cpu
