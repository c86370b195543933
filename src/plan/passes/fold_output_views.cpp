// A kernel whose result is only copied elsewhere stores it there: permutes and reshapes of results,
// and the operands of concatenations, cost nothing.
//
// Before: buffer t is written by one kernel, and read by one Store of another kernel whose value is
// a plain load of t at a bijection of its positions. After: the writer of t stores to the target of
// the copy; the copy and t are gone. Others that read t may do so where it is copied to, a cache that is
// a result too: loop nests and attention, whose operands need no place of a certain kind. The rows of a product
// are cut for that where transpose_products takes it.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/passes/contraction_result.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"
#include "plan/passes/transpose_products.h"

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

// The strides of a view whose loop `axis` is two now, of which the inner one has `extent` values.
void split_axis(View& view, size_t axis, const ir::Dim& extent) {
  const auto at = view.strides.begin() + static_cast<std::ptrdiff_t>(axis);
  view.strides.insert(at, *at * extent);
}

// The rows of a product cut where the offset `target` divides them, images of a batch: those of each are a product of their own.
std::optional<Kernel> with_split_rows(const Kernel& kernel, const ContractionResult& result,
                                      const Index& target) {
  Kernel copy = kernel;
  auto* matmul = std::get_if<MatMul>(&copy.body);
  if (!matmul || matmul->pair || matmul->groups) return std::nullopt;
  const size_t axis = matmul->batch.size();
  const RefinedLoops fine = refine_loops(result.loops, {target});
  const bool is_split = fine.loops.size() == axis + 3 &&
                        fine.values[axis].mentions(fine.loops[axis].index) &&
                        fine.values[axis].mentions(fine.loops[axis + 1].index);
  if (!is_split) return std::nullopt;
  const Loop &outer = fine.loops[axis], &inner = fine.loops[axis + 1];
  split_axis(matmul->a, axis, inner.extent());
  split_axis(matmul->out, axis, inner.extent());
  auto& strides = matmul->b.strides;
  strides.insert(strides.begin() + static_cast<std::ptrdiff_t>(axis), ir::Dim(0));
  const IndexMap map = replace_loops(result.loops, fine.values);
  matmul->epilogue = substitute(matmul->epilogue, map);
  for (size_t i = 0; i < axis; ++i) matmul->batch[i] = fine.loops[i];
  matmul->batch.push_back(outer);
  matmul->m = inner;
  matmul->n = fine.loops.back();
  return copy;
}

bool redirect_contraction(const Program& program, Kernel& kernel, const Copy& copy) {
  const ContractionResult result = *contraction_result(kernel);
  if (!covers_buffer(program, result)) return false;
  const auto target = destination(program, copy, result.offset);
  if (!target) return false;
  if (redirect(program, kernel, result, copy.to, *target)) return true;
  const ir::Shape& shape = program.buffers[copy.to].type.shape;
  auto split = with_split_rows(kernel, result, linearize(shape, *target));
  if (!split) return false;
  const ContractionResult rows = *contraction_result(*split);
  const auto place = destination(program, copy, rows.offset);
  if (!place || !redirect(program, *split, rows, copy.to, *place) ||
      !gains_by_transpose(program, std::get<MatMul>(split->body)))
    return false;
  kernel = std::move(*split);
  return true;
}

// The same elements in the same order.
bool redirect_custom(const Program& program, Custom& custom, const Copy& copy) {
  const Loop element = make_loop("element", program.buffers[copy.from].type.elements());
  const auto target = destination(program, copy, Index(element.index));
  if (!target || !(linearize(program.buffers[copy.to].type.shape, *target) == Index(element.index)))
    return false;
  for (Custom::Tensor& output : custom.outputs)
    if (output.buffer == copy.from) output.buffer = copy.to;
  return true;
}

bool redirect_writer(const Program& program, Kernel& writer, const Copy& copy) {
  if (auto* custom = std::get_if<Custom>(&writer.body))
    return redirect_custom(program, *custom, copy);
  if (std::holds_alternative<LoopNest>(writer.body)) return redirect_nest(program, writer, copy);
  return redirect_contraction(program, writer, copy);
}

// --- Others that read the copied buffer ---

