// A group of threads for each outer point. The loops of a stage are one run of points that the threads
// take in turns, several neighbours at a time where these are contiguous; parts of reductions are joined
// by shuffles and shared memory. A stage that follows a store waits until all of the group have stored:
// it may read what others wrote, or write in place what they read.
//
// What several stages read at the same point of a row (x of a softmax or a layer norm) stays in the
// registers of the thread that loaded it, if a row is short enough: memory is read once. So does what a
// stage stores and later ones read there (a sum that is kept and normalised): it is not read at all.
#include <algorithm>

#include "backends/cuda/compile/nest/mapping.h"
#include "backends/cuda/compile/nest/stage_writer.h"
#include "plan/form/access.h"
#include "plan/form/kernels.h"
#include "support/error.h"

namespace kiln::cuda {

using ir::Dim;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;
using plan::Loop;
using plan::LoopNest;
using plan::Stage;

namespace {

constexpr int kWarp = 32;
// Registers of 32 bits that a thread may keep of its row; fewer in large blocks, for which ptxas takes no
// more than 64 in all.
constexpr int64_t kRowRegisters = 64, kRowRegistersOfLargeBlock = 24;
constexpr int kLargeBlock = 512;
// Instructions of a loop that is unrolled, roughly.
constexpr int64_t kUnrolled = 256;

std::string text(int64_t number) { return std::to_string(number); }

bool is_scan(const Stage& stage) {
  const auto* store = std::get_if<plan::Store>(&stage);
  return store != nullptr && store->scan.has_value();
}

bool same_extents(const std::vector<Loop>& a, const std::vector<Loop>& b) {
  return std::ranges::equal(a, b,
                            [](const Loop& x, const Loop& y) { return x.extent() == y.extent(); });
}

// Gives stages with loops of the same extents the same loops, those of the first of them: what they
// read at the same point then looks the same. Returns which stages have the longest loops.
std::vector<bool> share_loops(LoopNest& nest) {
  const std::vector<Loop>* row = nullptr;
  for (const Stage& stage : nest.stages) {
    if (is_scan(stage) || plan::loops_of(stage).empty()) continue;
    if (row == nullptr || points_at_opt(plan::loops_of(stage)) > points_at_opt(*row))
      row = &plan::loops_of(stage);
  }
  std::vector<bool> result(nest.stages.size());
  if (row == nullptr) return result;
  const std::vector<Loop> shared = *row;
  for (size_t s = 0; s < nest.stages.size(); ++s) {
    Stage& stage = nest.stages[s];
    if (is_scan(stage) || !same_extents(plan::loops_of(stage), shared)) continue;
    plan::Indices values;
    for (const Loop& loop : shared) values.emplace_back(loop.index);
    const plan::IndexMap map = plan::replace_loops(plan::loops_of(stage), values);
    plan::value_of(stage) = plan::substitute(plan::value_of(stage), map);
    if (auto* store = std::get_if<plan::Store>(&stage))
      store->indices = plan::substitute(store->indices, map);
    plan::loops_of(stage) = shared;
    result[s] = true;
  }
  return result;
}

class GroupNest {
 public:
  GroupNest(Emitter& emitter, const LoopNest& nest, const Group& group)
      : emitter_(emitter),
        nest_(nest),
        in_row_(share_loops(nest_)),
        writer_(emitter, nest_),
        group_(group) {}

  void write() {
    plan_row();
    for (size_t s = 0; s < nest_.stages.size(); ++s) {
      lanes_.push_back(in_row_[s] ? row_lanes_ : lanes_of(nest_.stages[s]));
      writer_.plan_access(nest_.stages[s], lanes_.back());
    }
    const Dim points = points_of(nest_.outer);
    emitter_.interface().grid = {ir::ceildiv(points, Dim(group_.points))};
    note_writes(emitter_.context(), nest_, Dim(group_.points));
    writer_.declare_flag();
    open_point(points);
    load_row();
    for (size_t s = 0; s < nest_.stages.size(); ++s) write_stage(s);
    emitter_.close();
  }

 private:
  bool is_columns() const { return group_.layout == Group::Columns; }
  bool is_warp() const { return group_.layout == Group::Rows && group_.threads == kWarp; }

  // --- The outer point ---

