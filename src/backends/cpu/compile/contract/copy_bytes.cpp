#include "backends/cpu/compile/contract/copy_bytes.h"

#include "backends/cpu/compile/contract/contraction.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// A vector of so many bytes that is stored at an offset; with a mask, its lanes alone are read.
using Bytes = std::function<Value*(Value* offset, int64_t count, Value* mask)>;

llvm::Type* vector_of(llvm::IRBuilder<>& ir, int64_t count) {
  return llvm::FixedVectorType::get(ir.getInt8Ty(), static_cast<unsigned>(count));
}

// <bytes x i1>: as many lanes as are left.
Value* lanes_left(llvm::IRBuilder<>& ir, int64_t bytes, Value* left) {
  std::vector<llvm::Constant*> indices;
  for (int64_t i = 0; i < bytes; ++i) indices.push_back(ir.getInt8(static_cast<uint8_t>(i)));
  Value* bound =
      ir.CreateVectorSplat(static_cast<unsigned>(bytes), ir.CreateTrunc(left, ir.getInt8Ty()));
  return ir.CreateICmpULT(llvm::ConstantVector::get(indices), bound);
}

// Whole registers, then what is left of one: by a mask, or else by 8 bytes and one by one.
void store_bytes(Emitter& emitter, Value* to, Value* count, const Bytes& bytes) {
  auto& ir = emitter.ir();
  const int64_t whole = emitter.target().vector_bits / 8;
  const bool has_masks = emitter.target().has(Feature::Avx512Bw);
  Value* done = ir.getInt64(0);
  std::vector<int64_t> sizes = {whole};
  if (!has_masks) sizes.insert(sizes.end(), {8, 1});
  for (int64_t size : sizes) {
    Value* end = ir.CreateAnd(count, ir.getInt64(-size));
    emitter.loop(done, end, size, [&](Value* i) {
      ir.CreateAlignedStore(bytes(i, size, nullptr), byte_offset(emitter, to, i), llvm::Align(1));
    });
    done = end;
  }
  if (!has_masks) return;
  when(emitter, ir.CreateICmpSLT(done, count), [&] {
    Value* mask = lanes_left(ir, whole, ir.CreateSub(count, done));
    ir.CreateMaskedStore(bytes(done, whole, mask), byte_offset(emitter, to, done), llvm::Align(1),
                         mask);
  });
}

}  // namespace

void emit_copy_bytes(Emitter& emitter, Value* to, Value* from, Value* count) {
  auto& ir = emitter.ir();
  store_bytes(emitter, to, count, [&](Value* offset, int64_t size, Value* mask) -> Value* {
    llvm::Type* type = vector_of(ir, size);
    Value* address = byte_offset(emitter, from, offset);
    if (mask == nullptr) return ir.CreateAlignedLoad(type, address, llvm::Align(1));
    return ir.CreateMaskedLoad(type, address, llvm::Align(1), mask,
                               llvm::Constant::getNullValue(type));
  });
}

void emit_fill_bytes(Emitter& emitter, Value* to, Value* count, uint8_t byte) {
  auto& ir = emitter.ir();
  store_bytes(emitter, to, count, [&](Value*, int64_t size, Value*) -> Value* {
    return ir.CreateVectorSplat(static_cast<unsigned>(size), ir.getInt8(byte));
  });
}

// As many pixels at a time as a vector takes, by a permutation whose other elements are zero.
void emit_spread(Emitter& emitter, Value* to, Value* from, Value* pixels, PixelSizes sizes) {
  auto& ir = emitter.ir();
  constexpr int kLanes = kSpreadBytes / 2;
  const int most = kLanes / sizes.to;
  llvm::Type* type = llvm::FixedVectorType::get(ir.getInt16Ty(), kLanes);
  std::vector<int> order(kLanes, kLanes);  // a lane of zero
  for (int pixel = 0; pixel < most; ++pixel) {
    for (int i = 0; i < sizes.from; ++i) order[pixel * sizes.to + i] = pixel * sizes.from + i;
  }
  std::vector<llvm::Constant*> lanes;
  for (int i = 0; i < kLanes; ++i) lanes.push_back(ir.getInt16(static_cast<uint16_t>(i)));
  const auto below = [&](Value* count, int size) {
    Value* limit = ir.CreateTrunc(ir.CreateMul(count, ir.getInt64(size)), ir.getInt16Ty());
    return ir.CreateICmpULT(llvm::ConstantVector::get(lanes), ir.CreateVectorSplat(kLanes, limit));
  };
  const auto at = [&](Value* base, Value* pixel, int size) {
    return byte_offset(emitter, base, ir.CreateMul(pixel, ir.getInt64(int64_t{2} * size)));
  };
  Value* zero = llvm::Constant::getNullValue(type);
  emitter.loop(ir.getInt64(0), pixels, most, [&](Value* x) {
    Value* count = smaller(emitter, ir.CreateSub(pixels, x), ir.getInt64(most));
    Value* read = ir.CreateMaskedLoad(type, at(from, x, sizes.from), llvm::Align(2),
                                      below(count, sizes.from), zero);
    ir.CreateMaskedStore(ir.CreateShuffleVector(read, zero, order), at(to, x, sizes.to),
                         llvm::Align(2), below(count, sizes.to));
  });
}

}  // namespace kiln::cpu
