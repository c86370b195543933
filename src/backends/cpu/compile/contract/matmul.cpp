// Matrix products: batches x blocks of rows x groups of packed panels of B.
//
// A block of rows of A and a group of panels of B stay in the second-level cache together; inside a
// task the panel is the outer loop and the tiles of rows the inner one, with K whole. Tasks are
// ordered so that neighbours share their panels or, where that is what costs, their copies of rows.
#include <algorithm>
#include <optional>

#include "backends/cpu/compile/contract/amx_product.h"
#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/pack.h"
#include "ir/size_overflow.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// A second-level cache of 1 MiB, the smallest of the servers that have AVX-512, holds both and a
// quarter for what else a task touches.
constexpr int64_t kBlockBytes = 256 << 10;  // of A, per task
constexpr int64_t kGroupBytes = 512 << 10;  // of B, per task
// Of B for few rows, which meet it once: as little as is worth a task, so that many threads share it evenly.
constexpr int64_t kStreamBytes = 64 << 10;
// Reading a byte of a weight from memory takes as long as so many multiply-adds: 16 GB/s against 32 a cycle
// at 4 GHz would be 8, and several cores share what they read.
constexpr int64_t kMultiplyAddsPerByte = 4;
// A panel that was read for fewer rows than 48, four tiles of 12, would cost more than it computes;
// with more than 256 little is left to save.
constexpr int64_t kFewestBlockRows = 48, kMostBlockRows = 256;
// Enough for 64 threads to end within half a task of each other, where there is that much work; a task
// is no less than is worth a thread, 16'000 cycles against some hundred for taking it up.
constexpr int64_t kTasksWanted = 128;
constexpr int64_t kWorkPerTask = kMultiplyAddsPerThread;

// With AMX, whose machines have a second-level cache of 2 MiB.
constexpr int64_t kAmxBlockBytes = 512 << 10;
constexpr int64_t kAmxWorkPerTask = 4'000'000;

// Steps after which a sum of f32 goes on in another one, and is added to what there is: errors of one grow with its
// steps, 1.3e-5 of a sum of 200,000 numbers of one sign.
constexpr int64_t kLongRun = 16 << 10;

// Operands of fewer rows than this are widened as they are read; for more rows it is better to do so
// once, in a copy: that is a load, two operations and a store a vector, as much as reading it twice,
// and 16 rows are two tiles.
constexpr int64_t kFewRows = 16;

// From so many tiles on they fetch the panel after theirs, a few lines each.
constexpr int64_t kTilesThatShare = 4;

enum class BSource { Constant, InPlace, Scratch };

// Widths that divide N, best first, for a B that is read where it lies; 0 if none does.
int64_t dividing_width(int64_t columns) {
  for (int64_t width : {48, 32, 64, 16}) {
    if (columns % width == 0) return width;
  }
  return 0;
}

// How a product is cut in tasks.
struct Blocking {
  OperandFormat a, b;  // b: of what is read, packed if it is a constant
  Steps steps = Steps::Single;
  bool has_tiles = false;  // AMX multiplies the steps
  bool stages_a = false;   // to scratch, because a scalar of another format costs more than it does
  BSource source = BSource::Scratch;
  int64_t width = 16;  // of a panel
  ir::Dim panels;
  ir::Dim row_blocks;
  int64_t block_rows = 1;    // at most
  int64_t group_panels = 1;  // at most
  ir::Dim groups;
  ir::Dim batches = 1;

  // Of the panels that tiles read.
  OperandFormat tile_b() const {
    const bool packed = source == BSource::Scratch && steps == Steps::Single;
    return packed ? OperandFormat{b.sum, b.sum, b.sum} : b;
  }
  // Elements along k of a step.
  int64_t step() const { return elements_of(steps); }
  bool has_bytes() const { return a.sum == DType::I32; }

