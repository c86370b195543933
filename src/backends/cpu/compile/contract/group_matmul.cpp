// Matrix products with a weight of integers that has scales for groups along k (plan::Groups): batches x blocks of
// rows x groups of panels.
//
// Few rows multiply the packed panels as they are, so that the weight is read once in its 4 or 8 bits; a single one
// multiplies those of 4 bits in integers (group_digits.h). For more
// rows a task unpacks its panels to scratch, where they stay in the second-level cache, and goes on as with
// any weight: of f32, or of bf16 for tiles (AMX) where A is bf16. Where the number of rows is known in the run alone,
// the code has both.
#include <algorithm>

#include "backends/cpu/compile/contract/amx_product.h"
#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/group_digits.h"
#include "backends/cpu/compile/contract/group_lookup.h"
#include "backends/cpu/compile/contract/pack.h"
#include "ir/size_overflow.h"
#include "support/aligned_buffer.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// Unpacking an element costs as much as multiplying it in four rows, and tiles of few rows take an element apart
// once for each tile.
constexpr int64_t kDirectRows = 8;
// As in matmul.cpp.
constexpr int64_t kBlockBytes = 256 << 10;
constexpr int64_t kAmxBlockBytes = 512 << 10;
constexpr int64_t kFewestBlockRows = 48, kMostBlockRows = 256;
// Packed bytes of a task: some microseconds of reading, and eight times as much unpacked is half of a
// second-level cache.
constexpr int64_t kTaskBytes = 32 << 10;
// Reading and taking an element apart costs as much as so many multiply-adds.
constexpr int64_t kElementCost = 4;

GroupFormat format_of(const plan::Program& program, const plan::MatMul& matmul) {
  const plan::Groups& groups = *matmul.groups;
  GroupFormat format;
  format.k = matmul.k.extent().constant();
  format.size = groups.size;
  format.bits = groups.bits;
  format.scale = program.buffers[groups.scales.buffer].type.dtype;
  format.has_zeros = groups.zeros.has_value();
  return format;
}

class GroupMatMulEmitter {
 public:
  GroupMatMulEmitter(Emitter& emitter, const plan::MatMul& matmul)
      : emitter_(emitter), ir_(emitter.ir()), matmul_(matmul), groups_(*matmul.groups) {
    format_ = format_of(emitter.program(), matmul);
    has_tiles_ = group_multiplies_tiles(emitter.program(), matmul, emitter.target());
    const CountRange rows = range_of(matmul.m.extent());
    may_be_direct_ = rows.low <= kDirectRows;
    may_unpack_ = rows.high > kDirectRows;
    direct_rows_ = {rows.low, std::min(rows.high, kDirectRows)};
    const int64_t fitting =
        has_tiles_ ? kAmxBlockBytes / (2 * format_.k) : kBlockBytes / (4 * format_.k);
    block_rows_ = std::clamp(fitting, kFewestBlockRows, kMostBlockRows);
    unpacked_rows_ = part_range({std::max(rows.low, kDirectRows + 1), rows.high}, block_rows_);
    panels_ = (columns() + kGroupPanelWidth - 1) / kGroupPanelWidth;
    task_panels_ = std::clamp<int64_t>(kTaskBytes / format_.value_bytes(), 1, panels_);
    row_blocks_ = ir::ceildiv(matmul.m.extent(), block_rows_);
    // Kernels read whole units of A, and of pairs of its elements where nibbles are looked up.
    const bool is_dense = matmul.a.strides.back().is_constant(1);
    if (rows.low <= 1) digits_ = digits_of(format_, dtype_of(matmul.a));
    const bool reads_dense = digits_ > 0 || looks_up(emitter.target(), format_);
    stages_a_ = dtype_of(matmul.a) != DType::F32 || format_.padded() != format_.k ||
                (reads_dense && !is_dense);
    // Tiles read whole pairs.
    stages_pairs_ = has_tiles_ && (format_.k % 2 != 0 || !is_dense);
    amx_sizes_ = {false, unpacked_rows_, (format_.k + 1) / 2, kGroupPanelWidth};
  }

