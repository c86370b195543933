#include "backends/cpu/compile/contract/pack_pairs.h"

#include "backends/cpu/compile/contract/contraction.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

class PairPacker {
 public:
  PairPacker(Emitter& emitter, const RuntimeMatrix& matrix, int64_t width)
      : emitter_(emitter),
        ir_(emitter.ir()),
        matrix_(matrix),
        width_(width),
        lanes_(emitter.target().lanes()) {}

  void pack(Value* panel_start, Value* to) {
    if (is_one(matrix_.n_stride)) {
      join_rows(panel_start, to);
    } else if (is_one(matrix_.k_stride)) {
      transpose_columns(panel_start, to);
    } else {
      gather_elements(panel_start, to);
    }
  }

 private:
  // Vectors of columns of two rows; zeros behind the last.
  void join_rows(Value* panel_start, Value* to) {
    emitter_.loop(i64(0), matrix_.k, 2, [&](Value* k) {
      Value* next = ir_.CreateAdd(k, i64(1));
      Value* there = ir_.CreateVectorSplat(lanes_, ir_.CreateICmpSLT(next, matrix_.k));
      for (int64_t n = 0; n < width_; n += lanes_) {
        Value* column = ir_.CreateAdd(panel_start, i64(n));
        Value* mask = mask_below(emitter_, column, matrix_.n);
        Value* low = load(lanes_, k, column, mask);
        Value* high = load(lanes_, next, column, ir_.CreateAnd(mask, there));
        store(joined(low, high), to, k, i64(n));
      }
    });
  }

  // Squares of pairs, which are neighbours in memory.
  void transpose_columns(Value* panel_start, Value* to) {
    Value* last = ir_.CreateSub(matrix_.n, i64(1));
    emitter_.loop(i64(0), matrix_.k, 2 * lanes_, [&](Value* k) {
      Value* mask = below(2 * lanes_, ir_.CreateSub(matrix_.k, k));
      emitter_.loop(i64(0), i64(width_), lanes_, [&](Value* n) {
        std::vector<Value*> rows;
        for (int i = 0; i < lanes_; ++i) {
          Value* column = ir_.CreateAdd(ir_.CreateAdd(panel_start, n), i64(i));
          column = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, column, last);
          rows.push_back(ir_.CreateBitCast(load(2 * lanes_, k, column, mask),
                                           of_lanes(ir_.getInt32Ty(), lanes_)));
        }
        const std::vector<Value*> columns = transpose_square(emitter_, rows);
        for (int i = 0; i < lanes_; ++i) store(columns[i], to, ir_.CreateAdd(k, i64(2 * i)), n);
      });
    });
  }

  void gather_elements(Value* panel_start, Value* to) {
    Value* last = ir_.CreateSub(matrix_.n, i64(1));
    emitter_.loop(i64(0), matrix_.k, 2, [&](Value* k) {
      Value* next = ir_.CreateAdd(k, i64(1));
      Value* there = ir_.CreateICmpSLT(next, matrix_.k);
      emitter_.loop(i64(0), i64(width_), 1, [&](Value* n) {
        Value* column = ir_.CreateAdd(panel_start, n);
        column = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, column, last);
        Value* low = ir_.CreateAlignedLoad(ir_.getInt16Ty(), element(k, column), llvm::Align(2));
        Value* high = ir_.CreateAlignedLoad(
            ir_.getInt16Ty(), element(ir_.CreateSelect(there, next, k), column), llvm::Align(2));
        store(joined(low, ir_.CreateSelect(there, high, ir_.getInt16(0))), to, k, n);
      });
    });
  }

  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  static llvm::Type* of_lanes(llvm::Type* type, int count) {
    return llvm::FixedVectorType::get(type, static_cast<unsigned>(count));
  }

  // <count x i1>: as many lanes as are left.
  Value* below(int count, Value* left) {
    std::vector<llvm::Constant*> indices;
    for (int i = 0; i < count; ++i) indices.push_back(i64(i));
    return ir_.CreateICmpSLT(llvm::ConstantVector::get(indices),
                             ir_.CreateVectorSplat(count, left));
  }
  Value* element(Value* k, Value* n) {
    Value* index =
        ir_.CreateAdd(ir_.CreateMul(k, matrix_.k_stride), ir_.CreateMul(n, matrix_.n_stride));
    return byte_offset(emitter_, matrix_.base, ir_.CreateMul(index, i64(2)));
  }
  Value* load(int count, Value* k, Value* n, Value* mask) {
    llvm::Type* type = of_lanes(ir_.getInt16Ty(), count);
    return ir_.CreateMaskedLoad(type, element(k, n), llvm::Align(2), mask,
                                llvm::Constant::getNullValue(type));
  }
  // Of 16 bits each: a lane of 32.
  Value* joined(Value* low, Value* high) {
    llvm::Type* type = low->getType()->getWithNewType(ir_.getInt32Ty());
    return ir_.CreateOr(ir_.CreateZExt(low, type), ir_.CreateShl(ir_.CreateZExt(high, type), 16));
  }
  // The pair of steps k and k + 1, from column n of the panel on.
  void store(Value* pairs, Value* to, Value* k, Value* n) {
    Value* row = ir_.CreateMul(k, i64(width_ * 2));  // k is even
    Value* at = byte_offset(emitter_, to, ir_.CreateAdd(row, ir_.CreateMul(n, i64(4))));
    ir_.CreateAlignedStore(pairs, at, llvm::Align(4));
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  RuntimeMatrix matrix_;
  int64_t width_;
  int lanes_;
};

}  // namespace

void emit_pack_pairs(Emitter& emitter, const RuntimeMatrix& matrix, int64_t width, Value* start,
                     Value* to) {
  PairPacker(emitter, matrix, width).pack(start, to);
}

std::vector<Value*> transpose_square(Emitter& emitter, std::vector<Value*> rows) {
  const int lanes = emitter.target().lanes();
  for (int half = lanes / 2; half >= 1; half /= 2) {
    std::vector<int> low, high;
    for (int i = 0; i < lanes; ++i) {
      bool second = (i & half) != 0;
      low.push_back(second ? lanes + i - half : i);
      high.push_back(second ? lanes + i : i + half);
    }
    std::vector<Value*> next(rows);
    for (int r = 0; r < lanes; ++r) {
      if (r & half) continue;
      next[r] = emitter.ir().CreateShuffleVector(rows[r], rows[r + half], low);
      next[r + half] = emitter.ir().CreateShuffleVector(rows[r], rows[r + half], high);
    }
    rows = std::move(next);
  }
  return rows;
}

bool is_one(Value* value) {
  auto* constant = llvm::dyn_cast<llvm::ConstantInt>(value);
  return constant != nullptr && constant->isOne();
}

}  // namespace kiln::cpu
