// Loop nests: pointwise operations, reductions, normalisations, pooling, data movement.
//
// The outer loops are the tasks. Vectors run along one outer loop through all stages (lanes are
// neighbouring results), or along a loop of each stage (lanes are neighbouring summands).
#include <algorithm>

#include "backends/cpu/compile/codegen.h"
#include "backends/cpu/compile/nest_axis.h"
#include "backends/cpu/compile/nest_simplify.h"
#include "backends/cpu/compile/reducer.h"
#include "backends/cpu/compile/tasks.h"
#include "plan/access.h"
#include "support/error.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;
using plan::Expr;
using plan::Loop;
using plan::LoopNest;
using plan::Stage;

namespace {

// A long loop of lanes is cut in blocks, so that there is something to share between threads.
constexpr int64_t kBlockWork = 8 * 1024;
constexpr int64_t kLargestBlock = 4096;
// Independent sums in flight, to hide the latency of additions.
constexpr int kSums = 4;
// Blocks are whole groups of vectors on every target.
constexpr int64_t kBlockUnit = kSums * 16;

class NestEmitter {
 public:
  NestEmitter(Emitter& emitter, const LoopNest& nest)
      : emitter_(emitter),
        ir_(emitter.ir()),
        nest_(nest),
        axes_(choose_axes(nest)),
        lanes_(emitter.target().lanes) {}

  void run() { axes_.outer ? run_along_outer(nest_.outer[*axes_.outer]) : run_along_inner(); }

 private:
  using State = Reducer::State;
  using Body = std::function<State(const State&)>;

  Value* i64(int64_t value) { return ir_.getInt64(static_cast<uint64_t>(value)); }

  // --- Lanes along an outer loop ------------------------------------------------------------------

  void run_along_outer(const Loop& lane) {
    std::vector<Loop> rows = nest_.outer;
    rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(*axes_.outer));
    const int64_t block = block_size();
    const Dim blocks = ir::ceildiv(lane.extent(), block);
    const Loop blocked{ir::make_loop_symbol("block", blocks)};
    const bool whole = blocks.is_constant(1);
    if (!whole) rows.push_back(blocked);
    const int64_t points = std::min(block, std::max<int64_t>(lane.extent().at_opt(), 1));
    emitter_.interface().min_tasks_per_thread = tasks_per_thread(estimated_work(nest_, points));
    for_each_task(emitter_, rows, [&] {
      const Dim first = whole ? Dim(0) : Dim(blocked.index) * block;
      const Dim end = whole ? lane.extent() : ir::min(lane.extent(), first + block);
      for_lanes(lane, {first, end}, lanes_in_flight(lane), [&](const Lanes& lanes, int copies) {
        emit_stages(lanes, copies);
      });
    });
  }

  int64_t block_size() const {
    const int64_t wanted = kBlockWork / std::max<int64_t>(1, estimated_work(nest_, 1));
    return std::clamp(wanted / kBlockUnit * kBlockUnit, kBlockUnit, kLargestBlock);
  }

  // Several vectors at once where each is a chain of additions.
  int lanes_in_flight(const Loop& lane) const {
    int64_t longest = 0;
    for (const Stage& stage : nest_.stages) {
      if (!std::holds_alternative<plan::Reduction>(stage)) continue;
      int64_t points = 1;
      for (const Loop& loop : loops_of(stage)) points *= loop.extent().at_opt();
      longest = std::max(longest, points);
    }
    return longest >= kSums && lane.extent().at_opt() >= kSums * 16 ? kSums : 1;
  }

  void emit_stages(const Lanes& lanes, int copies) {
    std::vector<Leaves> leaves(static_cast<size_t>(copies));
    for (const Stage& stage : nest_.stages) {
      const std::vector<Expr> values = shifted_copies(value_of(stage), lanes, copies);
      if (const auto* reduction = std::get_if<plan::Reduction>(&stage)) {
        reduce_along_outer(*reduction, values, lanes, leaves);
      } else {
        store_along_outer(std::get<plan::Store>(stage), values, lanes, leaves);
      }
    }
  }

