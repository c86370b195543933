// Sliding windows: depthwise convolutions and pooling. A thread has a few neighbouring windows along one
// loop, which share most of what they read; what a window reads beyond its neighbour is one more
// element along the fastest loop of the reduction. Both loops are written out, each element is loaded
// once, and every window adds up its elements in the order of the reduction.
#include <algorithm>

#include "backends/cuda/compile/nest/mapping.h"
#include "backends/cuda/compile/nest/stage_writer.h"
#include "plan/form/access.h"
#include "plan/form/kernels.h"

namespace kiln::cuda {

using ir::Dim;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;
using plan::Loop;
using plan::LoopNest;

namespace {

constexpr int kThreads = 128;
constexpr int64_t kMostTaps = 16;
// Sums that a thread has, of all lanes.
constexpr int64_t kMostSums = 64;
constexpr int64_t kFewestThreads = 132 * 128;

// Windows along `outer`, each `stride` elements of the reduction's last loop after the one before.
struct Windows {
  size_t outer = 0;  // which of the outer loops
  int64_t stride = 1;
};

// The constant factor of an index in the offset of a load.
std::optional<int64_t> factor_of(const Dim& offset, const ir::SymbolPtr& index) {
  const auto linear = offset.as_linear_in(index);
  if (!linear || !linear->first.is_constant()) return std::nullopt;
  return linear->first.constant();
}

std::optional<Windows> find_windows(const plan::Program& program, const LoopNest& nest,
                                    const plan::Reduction& reduction) {
  const Loop& taps = reduction.loops.back();
  std::optional<Windows> result;
  for (size_t i = 0; i + 1 < nest.outer.size() && !result; ++i) {
    if (!nest.outer[i].extent().is_constant()) continue;
    plan::visit(reduction.value, [&](const ExprNode& node) {
      if (node.kind != ExprKind::Load) return;
      const Dim offset = element_offset(program, node).linear;
      const auto across = factor_of(offset, nest.outer[i].index);
      const auto along = factor_of(offset, taps.index);
      if (!across || !along || *across <= 0 || *along <= 0 || *across % *along != 0) return;
      if (*across / *along < taps.extent().constant()) result = {i, *across / *along};
    });
  }
  return result;
}

// One reduction, then stores of single elements.
const plan::Reduction* only_reduction(const LoopNest& nest) {
  if (nest.outer.size() < 2 || nest.stages.size() < 2) return nullptr;
  const auto* reduction = std::get_if<plan::Reduction>(&nest.stages.front());
  if (reduction == nullptr || reduction->loops.empty() || has_checks(reduction->value) ||
      reduction->op == plan::ReduceOp::ArgMax || reduction->op == plan::ReduceOp::ArgMin)
    return nullptr;
  const Dim& taps = reduction->loops.back().extent();
  if (!taps.is_constant() || taps.constant() < 2 || taps.constant() > kMostTaps) return nullptr;
  for (size_t s = 1; s < nest.stages.size(); ++s) {
    const auto* store = std::get_if<plan::Store>(&nest.stages[s]);
    if (store == nullptr || !store->loops.empty() || store->scan) return nullptr;
  }
  return reduction;
}

class WindowNest {
 public:
  WindowNest(Emitter& emitter, const LoopNest& nest, const plan::Reduction& reduction,
             const Windows& windows, const Lanes& lanes, int64_t count)
      : emitter_(emitter),
        nest_(nest),
        reduction_(reduction),
        reducer_(reduction.op, reduction.value->dtype),
        windows_(windows),
        writer_(emitter, nest),
        lanes_(lanes),
        count_(count) {}

  void write() {
    std::vector<Loop> outer = nest_.outer;
    Loop& loop = outer[windows_.outer];
    const ir::SymbolPtr along = loop.index;
    loop = {ir::make_loop_symbol(along->name, ir::floordiv(loop.extent(), Dim(count_)))};
    first_ = Dim(loop.index) * count_;
    const Dim steps = ir::floordiv(points_of(outer), Dim(lanes_.count));
    emitter_.interface().grid = {ir::ceildiv(steps, Dim(kThreads))};
    note_writes(emitter_.context(), nest_, Dim(kThreads * count_ * lanes_.count));
    for (const plan::Stage& stage : nest_.stages) writer_.plan_access(stage, lanes_);
    writer_.declare_flag();
    const ir::SymbolPtr thread = ir::make_loop_symbol("thread", steps);
    const std::string type = position_type(Dim(thread));
    emitter_.line("const " + type + " thread = (" + type + ")blockIdx.x * " +
                  std::to_string(kThreads) + " + (" + type + ")threadIdx.x;");
    emitter_.bind(thread, "thread");
    emitter_.open("if (thread < " + emitter_.position(steps) + ")");
    bind_loops(emitter_, outer, Dim(thread), lanes_.count);
    lanes_.first = emitter_.position(Dim(lanes_.index));
    const std::string sums = declare_sums();
    add_up(along, sums);
    for (int64_t w = 0; w < count_; ++w) store(along, w, sums + "[" + std::to_string(w) + "][e]");
    emitter_.close();
  }