  void run() {
    if (has_tiles_) take_denormals_as_zero(*emitter_.function());
    emitter_.reserve_keys();
    declare();
    hoist();
    if (has_tiles_) {
      amx_.emplace(emitter_, amx_sizes_, staging_);
      Value* blocks = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::umax, blocks_, i64(1));
      amx_->configure(ir_.CreateUDiv(m_, blocks));
    }
    for_tasks(emitter_, 2,
              [&](Value* task, const Emitter::Carried& keys) { return emit_task(task, keys); });
    if (has_tiles_) amx_->release();
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  int64_t columns() const { return matmul_.n.extent().constant(); }
  int64_t tasks_of_columns() const { return (panels_ + task_panels_ - 1) / task_panels_; }
  DType dtype_of(const plan::View& view) const {
    return emitter_.program().buffers[view.buffer].type.dtype;
  }
  // Of a row of A in scratch.
  int64_t staged_bytes() const { return staged_row_bytes(format_.padded(), DType::F32).constant(); }
  // Of a panel in scratch.
  Unpacked form() const { return has_tiles_ ? Unpacked::Pairs : Unpacked::Floats; }
  int64_t unpacked_bytes() const { return format_.padded() * unpacked_row_bytes(form()); }

  // Scratch: the staged tile, then unpacked panels, then a row of digits, then rows of A.
  void declare() {
    KernelInterface& interface = emitter_.interface();
    ir::Dim batches = 1;
    for (const plan::Loop& loop : matmul_.batch) batches *= loop.extent();
    interface.tasks = batches * tasks_of_columns() * row_blocks_;
    interface.task_writes[matmul_.out.buffer] = block_rows_ * task_panels_ * kGroupPanelWidth;
    const int64_t rows = std::min(positive_opt(matmul_.m.extent()), block_rows_);
    const int64_t work = ir::saturating_product(
        {std::max(rows, kElementCost), format_.k, task_panels_ * kGroupPanelWidth});
    interface.min_tasks_per_thread = tasks_per_thread(kMultiplyAddsPerThread, work);
    staging_ = emitter_.scratch();
    int64_t offset =
        TileWriter::staging_bytes(emitter_.target(), DType::F32, dtype_of(matmul_.out));
    if (has_tiles_) offset = std::max(offset, amx_sizes_.scratch_bytes());
    unpacked_ = byte_offset(emitter_, emitter_.scratch(), i64(offset));
    if (may_unpack_) offset += task_panels_ * unpacked_bytes();
    if (digits_ > 0) {
      digit_row_ = byte_offset(emitter_, emitter_.scratch(), i64(offset));
      offset += static_cast<int64_t>(
          align_up(static_cast<uint64_t>(digit_row_bytes(format_, digits_)), kTensorAlignment));
    }
    ir::Dim scratch = offset;
    if (stages_a_) {
      staged_.to = byte_offset(emitter_, emitter_.scratch(), i64(offset));
      staged_.bytes = i64(staged_bytes());
      scratch += staged_bytes() * ir::min(matmul_.m.extent(), block_rows_);
    }
    interface.scratch_bytes = ir::max(interface.scratch_bytes, scratch);
  }

  // The packed form of a constant of [rows along k, n].
  Value* packed(const plan::View& view, int64_t rows, DType dtype, bool nibbles = false) {
    ConstantMatrix matrix;
    matrix.offset = view.offset.constant();
    matrix.k_stride = view.strides[view.strides.size() - 2].constant();
    matrix.n_stride = view.strides.back().constant();
    matrix.k = rows;
    matrix.n = columns();
    matrix.weight = dtype;
    matrix.nibbles = nibbles;
    return emitter_.buffer(
        pack_constant(emitter_.constants(), view.buffer, matrix, kGroupPanelWidth));
  }

  // Values that all tasks share.
  void hoist() {
    m_ = emitter_.value_of(matmul_.m.extent());
    blocks_ = emitter_.value_of(row_blocks_);
    weight_.values =
        packed(matmul_.b, format_.groups() * format_.size, DType::I8, format_.bits == 4);
    weight_.scales = packed(groups_.scales, format_.groups(), format_.scale);
    if (groups_.zeros) weight_.zeros = packed(*groups_.zeros, format_.groups(), DType::I8);
  }

