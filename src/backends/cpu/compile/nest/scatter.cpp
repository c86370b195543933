// Writing where data says.
//
// A task has the points of `outer`, and of `inner` a block of the last loop: nobody else writes there, so that
// its writes are made one after another, and equal indices are combined in their order. Where all points of
// a block have the same index, as rows have, a write is made of vectors.
#include <algorithm>

#include "backends/cpu/compile/emit/thread_work.h"
#include "backends/cpu/compile/nest/lane_loop.h"
#include "backends/cpu/compile/nest/tasks.h"
#include "ir/size_overflow.h"
#include "plan/form/access.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;
using plan::Expr;
using plan::Loop;

namespace {

class ScatterEmitter {
 public:
  ScatterEmitter(Emitter& emitter, const plan::Scatter& scatter)
      : emitter_(emitter), scatter_(scatter), rest_(scatter.inner) {
    offset_ = scatter.out.offset;
    const std::vector<Loop> loops =
        plan::with_loops(plan::with_loops(scatter.outer, {scatter.position}), scatter.inner);
    for (size_t i = 0; i < loops.size(); ++i)
      offset_ += scatter.out.strides[i] * Dim(loops[i].index);
    value_ = scatter.value;
    if (!scatter.combine) return;
    const Expr before = plan::load_at(scatter.out.buffer, value_->dtype, {offset_});
    value_ = plan::apply(plan::combining_op(*scatter.combine), {before, value_});
  }

  // Gives the most elements that a task writes.
  Dim run() {
    const Dim& positions = scatter_.position.extent();
    if (rest_.empty()) {
      emitter_.interface().min_tasks_per_thread = tasks_per_thread(kOperationsPerThread, work());
      for_each_task(emitter_, scatter_.outer, [&] { run_task(nullptr); });
      return positions;
    }
    const Loop lane = rest_.back();
    rest_.pop_back();
    Dim points = for_each_block(emitter_, scatter_.outer, lane, work(),
                                [&](const LaneRange& range) { run_task(&range); });
    for (const Loop& loop : rest_) points *= loop.extent();
    return points * positions;
  }

 private:
  // Simple operations for one point of the last inner loop.
  int64_t work() const {
    int64_t points = 2 * scatter_.write.extent().at_opt();
    if (scatter_.initial) points += scatter_.position.extent().at_opt();
    for (const Loop& loop : rest_)
      points = ir::saturating_product({points, loop.extent().at_opt()});
    return points;
  }

  bool has_common_index() const {
    bool result = true;
    plan::visit(scatter_.index, [&](const plan::ExprNode& node) {
      for (const Loop& loop : scatter_.inner) result &= !node.index.mentions(loop.index);
    });
    return result;
  }

  void run_task(const LaneRange* range) {
    if (scatter_.initial) {
      nested_loops(emitter_, {scatter_.position}, {}, [&](const State&) {
        for_points(range, [&](const Lanes& lanes) { store(scatter_.initial, lanes); });
        return State();
      });
    }
    nested_loops(emitter_, {scatter_.write}, {}, [&](const State&) {
      if (range == nullptr || has_common_index()) {
        if_position([&] { for_points(range, [&](const Lanes& lanes) { store(value_, lanes); }); });
      } else {
        for_single_points(*range, [&] { if_position([&] { store(value_, Lanes()); }); });
      }
      return State();
    });
  }

  void store(const Expr& value, const Lanes& lanes) {
    emitter_.store(scatter_.out.buffer, {offset_}, emitter_.emit(value, lanes), lanes);
  }

  // Runs the body with the position bound to the index, where it is one.
  void if_position(const std::function<void()>& body) {
    auto& ir = emitter_.ir();
    Value* index = emitter_.emit(scatter_.index, Lanes());
    // As numbers without sign negative ones are too large.
    Value* inside = ir.CreateICmpULT(index, emitter_.value_of(scatter_.position.extent()));
    emitter_.loop(ir.getInt64(0), ir.CreateZExt(inside, ir.getInt64Ty()), 1, [&](Value*) {
      emitter_.bind(scatter_.position.index, index);
      body();
    });
  }

  void for_points(const LaneRange* range, const std::function<void(const Lanes&)>& body) {
    if (range == nullptr) return body(Lanes());
    nested_loops(emitter_, rest_, {}, [&](const State&) {
      for_lanes(emitter_, *range, 1, [&](const Lanes& lanes, int) { body(lanes); });
      return State();
    });
  }

  void for_single_points(const LaneRange& range, const std::function<void()>& body) {
    nested_loops(emitter_, rest_, {}, [&](const State&) {
      emitter_.loop(emitter_.value_of(range.begin), emitter_.value_of(range.end), 1,
                    [&](Value* index) {
                      emitter_.bind(range.loop.index, index);
                      body();
                    });
      return State();
    });
  }

  Emitter& emitter_;
  const plan::Scatter& scatter_;
  std::vector<Loop> rest_;  // of the inner loops, without the lanes'
  Dim offset_;              // of an element of the result
  Expr value_;              // what is stored: combined with what is there
};

}  // namespace

void emit_scatter(Emitter& emitter, const plan::Scatter& scatter) {
  const Dim elements = ScatterEmitter(emitter, scatter).run();
  emitter.interface().task_writes = {{scatter.out.buffer, elements}};
}

}  // namespace kiln::cpu