  // The tasks of a block of rows follow each other: its copy is made once. Otherwise those of a group
  // of panels do.
  bool by_block() const { return stages_a && source != BSource::Scratch; }
  // What a copy of A holds, and what tiles read of A.
  DType staged() const {
    return has_bytes() ? DType::U8 : steps == Steps::Pairs ? DType::BF16 : a.sum;
  }
  OperandFormat tile_a() const {
    return stages_a ? OperandFormat{staged(), staged(), staged()} : a;
  }
};

bool is_constant_matrix(const plan::Program& program, const plan::MatMul& matmul) {
  const plan::View& b = matmul.b;
  const plan::Buffer& buffer = program.buffers[b.buffer];
  return buffer.kind == plan::BufferKind::Constant && b.offset.is_constant() &&
         matmul.k.extent().is_constant() && matmul.n.extent().is_constant() &&
         std::all_of(b.strides.begin(), b.strides.end() - 2,
                     [](const ir::Dim& s) { return s.is_constant(0); }) &&
         b.strides[b.strides.size() - 2].is_constant() && b.strides.back().is_constant();
}

BSource choose_source(const plan::Program& program, const plan::MatMul& matmul) {
  if (is_constant_matrix(program, matmul)) return BSource::Constant;
  const ir::Dim& columns = matmul.n.extent();
  const plan::Formats& formats = matmul.formats;
  const OperandFormat format{program.buffers[matmul.b.buffer].type.dtype, formats.right,
                             formats.accumulator};
  if (formats.accumulator == DType::I32) return BSource::Scratch;
  const bool few_rows = positive_opt(matmul.m.extent()) < kFewRows;
  const bool reads_well = format.is_plain() || (format.widens() && few_rows);
  const bool in_place = reads_well && matmul.b.strides.back().is_constant(1) &&
                        columns.is_constant() && dividing_width(columns.constant()) != 0;
  return in_place ? BSource::InPlace : BSource::Scratch;
}

// Pairs where both operands are bf16 in memory, so that products are exact, and B is packed: at
// compile time in any case, in the run if the machine multiplies pairs.
Steps choose_steps(const Target& target, const Blocking& blocking) {
  if (blocking.has_bytes()) return byte_steps(target);
  const bool exact = blocking.a.memory == DType::BF16 && blocking.b.memory == DType::BF16 &&
                     blocking.a.widens() && blocking.b.widens() && blocking.a.sum == DType::F32;
  if (!exact || blocking.source == BSource::InPlace) return Steps::Single;
  if (target.has(Feature::Avx512Bf16)) return Steps::Pairs;
  return blocking.source == BSource::Constant ? Steps::WidenedPairs : Steps::Single;
}

// Whether tiles can read steps of A where it lies: nothing is between them or behind the last.
bool has_steps(const plan::MatMul& matmul, int64_t step) {
  return matmul.a.strides.back().is_constant(1) && ir::provably_divisible(matmul.k.extent(), step);
}

