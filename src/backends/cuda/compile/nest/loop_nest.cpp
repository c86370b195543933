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

// Fewer points of the inner loops than this are done by one thread.
constexpr int64_t kShortLoops = 16;
// A machine has room for about so many threads.
constexpr int64_t kThreads = 132 * 1024;

int64_t longest_stage(const LoopNest& nest) {
  int64_t result = 1;
  for (const Stage& stage : nest.stages)
    result = std::max(result, points_at_opt(plan::loops_of(stage)));
  return result;
}

// Elements of memory that neighbouring values of an index read one after another, against those they
// read apart.
int contiguity(const LoopNest& nest, const ir::SymbolPtr& index) {
  int result = 0;
  const auto look = [&](const Dim& offset) {
    if (!offset.mentions(index)) return;
    const auto linear = offset.as_linear_in(index);
    result += linear && linear->first.is_constant(1) ? 1 : -1;
  };
  for (const Stage& stage : nest.stages) {
    plan::visit(plan::value_of(stage), [&](const plan::ExprNode& node) {
      if (node.kind != plan::ExprKind::Load || node.args.size() != 1) return;
      if (node.args[0]->kind == plan::ExprKind::Position) look(node.args[0]->index);
    });
  }
  return result;
}

bool reads_along_outer(const LoopNest& nest) {
  return std::ranges::any_of(nest.outer,
                             [&](const Loop& loop) { return contiguity(nest, loop.index) > 0; });
}

int threads_for(int64_t inner) {
  if (inner <= 1024) return 32;
  if (inner <= 4096) return 128;
  return inner <= 16384 ? 256 : 512;
}

}  // namespace

std::string loop_nest_text(KernelContext& context, const LoopNest& nest) {
  const LoopNest simple = backend::simplify(context.program, nest);
  const int64_t inner = longest_stage(simple), outer = points_at_opt(simple.outer);
  if (inner <= kShortLoops || (reads_along_outer(simple) && outer >= kThreads / 8))
    return point_nest_text(context, simple);
  return group_nest_text(context, simple, threads_for(inner));
}

}  // namespace kiln::cuda
