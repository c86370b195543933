#include "backends/cpu/compile/contract/micro_kernel.h"

#include <algorithm>

#include <llvm/IR/InlineAsm.h>
#include <llvm/IR/IntrinsicsX86.h>

namespace kiln::cpu {

using llvm::Value;

namespace {

// Independent FMAs that keep both pipes busy: a latency of 4 or 5 cycles, two a cycle.
constexpr int kIndependentSums = 8;

// Bytes between what is read of B and what is prefetched: some hundreds of cycles at the pace of a
// tile.
constexpr int64_t kPrefetchDistance = 4096;

// How many consecutive steps have accumulators of their own.
int interleaved_steps(const Target& target, Tile tile) {
  const int sums = tile.rows * tile.vectors * tile.vector_registers();
  const int wanted = (kIndependentSums + sums - 1) / sums;
  int ways = wanted >= 3 ? 4 : wanted;
  while (ways > 1 && tile.registers() + (ways - 1) * sums > target.registers) ways /= 2;
  return ways;
}

// As whole steps, twice as far where a tile takes a part of a panel: it would fetch what other tiles take. `bytes`
// are those of a step that the tile reads.
int64_t prefetch_distance(const TileOperands& operands, int64_t bytes) {
  const auto* step = llvm::dyn_cast<llvm::ConstantInt>(operands.b_step);
  const int64_t whole = step == nullptr ? 0 : step->getSExtValue();
  if (whole <= bytes) return kPrefetchDistance;
  return (2 * kPrefetchDistance + whole - 1) / whole * whole;
}

// What is ahead of a step of B of so many bytes.
void prefetch(Emitter& emitter, const TileOperands& operands, Value* b, int64_t bytes) {
  auto& ir = emitter.ir();
  const int64_t distance = prefetch_distance(operands, bytes);
  if (operands.next_b != nullptr) return;
  for (int64_t line = 0; operands.prefetch_b && line < bytes; line += 64) {
    fetch_line(emitter, byte_offset(emitter, b, ir.getInt64(distance + line)));
  }
}

// The share of so many steps in the panel after this one.
void prefetch_next(Emitter& emitter, const TileOperands& operands, Value* step, int steps) {
  if (operands.next_b == nullptr) return;
  auto& ir = emitter.ir();
  Value* first =
      byte_offset(emitter, operands.next_b, ir.CreateMul(step, ir.getInt64(operands.next_bytes)));
  for (int64_t line = 0; line < steps * operands.next_bytes; line += 64) {
    fetch_line(emitter, byte_offset(emitter, first, ir.getInt64(line)), CacheLevel::Second);
  }
}

// A step is at these addresses.
struct StepAt {
  Value *a = nullptr, *b = nullptr;
};

// The vectors of pairs of B, a lane of 32 bits each.
std::vector<Value*> load_pairs(Emitter& emitter, Tile tile, const TileOperands& operands, Value* b,
                               bool prefetches = true) {
  auto& ir = emitter.ir();
  llvm::Type* type = llvm::FixedVectorType::get(ir.getInt32Ty(), emitter.target().lanes());
  const llvm::Align align(operands.b_alignment == 0 ? 4 : operands.b_alignment);
  const int64_t vector_bytes = int64_t{emitter.target().lanes()} * 4;
  std::vector<Value*> pairs;
  for (int v = 0; v < tile.vectors; ++v) {
    Value* at = byte_offset(emitter, b, ir.getInt64(v * vector_bytes));
    pairs.push_back(ir.CreateAlignedLoad(type, at, align));
  }
  if (prefetches) prefetch(emitter, operands, b, tile.vectors * vector_bytes);
  return pairs;
}

// `half`: the second of each pair of A is zero, and not read.
Accumulators multiply_pairs(Emitter& emitter, Tile tile, const TileOperands& operands, StepAt at,
                            const Accumulators& sums, bool half = false) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  llvm::Type* type = llvm::FixedVectorType::get(ir.getBFloatTy(), 2 * lanes);
  const std::vector<Value*> pairs = load_pairs(emitter, tile, operands, at.b);
  Accumulators result;
  for (int r = 0; r < tile.rows; ++r) {
    Value* row = byte_offset(emitter, at.a, operands.rows[r]);
    llvm::Type* element = half ? ir.getInt16Ty() : ir.getInt32Ty();
    Value* pair = ir.CreateAlignedLoad(element, row, llvm::Align(2));
    if (half) pair = ir.CreateZExt(pair, ir.getInt32Ty());
    Value* splat = ir.CreateBitCast(ir.CreateVectorSplat(lanes, pair), type);
    for (int v = 0; v < tile.vectors; ++v)
      result.push_back(ir.CreateIntrinsic(
          llvm::Intrinsic::x86_avx512bf16_dpbf16ps_512, {},
          {sums[r * tile.vectors + v], splat, ir.CreateBitCast(pairs[v], type)}));
  }
  return result;
}

// All rows with the first of each pair, then all with the second. B is loaded for each: LLVM would
// keep it in registers instead, and the accumulators elsewhere.
Accumulators multiply_widened_pairs(Emitter& emitter, Tile tile, const TileOperands& operands,
                                    StepAt at, Accumulators sums) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  for (int64_t second = 0; second < 2; ++second) {
    if (second == 1) at.b = another_name(emitter, at.b);
    std::vector<Value*> columns;
    for (Value* pair : load_pairs(emitter, tile, operands, at.b, second == 0)) {
      Value* bits = second == 0 ? ir.CreateShl(pair, 16) : ir.CreateAnd(pair, 0xFFFF0000);
      columns.push_back(ir.CreateBitCast(bits, vector_type(emitter, DType::F32)));
    }
    for (int r = 0; r < tile.rows; ++r) {
      Value* row = byte_offset(emitter, at.a, operands.rows[r]);
      Value* scalar =
          ElementFormat(DType::F32).load(ir, byte_offset(emitter, row, ir.getInt64(4 * second)));
      Value* splat = ir.CreateVectorSplat(lanes, scalar);
      for (int v = 0; v < tile.vectors; ++v) {
        Value*& sum = sums[static_cast<size_t>(r) * tile.vectors + v];
        sum = fma(emitter, splat, columns[v], sum);
      }
    }
  }
  return sums;
}