  Emitter::Carried emit_task(Value* task, const Emitter::Carried& keys) {
    Value* rest = ir_.CreateUDiv(task, blocks_);  // the batch and the panels
    Value* block = ir_.CreateSub(task, ir_.CreateMul(rest, blocks_));
    Value* batch = ir_.CreateUDiv(rest, i64(tasks_of_columns()));
    Value* part = ir_.CreateSub(rest, ir_.CreateMul(batch, i64(tasks_of_columns())));
    bind_flat(emitter_, matmul_.batch, batch);
    Value* first = ir_.CreateMul(part, i64(task_panels_));
    Value* last = smaller(emitter_, ir_.CreateAdd(first, i64(task_panels_)), i64(panels_));
    Span rows = even_part(emitter_, block, blocks_, m_);
    Emitter::Carried next{part, ir_.CreateAdd(ir_.CreateMul(batch, blocks_), block)};
    Value* is_new = ir_.CreateICmpNE(next[1], keys[1]);
    const auto multiply_few = [&] {
      if (stages_a_ || digits_ > 0) when(emitter_, is_new, [&] { stage_few(rows); });
      multiply_directly(rows, first, last);
    };
    const auto multiply_many = [&] {
      const bool stages = has_tiles_ ? stages_pairs_ : stages_a_;
      if (stages)
        when(emitter_, is_new, [&] { has_tiles_ ? stage_pairs(rows) : stage_rows(rows); });
      when(emitter_, ir_.CreateICmpNE(part, keys[0]), [&] { unpack(first, last); });
      has_tiles_ ? multiply_tiles(rows, first, last) : multiply_unpacked(rows, first, last);
    };
    if (!may_unpack_) {
      multiply_few();
    } else if (!may_be_direct_) {
      multiply_many();
    } else {
      Value* direct = ir_.CreateICmpSLE(m_, i64(kDirectRows));
      when(emitter_, direct, multiply_few);
      when(emitter_, ir_.CreateNot(direct), multiply_many);
    }
    return next;
  }

  // --- A ---

  void stage_as(Span rows, DType dtype, bool to_even) {
    const auto& strides = matmul_.a.strides;
    Value* row_stride = emitter_.value_of(strides[strides.size() - 2]);
    RuntimeRun row;
    row.from = row_of_a(rows.begin);
    row.stride = emitter_.value_of(strides.back());
    row.count = i64(format_.k);
    row.format = {dtype_of(matmul_.a), dtype, dtype};
    StagedRows staged = staged_;
    staged.to_even = to_even;
    emit_stage(emitter_, row, row_stride, rows.count, staged);
  }
  Value* row_of_a(Value* row) {
    const auto& strides = matmul_.a.strides;
    const ir::Dim bytes = strides[strides.size() - 2] * ElementFormat(dtype_of(matmul_.a)).bytes();
    return byte_offset(emitter_, address(matmul_.a), ir_.CreateMul(row, emitter_.value_of(bytes)));
  }

  void stage_pairs(Span rows) { stage_as(rows, DType::BF16, format_.k % 2 != 0); }

  void stage_rows(Span rows) {
    stage_as(rows, DType::F32, false);
    if (format_.padded() == format_.k) return;
    emitter_.loop(i64(0), rows.count, 1, [&](Value* r) {
      Value* end = byte_offset(emitter_, staged_.to, ir_.CreateMul(r, staged_.bytes));
      emit_zeros(emitter_, byte_offset(emitter_, end, i64(format_.k * 4)),
                 i64(format_.padded() - format_.k), DType::F32);
    });
  }

  // A single row in digits too.
  void stage_few(Span rows) {
    if (stages_a_) stage_rows(rows);
    if (digits_ == 0) return;
    Value* is_single = ir_.CreateICmpEQ(rows.count, i64(1));
    Value* row = stages_a_ ? staged_.to : row_of_a(rows.begin);
    when(emitter_, is_single, [&] { stage_digits(emitter_, format_, digits_, row, digit_row_); });
  }

  // Row `first` of a block that begins at `begin`, the distances of the rows after it, and that of steps.
  GroupRows rows_at(Value* begin, Value* first, int count) {
    const auto& strides = matmul_.a.strides;
    const ir::Dim bytes = stages_a_ ? ir::Dim(staged_bytes()) : strides[strides.size() - 2] * 4;
    Value* base = stages_a_ ? staged_.to : address(matmul_.a);
    Value* row = stages_a_ ? first : ir_.CreateAdd(begin, first);
    GroupRows result;
    result.a = byte_offset(emitter_, base, ir_.CreateMul(row, emitter_.value_of(bytes)));
    for (int r = 0; r < count; ++r) result.rows.push_back(emitter_.value_of(bytes * int64_t{r}));
    result.a_step = stages_a_ ? i64(4) : emitter_.value_of(strides.back() * 4);
    return result;
  }