  // A warp whose point is past the end has nothing to do. The threads of a block all come to its
  // barriers, whatever their columns.
  void open_point(const Dim& points) {
    const std::string count = text(group_.points);
    const ir::SymbolPtr point = ir::make_loop_symbol("point", points);
    const std::string type = position_type(Dim(point));
    std::string rank = "(int)threadIdx.x", inside;
    if (is_columns()) {
      rank += " / " + count;
      inside = "threadIdx.x % " + count;
    } else if (group_.points > 1) {
      rank += " % " + text(group_.threads);
      inside = "threadIdx.x / " + text(group_.threads);
    }
    emitter_.line("const int rank = " + rank + ";");
    emitter_.line("const " + type + " point = (" + type + ")blockIdx.x" +
                  (inside.empty() ? ";" : " * " + count + " + (" + type + ")(" + inside + ");"));
    emitter_.bind(point, "point");
    const std::string active = "point < " + emitter_.position(points);
    if (is_columns()) emitter_.line("const bool active = " + active + ";");
    emitter_.open(is_warp() ? "if (" + active + ")" : "");
    bind_loops(emitter_, nest_.outer, Dim(point));
  }

  // "active && ": in front of conditions.
  std::string if_active() const { return is_columns() ? "active && " : ""; }

  // --- The row: what stays in registers ---

  // Along the last loop of the stage; no more than keep all threads at work. Neighbouring threads of
  // columns have neighbouring points.
  Lanes lanes_of(const Stage& stage) const {
    const std::vector<Loop>& loops = plan::loops_of(stage);
    if (loops.empty() || is_scan(stage) || is_columns()) return {};
    int lanes = widest_lanes(emitter_.program(), stage, loops.back(), writer_.access());
    while (lanes > 1 && points_at_opt(loops) / lanes < group_.threads) lanes /= 2;
    return {loops.back().index, lanes, ""};
  }

  const std::vector<Loop>& row_loops() const {
    const size_t first = static_cast<size_t>(std::ranges::find(in_row_, true) - in_row_.begin());
    return plan::loops_of(nest_.stages[first]);
  }

  // The loads that more than one stage makes, and whether a thread has the registers for them.
  void plan_row() {
    if (std::ranges::find(in_row_, true) == in_row_.end()) return;
    find_own_stores();
    if (fits_registers() || own_stores_.empty()) return;
    for (const auto& [buffer, stage] : own_stores_) writer_.access().set_own(buffer, false);
    own_stores_.clear();
    fits_registers();
  }

  bool fits_registers() {
    int lanes = 8;
    for (size_t s = 0; s < nest_.stages.size(); ++s) {
      if (in_row_[s]) lanes = std::min(lanes, lanes_of(nest_.stages[s]).count);
    }
    row_lanes_ = {is_columns() ? nullptr : row_loops().back().index, lanes, ""};
    const int64_t longest = points_of(row_loops()).upper_bound();
    const int64_t step = int64_t{group_.threads} * lanes;
    const int64_t most =
        group_.threads * group_.points >= kLargeBlock ? kRowRegistersOfLargeBlock : kRowRegisters;
    if (longest > step * most) return false;
    rounds_ = std::max<int64_t>(1, (longest + step - 1) / step);
    find_shared_loads();
    int64_t registers = 0;
    for (const SharedLoad& load : shared_)
      registers += rounds_ * lanes * (dtype_size(load.node->dtype) > 4 ? 2 : 1);
    if (!shared_.empty() && registers <= most) return true;
    shared_.clear();
    rounds_ = 0;
    return false;
  }

  // Buffers that one stage of the row stores and later ones read, all at the same point: in terms of the loops
  // that the stages share, each thread reads what it wrote. The stage itself may read what it writes over.
  void find_own_stores() {
    for (size_t s = 0; s < nest_.stages.size(); ++s) {
      const auto* store = std::get_if<plan::Store>(&nest_.stages[s]);
      if (store == nullptr || !in_row_[s] || !writer_.access().is_shared(store->buffer)) continue;
      if (store->indices.size() == 1 && is_own(*store, s)) own_stores_.emplace(store->buffer, s);
    }
    for (const auto& [buffer, stage] : own_stores_) writer_.access().set_own(buffer, true);
  }

