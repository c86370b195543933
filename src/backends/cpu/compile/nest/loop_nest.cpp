// Loop nests: pointwise operations, reductions, normalisations, data movement.
//
// The outer loops are the tasks. Vectors run along one outer loop through all stages (lanes are
// neighbouring results), or along a loop of each stage (lanes are neighbouring summands). Windows
// that slide over an image have a form of their own: window_nest.cpp.
#include <algorithm>

#include "backends/common/nest_simplify.h"
#include "backends/cpu/compile/emit/element.h"
#include "backends/cpu/compile/emit/thread_work.h"
#include "backends/cpu/compile/nest/interleave.h"
#include "backends/cpu/compile/nest/lane_loop.h"
#include "backends/cpu/compile/nest/long_sum.h"
#include "backends/cpu/compile/nest/nest_axis.h"
#include "backends/cpu/compile/nest/tasks.h"
#include "backends/cpu/compile/nest/window.h"
#include "ir/size_overflow.h"
#include "plan/form/access.h"
#include "plan/form/kernels.h"
#include "support/error.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;
using plan::Expr;
using plan::Loop;
using plan::LoopNest;
using plan::Stage;

namespace {

// Independent sums in flight, to hide the latency of additions.
constexpr int kSums = 4;

class NestEmitter {
 public:
  NestEmitter(Emitter& emitter, const LoopNest& nest, const VectorAxes& axes)
      : emitter_(emitter), nest_(nest), axes_(axes), lanes_(emitter.target().lanes()) {}

  // Gives the most points of the outer loops that a task is.
  Dim run() {
    if (axes_.outer) return run_along_outer(nest_.outer[*axes_.outer]);
    run_along_inner();
    return 1;
  }

 private:
  // --- Lanes along an outer loop ---

  Dim run_along_outer(const Loop& lane) {
    std::vector<Loop> rows = nest_.outer;
    rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(*axes_.outer));
    return for_each_block(
        emitter_, rows, lane, estimated_work(nest_, 1), [&](const LaneRange& range) {
          for_lanes(emitter_, range, lanes_in_flight(lane),
                    [&](const Lanes& lanes, int copies) { emit_stages(lanes, copies); });
        });
  }

  // Several vectors at once where each is a chain of additions.
  int lanes_in_flight(const Loop& lane) const {
    int64_t longest = 0;
    for (const Stage& stage : nest_.stages) {
      if (!std::holds_alternative<plan::Reduction>(stage)) continue;
      int64_t points = 1;
      for (const Loop& loop : loops_of(stage))
        points = ir::saturating_product({points, loop.extent().at_opt()});
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
    return [index = lanes.index,
            distance = vectors * lanes_](const ir::SymbolPtr& symbol) -> std::optional<Dim> {
      if (symbol != index) return std::nullopt;
      return Dim(symbol) + distance;
    };
  }

  void reduce_along_outer(const plan::Reduction& reduction, const std::vector<Expr>& values,
                          const Lanes& lanes, std::vector<Leaves>& leaves) {
    const Reducer reducer(emitter_, reduction.op, reduction.value->dtype);
    const State initial = repeated(reducer.initial_of_lanes(lanes_), values.size());
    const State last = reduce_points(reducer, reduction.loops, initial, [&](const State& state) {
      State next;
      for (size_t c = 0; c < values.size(); ++c) {
        append(next, reducer.accumulate(copy_of(state, c, values.size()), values[c],
                                        position_of(reduction), lanes, leaves[c]));
      }
      return next;
    });
    for (size_t c = 0; c < values.size(); ++c) {
      leaves[c].reduced.push_back(reducer.result(copy_of(last, c, values.size())));
    }
  }

  State reduce_points(const Reducer& reducer, const std::vector<Loop>& loops, const State& initial,
                      const std::function<State(const State&)>& step) {
    if (loops.empty()) return step(initial);
    return reduce_in_chains(emitter_, reducer, loops, 1, initial,
                            [&](const LaneRange& range, const State& state) {
                              return each_point(emitter_, range, state, step);
                            });
  }

  static Dim position_of(const plan::Reduction& reduction) {
    return reduction.loops.empty() ? Dim(0) : Dim(reduction.loops.back().index);
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

  // --- Lanes along loops of the stages ---

  void run_along_inner() {
    emitter_.interface().min_tasks_per_thread =
        tasks_per_thread(kOperationsPerThread, estimated_work(nest_, 1));
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
      const State last = reduce_points(reducer, loops, reducer.initial(1), [&](const State& state) {
        return reducer.accumulate(state, reduction.value, position_of(reduction), Lanes(),
                                  in_loop(leaves, loops));
      });
      return reducer.result(last);
    }
    const Loop lane = loops[*axis];
    loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(*axis));
    loops.push_back(lane);
    const size_t sums = lane.extent().at_opt() >= kSums * 16 ? kSums : 1;
    const State initial = repeated(reducer.initial(lanes_), sums);
    const State last = reduce_in_chains(
        emitter_, reducer, loops, static_cast<int64_t>(sums) * lanes_, initial,
        [&](const LaneRange& range, const State& state) {
          return reduce_lanes(reducer, reduction.value, range, state, leaves, sums);
        });
    State total = copy_of(last, 0, sums);
    for (size_t c = 1; c < sums; ++c) total = reducer.join(total, copy_of(last, c, sums));
    return reducer.result(reducer.join_lanes(total));
  }

