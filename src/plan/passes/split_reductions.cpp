// A reduction over much for few outer points is shared by more tasks than there are outer points.
//
// Before: a nest with fewer outer points than `few_reductions`, whose reductions take at least
// `long_reduction` elements each: the sum of a whole tensor, a group norm of a large picture. After: each
// of its stages is a kernel of its own. A reduction becomes partial results, one for each part of one of its
// loops, which lie in a temporary; whoever needs the result reduces these first. A store becomes as many
// tasks as its loop has parts. Parts are equal, so the loop must have divisors: a nest without stays.
//
//   r0 = sum over j < 1000000: x[j]      over s < 500: r0 = sum over j < 2000: x[s * 2000 + j]
//   y[] = r0 / 1000000              =>                 p[s] = r0
//                                        r0 = sum over s < 500: p[s]; y[] = r0 / 1000000
//
// Squared deviations from the mean of the same elements, as a variance has them, are taken from the means of the
// parts, in the kernel that adds these up, so that it reads once what both are of. Whoever needs the result adds
// the square of how far each part's mean lies from that of all, as often as the part has elements (Chan, Golub
// and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
//
// A store of short runs that an outer loop continues in memory, as the groups of channels that lie last do in a group
// norm, is pointwise work over all of its points in the order of memory. What an outer point shares of it, such as a
// mean, is stored by a kernel in front.
//
//   over g < 32: r0 = ...; for p < 4096, c < 10:        m[g] = f(r0)
//     y[p * 320 + g * 10 + c] = x[...] * f(r0)     =>   over p, g, c: y[...] = x[...] * m[g]
//
// Results are the same in every run, as ever: the parts are a matter of the program alone.
#include <algorithm>
#include <functional>
#include <map>

#include "plan/form/fold.h"
#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

constexpr int64_t kMostParts = 512, kFewParts = 4, kLeastElements = 1024;
// Elements that a warp stores at a time, two a thread.
constexpr int64_t kLongRun = 64;

bool is_joinable(ReduceOp op) { return op != ReduceOp::ArgMax && op != ReduceOp::ArgMin; }

class Splitter {
 public:
  Splitter(Program& program, const Kernel& kernel)
      : program_(program), kernel_(kernel), nest_(std::get<LoopNest>(kernel_.body)) {}

  // The kernels that take its place; none where it stays as it is.
  std::vector<Kernel> run() {
    if (!suits()) return {};
    const auto buffers = static_cast<std::ptrdiff_t>(program_.buffers.size());
    std::vector<Kernel> kernels;
    for (size_t i = 0; i < nest_.stages.size(); ++i) {
      const Reduction* squares = i + 1 < nest_.stages.size() ? deviations_behind(i) : nullptr;
      const bool done =
          squares ? split_moments(std::get<Reduction>(nest_.stages[i++]), *squares, kernels)
                  : std::visit([&](const auto& s) { return split(s, kernels); }, nest_.stages[i]);
      if (done) continue;
      program_.buffers.erase(program_.buffers.begin() + buffers, program_.buffers.end());
      return {};
    }
    return kernels;
  }

 private:
  struct Partial {
    Reduction reduction;  // its op and, for its type, its value
    BufferId buffer = -1;
    int64_t parts = 1;
    DType dtype = DType::F32;  // of a partial result
    // Of squared deviations from the means of parts: how many elements a part has. The sums of the
    // parts are the slot in front.
    std::optional<int64_t> part_elements = std::nullopt;
  };

  bool suits() const {
    const TargetTraits& traits = program_.traits;
    if (traits.long_reduction == 0 || separate_reductions() >= traits.few_reductions) return false;
    bool has_long = false;
    for (const Stage& stage : nest_.stages) {
      if (has_checks(value_of(stage))) return false;
      if (const auto* store = std::get_if<Store>(&stage); store && store->scan) return false;
      const auto* reduction = std::get_if<Reduction>(&stage);
      if (!reduction) continue;
      if (!is_joinable(reduction->op)) return false;
      has_long |= points_at_opt(reduction->loops) >= traits.long_reduction;
    }
    return has_long;
  }

  // Outer points, but of those whose elements are neighbours in memory as many as are reduced at once count as one.
  int64_t separate_reductions() const {
    const int64_t at_once = program_.traits.reduced_at_once;
    int64_t points = 1;
    for (const Loop& loop : nest_.outer) {
      const int64_t extent = points_at_opt({loop});
      points *= has_neighbours(loop) ? (extent + at_once - 1) / at_once : extent;
    }
    return points;
  }