  bool is_own(const plan::Store& store, size_t stage) const {
    bool result = true, is_read = false;
    for (size_t s = 0; s < nest_.stages.size(); ++s) {
      const auto* other = std::get_if<plan::Store>(&nest_.stages[s]);
      if (s != stage && other != nullptr && other->buffer == store.buffer) return false;
      plan::visit(plan::value_of(nest_.stages[s]), [&](const ExprNode& node) {
        if (node.kind != ExprKind::Load || node.buffer != store.buffer) return;
        const backend::ElementOffset offset = element_offset(emitter_.program(), node);
        result = result && s >= stage && in_row_[s] && !node.predicate && offset.dynamic.empty() &&
                 offset.linear == store.indices[0];
        is_read = is_read || s > stage;
      });
    }
    return result && is_read;
  }

  struct SharedLoad {
    const ExprNode* node = nullptr;
    std::string name;
    std::vector<const ExprNode*> uses;
    size_t stages = 0, last_stage = 0;
    bool is_own = false;  // a stage of the row stores it: it is there from then on
  };

  void find_shared_loads() {
    for (size_t s = 0; s < nest_.stages.size(); ++s) {
      if (!in_row_[s]) continue;
      plan::visit(plan::value_of(nest_.stages[s]), [&](const ExprNode& node) {
        const auto own =
            node.kind == ExprKind::Load ? own_stores_.find(node.buffer) : own_stores_.end();
        const bool is_own = own != own_stores_.end();
        if (is_own ? own->second == s : !may_be_kept(node)) return;
        auto it = std::ranges::find_if(shared_, [&](const SharedLoad& load) {
          return same_place(emitter_.program(), *load.node, node);
        });
        if (it == shared_.end())
          it = shared_.insert(it,
                              {&node, "", {}, is_own ? size_t{1} : 0, nest_.stages.size(), is_own});
        it->uses.push_back(&node);
        if (it->last_stage != s) ++it->stages;
        it->last_stage = s;
      });
    }
    std::erase_if(shared_, [](const SharedLoad& load) { return load.stages < 2; });
  }

  // Not what the kernel writes, which changes; not what is the same for the whole row, or gathered
  // element by element.
  bool may_be_kept(const ExprNode& node) const {
    if (node.kind != ExprKind::Load || node.predicate || writer_.access().is_shared(node.buffer))
      return false;
    const backend::ElementOffset offset = element_offset(emitter_.program(), node);
    const bool computed = std::ranges::any_of(offset.dynamic, [&](const auto& part) {
      return !writer_.access().is_settled(part.first) ||
             std::ranges::any_of(
                 row_loops(), [&](const Loop& loop) { return mentions(part.first, loop.index); });
    });
    return !computed && std::ranges::any_of(row_loops(), [&](const Loop& loop) {
      return offset.linear.mentions(loop.index);
    });
  }

  void load_row() {
    if (shared_.empty()) return;
    const std::string array = "[" + text(rounds_) + "]" +
                              (row_lanes_.count > 1 ? "[" + text(row_lanes_.count) + "]" : "");
    std::map<const ExprNode*, std::string> kept;
    for (SharedLoad& load : shared_) {
      load.name = emitter_.fresh("row");
      emitter_.line(std::string(register_type(load.node->dtype)) + " " + load.name + array + ";");
    }
    for (const SharedLoad& load : shared_)
      for (const ExprNode* use : load.uses) kept[use] = place_of(load);
    if (!std::ranges::all_of(shared_, &SharedLoad::is_own)) fetch_row();
    writer_.keep(std::move(kept));
  }

  void fetch_row() {
    Lanes lanes = row_lanes_;
    open_round(lanes);
    for (const SharedLoad& load : shared_) {
      if (load.is_own) continue;
      const std::string offset = emitter_.offset(*load.node);
      const std::string buffer = emitter_.buffer(load.node->buffer);
      const std::string place = load.name + "[k]";
      if (writer_.access().is_vector(*load.node, lanes)) {
        emitter_.line("load_lanes<" + text(lanes.count) + ">(" + buffer + " + " + offset +
                      ", aligned, " + place + ");");
      } else if (lanes.count > 1) {
        writer_.for_each_lane({}, lanes, {}, [&](const Leaves&) {
          emitter_.line(place + "[e] = from_memory(" + buffer + "[" + emitter_.offset(*load.node) +
                        "]);");
        });
      } else {
        emitter_.line(place + " = from_memory(" + buffer + "[" + offset + "]);");
      }
    }
    close_round();
  }

