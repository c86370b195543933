#include "backends/cpu/compile/contract/group_panel.h"

#include <array>
#include <numeric>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/cpu/compile/contract/group_lookup.h"
#include "backends/cpu/compile/contract/pack_nibbles.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// Between what is read and what is fetched: unpacking leaves the loads of the machine itself no time to run ahead.
constexpr int64_t kPrefetchDistance = 2048;

void prefetch(Emitter& emitter, Value* address, int64_t bytes) {
  auto& ir = emitter.ir();
  for (int64_t line = 0; line < bytes; line += 64) {
    fetch_line(emitter, byte_offset(emitter, address, ir.getInt64(kPrefetchDistance + line)));
  }
}

// Vectors of elements, for steps of k one after another.
class GroupReader {
 public:
  GroupReader(Emitter& emitter, const GroupFormat& format, int vectors)
      : emitter_(emitter), ir_(emitter.ir()), format_(format), vectors_(vectors) {}

  // The zero points of a group, as f32: none where there are none.
  void begin_group(Value* zeros) {
    zeros_.clear();
    if (!format_.has_zeros) return;
    for (int v = 0; v < vectors_; ++v) zeros_.push_back(load(DType::I8, zeros, v));
  }

  // Of an iteration that begins at these values: body(step, elements less their zero points).
  template <typename Body>
  void for_steps(Value* values, const Body& body) {
    std::vector<Value*> words;
    prefetch(emitter_, values, format_.unit() * kGroupPanelWidth * format_.bits / 8);
    for (int v = 0; v < vectors_ && format_.bits == 4; ++v) {
      llvm::Type* type = llvm::FixedVectorType::get(ir_.getInt32Ty(), lanes());
      Value* at = byte_offset(emitter_, values, ir_.getInt64(int64_t{v} * lanes() * 4));
      words.push_back(ir_.CreateAlignedLoad(type, at, llvm::Align(32)));
    }
    for (int64_t step = 0; step < format_.unit(); ++step) {
      std::vector<Value*> elements;
      for (int v = 0; v < vectors_; ++v) {
        Value* row = byte_offset(emitter_, values, ir_.getInt64(step * kGroupPanelWidth));
        Value* element = format_.bits == 4 ? nibble(words[v], step) : load(DType::I8, row, v);
        if (format_.has_zeros) element = ir_.CreateFSub(element, zeros_[v]);
        elements.push_back(element);
      }
      body(step, elements);
    }
  }

  std::vector<Value*> scales(Value* address) {
    std::vector<Value*> result;
    for (int v = 0; v < vectors_; ++v) result.push_back(load(format_.scale, address, v));
    return result;
  }

 private:
  int lanes() const { return emitter_.target().lanes(); }

  // Vector v of a row of elements, as f32.
  Value* load(DType dtype, Value* row, int v) {
    const int64_t bytes = lanes() * ElementFormat(dtype).bytes();
    Value* at = byte_offset(emitter_, row, ir_.getInt64(v * bytes));
    return OperandFormat{dtype, DType::F32, DType::F32}.load(ir_, at, lanes());
  }

  Value* nibble(Value* words, int64_t step) {
    llvm::Type* floats = vector_type(emitter_, DType::F32);
    const int64_t place = nibble_place(step) * 4;
    if (emitter_.target().has(Feature::Avx512F)) {
      Value* index = place == 0 ? words : ir_.CreateLShr(words, place);
      return ir_.CreateIntrinsic(llvm::Intrinsic::x86_avx512_permvar_sf_512, {}, {table(), index});
    }
    const int64_t above = 28 - place;
    Value* top = above == 0 ? words : ir_.CreateShl(words, above);
    return ir_.CreateSIToFP(ir_.CreateAShr(top, 28), floats);
  }

  // What the lowest four bits of a lane stand for.
  llvm::Constant* table() {
    std::vector<float> numbers(16);
    std::iota(numbers.begin(), numbers.begin() + 8, 0.0F);
    std::iota(numbers.begin() + 8, numbers.end(), -8.0F);
    return llvm::ConstantDataVector::get(ir_.getContext(), numbers);
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const GroupFormat& format_;
  const int vectors_;
  std::vector<Value*> zeros_;
};

// Sums that one iteration adds to in turns: enough to hide the latency of the FMA.
int ways_of(Tile tile) {
  return tile.rows * tile.vectors >= 4 ? 1 : 4 / (tile.rows * tile.vectors);
}

// Where the next iteration, or group, reads.
struct Position {
  Value *a = nullptr, *values = nullptr, *scales = nullptr, *zeros = nullptr;
};

class Multiplier {
 public:
  Multiplier(Emitter& emitter, Tile tile, const GroupFormat& format, const GroupRows& rows)
      : emitter_(emitter),
        ir_(emitter.ir()),
        tile_(tile),
        format_(format),
        rows_(rows),
        reader_(emitter, format, tile.vectors) {}