bool redirect_view(const Program& program, View& view, const std::vector<Loop>& loops,
                   const Copy& copy) {
  if (view.buffer != copy.from) return true;
  Index offset = view.offset;
  for (size_t i = 0; i < loops.size(); ++i) offset += view.strides[i] * Index(loops[i].index);
  const auto target = destination(program, copy, offset);
  if (!target) return false;
  auto affine = as_affine(linearize(program.buffers[copy.to].type.shape, *target), loops);
  if (!affine) return false;
  view = {copy.to, std::move(affine->base), std::move(affine->strides)};
  return true;
}

bool redirect_loads(const Program& program, Kernel& kernel, const Copy& copy) {
  bool possible = true;
  const ir::Shape& shape = program.buffers[copy.from].type.shape;
  transform_exprs(kernel, [&](const Expr& expr) {
    return rewrite(expr, [&](const ExprNode& node) -> Expr {
      if (node.kind != ExprKind::Load || node.buffer != copy.from) return nullptr;
      const auto at = load_indices(node);
      const auto target = at ? destination(program, copy, linearize(shape, *at)) : std::nullopt;
      possible &= target.has_value();
      return target ? load_at(copy.to, node.dtype, *target, node.predicate) : nullptr;
    });
  });
  if (!possible) return false;
  for_each_expr(kernel, [&](const Expr& expr) { possible &= loads_in_bounds(program, expr); });
  return possible;
}

bool redirect_reader(const Program& program, Kernel& kernel, const Copy& copy) {
  if (auto* a = std::get_if<Attention>(&kernel.body)) {
    const Loop d = make_loop("d", a->head_dim), e = make_loop("e", a->value_dim);
    const bool views = redirect_view(program, a->q, with_loops(a->batch, {a->i, d}), copy) &&
                       redirect_view(program, a->k, with_loops(a->batch, {a->j, d}), copy) &&
                       redirect_view(program, a->v, with_loops(a->batch, {a->j, e}), copy);
    if (!views) return false;
  }
  const std::vector<BufferId> left = operands(kernel);
  return std::ranges::find(left, copy.from) == left.end() && redirect_loads(program, kernel, copy);
}

// All of those that read or write the buffer, but for the kernel `copier`.
bool redirect_all(Program& program, Uses& uses, size_t copier, const Copy& copy) {
  std::vector<size_t> users = uses.readers[copy.from];
  std::erase(users, copier);
  const size_t writer = uses.writers[copy.from][0];
  std::vector<Kernel> before;
  for (size_t user : users) before.push_back(program.kernels[user]);
  const Kernel writer_before = program.kernels[writer];
  bool done = redirect_writer(program, program.kernels[writer], copy);
  for (size_t i = 0; i < users.size() && done; ++i)
    done = redirect_reader(program, program.kernels[users[i]], copy);
  if (!done) {
    for (size_t i = 0; i < users.size(); ++i) program.kernels[users[i]] = before[i];
    program.kernels[writer] = writer_before;
    return false;
  }
  uses.update(program, writer);
  for (size_t user : users) uses.update(program, user);
  return true;
}

// The copy is a stage of the kernel `copier`, which is to be removed.
bool fold(Program& program, Uses& uses, size_t copier, const Copy& copy) {
  if (program.buffers[copy.from].kind != BufferKind::Temporary) return false;
  if (uses.writers[copy.from].size() != 1) return false;
  const size_t writer = uses.writers[copy.from][0];
  if (uses.readers[copy.from].size() > 1) {
    // Nobody may have read the target before it is written.
    const bool whole =
        program.buffers[copy.to].type.elements() == program.buffers[copy.from].type.elements();
    return whole && uses.readers[copy.to].empty() && writer < copier &&
           redirect_all(program, uses, copier, copy);
  }
  const bool done = redirect_writer(program, program.kernels[writer], copy);
  if (done) uses.update(program, writer);
  return done;
}

bool fold_stages(Program& program, Uses& uses, size_t index) {
  auto* nest = std::get_if<LoopNest>(&program.kernels[index].body);
  if (!nest) return false;
  const bool changed =
      std::erase_if(nest->stages, [&](const Stage& stage) {
        const auto copy = as_copy(*nest, stage);
        // A copy of what the nest reads elsewhere too cannot replace it.
        return copy && load_sites(*nest, copy->from) == 1 && fold(program, uses, index, *copy);
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