Blocking choose_blocking(const plan::Program& program, const plan::MatMul& matmul,
                         const Target& target) {
  Blocking blocking;
  const plan::Formats& formats = matmul.formats;
  blocking.source = choose_source(program, matmul);
  blocking.a = {program.buffers[matmul.a.buffer].type.dtype, formats.left, formats.accumulator};
  blocking.stages_a = !blocking.a.is_plain();
  blocking.b = {program.buffers[matmul.b.buffer].type.dtype, formats.right, formats.accumulator};
  if (blocking.source == BSource::Constant) blocking.b.memory = formats.weight;
  blocking.steps = choose_steps(target, blocking);
  if (blocking.steps == Steps::Pairs || blocking.has_bytes())
    blocking.stages_a = !has_steps(matmul, blocking.step());
  blocking.has_tiles = multiplies_tiles(target, blocking.steps, positive_opt(matmul.m.extent()),
                                        positive_opt(matmul.k.extent()) / blocking.step());
  const int64_t block_bytes = blocking.has_tiles ? kAmxBlockBytes : kBlockBytes;
  const int64_t work_per_task = blocking.has_tiles ? kAmxWorkPerTask : kWorkPerTask;
  const int64_t a_bytes = ElementFormat(blocking.tile_a().memory).bytes();
  const int64_t b_bytes = ElementFormat(blocking.tile_b().memory).bytes();
  const int64_t m = positive_opt(matmul.m.extent()), n = positive_opt(matmul.n.extent());
  const int64_t k = positive_opt(matmul.k.extent()), least_m = positive_least(matmul.m.extent());
  blocking.width = blocking.source == BSource::InPlace ? dividing_width(n) : panel_width(n, m);
  blocking.panels = ir::ceildiv(matmul.n.extent(), blocking.width);
  for (const plan::Loop& loop : matmul.batch) blocking.batches *= loop.extent();

  const int64_t panels = (n + blocking.width - 1) / blocking.width;
  blocking.block_rows = std::clamp(block_bytes / (a_bytes * k), kFewestBlockRows, kMostBlockRows);
  const bool streams_b = blocking.source == BSource::Constant && m < kFewRows;
  const int64_t group_bytes = streams_b ? kStreamBytes : kGroupBytes;
  blocking.group_panels =
      std::clamp<int64_t>(group_bytes / (b_bytes * k * blocking.width), 1, panels);
  auto tasks = [&] {
    return ir::saturating_product({positive_least(blocking.batches),
                                   (least_m + blocking.block_rows - 1) / blocking.block_rows,
                                   (panels + blocking.group_panels - 1) / blocking.group_panels});
  };
  auto work = [&] {
    return ir::saturating_product(
        {std::min(m, blocking.block_rows), k, std::min(n, blocking.group_panels * blocking.width)});
  };
  while (blocking.group_panels > 1 && tasks() < kTasksWanted && work() >= 2 * work_per_task) {
    blocking.group_panels = (blocking.group_panels + 1) / 2;
  }
  while (blocking.block_rows > kFewestBlockRows && tasks() < kTasksWanted &&
         work() >= 2 * work_per_task) {
    blocking.block_rows = std::max(kFewestBlockRows, blocking.block_rows / 2);
  }
  blocking.row_blocks = ir::ceildiv(matmul.m.extent(), blocking.block_rows);
  blocking.groups = ir::ceildiv(blocking.panels, blocking.group_panels);
  return blocking;
}

class MatMulEmitter {
 public:
  MatMulEmitter(Emitter& emitter, const plan::MatMul& matmul)
      : emitter_(emitter),
        ir_(emitter.ir()),
        matmul_(matmul),
        blocking_(choose_blocking(emitter.program(), matmul, emitter.target())),
        tiling_{{}, part_range(range_of(matmul.m.extent()), blocking_.block_rows)} {
    if (!blocking_.has_tiles) {
      choose_tiles();
      return;
    }
    amx_sizes_ = {blocking_.has_bytes(), tiling_.rows,
                  ir::ceildiv(matmul.k.extent(), blocking_.step()), blocking_.width};
    const int vectors = amx_sizes_.columns();
    tiling_.width = {vectors, vectors * kAmxColumns};
  }

  void run() {
    if (blocking_.steps == Steps::Pairs) take_denormals_as_zero(*emitter_.function());
    emitter_.reserve_keys();
    declare();
    hoist();
    if (blocking_.has_tiles) configure_tiles();
    for_tasks(emitter_, blocking_.stages_a ? 2 : 1,
              [&](Value* task, const Emitter::Carried& keys) { return emit_task(task, keys); });
    if (blocking_.has_tiles) amx_->release();
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }

  DType dtype_of(const plan::View& view) const {
    return emitter_.program().buffers[view.buffer].type.dtype;
  }

