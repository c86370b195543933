// Attention without a score matrix in memory: blocks of query rows against all keys.
//
// A task is a batch index and a block of rows. K is packed transposed once per batch index and kept
// for the tasks that follow. Then, per block: scores = Q * K^T in scratch, exact softmax row by
// row, out = P * V with the rows scaled by the inverse of their sums. Scores stay in the
// second-level cache. Where the number of keys is known at run time only, they lie in panels,
// [panel][row][width], so that all strides in the loops are constants. With `causal`, keys after
// the last row of a block are not touched. A single query meets K where it lies: packing it would take longer
// than the products.
#include <algorithm>
#include <optional>

#include "backends/cpu/compile/contract/amx.h"
#include "backends/cpu/compile/contract/attention_softmax.h"
#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/pack.h"
#include "ir/size_overflow.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr int64_t kScoreBytes = 256 << 10;  // of a block
constexpr int64_t kAliasBytes = 1024;       // rows at multiples of this compete for cache lines
constexpr int64_t kFewestRows = 16, kMostRows = 64;
// V of another format is widened as it is read if it meets fewer rows than this in a batch; for more
// rows it is better to do so once, in packed panels.
constexpr int64_t kFewRows = 16;
// From so many rows on, V is packed where its rows lie apart, as heads of merged projections do: each is a page and a few
// sets of the first-level cache then, for every tile of rows.
constexpr int64_t kManyRows = 48;

// How attention is cut.
struct Blocking {
  Steps key_steps = Steps::Single, value_steps = Steps::Single;  // of Q * K^T and of P * V
  int64_t key_width = 32;                                        // of a panel of K^T and of scores
  int64_t value_width = 32;                                      // of a panel of V
  int64_t value_panels = 1;
  int64_t block_rows = 64;  // at most, per task
  bool packs_v = false;
  bool has_tiles = false;   // AMX multiplies both
  OperandFormat q, k, v;    // in memory
  bool stages_q = false;    // a block of its rows goes to scratch, as the type that tiles read
  bool whole_rows = false;  // a row of scores is contiguous; otherwise they lie in panels
  bool reads_keys = false;  // a single query multiplies rows of K where they lie
};

int64_t stride_width(int64_t columns) {
  for (int64_t width : {32, 48, 64, 16}) {
    if (columns % width == 0) return width;
  }
  return panel_width(columns, 1);
}

// Whether a machine multiplies pairs of bf16, and Q and K, which have such elements, come in pairs.
// Weights are rounded to bf16 then.
bool has_pairs(const Target& target, const plan::Attention& attention, const Blocking& blocking) {
  const auto is_exact = [](const OperandFormat& format) {
    return format.memory == DType::BF16 && format.widens() && format.sum == DType::F32;
  };
  return target.has(Feature::Avx512Bf16) && is_exact(blocking.q) && is_exact(blocking.k) &&
         is_exact(blocking.v) && attention.head_dim % 2 == 0;
}

// Whether rows of K are whole vectors, few enough that a query stays in registers, of a type that is widened as it is read.
bool reads_keys(const plan::Attention& attention, const Target& target, const Blocking& blocking) {
  constexpr int64_t kMostVectors = 8;
  const bool reads_q = blocking.stages_q || attention.q.strides.back().is_constant(1);
  return blocking.key_steps == Steps::Single && blocking.k.sum == DType::F32 &&
         (blocking.k.is_plain() || blocking.k.widens()) &&
         attention.k.strides.back().is_constant(1) && reads_q &&
         attention.head_dim % target.lanes() == 0 &&
         attention.head_dim / target.lanes() <= kMostVectors &&
         range_of(attention.i.extent()).low <= 1;
}