  Accumulators run(const GroupColumns& columns) {
    const bool has_zeros = format_.has_zeros;
    Emitter::Carried carried{rows_.a, columns.values, columns.scales};
    if (has_zeros) carried.push_back(columns.zeros);
    const auto fixed = static_cast<std::ptrdiff_t>(carried.size());
    const Accumulators zeros = zero_tile(emitter_, tile_);
    carried.insert(carried.end(), zeros.begin(), zeros.end());
    carried = emitter_.loop_carrying(
        i64(0), i64(format_.groups()), 1, carried, [&](Value*, const Emitter::Carried& values) {
          Position at{values[0], values[1], values[2], has_zeros ? values[3] : nullptr};
          Accumulators totals(values.begin() + fixed, values.end());
          add_group(at, totals);
          Emitter::Carried next{at.a, at.values, at.scales};
          if (has_zeros) next.push_back(at.zeros);
          next.insert(next.end(), totals.begin(), totals.end());
          return next;
        });
    return {carried.begin() + fixed, carried.end()};
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }

  // Sums of integers times x first, which are scaled as one: a multiplication less for each element.
  void add_group(Position& at, Accumulators& totals) {
    reader_.begin_group(at.zeros);
    const size_t count = totals.size(), ways = static_cast<size_t>(ways_of(tile_));
    Emitter::Carried carried{at.a, at.values};
    carried.resize(2 + count * ways, llvm::Constant::getNullValue(totals[0]->getType()));
    const int64_t iterations = (format_.size + format_.unit() - 1) / format_.unit();
    carried = emitter_.loop_carrying(
        i64(0), i64(iterations), 1, carried,
        [&](Value*, const Emitter::Carried& values) { return add_steps(values, ways); });
    for (size_t i = count; i < count * ways; ++i)
      carried[2 + i % count] = ir_.CreateFAdd(carried[2 + i % count], carried[2 + i]);
    const std::vector<Value*> scales = reader_.scales(at.scales);
    prefetch(emitter_, at.scales, kGroupPanelWidth * ElementFormat(format_.scale).bytes());
    for (size_t i = 0; i < count; ++i)
      totals[i] = fma(emitter_, carried[2 + i], scales[i % scales.size()], totals[i]);
    at.a = carried[0];
    at.values = carried[1];
    const int64_t row = kGroupPanelWidth * ElementFormat(format_.scale).bytes();
    at.scales = byte_offset(emitter_, at.scales, i64(row));
    if (at.zeros != nullptr) at.zeros = byte_offset(emitter_, at.zeros, i64(kGroupPanelWidth));
  }