  // Scratch: the staged tile, totals of long runs, then the packed panels of a group, then the rows of a block of A.
  void declare() {
    KernelInterface& interface = emitter_.interface();
    interface.tasks = blocking_.batches * blocking_.groups * blocking_.row_blocks;
    interface.task_writes[matmul_.out.buffer] =
        blocking_.block_rows * blocking_.group_panels * blocking_.width;
    int64_t rows = positive_opt(matmul_.m.extent());
    if (blocking_.source == BSource::Constant)
      rows = std::max(rows, b_bytes() * kMultiplyAddsPerByte);
    const int64_t work =
        ir::saturating_product({rows, positive_opt(matmul_.n.extent()),
                                positive_opt(matmul_.k.extent()), positive_opt(blocking_.batches)});
    const int64_t worth = kMultiplyAddsPerThread * (blocking_.has_tiles ? kAmxWorkFactor : 1);
    interface.min_tasks_per_thread = tasks_per_thread(worth, work / positive_opt(interface.tasks));
    staging_ = emitter_.scratch();
    int64_t staging = TileWriter::staging_bytes(emitter_.target(), matmul_.formats.accumulator,
                                                dtype_of(matmul_.out));
    if (blocking_.has_tiles) staging = amx_sizes_.scratch_bytes();
    if (has_long_runs()) {
      totals_ = byte_offset(emitter_, emitter_.scratch(), i64(staging));
      staging += int64_t{emitter_.target().registers} * emitter_.target().vector_bits / 8;
    }
    packed_ = byte_offset(emitter_, emitter_.scratch(), i64(staging));
    ir::Dim scratch = staging;
    if (blocking_.source == BSource::Scratch) {
      scratch += packed_bytes() * blocking_.group_panels;
    }
    if (blocking_.stages_a) {
      staged_.to = byte_offset(emitter_, emitter_.scratch(), emitter_.value_of(scratch));
      const ir::Dim row = staged_bytes();
      staged_.bytes = emitter_.value_of(row);
      staged_.to_even = is_odd() && !blocking_.has_bytes();  // zero weights meet whatever there is
      scratch += row * ir::min(matmul_.m.extent(), blocking_.block_rows);
    }
    interface.scratch_bytes = ir::max(interface.scratch_bytes, scratch);
  }

  // Values that all tasks share.
  void hoist() {
    m_ = emitter_.value_of(matmul_.m.extent());
    n_ = emitter_.value_of(matmul_.n.extent());
    k_ = emitter_.value_of(matmul_.k.extent());
    const ir::Dim steps = ir::ceildiv(matmul_.k.extent(), blocking_.step());
    steps_ = emitter_.value_of(steps);
    row_blocks_ = emitter_.value_of(blocking_.row_blocks);
    groups_ = emitter_.value_of(blocking_.groups);
    panels_ = emitter_.value_of(blocking_.panels);
    const ir::Dim step = blocking_.width * column_bytes();
    // Of a vector, in panels that are whole numbers of 32 bytes.
    const int64_t alignment = std::min<int64_t>(32, emitter_.target().lanes() * column_bytes());
    switch (blocking_.source) {
      case BSource::Constant: {
        ConstantMatrix matrix;
        matrix.offset = matmul_.b.offset.constant();
        matrix.k_stride = matmul_.b.strides[matmul_.b.strides.size() - 2].constant();
        matrix.n_stride = matmul_.b.strides.back().constant();
        matrix.k = matmul_.k.extent().constant();
        matrix.n = matmul_.n.extent().constant();
        matrix.weight = matmul_.formats.weight;
        matrix.step = blocking_.step();
        b_ = emitter_.buffer(
            pack_constant(emitter_.constants(), matmul_.b.buffer, matrix, blocking_.width));
        panel_bytes_ = emitter_.value_of(steps * step);
        b_step_ = emitter_.value_of(step);
        b_alignment_ = alignment;
        break;
      }
      case BSource::InPlace:
        panel_bytes_ = emitter_.value_of(step);
        b_step_ = emitter_.value_of(matmul_.b.strides[matmul_.b.strides.size() - 2] * b_bytes());
        break;
      case BSource::Scratch:
        panel_bytes_ = emitter_.value_of(packed_bytes());
        b_step_ = emitter_.value_of(step);
        b_alignment_ = alignment;
        break;
    }
  }

