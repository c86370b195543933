// Matrix products: batches x blocks of rows x groups of packed panels of B.
//
// A block of rows of A and a group of panels of B stay in the second-level cache together; inside a
// task the panel is the outer loop and the tiles of rows the inner one, with K whole. Tasks are
// ordered so that neighbours share their panels.
#include <algorithm>

#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/pack.h"
#include "ir/size_overflow.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr int64_t kBlockBytes = 256 << 10;  // of A, per task
constexpr int64_t kGroupBytes = 512 << 10;  // of B, per task
constexpr int64_t kFewestBlockRows = 48, kMostBlockRows = 256;
constexpr int64_t kTasksWanted = 128;
constexpr int64_t kWorkPerTask = 2'000'000;  // multiply-adds: enough to be worth a task

enum class BSource { Constant, InPlace, Scratch };

// Widths that divide N, best first, for a B that is read where it lies; 0 if none does.
int64_t dividing_width(int64_t columns) {
  for (int64_t width : {48, 32, 64, 16}) {
    if (columns % width == 0) return width;
  }
  return 0;
}

// How a product is cut in tasks; the same for every target.
struct Blocking {
  BSource source = BSource::Scratch;
  int64_t width = 16;  // of a panel
  ir::Dim panels;
  ir::Dim row_blocks;
  int64_t block_rows = 1;    // at most
  int64_t group_panels = 1;  // at most
  ir::Dim groups;
  ir::Dim batches = 1;
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
  const bool in_place = program.buffers[matmul.b.buffer].type.dtype == DType::F32 &&
                        matmul.b.strides.back().is_constant(1) && columns.is_constant() &&
                        dividing_width(columns.constant()) != 0;
  return in_place ? BSource::InPlace : BSource::Scratch;
}

