#include "backends/cpu/compile/contract/contraction.h"

#include <algorithm>
#include <set>

#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// An epilogue of more operations is run over the stored tile, not on the accumulators: the same
// speed, far less code. Measured with GELU after 128 x 768 x 768: 5 to 22 KB of code in line, 1.9 to
// 3.6 KB over the stored tile, the time within 3 percent.
constexpr int64_t kDirectOperations = 8;
// The same when its code would be repeated for many sizes of tiles.
constexpr size_t kDirectSizes = 3;
// Of the columns of a row that is staged.
constexpr int64_t kUnrolledOperations = 64;

// Rows from which wide panels pay; see panel_width().
constexpr int64_t kManyRows = 512;
// Keeps what is computed from estimates far from overflow.
constexpr int64_t kLargestEstimate = int64_t{1} << 40;
// 14 rows of two vectors are what 32 registers hold: taller tiles would have one vector, and be bound
// by loads. Run-time counts need code for every size up to the largest, and 8 rows of three vectors
// run at the ceiling already.
constexpr int kMostTileRows = 14, kMostTileRowsDynamic = 8;

std::set<int> tile_sizes(CountRange counts, int most) {
  std::set<int> sizes;
  const int64_t low = std::max<int64_t>(counts.low, 1);
  // From most * most on there are only tiles of most and most - 1 rows, and `most` counts have
  // both.
  const int64_t high = std::min(counts.high, std::max<int64_t>(low, most * most) + most);
  for (int64_t count = low; count <= high; ++count) {
    int64_t tiles = (count + most - 1) / most;
    sizes.insert(static_cast<int>(count / tiles));
    if (count % tiles != 0) sizes.insert(static_cast<int>(count / tiles) + 1);
    if (static_cast<int>(sizes.size()) == most) break;
  }
  return sizes;
}

}  // namespace

Output output_of(Emitter& emitter, const plan::MatMul& matmul) {
  const auto& strides = matmul.out.strides;
  Output output;
  output.bind_row = [&emitter, &matmul](Value* row) { emitter.bind(matmul.m.index, row); };
  output.column = matmul.n.index;
  output.columns = matmul.n.extent();
  output.sum = matmul.formats.accumulator;
  output.buffer = matmul.out.buffer;
  output.row_stride = strides[strides.size() - 2];
  output.column_stride = strides.back();
  output.epilogue = matmul.epilogue;
  return output;
}

Value* view_address(Emitter& emitter, const std::vector<plan::Loop>& batch,
                    const plan::View& view) {
  auto& ir = emitter.ir();
  Value* offset = emitter.value_of(view.offset);
  for (size_t i = 0; i < batch.size(); ++i) {
    Value* index = emitter.value_of(ir::Dim(batch[i].index));
    offset = ir.CreateAdd(offset, ir.CreateMul(index, emitter.value_of(view.strides[i])));
  }
  const auto& buffer = emitter.program().buffers[static_cast<size_t>(view.buffer)];
  const int64_t size = ElementFormat(buffer.type.dtype).bytes();
  return byte_offset(emitter, emitter.buffer(view.buffer), ir.CreateMul(offset, ir.getInt64(size)));
}

CountRange range_of(const ir::Dim& dim) {
  return {std::max<int64_t>(dim.lower_bound(), 0), dim.upper_bound()};
}

Span even_part(Emitter& emitter, Value* part, Value* parts, Value* count) {
  auto& ir = emitter.ir();
  // The first `larger` parts have one more than the others. No product is above `count`.
  Value* size = ir.CreateUDiv(count, parts);
  Value* larger = ir.CreateSub(count, ir.CreateMul(size, parts));
  Value* begin = ir.CreateAdd(ir.CreateMul(part, size),
                              ir.CreateBinaryIntrinsic(llvm::Intrinsic::umin, part, larger));
  Value* extra = ir.CreateZExt(ir.CreateICmpULT(part, larger), ir.getInt64Ty());
  return {begin, ir.CreateAdd(size, extra)};
}

CountRange part_range(CountRange count, int64_t most) {
  if (count.high <= most) return count;
  if (count.low == count.high) {
    int64_t parts = (count.high + most - 1) / most;
    return {count.high / parts, (count.high + parts - 1) / parts};
  }
  return {std::min(count.low, (most + 1) / 2), most};
}

size_t count_sizes(const RowTiles& tiles) { return tile_sizes(tiles.range, tiles.most).size(); }

