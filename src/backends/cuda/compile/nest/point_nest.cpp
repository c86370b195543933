// A thread for each outer point, or for a few neighbours along the fastest loop, which are loaded and
// stored 16 bytes at a time. Stages run one after another in the thread, so nothing is synchronised.
//
// Nests that store buffers in pieces are several such nests side by side in one grid, one for each
// piece, with all loops of the piece outermost.
#include <algorithm>
#include <map>

#include "backends/common/nest_simplify.h"
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
  }

  // At the sizes to optimise for.
  int64_t steps_at_opt() const { return points_at_opt(nest_.outer) / lanes_.count; }
  Dim blocks(int threads) const { return ir::ceildiv(steps(), Dim(threads)); }

  // `block`: the number of the block among those of the nest.
  void write(const std::string& block, int threads) {
    note_writes(emitter_.context(), nest_, Dim(int64_t{threads} * lanes_.count));
    for (const Stage& stage : nest_.stages) writer_.plan_access(stage, lanes_);
    writer_.declare_flag();
    const ir::SymbolPtr thread = ir::make_loop_symbol("thread", steps());
    const std::string type = position_type(Dim(thread));
    emitter_.line("const " + type + " thread = (" + type + ")" + block + " * " +
                  std::to_string(threads) + " + (" + type + ")threadIdx.x;");
    emitter_.bind(thread, "thread");
    emitter_.open("if (thread < " + emitter_.position(steps()) + ")");
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
  Dim steps() const {
    return lanes_.count == 1 ? points_of(nest_.outer)
                             : ir::floordiv(points_of(nest_.outer), Dim(lanes_.count));
  }

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
    const ReducerText reducer(reduction.op, reduction.value->dtype, terms_of(reduction, 1));
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
  std::vector<std::string> reduced_;
};

// Smaller blocks where large ones would not fill the machine.
int threads_for(int64_t steps) {
  int threads = kMostThreads;
  while (threads > 32 && steps < kBlocks / 2 * threads) threads /= 2;
  return threads;
}

// --- Pieces ---

// Where a store's positions along an axis begin and end.
struct Range {
  Dim first, end;
};

std::optional<Range> range_of(const Dim& position, const std::vector<Loop>& loops) {
  for (const Loop& loop : loops) {
    if (!position.mentions(loop.index)) continue;
    const auto linear = position.as_linear_in(loop.index);
    const bool plain = linear && linear->first.is_constant(1) &&
                       std::ranges::none_of(linear->second.symbols(),
                                            [](const ir::SymbolPtr& s) { return s->is_loop; });
    if (!plain) return std::nullopt;
    return Range{linear->second, linear->second + loop.extent()};
  }
  return Range{position, position + 1};
}

// Whether each store begins along the axis where the one before it has ended, or after that.
bool are_apart(const LoopNest& nest, size_t axis) {
  std::optional<Range> before;
  for (const Stage& stage : nest.stages) {
    const auto& store = std::get<plan::Store>(stage);
    std::vector<Loop> loops = nest.outer;
    loops.insert(loops.end(), store.loops.begin(), store.loops.end());
    const auto range = range_of(store.indices[axis], loops);
    if (!range) return false;
    const bool apart = !before || before->end == range->first ||
                       ir::provably_less_equal(before->end, range->first);
    if (!apart) return false;
    before = range;
  }
  return true;
}

// Whether the stores of one buffer are at places that are apart.
bool is_apart(const LoopNest& nest) {
  if (nest.stages.size() == 1) return true;
  const auto& first = std::get<plan::Store>(nest.stages[0]);
  const bool alike = std::ranges::all_of(nest.stages, [&](const Stage& stage) {
    return std::get<plan::Store>(stage).indices.size() == first.indices.size();
  });
  for (size_t axis = 0; alike && axis < first.indices.size(); ++axis)
    if (are_apart(nest, axis)) return true;
  return false;
}

// Whether the stages can run side by side: stores of memory that none of them reads, not in place of an operand either,
// at places that are apart where they are of one buffer.
bool is_in_pieces(const plan::Program& program, const LoopNest& nest) {
  std::map<plan::BufferId, LoopNest> by_buffer;
  std::vector<plan::BufferId> stored;
  for (const Stage& stage : nest.stages) {
    const auto* store = std::get_if<plan::Store>(&stage);
    if (store == nullptr || store->scan) return false;
    LoopNest& of_buffer = by_buffer[store->buffer];
    of_buffer.outer = nest.outer;
    of_buffer.stages.push_back(stage);
    stored.push_back(store->buffer);
  }
  for (const Stage& stage : nest.stages)
    if (plan::share_memory(program, plan::loads(plan::value_of(stage)), stored)) return false;
  return std::ranges::all_of(by_buffer, [](const auto& each) { return is_apart(each.second); });
}

LoopNest piece_of(const KernelContext& context, const LoopNest& nest, const Stage& stage) {
  LoopNest piece{nest.outer, {stage}};
  auto& store = std::get<plan::Store>(piece.stages[0]);
  piece.outer.insert(piece.outer.end(), store.loops.begin(), store.loops.end());
  store.loops.clear();
  piece = backend::simplify(context.program, std::move(piece));
  put_contiguous_last(piece);
  return piece;
}

}  // namespace

std::string point_nest_text(KernelContext& context, const LoopNest& nest) {
  Emitter emitter(context);
  PointNest points(emitter, nest);
  const int threads = threads_for(points.steps_at_opt());
  emitter.interface().grid = {points.blocks(threads)};
  points.write("blockIdx.x", threads);
  return emitter.finish({.threads = threads});
}

std::optional<std::string> piece_nest_text(KernelContext& context, const LoopNest& nest) {
  if (!is_in_pieces(context.program, nest)) return std::nullopt;
  Emitter emitter(context);
  std::vector<LoopNest> pieces;
  for (const Stage& stage : nest.stages) pieces.push_back(piece_of(context, nest, stage));
  std::vector<PointNest> points;
  points.reserve(pieces.size());
  int64_t steps = 0;
  for (const LoopNest& piece : pieces) {
    points.emplace_back(emitter, piece);
    steps += points.back().steps_at_opt();
  }
  const int threads = threads_for(steps);
  Dim first;
  auto& writes = context.result.interface.task_writes;  // of each piece; of all, the most
  std::map<plan::BufferId, Dim> most;
  for (PointNest& piece : points) {
    const Dim blocks = piece.blocks(threads);
    const Dim end = first + blocks;
    emitter.open("if (blockIdx.x >= " + emitter.position(first) + " && blockIdx.x < " +
                 emitter.position(end) + ")");
    piece.write("(blockIdx.x - " + emitter.position(first) + ")", threads);
    emitter.close();
    for (const auto& [buffer, elements] : writes) most[buffer] = ir::max(most[buffer], elements);
    first = end;
  }
  writes = std::move(most);
  emitter.interface().grid = {first};
  return emitter.finish({.threads = threads});
}

}  // namespace kiln::cuda