Blocking choose_blocking(const plan::Program& program, const plan::Attention& attention,
                         const Target& target) {
  Blocking blocking;
  const int64_t keys = positive_opt(attention.j.extent());
  const int64_t queries = positive_opt(attention.i.extent());
  const plan::Formats& formats = attention.formats;
  auto format_of = [&](const plan::View& view, DType value) {
    return OperandFormat{program.buffers[view.buffer].type.dtype, value, formats.accumulator};
  };
  blocking.q = format_of(attention.q, formats.left);
  blocking.k = format_of(attention.k, formats.right);
  blocking.v = format_of(attention.v, formats.right);
  blocking.stages_q = !blocking.q.is_plain();
  blocking.key_width = panel_width(keys, queries);
  const int64_t score_bytes = ElementFormat(formats.accumulator).bytes();
  blocking.block_rows = std::clamp(kScoreBytes / (score_bytes * keys), kFewestRows, kMostRows);
  const bool is_dense =
      attention.v.strides[attention.v.strides.size() - 2].is_constant(attention.value_dim);
  const bool reads_v = blocking.v.is_plain() ? is_dense || queries < kManyRows
                                             : blocking.v.widens() && queries < kFewRows;
  blocking.packs_v =
      !reads_v || !attention.v.strides.back().is_constant(1) || attention.value_dim % 16 != 0;
  if (has_pairs(target, attention, blocking)) {
    blocking.key_steps = Steps::Pairs;
    blocking.stages_q = !attention.q.strides.back().is_constant(1);
    blocking.has_tiles = multiplies_tiles(target, Steps::Pairs, queries, attention.head_dim / 2);
    blocking.packs_v |= blocking.has_tiles;
    if (blocking.packs_v) blocking.value_steps = Steps::Pairs;
  }
  blocking.reads_keys = reads_keys(attention, target, blocking);
  blocking.whole_rows = attention.j.extent().is_constant();
  blocking.value_width = stride_width(attention.value_dim);
  // The powers that a tile reads are of one panel of scores, and all blocks have two tiles of columns.
  if (blocking.has_tiles) blocking.key_width = blocking.value_width = 2 * kAmxColumns;
  blocking.value_panels = (attention.value_dim + blocking.value_width - 1) / blocking.value_width;
  return blocking;
}

class AttentionEmitter {
 public:
  AttentionEmitter(Emitter& emitter, const plan::Attention& attention)
      : emitter_(emitter),
        ir_(emitter.ir()),
        attention_(attention),
        blocking_(choose_blocking(emitter.program(), attention, emitter.target())),
        sum_(attention.formats.accumulator),
        lanes_(emitter.target().lanes()),
        rows_(part_range(range_of(attention.i.extent()), blocking_.block_rows)),
        element_(ir::make_loop_symbol("e", attention.value_dim)) {}

