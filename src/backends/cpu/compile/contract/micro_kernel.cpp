#include "backends/cpu/compile/contract/micro_kernel.h"

#include <algorithm>

namespace kiln::cpu {

using llvm::Value;

namespace {

// Independent FMAs that keep both pipes busy: a latency of 4 or 5 cycles, two a cycle.
constexpr int kIndependentSums = 8;

// Bytes between what is read of B and what is prefetched: some hundreds of cycles at the pace of a
// tile.
constexpr int64_t kPrefetchDistance = 4096;

// How many consecutive steps have accumulators of their own.
int interleaved_steps(Tile tile) {
  int sums = tile.rows * tile.vectors * tile.vector_registers();
  int wanted = (kIndependentSums + sums - 1) / sums;
  return wanted >= 3 ? 4 : wanted;
}

void prefetch(Emitter& emitter, Value* address) {
  auto& ir = emitter.ir();
  ir.CreateIntrinsic(llvm::Intrinsic::prefetch, {ir.getPtrTy()},
                     {address, ir.getInt32(0), ir.getInt32(3), ir.getInt32(1)});
}

// One step, A and B at these addresses.
Accumulators multiply_step(Emitter& emitter, Tile tile, const TileOperands& operands, Value* a,
                           Value* b, const Accumulators& sums) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  const int64_t vector_bytes = lanes * ElementFormat(operands.b_format.memory).bytes();
  std::vector<Value*> columns;
  for (int v = 0; v < tile.vectors; ++v) {
    Value* address = byte_offset(emitter, b, ir.getInt64(v * vector_bytes));
    columns.push_back(operands.b_format.load(ir, address, lanes, operands.b_alignment));
  }
  if (operands.prefetch_b) {
    for (int64_t line = 0; line < tile.vectors * vector_bytes; line += 64) {
      prefetch(emitter, byte_offset(emitter, b, ir.getInt64(kPrefetchDistance + line)));
    }
  }
  Accumulators result;
  for (int r = 0; r < tile.rows; ++r) {
    Value* scalar = operands.a_format.load(ir, byte_offset(emitter, a, operands.rows[r]));
    Value* splat = ir.CreateVectorSplat(lanes, scalar);
    for (int v = 0; v < tile.vectors; ++v) {
      result.push_back(ir.CreateIntrinsic(llvm::Intrinsic::fma, {splat->getType()},
                                          {splat, columns[v], sums[r * tile.vectors + v]}));
    }
  }
  return result;
}

// Steps [begin, end), a multiple of `ways`.
struct StepRange {
  Value* begin = nullptr;
  Value* end = nullptr;
  int ways = 1;
};

// Runs the steps with `ways` sets of sums, and leaves their total.
Run multiply_interleaved(Emitter& emitter, Tile tile, const TileOperands& operands,
                         const StepRange& steps, Run run) {
  const int ways = steps.ways;
  auto& ir = emitter.ir();
  const size_t count = run.sums.size();
  std::vector<Value*> carried{run.a, run.b};
  carried.insert(carried.end(), run.sums.begin(), run.sums.end());
  carried.resize(2 + count * ways, llvm::Constant::getNullValue(vector_type(emitter, tile.sum)));
  auto body = [&](Value*, const std::vector<Value*>& values) {
    std::vector<Value*> next(values);
    for (int w = 0; w < ways; ++w) {
      const auto first = next.begin() + 2 + w * count;
      Accumulators set(first, first + count);
      set = multiply_step(emitter, tile, operands, next[0], next[1], set);
      std::copy(set.begin(), set.end(), first);
      next[0] = byte_offset(emitter, next[0], operands.a_step);
      next[1] = byte_offset(emitter, next[1], operands.b_step);
    }
    return next;
  };
  carried = emitter.loop_carrying(steps.begin, steps.end, ways, carried, body);
  Run result{carried[0], carried[1],
             Accumulators(carried.begin() + 2, carried.begin() + 2 + count)};
  for (size_t i = count; i < carried.size() - 2; ++i) {
    result.sums[i % count] = ir.CreateFAdd(result.sums[i % count], carried[i + 2]);
  }
  return result;
}

}  // namespace

int most_rows(const Target& target, int vectors, DType sum) {
  const int registers = vectors * Tile{1, vectors, sum}.vector_registers();
  return std::max(1, (target.registers - registers - 1) / registers);
}

Accumulators zero_tile(Emitter& emitter, Tile tile) {
  return Accumulators(static_cast<size_t>(tile.rows) * tile.vectors,
                      llvm::Constant::getNullValue(vector_type(emitter, tile.sum)));
}

Run multiply_run(Emitter& emitter, Tile tile, const TileOperands& operands, Value* steps, Run run) {
  auto& ir = emitter.ir();
  const int ways = interleaved_steps(tile);
  Value* begin = ir.getInt64(0);
  if (ways > 1) {
    Value* whole = ir.CreateAnd(steps, ir.getInt64(-ways));
    run = multiply_interleaved(emitter, tile, operands, {begin, whole, ways}, std::move(run));
    begin = whole;
  }
  return multiply_interleaved(emitter, tile, operands, {begin, steps, 1}, std::move(run));
}

Accumulators multiply_run(Emitter& emitter, Tile tile, const TileOperands& operands, Value* steps) {
  return multiply_run(emitter, tile, operands, steps,
                      Run{operands.a, operands.b, zero_tile(emitter, tile)})
      .sums;
}

Value* byte_offset(Emitter& emitter, Value* base, Value* offset) {
  auto& ir = emitter.ir();
  return ir.CreateGEP(ir.getInt8Ty(), base, offset);
}

llvm::Type* vector_type(Emitter& emitter, DType dtype) {
  return ElementFormat(dtype).register_type(emitter.ir(), emitter.target().lanes());
}

}  // namespace kiln::cpu