void for_row_tiles(Emitter& emitter, const RowTiles& tiles,
                   const std::function<void(Value*, int)>& body,
                   const std::function<void(Value*, Value*)>& after) {
  auto& ir = emitter.ir();
  const std::set<int> sizes = tile_sizes(tiles.range, tiles.most);
  if (sizes.empty()) return;
  Value* most = ir.getInt64(tiles.most);
  Value* parts = ir.CreateUDiv(ir.CreateAdd(tiles.count, ir.getInt64(tiles.most - 1)), most);
  Value* divisor = ir.CreateBinaryIntrinsic(llvm::Intrinsic::umax, parts, ir.getInt64(1));
  Value* size = ir.CreateUDiv(tiles.count, divisor);
  Value* larger = ir.CreateSub(tiles.count, ir.CreateMul(size, parts));
  emitter.loop(ir.getInt64(0), parts, 1, [&](Value* tile) {
    Value* first = ir.CreateAdd(ir.CreateMul(tile, size), smaller(emitter, tile, larger));
    Value* rows =
        ir.CreateAdd(size, ir.CreateZExt(ir.CreateICmpULT(tile, larger), ir.getInt64Ty()));
    if (sizes.size() == 1) {
      body(first, *sizes.begin());
    } else {
      llvm::Function* function = ir.GetInsertBlock()->getParent();
      auto* join = llvm::BasicBlock::Create(ir.getContext(), "tile.end", function);
      // The last size is the default: every count that can occur has a case.
      llvm::SwitchInst* choice = nullptr;
      llvm::BasicBlock* origin = ir.GetInsertBlock();
      for (auto size_it = sizes.begin(); size_it != sizes.end(); ++size_it) {
        auto* block = llvm::BasicBlock::Create(ir.getContext(), "tile", function);
        if (choice == nullptr) {
          ir.SetInsertPoint(origin);
          choice = ir.CreateSwitch(rows, block, static_cast<unsigned>(sizes.size()));
        } else {
          choice->addCase(ir.getInt64(*size_it), block);
        }
        ir.SetInsertPoint(block);
        body(first, *size_it);
        ir.CreateBr(join);
      }
      ir.SetInsertPoint(join);
    }
    if (after) after(first, rows);
  });
}

TileWriter::TileWriter(Emitter& emitter, Output output, Value* staging, size_t sizes)
    : emitter_(emitter), output_(std::move(output)), staging_(staging) {
  direct_ = plan::operation_count(output_.epilogue) <= kDirectOperations && sizes <= kDirectSizes &&
            output_.column_stride.is_constant(1);
}

int64_t TileWriter::staging_bytes(const Target& target, DType sum, DType result) {
  const int64_t tile = int64_t{target.registers} * target.vector_bits / 8;
  return tile +
         target.lanes() * static_cast<int64_t>(std::max(dtype_size(sum), dtype_size(result)));
}

void TileWriter::write(Tile tile, const Accumulators& sums, Value* origin, Value* first_row,
                       Value* first_column) {
  auto& ir = emitter_.ir();
  const int lanes = emitter_.target().lanes();
  const bool whole = ir::provably_divisible(output_.columns, tile.vectors * lanes);
  const int64_t vector_alignment = emitter_.target().vector_bits / 8;
  for (int r = 0; r < tile.rows; ++r) {
    Value* row = direct_ ? ir.CreateAdd(first_row, ir.getInt64(r)) : nullptr;
    if (direct_) output_.bind_row(row);
    for (int v = 0; v < tile.vectors; ++v) {
      Value* sum = sums[static_cast<size_t>(r) * tile.vectors + v];
      if (direct_) {
        write_vector(sum, origin, row, ir.CreateAdd(first_column, ir.getInt64(v * lanes)), whole);
      } else {
        const int64_t offset = (static_cast<int64_t>(r) * tile.vectors + v) * sum_vector_bytes();
        Value* address = byte_offset(emitter_, staging_, ir.getInt64(offset));
        ElementFormat(output_.sum).store(ir, sum, address, vector_alignment);
      }
    }
  }
}

