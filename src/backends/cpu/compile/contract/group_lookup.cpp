#include "backends/cpu/compile/contract/group_lookup.h"

#include <bit>
#include <span>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/cpu/compile/contract/pack_nibbles.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr int kLanes = 8;
constexpr int64_t kRowBytes = kGroupPanelWidth * 4;  // of eight steps of a panel
// As in group_panel.cpp; every second line is fetched by the vectors that read it.
constexpr int64_t kPrefetchDistance = 3072;

// Sums of a vector of eight columns and a row: the first of each pair of steps and the second, of columns 0, 1, 4 and 5
// and of the others.
struct HalfSums {
  Value *low = nullptr, *high = nullptr;
};

class LookUp {
 public:
  LookUp(Emitter& emitter, Tile tile, const GroupFormat& format, const GroupRows& rows)
      : emitter_(emitter), ir_(emitter.ir()), tile_(tile), format_(format), rows_(rows) {}

  Accumulators run(const GroupColumns& columns) {
    Emitter::Carried carried{rows_.a, columns.values, columns.scales};
    if (format_.has_zeros) carried.push_back(columns.zeros);
    const auto fixed = static_cast<std::ptrdiff_t>(carried.size());
    const Accumulators zeros = zero_tile(emitter_, tile_);
    carried.insert(carried.end(), zeros.begin(), zeros.end());
    carried = emitter_.loop_carrying(
        i64(0), i64(format_.groups()), 1, carried, [&](Value*, const Emitter::Carried& values) {
          Emitter::Carried next = values;
          const std::span totals(next.begin() + fixed, next.end());
          for (int v = 0; v < tile_.vectors; v += pass_vectors()) add_group(values, v, totals);
          next[0] = offset(values[0], iterations() * kNibbleSteps * 4);
          next[1] = offset(values[1], iterations() * kRowBytes);
          next[2] = offset(values[2], kGroupPanelWidth * scale_bytes());
          if (format_.has_zeros) next[3] = offset(values[3], kGroupPanelWidth);
          return next;
        });
    return {carried.begin() + fixed, carried.end()};
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  Value* offset(Value* base, int64_t bytes) { return byte_offset(emitter_, base, i64(bytes)); }
  llvm::Type* floats() { return vector_type(emitter_, DType::F32); }
  int64_t iterations() const { return (format_.size + kNibbleSteps - 1) / kNibbleSteps; }
  int64_t scale_bytes() const { return ElementFormat(format_.scale).bytes(); }

  // Vectors of columns at a time: their sums of a group fit the registers beside those of all groups.
  int pass_vectors() const { return tile_.rows == 1 && !format_.has_zeros ? 2 : 1; }

  // A group of the vectors of columns from `first` on.
  void add_group(const Emitter::Carried& at, int first, std::span<Value*> totals) {
    const int vectors = pass_vectors();
    zeros_ = format_.has_zeros ? split(load(DType::I8, at[3], first)) : HalfSums{};
    Emitter::Carried carried{at[0], offset(at[1], int64_t{first} * kLanes * 4)};
    const size_t sums = 2 * static_cast<size_t>(tile_.rows * vectors);
    carried.resize(2 + sums, llvm::Constant::getNullValue(floats()));
    carried = emitter_.loop_carrying(i64(0), i64(iterations()), 1, carried,
                                     [&](Value*, const Emitter::Carried& values) {
                                       Emitter::Carried next = values;
                                       if (first % 2 == 0) prefetch(values[1]);
                                       add_steps(values[0], values[1], std::span(next).subspan(2));
                                       next[0] = offset(values[0], kNibbleSteps * 4);
                                       next[1] = offset(values[1], kRowBytes);
                                       return next;
                                     });
    if (first == 0) prefetch(at[2]);
    for (int v = 0; v < vectors; ++v) {
      Value* scale = load(format_.scale, at[2], first + v);
      for (int r = 0; r < tile_.rows; ++r) {
        const size_t sum = 2 + 2 * static_cast<size_t>(r * vectors + v);
        Value* columns = ir_.CreateIntrinsic(llvm::Intrinsic::x86_avx_hadd_ps_256, {},
                                             {carried[sum], carried[sum + 1]});
        Value*& total = totals[static_cast<size_t>(r * tile_.vectors + first + v)];
        total = fma(emitter_, columns, scale, total);
      }
    }
  }

  // Eight steps: the nibbles in the lower and then in the upper half of each byte.
  void add_steps(Value* a, Value* values, std::span<Value*> sums) {
    const int vectors = pass_vectors();
    llvm::Type* lanes = llvm::FixedVectorType::get(ir_.getInt32Ty(), kLanes);
    std::vector<Value*> words;
    for (int v = 0; v < vectors; ++v)
      words.push_back(
          ir_.CreateAlignedLoad(lanes, offset(values, int64_t{v} * kLanes * 4), llvm::Align(32)));
    for (int upper = 0; upper < 2; ++upper) {
      std::vector<Value*> rows;  // two pairs of steps each
      for (int r = 0; r < tile_.rows; ++r) {
        Value* row = byte_offset(emitter_, a, rows_.rows[static_cast<size_t>(r)]);
        for (int pair = 0; pair < 2; ++pair)
          rows.push_back(splat_pair(offset(row, int64_t{upper} * 16 + int64_t{pair} * 8)));
      }
      for (int v = 0; v < vectors; ++v) {
        Value* word = words[static_cast<size_t>(v)];
        const HalfSums pairs = look_up(upper == 0 ? word : ir_.CreateLShr(word, 4));
        for (int r = 0; r < tile_.rows; ++r) {
          const size_t sum = 2 * static_cast<size_t>(r * vectors + v);
          add_pairs(sums[sum], pairs.low, zeros_.low, &rows[static_cast<size_t>(r) * 2]);
          add_pairs(sums[sum + 1], pairs.high, zeros_.high, &rows[static_cast<size_t>(r) * 2]);
        }
      }
    }
  }

  // A lane of `pairs` is two steps of a column as bf16.
  void add_pairs(Value*& sum, Value* pairs, Value* zero, Value* const* rows) {
    Value* first = ir_.CreateBitCast(ir_.CreateShl(pairs, 16), floats());
    Value* second = ir_.CreateBitCast(ir_.CreateAnd(pairs, 0xFFFF0000), floats());
    if (zero != nullptr) first = ir_.CreateFSub(first, zero), second = ir_.CreateFSub(second, zero);
    sum = fma(emitter_, rows[0], first, sum);
    sum = fma(emitter_, rows[1], second, sum);
  }

  // The lower half of each byte as a bf16.
  HalfSums look_up(Value* words) {
    llvm::Type* bytes = llvm::FixedVectorType::get(ir_.getInt8Ty(), 32);
    Value* index = ir_.CreateBitCast(ir_.CreateAnd(words, 0x0F0F0F0F), bytes);
    Value* low = look_up(index, 0);
    Value* high = look_up(index, 1);
    return {interleave(low, high, 0), interleave(low, high, 8)};
  }

  // A byte of what each of -8 to 7 is as a bf16.
  Value* look_up(Value* index, int byte) {
    std::vector<uint8_t> table;
    for (int i = 0; i < 32; ++i) {
      const auto bits = std::bit_cast<uint32_t>(static_cast<float>((i + 8) % 16 - 8));
      table.push_back(static_cast<uint8_t>(bits >> (16 + 8 * byte)));
    }
    llvm::Constant* constant = llvm::ConstantDataVector::get(ir_.getContext(), table);
    return ir_.CreateIntrinsic(llvm::Intrinsic::x86_avx2_pshuf_b, {}, {constant, index});
  }

  // vpunpcklbw (`from` 0) or vpunpckhbw (8).
  Value* interleave(Value* low, Value* high, int from) {
    std::vector<int> order;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 8; ++i) {
        const int byte = half * 16 + from + i;
        order.push_back(byte);
        order.push_back(32 + byte);
      }
    }
    Value* pairs = ir_.CreateShuffleVector(low, high, order);
    return ir_.CreateBitCast(pairs, llvm::FixedVectorType::get(ir_.getInt32Ty(), kLanes));
  }

  // A number for each column, as the columns of sums lie.
  HalfSums split(Value* columns) {
    return {ir_.CreateShuffleVector(columns, {0, 0, 1, 1, 4, 4, 5, 5}),
            ir_.CreateShuffleVector(columns, {2, 2, 3, 3, 6, 6, 7, 7})};
  }

  // Two elements of A, in all pairs of lanes.
  Value* splat_pair(Value* address) {
    Value* pair = ir_.CreateAlignedLoad(ir_.getDoubleTy(), address, llvm::Align(4));
    return ir_.CreateBitCast(ir_.CreateVectorSplat(kLanes / 2, pair), floats());
  }

  // Vector v of a row of elements, as f32.
  Value* load(DType dtype, Value* row, int v) {
    const int64_t bytes = kLanes * ElementFormat(dtype).bytes();
    return OperandFormat{dtype, DType::F32, DType::F32}.load(ir_, offset(row, v * bytes), kLanes);
  }

  void prefetch(Value* address) { fetch_line(emitter_, offset(address, kPrefetchDistance)); }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const Tile tile_;
  const GroupFormat& format_;
  const GroupRows& rows_;
  HalfSums zeros_;
};

}  // namespace

bool looks_up(const Target& target, const GroupFormat& format) {
  return format.bits == 4 && !target.has(Feature::Avx512F);
}

Accumulators multiply_looked_up(Emitter& emitter, Tile tile, const GroupFormat& format,
                                const GroupRows& rows, const GroupColumns& columns) {
  return LookUp(emitter, tile, format, rows).run(columns);
}

}  // namespace kiln::cpu