  Emitter::Carried emit_task(Value* task, const Emitter::Carried& keys) {
    const bool by_block = blocking_.by_block();
    Value* inner = by_block ? groups_ : row_blocks_;
    Value* outer = by_block ? row_blocks_ : groups_;
    Value* rest = ir_.CreateUDiv(task, inner);  // the batch, and the block or the group
    Value* last = ir_.CreateSub(task, ir_.CreateMul(rest, inner));
    Value* batch = ir_.CreateUDiv(rest, outer);
    Value* first = ir_.CreateSub(rest, ir_.CreateMul(batch, outer));
    Value *block = by_block ? first : last, *group = by_block ? last : first;
    bind_flat(emitter_, matmul_.batch, batch);
    Value* first_panel = ir_.CreateMul(group, i64(blocking_.group_panels));
    Value* last_panel =
        smaller(emitter_, ir_.CreateAdd(first_panel, i64(blocking_.group_panels)), panels_);
    Value* panels = panels_address(rest, keys[0], first_panel, last_panel);
    Span rows = even_part(emitter_, block, row_blocks_, m_);
    Emitter::Carried next{rest};
    if (blocking_.stages_a) {
      next.push_back(ir_.CreateAdd(ir_.CreateMul(batch, row_blocks_), block));
      when(emitter_, ir_.CreateICmpNE(next[1], keys[1]), [&] { stage_rows(rows); });
    }
    const auto emit = [&](const Tiling& tiling) {
      emit_panels(tiling, rows, {panels, first_panel, last_panel});
    };
    if (!single_row_) {
      emit(tiling_);
    } else {
      Value* is_single = ir_.CreateICmpEQ(rows.count, i64(1));
      when(emitter_, is_single, [&] { emit(*single_row_); });
      when(emitter_, ir_.CreateNot(is_single), [&] { emit(tiling_); });
    }
    return next;
  }

  // How rows and columns are cut in tiles.
  struct Tiling {
    TileWidth width;
    CountRange rows;
  };

  // Rows of a number that is known are one tile if they are few. One that is not known may be 1: that row has
  // code of its own where its tiles are wider.
  void choose_tiles() {
    Tile most{static_cast<int>(std::clamp<int64_t>(tiling_.rows.high, 1, kMostPanelRows)), 1,
              matmul_.formats.accumulator, blocking_.steps};
    const bool is_few = tiling_.rows.high <= kMostPanelRows;
    const Target& target = emitter_.target();
    tiling_.width =
        is_few ? tile_width(target, blocking_.width, most) : tile_width(target, blocking_.width);
    most.rows = 1;
    const TileWidth wide = tile_width(target, blocking_.width, most);
    if (tiling_.rows.low > 1 || tiling_.rows.high < 1 || wide.vectors == tiling_.width.vectors)
      return;
    single_row_ = Tiling{wide, {1, 1}};
    tiling_.rows.low = 2;
  }

  struct PanelRange {
    Value *base = nullptr, *first = nullptr, *last = nullptr;
  };

  void emit_panels(const Tiling& tiling, Span rows, const PanelRange& panels) {
    emitter_.loop(panels.first, panels.last, 1, [&](Value* panel) {
      Value* b = byte_offset(emitter_, panels.base,
                             ir_.CreateMul(ir_.CreateSub(panel, panels.first), panel_bytes_));
      Value* column = ir_.CreateMul(panel, i64(blocking_.width));
      if (tiling.width.columns == blocking_.width)
        return emit_strip(tiling, rows, {b, column, b, i64(0)});
      Value* end = smaller(emitter_, i64(blocking_.width), ir_.CreateSub(n_, column));
      emitter_.loop(i64(0), end, tiling.width.columns, [&](Value* strip) {
        Value* at = byte_offset(emitter_, b, ir_.CreateMul(strip, i64(column_bytes())));
        emit_strip(tiling, rows, {at, ir_.CreateAdd(column, strip), b, strip});
      });
    });
  }