  void run() {
    if (blocking_.value_steps == Steps::Pairs) take_denormals_as_zero(*emitter_.function());
    emitter_.reserve_keys();
    declare();
    m_ = value_of(attention_.i.extent());
    n_ = value_of(attention_.j.extent());
    row_blocks_ = value_of(row_blocks());
    if (blocking_.has_tiles) configure_tiles();
    for_tasks(emitter_, 2,
              [&](Value* task, const Emitter::Carried& packed) { return emit_task(task, packed); });
    if (blocking_.has_tiles) amx_->release();
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  Value* splat(Value* value) { return ir_.CreateVectorSplat(lanes_, value); }
  Value* value_of(const ir::Dim& dim) { return emitter_.value_of(dim); }
  Value* at(Value* base, Value* index, int64_t stride) {
    return byte_offset(emitter_, base, ir_.CreateMul(index, i64(stride)));
  }

  // Unless there is never more than a single query.
  bool packs_keys() const {
    return !blocking_.reads_keys || range_of(attention_.i.extent()).high > 1;
  }

  ir::Dim row_blocks() const { return ir::ceildiv(attention_.i.extent(), blocking_.block_rows); }
  ir::Dim key_panels() const { return ir::ceildiv(attention_.j.extent(), blocking_.key_width); }
  int64_t score_row_bytes() const {
    if (!blocking_.whole_rows) return blocking_.key_width * sum_.bytes();
    const int64_t bytes = key_panels().constant() * blocking_.key_width * sum_.bytes();
    return bytes % kAliasBytes == 0 ? bytes + 64 : bytes;
  }
  int64_t score_panel_bytes() const {
    return blocking_.key_width * sum_.bytes() * (blocking_.whole_rows ? 1 : blocking_.block_rows);
  }
  int64_t power_panel_bytes() const {
    const int64_t size = ElementFormat(power()).bytes();
    return blocking_.whole_rows ? blocking_.key_width * size : score_panel_bytes();
  }
  // Of all scores of a block.
  ir::Dim score_bytes() const {
    if (blocking_.whole_rows) return blocking_.block_rows * score_row_bytes();
    return key_panels() * score_panel_bytes();
  }
  // Of panels of K^T and of V; a step of a column, a pair of bf16, takes as much as an f32.
  ir::Dim panel_bytes(Steps steps, const ir::Dim& k, int64_t width) const {
    return steps == Steps::Pairs ? packed_pair_bytes(k, width)
                                 : packed_panel_bytes(k, width, sum_.dtype());
  }
  int64_t key_panel_bytes() const {
    return panel_bytes(blocking_.key_steps, attention_.head_dim, blocking_.key_width).constant();
  }
  // What a copy of Q holds, and powers are.
  DType staged() const { return blocking_.key_steps == Steps::Pairs ? DType::BF16 : sum_.dtype(); }
  DType power() const { return blocking_.value_steps == Steps::Pairs ? DType::BF16 : sum_.dtype(); }

  // Scratch: a staged tile, the inverse sums of rows, K^T, the scores of a block, V if it is packed,
  // and the rows of Q if they are staged.
  void declare() {
    KernelInterface& interface = emitter_.interface();
    ir::Dim batches = 1;
    for (const plan::Loop& loop : attention_.batch) batches *= loop.extent();
    interface.tasks = batches * row_blocks();
    interface.task_writes[attention_.out.buffer] = blocking_.block_rows * attention_.value_dim;
    const int64_t work = ir::saturating_product(
        {positive_opt(batches), positive_opt(attention_.i.extent()),
         positive_opt(attention_.j.extent()), attention_.head_dim + attention_.value_dim});
    interface.min_tasks_per_thread =
        tasks_per_thread(kMultiplyAddsPerThread, work / positive_opt(interface.tasks));

    int64_t staging =
        TileWriter::staging_bytes(emitter_.target(), sum_.dtype(), dtype_of(attention_.out));
    if (blocking_.has_tiles) staging = kAmxSumsPlace + 2 * kAmxRows * 2 * kAmxRowBytes;
    const int64_t inverses = (blocking_.block_rows * sum_.bytes() + 63) / 64 * 64;
    ir::Dim end = staging + inverses;
    staging_ = emitter_.scratch();
    inverse_sums_ = byte_offset(emitter_, emitter_.scratch(), i64(staging));
    if (packs_keys()) packed_k_ = take_scratch(end, key_panels() * key_panel_bytes());
    scores_ = take_scratch(end, score_bytes());
    value_panel_bytes_ =
        panel_bytes(blocking_.value_steps, attention_.j.extent(), blocking_.value_width);
    if (blocking_.packs_v)
      packed_v_ = take_scratch(end, value_panel_bytes_ * blocking_.value_panels);
    if (blocking_.stages_q) {
      const ir::Dim row = staged_row_bytes(attention_.head_dim, staged());
      staged_q_ = {take_scratch(end, row * blocking_.block_rows), value_of(row)};
    }
    interface.scratch_bytes = ir::max(interface.scratch_bytes, end);
  }

  Value* take_scratch(ir::Dim& end, const ir::Dim& bytes) {
    Value* start = byte_offset(emitter_, emitter_.scratch(), value_of(end));
    end += bytes;
    return start;
  }

  Emitter::Carried emit_task(Value* task, const Emitter::Carried& packed) {
    Value* batch = ir_.CreateUDiv(task, row_blocks_);
    Value* block = ir_.CreateSub(task, ir_.CreateMul(batch, row_blocks_));
    bind_flat(emitter_, attention_.batch, batch);
    Value* k = view_address(attention_.k);
    Value* v = view_address(attention_.v);
    Emitter::Carried keys{ir_.CreatePtrToInt(k, ir_.getInt64Ty()),
                          ir_.CreatePtrToInt(v, ir_.getInt64Ty())};
    Value* is_new = ir_.CreateICmpNE(keys[0], packed[0]);
    Value* is_single = blocking_.reads_keys ? ir_.CreateICmpEQ(m_, i64(1)) : ir_.getFalse();
    if (packs_keys()) {
      Value* packs = ir_.CreateAnd(is_new, ir_.CreateNot(is_single));
      when(emitter_, packs, [&] { pack_keys(k); });
    }
    if (blocking_.packs_v) {
      when(emitter_, ir_.CreateICmpNE(keys[1], packed[1]), [&] { pack_values(v); });
    }
    Span rows = even_part(emitter_, block, row_blocks_, m_);
    Value* limit = n_;
    if (attention_.causal) limit = smaller(emitter_, n_, ir_.CreateAdd(rows.begin, rows.count));
    Value* panels = ir_.CreateUDiv(ir_.CreateAdd(limit, i64(blocking_.key_width - 1)),
                                   i64(blocking_.key_width));
    if (blocking_.reads_keys)
      when(emitter_, is_single, [&] { emit_single_scores(rows, k, panels); });
    if (packs_keys()) when(emitter_, ir_.CreateNot(is_single), [&] { emit_scores(rows, panels); });
    emit_softmax(emitter_, attention_,
                 {scores_, blocking_.key_width, score_row_bytes(), score_panel_bytes(), power(),
                  power_panel_bytes()},
                 {rows, panels, n_, inverse_sums_});
    emit_output(rows, v, panels, limit);
    return keys;
  }

  // The element at zero of the last two indices, for the batch that is bound.
  Value* view_address(const plan::View& view) {
    Value* offset = value_of(view.offset);
    for (size_t i = 0; i < attention_.batch.size(); ++i) {
      Value* index = value_of(ir::Dim(attention_.batch[i].index));
      offset = ir_.CreateAdd(offset, ir_.CreateMul(index, value_of(view.strides[i])));
    }
    return at(emitter_.buffer(view.buffer), offset, ElementFormat(dtype_of(view)).bytes());
  }
  DType dtype_of(const plan::View& view) const {
    return emitter_.program().buffers[view.buffer].type.dtype;
  }
  static const ir::Dim& row_stride(const plan::View& view) {
    return view.strides[view.strides.size() - 2];
  }

  void pack_keys(Value* k) {
    RuntimeMatrix matrix;
    matrix.base = k;
    matrix.k_stride = value_of(attention_.k.strides.back());
    matrix.n_stride = value_of(row_stride(attention_.k));
    matrix.k = i64(attention_.head_dim);
    matrix.n = n_;
    matrix.format = blocking_.k;
    emit_pack(emitter_, matrix, i64(0), value_of(key_panels()),
              {packed_k_, i64(key_panel_bytes()), blocking_.key_width,
               blocking_.key_steps == Steps::Pairs ? 2 : 1});
  }

  void pack_values(Value* v) {
    RuntimeMatrix matrix;
    matrix.base = v;
    matrix.k_stride = value_of(row_stride(attention_.v));
    matrix.n_stride = value_of(attention_.v.strides.back());
    matrix.k = n_;
    matrix.n = i64(attention_.value_dim);
    matrix.format = blocking_.v;
    emit_pack(emitter_, matrix, i64(0), i64(blocking_.value_panels),
              {packed_v_, value_of(value_panel_bytes_), blocking_.value_width,
               blocking_.value_steps == Steps::Pairs ? 2 : 1});
    if (blocking_.has_tiles) end_values();
  }

  // Zeros behind the last key, up to a whole tile of them.
  void end_values() {
    Value* steps = value_steps(n_);
    Value* tiles = ir_.CreateUDiv(ir_.CreateAdd(steps, i64(kAmxSteps - 1)), i64(kAmxSteps));
    Value* left = ir_.CreateSub(ir_.CreateMul(tiles, i64(kAmxSteps)), steps);
    emitter_.loop(i64(0), i64(blocking_.value_panels), 1, [&](Value* panel) {
      Value* to =
          byte_offset(emitter_, packed_v_, ir_.CreateMul(panel, value_of(value_panel_bytes_)));
      emit_zeros(emitter_, at(to, steps, blocking_.value_width * kAmxStepBytes),
                 ir_.CreateMul(left, i64(blocking_.value_width)), DType::F32);
    });
  }

  void configure_tiles() {
    Value* blocks = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::umax, row_blocks_, i64(1));
    amx_rows_ = amx_rows(emitter_, rows_, ir_.CreateUDiv(m_, blocks));
    amx_.emplace(emitter_, AmxShape{false, 2, amx_rows_, attention_.head_dim / 2 % kAmxSteps});
    amx_->configure(staging_);
  }
  Value* row_tile_count(Span rows) {
    Value* end = ir_.CreateAdd(rows.count, ir_.CreateSub(amx_rows_, i64(1)));
    return ir_.CreateUDiv(end, amx_rows_);
  }
  std::vector<Value*> tile_rows_at(Span rows, Value* first, int count, Value* base, Value* stride) {
    std::vector<Value*> places;
    for (int i = 0; i < count; ++i) {
      Value* tile = ir_.CreateAdd(first, i64(i));
      Value* row = amx_row_span(emitter_, tile, amx_rows_, rows.count).first;
      places.push_back(byte_offset(emitter_, base, ir_.CreateMul(row, stride)));
    }
    return places;
  }

