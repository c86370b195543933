// Sorting: a task for each row.
//
// Keys and their numbers lie side by side in the scratch of the thread. Runs of 1, 2, 4, ... keys are merged
// from one half of the scratch to the other; a merge takes the left one of equal keys, which keeps their order, and
// branches on no data. Where a part of the places is wanted, a key is only kept if it stands in front of the last
// of the best so far, as most do not: few of them are kept in order by insertion, more are collected behind
// the best until there are twice as many, then sorted and cut.
#include <algorithm>
#include <bit>

#include "backends/cpu/compile/emit/element.h"
#include "backends/cpu/compile/emit/thread_work.h"
#include "backends/cpu/compile/nest/tasks.h"
#include "ir/size_overflow.h"
#include "plan/form/access.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;

namespace {

// Up to so many places are kept by insertion; and how many times as many keys it takes for a part of the places
// to be worth a way of its own.
constexpr int64_t kFewPlaces = 64, kManyKeys = 8;
constexpr int64_t kSmallNumber = int64_t{1} << 31;

// Keys and numbers, `capacity` of each.
struct Pairs {
  Value *keys = nullptr, *numbers = nullptr;
};

class SortEmitter {
 public:
  SortEmitter(Emitter& emitter, const plan::Sort& sort)
      : emitter_(emitter),
        ir_(emitter.ir()),
        sort_(sort),
        key_(sort.key->dtype),
        number_(sort.element.extent().upper_bound() < kSmallNumber ? DType::I32 : DType::I64) {}

  void run() {
    const int64_t size = sort_.element.extent().at_opt();
    const Dim& places = sort_.place.extent();
    const bool part = places.lower_bound() >= 1 && places.at_opt() <= size / kManyKeys;
    const bool few = part && places.upper_bound() <= kFewPlaces;
    const int64_t steps =
        part ? 2 : std::bit_width(static_cast<uint64_t>(std::max<int64_t>(size, 1)));
    emitter_.interface().min_tasks_per_thread =
        tasks_per_thread(kOperationsPerThread, ir::saturating_product({size, steps, 8}));
    for_each_task(emitter_, sort_.outer, [&] {
      few ? keep_best() : part ? collect_best() : sort_all();
    });
    emitter_.interface().task_writes = {{sort_.out.buffer, places}};
  }

 private:
  // --- Memory ---

  // The pairs that follow `number` others of `capacity` elements in the scratch. Keys are read up to
  // one behind the last: there is room for it.
  Pairs pairs(int64_t number, const Dim& capacity) {
    const Dim bytes = capacity * (key_.bytes() + number_.bytes());
    const Dim first = ir::ceildiv(bytes, Dim(int64_t{64})) * 64 * number;
    // The wider ones in front, so that both are aligned.
    const bool keys_first = key_.bytes() >= number_.bytes();
    Value* front = at_byte(first);
    Value* behind = at_byte(first + capacity * std::max(key_.bytes(), number_.bytes()));
    emitter_.interface().scratch_bytes = ir::ceildiv(bytes, Dim(int64_t{64})) * 64 * (number + 1);
    return keys_first ? Pairs{front, behind} : Pairs{behind, front};
  }
  Value* at_byte(const Dim& offset) {
    return ir_.CreateGEP(ir_.getInt8Ty(), emitter_.scratch(), emitter_.value_of(offset));
  }

  Value* key_at(const Pairs& pairs, Value* index) {
    return key_.load(ir_, ir_.CreateGEP(key_.memory_type(ir_), pairs.keys, index));
  }
  Value* number_at(const Pairs& pairs, Value* index) {
    return number_.load(ir_, ir_.CreateGEP(number_.memory_type(ir_), pairs.numbers, index));
  }
  void put(const Pairs& pairs, Value* index, Value* key, Value* number) {
    key_.store(ir_, key, ir_.CreateGEP(key_.memory_type(ir_), pairs.keys, index));
    number_.store(ir_, number, ir_.CreateGEP(number_.memory_type(ir_), pairs.numbers, index));
  }