  int64_t b_bytes() const { return ElementFormat(blocking_.tile_b().memory).bytes(); }
  // Of a step of one column.
  int64_t column_bytes() const { return b_bytes() * blocking_.step(); }
  bool is_odd() const { return !ir::provably_divisible(matmul_.k.extent(), blocking_.step()); }
  ir::Dim packed_bytes() const {
    const ir::Dim& k = matmul_.k.extent();
    if (blocking_.has_bytes()) return packed_panel_bytes(k, blocking_.width, DType::I8);
    return blocking_.steps == Steps::Pairs
               ? packed_pair_bytes(k, blocking_.width)
               : packed_panel_bytes(k, blocking_.width, blocking_.b.sum);
  }
  ir::Dim staged_bytes() const {
    const ir::Dim& k = matmul_.k.extent();
    return staged_row_bytes(is_odd() ? k + 1 : k, blocking_.staged());
  }

  // The rows of a block of A, in the type that tiles read.
  void stage_rows(Span rows) {
    const auto& strides = matmul_.a.strides;
    const int64_t size = ElementFormat(blocking_.a.memory).bytes();
    Value* row_stride = emitter_.value_of(strides[strides.size() - 2]);
    Value* first = ir_.CreateMul(ir_.CreateMul(rows.begin, row_stride), i64(size));
    RuntimeRun row;
    row.from = byte_offset(emitter_, address(matmul_.a), first);
    row.stride = emitter_.value_of(strides.back());
    row.count = k_;
    row.format = blocking_.a;
    row.format.sum = blocking_.staged();
    emit_stage(emitter_, row, row_stride, rows.count, staged_);
  }

  // Where tiles read rows of A: the first row of all or, staged, of the block; bytes between rows and
  // between the steps of one.
  struct ARows {
    Value* base = nullptr;
    ir::Dim bytes, step;
  };
  ARows a_rows() {
    const int64_t size = ElementFormat(blocking_.tile_a().memory).bytes();
    const ir::Dim step = size * blocking_.step();
    if (blocking_.stages_a) return {staged_.to, staged_bytes(), step};
    const auto& strides = matmul_.a.strides;
    Value* base = address(matmul_.a);
    return {base, strides[strides.size() - 2] * size, strides.back() * step};
  }