  // emit_scores by tiles: two of keys a panel, which go to where they belong.
  void emit_tile_scores(Span rows, Value* panels) {
    const QueryRows q = query_rows(rows);
    emitter_.loop(i64(0), panels, 1, [&](Value* panel) {
      Value* to = at(scores_, panel, score_panel_bytes());
      const auto compute = [&](Value* first, int count) {
        AmxOperands operands;
        operands.a_stride = value_of(q.bytes);
        operands.a = tile_rows_at(rows, first, count, q.base, operands.a_stride);
        operands.b = at(packed_k_, panel, key_panel_bytes());
        operands.b_stride = blocking_.key_width * kAmxStepBytes;
        operands.tiles = i64(attention_.head_dim / 2 / kAmxSteps);
        amx_->clear(count);
        amx_->multiply(operands);
        amx_->store(tile_rows_at(rows, first, count, to, i64(score_row_bytes())),
                    score_row_bytes());
      };
      for_amx_blocks(emitter_, row_tile_count(rows), compute, nullptr);
    });
  }

  // A panel of out = (P * V) / sums by tiles. Powers and values beyond the last key are zero.
  void emit_tile_output(Span rows, Value* b, Value* column, Value* panels, Value* origin) {
    Value* sums = byte_offset(emitter_, staging_, i64(kAmxSumsPlace));
    const auto compute = [&](Value* first, int count) {
      AmxOperands operands;
      operands.a_stride = i64(score_row_bytes());
      operands.a = tile_rows_at(rows, first, count, scores_, operands.a_stride);
      operands.a_step = power_panel_bytes();
      operands.b = b;
      operands.b_stride = blocking_.value_width * kAmxStepBytes;
      operands.tiles = panels;
      operands.is_end = ir_.getFalse();  // it has no rest
      amx_->clear(count);
      amx_->multiply(operands);
      amx_->store(count, sums);
    };
    const auto finish = [&](Value* tile, Value* in_block) {
      const auto [first, done] = amx_row_span(emitter_, tile, amx_rows_, rows.count);
      Value* from = at(sums, in_block, amx_->tile_bytes());
      from = at(from, done, amx_->row_bytes());
      Value* begin = ir_.CreateAdd(first, done);
      Value* count = ir_.CreateSub(amx_rows_, done);
      emitter_.loop(i64(0), count, 1, [&](Value* r) {
        Value* inverse =
            splat(sum_.load(ir_, at(inverse_sums_, ir_.CreateAdd(begin, r), sum_.bytes())));
        for (int v = 0; v < 2; ++v) {
          Value* place =
              at(byte_offset(emitter_, from, i64(v * kAmxRowBytes)), r, amx_->row_bytes());
          sum_.store(ir_, ir_.CreateFMul(sum_.load(ir_, place, lanes_, 64), inverse), place, 64);
        }
      });
      TileWriter writer(emitter_, output(), from, TileWriter::kStaged);
      writer.finish(2, count, origin, ir_.CreateAdd(rows.begin, begin), column);
    };
    for_amx_blocks(emitter_, row_tile_count(rows), compute, finish);
  }

