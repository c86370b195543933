#include "backends/cpu/compile/contract/amx_product.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// Tiles of steps of a block of K: 24 KiB of B, for three tiles of columns, stay in the first-level cache for all
// rows of A. Sums then go to memory and back with each block but the last, so shorter ones cost more than they save.
constexpr int64_t kDepth = 8, kMostDepth = 12;
// Bytes from what is read of B to what is fetched of it: within the block of K that comes next.
constexpr int64_t kPrefetchDistance = 16 << 10;

}  // namespace

bool AmxSizes::has_depth_blocks() const {
  const ir::Dim tiles = ir::floordiv(steps, kAmxSteps);
  const bool is_short = tiles.is_constant() && tiles.constant() <= kMostDepth;
  return !is_short && rows.high > 2 * kAmxRows;
}

int64_t AmxSizes::scratch_bytes() const {
  const int64_t tiles = has_depth_blocks() ? (rows.high + kAmxRows - 1) / kAmxRows : 2;
  return kAmxSumsPlace + tiles * kAmxRows * columns() * kAmxRowBytes;
}

void AmxProduct::configure(Value* smallest) {
  row_count_ = amx_rows(emitter_, sizes_.rows, smallest);
  tiles_.emplace(emitter_, AmxShape{sizes_.has_bytes, sizes_.columns(), row_count_, sizes_.rest()});
  tiles_->configure(scratch_);
}

void AmxProduct::multiply(const AmxStrip& strip, const Output& output, Value* origin) {
  Value* count = ir_.CreateAdd(strip.rows.count, ir_.CreateSub(row_count_, i64(1)));
  Output result = output;
  result.lane_slot = byte_offset(emitter_, scratch_, i64(kAmxSlotPlace));
  const Task task{strip, result, origin, ir_.CreateUDiv(count, row_count_)};
  Value* depth = ir_.CreateUDiv(emitter_.value_of(sizes_.steps), i64(kAmxSteps));
  if (!sizes_.has_depth_blocks()) return multiply_block(task, {i64(0), depth, nullptr});
  Value* end = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, depth, i64(1));
  emitter_.loop(i64(0), end, kDepth, [&](Value* first) {
    Value* left = ir_.CreateSub(depth, first);
    multiply_block(
        task, {first, smaller(emitter_, left, i64(kDepth)), ir_.CreateICmpSLE(left, i64(kDepth))});
  });
}

void AmxProduct::multiply_block(const Task& task, const DepthBlock& depth) {
  const Span& rows = task.strip.rows;
  const bool keeps_sums = sizes_.has_depth_blocks();
  Value* sums = byte_offset(emitter_, scratch_, i64(kAmxSumsPlace));
  const auto place = [&](Value* tile) {
    return byte_offset(emitter_, sums, ir_.CreateMul(tile, i64(tiles_->tile_bytes())));
  };
  const auto compute = [&](Value* first, int count) {
    Value* to = keeps_sums ? place(first) : sums;
    if (depth.is_last == nullptr) {
      tiles_->clear(count);
    } else {
      Value* begins = ir_.CreateICmpEQ(depth.first, i64(0));
      when(emitter_, begins, [&] { tiles_->clear(count); });
      when(emitter_, ir_.CreateNot(begins), [&] { tiles_->load(count, to); });
    }
    tiles_->multiply(operands(task.strip, first, count, depth));
    tiles_->store(count, to);
  };
  const auto finish = [&](Value* tile, Value* in_block) {
    const auto [first, done] = amx_row_span(emitter_, tile, row_count_, rows.count);
    Value* from = place(keeps_sums ? tile : in_block);
    from = byte_offset(emitter_, from, ir_.CreateMul(done, i64(tiles_->row_bytes())));
    TileWriter writer(emitter_, task.output, from, TileWriter::kStaged);
    Value* row = ir_.CreateAdd(rows.begin, ir_.CreateAdd(first, done));
    writer.finish(sizes_.columns(), ir_.CreateSub(row_count_, done), task.origin, row,
                  task.strip.column);
  };
  for_amx_blocks(emitter_, task.row_tiles, compute, [&](Value* tile, Value* in_block) {
    if (depth.is_last == nullptr) return finish(tile, in_block);
    when(emitter_, depth.is_last, [&] { finish(tile, in_block); });
  });
}

AmxOperands AmxProduct::operands(const AmxStrip& strip, Value* first, int count,
                                 const DepthBlock& depth) {
  AmxOperands operands;
  operands.a_stride = strip.a_stride;
  for (int i = 0; i < count; ++i) {
    Value* tile = ir_.CreateAdd(first, i64(i));
    Value* row = amx_row_span(emitter_, tile, row_count_, strip.rows.count).first;
    Value* at = byte_offset(emitter_, strip.a, ir_.CreateMul(row, strip.a_stride));
    Value* skipped = ir_.CreateMul(depth.first, i64(kAmxSteps * kAmxStepBytes));
    operands.a.push_back(byte_offset(emitter_, at, skipped));
  }
  operands.b_stride = sizes_.width * kAmxStepBytes;
  operands.b = byte_offset(emitter_, strip.b,
                           ir_.CreateMul(depth.first, i64(kAmxSteps * operands.b_stride)));
  operands.tiles = depth.tiles;
  operands.is_end = depth.is_last;
  if (strip.rows_at_opt > 0) {
    operands.prefetch_b(emitter_, (strip.rows_at_opt + 2 * kAmxRows - 1) / (2 * kAmxRows),
                        ir_.CreateUDiv(first, i64(2)), kPrefetchDistance);
  }
  return operands;
}

}  // namespace kiln::cpu