  Emitter::Carried add_steps(const Emitter::Carried& values, size_t ways) {
    Emitter::Carried next = values;
    const size_t count = (values.size() - 2) / ways;
    reader_.for_steps(values[1], [&](int64_t step, const std::vector<Value*>& elements) {
      const size_t set = 2 + static_cast<size_t>(step) % ways * count;
      for (int r = 0; r < tile_.rows; ++r) {
        Value* address = byte_offset(emitter_, next[0], rows_.rows[r]);
        Value* x = ElementFormat(DType::F32).load(ir_, address);
        Value* splat = ir_.CreateVectorSplat(emitter_.target().lanes(), x);
        for (int v = 0; v < tile_.vectors; ++v) {
          Value*& sum = next[set + static_cast<size_t>(r * tile_.vectors + v)];
          sum = fma(emitter_, splat, elements[v], sum);
        }
      }
      next[0] = byte_offset(emitter_, next[0], rows_.a_step);
    });
    next[1] =
        byte_offset(emitter_, next[1], i64(format_.unit() * kGroupPanelWidth * format_.bits / 8));
    return next;
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const Tile tile_;
  const GroupFormat& format_;
  const GroupRows& rows_;
  GroupReader reader_;
};

}  // namespace

namespace {

// Two vectors as bf16, element by element.
Value* joined_pairs(llvm::IRBuilder<>& ir, Value* even, Value* odd) {
  Value* rounded =
      ir.CreateIntrinsic(llvm::Intrinsic::x86_avx512bf16_cvtne2ps2bf16_512, {}, {odd, even});
  constexpr int kLanes = 16;
  std::vector<int> order;
  for (int i = 0; i < kLanes; ++i) order.insert(order.end(), {i, kLanes + i});
  Value* bits = ir.CreateBitCast(rounded, llvm::FixedVectorType::get(ir.getInt16Ty(), 2 * kLanes));
  return ir.CreateShuffleVector(bits, order);
}

}  // namespace

int64_t GroupFormat::unit() const {
  return bits == 4 || size % kNibbleSteps == 0 ? kNibbleSteps : 1;
}

int64_t GroupFormat::scale_bytes() const {
  return groups() * kGroupPanelWidth * static_cast<int64_t>(dtype_size(scale));
}

GroupColumns columns_from(Emitter& emitter, const GroupFormat& format, const GroupColumns& columns,
                          Value* first) {
  auto& ir = emitter.ir();
  const auto from = [&](Value* base, int64_t bytes) {
    return byte_offset(emitter, base, ir.CreateMul(first, ir.getInt64(bytes)));
  };
  GroupColumns result;
  result.values = from(columns.values, format.bits == 4 ? 4 : 1);
  result.scales = from(columns.scales, ElementFormat(format.scale).bytes());
  if (columns.zeros != nullptr) result.zeros = from(columns.zeros, 1);
  return result;
}

// A sum for a group and one for all of them, the lanes, their zero points and what is made of them fit the
// registers: 16 + 4 of 32, and 8 + 4 of 16. A single row takes all of a panel, so that it is
// read in the order in which it lies, unless zero points take the registers.
DirectTile direct_tile(const Target& target, const GroupFormat& format, int64_t rows) {
  if (target.registers >= 32) return {2, 4};
  const bool fits = format.bits == 4 || !format.has_zeros;
  return rows == 1 && fits ? DirectTile{4, 1} : DirectTile{2, 2};
}

Accumulators multiply_groups(Emitter& emitter, Tile tile, const GroupFormat& format,
                             const GroupRows& rows, const GroupColumns& columns) {
  if (looks_up(emitter.target(), format))
    return multiply_looked_up(emitter, tile, format, rows, columns);
  return Multiplier(emitter, tile, format, rows).run(columns);
}

void unpack_groups(Emitter& emitter, const GroupFormat& format, const GroupColumns& columns,
                   Value* to, Unpacked form) {
  auto& ir = emitter.ir();
  constexpr int kVectors = 2;
  const int64_t lanes = emitter.target().lanes(), strip = kVectors * lanes;
  const int64_t unit = format.unit(), row_bytes = unpacked_row_bytes(form);
  const int64_t iterations = (format.size + unit - 1) / unit;
  GroupReader reader(emitter, format, kVectors);
  emitter.loop(ir.getInt64(0), ir.getInt64(kGroupPanelWidth), strip, [&](Value* column) {
    const GroupColumns from = columns_from(emitter, format, columns, column);
    Value* out = byte_offset(emitter, to, ir.CreateMul(column, ir.getInt64(4)));
    emitter.loop(ir.getInt64(0), ir.getInt64(format.groups()), 1, [&](Value* group) {
      const auto of_group = [&](Value* base, int64_t bytes) {
        return byte_offset(emitter, base, ir.CreateMul(group, ir.getInt64(bytes)));
      };
      if (from.zeros != nullptr) reader.begin_group(of_group(from.zeros, kGroupPanelWidth));
      const int64_t scale_row = kGroupPanelWidth * ElementFormat(format.scale).bytes();
      const std::vector<Value*> scales = reader.scales(of_group(from.scales, scale_row));
      const int64_t value_bytes = unit * kGroupPanelWidth * format.bits / 8;
      Value* values = of_group(from.values, iterations * value_bytes);
      Value* rows = of_group(out, format.size * row_bytes);
      emitter.loop(ir.getInt64(0), ir.getInt64(iterations), 1, [&](Value* i) {
        Value* at = byte_offset(emitter, values, ir.CreateMul(i, ir.getInt64(value_bytes)));
        Value* row = byte_offset(emitter, rows, ir.CreateMul(i, ir.getInt64(unit * row_bytes)));
        std::array<Value*, kVectors> even{};
        reader.for_steps(at, [&](int64_t step, const std::vector<Value*>& elements) {
          for (int v = 0; v < kVectors; ++v) {
            Value* number = ir.CreateFMul(elements[v], scales[v]);
            if (form == Unpacked::Pairs && step % 2 == 0) {
              even[v] = number;
              continue;
            }
            const int64_t first = form == Unpacked::Pairs ? step - 1 : step;
            Value* address =
                byte_offset(emitter, row, ir.getInt64(first * row_bytes + v * lanes * 4));
            if (form == Unpacked::Pairs) {
              ir.CreateAlignedStore(joined_pairs(ir, even[v], number), address, llvm::Align(4));
            } else {
              ElementFormat(DType::F32).store(ir, number, address);
            }
          }
        });
      });
    });
  });
}

}  // namespace kiln::cpu