Value* add(Emitter& emitter, DType dtype, Value* a, Value* b) {
  return is_floating(dtype) ? emitter.ir().CreateFAdd(a, b) : emitter.ir().CreateAdd(a, b);
}

// The four bytes of A of a row, in all lanes.
Value* splat_quad(Emitter& emitter, const TileOperands& operands, Value* a, int row) {
  auto& ir = emitter.ir();
  Value* address = byte_offset(emitter, a, operands.rows[row]);
  Value* quad = ir.CreateAlignedLoad(ir.getInt32Ty(), address, llvm::Align(1));
  return ir.CreateVectorSplat(emitter.target().lanes(), quad);
}

Accumulators multiply_quads(Emitter& emitter, Tile tile, const TileOperands& operands, StepAt at,
                            const Accumulators& sums) {
  auto& ir = emitter.ir();
  const auto product = emitter.target().lanes() == 16 ? llvm::Intrinsic::x86_avx512_vpdpbusd_512
                                                      : llvm::Intrinsic::x86_avx512_vpdpbusd_256;
  const std::vector<Value*> quads = load_pairs(emitter, tile, operands, at.b);
  Accumulators result;
  for (int r = 0; r < tile.rows; ++r) {
    Value* splat = splat_quad(emitter, operands, at.a, r);
    for (int v = 0; v < tile.vectors; ++v)
      result.push_back(
          ir.CreateIntrinsic(product, {}, {sums[r * tile.vectors + v], splat, quads[v]}));
  }
  return result;
}

// All rows with the first and third of each quad, then all with the second and fourth. Rows follow each
// other: LLVM would compute the products of several first, and have no registers for them.
Accumulators multiply_widened_quads(Emitter& emitter, Tile tile, const TileOperands& operands,
                                    StepAt at, Accumulators sums) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  llvm::Type* type = llvm::FixedVectorType::get(ir.getInt16Ty(), 2 * lanes);
  const auto product =
      lanes == 16 ? llvm::Intrinsic::x86_avx512_pmaddw_d_512 : llvm::Intrinsic::x86_avx2_pmadd_wd;
  for (int second = 0; second < 2; ++second) {
    if (second == 1) at.b = another_name(emitter, at.b);
    std::vector<Value*> columns;
    for (Value* quad : load_pairs(emitter, tile, operands, at.b, second == 0)) {
      Value* words = ir.CreateBitCast(quad, type);
      columns.push_back(ir.CreateAShr(second == 0 ? ir.CreateShl(words, 8) : words, 8));
    }
    for (int r = 0; r < tile.rows; ++r) {
      if (r > 0) at.a = after(emitter, at.a, sums[static_cast<size_t>(r) * tile.vectors - 1]);
      Value* words = ir.CreateBitCast(splat_quad(emitter, operands, at.a, r), type);
      words = second == 0 ? ir.CreateAnd(words, 0xFF) : ir.CreateLShr(words, 8);
      for (int v = 0; v < tile.vectors; ++v) {
        Value*& sum = sums[static_cast<size_t>(r) * tile.vectors + v];
        sum = ir.CreateAdd(sum, ir.CreateIntrinsic(product, {}, {words, columns[v]}));
      }
    }
  }
  return sums;
}