  // Whether all that reductions load lies behind one another along a loop.
  bool has_neighbours(const Loop& loop) const {
    bool result = program_.traits.reduced_at_once > 1;
    for (const Stage& stage : nest_.stages) {
      if (!std::holds_alternative<Reduction>(stage)) continue;
      visit(value_of(stage), [&](const ExprNode& node) {
        if (node.kind != ExprKind::Load || node.args.empty()) return;
        const auto last = as_index(node.args.back());
        const auto linear = last ? last->as_linear_in(loop.index) : std::nullopt;
        result &= linear && linear->first.is_constant(1);
      });
    }
    return result;
  }

  // How many parts are worth it for so many elements of each outer point.
  int64_t wanted_parts(int64_t elements) const {
    const int64_t outer = std::max<int64_t>(1, points_at_opt(nest_.outer));
    const int64_t tasks = 4 * program_.traits.min_parallel_points;
    return std::min({kMostParts, tasks / outer, elements / kLeastElements});
  }

  struct Cut {
    size_t loop = 0;
    int64_t parts = 1;
  };
  // The loop that is cut, the outermost that has enough parts, or else the one that has most.
  Cut find_cut(const std::vector<Loop>& loops) const {
    const int64_t wanted = wanted_parts(points_at_opt(loops));
    Cut best;
    for (size_t i = 0; i < loops.size() && best.parts * 2 <= wanted; ++i) {
      if (!loops[i].extent().is_constant()) continue;
      const int64_t extent = loops[i].extent().constant();
      int64_t parts = std::min(wanted, extent);
      while (parts > 1 && extent % parts != 0) --parts;
      if (parts > best.parts) best = {i, parts};
    }
    return best;
  }

  // Stage `i + 1` if it sums squared deviations from the mean of what stage `i` sums, in parts.
  const Reduction* deviations_behind(size_t i) const {
    const auto* sum = std::get_if<Reduction>(&nest_.stages[i]);
    const auto* squares = std::get_if<Reduction>(&nest_.stages[i + 1]);
    if (!sum || !squares || sum->op != ReduceOp::Sum || squares->op != ReduceOp::Sum ||
        sum->loops.size() != squares->loops.size() || find_cut(sum->loops).parts < kFewParts)
      return nullptr;
    Indices values;
    int64_t elements = 1;
    for (size_t k = 0; k < sum->loops.size(); ++k) {
      const ir::Dim& extent = sum->loops[k].extent();
      if (!extent.is_constant() || extent != squares->loops[k].extent()) return nullptr;
      elements *= extent.constant();
      values.emplace_back(squares->loops[k].index);
    }
    const Expr element = substitute(sum->value, replace_loops(sum->loops, values));
    const DType dtype = element->dtype;
    if (dtype != DType::F32 && dtype != DType::F64) return nullptr;
    const Expr total = reduced(static_cast<int32_t>(partials_.size()), dtype);
    const auto is_count = [&](const Expr& count) {
      return to_string(squares->value) == to_string(square_of_distance(element, total, count));
    };
    const bool suits = is_count(constant(dtype, static_cast<double>(elements))) ||
                       is_count(cast(position(elements), dtype));
    return suits ? squares : nullptr;
  }

  // (x - total / count)^2
  static Expr square_of_distance(const Expr& x, const Expr& total, const Expr& count) {
    const Expr distance = apply(ir::Op::sub, {x, apply(ir::Op::div, {total, count})});
    return apply(ir::Op::mul, {distance, distance});
  }

  // A copy of the outer loops: no two kernels share loops.
  std::vector<Loop> fresh_outer(IndexMap& map) const {
    std::vector<Loop> outer;
    Indices values;
    for (const Loop& loop : nest_.outer) {
      const IndexMap so_far = replace_loops(
          {nest_.outer.begin(), nest_.outer.begin() + static_cast<std::ptrdiff_t>(outer.size())},
          values);
      outer.push_back(make_loop("i", loop.extent().substitute(so_far)));
      values.emplace_back(outer.back().index);
    }
    map = replace_loops(nest_.outer, values);
    return outer;
  }