  void configure_tiles() {
    Value* blocks = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::umax, row_blocks_, i64(1));
    amx_.emplace(emitter_, amx_sizes_, staging_);
    amx_->configure(ir_.CreateUDiv(m_, blocks));
  }

  // Some columns of a panel.
  struct Strip {
    Value *b = nullptr, *column = nullptr;
    Value *panel = nullptr,
          *first = nullptr;  // what b points to, and its first of the panel's columns
  };

  // Where a weight may come from memory, the tiles of a panel fetch the next one in turns: a tile alone would wait for
  // what it reads first. `tiles` is how many there are for a strip at least.
  void share_next_panel(TileOperands& operands, const Tiling& tiling, Strip strip, Value* tile,
                        int64_t tiles) {
    const int64_t shares = tiles * (blocking_.width / tiling.width.columns);
    operands.next_bytes = (blocking_.width * column_bytes() + shares - 1) / shares;
    Value* share =
        ir_.CreateMul(ir_.CreateUDiv(strip.first, i64(tiling.width.columns)), i64(tiles));
    Value* bytes = ir_.CreateMul(steps_, i64(operands.next_bytes));
    Value* offset = ir_.CreateMul(ir_.CreateAdd(share, tile), bytes);
    operands.next_b = byte_offset(emitter_, strip.panel, ir_.CreateAdd(panel_bytes_, offset));
  }

  void emit_tile_strip(Span rows, Strip columns) {
    const ARows a = a_rows();
    AmxStrip strip;
    strip.rows = rows;
    strip.a_stride = emitter_.value_of(a.bytes);
    Value* first = blocking_.stages_a ? i64(0) : rows.begin;
    strip.a = byte_offset(emitter_, a.base, ir_.CreateMul(first, strip.a_stride));
    strip.b = columns.b;
    strip.column = columns.column;
    if (blocking_.source == BSource::Constant && tiling_.width.columns == blocking_.width)
      strip.rows_at_opt = std::min(positive_opt(matmul_.m.extent()), blocking_.block_rows);
    amx_->multiply(strip, output(), address(matmul_.out));
  }

  bool has_long_runs() const {
    return matmul_.formats.accumulator == DType::F32 && !blocking_.has_tiles &&
           ir::ceildiv(matmul_.k.extent(), blocking_.step()).upper_bound() > kLongRun;
  }

  // Runs that are added up; the totals are in scratch while registers hold the sums of a run.
  Accumulators multiply_long_run(Tile tile, const TileOperands& operands) {
    const ElementFormat format(tile.sum);
    const int lanes = emitter_.target().lanes();
    const Accumulators zeros = zero_tile(emitter_, tile);
    const auto place = [&](size_t i) {
      return byte_offset(emitter_, totals_, i64(static_cast<int64_t>(i) * lanes * format.bytes()));
    };
    const auto run = [&](Value* first, Value* a, Value* b) {
      Value* steps = smaller(emitter_, ir_.CreateSub(steps_, first), i64(kLongRun));
      const Run done = multiply_run(emitter_, tile, operands, steps, {a, b, zeros});
      Emitter::Carried values{done.a, done.b};
      values.insert(values.end(), done.sums.begin(), done.sums.end());
      return values;
    };
    const Emitter::Carried first = run(i64(0), operands.a, operands.b);
    const Emitter::Carried all = emitter_.loop_carrying(
        i64(kLongRun), steps_, kLongRun, first, [&](Value* step, const Emitter::Carried& carried) {
          for (size_t i = 0; i < zeros.size(); ++i) format.store(ir_, carried[i + 2], place(i));
          Emitter::Carried next = run(step, carried[0], carried[1]);
          for (size_t i = 0; i < zeros.size(); ++i)
            next[i + 2] = ir_.CreateFAdd(format.load(ir_, place(i), lanes), next[i + 2]);
          return next;
        });
    return {all.begin() + 2, all.end()};
  }

  // All row tiles of one strip of columns.
  void emit_strip(const Tiling& tiling, Span rows, Strip strip) {
    if (blocking_.has_tiles) return emit_tile_strip(rows, strip);
    const int vectors = tiling.width.vectors;
    const DType sum = matmul_.formats.accumulator;
    const ARows a = a_rows();
    Value* origin = address(matmul_.out);
    const int most = tile_rows(emitter_.target(), vectors, tiling.rows, sum, blocking_.steps);
    RowTiles tiles{rows.count, tiling.rows, most};
    TileWriter writer(emitter_, output(), staging_, count_sizes(tiles));
    const int64_t least_tiles = (tiling.rows.low + most - 1) / most;
    auto body = [&](Value* first, int count) {
      Tile tile{count, vectors, sum, blocking_.steps};
      Value* row = ir_.CreateAdd(rows.begin, first);
      TileOperands operands;
      Value* a_row = blocking_.stages_a ? first : row;
      operands.a = byte_offset(emitter_, a.base, ir_.CreateMul(a_row, emitter_.value_of(a.bytes)));
      for (int r = 0; r < count; ++r)
        operands.rows.push_back(emitter_.value_of(a.bytes * int64_t{r}));
      operands.a_step = emitter_.value_of(a.step);
      operands.a_format = blocking_.tile_a();
      operands.b_format = blocking_.tile_b();
      operands.b = strip.b;
      operands.b_step = b_step_;
      operands.b_alignment = b_alignment_;
      operands.prefetch_b = blocking_.source == BSource::Constant;
      // A tile that widens pairs has no registers left for it.
      if (operands.prefetch_b && least_tiles >= kTilesThatShare &&
          blocking_.steps != Steps::WidenedPairs)
        share_next_panel(operands, tiling, strip, ir_.CreateUDiv(first, i64(count)), least_tiles);
      const Accumulators sums = has_long_runs() ? multiply_long_run(tile, operands)
                                                : multiply_run(emitter_, tile, operands, steps_);
      writer.write(tile, sums, origin, row, strip.column);
    };
    auto after = [&](Value* first, Value* count) {
      writer.finish(vectors, count, origin, ir_.CreateAdd(rows.begin, first), strip.column);
    };
    for_row_tiles(emitter_, tiles, body, after);
  }

  Output output() {
    Output output = output_of(emitter_, matmul_);
    output.column_end = n_;
    return output;
  }

  Value* address(const plan::View& view) { return view_address(emitter_, matmul_.batch, view); }

  // The first panel of the group; packs it unless the last task has done so.
  Value* panels_address(Value* group_key, Value* packed_key, Value* first, Value* last) {
    if (blocking_.source == BSource::Constant)
      return byte_offset(emitter_, b_, ir_.CreateMul(first, panel_bytes_));
    Value* base = address(matmul_.b);
    if (blocking_.source == BSource::InPlace)
      return byte_offset(emitter_, base, ir_.CreateMul(first, panel_bytes_));
    RuntimeMatrix matrix;
    matrix.base = base;
    matrix.k_stride = emitter_.value_of(matmul_.b.strides[matmul_.b.strides.size() - 2]);
    matrix.n_stride = emitter_.value_of(matmul_.b.strides.back());
    matrix.k = k_;
    matrix.n = n_;
    matrix.format = blocking_.b;
    if (blocking_.has_bytes()) matrix.format.sum = DType::I8;  // packed as they are
    when(emitter_, ir_.CreateICmpNE(group_key, packed_key), [&] {
      emit_pack(emitter_, matrix, first, last,
                {packed_, panel_bytes_, blocking_.width, blocking_.step()});
    });
    return packed_;
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::MatMul& matmul_;
  Blocking blocking_;
  Tiling tiling_;
  std::optional<Tiling> single_row_;
  Value *m_ = nullptr, *n_ = nullptr, *k_ = nullptr, *steps_ = nullptr;
  Value *row_blocks_ = nullptr, *groups_ = nullptr, *panels_ = nullptr;
  Value *staging_ = nullptr, *packed_ = nullptr, *totals_ = nullptr;
  Value *b_ = nullptr, *b_step_ = nullptr, *panel_bytes_ = nullptr;
  int64_t b_alignment_ = 0;
  StagedRows staged_;
  AmxSizes amx_sizes_;
  std::optional<AmxProduct> amx_;
};

}  // namespace

void emit_matmul(Emitter& emitter, const plan::MatMul& matmul) {
  if (matmul.groups) return emit_group_matmul(emitter, matmul);
  MatMulEmitter(emitter, matmul).run();
}

bool multiplies_pairs(const plan::Program& program, const plan::MatMul& matmul,
                      const Target& target) {
  return !matmul.groups && choose_blocking(program, matmul, target).steps == Steps::Pairs;
}

bool multiplies_tiles(const plan::Program& program, const plan::MatMul& matmul,
                      const Target& target) {
  if (matmul.groups) return group_multiplies_tiles(program, matmul, target);
  return choose_blocking(program, matmul, target).has_tiles;
}

}  // namespace kiln::cpu