// One step of few rows: vector after vector of B.
Accumulators multiply_vectors(Emitter& emitter, Tile tile, const TileOperands& operands, StepAt at,
                              Accumulators sums) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  const int64_t vector_bytes = lanes * ElementFormat(operands.b_format.memory).bytes();
  std::vector<Value*> rows;
  for (int r = 0; r < tile.rows; ++r) {
    Value* scalar = operands.a_format.load(ir, byte_offset(emitter, at.a, operands.rows[r]));
    rows.push_back(ir.CreateVectorSplat(lanes, scalar));
  }
  for (int v = 0; v < tile.vectors; ++v) {
    Value* address = byte_offset(emitter, at.b, ir.getInt64(v * vector_bytes));
    Value* column = operands.b_format.load(ir, address, lanes, operands.b_alignment);
    for (int r = 0; r < tile.rows; ++r) {
      Value*& sum = sums[static_cast<size_t>(r) * tile.vectors + v];
      sum = fma(emitter, rows[r], column, sum);
    }
  }
  prefetch(emitter, operands, at.b, tile.vectors * vector_bytes);
  return sums;
}

// The same of widened pairs.
Accumulators multiply_vectors_of_pairs(Emitter& emitter, Tile tile, const TileOperands& operands,
                                       StepAt at, Accumulators sums) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  llvm::Type* floats = vector_type(emitter, DType::F32);
  std::vector<Value*> rows;
  for (int r = 0; r < tile.rows; ++r) {
    Value* row = byte_offset(emitter, at.a, operands.rows[r]);
    for (int64_t i = 0; i < 2; ++i) {
      Value* scalar =
          ElementFormat(DType::F32).load(ir, byte_offset(emitter, row, ir.getInt64(4 * i)));
      rows.push_back(ir.CreateVectorSplat(lanes, scalar));
    }
  }
  int v = 0;
  for (Value* pair : load_pairs(emitter, tile, operands, at.b)) {
    Value* first = ir.CreateBitCast(ir.CreateShl(pair, 16), floats);
    Value* second = ir.CreateBitCast(ir.CreateAnd(pair, 0xFFFF0000), floats);
    for (int r = 0; r < tile.rows; ++r) {
      Value*& sum = sums[static_cast<size_t>(r) * tile.vectors + v];
      sum = fma(emitter, rows[2 * r], first, sum);
      sum = fma(emitter, rows[2 * r + 1], second, sum);
    }
    ++v;
  }
  return sums;
}

// One step, A and B at these addresses.
Accumulators multiply_step(Emitter& emitter, Tile tile, const TileOperands& operands, Value* a,
                           Value* b, const Accumulators& sums) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  const int64_t vector_bytes = lanes * ElementFormat(operands.b_format.memory).bytes();
  if (tile.steps == Steps::Pairs) return multiply_pairs(emitter, tile, operands, {a, b}, sums);
  if (tile.steps == Steps::WidenedPairs && tile.goes_by_vectors())
    return multiply_vectors_of_pairs(emitter, tile, operands, {a, b}, sums);
  if (tile.goes_by_vectors()) return multiply_vectors(emitter, tile, operands, {a, b}, sums);
  if (tile.steps == Steps::WidenedPairs)
    return multiply_widened_pairs(emitter, tile, operands, {a, b}, sums);
  if (tile.steps == Steps::Quads) return multiply_quads(emitter, tile, operands, {a, b}, sums);
  if (tile.steps == Steps::WidenedQuads)
    return multiply_widened_quads(emitter, tile, operands, {a, b}, sums);
  std::vector<Value*> columns;
  for (int v = 0; v < tile.vectors; ++v) {
    Value* address = byte_offset(emitter, b, ir.getInt64(v * vector_bytes));
    columns.push_back(operands.b_format.load(ir, address, lanes, operands.b_alignment));
  }
  prefetch(emitter, operands, b, tile.vectors * vector_bytes);
  Accumulators result;
  for (int r = 0; r < tile.rows; ++r) {
    Value* scalar = operands.a_format.load(ir, byte_offset(emitter, a, operands.rows[r]));
    Value* splat = ir.CreateVectorSplat(lanes, scalar);
    for (int v = 0; v < tile.vectors; ++v) {
      result.push_back(fma(emitter, splat, columns[v], sums[r * tile.vectors + v]));
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
  const size_t count = run.sums.size();
  std::vector<Value*> carried{run.a, run.b};
  carried.insert(carried.end(), run.sums.begin(), run.sums.end());
  carried.resize(2 + count * ways, llvm::Constant::getNullValue(vector_type(emitter, tile.sum)));
  auto body = [&](Value* step, const std::vector<Value*>& values) {
    std::vector<Value*> next(values);
    prefetch_next(emitter, operands, step, ways);
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
    result.sums[i % count] = add(emitter, tile.sum, result.sums[i % count], carried[i + 2]);
  }
  return result;
}

}  // namespace