  // The loops of a kernel for a stage, cut or whole, and the stage's own in terms of them.
  struct Part {
    std::vector<Loop> outer, loops;
    Indices outer_values;  // without that of the part
    std::optional<Loop> part;
    IndexMap map;
  };
  Part make_part(const std::vector<Loop>& loops, const Cut& cut) const {
    Part result;
    IndexMap outer_map;
    result.outer = fresh_outer(outer_map);
    for (const Loop& loop : result.outer) result.outer_values.emplace_back(loop.index);
    std::vector<Loop> all = nest_.outer;
    Indices values = result.outer_values;
    if (cut.parts > 1) {
      result.part = make_loop("s", cut.parts);
      result.outer.push_back(*result.part);
    }
    for (size_t i = 0; i < loops.size(); ++i) {
      const bool is_cut = cut.parts > 1 && i == cut.loop;
      const ir::Dim extent = is_cut ? ir::Dim(loops[i].extent().constant() / cut.parts)
                                    : loops[i].extent().substitute(replace_loops(all, values));
      const Loop fresh = make_loop("j", extent);
      result.loops.push_back(fresh);
      all.push_back(loops[i]);
      values.push_back(is_cut ? Index(result.part->index) * extent + Index(fresh.index)
                              : Index(fresh.index));
    }
    result.map = replace_loops(all, values);
    return result;
  }

  // The stage that joins the partial results of a slot, if there is none yet.
  void join(int32_t slot, const Part& part, std::map<int32_t, int32_t>& slots,
            std::vector<Stage>& stages) const {
    if (slots.contains(slot)) return;
    const Partial& partial = partials_.at(static_cast<size_t>(slot));
    if (partial.part_elements) join(slot - 1, part, slots, stages);
    const Loop loop = make_loop("t", partial.parts);
    Indices at = part.outer_values;
    at.emplace_back(loop.index);
    Expr value = load_at(partial.buffer, partial.dtype, at);
    if (partial.part_elements) {
      const DType dtype = partial.dtype;
      const auto count = [&](int64_t n) { return constant(dtype, static_cast<double>(n)); };
      const Expr elements = count(*partial.part_elements);
      const Expr sum = load_at(partials_.at(static_cast<size_t>(slot - 1)).buffer, dtype, at);
      const Expr apart = square_of_distance(apply(ir::Op::div, {sum, elements}),
                                            reduced(slots.at(slot - 1), dtype),
                                            count(*partial.part_elements * partial.parts));
      value = apply(ir::Op::add, {value, apply(ir::Op::mul, {elements, apart})});
    }
    slots[slot] = static_cast<int32_t>(stages.size());
    stages.emplace_back(Reduction{partial.reduction.op, {loop}, value});
  }

  // The value with its Reduced leaves, after stages that join the partial results they stand for.
  Expr joined(const Expr& value, const Part& part, std::vector<Stage>& stages) const {
    std::map<int32_t, int32_t> slots;
    return joined(value, part, stages, slots);
  }
  Expr joined(const Expr& value, const Part& part, std::vector<Stage>& stages,
              std::map<int32_t, int32_t>& slots) const {
    visit(value, [&](const ExprNode& node) {
      if (node.kind == ExprKind::Reduced) join(node.slot, part, slots, stages);
    });
    return rewrite(substitute(value, part.map), [&](const ExprNode& node) -> Expr {
      if (node.kind != ExprKind::Reduced) return nullptr;
      const DType dtype = partials_.at(static_cast<size_t>(node.slot)).dtype;
      return cast(reduced(slots.at(node.slot), dtype), node.dtype);
    });
  }

  bool split(const Reduction& reduction, std::vector<Kernel>& kernels) {
    const Cut cut = find_cut(reduction.loops);
    const bool is_long = points_at_opt(reduction.loops) >= program_.traits.long_reduction;
    if (is_long && cut.parts < kFewParts) return false;
    const Part part = make_part(reduction.loops, cut);
    std::vector<Stage> stages;
    Expr value = joined(reduction.value, part, stages);
    const bool sums = reduction.op == ReduceOp::Sum || reduction.op == ReduceOp::Prod;
    if (sums && is_16_bit_float(value->dtype)) value = cast(value, DType::F32);
    const auto slot = static_cast<int32_t>(stages.size());
    stages.emplace_back(Reduction{reduction.op, part.loops, value});
    stages.emplace_back(store_parts({reduction, -1, cut.parts, value->dtype}, part, slot));
    kernels.push_back({program_.buffers[partials_.back().buffer].name,
                       LoopNest{part.outer, std::move(stages)}, kernel_.sources});
    return is_possible(kernels.back());
  }

