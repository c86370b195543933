#include "backends/cpu/compile/contract/attention_softmax.h"

#include <algorithm>
#include <limits>
#include <numbers>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/cpu/compile/math/math.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// Vectors in flight: several rows at once hide the latency of reductions.
constexpr int kVectorsAtOnce = 8;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// 2^r for |r| <= 1 / 2.
Real power_of_rest(Real r) {
  return polynomial(
      r, {1.0, 0x1.62e42ap-1, 0x1.ebf9c2p-3, 0x1.c6b6dap-5, 0x1.3ce8b2p-7, 0x1.5bd97cp-10});
}

// Instructions of AVX-512 take the rest of an exponent, and scale by its power where it is above.
Real emit_power_by_instructions(Real x, Value* is_above) {
  constexpr int kNearest = 8, kCurrentRounding = 4;  // to the nearest integer, without a flag
  llvm::IRBuilder<>& ir = *x.ir;
  Value* all = ir.getInt16(-1);
  const Real rest = x.with(ir.CreateIntrinsic(
      llvm::Intrinsic::x86_avx512_mask_reduce_ps_512, {},
      {x.value, ir.getInt32(kNearest), x.value, all, ir.getInt32(kCurrentRounding)}));
  const Real power = x - rest;
  // Lanes that are left out are no work.
  return x.with(ir.CreateIntrinsic(
      llvm::Intrinsic::x86_avx512_mask_scalef_ps_512, {},
      {power_of_rest(rest).value, power.value, x.of(0.0).value,
       ir.CreateBitCast(is_above, ir.getInt16Ty()), ir.getInt32(kCurrentRounding)}));
}

// Elsewhere a sum pushes the fraction out, rounded, and leaves the power and the exponent's bias in its low bits: those of
// a factor that is a normal number, since x lies in [-126, 0].
Real emit_power_by_bits(Real x, Value* is_above) {
  constexpr double kShifter = 0x1.8p23 + 127;
  constexpr int kMantissaBits = 23;
  const Real shifted = x + kShifter;
  const Real mantissa = power_of_rest(x - (shifted - kShifter));
  const Real factor = x.from_bits(x.ir->CreateShl(shifted.bits(), kMantissaBits));
  return select(is_above, mantissa * factor, x.of(0.0));
}

// 2^x for x <= 0 to 2 ulp, and 0 below -126, where denormal numbers are near: some CPUs take a hundred cycles for each
// vector with one. Shorter than emit_exp2: nothing overflows, and the sum of a row forgives what small terms lose.
Real emit_power_of_two(Real x) {
  constexpr double kLeast = -126.0;
  Value* is_above = x.ir->CreateFCmpUGE(x.value, x.of(kLeast).value);  // a NaN stays
  return has_feature(*x.ir, Feature::Avx512Dq) ? emit_power_by_instructions(x, is_above)
                                               : emit_power_by_bits(x, is_above);
}

class SoftmaxEmitter {
 public:
  SoftmaxEmitter(Emitter& emitter, const plan::Attention& attention, const ScoreLayout& scores,
                 const SoftmaxRows& rows)
      : emitter_(emitter),
        ir_(emitter.ir()),
        attention_(attention),
        scores_(scores),
        rows_(rows),
        sum_(attention.formats.accumulator),
        lanes_(emitter.target().lanes()),
        group_vectors_(static_cast<int>(scores.width) / lanes_) {
    shapes_scores_ = attention.keep != nullptr || attention.bias != nullptr || attention.scale <= 0;
    whole_ = !attention.causal && ir::provably_divisible(attention.j.extent(), scores.width);
  }

  void run() {
    const int at_once = std::max(1, kVectorsAtOnce / group_vectors_);
    Value* count = rows_.rows.count;
    Value* rest = ir_.CreateURem(count, ir_.getInt64(at_once));
    Value* whole = ir_.CreateSub(count, rest);
    emitter_.loop(ir_.getInt64(0), whole, at_once, [&](Value* r) { emit_rows(r, at_once); });
    if (at_once > 1) emitter_.loop(whole, count, 1, [&](Value* r) { emit_rows(r, 1); });
  }