  Value* number(uint64_t value) { return ir_.getInt64(value); }
  void if_true(Value* condition, const std::function<void()>& body) {
    emitter_.loop(number(0), ir_.CreateZExt(condition, ir_.getInt64Ty()), 1,
                  [&](Value*) { body(); });
  }
  Value* smaller(Value* a, Value* b) {
    return ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, a, b);
  }

  // --- The order ---

  // Not-a-number is the greatest.
  Value* less(Value* a, Value* b) {
    if (is_floating(key_.dtype()))
      return ir_.CreateAnd(ir_.CreateFCmpULT(a, b), ir_.CreateFCmpORD(a, a));
    return key_.dtype() == DType::U8 ? ir_.CreateICmpULT(a, b) : ir_.CreateICmpSLT(a, b);
  }
  // Whether a stands in front of b, wherever they were.
  Value* before(Value* a, Value* b) { return sort_.descending ? less(b, a) : less(a, b); }

  void for_keys(const std::function<void(Value* index, Value* key)>& body) {
    emitter_.loop(number(0), emitter_.value_of(sort_.element.extent()), 1, [&](Value* index) {
      emitter_.bind(sort_.element.index, index);
      body(index, emitter_.emit(sort_.key, Lanes()));
    });
  }

  void store_order(const Pairs& sorted) {
    Dim offset = sort_.out.offset;
    for (size_t i = 0; i < sort_.outer.size(); ++i)
      offset += sort_.out.strides[i] * Dim(sort_.outer[i].index);
    offset += sort_.out.strides.back() * Dim(sort_.place.index);
    emitter_.loop(number(0), emitter_.value_of(sort_.place.extent()), 1, [&](Value* place) {
      emitter_.bind(sort_.place.index, place);
      Value* element = ir_.CreateSExt(number_at(sorted, place), ir_.getInt64Ty());
      emitter_.store(sort_.out.buffer, {offset}, element, Lanes());
    });
  }

  // --- Few places ---