  // The expression for the lanes of this vector, the next one, ...
  std::vector<Expr> shifted_copies(const Expr& value, const Lanes& lanes, int copies) const {
    std::vector<Expr> result = {value};
    for (int c = 1; c < copies; ++c) result.push_back(plan::substitute(value, shift(lanes, c)));
    return result;
  }

  plan::IndexMap shift(const Lanes& lanes, int vectors) const {
    return [index = lanes.index, distance = vectors * lanes_](
               const ir::SymbolPtr& symbol) -> std::optional<Dim> {
      if (symbol != index) return std::nullopt;
      return Dim(symbol) + distance;
    };
  }

  void reduce_along_outer(const plan::Reduction& reduction, const std::vector<Expr>& values,
                          const Lanes& lanes, std::vector<Leaves>& leaves) {
    const Reducer reducer(emitter_, reduction.op, reduction.value->dtype);
    const State initial = repeated(broadcast_positions(reducer.initial(lanes_)), values.size());
    const State last = nested(reduction.loops, 0, initial, [&](const State& state) {
      State next;
      for (size_t c = 0; c < values.size(); ++c) {
        Value* value = emitter_.emit(values[c], lanes, leaves[c]);
        Value* position = reduction.loops.empty() ? i64(0) : emitter_.value_of(reduction.loops.back().index);
        append(next, reducer.step(copy_of(state, c, values.size()), value, position, nullptr));
      }
      return next;
    });
    for (size_t c = 0; c < values.size(); ++c) {
      leaves[c].reduced.push_back(reducer.result(copy_of(last, c, values.size())));
    }
  }

  // All lanes start at position 0: they are different reductions.
  State broadcast_positions(State state) {
    if (state.size() == 2) state[1] = llvm::Constant::getNullValue(state[1]->getType());
    return state;
  }

  void store_along_outer(const plan::Store& store, const std::vector<Expr>& values,
                         const Lanes& lanes, const std::vector<Leaves>& leaves) {
    for (size_t c = 0; c < values.size(); ++c) {
      plan::Store copy = store;
      copy.value = values[c];
      for (Dim& index : copy.indices) index = index.substitute(shift(lanes, static_cast<int>(c)));
      emit_store(copy, lanes, leaves[c]);
    }
  }

  // --- Lanes along loops of the stages ------------------------------------------------------------

  void run_along_inner() {
    emitter_.interface().min_tasks_per_thread = tasks_per_thread(estimated_work(nest_, 1));
    for_each_task(emitter_, nest_.outer, [&] {
      Leaves leaves;
      leaves.invariant = true;
      for (size_t s = 0; s < nest_.stages.size(); ++s) {
        const Stage& stage = nest_.stages[s];
        if (const auto* reduction = std::get_if<plan::Reduction>(&stage)) {
          leaves.reduced.push_back(reduce_inner(*reduction, axes_.inner[s], leaves));
        } else {
          store_inner(std::get<plan::Store>(stage), axes_.inner[s], leaves);
        }
      }
    });
  }