  // Some of the lanes' loop, with `sums` states.
  State reduce_lanes(const Reducer& reducer, const Expr& value, const LaneRange& range,
                     const State& state, const Leaves& leaves, size_t sums) {
    const Lanes whole{range.loop.index, lanes_, nullptr};
    const std::vector<Expr> copies = shifted_copies(value, whole, static_cast<int>(sums));
    const auto step = [&](const Lanes& lanes, int count, const State& carried) {
      State next;
      for (size_t c = 0; c < sums; ++c) {
        State one = copy_of(carried, c, sums);
        if (static_cast<int>(c) < count) {
          const Dim position = Dim(range.loop.index) + static_cast<int64_t>(c) * lanes_;
          one = reducer.accumulate(one, copies[c], position, lanes, leaves);
        }
        append(next, one);
      }
      return next;
    };
    return for_lanes_carrying(emitter_, range, static_cast<int>(sums), state, step);
  }

  void store_inner(const plan::Store& store, std::optional<size_t> axis, const Leaves& leaves) {
    if (!axis) return emit_store(store, Lanes(), leaves);
    std::vector<Loop> loops = store.loops;
    const Loop lane = loops[*axis];
    loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(*axis));
    nested_loops(emitter_, loops, {}, [&](const State&) {
      for_lanes(emitter_, {lane, 0, lane.extent()}, 1, [&](const Lanes& lanes, int) {
        Value* value = emitter_.emit(store.value, lanes, leaves);
        emitter_.store(store.buffer, store.indices, value, lanes);
      });
      return State();
    });
  }

  // --- Both ---

  // All loops of the store run one by one; `lanes` run along a loop outside of them, if at all.
  void emit_store(const plan::Store& store, const Lanes& lanes, const Leaves& leaves) {
    if (store.scan) return emit_scan(store, lanes, in_loop(leaves, store.loops));
    nested_loops(emitter_, store.loops, {}, [&](const State&) {
      Value* value = emitter_.emit(store.value, lanes, in_loop(leaves, store.loops));
      emitter_.store(store.buffer, store.indices, value, lanes);
      return State();
    });
  }

  void emit_scan(const plan::Store& store, const Lanes& lanes, const Leaves& leaves) {
    KILN_CHECK(!store.loops.empty(), "a scan runs along a loop");
    // A running sum of f32 is kept in f64, as PyTorch does: its terms may be many.
    const DType stored = store.value->dtype;
    const DType wide = stored == DType::F32 ? DType::F64 : stored;
    const Expr value = plan::cast(store.value, wide);
    const Reducer reducer(emitter_, *store.scan, wide);
    std::vector<Loop> outside = store.loops;
    outside.pop_back();
    const int width = lanes.index ? lanes.count : 1;
    nested_loops(emitter_, outside, {}, [&](const State&) {
      const auto step = [&](const State& state) {
        const State next = reducer.accumulate(state, value, Dim(0), lanes, leaves);
        emitter_.store(store.buffer, store.indices, convert(emitter_.ir(), next[0], wide, stored),
                       lanes);
        return next;
      };
      nested_loops(emitter_, {store.loops.back()}, reducer.initial(width), step);
      return State();
    });
  }

  // What was reduced before a loop is invariant in it.
  static Leaves in_loop(Leaves leaves, const std::vector<Loop>& loops) {
    leaves.invariant = !loops.empty();
    return leaves;
  }

  Emitter& emitter_;
  const LoopNest& nest_;
  const VectorAxes& axes_;
  const int lanes_;
};

// What a task of so many points of the outer loops writes.
void note_writes(KernelInterface& interface, const LoopNest& nest, const Dim& points) {
  interface.task_writes.clear();
  for (const Stage& stage : nest.stages) {
    const auto* store = std::get_if<plan::Store>(&stage);
    if (store == nullptr) continue;
    Dim elements = points;
    for (const Loop& loop : store->loops) elements *= loop.extent();
    interface.task_writes[store->buffer] += elements;
  }
}

}  // namespace

void emit_loop_nest(Emitter& emitter, const LoopNest& nest) {
  const LoopNest simple = backend::simplify(emitter.program(), nest);
  const VectorAxes axes = choose_axes(simple);
  const bool checks = std::ranges::any_of(
      simple.stages, [](const Stage& stage) { return plan::has_checks(value_of(stage)); });
  if (axes.outer && !checks) {
    if (const auto window = find_window(simple, *axes.outer)) {
      const ir::Dim points = emit_window_nest(emitter, simple, *window);
      return note_writes(emitter.interface(), simple, points);
    }
    if (const auto interleaved = find_interleaved(simple, *axes.outer)) {
      const ir::Dim points = emit_interleaved_nest(emitter, simple, *interleaved);
      return note_writes(emitter.interface(), simple, points);
    }
  }
  note_writes(emitter.interface(), simple, NestEmitter(emitter, simple, axes).run());
}

}  // namespace kiln::cpu