  // Sums and squared deviations of parts, in one kernel.
  bool split_moments(const Reduction& sum, const Reduction& squares, std::vector<Kernel>& kernels) {
    const Cut cut = find_cut(sum.loops);
    const Part part = make_part(sum.loops, cut);
    std::vector<Stage> stages;
    const Expr value = joined(sum.value, part, stages);
    const DType dtype = value->dtype;
    std::vector<Loop> loops;
    Indices values;
    int64_t elements = 1;
    for (const Loop& loop : part.loops) {
      loops.push_back(make_loop("j", loop.extent()));
      values.emplace_back(loops.back().index);
      elements *= loop.extent().constant();
    }
    const auto slot = static_cast<int32_t>(stages.size());
    const Expr square =
        square_of_distance(substitute(value, replace_loops(part.loops, values)),
                           reduced(slot, dtype), constant(dtype, static_cast<double>(elements)));
    stages.emplace_back(Reduction{ReduceOp::Sum, part.loops, value});
    stages.emplace_back(Reduction{ReduceOp::Sum, loops, square});
    stages.emplace_back(store_parts({sum, -1, cut.parts, dtype}, part, slot));
    stages.emplace_back(store_parts({squares, -1, cut.parts, dtype, elements}, part, slot + 1));
    kernels.push_back({program_.buffers[partials_.back().buffer].name,
                       LoopNest{part.outer, std::move(stages)}, kernel_.sources});
    return is_possible(kernels.back());
  }

  // Makes the temporary of partial results, and the stage that stores one of them, that of a slot.
  Store store_parts(Partial partial, const Part& part, int32_t slot) {
    ir::Type type{partial.dtype, {}};
    for (const Loop& loop : nest_.outer) type.shape.push_back(loop.extent());
    type.shape.emplace_back(partial.parts);
    partial.buffer =
        program_.add_buffer({BufferKind::Temporary,
                             kernel_.name + "_parts_" + std::to_string(partials_.size()),
                             std::move(type),
                             {},
                             -1});
    Indices at = part.outer_values;
    at.push_back(part.part ? Index(part.part->index) : Index(0));
    partials_.push_back(partial);
    return {partial.buffer, {}, at, reduced(slot, partial.dtype), {}};
  }

  bool split(const Store& store, std::vector<Kernel>& kernels) {
    if (continues_runs(store)) return split_points(store, kernels);
    const Cut cut = find_cut(store.loops);
    const Part part = make_part(store.loops, cut);
    std::vector<Stage> stages;
    const Expr value = joined(store.value, part, stages);
    stages.emplace_back(
        Store{store.buffer, part.loops, substitute(store.indices, part.map), value, {}});
    kernels.push_back({name_of_store(), LoopNest{part.outer, std::move(stages)}, kernel_.sources});
    return is_possible(kernels.back());
  }

  std::string name_of_store() {
    const bool is_first = stores_++ == 0;
    return is_first ? kernel_.name : kernel_.name + "_" + std::to_string(stores_);
  }

  // --- Stores of short runs ---

  // The strides of a tensor's elements along loops, if all of them are known.
  std::optional<std::vector<int64_t>> strides_of(BufferId buffer, const Indices& at,
                                                 const std::vector<Loop>& loops) const {
    const auto affine = as_affine(linearize(program_.buffers[buffer].type.shape, at), loops);
    if (!affine) return std::nullopt;
    std::vector<int64_t> strides;
    for (const ir::Dim& stride : affine->strides) {
      if (!stride.is_constant()) return std::nullopt;
      strides.push_back(stride.constant());
    }
    return strides;
  }

  // Whether a store has short runs of neighbours that an outer loop continues, and whatever it reads at every
  // point lies like its result.
  bool continues_runs(const Store& store) const {
    if (points_at_opt(store.loops) < kLeastElements) return false;
    std::vector<Loop> loops = nest_.outer;
    loops.insert(loops.end(), store.loops.begin(), store.loops.end());
    const bool known =
        std::ranges::all_of(loops, [](const Loop& loop) { return loop.extent().is_constant(); });
    const auto own = strides_of(store.buffer, store.indices, loops);
    if (!known || !own || std::ranges::any_of(*own, [](int64_t stride) { return stride <= 0; }))
      return false;
    bool alike = true, uses_results = false;
    visit(store.value, [&](const ExprNode& node) {
      uses_results |= node.kind == ExprKind::Reduced;
      if (node.kind != ExprKind::Load) return;
      const auto at = load_indices(node);
      const auto strides = at ? strides_of(node.buffer, *at, loops) : std::nullopt;
      const bool everywhere =
          !strides || std::ranges::none_of(*strides, [](int64_t stride) { return stride == 0; });
      alike &= !everywhere || strides == own;
    });
    const auto outer = static_cast<std::ptrdiff_t>(nest_.outer.size());
    int64_t run = 1;
    const auto next = [&](auto begin, auto end) {  // the extent of the loop that continues a run
      const auto found = std::find(begin, end, run);
      return found == end ? 1
                          : loops[static_cast<size_t>(found - own->begin())].extent().constant();
    };
    for (int64_t extent = 0; (extent = next(own->begin() + outer, own->end())) > 1;) run *= extent;
    return alike && uses_results && run < kLongRun && next(own->begin(), own->begin() + outer) > 1;
  }

