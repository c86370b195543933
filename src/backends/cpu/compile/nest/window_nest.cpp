// Code for the windows of window.h.
#include "backends/cpu/compile/nest/lane_loop.h"
#include "backends/cpu/compile/nest/nest_axis.h"
#include "backends/cpu/compile/nest/window.h"
#include "plan/form/access.h"
#include "plan/form/fold.h"
#include "support/error.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;
using plan::Expr;
using plan::Loop;

namespace {

class WindowEmitter {
 public:
  WindowEmitter(Emitter& emitter, const plan::LoopNest& nest, const Window& window)
      : emitter_(emitter),
        nest_(nest),
        window_(window),
        reduction_(std::get<plan::Reduction>(nest.stages.front())),
        pixel_(nest.outer[window.pixel]),
        tap_(reduction_.loops[window.tap]),
        reducer_(emitter, reduction_.op, reduction_.value->dtype) {}

  // Gives the most points of the outer loops that a task is.
  Dim run() {
    std::vector<Loop> rows;
    for (size_t i = 0; i < nest_.outer.size(); ++i) {
      if (i != window_.pixel && i != window_.lane) rows.push_back(nest_.outer[i]);
    }
    const int64_t work = estimated_work(nest_, pixel_.extent().constant());
    const auto run_block = [&](const LaneRange& range) {
      for_lanes(emitter_, range, 1, [&](const Lanes& lanes, int) {
        for (const Window::Tiles& tiles : window_.tiles) emit_tiles(tiles, lanes);
      });
    };
    return pixel_.extent() *
           for_each_block(emitter_, rows, nest_.outer[window_.lane], work, run_block);
  }

 private:
  void emit_tiles(const Window::Tiles& tiles, const Lanes& lanes) {
    if (tiles.count == 1) return emit_tile(Dim(tiles.first), tiles.pixels, lanes);
    const Loop tile{ir::make_loop_symbol("tile", tiles.count)};
    nested_loops(emitter_, {tile}, {}, [&](const State&) {
      emit_tile(Dim(tile.index) * tiles.pixels + tiles.first, tiles.pixels, lanes);
      return State();
    });
  }

  void emit_tile(const Dim& first, int64_t pixels, const Lanes& lanes) {
    const auto count = static_cast<size_t>(pixels);
    std::vector<Loop> rows = reduction_.loops;
    rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(window_.tap));
    const State initial = repeated(reducer_.initial_of_lanes(lanes.count), count);
    const State sums = nested_loops(emitter_, rows, initial, [&](const State& state) {
      return guarded(state, [&](const State& inside) { return emit_row(inside, first, lanes); });
    });
    for (size_t p = 0; p < count; ++p) {
      Leaves leaves;
      leaves.contracts = plan::sums_byte_products(nest_.stages.front());
      leaves.reduced.push_back(reducer_.result(copy_of(sums, p, count)));
      emit_stores(first + static_cast<int64_t>(p), lanes, leaves);
    }
  }

  // body(state) where the row guard holds, else the state.
  State guarded(const State& state, const std::function<State(const State&)>& body) {
    if (!window_.row_guard) return body(state);
    auto& ir = emitter_.ir();
    Value* inside = emitter_.emit(window_.row_guard, Lanes());
    Value* times = ir.CreateZExt(inside, ir.getInt64Ty());
    return emitter_.loop_carrying(ir.getInt64(0), times, 1, state,
                                  [&](Value*, const State& carried) { return body(carried); });
  }

  // All taps of one row of the window, for all pixels.
  State emit_row(State state, const Dim& first, const Lanes& lanes) {
    for (int64_t t = 0; t < tap_.extent().constant(); ++t) {
      const plan::IndexMap at_tap = plan::replace_loops({tap_}, {Dim(t)});
      const Expr value = plan::substitute(window_.value, at_tap);
      const Expr guard = window_.tap_guard ? plan::substitute(window_.tap_guard, at_tap) : nullptr;
      state = emit_tap(state, value, guard, first, lanes);
    }
    return state;
  }

  State emit_tap(const State& state, const Expr& value, const Expr& guard, const Dim& first,
                 const Lanes& lanes) {
    const size_t count = state.size();
    std::vector<Expr> values;
    std::vector<size_t> active;
    for (size_t p = 0; p < count; ++p) {
      const plan::IndexMap at_pixel =
          plan::replace_loops({pixel_}, {first + static_cast<int64_t>(p)});
      if (guard) {
        const auto known = plan::as_scalar(plan::substitute(guard, at_pixel));
        KILN_CHECK(known.has_value(), "the taps of a tile are inside or outside of the image");
        if (!known->truth()) continue;
      }
      values.push_back(plan::substitute(value, at_pixel));
      active.push_back(p);
    }
    State next = state;
    State sums;
    for (size_t p : active) sums.push_back(state[p]);
    sums = reducer_.accumulate_all(sums, values, lanes);
    for (size_t i = 0; i < active.size(); ++i) next[active[i]] = sums[i];
    return next;
  }

  void emit_stores(const Dim& at, const Lanes& lanes, const Leaves& leaves) {
    const plan::IndexMap at_pixel = plan::replace_loops({pixel_}, {at});
    for (size_t s = 1; s < nest_.stages.size(); ++s) {
      const auto& store = std::get<plan::Store>(nest_.stages[s]);
      Value* value = emitter_.emit(plan::substitute(store.value, at_pixel), lanes, leaves);
      emitter_.store(store.buffer, plan::substitute(store.indices, at_pixel), value, lanes);
    }
  }

  Emitter& emitter_;
  const plan::LoopNest& nest_;
  const Window& window_;
  const plan::Reduction& reduction_;
  const Loop pixel_, tap_;
  const Reducer reducer_;
};

}  // namespace

Dim emit_window_nest(Emitter& emitter, const plan::LoopNest& nest, const Window& window) {
  return WindowEmitter(emitter, nest, window).run();
}

}  // namespace kiln::cpu
