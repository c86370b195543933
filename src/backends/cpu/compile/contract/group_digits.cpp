#include "backends/cpu/compile/contract/group_digits.h"

#include <span>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/cpu/compile/contract/pack_nibbles.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// A row in digits: whether they hold it, then groups. A group is a head and a plane for each digit; a plane has eight
// bytes for eight steps, in the order in which a lane of the weight has them: first those of the lower nibbles.
constexpr int64_t kRowHead = 16;
constexpr int64_t kGroupHead = 32;
constexpr int64_t kUnitAt = 0, kTotalAt = 4,
                  kSumsAt = 8;  // in the head: f32, f32, i32 for each digit

constexpr int kSteps = kNibbleSteps;
// Of the elements of a group that are not 0, one in kLargeShare is at least 2^-kLargeRange of the largest.
constexpr int kLargeShare = 4;
constexpr uint32_t kLargeRange = 6;
constexpr int64_t kRowBytes = kGroupPanelWidth * 4;  // of eight steps of a panel
// Between what is read and what is fetched.
constexpr int64_t kPrefetchDistance = 4096;
// Vectors of columns at a time: their sums of 16 or 32 bits and a step of them fit 16 registers.
constexpr int kPassVectors = 2;
// So many times eight steps fit sums of 16 bits, of which a quad has two: 4 * 15 * 128 each time.
constexpr int64_t kMostUnwidened = 4;

int64_t plane_bytes(const GroupFormat& format) { return format.padded() / format.groups(); }
int64_t group_bytes(const GroupFormat& format, int digits) {
  return kGroupHead + digits * plane_bytes(format);
}

// Of a group of the row: |x| as bits, then its digits.
class Stager {
 public:
  Stager(Emitter& emitter, const GroupFormat& format, int digits)
      : emitter_(emitter), ir_(emitter.ir()), format_(format), digits_(digits) {
    ints_ = llvm::FixedVectorType::get(ir_.getInt32Ty(), kSteps);
    floats_ = llvm::FixedVectorType::get(ir_.getFloatTy(), kSteps);
  }