  RowTiles row_tiles(Value* count, int vectors) {
    return {count, rows_, tile_rows(emitter_.target(), vectors, rows_, sum_.dtype())};
  }
  int tile_vectors(int64_t width) const {
    if (rows_.high > kMostPanelRows) return tile_width(emitter_.target(), width).vectors;
    const Tile most{static_cast<int>(std::max<int64_t>(rows_.high, 1)), 1, sum_.dtype()};
    return tile_width(emitter_.target(), width, most).vectors;
  }

  // Rows of Q as tiles read them: the first of the block, bytes between rows and between the steps
  // of one.
  struct QueryRows {
    Value* base = nullptr;
    ir::Dim bytes, step;
    OperandFormat format;
  };
  QueryRows query_rows(Span rows) {
    const int64_t size = ElementFormat(blocking_.q.memory).bytes();
    const ir::Dim bytes = row_stride(attention_.q) * size;
    Value* first = byte_offset(emitter_, view_address(attention_.q),
                               ir_.CreateMul(rows.begin, value_of(bytes)));
    const int64_t step = blocking_.key_steps == Steps::Pairs ? 2 : 1;
    if (!blocking_.stages_q)
      return {first, bytes, attention_.q.strides.back() * (size * step), blocking_.q};
    RuntimeRun row{first, value_of(attention_.q.strides.back()), i64(attention_.head_dim),
                   blocking_.q};
    row.format.sum = staged();
    emit_stage(emitter_, row, value_of(row_stride(attention_.q)), rows.count, staged_q_);
    const DType type = staged();
    return {staged_q_.to,
            staged_row_bytes(attention_.head_dim, type),
            ElementFormat(type).bytes() * step,
            {type, type, type}};
  }