 private:
  // A row in progress.
  struct Row {
    Value* index = nullptr;    // i
    Value* address = nullptr;  // of its first score
    Value* inverse = nullptr;  // where the inverse of its sum goes
    Value* limit = nullptr;    // columns from here on are masked out
  };
  // One vector of a row of scores.
  struct ScoreVector {
    const Row* row = nullptr;
    Value* address = nullptr;
    Value* power = nullptr;  // the address of its powers
    Value* column = nullptr;
    Value* mask = nullptr;  // null if all columns exist
  };
  using Reduced = std::vector<Value*>;  // one scalar a row
  using Step = std::function<Value*(const ScoreVector&, size_t row, Value* carried)>;
  using Combine = std::function<Value*(Value*, Value*)>;

  Value* number(double value) { return llvm::ConstantFP::get(sum_.register_type(ir_), value); }
  Value* splat(Value* value) { return ir_.CreateVectorSplat(lanes_, value); }
  Value* at(Value* base, Value* index, int64_t stride) {
    return byte_offset(emitter_, base, ir_.CreateMul(index, ir_.getInt64(stride)));
  }

  void emit_rows(Value* first, int count) {
    std::vector<Row> rows;
    for (int i = 0; i < count; ++i) rows.push_back(make_row(ir_.CreateAdd(first, ir_.getInt64(i))));
    const Reduced highest = emit_maxima(rows);
    const Reduced sums = emit_powers(rows, highest);
    for (size_t i = 0; i < rows.size(); ++i) {
      Value* divisor = sums[i];
      if (!attention_.nan_rows) {  // an empty row: products with 1 / infinity instead of 1 / 0
        divisor =
            ir_.CreateSelect(ir_.CreateFCmpOEQ(divisor, number(0)), number(kInfinity), divisor);
      }
      sum_.store(ir_, ir_.CreateFDiv(number(1), divisor), rows[i].inverse);
    }
  }

  Row make_row(Value* r) {
    Row row;
    row.index = ir_.CreateAdd(rows_.rows.begin, r);
    row.address = at(scores_.base, r, scores_.row_bytes);
    row.inverse = at(rows_.inverse_sums, r, sum_.bytes());
    row.limit = rows_.keys;
    if (attention_.causal) {
      row.limit = smaller(emitter_, rows_.keys, ir_.CreateAdd(row.index, ir_.getInt64(1)));
    }
    return row;
  }

  // Runs `step` over the vectors of all rows, with one carried value for each vector of a group;
  // combines what is left of each row.
  Reduced over_rows(const std::vector<Row>& rows, Value* initial, const Step& step,
                    const Combine& combine) {
    const auto vectors = static_cast<size_t>(group_vectors_);
    std::vector<Value*> carried(rows.size() * vectors, initial);
    carried = emitter_.loop_carrying(ir_.getInt64(0), rows_.groups, 1, carried,
                                     [&](Value* group, const std::vector<Value*>& values) {
                                       std::vector<Value*> next;
                                       for (size_t i = 0; i < values.size(); ++i) {
                                         const ScoreVector vector =
                                             make_vector(rows[i / vectors], group, i % vectors);
                                         next.push_back(step(vector, i / vectors, values[i]));
                                       }
                                       return next;
                                     });
    Reduced result;
    for (size_t r = 0; r < rows.size(); ++r) {
      result.push_back(reduce({carried.data() + r * vectors, vectors}, combine));
    }
    return result;
  }

  ScoreVector make_vector(const Row& row, Value* group, size_t v) {
    const auto first = static_cast<int64_t>(v) * lanes_;
    ScoreVector vector;
    vector.row = &row;
    vector.address = byte_offset(emitter_, at(row.address, group, scores_.group_bytes),
                                 ir_.getInt64(first * sum_.bytes()));
    vector.power = byte_offset(emitter_, at(row.address, group, scores_.power_group_bytes),
                               ir_.getInt64(first * ElementFormat(scores_.power).bytes()));
    vector.column =
        ir_.CreateAdd(ir_.CreateMul(group, ir_.getInt64(scores_.width)), ir_.getInt64(first));
    if (!whole_) vector.mask = mask_below(emitter_, vector.column, row.limit);
    return vector;
  }

  Value* load(const ScoreVector& vector) { return sum_.load(ir_, vector.address, lanes_, 32); }
  void store(Value* value, const ScoreVector& vector) {
    sum_.store(ir_, value, vector.address, 32);
  }
  void store_power(Value* value, const ScoreVector& vector) {
    if (scores_.power == DType::BF16)
      value = ir_.CreateIntrinsic(llvm::Intrinsic::x86_avx512bf16_cvtneps2bf16_512, {}, {value});
    ir_.CreateAlignedStore(value, vector.power, llvm::Align(32));
  }
  Value* larger(Value* a, Value* b) { return ir_.CreateSelect(ir_.CreateFCmpOGT(a, b), a, b); }