  // An element of the row in registers, in a round.
  std::string place_of(const SharedLoad& load) const {
    return load.name + "[k]" + (row_lanes_.count > 1 ? "[e]" : "");
  }

  // --- Loops that are shared out ---

  Dim steps_of(const std::vector<Loop>& loops, const Lanes& lanes) const {
    return ir::floordiv(points_of(loops), Dim(lanes.count));
  }

  // Binds the loops at a step of the thread.
  void bind_step(const std::vector<Loop>& loops, const ir::SymbolPtr& step, const std::string& name,
                 Lanes& lanes) {
    emitter_.bind(step, name);
    bind_loops(emitter_, loops, Dim(step), lanes.count);
    if (lanes.count > 1) lanes.first = emitter_.position(Dim(lanes.index));
  }

  // Opens a loop over the points of a stage, each thread with its own. Several rounds are under way at
  // once, to have enough loads in flight.
  void open_shared(const Stage& stage, Lanes& lanes) {
    const std::vector<Loop>& loops = plan::loops_of(stage);
    const Dim steps = steps_of(loops, lanes);
    const ir::SymbolPtr step = ir::make_loop_symbol("step", steps);
    const std::string name = emitter_.fresh("q");
    const std::string type = position_type(Dim(step));
    std::string end = emitter_.position(steps);
    if (is_columns()) end = emitter_.declare(type, "end", "active ? " + end + " : 0");
    const int64_t work = std::max<int64_t>(1, lanes.count * operations(plan::value_of(stage)));
    emitter_.line("#pragma unroll " +
                  text(std::clamp<int64_t>(kUnrolled / work, 1, lanes.count > 1 ? 4 : 8)));
    emitter_.open("for (" + type + " " + name + " = rank; " + name + " < " + end + "; " + name +
                  " += " + text(group_.threads) + ")");
    bind_step(loops, step, name, lanes);
  }

  // The same for the row, in as many rounds as the thread has registers for.
  void open_round(Lanes& lanes) {
    const Dim steps = steps_of(row_loops(), lanes);
    const ir::SymbolPtr step = ir::make_loop_symbol("step", steps);
    emitter_.line("#pragma unroll");
    emitter_.open("for (int k = 0; k < " + text(rounds_) + "; ++k)");
    const std::string type = position_type(Dim(step));
    const std::string name = emitter_.declare(type, "q", "rank + k * " + text(group_.threads));
    const bool whole = steps.is_constant(rounds_ * group_.threads) && !is_columns();
    emitter_.open(whole ? ""
                        : "if (" + if_active() + name + " < " + emitter_.position(steps) + ")");
    bind_step(row_loops(), step, name, lanes);
  }

  void close_round() {
    emitter_.close();
    emitter_.close();
  }

  void open_stage(size_t s, Lanes& lanes) {
    if (in_row_[s] && rounds_ > 0) return open_round(lanes);
    open_shared(nest_.stages[s], lanes);
  }
  void close_stage(size_t s) {
    if (in_row_[s] && rounds_ > 0) return close_round();
    emitter_.close();
  }

  // --- Stages ---

  void write_stage(size_t s) {
    const Stage& stage = nest_.stages[s];
    if (const auto* reduction = std::get_if<plan::Reduction>(&stage)) return reduce(*reduction, s);
    store(std::get<plan::Store>(stage), s);
    if (s + 1 < nest_.stages.size())
      emitter_.line(is_warp() ? "__syncwarp();" : "__syncthreads();");
  }

  std::string joined(const ReducerText& reducer, const std::string& state) const {
    const std::string op = reducer.name();
    if (is_columns())
      return "reduce_column<" + op + ", " + text(group_.points) + ", " + text(group_.threads) +
             ">(" + state + ")";
    if (is_warp()) return "reduce_warp<" + op + ", 32>(" + state + ")";
    return "reduce_block<" + op + ", " + text(group_.threads / kWarp) + ">(" + state + ")";
  }