  // scores = Q * K^T for one query, a vector of keys at a time.
  void emit_single_scores(Span rows, Value* k, Value* panels) {
    const QueryRows q = query_rows(rows);
    const ir::Dim key_bytes = row_stride(attention_.k) * ElementFormat(blocking_.k.memory).bytes();
    const int64_t part = lanes_ * ElementFormat(q.format.memory).bytes();
    std::vector<Value*> query;
    for (int64_t v = 0; v < attention_.head_dim / lanes_; ++v)
      query.push_back(q.format.load(ir_, byte_offset(emitter_, q.base, i64(v * part)), lanes_));
    Value* last = ir_.CreateSub(n_, i64(1));
    const bool is_whole = ir::provably_divisible(attention_.j.extent(), blocking_.key_width);
    emitter_.loop(i64(0), panels, 1, [&](Value* panel) {
      Value* begin = ir_.CreateMul(panel, i64(blocking_.key_width));
      Value* to = at(scores_, panel, score_panel_bytes());
      emitter_.loop(i64(0), i64(blocking_.key_width), lanes_, [&](Value* first) {
        const auto product = [&](int lane) {
          Value* key = ir_.CreateAdd(ir_.CreateAdd(begin, first), i64(lane));
          // Lanes beyond the last key repeat it: softmax leaves them out.
          if (!is_whole) key = smaller(emitter_, key, last);
          Value* row = byte_offset(emitter_, k, ir_.CreateMul(key, value_of(key_bytes)));
          return lane_products(query, row);
        };
        sum_.store(ir_, sums_of_rows(0, lanes_, product), at(to, first, sum_.bytes()), 32);
      });
    });
  }

  // The products of a query and a key, one sum in each lane.
  Value* lane_products(const std::vector<Value*>& query, Value* key) {
    const int64_t part = lanes_ * ElementFormat(blocking_.k.memory).bytes();
    Value* sum = nullptr;
    for (size_t v = 0; v < query.size(); ++v) {
      Value* place = byte_offset(emitter_, key, i64(static_cast<int64_t>(v) * part));
      Value* values = blocking_.k.load(ir_, place, lanes_);
      sum = sum == nullptr ? ir_.CreateFMul(query[v], values)
                           : ir_.CreateIntrinsic(llvm::Intrinsic::fma, {sum->getType()},
                                                 {query[v], values, sum});
    }
    return sum;
  }

  // The sum of all lanes of each of `count` vectors, in their order: of two halves neighbours are added, first those within
  // 128 bits, then these. With fewer vectors than lanes, a part of the result is partial sums.
  Value* sums_of_rows(int first, int count, const std::function<Value*(int)>& vector) {
    if (count == 1) return vector(first);
    Value* low = sums_of_rows(first, count / 2, vector);
    Value* high = sums_of_rows(first + count / 2, count / 2, vector);
    std::vector<int> even, odd;
    constexpr int kQuad = 4;
    const int unit = count <= kQuad ? 1 : kQuad;        // what is added to its neighbour
    const int block = count <= kQuad ? kQuad : lanes_;  // what the halves are joined in
    for (int begin = 0; begin < lanes_; begin += block) {
      for (int half = 0; half < 2; ++half) {
        for (int at = 0; at < block; at += 2 * unit) {
          for (int i = 0; i < unit; ++i) {
            even.push_back(half * lanes_ + begin + at + i);
            odd.push_back(half * lanes_ + begin + at + unit + i);
          }
        }
      }
    }
    return ir_.CreateFAdd(ir_.CreateShuffleVector(low, high, even),
                          ir_.CreateShuffleVector(low, high, odd));
  }