 private:
  plan::IndexMap at_window(const ir::SymbolPtr& along, int64_t window) const {
    return [this, along, window](const ir::SymbolPtr& index) -> std::optional<Dim> {
      if (index != along) return std::nullopt;
      return first_ + window;
    };
  }

  std::string declare_sums() {
    const std::string sums = emitter_.fresh("s");
    emitter_.line(reducer_.state_type() + " " + sums + "[" + std::to_string(count_) + "][" +
                  std::to_string(lanes_.count) + "];");
    emitter_.line("#pragma unroll");
    emitter_.open("for (int e = 0; e < " + std::to_string(lanes_.count) + "; ++e)");
    for (int64_t w = 0; w < count_; ++w)
      emitter_.line(sums + "[" + std::to_string(w) + "][e] = " + reducer_.neutral() + ";");
    emitter_.close();
    return sums;
  }

  // Taps in the order of the elements that they read, so that each is in registers for a short time.
  void add_up(const ir::SymbolPtr& along, const std::string& sums) {
    const Loop taps = reduction_.loops.back();
    const std::vector<Loop> outside(reduction_.loops.begin(), reduction_.loops.end() - 1);
    open_loops(emitter_, outside);
    loaded_.clear();
    const int64_t tap_count = taps.extent().constant();
    const int64_t last = (count_ - 1) * windows_.stride + tap_count - 1;
    for (int64_t element = 0; element <= last; ++element) {
      for (int64_t w = 0; w < count_; ++w) {
        const int64_t tap = element - w * windows_.stride;
        if (tap < 0 || tap >= tap_count) continue;
        Expr value = plan::substitute(reduction_.value, at_window(along, w));
        value = plan::substitute(value, [&](const ir::SymbolPtr& index) -> std::optional<Dim> {
          if (index != taps.index) return std::nullopt;
          return Dim(tap);
        });
        add(value, sums + "[" + std::to_string(w) + "][e]");
      }
    }
    for (size_t i = 0; i < outside.size(); ++i) emitter_.close();
  }

  struct Loaded {
    Expr value;  // keeps the node alive
    const ExprNode* node = nullptr;
    std::string name;
  };

  void add(const Expr& value, const std::string& sum) {
    std::map<const ExprNode*, std::string> kept;
    emitter_.bind(lanes_.index, lanes_.first);
    plan::visit(value, [&](const ExprNode& node) {
      if (!writer_.access().is_vector(node, lanes_)) return;
      auto it = std::ranges::find_if(loaded_, [&](const Loaded& other) {
        return same_place(emitter_.program(), *other.node, node);
      });
      if (it == loaded_.end())
        it = loaded_.insert(it, {value, &node, writer_.load_lanes(node, lanes_)});
      kept[&node] = it->name + "[e]";
    });
    writer_.keep(std::move(kept));
    writer_.for_each_lane({value}, lanes_, {}, [&](const Leaves& leaves) {
      reducer_.accumulate(emitter_, sum, value, Dim(0), leaves);
    });
    writer_.keep({});
  }

  void store(const ir::SymbolPtr& along, int64_t window, const std::string& sum) {
    for (size_t s = 1; s < nest_.stages.size(); ++s) {
      plan::Store store = std::get<plan::Store>(nest_.stages[s]);
      const plan::IndexMap map = at_window(along, window);
      store.value = plan::substitute(store.value, map);
      store.indices = plan::substitute(store.indices, map);
      writer_.store(store, lanes_, {"(" + reducer_.result(sum) + ")"});
    }
  }

  Emitter& emitter_;
  const LoopNest& nest_;
  const plan::Reduction& reduction_;
  ReducerText reducer_;
  Windows windows_;
  StageWriter writer_;
  Lanes lanes_;
  int64_t count_;
  Dim first_;
  std::vector<Loaded> loaded_;
};

}  // namespace

std::optional<std::string> window_nest_text(KernelContext& context, const LoopNest& nest) {
  const plan::Reduction* reduction = only_reduction(nest);
  if (reduction == nullptr) return std::nullopt;
  const auto windows = find_windows(context.program, nest, *reduction);
  if (!windows) return std::nullopt;
  const VectorAccess access(context.program, nest);
  int lanes = 8;
  for (const plan::Stage& stage : nest.stages)
    lanes = std::min(lanes, widest_lanes(context.program, stage, nest.outer.back(), access));
  if (lanes == 1) return std::nullopt;
  const int64_t extent = nest.outer[windows->outer].extent().constant();
  for (int64_t count = std::min<int64_t>(8, kMostSums / lanes); count > 1; --count) {
    if (extent % count != 0 || points_at_opt(nest.outer) / (count * lanes) < kFewestThreads)
      continue;
    Emitter emitter(context);
    WindowNest(emitter, nest, *reduction, *windows, {nest.outer.back().index, lanes, ""}, count)
        .write();
    return emitter.finish({.threads = kThreads});
  }
  return std::nullopt;
}

}  // namespace kiln::cuda