Steps byte_steps(const Target& target) {
  const bool has_quads = target.has(Feature::Avx512Vnni) || target.has(Feature::AvxVnni);
  return has_quads ? Steps::Quads : Steps::WidenedQuads;
}

int most_rows(const Target& target, Tile tile) {
  tile.rows = target.registers;
  while (tile.rows > 1 && tile.registers() > target.registers) --tile.rows;
  return tile.rows;
}

Accumulators zero_tile(Emitter& emitter, Tile tile) {
  return Accumulators(static_cast<size_t>(tile.rows) * tile.vectors,
                      llvm::Constant::getNullValue(vector_type(emitter, tile.sum)));
}

Run multiply_run(Emitter& emitter, Tile tile, const TileOperands& operands, Value* steps, Run run) {
  auto& ir = emitter.ir();
  const int ways = interleaved_steps(emitter.target(), tile);
  Value* begin = ir.getInt64(0);
  if (ways > 1) {
    Value* whole = ir.CreateAnd(steps, ir.getInt64(-ways));
    run = multiply_interleaved(emitter, tile, operands, {begin, whole, ways}, std::move(run));
    begin = whole;
  }
  return multiply_interleaved(emitter, tile, operands, {begin, steps, 1}, std::move(run));
}

Run multiply_half_pair(Emitter& emitter, Tile tile, const TileOperands& operands, Run run) {
  run.sums = multiply_pairs(emitter, tile, operands, {run.a, run.b}, run.sums, true);
  run.b = byte_offset(emitter, run.b, operands.b_step);
  return run;
}

Accumulators multiply_run(Emitter& emitter, Tile tile, const TileOperands& operands, Value* steps) {
  return multiply_run(emitter, tile, operands, steps,
                      Run{operands.a, operands.b, zero_tile(emitter, tile)})
      .sums;
}

Value* after(Emitter& emitter, Value* address, Value* value) {
  auto& ir = emitter.ir();
  auto* type = llvm::FunctionType::get(ir.getPtrTy(), {ir.getPtrTy(), value->getType()}, false);
  return ir.CreateCall(llvm::InlineAsm::get(type, "", "=r,0,v", false), {address, value});
}

Value* fma(Emitter& emitter, Value* a, Value* b, Value* c) {
  return emitter.ir().CreateIntrinsic(llvm::Intrinsic::fma, {a->getType()}, {a, b, c});
}

void fetch_line(Emitter& emitter, Value* address, CacheLevel level) {
  auto& ir = emitter.ir();
  const int locality = level == CacheLevel::First ? 3 : 2;
  ir.CreateIntrinsic(llvm::Intrinsic::prefetch, {ir.getPtrTy()},
                     {address, ir.getInt32(0), ir.getInt32(locality), ir.getInt32(1)});
}

Value* another_name(Emitter& emitter, Value* value) {
  auto& ir = emitter.ir();
  llvm::Type* type = value->getType();
  auto* function = llvm::FunctionType::get(type, {type}, false);
  return ir.CreateCall(llvm::InlineAsm::get(function, "", "=r,0", false), {value});
}

Value* byte_offset(Emitter& emitter, Value* base, Value* offset) {
  auto& ir = emitter.ir();
  return ir.CreateGEP(ir.getInt8Ty(), base, offset);
}

llvm::Type* vector_type(Emitter& emitter, DType dtype) {
  return ElementFormat(dtype).register_type(emitter.ir(), emitter.target().lanes());
}

}  // namespace kiln::cpu