  // --- Panels ---

  GroupColumns panel_at(Value* panel) {
    const auto of_panel = [&](Value* base, int64_t bytes) {
      return base == nullptr ? nullptr
                             : byte_offset(emitter_, base, ir_.CreateMul(panel, i64(bytes)));
    };
    return {of_panel(weight_.values, format_.value_bytes()),
            of_panel(weight_.scales, format_.scale_bytes()),
            of_panel(weight_.zeros, format_.zero_bytes())};
  }

  // Strips of the panels' columns: body(panel, first column in it, first column of all).
  void for_strips(Value* first, Value* last, int vectors,
                  const std::function<void(Value*, Value*, Value*)>& body) {
    const int64_t strip = int64_t{vectors} * emitter_.target().lanes();
    emitter_.loop(first, last, 1, [&](Value* panel) {
      Value* column = ir_.CreateMul(panel, i64(kGroupPanelWidth));
      if (strip == kGroupPanelWidth) return body(panel, i64(0), column);
      Value* end = smaller(emitter_, i64(kGroupPanelWidth), ir_.CreateSub(i64(columns()), column));
      emitter_.loop(i64(0), end, strip,
                    [&](Value* at) { body(panel, at, ir_.CreateAdd(column, at)); });
    });
  }

  // All row tiles of a strip; `multiply(first row, rows)` gives the sums of one.
  void write_tiles(Span rows, const RowTiles& tiles, int vectors, Value* column,
                   const std::function<Accumulators(Value*, Tile)>& multiply) {
    Value* origin = address(matmul_.out);
    TileWriter writer(emitter_, output(), staging_, count_sizes(tiles));
    const auto body = [&](Value* first, int count) {
      const Tile tile{count, vectors, DType::F32, Steps::Single};
      const Accumulators sums = multiply(first, tile);
      writer.write(tile, sums, origin, ir_.CreateAdd(rows.begin, first), column);
    };
    const auto after = [&](Value* first, Value* count) {
      writer.finish(vectors, count, origin, ir_.CreateAdd(rows.begin, first), column);
    };
    for_row_tiles(emitter_, tiles, body, after);
  }

  void multiply_directly(Span rows, Value* first, Value* last) {
    if (digits_ == 0) return multiply_floats(rows, first, last);
    Value* is_single = ir_.CreateICmpEQ(rows.count, i64(1));
    Value* held = ir_.CreateAnd(is_single, holds_digits(emitter_, digit_row_));
    when(emitter_, held, [&] {
      const int vectors = digit_vectors(emitter_.target());
      for_strips(first, last, vectors, [&](Value* panel, Value*, Value* column) {
        write_tiles(rows, {rows.count, {1, 1}, 1}, vectors, column, [&](Value*, Tile) {
          return multiply_digits(emitter_, format_, digits_, digit_row_, panel_at(panel));
        });
      });
    });
    when(emitter_, ir_.CreateNot(held), [&] { multiply_floats(rows, first, last); });
  }

  // A single row has code of its own where its tiles are others.
  void multiply_floats(Span rows, Value* first, Value* last) {
    const Target& target = emitter_.target();
    const bool differs = direct_tile(target, format_, 1).vectors !=
                         direct_tile(target, format_, direct_rows_.high).vectors;
    if (!differs || direct_rows_.low > 1) return multiply_floats(rows, direct_rows_, first, last);
    Value* is_single = ir_.CreateICmpEQ(rows.count, i64(1));
    when(emitter_, is_single, [&] { multiply_floats(rows, {1, 1}, first, last); });
    when(emitter_, ir_.CreateNot(is_single),
         [&] { multiply_floats(rows, {2, direct_rows_.high}, first, last); });
  }

  void multiply_floats(Span rows, CountRange counts, Value* first, Value* last) {
    const DirectTile most = direct_tile(emitter_.target(), format_, counts.high);
    for_strips(first, last, most.vectors, [&](Value* panel, Value* at, Value* column) {
      const GroupColumns strip = columns_from(emitter_, format_, panel_at(panel), at);
      write_tiles(rows, {rows.count, counts, most.rows}, most.vectors, column,
                  [&](Value* row, Tile tile) {
                    return multiply_groups(emitter_, tile, format_,
                                           rows_at(rows.begin, row, tile.rows), strip);
                  });
    });
  }