  void keep_best() {
    const Pairs best = pairs(0, sort_.place.extent() + 1);
    Value* places = emitter_.value_of(sort_.place.extent());
    Value* one = number(1);
    // The first keys fill the places; from then on the last one makes room.
    for_keys([&](Value* index, Value* key) {
      Value* kept = smaller(index, places);
      Value* last =
          ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, ir_.CreateSub(kept, one), number(0));
      Value* free = ir_.CreateICmpSLT(index, places);
      Value* takes = ir_.CreateOr(free, before(key, key_at(best, last)));
      if_true(takes, [&] { insert(best, kept, key, index); });
    });
    store_order(best);
  }

  // Puts a key among `kept` ones, behind those that it does not stand in front of.
  void insert(const Pairs& best, Value* kept, Value* key, Value* index) {
    const auto count = emitter_.loop_carrying(
        number(0), kept, 1, {number(0)}, [&](Value* i, const Emitter::Carried& carried) {
          Value* stays = ir_.CreateNot(before(key, key_at(best, i)));
          Value* step = ir_.CreateZExt(stays, ir_.getInt64Ty());
          return Emitter::Carried{ir_.CreateAdd(carried[0], step)};
        });
    Value* place = count[0];
    emitter_.loop(place, kept, 1, [&](Value* i) {  // the last one first
      Value* from = ir_.CreateSub(ir_.CreateAdd(ir_.CreateSub(kept, i), place), number(1));
      put(best, ir_.CreateAdd(from, number(1)), key_at(best, from), number_at(best, from));
    });
    put(best, place, key, ir_.CreateTrunc(index, number_.register_type(ir_)));
  }

  // --- More places ---

  void collect_best() {
    const Dim room = 2 * sort_.place.extent();
    const Pairs best = pairs(0, room + 1), spare = pairs(1, room + 1);
    Value *places = emitter_.value_of(sort_.place.extent()), *most = emitter_.value_of(room);
    // How many there are, and whether the first ones are the best in order.
    const auto last = emitter_.loop_carrying(
        number(0), emitter_.value_of(sort_.element.extent()), 1, {number(0), ir_.getFalse()},
        [&](Value* index, const Emitter::Carried& at) {
          emitter_.bind(sort_.element.index, index);
          Value* key = emitter_.emit(sort_.key, Lanes());
          Value* worst = key_at(best, ir_.CreateSub(places, number(1)));
          Value* takes = ir_.CreateOr(ir_.CreateNot(at[1]), before(key, worst));
          if_true(takes, [&] {
            put(best, at[0], key, ir_.CreateTrunc(index, number_.register_type(ir_)));
          });
          Value* count = ir_.CreateAdd(at[0], ir_.CreateZExt(takes, ir_.getInt64Ty()));
          Value* is_full = ir_.CreateICmpEQ(count, most);
          if_true(is_full, [&] {
            const Pairs sorted = merge_all(best, spare, most);
            emitter_.loop(number(0), places, 1,
                          [&](Value* i) { put(best, i, key_at(sorted, i), number_at(sorted, i)); });
          });
          return Emitter::Carried{ir_.CreateSelect(is_full, places, count),
                                  ir_.CreateOr(at[1], is_full)};
        });
    store_order(merge_all(best, spare, last[0]));
  }

  // --- All of them ---

  void sort_all() {
    const Dim& extent = sort_.element.extent();
    const Pairs first = pairs(0, extent + 1), second = pairs(1, extent + 1);
    for_keys([&](Value* index, Value* key) {
      put(first, index, key, ir_.CreateTrunc(index, number_.register_type(ir_)));
    });
    store_order(merge_all(first, second, emitter_.value_of(extent)));
  }

  // Sorts what is in `first`, by means of both; gives the one that the result is in.
  Pairs merge_all(const Pairs& first, const Pairs& second, Value* size) {
    const auto last = emitter_.loop_carrying(
        number(0), passes(size), 1, {first.keys, first.numbers, second.keys, second.numbers},
        [&](Value* pass, const Emitter::Carried& at) {
          merge_runs({at[0], at[1]}, {at[2], at[3]}, pass, size);
          return Emitter::Carried{at[2], at[3], at[0], at[1]};
        });
    return {last[0], last[1]};
  }

  // The least number of doublings from 1 to `size`.
  Value* passes(Value* size) {
    Value* above = ir_.CreateSub(size, number(1));
    Value* zeros = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::ctlz, above, ir_.getFalse());
    Value* bits = ir_.CreateSub(number(64), zeros);
    return ir_.CreateSelect(ir_.CreateICmpSGT(size, number(1)), bits, number(0));
  }

  // Merges neighbouring runs of 2^pass keys.
  void merge_runs(const Pairs& from, const Pairs& to, Value* pass, Value* size) {
    Value* width = ir_.CreateShl(number(1), pass);
    Value* both = ir_.CreateShl(width, number(1));
    Value* runs = ir_.CreateAdd(size, ir_.CreateSub(both, number(1)));
    runs = ir_.CreateLShr(runs, ir_.CreateAdd(pass, number(1)));
    emitter_.loop(number(0), runs, 1, [&](Value* run) {
      Value* begin = ir_.CreateMul(run, both);
      Value* middle = smaller(ir_.CreateAdd(begin, width), size);
      Value* end = smaller(ir_.CreateAdd(begin, both), size);
      emitter_.loop_carrying(
          begin, end, 1, {begin, middle}, [&](Value* place, const Emitter::Carried& at) {
            Value *left = at[0], *right = at[1];
            Value *left_key = key_at(from, left), *right_key = key_at(from, right);
            Value* takes_right = ir_.CreateAnd(
                ir_.CreateICmpSLT(right, end),
                ir_.CreateOr(ir_.CreateICmpSGE(left, middle), before(right_key, left_key)));
            Value* taken = ir_.CreateSelect(takes_right, right, left);
            put(to, place, ir_.CreateSelect(takes_right, right_key, left_key),
                number_at(from, taken));
            Value* step = ir_.CreateZExt(takes_right, ir_.getInt64Ty());
            return Emitter::Carried{ir_.CreateAdd(left, ir_.CreateSub(number(1), step)),
                                    ir_.CreateAdd(right, step)};
          });
    });
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::Sort& sort_;
  const ElementFormat key_, number_;
};

}  // namespace

void emit_sort(Emitter& emitter, const plan::Sort& sort) { SortEmitter(emitter, sort).run(); }

}  // namespace kiln::cpu
