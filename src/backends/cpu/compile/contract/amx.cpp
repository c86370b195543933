#include "backends/cpu/compile/contract/amx.h"

#include <algorithm>
#include <array>

#include <llvm/IR/IntrinsicsX86.h>

namespace kiln::cpu {

using llvm::Value;

namespace {

// Below this many rows a tile of B, which takes 16 loads, is read for too few products: vectors do them
// as fast, and take less of the machine.
constexpr int64_t kFewestRows = 5;
// A tile takes as long whatever its steps; vectors take longer from 2 or 3 on, and more registers.
constexpr int64_t kFewestSteps = kAmxSteps / 4;

constexpr int kTiles = 8;
// Where the configuration has the bytes of a row and the rows of a tile.
constexpr int64_t kColumnsPlace = 16, kRowsPlace = 48;

}  // namespace

bool multiplies_tiles(const Target& target, Steps steps, int64_t rows, int64_t run) {
  const bool has_tiles = (steps == Steps::Pairs && target.has(Feature::AmxBf16)) ||
                         (steps == Steps::Quads && target.has(Feature::AmxInt8));
  return has_tiles && rows >= kFewestRows && run >= kFewestSteps;
}

Value* amx_rows(Emitter& emitter, CountRange counts, Value* smallest) {
  auto& ir = emitter.ir();
  if (counts.high - counts.low <= 1 && counts.low >= 1) {
    const int64_t tiles = (counts.high + kAmxRows - 1) / kAmxRows;
    return ir.getInt64(std::min(counts.low, (counts.high + tiles - 1) / tiles));
  }
  Value* rows = smaller(emitter, smallest, ir.getInt64(kAmxRows));
  return ir.CreateBinaryIntrinsic(llvm::Intrinsic::smax, rows, ir.getInt64(1));
}

int amx_columns(int64_t panel_width, const ir::Dim& rest) {
  const int64_t tiles = panel_width / kAmxColumns;
  if (tiles % 2 == 0) return 2;
  return tiles == 3 && rest.is_constant(0) ? 3 : 1;
}

void for_amx_blocks(Emitter& emitter, Value* tiles, const std::function<void(Value*, int)>& compute,
                    const std::function<void(Value*, Value*)>& finish) {
  auto& ir = emitter.ir();
  emitter.loop(ir.getInt64(0), tiles, 2, [&](Value* first) {
    Value* left = smaller(emitter, ir.CreateSub(tiles, first), ir.getInt64(2));
    const auto* known = llvm::dyn_cast<llvm::ConstantInt>(tiles);
    if (known != nullptr && (known->getZExtValue() % 2 == 0 || known->isOne())) {
      compute(first, known->isOne() ? 1 : 2);
    } else {
      Value* is_whole = ir.CreateICmpEQ(left, ir.getInt64(2));
      when(emitter, is_whole, [&] { compute(first, 2); });
      when(emitter, ir.CreateNot(is_whole), [&] { compute(first, 1); });
    }
    if (!finish) return;
    emitter.loop(ir.getInt64(0), left, 1,
                 [&](Value* in_block) { finish(ir.CreateAdd(first, in_block), in_block); });
  });
}

AmxRowSpan amx_row_span(Emitter& emitter, Value* tile, Value* rows, Value* count) {
  auto& ir = emitter.ir();
  Value* next = ir.CreateMul(tile, rows);
  Value* first = smaller(emitter, next, ir.CreateSub(count, rows));
  return {first, ir.CreateSub(next, first)};
}

void AmxOperands::prefetch_b(Emitter& emitter, int64_t blocks, Value* block, int64_t distance) {
  auto& ir = emitter.ir();
  const int64_t lines = b_stride * kAmxSteps / 64;
  prefetch_lines = static_cast<int>((lines + blocks - 1) / std::max<int64_t>(1, blocks));
  Value* part = ir.CreateMul(block, ir.getInt64(int64_t{64} * prefetch_lines));
  prefetch_distance = ir.CreateAdd(part, ir.getInt64(distance));
}

// The tiles that hold operands of a tile of rows and of one of columns. Three tiles of columns leave one
// for each, and so does a rest, which has others.
struct AmxTiles::Registers {
  std::array<int, 2> a{};
  std::array<int, 2> b{};
};

AmxTiles::Registers AmxTiles::registers(bool of_rest) const {
  if (shape_.columns == 3) return {{6, 6}, {7, 7}};
  if (shape_.rest.is_constant(0)) return {{4, 5}, {6, 7}};
  return of_rest ? Registers{{5, 5}, {7, 7}} : Registers{{4, 4}, {6, 6}};
}

void AmxTiles::configure(Value* memory) {
  auto& ir = emitter_.ir();
  const auto place = [&](int64_t offset) {
    return byte_offset(emitter_, memory, ir.getInt64(offset));
  };
  llvm::Type* type = llvm::FixedVectorType::get(ir.getInt64Ty(), kAmxSlotPlace / 8);
  ir.CreateAlignedStore(llvm::Constant::getNullValue(type), memory, llvm::Align(1));
  ir.CreateStore(ir.getInt8(1), memory);  // the palette
  const bool has_rest = !shape_.rest.is_constant(0);
  // Tiles without rows are an error, even where none is used.
  Value* rest = emitter_.value_of(has_rest ? ir::max(shape_.rest, 1) : ir::Dim(kAmxSteps));
  const std::array<int, 2> left = registers(false).a, right = registers(false).b;
  const Registers of_rest = registers(true);
  for (int t = 0; t < kTiles; ++t) {
    Value *rows = ir.getInt64(kAmxRows), *bytes = ir.getInt64(kAmxRowBytes);
    const bool is_sum = t < 2 * shape_.columns;
    const bool is_left = !is_sum && (left[0] == t || left[1] == t);
    const bool is_right = !is_sum && (right[0] == t || right[1] == t);
    if (is_left) bytes = ir.getInt64(shape_.steps * kAmxStepBytes);
    if (is_right) rows = ir.getInt64(shape_.steps);
    if (is_sum || is_left || (has_rest && of_rest.a[0] == t)) rows = shape_.rows;
    if (has_rest && of_rest.a[0] == t) bytes = ir.CreateMul(rest, ir.getInt64(kAmxStepBytes));
    if (has_rest && of_rest.b[0] == t) rows = rest;
    ir.CreateAlignedStore(ir.CreateTrunc(bytes, ir.getInt16Ty()), place(kColumnsPlace + 2 * t),
                          llvm::Align(1));
    ir.CreateStore(ir.CreateTrunc(rows, ir.getInt8Ty()), place(kRowsPlace + t));
  }
  ir.CreateIntrinsic(llvm::Intrinsic::x86_ldtilecfg, {}, {memory});
}

void AmxTiles::release() {
  emitter_.ir().CreateIntrinsic(llvm::Intrinsic::x86_tilerelease, {}, {});
}

void AmxTiles::clear(int rows) {
  for (int t = 0; t < rows * shape_.columns; ++t)
    emitter_.ir().CreateIntrinsic(llvm::Intrinsic::x86_tilezero, {}, {tile(t)});
}

std::vector<Value*> AmxTiles::places(int rows, Value* memory) {
  std::vector<Value*> places;
  for (int r = 0; r < rows; ++r)
    places.push_back(byte_offset(emitter_, memory, emitter_.ir().getInt64(r * tile_bytes())));
  return places;
}

void AmxTiles::for_sums(const std::vector<Value*>& places, int64_t stride,
                        llvm::Intrinsic::ID what) {
  auto& ir = emitter_.ir();
  for (int r = 0; r < static_cast<int>(places.size()); ++r) {
    for (int c = 0; c < shape_.columns; ++c) {
      Value* at =
          byte_offset(emitter_, places[static_cast<size_t>(r)], ir.getInt64(c * kAmxRowBytes));
      ir.CreateIntrinsic(what, {}, {tile(sum(r, c)), at, ir.getInt64(stride)});
    }
  }
}

void AmxTiles::load(int rows, Value* from) {
  for_sums(places(rows, from), row_bytes(), llvm::Intrinsic::x86_tileloadd64);
}
void AmxTiles::store(int rows, Value* to) { store(places(rows, to), row_bytes()); }
void AmxTiles::store(const std::vector<Value*>& places, int64_t stride) {
  for_sums(places, stride, llvm::Intrinsic::x86_tilestored64);
}

// One tile of steps. The second tile of rows meets the columns in the other order: where they share a
// register, the last is there still.
void AmxTiles::add_products(const Registers& registers, const Place& at,
                            const AmxOperands& operands) {
  auto& ir = emitter_.ir();
  const auto product =
      shape_.has_bytes ? llvm::Intrinsic::x86_tdpbusd : llvm::Intrinsic::x86_tdpbf16ps;
  const auto load = [&](int number, Value* from, Value* stride) {
    ir.CreateIntrinsic(llvm::Intrinsic::x86_tileloadd64, {}, {tile(number), from, stride});
  };
  std::array<int, kTiles> held{};  // the column that a register holds
  held.fill(-1);
  const int columns = shape_.columns;
  for (int r = 0; r < static_cast<int>(at.a.size()); ++r) {
    const int a = registers.a[static_cast<size_t>(r)];
    load(a, at.a[static_cast<size_t>(r)], operands.a_stride);
    for (int i = 0; i < columns; ++i) {
      const int c = r == 0 ? i : columns - 1 - i;
      const int b = registers.b[static_cast<size_t>(c) % 2];
      if (held[static_cast<size_t>(b)] != c) {
        load(b, byte_offset(emitter_, at.b, ir.getInt64(c * kAmxRowBytes)),
             ir.getInt64(operands.b_stride));
      }
      held[static_cast<size_t>(b)] = c;
      ir.CreateIntrinsic(product, {}, {tile(sum(r, c)), tile(a), tile(b)});
    }
  }
}

Value* AmxTiles::multiply(const AmxOperands& operands) {
  auto& ir = emitter_.ir();
  const size_t rows = operands.a.size();
  const int64_t a_step = operands.a_step != 0 ? operands.a_step : shape_.steps * kAmxStepBytes;
  Emitter::Carried carried = operands.a;
  carried.push_back(operands.b);
  const auto place = [rows](const Emitter::Carried& values) {
    return Place{{values.begin(), values.begin() + static_cast<int64_t>(rows)}, values[rows]};
  };
  const auto step = [&](Value*, const Emitter::Carried& values) {
    add_products(registers(false), place(values), operands);
    for (int line = 0; line < operands.prefetch_lines; ++line) {
      Value* ahead = byte_offset(emitter_, values[rows], operands.prefetch_distance);
      Value* address = byte_offset(emitter_, ahead, ir.getInt64(int64_t{64} * line));
      fetch_line(emitter_, address, CacheLevel::Second);
    }
    Emitter::Carried next;
    for (size_t r = 0; r < rows; ++r)
      next.push_back(byte_offset(emitter_, values[r], ir.getInt64(a_step)));
    next.push_back(
        byte_offset(emitter_, values[rows], ir.getInt64(shape_.steps * operands.b_stride)));
    return next;
  };
  const Place end =
      place(emitter_.loop_carrying(ir.getInt64(0), operands.tiles, 1, std::move(carried), step));
  if (shape_.rest.is_constant(0)) return end.b;
  Value* rest = emitter_.value_of(shape_.rest);
  Value* there = operands.is_end == nullptr ? ir.getTrue() : operands.is_end;
  if (!shape_.rest.is_constant())
    there = ir.CreateAnd(there, ir.CreateICmpNE(rest, ir.getInt64(0)));
  const auto add_rest = [&] { add_products(registers(true), end, operands); };
  if (const auto* known = llvm::dyn_cast<llvm::ConstantInt>(there)) {
    if (known->isZero()) return end.b;
    add_rest();
  } else {
    when(emitter_, there, add_rest);
  }
  return byte_offset(emitter_, end.b, ir.CreateMul(rest, ir.getInt64(operands.b_stride)));
}

}  // namespace kiln::cpu