  Value* unpacked_at(Value* panel, Value* first) {
    return byte_offset(emitter_, unpacked_,
                       ir_.CreateMul(ir_.CreateSub(panel, first), i64(unpacked_bytes())));
  }
  void unpack(Value* first, Value* last) {
    emitter_.loop(first, last, 1, [&](Value* panel) {
      unpack_groups(emitter_, format_, panel_at(panel), unpacked_at(panel, first), form());
    });
  }

  void multiply_tiles(Span rows, Value* first, Value* last) {
    const auto& strides = matmul_.a.strides;
    AmxStrip strip;
    strip.rows = rows;
    strip.a = stages_pairs_ ? staged_.to : row_of_a(rows.begin);
    strip.a_stride =
        stages_pairs_ ? staged_.bytes : emitter_.value_of(strides[strides.size() - 2] * 2);
    emitter_.loop(first, last, 1, [&](Value* panel) {
      strip.b = unpacked_at(panel, first);
      strip.column = ir_.CreateMul(panel, i64(kGroupPanelWidth));
      amx_->multiply(strip, output(), address(matmul_.out));
    });
  }

  void multiply_unpacked(Span rows, Value* first, Value* last) {
    const TileWidth width = tile_width(emitter_.target(), kGroupPanelWidth);
    const int most = tile_rows(emitter_.target(), width.vectors, unpacked_rows_);
    for_strips(first, last, width.vectors, [&](Value* panel, Value* at, Value* column) {
      TileOperands operands;
      operands.b = byte_offset(emitter_, unpacked_at(panel, first), ir_.CreateMul(at, i64(4)));
      operands.b_step = i64(kGroupPanelWidth * 4);
      operands.b_alignment = 32;
      write_tiles(rows, {rows.count, unpacked_rows_, most}, width.vectors, column,
                  [&](Value* row, Tile tile) {
                    GroupRows a = rows_at(rows.begin, row, tile.rows);
                    operands.a = a.a;
                    operands.rows = std::move(a.rows);
                    operands.a_step = a.a_step;
                    return multiply_run(emitter_, tile, operands, i64(format_.k));
                  });
    });
  }

  // --- The result ---

  Output output() {
    Output output = output_of(emitter_, matmul_);
    output.column_end = i64(columns());
    return output;
  }

  Value* address(const plan::View& view) { return view_address(emitter_, matmul_.batch, view); }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::MatMul& matmul_;
  const plan::Groups& groups_;
  GroupFormat format_;
  bool may_be_direct_ = false, may_unpack_ = false, stages_a_ = false;
  bool has_tiles_ = false, stages_pairs_ = false;
  AmxSizes amx_sizes_;
  std::optional<AmxProduct> amx_;
  CountRange direct_rows_, unpacked_rows_;
  int digits_ = 0;  // of a single row; 0: it is multiplied in f32
  Value* digit_row_ = nullptr;
  int64_t block_rows_ = 1;  // at most
  int64_t panels_ = 1;
  int64_t task_panels_ = 1;  // at most
  ir::Dim row_blocks_;
  Value *m_ = nullptr, *blocks_ = nullptr, *staging_ = nullptr, *unpacked_ = nullptr;
  GroupColumns weight_;
  StagedRows staged_;
};

}  // namespace

bool group_multiplies_tiles(const plan::Program& program, const plan::MatMul& matmul,
                            const Target& target) {
  const GroupFormat format = format_of(program, matmul);
  const bool has_pairs =
      program.buffers[matmul.a.buffer].type.dtype == DType::BF16 && format.has_pairs();
  return has_pairs && matmul.m.extent().upper_bound() > kDirectRows &&
         multiplies_tiles(target, Steps::Pairs, kDirectRows + 1, format.k / 2);
}

bool group_multiplies_digits(const plan::Program& program, const plan::MatMul& matmul) {
  const DType a = program.buffers[matmul.a.buffer].type.dtype;
  return range_of(matmul.m.extent()).low <= 1 && digits_of(format_of(program, matmul), a) > 0;
}

void emit_group_matmul(Emitter& emitter, const plan::MatMul& matmul) {
  GroupMatMulEmitter(emitter, matmul).run();
}

}  // namespace kiln::cpu