  Value* reduce_inner(const plan::Reduction& reduction, std::optional<size_t> axis,
                      const Leaves& leaves) {
    const Reducer reducer(emitter_, reduction.op, reduction.value->dtype);
    std::vector<Loop> loops = reduction.loops;
    if (!axis) {
      const State last = nested(loops, 0, reducer.initial(1), [&](const State& state) {
        Value* value = emitter_.emit(reduction.value, Lanes(), in_loop(leaves, loops));
        Value* position = loops.empty() ? i64(0) : emitter_.value_of(loops.back().index);
        return reducer.step(state, value, position, nullptr);
      });
      return reducer.result(last);
    }
    const Loop lane = loops[*axis];
    loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(*axis));
    const int sums = lane.extent().at_opt() >= kSums * 16 ? kSums : 1;
    const State initial = repeated(reducer.initial(lanes_), static_cast<size_t>(sums));
    const State last = nested(loops, 0, initial, [&](const State& state) {
      return reduce_lanes(reducer, reduction.value, lane, state, leaves, sums);
    });
    State total = copy_of(last, 0, static_cast<size_t>(sums));
    for (int c = 1; c < sums; ++c) {
      total = reducer.join(total, copy_of(last, static_cast<size_t>(c), static_cast<size_t>(sums)));
    }
    return reducer.result(reducer.join_lanes(total));
  }

  // One run along the lanes' loop: `sums` vectors at a time, then one, then the masked rest.
  State reduce_lanes(const Reducer& reducer, const Expr& value, const Loop& lane, State state,
                     const Leaves& leaves, int sums) {
    const Lanes whole{lane.index, lanes_, nullptr};
    const std::vector<Expr> copies = shifted_copies(value, whole, sums);
    const auto step = [&](const Lanes& lanes, int count, const State& carried) {
      State next = carried;
      for (int c = 0; c < count; ++c) {
        const auto at = static_cast<size_t>(c);
        Value* term = emitter_.emit(copies[at], lanes, leaves);
        Value* position = carried.size() == static_cast<size_t>(sums)
                              ? nullptr
                              : emitter_.emit(plan::position(Dim(lane.index) + c * lanes_), lanes);
        const State one = reducer.step(copy_of(carried, at, static_cast<size_t>(sums)), term,
                                       position, lanes.mask);
        std::ranges::copy(one, next.begin() + static_cast<std::ptrdiff_t>(at * one.size()));
      }
      return next;
    };
    return for_lanes_carrying(lane, {0, lane.extent()}, sums, std::move(state), step);
  }

  void store_inner(const plan::Store& store, std::optional<size_t> axis, const Leaves& leaves) {
    if (!axis) return emit_store(store, Lanes(), leaves);
    std::vector<Loop> loops = store.loops;
    const Loop lane = loops[*axis];
    loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(*axis));
    nested(loops, 0, {}, [&](const State&) {
      for_lanes(lane, {0, lane.extent()}, 1, [&](const Lanes& lanes, int) {
        emitter_.store(store.buffer, store.indices, emitter_.emit(store.value, lanes, leaves), lanes);
      });
      return State();
    });
  }

  // --- Both ---------------------------------------------------------------------------------------

  // All loops of the store run one by one; `lanes` run along a loop outside of them, if at all.
  void emit_store(const plan::Store& store, const Lanes& lanes, const Leaves& leaves) {
    if (!store.scan) {
      nested(store.loops, 0, {}, [&](const State&) {
        Value* value = emitter_.emit(store.value, lanes, in_loop(leaves, store.loops));
        emitter_.store(store.buffer, store.indices, value, lanes);
        return State();
      });
      return;
    }
    KILN_CHECK(!store.loops.empty(), "a scan runs along a loop");
    const Reducer reducer(emitter_, *store.scan, store.value->dtype);
    std::vector<Loop> outside = store.loops;
    outside.pop_back();
    nested(outside, 0, {}, [&](const State&) {
      const int width = lanes.index ? lanes.count : 1;
      nested({store.loops.back()}, 0, reducer.initial(width), [&](const State& state) {
        Value* value = emitter_.emit(store.value, lanes, in_loop(leaves, store.loops));
        State next = reducer.step(state, widened(value, width), nullptr, nullptr);
        emitter_.store(store.buffer, store.indices, next[0], lanes);
        return next;
      });
      return State();
    });
  }

  Value* widened(Value* value, int width) {
    if (width == 1 || value->getType()->isVectorTy()) return value;
    return ir_.CreateVectorSplat(static_cast<unsigned>(width), value);
  }

  // What was reduced before a loop is invariant in it.
  static Leaves in_loop(Leaves leaves, const std::vector<Loop>& loops) {
    leaves.invariant = !loops.empty();
    return leaves;
  }

  // The loops one inside the other, carrying a state.
  State nested(const std::vector<Loop>& loops, size_t depth, const State& state, const Body& body) {
    if (depth == loops.size()) return body(state);
    Value* extent = emitter_.value_of(loops[depth].extent());
    return emitter_.loop_carrying(i64(0), extent, 1, state, [&](Value* index, const State& carried) {
      emitter_.bind(loops[depth].index, index);
      return nested(loops, depth + 1, carried, body);
    });
  }

  struct Range {
    Dim begin, end;
  };

  // Runs body(lanes, n) for vectors along a loop: n = `copies` vectors at a time while there are as
  // many, then one at a time, then a masked one. The range begins at a multiple of the lanes.
  void for_lanes(const Loop& lane, const Range& range, int copies,
                 const std::function<void(const Lanes&, int)>& body) {
    for_lanes_carrying(lane, range, copies, {}, [&](const Lanes& lanes, int count, const State&) {
      body(lanes, count);
      return State();
    });
  }

  State for_lanes_carrying(const Loop& lane, const Range& range, int copies, State state,
                           const std::function<State(const Lanes&, int, const State&)>& body) {
    Value* begin = emitter_.value_of(range.begin);
    Value* end = emitter_.value_of(range.end);
    const auto run = [&](Value* from, Value* to, int count, bool masked) {
      const int64_t step = masked ? lanes_ : int64_t{count} * lanes_;
      state = emitter_.loop_carrying(from, to, step, state, [&](Value* first, const State& carried) {
        emitter_.bind(lane.index, first);
        return body({lane.index, lanes_, masked ? mask_below(first, end) : nullptr}, count, carried);
      });
    };
    Value* done = begin;
    if (copies > 1) {
      Value* groups = rounded_down(begin, end, int64_t{copies} * lanes_);
      run(done, groups, copies, false);
      done = groups;
    }
    if (copies == 1 || !ir::provably_divisible(lane.extent(), int64_t{copies} * lanes_)) {
      Value* vectors = rounded_down(begin, end, lanes_);
      run(done, vectors, 1, false);
      if (!ir::provably_divisible(lane.extent(), lanes_)) run(vectors, end, 1, true);
    }
    return state;
  }

  // begin + the whole multiples of `step` up to end.
  Value* rounded_down(Value* begin, Value* end, int64_t step) {
    Value* count = ir_.CreateAnd(ir_.CreateSub(end, begin), i64(-step));
    return ir_.CreateAdd(begin, count);
  }

  Value* mask_below(Value* first, Value* end) {
    Value* left = ir_.CreateTrunc(ir_.CreateSub(end, first), ir_.getInt32Ty());
    std::vector<llvm::Constant*> indices;
    for (int i = 0; i < lanes_; ++i) indices.push_back(ir_.getInt32(static_cast<uint32_t>(i)));
    return ir_.CreateICmpSLT(llvm::ConstantVector::get(indices),
                             ir_.CreateVectorSplat(static_cast<unsigned>(lanes_), left));
  }

  static State repeated(const State& state, size_t copies) {
    State result;
    for (size_t c = 0; c < copies; ++c) append(result, state);
    return result;
  }

  static void append(State& state, const State& more) {
    state.insert(state.end(), more.begin(), more.end());
  }

  static State copy_of(const State& state, size_t copy, size_t copies) {
    const size_t size = state.size() / copies;
    const auto begin = state.begin() + static_cast<std::ptrdiff_t>(copy * size);
    return {begin, begin + static_cast<std::ptrdiff_t>(size)};
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const LoopNest& nest_;
  const VectorAxes axes_;
  const int lanes_;
};

}  // namespace

void emit_loop_nest(Emitter& emitter, const LoopNest& nest) {
  const LoopNest simple = simplify(emitter.program(), nest);
  NestEmitter(emitter, simple).run();
}

}  // namespace kiln::cpu