  // The highest score of each row, 0 if there is none. Leaves scaled and masked scores where
  // `shapes_scores_` says so, and raw ones elsewhere.
  Reduced emit_maxima(const std::vector<Row>& rows) {
    Value* lowest = splat(number(-kInfinity));
    auto step = [&](const ScoreVector& vector, size_t, Value* highest) {
      Value* score = load(vector);
      if (shapes_scores_) score = shaped_score(score, vector);
      if (vector.mask != nullptr) score = ir_.CreateSelect(vector.mask, score, lowest);
      if (shapes_scores_) store(score, vector);
      return larger(score, highest);
    };
    Reduced maxima =
        over_rows(rows, lowest, step, [&](Value* a, Value* b) { return larger(a, b); });
    for (Value*& highest : maxima) {
      Value* none = ir_.CreateFCmpOEQ(highest, number(-kInfinity));
      highest = ir_.CreateSelect(none, number(0), highest);
    }
    return maxima;
  }

  Value* shaped_score(Value* score, const ScoreVector& vector) {
    emitter_.bind(attention_.i.index, vector.row->index);
    emitter_.bind(attention_.j.index, vector.column);
    const Lanes lanes{attention_.j.index, lanes_, vector.mask};
    Value* result = ir_.CreateFMul(score, splat(number(attention_.scale)));
    if (attention_.bias != nullptr) {
      result = ir_.CreateFAdd(result, emitter_.emit(attention_.bias, lanes));
    }
    if (attention_.keep != nullptr) {
      result = ir_.CreateSelect(emitter_.emit(attention_.keep, lanes), result,
                                splat(number(-kInfinity)));
    }
    return result;
  }

  // Scores become powers; the sum of each row. The difference comes before the product: that of the highest score is 0,
  // where the rounding of a large product would be its exponent.
  Reduced emit_powers(const std::vector<Row>& rows, const Reduced& highest) {
    Value* zero = llvm::Constant::getNullValue(vector_type(emitter_, sum_.dtype()));
    std::vector<Value*> shifts;
    for (Value* value : highest) shifts.push_back(splat(value));
    auto step = [&](const ScoreVector& vector, size_t row, Value* sum) {
      Value* power = emit_power(ir_.CreateFSub(load(vector), shifts[row]));
      if (vector.mask != nullptr) power = ir_.CreateSelect(vector.mask, power, zero);
      store_power(power, vector);
      return ir_.CreateFAdd(sum, power);
    };
    return over_rows(rows, zero, step, [&](Value* a, Value* b) { return ir_.CreateFAdd(a, b); });
  }

  // The exponential of a difference of scores.
  Value* emit_power(Value* difference) {
    const double scale = shapes_scores_ ? 1 : attention_.scale;
    difference = ir_.CreateFMul(difference, splat(number(scale * std::numbers::log2e)));
    return emit_power_of_two({ir_, difference}).value;
  }

  // All lanes of all vectors in one scalar.
  Value* reduce(std::span<Value* const> vectors, const Combine& combine) {
    Value* total = vectors[0];
    for (size_t v = 1; v < vectors.size(); ++v) total = combine(total, vectors[v]);
    for (int half = lanes_ / 2; half >= 1; half /= 2) {
      std::vector<int> upper;
      for (int i = 0; i < lanes_; ++i) upper.push_back((i + half) % lanes_);
      total = combine(total, ir_.CreateShuffleVector(total, upper));
    }
    return ir_.CreateExtractElement(total, ir_.getInt64(0));
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::Attention& attention_;
  const ScoreLayout scores_;
  const SoftmaxRows rows_;
  const ElementFormat sum_;
  const int lanes_;
  const int group_vectors_;
  bool shapes_scores_ = false;
  bool whole_ = false;  // all columns of all groups exist
};

}  // namespace

void emit_softmax(Emitter& emitter, const plan::Attention& attention, const ScoreLayout& scores,
                  const SoftmaxRows& rows) {
  SoftmaxEmitter(emitter, attention, scores, rows).run();
}

}  // namespace kiln::cpu