  // scores = Q * K^T for the rows of a block and the keys of `panels` panels.
  void emit_scores(Span rows, Value* panels) {
    if (blocking_.has_tiles) return emit_tile_scores(rows, panels);
    const int vectors = tile_vectors(blocking_.key_width);
    const DType sum = sum_.dtype();
    const QueryRows q = query_rows(rows);
    const bool pairs = blocking_.key_steps == Steps::Pairs;
    const int64_t steps = pairs ? attention_.head_dim / 2 : attention_.head_dim;
    emitter_.loop(i64(0), panels, 1, [&](Value* panel) {
      emitter_.loop(i64(0), i64(blocking_.key_width), static_cast<int64_t>(vectors) * lanes_,
                    [&](Value* strip) {
                      Value* b = at(at(packed_k_, panel, key_panel_bytes()), strip, sum_.bytes());
                      Value* to = at(at(scores_, panel, score_panel_bytes()), strip, sum_.bytes());
                      for_row_tiles(
                          emitter_, row_tiles(rows.count, vectors),
                          [&](Value* first, int count) {
                            const Tile tile{count, vectors, sum, blocking_.key_steps};
                            TileOperands operands;
                            operands.a = byte_offset(emitter_, q.base,
                                                     ir_.CreateMul(first, value_of(q.bytes)));
                            for (int r = 0; r < count; ++r)
                              operands.rows.push_back(value_of(q.bytes * int64_t{r}));
                            operands.a_step = value_of(q.step);
                            operands.a_format = q.format;
                            operands.b_format = {sum, sum, sum};
                            operands.b = b;
                            operands.b_step = i64(blocking_.key_width * sum_.bytes());
                            operands.b_alignment = 32;
                            const Accumulators sums =
                                multiply_run(emitter_, tile, operands, i64(steps));
                            store_scores(tile, sums, at(to, first, score_row_bytes()));
                          },
                          nullptr);
                    });
    });
  }

  void store_scores(Tile tile, const Accumulators& sums, Value* to) {
    for (int r = 0; r < tile.rows; ++r) {
      for (int v = 0; v < tile.vectors; ++v) {
        const int64_t offset = r * score_row_bytes() + v * lanes_ * sum_.bytes();
        Value* address = byte_offset(emitter_, to, i64(offset));
        sum_.store(ir_, sums[static_cast<size_t>(r) * tile.vectors + v], address, 32);
      }
    }
  }

  // out = (P * V) / sums.
  void emit_output(Span rows, Value* v, Value* panels, Value* limit) {
    const int vectors = tile_vectors(blocking_.value_width);
    Value* base = blocking_.packs_v ? packed_v_ : v;
    Value* panel_bytes =
        blocking_.packs_v ? value_of(value_panel_bytes_) : i64(blocking_.value_width * v_bytes());
    Value* origin = view_address(attention_.out);
    emitter_.loop(i64(0), i64(blocking_.value_panels), 1, [&](Value* value_panel) {
      Value* panel = byte_offset(emitter_, base, ir_.CreateMul(value_panel, panel_bytes));
      Value* column = ir_.CreateMul(value_panel, i64(blocking_.value_width));
      if (blocking_.has_tiles) return emit_tile_output(rows, panel, column, panels, origin);
      Value* width = smaller(emitter_, i64(blocking_.value_width),
                             ir_.CreateSub(i64(attention_.value_dim), column));
      emitter_.loop(i64(0), width, static_cast<int64_t>(vectors) * lanes_, [&](Value* strip) {
        emit_output_strip(rows, at(panel, strip, v_bytes()), ir_.CreateAdd(column, strip),
                          {panels, limit, origin});
      });
    });
  }

  struct KeyRange {
    Value *panels = nullptr, *limit = nullptr, *origin = nullptr;
  };

  void emit_output_strip(Span rows, Value* b, Value* column, const KeyRange& keys) {
    const RowTiles tiles = row_tiles(rows.count, tile_vectors(blocking_.value_width));
    TileWriter writer(emitter_, output(), staging_, 1);
    for_row_tiles(
        emitter_, tiles,
        [&](Value* first, int count) {
          const Tile tile{count, tile_vectors(blocking_.value_width), sum_.dtype(),
                          blocking_.value_steps};
          Accumulators sums = weighted_values(tile, first, b, keys);
          for (int r = 0; r < count; ++r) {
            Value* address = at(inverse_sums_, ir_.CreateAdd(first, i64(r)), sum_.bytes());
            Value* inverse = splat(sum_.load(ir_, address));
            for (int v = 0; v < tile.vectors; ++v) {
              Value*& sum = sums[static_cast<size_t>(r) * tile.vectors + v];
              sum = ir_.CreateFMul(sum, inverse);
            }
          }
          writer.write(tile, sums, keys.origin, ir_.CreateAdd(rows.begin, first), column);
        },
        [&](Value* first, Value* count) {
          writer.finish(tile_vectors(blocking_.value_width), count, keys.origin,
                        ir_.CreateAdd(rows.begin, first), column);
        });
  }

