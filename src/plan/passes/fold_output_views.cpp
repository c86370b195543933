// A kernel whose result is only copied elsewhere stores it there: permutes and reshapes of results,
// and the operands of concatenations, cost nothing.
//
// Before: buffer t is written by one kernel, and read by one Store of another kernel whose value is
// a plain load of t at a bijection of its positions. After: the writer of t stores to the target of
// the copy; the copy and t are gone.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/passes/contraction_result.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

struct Copy {
  std::vector<Loop> loops;
  BufferId from = -1, to = -1;
  Indices source, target;
};

std::optional<Copy> as_copy(const LoopNest& nest, const Stage& stage) {
  const auto* store = std::get_if<Store>(&stage);
  if (!store || store->scan) return std::nullopt;
  const ExprNode& value = *store->value;
  if (value.kind != ExprKind::Load || value.predicate) return std::nullopt;
  auto source = load_indices(value);
  if (!source) return std::nullopt;
  const Copy copy{with_loops(nest.outer, store->loops), value.buffer, store->buffer, *source,
                  store->indices};
  const RefinedLoops fine = refine_loops(copy.loops, copy.source);
  const IndexMap map = replace_loops(copy.loops, fine.values);
  return Copy{fine.loops, copy.from, copy.to, substitute(copy.source, map),
              substitute(copy.target, map)};
}

// The Store of a nest that writes a buffer, if there is one only and no stage reads the buffer.
Store* only_store(Kernel& kernel, BufferId buffer) {
  auto* nest = std::get_if<LoopNest>(&kernel.body);
  Store* result = nullptr;
  for (Stage& stage : nest->stages) {
    auto* store = std::get_if<Store>(&stage);
    if (!store || store->buffer != buffer) continue;
    if (result) return nullptr;
    result = store;
  }
  return result;
}

bool store_covers(const Program& program, const LoopNest& nest, const Store& store) {
  ir::Dim points = 1;
  for (const Loop& loop : nest.outer) points *= loop.extent();
  for (const Loop& loop : store.loops) points *= loop.extent();
  return points == program.buffers[store.buffer].type.elements();
}

// Where an element at `offset` of the copied buffer ends up.
std::optional<Indices> destination(const Program& program, const Copy& copy, const Index& offset) {
  const ir::Type& type = program.buffers[copy.from].type;
  const auto map = Bijection::find(linearize(type.shape, copy.source), copy.loops, type.elements());
  if (!map) return std::nullopt;
  return substitute(copy.target, replace_loops(copy.loops, map->loops_at(offset)));
}

bool redirect_nest(const Program& program, Kernel& kernel, const Copy& copy) {
  Store* store = only_store(kernel, copy.from);
  if (!store || !store_covers(program, std::get<LoopNest>(kernel.body), *store)) return false;
  const ir::Shape& shape = program.buffers[copy.from].type.shape;
  auto target = destination(program, copy, linearize(shape, store->indices));
  if (!target) return false;
  store->buffer = copy.to;
  store->indices = std::move(*target);
  return true;
}

bool redirect_contraction(const Program& program, Kernel& kernel, const Copy& copy) {
  const ContractionResult result = *contraction_result(kernel);
  if (!covers_buffer(program, result)) return false;
  const auto target = destination(program, copy, result.offset);
  return target && redirect(program, kernel, result, copy.to, *target);
}

bool fold(Program& program, Uses& uses, const Copy& copy) {
  if (program.buffers[copy.from].kind != BufferKind::Temporary) return false;
  if (uses.readers[copy.from].size() != 1 || uses.writers[copy.from].size() != 1) return false;
  const size_t index = uses.writers[copy.from][0];
  Kernel& writer = program.kernels[index];
  const bool done = std::holds_alternative<LoopNest>(writer.body)
                        ? redirect_nest(program, writer, copy)
                        : redirect_contraction(program, writer, copy);
  if (done) uses.update(program, index);
  return done;
}

bool fold_stages(Program& program, Uses& uses, size_t index) {
  auto* nest = std::get_if<LoopNest>(&program.kernels[index].body);
  if (!nest) return false;
  const bool changed =
      std::erase_if(nest->stages, [&](const Stage& stage) {
        const auto copy = as_copy(*nest, stage);
        // A copy of what the nest reads elsewhere too cannot replace it.
        return copy && load_sites(*nest, copy->from) == 1 && fold(program, uses, *copy);
      }) != 0;
  if (changed) uses.update(program, index);
  return changed;
}

}  // namespace

bool fold_output_views(Program& program) {
  bool changed = false;
  Uses uses(program);
  for (size_t i = program.kernels.size(); i-- > 0;) changed |= fold_stages(program, uses, i);
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