void TileWriter::finish(int vectors, Value* rows, Value* origin, Value* first_row,
                        Value* first_column) {
  if (direct_) return;
  auto& ir = emitter_.ir();
  const int lanes = emitter_.target().lanes();
  Value* width = smaller(emitter_, ir.getInt64(vectors * lanes),
                         ir.CreateSub(output_.column_end, first_column));
  const bool whole = ir::provably_divisible(output_.columns, lanes);
  // Where all vectors are there and the code is short, what the columns of a row share is computed once.
  const bool is_unrolled = ir::provably_divisible(output_.columns, vectors * lanes) &&
                           vectors * plan::operation_count(output_.epilogue) <= kUnrolledOperations;
  const ElementFormat format(output_.sum);
  emitter_.loop(ir.getInt64(0), rows, 1, [&](Value* r) {
    Value* row = ir.CreateAdd(first_row, r);
    Value* staged =
        byte_offset(emitter_, staging_, ir.CreateMul(r, ir.getInt64(vectors * sum_vector_bytes())));
    output_.bind_row(row);
    const auto write = [&](Value* c) {
      Value* offset = ir.CreateMul(c, ir.getInt64(format.bytes()));
      Value* address = byte_offset(emitter_, staged, offset);
      Value* sum = format.load(ir, address, lanes, emitter_.target().vector_bits / 8);
      write_vector(sum, origin, row, ir.CreateAdd(first_column, c), whole);
    };
    if (!is_unrolled) return emitter_.loop(ir.getInt64(0), width, lanes, write);
    for (int v = 0; v < vectors; ++v) write(ir.getInt64(v * lanes));
  });
}

void TileWriter::write_vector(Value* sum, Value* origin, Value* row, Value* column, bool whole) {
  auto& ir = emitter_.ir();
  Lanes lanes{output_.column, emitter_.target().lanes(), nullptr};
  if (!whole) lanes.mask = mask_below(emitter_, column, output_.column_end);
  emitter_.bind(output_.column, column);
  Leaves leaves;
  leaves.accumulator = sum;
  leaves.contracts = output_.sum == DType::I32;
  Value* value = to_memory(ir, emitter_.emit(output_.epilogue, lanes, leaves), result());
  Value* element = ir.CreateAdd(ir.CreateMul(row, emitter_.value_of(output_.row_stride)),
                                ir.CreateMul(column, emitter_.value_of(output_.column_stride)));
  const int64_t size = ElementFormat(result()).bytes();
  Value* address = byte_offset(emitter_, origin, ir.CreateMul(element, ir.getInt64(size)));
  if (!output_.column_stride.is_constant(1)) {
    Value* left = ir.CreateSub(output_.column_end, column);
    store_lanes(value, address, smaller(emitter_, ir.getInt64(lanes.count), left));
  } else if (lanes.mask != nullptr) {
    ir.CreateMaskedStore(value, address, llvm::Align(size), lanes.mask);
  } else {
    ir.CreateAlignedStore(value, address, llvm::Align(size));
  }
}

// Lane after lane, through memory.
void TileWriter::store_lanes(Value* value, Value* address, Value* valid) {
  auto& ir = emitter_.ir();
  llvm::Type* scalar = value->getType()->getScalarType();
  const int64_t size = ElementFormat(result()).bytes();
  const int64_t tile = int64_t{emitter_.target().registers} * emitter_.target().vector_bits / 8;
  Value* slot = output_.lane_slot;
  if (slot == nullptr) slot = byte_offset(emitter_, staging_, ir.getInt64(tile));
  ir.CreateAlignedStore(value, slot, llvm::Align(size));
  Value* stride = ir.CreateMul(emitter_.value_of(output_.column_stride), ir.getInt64(size));
  emitter_.loop(ir.getInt64(0), valid, 1, [&](Value* lane) {
    Value* from = byte_offset(emitter_, slot, ir.CreateMul(lane, ir.getInt64(size)));
    Value* element = ir.CreateAlignedLoad(scalar, from, llvm::Align(size));
    ir.CreateAlignedStore(element, byte_offset(emitter_, address, ir.CreateMul(lane, stride)),
                          llvm::Align(size));
  });
}

// All of a panel, where there are registers for more than two rows of it; else two vectors, which
// leave room for 6.
TileWidth tile_width(const Target& target, int64_t panel_width) {
  const int vectors = target.registers >= 32 ? static_cast<int>(panel_width / target.lanes()) : 2;
  return {vectors, static_cast<int64_t>(vectors) * target.lanes()};
}

TileWidth tile_width(const Target& target, int64_t panel_width, Tile most) {
  const int whole = static_cast<int>(panel_width / target.lanes());
  const TileWidth usual = tile_width(target, panel_width);
  for (most.vectors = whole; most.vectors > usual.vectors; --most.vectors) {
    if (whole % most.vectors == 0 && most.registers() <= target.registers)
      return {most.vectors, int64_t{most.vectors} * target.lanes()};
  }
  return usual;
}

void for_tasks(Emitter& emitter, size_t count, const TaskBody& body) {
  for_tasks(emitter, {emitter.task_begin(), emitter.task_end()}, count, body);
}