  // The largest parts of an expression that results of reductions alone go into, and that storing does not round.
  static void find_shared(const Expr& expr, std::vector<Expr>& found) {
    bool uses_results = false, uses_others = false;
    visit(expr, [&](const ExprNode& node) {
      uses_results |= node.kind == ExprKind::Reduced;
      uses_others |= node.kind != ExprKind::Reduced && node.kind != ExprKind::Apply &&
                     node.kind != ExprKind::Constant;
    });
    if (!uses_results) return;
    if (uses_others || is_16_bit_float(expr->dtype)) {
      for (const Expr& arg : expr->args) find_shared(arg, found);
    } else if (std::ranges::find(found, expr) == found.end()) {
      found.push_back(expr);
    }
  }

  bool split_points(const Store& store, std::vector<Kernel>& kernels) {
    std::vector<Expr> shared;
    find_shared(store.value, shared);
    Indices outer_points;
    ir::Shape shape;
    for (const Loop& loop : nest_.outer) {
      outer_points.emplace_back(loop.index);
      shape.push_back(loop.extent());
    }
    const Part each = make_part({}, {});
    std::vector<Stage> stages, stores;
    std::map<int32_t, int32_t> slots;
    std::vector<Expr> loads;
    for (const Expr& expr : shared) {
      const std::string name = kernel_.name + "_shared_" + std::to_string(program_.buffers.size());
      const BufferId buffer =
          program_.add_buffer({BufferKind::Temporary, name, {expr->dtype, shape}, {}, -1});
      stores.emplace_back(
          Store{buffer, {}, each.outer_values, joined(expr, each, stages, slots), {}});
      loads.push_back(load_at(buffer, expr->dtype, outer_points));
    }
    stages.insert(stages.end(), stores.begin(), stores.end());
    kernels.push_back(
        {program_.buffers.back().name, LoopNest{each.outer, std::move(stages)}, kernel_.sources});
    if (shared.empty() || !is_possible(kernels.back())) return false;

    const Part all = make_part(store.loops, {});
    const Expr value = rewrite(store.value, [&](const ExprNode& node) -> Expr {
      const auto found =
          std::ranges::find_if(shared, [&](const Expr& expr) { return expr.get() == &node; });
      return found == shared.end() ? nullptr : loads[static_cast<size_t>(found - shared.begin())];
    });
    const Indices at = substitute(store.indices, all.map);
    std::vector<Loop> loops = all.outer;
    loops.insert(loops.end(), all.loops.begin(), all.loops.end());
    const auto strides = strides_of(store.buffer, at, loops);
    if (!strides) return false;
    std::map<int64_t, Loop, std::greater<>> by_stride;
    for (size_t i = 0; i < loops.size(); ++i) by_stride.emplace((*strides)[i], loops[i]);
    if (by_stride.size() < loops.size()) return false;
    loops.clear();
    for (const auto& [stride, loop] : by_stride) loops.push_back(loop);
    kernels.push_back(
        {name_of_store(),
         LoopNest{std::move(loops), {Store{store.buffer, {}, at, substitute(value, all.map), {}}}},
         kernel_.sources});
    return is_possible(kernels.back());
  }

  // Extents of outer loops that depend on others have no place in the shape of a buffer, and positions
  // must still be provably in bounds.
  bool is_possible(const Kernel& kernel) const {
    bool result = std::ranges::all_of(nest_.outer, [](const Loop& loop) {
      return std::ranges::none_of(loop.extent().symbols(),
                                  [](const auto& s) { return s->is_loop; });
    });
    for_each_expr(kernel, [&](const Expr& expr) { result &= loads_in_bounds(program_, expr); });
    return result;
  }

  Program& program_;
  const Kernel kernel_;  // a copy: kernels of the program move
  const LoopNest& nest_;
  std::vector<Partial> partials_;
  int stores_ = 0;
};

}  // namespace

bool split_reductions(Program& program) {
  bool changed = false;
  std::vector<Kernel> kernels;
  for (Kernel& kernel : program.kernels) {
    std::vector<Kernel> parts;
    if (std::holds_alternative<LoopNest>(kernel.body)) parts = Splitter(program, kernel).run();
    changed |= !parts.empty();
    if (parts.empty()) parts.push_back(std::move(kernel));
    for (Kernel& part : parts) kernels.push_back(std::move(part));
  }
  program.kernels = std::move(kernels);
  return changed;
}

}  // namespace kiln::plan