  // P * V for the rows of a tile, panel after panel of scores.
  Accumulators weighted_values(Tile tile, Value* first, Value* b, const KeyRange& keys) {
    TileOperands operands;
    const DType sum = sum_.dtype();
    operands.a_format = {sum, sum, sum};
    operands.b_format = blocking_.packs_v ? OperandFormat{sum, sum, sum} : blocking_.v;
    operands.a_step = i64(sum_.bytes());  // a pair of powers takes as much
    operands.b_step = blocking_.packs_v ? i64(blocking_.value_width * v_bytes())
                                        : value_of(row_stride(attention_.v) * v_bytes());
    operands.b_alignment = blocking_.packs_v ? 32 : 0;
    for (int r = 0; r < tile.rows; ++r) operands.rows.push_back(i64(r * score_row_bytes()));
    Value* rows = at(scores_, first, score_row_bytes());
    if (blocking_.whole_rows) {
      operands.a = rows;
      operands.b = b;
      return multiply_run(emitter_, tile, operands, value_steps(keys.limit));
    }
    std::vector<Value*> carried{b};
    const Accumulators zeros = zero_tile(emitter_, tile);
    carried.insert(carried.end(), zeros.begin(), zeros.end());
    carried = emitter_.loop_carrying(
        i64(0), keys.panels, 1, carried, [&](Value* panel, const std::vector<Value*>& values) {
          Run run{at(rows, panel, score_panel_bytes()), values[0],
                  Accumulators(values.begin() + 1, values.end())};
          Value* left = ir_.CreateSub(keys.limit, ir_.CreateMul(panel, i64(blocking_.key_width)));
          Value* steps = smaller(emitter_, left, i64(blocking_.key_width));
          run = multiply_run(emitter_, tile, operands, value_steps(steps), std::move(run));
          run.sums.insert(run.sums.begin(), run.b);
          return run.sums;
        });
    return Accumulators(carried.begin() + 1, carried.end());
  }

  // Powers beyond the last key are zero, and so are values in packed pairs.
  Value* value_steps(Value* keys) {
    if (blocking_.value_steps != Steps::Pairs) return keys;
    return ir_.CreateLShr(ir_.CreateAdd(keys, i64(1)), 1);
  }

  Output output() {
    Output output;
    output.bind_row = [](Value*) {};
    output.column = element_;
    output.column_end = i64(attention_.value_dim);
    output.columns = attention_.value_dim;
    output.buffer = attention_.out.buffer;
    output.row_stride = row_stride(attention_.out);
    output.column_stride = attention_.out.strides.back();
    output.sum = sum_.dtype();
    output.epilogue = plan::accumulator(sum_.dtype());
    if (blocking_.has_tiles) output.lane_slot = byte_offset(emitter_, staging_, i64(kAmxSlotPlace));
    return output;
  }

  // Of an element of V as tiles read it.
  int64_t v_bytes() const {
    return blocking_.packs_v ? sum_.bytes() : ElementFormat(blocking_.v.memory).bytes();
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::Attention& attention_;
  Blocking blocking_;
  const ElementFormat sum_;
  int lanes_ = 8;
  CountRange rows_;
  ir::SymbolPtr element_;
  ir::Dim value_panel_bytes_;
  Value *m_ = nullptr, *n_ = nullptr, *row_blocks_ = nullptr;
  Value *staging_ = nullptr, *inverse_sums_ = nullptr, *packed_k_ = nullptr, *packed_v_ = nullptr,
        *scores_ = nullptr;
  StagedRows staged_q_;
  Value* amx_rows_ = nullptr;
  std::optional<AmxTiles> amx_;
};

}  // namespace

void emit_attention(Emitter& emitter, const plan::Attention& attention) {
  AttentionEmitter(emitter, attention).run();
}

bool multiplies_pairs(const plan::Program& program, const plan::Attention& attention,
                      const Target& target) {
  return choose_blocking(program, attention, target).key_steps == Steps::Pairs;
}

bool multiplies_tiles(const plan::Program& program, const plan::Attention& attention,
                      const Target& target) {
  return choose_blocking(program, attention, target).has_tiles;
}

}  // namespace kiln::cpu
