// Loop nests: pointwise operations, reductions, normalisations, data movement. The choice of a mapping.
#include <algorithm>

#include "backends/common/nest_simplify.h"
#include "backends/cuda/compile/generate.h"
#include "backends/cuda/compile/nest/mapping.h"
#include "ir/size_overflow.h"
#include "plan/form/access.h"
#include "plan/form/kernels.h"

namespace kiln::cuda {

using ir::Dim;
using plan::Loop;
using plan::LoopNest;
using plan::Stage;

Dim points_of(const std::vector<Loop>& loops) {
  Dim result = 1;
  for (const Loop& loop : loops) result *= loop.extent();
  return result;
}

int64_t points_at_opt(const std::vector<Loop>& loops) {
  int64_t result = 1;
  for (const Loop& loop : loops) result = ir::saturating_product({result, loop.extent().at_opt()});
  return result;
}

std::vector<Dim> loop_values(const std::vector<Loop>& loops, const Dim& index) {
  std::vector<Dim> values(loops.size());
  Dim rest = index;
  for (size_t i = loops.size(); i-- > 1;) {
    values[i] = ir::mod(rest, loops[i].extent());
    rest = ir::floordiv(rest, loops[i].extent());
  }
  if (!loops.empty()) values[0] = rest;
  return values;
}

void bind_loops(Emitter& emitter, const std::vector<Loop>& loops, const Dim& index, int lanes) {
  std::vector<Loop> steps = loops;
  if (lanes > 1) {
    const Loop& last = loops.back();
    steps.back() = {
        ir::make_loop_symbol(last.index->name, ir::floordiv(last.extent(), Dim(lanes)))};
  }
  const std::vector<Dim> values = loop_values(steps, index);
  for (size_t i = 0; i < loops.size(); ++i) {
    const bool last = i + 1 == loops.size();
    const Dim value = last ? values[i] * lanes : values[i];
    emitter.bind(loops[i].index,
                 emitter.declare(position_type(Dim(loops[i].index)), "i", emitter.position(value)));
  }
}

void open_loops(Emitter& emitter, const std::vector<Loop>& loops) {
  for (const Loop& loop : loops) {
    const std::string name = emitter.fresh("i");
    const std::string extent = emitter.position(loop.extent());
    emitter.open("for (" + std::string(position_type(Dim(loop.index))) + " " + name + " = 0; " +
                 name + " < " + extent + "; ++" + name + ")");
    emitter.bind(loop.index, name);
  }
}

void note_writes(KernelContext& context, const LoopNest& nest, const Dim& points) {
  auto& writes = context.result.interface.task_writes;
  writes.clear();
  for (const Stage& stage : nest.stages) {
    const auto* store = std::get_if<plan::Store>(&stage);
    if (store != nullptr) writes[store->buffer] += points * points_of(store->loops);
  }
}

namespace {

// Loops of the stages that are no longer than this are run by one thread.
constexpr int64_t kShortLoops = 16;
// With so many outer points a thread for each fills the machine.
constexpr int64_t kManyPoints = 132 * 128;
constexpr int kColumns = 32;

int64_t longest_stage(const LoopNest& nest) {
  int64_t result = 1;
  for (const Stage& stage : nest.stages)
    result = std::max(result, points_at_opt(plan::loops_of(stage)));
  return result;
}

bool has_scan(const LoopNest& nest) {
  return std::ranges::any_of(nest.stages, [](const Stage& stage) {
    const auto* store = std::get_if<plan::Store>(&stage);
    return store != nullptr && store->scan.has_value();
  });
}

bool mentions_any(const Dim& offset, const std::vector<Loop>& loops) {
  return std::ranges::any_of(loops, [&](const Loop& loop) { return offset.mentions(loop.index); });
}

// How many loads and stores neighbouring values of an index make one after another in memory, less
// those that they make apart. Without stores: of the loads that the loops of a stage repeat; what is
// loaded once for an outer point, such as the number of a row, does not count.
int contiguity(const LoopNest& nest, const ir::SymbolPtr& index, bool with_stores) {
  int result = 0;
  const auto look = [&](const Dim& offset, const std::vector<Loop>& loops) {
    if (!offset.mentions(index) || (!with_stores && !mentions_any(offset, loops))) return;
    const auto linear = offset.as_linear_in(index);
    result += linear && linear->first.is_constant(1) ? 1 : -1;
  };
  for (const Stage& stage : nest.stages) {
    plan::visit(plan::value_of(stage), [&](const plan::ExprNode& node) {
      if (node.kind == plan::ExprKind::Load && node.args.size() == 1 &&
          node.args[0]->kind == plan::ExprKind::Position)
        look(node.args[0]->index, plan::loops_of(stage));
    });
    const auto* store = std::get_if<plan::Store>(&stage);
    if (with_stores && store != nullptr) look(store->indices.at(0), store->loops);
  }
  return result;
}

// Whether loads run along the last outer loop rather than along loops of the stages.
bool reads_columns(const LoopNest& nest) {
  return !nest.outer.empty() && contiguity(nest, nest.outer.back().index, false) > 0;
}

// A warp reads up to 1024 elements of a row, 32 a thread. Where there are few rows, more threads share
// each.
Group rows_for(int64_t inner, int64_t outer) {
  int64_t threads = inner <= 1024 ? 32 : inner <= 4096 ? 128 : inner <= 16384 ? 256 : 512;
  while (threads < 512 && outer * threads < kManyPoints && inner >= threads * 8) threads *= 2;
  if (threads > 32) return {Group::Rows, static_cast<int>(threads), 1};
  return {Group::Rows, 32, outer >= 8 * 132 ? 8 : 4};
}

// Enough warps of each block that a thread has eight elements or more.
Group columns_for(int64_t inner) {
  int rows = 2;
  while (rows < 16 && inner >= int64_t{rows} * 16) rows *= 2;
  return {Group::Columns, rows, kColumns};
}

}  // namespace

void put_contiguous_last(LoopNest& nest) {
  const auto best = std::ranges::max_element(
      nest.outer.rbegin(), nest.outer.rend(), {},
      [&](const Loop& loop) { return contiguity(nest, loop.index, true); });
  if (best != nest.outer.rend()) std::rotate(std::prev(best.base()), best.base(), nest.outer.end());
}

std::string loop_nest_text(KernelContext& context, const LoopNest& nest) {
  LoopNest simple = backend::simplify(context.program, nest);
  put_contiguous_last(simple);
  if (auto text = transpose_nest_text(context, simple)) return std::move(*text);
  if (auto text = window_nest_text(context, simple)) return std::move(*text);
  const int64_t inner = longest_stage(simple), outer = points_at_opt(simple.outer);
  if (inner <= kShortLoops) return point_nest_text(context, simple);
  if (auto text = piece_nest_text(context, nest)) return std::move(*text);
  if (!reads_columns(simple)) return group_nest_text(context, simple, rows_for(inner, outer));
  if (outer >= kManyPoints || has_scan(simple)) return point_nest_text(context, simple);
  return group_nest_text(context, simple, columns_for(inner));
}

}  // namespace kiln::cuda