Blocking choose_blocking(const plan::Program& program, const plan::MatMul& matmul) {
  Blocking blocking;
  blocking.source = choose_source(program, matmul);
  const int64_t m = positive_opt(matmul.m.extent()), n = positive_opt(matmul.n.extent());
  const int64_t k = positive_opt(matmul.k.extent());
  blocking.width = blocking.source == BSource::InPlace ? dividing_width(n) : panel_width(n, m);
  blocking.panels = ir::ceildiv(matmul.n.extent(), blocking.width);
  for (const plan::Loop& loop : matmul.batch) blocking.batches *= loop.extent();

  const int64_t panels = (n + blocking.width - 1) / blocking.width;
  blocking.block_rows = std::clamp(kBlockBytes / (4 * k), kFewestBlockRows, kMostBlockRows);
  blocking.group_panels = std::clamp<int64_t>(kGroupBytes / (4 * k * blocking.width), 1, panels);
  auto tasks = [&] {
    return ir::saturating_product({positive_opt(blocking.batches),
                                   (m + blocking.block_rows - 1) / blocking.block_rows,
                                   (panels + blocking.group_panels - 1) / blocking.group_panels});
  };
  auto work = [&] {
    return ir::saturating_product(
        {std::min(m, blocking.block_rows), k, std::min(n, blocking.group_panels * blocking.width)});
  };
  while (blocking.group_panels > 1 && tasks() < kTasksWanted && work() >= 2 * kWorkPerTask) {
    blocking.group_panels = (blocking.group_panels + 1) / 2;
  }
  while (blocking.block_rows > kFewestBlockRows && tasks() < kTasksWanted &&
         work() >= 2 * kWorkPerTask) {
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
        blocking_(choose_blocking(emitter.program(), matmul)),
        tile_(tile_width(emitter.target(), blocking_.width)),
        rows_(part_range(range_of(matmul.m.extent()), blocking_.block_rows)) {}

  void run() {
    declare();
    hoist();
    for_tasks(emitter_, [&](Value* task, Value* key) { return emit_task(task, key); });
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }

  DType dtype_of(const plan::View& view) const {
    return emitter_.program().buffers[view.buffer].type.dtype;
  }

  // Scratch: the staged tile, then the packed panels of a group.
  void declare() {
    KernelInterface& interface = emitter_.interface();
    interface.tasks = blocking_.batches * blocking_.groups * blocking_.row_blocks;
    interface.task_writes[matmul_.out.buffer] =
        blocking_.block_rows * blocking_.group_panels * blocking_.width;
    const int64_t work =
        ir::saturating_product({positive_opt(matmul_.m.extent()), positive_opt(matmul_.n.extent()),
                                positive_opt(matmul_.k.extent()), positive_opt(blocking_.batches)});
    interface.min_tasks_per_thread = min_tasks_per_thread(work / positive_opt(interface.tasks));
    staging_ = emitter_.scratch();
    const int64_t staging = TileWriter::staging_bytes(emitter_.target());
    packed_ = byte_offset(emitter_, emitter_.scratch(), i64(staging));
    ir::Dim scratch = staging;
    if (blocking_.source == BSource::Scratch) {
      scratch += packed_panel_bytes(matmul_.k.extent(), blocking_.width) * blocking_.group_panels;
    }
    interface.scratch_bytes = ir::max(interface.scratch_bytes, scratch);
  }

  // Values that all tasks share.
  void hoist() {
    m_ = emitter_.value_of(matmul_.m.extent());
    n_ = emitter_.value_of(matmul_.n.extent());
    k_ = emitter_.value_of(matmul_.k.extent());
    row_blocks_ = emitter_.value_of(blocking_.row_blocks);
    groups_ = emitter_.value_of(blocking_.groups);
    panels_ = emitter_.value_of(blocking_.panels);
    const ir::Dim step = blocking_.width * int64_t{4};
    switch (blocking_.source) {
      case BSource::Constant: {
        ConstantMatrix matrix;
        matrix.offset = matmul_.b.offset.constant();
        matrix.k_stride = matmul_.b.strides[matmul_.b.strides.size() - 2].constant();
        matrix.n_stride = matmul_.b.strides.back().constant();
        matrix.k = matmul_.k.extent().constant();
        matrix.n = matmul_.n.extent().constant();
        b_ = emitter_.buffer(
            pack_constant(emitter_.constants(), matmul_.b.buffer, matrix, blocking_.width));
        panel_bytes_ = emitter_.value_of(matmul_.k.extent() * step);
        b_step_ = emitter_.value_of(step);
        b_alignment_ = 32;
        break;
      }
      case BSource::InPlace:
        panel_bytes_ = emitter_.value_of(step);
        b_step_ = emitter_.value_of(matmul_.b.strides[matmul_.b.strides.size() - 2] * 4);
        break;
      case BSource::Scratch:
        panel_bytes_ = emitter_.value_of(packed_panel_bytes(matmul_.k.extent(), blocking_.width));
        b_step_ = emitter_.value_of(step);
        b_alignment_ = 32;
        break;
    }
  }

  Value* emit_task(Value* task, Value* packed_task) {
    Value* rest = ir_.CreateUDiv(task, row_blocks_);  // (batch, group)
    Value* block = ir_.CreateSub(task, ir_.CreateMul(rest, row_blocks_));
    Value* batch = ir_.CreateUDiv(rest, groups_);
    Value* group = ir_.CreateSub(rest, ir_.CreateMul(batch, groups_));
    bind_flat(emitter_, matmul_.batch, batch);
    Value* first_panel = ir_.CreateMul(group, i64(blocking_.group_panels));
    Value* last_panel =
        smaller(emitter_, ir_.CreateAdd(first_panel, i64(blocking_.group_panels)), panels_);
    Value* panels = panels_address(rest, packed_task, first_panel, last_panel);
    Span rows = even_part(emitter_, block, row_blocks_, m_);
    emitter_.loop(first_panel, last_panel, 1, [&](Value* panel) {
      Value* b = byte_offset(emitter_, panels,
                             ir_.CreateMul(ir_.CreateSub(panel, first_panel), panel_bytes_));
      Value* column = ir_.CreateMul(panel, i64(blocking_.width));
      if (tile_.columns == blocking_.width) {
        emit_strip(rows, b, column);
        return;
      }
      Value* end = smaller(emitter_, i64(blocking_.width), ir_.CreateSub(n_, column));
      emitter_.loop(i64(0), end, tile_.columns, [&](Value* strip) {
        emit_strip(rows, byte_offset(emitter_, b, ir_.CreateMul(strip, i64(4))),
                   ir_.CreateAdd(column, strip));
      });
    });
    return rest;
  }

  // All row tiles of one strip of columns.
  void emit_strip(Span rows, Value* b, Value* column) {
    Value* a = view_address(matmul_.a);
    Value* origin = view_address(matmul_.out);
    const auto a_size = static_cast<int64_t>(dtype_size(dtype_of(matmul_.a)));
    const ir::Dim row_bytes = matmul_.a.strides[matmul_.a.strides.size() - 2] * a_size;
    RowTiles tiles{rows.count, rows_, tile_rows(emitter_.target(), tile_.vectors, rows_)};
    TileWriter writer(emitter_, output(), staging_, count_sizes(tiles));
    auto body = [&](Value* first, int count) {
      Tile tile{count, tile_.vectors};
      Value* row = ir_.CreateAdd(rows.begin, first);
      TileOperands operands;
      operands.a = byte_offset(emitter_, a, ir_.CreateMul(row, emitter_.value_of(row_bytes)));
      for (int r = 0; r < count; ++r)
        operands.rows.push_back(emitter_.value_of(row_bytes * int64_t{r}));
      operands.a_step = emitter_.value_of(matmul_.a.strides.back() * a_size);
      operands.a_dtype = dtype_of(matmul_.a);
      operands.b = b;
      operands.b_step = b_step_;
      operands.b_alignment = b_alignment_;
      operands.prefetch_b = blocking_.source == BSource::Constant;
      Accumulators sums = multiply_run(emitter_, tile, operands, k_);
      writer.write(tile, sums, origin, row, column);
    };
    auto after = [&](Value* first, Value* count) {
      writer.finish(tile_.vectors, count, origin, ir_.CreateAdd(rows.begin, first), column);
    };
    for_row_tiles(emitter_, tiles, body, after);
  }

  Output output() {
    const auto& strides = matmul_.out.strides;
    Output output;
    output.bind_row = [this](Value* row) { emitter_.bind(matmul_.m.index, row); };
    output.column = matmul_.n.index;
    output.column_end = n_;
    output.columns = matmul_.n.extent();
    output.buffer = matmul_.out.buffer;
    output.row_stride = strides[strides.size() - 2];
    output.column_stride = strides.back();
    output.epilogue = matmul_.epilogue;
    return output;
  }

  // The element at zero of the last two indices, for the batch that is bound.
  Value* view_address(const plan::View& view) {
    Value* offset = emitter_.value_of(view.offset);
    for (size_t i = 0; i < matmul_.batch.size(); ++i) {
      Value* index = emitter_.value_of(ir::Dim(matmul_.batch[i].index));
      offset = ir_.CreateAdd(offset, ir_.CreateMul(index, emitter_.value_of(view.strides[i])));
    }
    const auto size = static_cast<int64_t>(dtype_size(dtype_of(view)));
    return byte_offset(emitter_, emitter_.buffer(view.buffer), ir_.CreateMul(offset, i64(size)));
  }

  // The first panel of the group; packs it unless the last task has done so.
  Value* panels_address(Value* group_key, Value* packed_key, Value* first, Value* last) {
    if (blocking_.source == BSource::Constant)
      return byte_offset(emitter_, b_, ir_.CreateMul(first, panel_bytes_));
    Value* base = view_address(matmul_.b);
    if (blocking_.source == BSource::InPlace)
      return byte_offset(emitter_, base, ir_.CreateMul(first, panel_bytes_));
    RuntimeMatrix matrix;
    matrix.base = base;
    matrix.k_stride = emitter_.value_of(matmul_.b.strides[matmul_.b.strides.size() - 2]);
    matrix.n_stride = emitter_.value_of(matmul_.b.strides.back());
    matrix.k = k_;
    matrix.n = n_;
    matrix.dtype = dtype_of(matmul_.b);
    when(emitter_, ir_.CreateICmpNE(group_key, packed_key), [&] {
      emit_pack(emitter_, matrix, first, last, {packed_, panel_bytes_, blocking_.width});
    });
    return packed_;
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::MatMul& matmul_;
  Blocking blocking_;
  TileWidth tile_;
  CountRange rows_;
  Value *m_ = nullptr, *n_ = nullptr, *k_ = nullptr;
  Value *row_blocks_ = nullptr, *groups_ = nullptr, *panels_ = nullptr;
  Value *staging_ = nullptr, *packed_ = nullptr;
  Value *b_ = nullptr, *b_step_ = nullptr, *panel_bytes_ = nullptr;
  int b_alignment_ = 4;
};

}  // namespace

void emit_matmul(Emitter& emitter, const plan::MatMul& matmul) {
  MatMulEmitter(emitter, matmul).run();
}

}  // namespace kiln::cpu
