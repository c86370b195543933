// A group of threads for each outer point: a warp for short rows, a block for long ones. The loops of a
// stage are one run of points that the threads take in turns, several neighbours at a time where these
// are contiguous; parts of reductions are joined by shuffles and shared memory. A stage that follows a
// store waits until all of the group have stored: it may read what others wrote, or write in place what
// they read.
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

constexpr int kWarp = 32;
constexpr int kWarpsOfBlock = 8;  // each with a row of its own

class GroupNest {
 public:
  GroupNest(Emitter& emitter, const LoopNest& nest, int threads)
      : emitter_(emitter), nest_(nest), writer_(emitter, nest), threads_(threads) {}

  int block() const { return is_warp() ? kWarp * kWarpsOfBlock : threads_; }

  void write() {
    const Dim points = points_of(nest_.outer);
    const int64_t rows = is_warp() ? kWarpsOfBlock : 1;
    emitter_.interface().grid = {ir::ceildiv(points, Dim(rows))};
    note_writes(emitter_.context(), nest_, Dim(rows));
    for (const Stage& stage : nest_.stages) {
      lanes_.push_back(lanes_of(stage));
      writer_.plan_access(stage, lanes_.back());
    }
    writer_.declare_flag();
    const ir::SymbolPtr point = ir::make_loop_symbol("point", points);
    const std::string type = position_type(Dim(point));
    emitter_.line("const int rank = (int)threadIdx.x" + std::string(is_warp() ? " % 32;" : ";"));
    emitter_.line(
        "const " + type + " point = (" + type + ")blockIdx.x" +
        (is_warp() ? " * " + std::to_string(rows) + " + (" + type + ")(threadIdx.x / 32);" : ";"));
    emitter_.bind(point, "point");
    emitter_.open(is_warp() ? "if (point < " + emitter_.position(points) + ")" : "");
    bind_loops(emitter_, nest_.outer, Dim(point));
    for (size_t s = 0; s < nest_.stages.size(); ++s) {
      const Stage& stage = nest_.stages[s];
      if (const auto* reduction = std::get_if<plan::Reduction>(&stage)) {
        reduce(*reduction, lanes_[s]);
        continue;
      }
      store(std::get<plan::Store>(stage), lanes_[s]);
      if (s + 1 < nest_.stages.size())
        emitter_.line(is_warp() ? "__syncwarp();" : "__syncthreads();");
    }
    emitter_.close();
  }

 private:
  bool is_warp() const { return threads_ == kWarp; }

  // Along the last loop of the stage; no more than keep all threads at work.
  Lanes lanes_of(const Stage& stage) const {
    const std::vector<Loop>& loops = plan::loops_of(stage);
    const auto* store = std::get_if<plan::Store>(&stage);
    if (loops.empty() || (store != nullptr && store->scan)) return {};
    int lanes = widest_lanes(emitter_.program(), stage, loops.back(), writer_.access());
    while (lanes > 1 && points_at_opt(loops) / lanes < threads_) lanes /= 2;
    return {loops.back().index, lanes, ""};
  }

  // Opens a loop over the points of a stage, each thread with its own.
  void open_shared(const std::vector<Loop>& loops, Lanes& lanes) {
    const Dim steps =
        lanes.count == 1 ? points_of(loops) : ir::floordiv(points_of(loops), Dim(lanes.count));
    const ir::SymbolPtr step = ir::make_loop_symbol("step", steps);
    const std::string name = emitter_.fresh("q");
    const std::string end = emitter_.position(steps);
    emitter_.open("for (" + std::string(position_type(Dim(step))) + " " + name + " = rank; " +
                  name + " < " + end + "; " + name + " += " + std::to_string(threads_) + ")");
    emitter_.bind(step, name);
    bind_loops(emitter_, loops, Dim(step), lanes.count);
    if (lanes.count > 1) lanes.first = emitter_.position(Dim(lanes.index));
  }

  void reduce(const plan::Reduction& reduction, Lanes lanes) {
    const ReducerText reducer(reduction.op, reduction.value->dtype);
    const std::string state = emitter_.fresh("s");
    emitter_.line(reducer.state_type() + " " + state + " = " + reducer.neutral() + ";");
    open_shared(reduction.loops, lanes);
    writer_.for_each_lane({reduction.value}, lanes, reduced_, [&](const Leaves& leaves) {
      reducer.accumulate(emitter_, state, reduction.value, position_of(reduction), leaves);
    });
    emitter_.close();
    const std::string group = is_warp() ? "reduce_warp<" + reducer.name() + ", 32>("
                                        : "reduce_block<" + reducer.name() + ", " +
                                              std::to_string(threads_ / kWarp) + ">(";
    emitter_.line(state + " = " + group + state + ");");
    reduced_.push_back(emitter_.declare(reducer.result_type(), "r", reducer.result(state)));
  }

  void store(const plan::Store& store, Lanes lanes) {
    if (store.loops.empty()) {
      emitter_.open("if (rank == 0)");
      writer_.store(store, {}, reduced_);
      return emitter_.close();
    }
    if (store.scan) return scan(store);
    open_shared(store.loops, lanes);
    writer_.store(store, lanes, reduced_);
    emitter_.close();
  }

  // A running sum of f32 is kept in f64, as PyTorch does: its terms may be many.
  void scan(const plan::Store& store) {
    const DType stored = store.value->dtype;
    const DType wide = stored == DType::F32 ? DType::F64 : stored;
    const plan::Expr value = plan::cast(store.value, wide);
    const ReducerText reducer(*store.scan, wide);
    std::vector<Loop> outside = store.loops;
    outside.pop_back();
    emitter_.open("if (rank == 0)");
    open_loops(emitter_, outside);
    const std::string state = emitter_.fresh("s");
    emitter_.line(reducer.state_type() + " " + state + " = " + reducer.neutral() + ";");
    open_loops(emitter_, {store.loops.back()});
    writer_.store(store, {}, reduced_, [&](const Leaves& leaves) {
      reducer.accumulate(emitter_, state, value, Dim(0), leaves);
      return "(" + std::string(register_type(stored)) + ")" + state;
    });
    for (size_t i = 0; i < store.loops.size(); ++i) emitter_.close();
    emitter_.close();
  }

  Emitter& emitter_;
  const LoopNest& nest_;
  StageWriter writer_;
  int threads_;
  std::vector<Lanes> lanes_;
  std::vector<std::string> reduced_;
};

}  // namespace

std::string group_nest_text(KernelContext& context, const LoopNest& nest, int threads) {
  Emitter emitter(context);
  GroupNest group(emitter, nest, threads);
  group.write();
  return emitter.finish({.threads = group.block()});
}

}  // namespace kiln::cuda
