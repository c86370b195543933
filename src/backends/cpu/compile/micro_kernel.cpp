#include "backends/cpu/compile/micro_kernel.h"

#include <algorithm>

namespace kiln::cpu {

using llvm::Value;

namespace {

// Independent FMAs that keep both pipes busy: a latency of 4 or 5 cycles, two a cycle.
constexpr int kIndependentSums = 8;

// How many consecutive steps have accumulators of their own.
int interleaved_steps(Tile tile) {
  int sums = tile.rows * tile.vectors;
  int wanted = (kIndependentSums + sums - 1) / sums;
  return wanted >= 3 ? 4 : wanted;
}

Value* load_float(Emitter& emitter, Value* address) {
  return emitter.ir().CreateAlignedLoad(emitter.ir().getFloatTy(), address, llvm::Align(4));
}

// One step at byte offsets `a` and `b`.
Accumulators multiply_step(Emitter& emitter, Tile tile, const TileOperands& operands, Value* a, Value* b,
                           const Accumulators& sums) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes;
  std::vector<Value*> columns;
  for (int v = 0; v < tile.vectors; ++v) {
    Value* address = byte_offset(emitter, b, ir.getInt64(v * lanes * 4));
    columns.push_back(
        ir.CreateAlignedLoad(vector_type(emitter), address, llvm::Align(operands.b_alignment)));
  }
  Accumulators result;
  for (int r = 0; r < tile.rows; ++r) {
    Value* scalar = load_float(emitter, byte_offset(emitter, a, operands.rows[r]));
    Value* splat = ir.CreateVectorSplat(lanes, scalar);
    for (int v = 0; v < tile.vectors; ++v) {
      result.push_back(ir.CreateIntrinsic(llvm::Intrinsic::fma, {vector_type(emitter)},
                                          {splat, columns[v], sums[r * tile.vectors + v]}));
    }
  }
  return result;
}

Accumulators multiply_at(Emitter& emitter, Tile tile, const TileOperands& operands, Value* step,
                         const Accumulators& sums) {
  auto& ir = emitter.ir();
  Value* a = byte_offset(emitter, operands.a, ir.CreateMul(step, operands.a_step));
  Value* b = byte_offset(emitter, operands.b, ir.CreateMul(step, operands.b_step));
  return multiply_step(emitter, tile, operands, a, b, sums);
}

// Runs [0, steps - steps % ways) with `ways` sets of sums and adds them up.
Accumulators multiply_interleaved(Emitter& emitter, Tile tile, const TileOperands& operands, Value* steps,
                                  const Accumulators& sums, int ways) {
  auto& ir = emitter.ir();
  const size_t count = sums.size();
  std::vector<Value*> carried = sums;
  for (int w = 1; w < ways; ++w) {
    Accumulators zeros = zero_tile(emitter, tile);
    carried.insert(carried.end(), zeros.begin(), zeros.end());
  }
  auto body = [&](Value* step, const std::vector<Value*>& values) {
    std::vector<Value*> next;
    for (int w = 0; w < ways; ++w) {
      Accumulators set(values.begin() + w * count, values.begin() + (w + 1) * count);
      set = multiply_at(emitter, tile, operands, ir.CreateAdd(step, ir.getInt64(w)), set);
      next.insert(next.end(), set.begin(), set.end());
    }
    return next;
  };
  carried = emitter.loop_carrying(ir.getInt64(0), steps, ways, carried, body);
  Accumulators total(carried.begin(), carried.begin() + count);
  for (size_t i = count; i < carried.size(); ++i) {
    total[i % count] = ir.CreateFAdd(total[i % count], carried[i]);
  }
  return total;
}

}  // namespace

int most_rows(const Target& target, int vectors) {
  return std::max(1, (target.registers - vectors - 1) / vectors);
}

Accumulators zero_tile(Emitter& emitter, Tile tile) {
  return Accumulators(static_cast<size_t>(tile.rows) * tile.vectors,
                      llvm::Constant::getNullValue(vector_type(emitter)));
}

Accumulators multiply_run(Emitter& emitter, Tile tile, const TileOperands& operands, Value* steps,
                          const Accumulators& accumulators) {
  auto& ir = emitter.ir();
  const int ways = interleaved_steps(tile);
  Value* begin = ir.getInt64(0);
  Accumulators sums = accumulators;
  if (ways > 1) {
    Value* whole = ir.CreateAnd(steps, ir.getInt64(-ways));
    sums = multiply_interleaved(emitter, tile, operands, whole, sums, ways);
    begin = whole;
  }
  return emitter.loop_carrying(begin, steps, 1, sums, [&](Value* step, const std::vector<Value*>& values) {
    return multiply_at(emitter, tile, operands, step, values);
  });
}

Value* byte_offset(Emitter& emitter, Value* base, Value* offset) {
  auto& ir = emitter.ir();
  return ir.CreateGEP(ir.getInt8Ty(), base, offset);
}

llvm::Type* vector_type(Emitter& emitter) {
  return llvm::FixedVectorType::get(emitter.ir().getFloatTy(), emitter.target().lanes);
}

}  // namespace kiln::cpu