void for_tasks(Emitter& emitter, const Numbers& numbers, size_t count, const TaskBody& body) {
  KILN_CHECK(emitter.keys() != nullptr && count * sizeof(int64_t) <= engine::kKeyBytes,
             "a place for keys");
  auto& ir = emitter.ir();
  const auto place = [&](size_t i) {
    return ir.CreateConstGEP1_64(ir.getInt64Ty(), emitter.keys(), i);
  };
  Emitter::Carried keys;
  for (size_t i = 0; i < count; ++i) keys.push_back(ir.CreateLoad(ir.getInt64Ty(), place(i)));
  keys = emitter.loop_carrying(numbers.begin, numbers.end, 1, keys, body);
  for (size_t i = 0; i < count; ++i) ir.CreateStore(keys[i], place(i));
  ir::Dim& bytes = emitter.interface().scratch_bytes;
  bytes = bytes + static_cast<int64_t>(engine::kKeyBytes);
}

int64_t positive_opt(const ir::Dim& dim) {
  return std::clamp<int64_t>(dim.at_opt(), 1, kLargestEstimate);
}

int64_t positive_least(const ir::Dim& dim) {
  return std::clamp<int64_t>(dim.lower_bound(), 1, kLargestEstimate);
}

Value* mask_below(Emitter& emitter, Value* first, Value* limit) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  Value* left = smaller(emitter, ir.CreateSub(limit, first), ir.getInt64(lanes));
  std::vector<llvm::Constant*> indices;
  for (int i = 0; i < lanes; ++i) indices.push_back(ir.getInt32(i));
  Value* bound = ir.CreateVectorSplat(lanes, ir.CreateTrunc(left, ir.getInt32Ty()));
  return ir.CreateICmpSLT(llvm::ConstantVector::get(indices), bound);
}

void bind_flat(Emitter& emitter, const std::vector<plan::Loop>& loops, Value* flat) {
  auto& ir = emitter.ir();
  for (size_t i = loops.size(); i-- > 0;) {
    Value* extent = emitter.value_of(loops[i].extent());
    Value* next = i == 0 ? nullptr : ir.CreateUDiv(flat, extent);
    emitter.bind(loops[i].index, i == 0 ? flat : ir.CreateSub(flat, ir.CreateMul(next, extent)));
    flat = next;
  }
}

Value* smaller(Emitter& emitter, Value* a, Value* b) {
  return emitter.ir().CreateBinaryIntrinsic(llvm::Intrinsic::smin, a, b);
}

void when(Emitter& emitter, Value* condition, const std::function<void()>& body) {
  auto& ir = emitter.ir();
  llvm::Function* function = ir.GetInsertBlock()->getParent();
  auto* then = llvm::BasicBlock::Create(ir.getContext(), "then", function);
  auto* join = llvm::BasicBlock::Create(ir.getContext(), "join", function);
  ir.CreateCondBr(condition, then, join);
  ir.SetInsertPoint(then);
  body();
  ir.CreateBr(join);
  ir.SetInsertPoint(join);
}

// What a column of a panel costs, in percent of one in a panel of 48. As measured with the tile that
// each width takes (AVX-512, one thread, percent of the multiply-add ceiling, K from 64 to 4096):
//   48 columns, 8 rows: 98 to 100      32 columns, 12 to 14 rows: 98 to 100
//   16 columns, 28 rows: 91 to 94, one load a multiply-add: 110, with its tiles of 14 rows
//   64 columns, 6 rows: 98 to 100 from the caches, but B is read again for every 6 rows and not for
//   every 8 to 14: 102. From 512 rows on, A is what is read most, once for each panel, and the widest
//   panels win: 12544 x 64 x 576 went from 175 to 198 GF/s. 99 breaks the tie where both divide N.
// The padding of the last panel counts as columns, so that N decides unless widths waste the same.
// AVX2 walks every width by 16 columns; there only the padding matters.
int64_t panel_width(int64_t columns, int64_t rows) {
  const bool many_rows = rows >= kManyRows;
  int64_t best = 0, best_cost = 0;
  for (int64_t width : {64, 48, 32, 16}) {
    const int64_t cost = width == 16 ? 110 : width == 64 ? (many_rows ? 99 : 102) : 100;
    const int64_t total = (columns + width - 1) / width * width * cost;
    if (best == 0 || total < best_cost) {
      best = width;
      best_cost = total;
    }
  }
  return best;
}

int tile_rows(const Target& target, int vectors, CountRange counts, DType sum, Steps steps) {
  const int most = counts.low == counts.high ? kMostTileRows : kMostTileRowsDynamic;
  return std::min(most_rows(target, {0, vectors, sum, steps}), most);
}

}  // namespace kiln::cpu