  void reduce(const plan::Reduction& reduction, size_t s) {
    const ReducerText reducer(reduction.op, reduction.value->dtype,
                              terms_of(reduction, group_.threads));
    const std::string state = emitter_.fresh("s");
    emitter_.line(reducer.state_type() + " " + state + " = " + reducer.neutral() + ";");
    Lanes lanes = lanes_[s];
    open_stage(s, lanes);
    writer_.for_each_lane({reduction.value}, lanes, reduced_, [&](const Leaves& leaves) {
      reducer.accumulate(emitter_, state, reduction.value, position_of(reduction), leaves);
    });
    close_stage(s);
    emitter_.line(state + " = " + joined(reducer, state) + ";");
    reduced_.push_back(emitter_.declare(reducer.result_type(), "r", reducer.result(state)));
  }

  void store(const plan::Store& store, size_t s) {
    if (store.loops.empty()) {
      emitter_.open("if (" + if_active() + "rank == 0)");
      writer_.store(store, {}, reduced_);
      return emitter_.close();
    }
    if (store.scan) return scan(store);
    Lanes lanes = lanes_[s];
    open_stage(s, lanes);
    const auto own = std::ranges::find_if(shared_, [&](const SharedLoad& load) {
      return load.is_own && load.node->buffer == store.buffer;
    });
    if (own == shared_.end())
      writer_.store(store, lanes, reduced_);
    else
      writer_.store(store, lanes, reduced_, [&](const Leaves& leaves) {
        // As memory gives it back.
        emitter_.line(place_of(*own) + " = from_memory(to_memory<" +
                      memory_type(emitter_.dtype_of(store.buffer)) + ">(" +
                      emitter_.value(store.value, leaves) + "));");
        return place_of(*own);
      });
    close_stage(s);
  }

  // Each round scans as many elements as there are threads, on top of what came before. A running sum
  // of f32 is kept in f64, as PyTorch does: its terms may be many.
  void scan(const plan::Store& store) {
    KILN_CHECK(!is_columns(), "scans run along rows");
    const DType stored = store.value->dtype;
    const DType wide = stored == DType::F32 ? DType::F64 : stored;
    const Expr value = plan::cast(store.value, wide);
    const ReducerText reducer(*store.scan, wide);
    std::vector<Loop> outside = store.loops;
    const Loop along = outside.back();
    outside.pop_back();
    open_loops(emitter_, outside);
    const std::string carry = emitter_.fresh("s");
    emitter_.line(reducer.state_type() + " " + carry + " = " + reducer.neutral() + ";");
    const std::string base = emitter_.fresh("q");
    const std::string extent = emitter_.position(along.extent());
    const std::string type = position_type(Dim(along.index));
    emitter_.open("for (" + type + " " + base + " = 0; " + base + " < " + extent + "; " + base +
                  " += " + text(group_.threads) + ")");
    const std::string place = emitter_.declare(type, "i", base + " + rank");
    emitter_.bind(along.index, place);
    const std::string state = emitter_.fresh("s");
    emitter_.line(reducer.state_type() + " " + state + " = " + reducer.neutral() + ";");
    emitter_.open("if (" + place + " < " + extent + ")");
    Leaves leaves;
    leaves.reduced = reduced_;
    reducer.accumulate(emitter_, state, value, Dim(0), leaves);
    emitter_.close();
    emitter_.line(state + " = scan_group<" + reducer.name() + ", " + text(group_.threads / kWarp) +
                  ">(" + state + ", " + carry + ");");
    emitter_.open("if (" + place + " < " + extent + ")");
    emitter_.store(store.buffer, store.indices,
                   "(" + std::string(register_type(stored)) + ")" + state);
    emitter_.close();
    for (size_t i = 0; i < store.loops.size(); ++i) emitter_.close();
  }

  Emitter& emitter_;
  LoopNest nest_;
  std::vector<bool> in_row_;  // by stage
  StageWriter writer_;
  Group group_;
  Lanes row_lanes_;
  int64_t rounds_ = 0;                           // of the row that is kept; 0: it is not
  std::map<plan::BufferId, size_t> own_stores_;  // by the stage that stores
  std::vector<SharedLoad> shared_;
  std::vector<Lanes> lanes_;  // by stage
  std::vector<std::string> reduced_;
};

}  // namespace

std::string group_nest_text(KernelContext& context, const LoopNest& nest, const Group& group) {
  Emitter emitter(context);
  GroupNest(emitter, nest, group).write();
  return emitter.finish({.threads = group.threads * group.points});
}

}  // namespace kiln::cuda