  void run(Value* row, Value* to) {
    Emitter::Carried carried{row, offset(to, kRowHead), ir_.getInt32(1)};
    carried = emitter_.loop_carrying(i64(0), i64(format_.groups()), 1, carried,
                                     [&](Value*, const Emitter::Carried& at) -> Emitter::Carried {
                                       Value* holds = ir_.CreateAnd(at[2], stage(at[0], at[1]));
                                       return {offset(at[0], plane_bytes(format_) * 4),
                                               offset(at[1], group_bytes(format_, digits_)), holds};
                                     });
    ir_.CreateAlignedStore(carried[2], to, llvm::Align(4));
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  Value* offset(Value* base, int64_t bytes) { return byte_offset(emitter_, base, i64(bytes)); }

  // i32: whether digits hold the group.
  Value* stage(Value* row, Value* to) {
    Value* most = largest(row);
    constexpr uint32_t kInfinity = 0x7F800000, kLeast = (127 - 60) << 23;
    Value* is_zero = ir_.CreateICmpEQ(most, ir_.getInt32(0));
    Value* in_range = ir_.CreateAnd(ir_.CreateICmpULT(most, ir_.getInt32(kInfinity)),
                                    ir_.CreateICmpUGE(most, ir_.getInt32(kLeast)));
    // The exponent of what is a little larger: digits from -128 to 127 end before the power of two does.
    Value* larger = ir_.CreateFMul(ir_.CreateBitCast(most, ir_.getFloatTy()),
                                   llvm::ConstantFP::get(ir_.getFloatTy(), 1.0078125));
    Value* exponent =
        ir_.CreateAnd(ir_.CreateBitCast(larger, ir_.getInt32Ty()), ir_.getInt32(kInfinity));
    exponent = ir_.CreateSelect(in_range, exponent, ir_.getInt32(127 << 23));
    const int top = 8 * digits_ - 2;
    Value* scale = ir_.CreateSub(ir_.getInt32((top + 254) << 23), exponent);
    Value* unit = ir_.CreateSub(ir_.getInt32(254U << 23), scale);
    ir_.CreateAlignedStore(unit, offset(to, kUnitAt), llvm::Align(4));
    Value* large = ir_.CreateSub(most, ir_.getInt32(kLargeRange << 23));
    Value* is_even = write_digits(row, ir_.CreateBitCast(scale, ir_.getFloatTy()), large, to);
    return ir_.CreateZExt(ir_.CreateOr(is_zero, ir_.CreateAnd(in_range, is_even)),
                          ir_.getInt32Ty());
  }

  Value* load(Value* at, llvm::Type* type) {
    return ir_.CreateAlignedLoad(type, at, llvm::Align(4));
  }

  // |x| of eight steps, as bits.
  Value* absolute(Value* at) { return ir_.CreateAnd(load(at, ints_), 0x7FFFFFFF); }

  // As integers absolute values have the order of floats, and NaN lies above infinity.
  Value* largest(Value* row) {
    Emitter::Carried carried{row, llvm::Constant::getNullValue(ints_)};
    carried = emitter_.loop_carrying(i64(0), i64(plane_bytes(format_) / kSteps), 1, carried,
                                     [&](Value*, const Emitter::Carried& at) -> Emitter::Carried {
                                       Value* most = ir_.CreateBinaryIntrinsic(
                                           llvm::Intrinsic::umax, at[1], absolute(at[0]));
                                       return {offset(at[0], kSteps * 4), most};
                                     });
    return ir_.CreateIntMaxReduce(carried[1], false);
  }

  // i1: whether enough elements of the group are large: at least `large`, as bits.
  Value* write_digits(Value* row, Value* scale, Value* large, Value* to) {
    Value* scales = ir_.CreateVectorSplat(kSteps, scale);
    large = ir_.CreateVectorSplat(kSteps, large);
    Emitter::Carried carried{row, offset(to, kGroupHead)};
    // Sums of the digits, then less the number of elements that are not 0, and of large ones.
    const size_t counts = 2 + static_cast<size_t>(digits_);
    carried.resize(counts + 2, llvm::Constant::getNullValue(ints_));
    carried = emitter_.loop_carrying(
        i64(0), i64(plane_bytes(format_) / kSteps), 1, carried,
        [&](Value*, const Emitter::Carried& at) {
          Emitter::Carried next{offset(at[0], kSteps * 4), offset(at[1], kSteps)};
          Value* bits = absolute(at[0]);
          Value* number = ir_.CreateIntrinsic(llvm::Intrinsic::x86_avx_cvt_ps2dq_256, {},
                                              {ir_.CreateFMul(load(at[0], floats_), scales)});
          for (int digit = 0; digit < digits_; ++digit) {
            llvm::Type* bytes = llvm::FixedVectorType::get(ir_.getInt8Ty(), kSteps);
            Value* low = ir_.CreateTrunc(number, bytes);
            next.push_back(ir_.CreateAdd(at[2 + digit], ir_.CreateSExt(low, ints_)));
            Value* ordered = ir_.CreateShuffleVector(low, {0, 2, 1, 3, 4, 6, 5, 7});
            ir_.CreateAlignedStore(ordered, offset(at[1], digit * plane_bytes(format_)),
                                   llvm::Align(8));
            number = ir_.CreateAShr(ir_.CreateAdd(number, llvm::ConstantInt::get(ints_, 128)), 8);
          }
          Value* is_some = ir_.CreateICmpSGT(bits, llvm::Constant::getNullValue(ints_));
          Value* is_large = ir_.CreateICmpSGE(bits, large);
          next.push_back(ir_.CreateAdd(at[counts], ir_.CreateSExt(is_some, ints_)));
          next.push_back(ir_.CreateAdd(at[counts + 1], ir_.CreateSExt(is_large, ints_)));
          return next;
        });
    Value* total = nullptr;
    for (int digit = digits_ - 1; digit >= 0; --digit) {
      Value* sum = ir_.CreateAddReduce(carried[2 + digit]);
      ir_.CreateAlignedStore(ir_.CreateMul(sum, ir_.getInt32(-8)), offset(to, kSumsAt + 4 * digit),
                             llvm::Align(4));
      Value* number = ir_.CreateSIToFP(sum, ir_.getFloatTy());
      if (total != nullptr)
        number = ir_.CreateFAdd(ir_.CreateFMul(total, llvm::ConstantFP::get(ir_.getFloatTy(), 256)),
                                number);
      total = number;
    }
    ir_.CreateAlignedStore(total, offset(to, kTotalAt), llvm::Align(4));
    Value* some = ir_.CreateAddReduce(carried[counts]);
    Value* large_ones = ir_.CreateAddReduce(carried[counts + 1]);
    return ir_.CreateICmpSLE(ir_.CreateMul(large_ones, ir_.getInt32(kLargeShare)), some);
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const GroupFormat& format_;
  const int digits_;
  llvm::Type *ints_ = nullptr, *floats_ = nullptr;
};

class DigitMultiplier {
 public:
  DigitMultiplier(Emitter& emitter, const GroupFormat& format, int digits)
      : emitter_(emitter),
        ir_(emitter.ir()),
        target_(emitter.target()),
        format_(format),
        digits_(digits),
        lanes_(target_.lanes()) {
    has_quads_ = target_.has(Feature::Avx512Vnni) || target_.has(Feature::AvxVnni);
    ints_ = llvm::FixedVectorType::get(ir_.getInt32Ty(), lanes_);
    // Several at a time, with sums of 16 bits where there is no instruction for quads.
    const int64_t units = plane_bytes(format_) / kSteps;
    unrolled_ = units % 4 == 0 ? 4 : units % 2 == 0 ? 2 : 1;
  }

  Accumulators run(Value* staged, const GroupColumns& columns) {
    const int vectors = digit_vectors(target_);
    const bool in_memory = vectors != kPassVectors;
    Value* totals = in_memory ? memory_of(vectors) : nullptr;
    Emitter::Carried carried{offset(staged, kRowHead), columns.values, columns.scales};
    if (format_.has_zeros) carried.push_back(columns.zeros);
    const size_t fixed = carried.size();
    carried.resize(fixed + static_cast<size_t>(in_memory ? 0 : vectors), zero());
    carried = emitter_.loop_carrying(
        i64(0), i64(format_.groups()), 1, carried, [&](Value*, const Emitter::Carried& at) {
          Emitter::Carried next = at;
          prefetch(at[2]);
          const Group group{offset(at[0], kGroupHead), at[0], at[1], at[2],
                            format_.has_zeros ? at[3] : nullptr};
          if (in_memory)
            add_in_passes(group, totals);
          else
            add_group(group, std::span(next).subspan(fixed));
          next[0] = offset(at[0], group_bytes(format_, digits_));
          next[1] = offset(at[1], plane_bytes(format_) / kSteps * kRowBytes);
          next[2] = offset(at[2], kGroupPanelWidth * scale_bytes());
          if (format_.has_zeros) next[3] = offset(at[3], kGroupPanelWidth);
          return next;
        });
    Accumulators sums(carried.begin() + static_cast<std::ptrdiff_t>(fixed), carried.end());
    for (int v = 0; in_memory && v < vectors; ++v) sums.push_back(load(DType::F32, totals, v));
    return sums;
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  Value* offset(Value* base, int64_t bytes) { return byte_offset(emitter_, base, i64(bytes)); }
  int64_t scale_bytes() const { return ElementFormat(format_.scale).bytes(); }

  llvm::Constant* zero() { return llvm::Constant::getNullValue(vector_type(emitter_, DType::F32)); }

  // Of zeros, on the stack.
  Value* memory_of(int vectors) {
    llvm::BasicBlock& entry = emitter_.function()->getEntryBlock();
    llvm::IRBuilder<> front(&entry, entry.getFirstInsertionPt());
    llvm::Type* type = llvm::ArrayType::get(vector_type(emitter_, DType::F32), vectors);
    Value* memory = front.CreateAlloca(type);
    ir_.CreateStore(llvm::Constant::getNullValue(type), memory);
    return memory;
  }

  // What a group reads, for the columns from a vector on.
  struct Group {
    Value *planes = nullptr, *head = nullptr, *values = nullptr, *scales = nullptr;
    Value* zeros = nullptr;
  };

  // Some columns at a time, in a loop: unrolled, LLVM mixes several turns and has no registers for that.
  void add_in_passes(const Group& group, Value* totals) {
    emitter_.loop(i64(0), i64(kGroupPanelWidth), kPassVectors * lanes_, [&](Value* column) {
      const auto from = [&](Value* base, int64_t bytes) {
        return byte_offset(emitter_, base, ir_.CreateMul(column, i64(bytes)));
      };
      Group part{group.planes, group.head, from(group.values, 4), from(group.scales, scale_bytes()),
                 group.zeros == nullptr ? nullptr : from(group.zeros, 1)};
      Value* at = from(totals, 4);
      std::vector<Value*> sums;
      for (int v = 0; v < kPassVectors; ++v) sums.push_back(load(DType::F32, at, v));
      add_group(part, sums);
      for (int v = 0; v < kPassVectors; ++v)
        ElementFormat(DType::F32)
            .store(ir_, sums[static_cast<size_t>(v)], offset(at, int64_t{v} * lanes_ * 4));
    });
  }

  // A group, for kPassVectors.
  void add_group(const Group& group, std::span<Value*> totals) {
    Emitter::Carried carried{group.planes, group.values};
    for (int v = 0; v < kPassVectors; ++v) {
      for (int digit = 0; digit < digits_; ++digit)
        carried.push_back(splat(offset(group.head, kSumsAt + 4 * digit), ir_.getInt32Ty()));
    }
    const int64_t turns = plane_bytes(format_) / kSteps / unrolled_;
    const auto turn = [&](Value*, const Emitter::Carried& values) {
      Emitter::Carried next = values;
      add_units(next);
      return next;
    };
    carried = turns == 1 ? turn(nullptr, carried)
                         : emitter_.loop_carrying(i64(0), i64(turns), 1, carried, turn);
    Value* unit = splat(offset(group.head, kUnitAt), ir_.getFloatTy());
    for (int v = 0; v < kPassVectors; ++v) {
      Value* const* sums = &carried[2 + static_cast<size_t>(v) * digits_];
      Value* sum = nullptr;
      for (int digit = digits_ - 1; digit >= 0; --digit) {
        Value* number = ir_.CreateSIToFP(sums[digit], vector_type(emitter_, DType::F32));
        sum = sum == nullptr
                  ? number
                  : fma(emitter_, sum, llvm::ConstantFP::get(sum->getType(), 256), number);
      }
      if (format_.has_zeros) {
        Value* total = splat(offset(group.head, kTotalAt), ir_.getFloatTy());
        sum = fma(emitter_, ir_.CreateFNeg(load(DType::I8, group.zeros, v)), total, sum);
      }
      totals[v] =
          fma(emitter_, ir_.CreateFMul(sum, unit), load(format_.scale, group.scales, v), totals[v]);
    }
  }

  // The next steps of the planes and of the weight: values are where they are read, and the sums.
  void add_units(Emitter::Carried& values) {
    const size_t count = values.size() - 2;
    std::vector<Value*> words(count);  // sums of 16 bits
    Value *planes = values[0], *weight = values[1];
    for (int64_t unit = 0; unit < unrolled_; ++unit) {
      if (unit > 0 && target_.registers < 32) {
        // LLVM would load what several units need first, and have no registers for it.
        for (size_t i = 0; i < count; ++i) {
          Value* sum = has_quads_ || words[i] == nullptr ? values[2 + i] : words[i];
          planes = after(emitter_, planes, sum);
          weight = after(emitter_, weight, sum);
        }
      }
      Value* row = offset(weight, unit * kRowBytes);
      for (int64_t line = 0; line < kPassVectors * lanes_ * 4; line += 64)
        prefetch(offset(row, line));
      for (int v = 0; v < kPassVectors; ++v) {
        Value* lane = ir_.CreateAlignedLoad(ints_, offset(row, v * lanes_ * 4), llvm::Align(32));
        if (!masks_once()) lane = ir_.CreateXor(lane, 0x88888888);
        for (int upper = 0; upper < 2; ++upper) {
          Value* weights = bytes_of(lane, upper == 1);
          for (int digit = 0; digit < digits_; ++digit) {
            const int64_t at = digit * plane_bytes(format_) + unit * kSteps + 4 * upper;
            Value* x = splat(offset(planes, at), ir_.getInt32Ty());
            const size_t i = static_cast<size_t>(v * digits_ + digit);
            if (has_quads_)
              values[2 + i] = add_quads(values[2 + i], weights, x);
            else
              words[i] = add_words(words[i], weights, x);
          }
        }
      }
      const bool is_last = unit == unrolled_ - 1;
      if (!has_quads_ && (is_last || unit % kMostUnwidened == kMostUnwidened - 1))
        widen(values, words);
    }
    values[0] = offset(values[0], unrolled_ * kSteps);
    values[1] = offset(values[1], unrolled_ * kRowBytes);
  }

  // Whether a mask and 8 more are one instruction (vpternlogd).
  bool masks_once() const { return target_.has(Feature::Avx512F); }

  // The lower or the upper half of each byte, plus 8.
  Value* bytes_of(Value* lane, bool upper) {
    if (upper) lane = ir_.CreateLShr(lane, 4);
    Value* half = ir_.CreateAnd(lane, 0x0F0F0F0F);
    return masks_once() ? ir_.CreateXor(half, 0x08080808) : half;
  }

  Value* add_quads(Value* sum, Value* weights, Value* x) {
    const auto product = lanes_ == 16 ? llvm::Intrinsic::x86_avx512_vpdpbusd_512
                                      : llvm::Intrinsic::x86_avx512_vpdpbusd_256;
    return ir_.CreateIntrinsic(product, {}, {sum, weights, x});
  }

  // Of pairs of steps, which do not saturate: 2 * 15 * 128.
  Value* add_words(Value* sum, Value* weights, Value* x) {
    const auto product = lanes_ == 16 ? llvm::Intrinsic::x86_avx512_pmaddubs_w_512
                                      : llvm::Intrinsic::x86_avx2_pmadd_ub_sw;
    llvm::Type* bytes = llvm::FixedVectorType::get(ir_.getInt8Ty(), 4 * lanes_);
    Value* pairs = ir_.CreateIntrinsic(
        product, {}, {ir_.CreateBitCast(weights, bytes), ir_.CreateBitCast(x, bytes)});
    return sum == nullptr ? pairs : ir_.CreateAdd(sum, pairs);
  }

  void widen(Emitter::Carried& values, std::vector<Value*>& words) {
    const auto product = lanes_ == 16 ? llvm::Intrinsic::x86_avx512_pmaddw_d_512
                                      : llvm::Intrinsic::x86_avx2_pmadd_wd;
    for (size_t i = 0; i < words.size(); ++i) {
      Value* ones = llvm::ConstantInt::get(words[i]->getType(), 1);
      values[2 + i] =
          ir_.CreateAdd(values[2 + i], ir_.CreateIntrinsic(product, {}, {words[i], ones}));
      words[i] = nullptr;
    }
  }

  Value* splat(Value* address, llvm::Type* type) {
    return ir_.CreateVectorSplat(lanes_, ir_.CreateAlignedLoad(type, address, llvm::Align(4)));
  }

  // Vector v of a row of elements, as f32.
  Value* load(DType dtype, Value* row, int v) {
    const int64_t bytes = lanes_ * ElementFormat(dtype).bytes();
    return OperandFormat{dtype, DType::F32, DType::F32}.load(ir_, offset(row, v * bytes), lanes_);
  }

  void prefetch(Value* address) { fetch_line(emitter_, offset(address, kPrefetchDistance)); }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const Target& target_;
  const GroupFormat& format_;
  const int digits_;
  const int lanes_;
  bool has_quads_ = false;
  int64_t unrolled_ = 1;
  llvm::Type* ints_ = nullptr;
};

}  // namespace

int digits_of(const GroupFormat& format, DType a) {
  // Sums of a digit are no more than 15 * 128 for each step.
  constexpr int64_t kMostSteps = INT32_MAX / (15 * 128);
  if (format.bits != 4 || plane_bytes(format) > kMostSteps) return 0;
  return a == DType::F32 ? 3 : 2;
}

int64_t digit_row_bytes(const GroupFormat& format, int digits) {
  return kRowHead + format.groups() * group_bytes(format, digits);
}

void stage_digits(Emitter& emitter, const GroupFormat& format, int digits, Value* row, Value* to) {
  Stager(emitter, format, digits).run(row, to);
}

Value* holds_digits(Emitter& emitter, Value* staged) {
  auto& ir = emitter.ir();
  return ir.CreateICmpNE(ir.CreateAlignedLoad(ir.getInt32Ty(), staged, llvm::Align(4)),
                         ir.getInt32(0));
}

int digit_vectors(const Target& target) {
  return static_cast<int>(kGroupPanelWidth / target.lanes());
}

Accumulators multiply_digits(Emitter& emitter, const GroupFormat& format, int digits, Value* staged,
                             const GroupColumns& columns) {
  return DigitMultiplier(emitter, format, digits).run(staged, columns);
}

}  // namespace kiln::cpu
