// A thread for each outer point, or for a few neighbours along the fastest loop, which are loaded and
// stored 16 bytes at a time. Stages run one after another in the thread, so nothing is synchronised.
#include <algorithm>

#include "backends/cuda/compile/nest/mapping.h"
#include "backends/cuda/compile/nest/stage_writer.h"
#include "plan/form/kernels.h"

namespace kiln::cuda {

using ir::Dim;
using plan::Loop;
using plan::LoopNest;
using plan::Stage;

namespace {

constexpr int kMostThreads = 256;
// Blocks that fill a machine: with fewer, lanes are threads of their own and blocks are smaller.
constexpr int64_t kBlocks = 264;

class PointNest {
 public:
  PointNest(Emitter& emitter, const LoopNest& nest)
      : emitter_(emitter), nest_(nest), writer_(emitter, nest) {
    if (!nest_.outer.empty()) lanes_ = {nest_.outer.back().index, count_lanes(), ""};
    const int64_t steps = points_at_opt(nest_.outer) / lanes_.count;
    while (threads_ > 32 && steps < kBlocks / 2 * threads_) threads_ /= 2;
  }

  int threads() const { return threads_; }

  void write() {
    const Dim steps = lanes_.count == 1 ? points_of(nest_.outer)
                                        : ir::floordiv(points_of(nest_.outer), Dim(lanes_.count));
    emitter_.interface().grid = {ir::ceildiv(steps, Dim(threads_))};
    note_writes(emitter_.context(), nest_, Dim(int64_t{threads_} * lanes_.count));
    for (const Stage& stage : nest_.stages) writer_.plan_access(stage, lanes_);
    writer_.declare_flag();
    const ir::SymbolPtr thread = ir::make_loop_symbol("thread", steps);
    const std::string type = position_type(Dim(thread));
    emitter_.line("const " + type + " thread = (" + type + ")blockIdx.x * " +
                  std::to_string(threads_) + " + (" + type + ")threadIdx.x;");
    emitter_.bind(thread, "thread");
    emitter_.open("if (thread < " + emitter_.position(steps) + ")");
    bind_loops(emitter_, nest_.outer, Dim(thread), lanes_.count);
    if (lanes_.count > 1) lanes_.first = emitter_.position(Dim(lanes_.index));
    for (const Stage& stage : nest_.stages) {
      if (const auto* reduction = std::get_if<plan::Reduction>(&stage)) {
        reduce(*reduction);
      } else {
        store(std::get<plan::Store>(stage));
      }
    }
    emitter_.close();
  }

 private:
  // All stages have the same lanes: as many as suit each of them, and leave enough threads.
  int count_lanes() const {
    const Loop& loop = nest_.outer.back();
    int lanes = 8;
    for (const Stage& stage : nest_.stages)
      lanes = std::min(lanes, widest_lanes(emitter_.program(), stage, loop, writer_.access()));
    while (lanes > 1 && points_at_opt(nest_.outer) / lanes < kBlocks * kMostThreads / 2) lanes /= 2;
    return lanes;
  }

  std::string array() const {
    return lanes_.count == 1 ? "" : "[" + std::to_string(lanes_.count) + "]";
  }
  std::string of_lane(const std::string& name) const {
    return lanes_.count == 1 ? name : name + "[e]";
  }

  // A state for each lane.
  std::string declare_state(const ReducerText& reducer) {
    const std::string state = emitter_.fresh("s");
    emitter_.line(reducer.state_type() + " " + state + array() + ";");
    if (lanes_.count > 1) {
      emitter_.line("#pragma unroll");
      emitter_.line("for (int e = 0; e < " + std::to_string(lanes_.count) + "; ++e) " + state +
                    "[e] = " + reducer.neutral() + ";");
    } else {
      emitter_.line(state + " = " + reducer.neutral() + ";");
    }
    return state;
  }

  void reduce(const plan::Reduction& reduction) {
    const ReducerText reducer(reduction.op, reduction.value->dtype);
    const std::string state = declare_state(reducer);
    open_loops(emitter_, reduction.loops);
    writer_.for_each_lane({reduction.value}, lanes_, reduced_, [&](const Leaves& leaves) {
      reducer.accumulate(emitter_, of_lane(state), reduction.value, position_of(reduction), leaves);
    });
    for (size_t i = 0; i < reduction.loops.size(); ++i) emitter_.close();
    reduced_.push_back("(" + reducer.result(of_lane(state)) + ")");
  }

  void store(const plan::Store& store) {
    if (store.scan) return scan(store);
    open_loops(emitter_, store.loops);
    writer_.store(store, lanes_, reduced_);
    for (size_t i = 0; i < store.loops.size(); ++i) emitter_.close();
  }

  // A running sum of f32 is kept in f64, as PyTorch does: its terms may be many.
  void scan(const plan::Store& store) {
    const DType stored = store.value->dtype;
    const DType wide = stored == DType::F32 ? DType::F64 : stored;
    const plan::Expr value = plan::cast(store.value, wide);
    const ReducerText reducer(*store.scan, wide);
    std::vector<Loop> outside = store.loops;
    outside.pop_back();
    open_loops(emitter_, outside);
    const std::string state = declare_state(reducer);
    open_loops(emitter_, {store.loops.back()});
    writer_.store(store, lanes_, reduced_, [&](const Leaves& leaves) {
      reducer.accumulate(emitter_, of_lane(state), value, Dim(0), leaves);
      return "(" + std::string(register_type(stored)) + ")" + of_lane(state);
    });
    for (size_t i = 0; i < store.loops.size(); ++i) emitter_.close();
  }

  Emitter& emitter_;
  const LoopNest& nest_;
  StageWriter writer_;
  Lanes lanes_;
  int threads_ = kMostThreads;
  std::vector<std::string> reduced_;
};

}  // namespace

std::string point_nest_text(KernelContext& context, const LoopNest& nest) {
  Emitter emitter(context);
  PointNest points(emitter, nest);
  points.write();
  return emitter.finish({.threads = points.threads()});
}

}  // namespace kiln::cuda
