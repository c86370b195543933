// A max pooling of the results of a convolution moves into it: the results are never stored.
//
// Before: a convolution whose result is read by one nest only, the max pooling that lower_pool makes. After: the
// convolution with that pool, at the nest's place in the order. Pointwise work between the two is part of the
// epilogue by then.
#include <limits>
#include <utility>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

using ir::Op;

// One axis of a pooling: out[at] = max over tap < size of in[at * stride + tap - pad].
struct Axis {
  Loop at;
  Index tap = 0;
  int64_t size = 1, stride = 1, pad = 0;

  Index index() const { return Index(at.index) * stride + tap - pad; }
};

std::optional<int64_t> take_factor(Index& index, const Loop& loop) {
  const auto linear = index.as_linear_in(loop.index);
  if (!linear || !linear->first.is_constant()) return std::nullopt;
  index = linear->second;
  return linear->first.constant();
}

// The axis that an index of the load goes along; what has one element has no loop, nor does a window of one.
std::optional<Axis> axis_of(Index index, const Index& stored, const LoopNest& nest,
                            const Reduction& reduction) {
  Axis axis{make_loop("p", 1)};
  for (const Loop& loop : nest.outer) {
    if (!(stored == Index(loop.index))) continue;
    const auto stride = take_factor(index, loop);
    if (!stride) return std::nullopt;
    axis.at = loop;
    axis.stride = *stride;
  }
  for (const Loop& loop : reduction.loops) {
    Index rest = index;
    const auto factor = take_factor(rest, loop);
    if (!factor || *factor == 0) continue;
    if (*factor != 1 || axis.size != 1 || !loop.extent().is_constant()) return std::nullopt;
    axis.tap = Index(loop.index);
    axis.size = loop.extent().constant();
    index = rest;
  }
  if (!index.is_constant()) return std::nullopt;
  axis.pad = -index.constant();
  return axis;
}

struct Pooling {
  BufferId from = -1, to = -1;
  Axis y, x;
};

Expr inside(const Axis& axis, const ir::Dim& size) {
  return logical_and(apply(Op::ge, {position(axis.index()), position(0)}),
                     apply(Op::lt, {position(axis.index()), position(size)}));
}

// Whether a reduction takes what lower_pool lets it take.
bool is_window(const Expr& value, const ExprNode& load, const Indices& at, const ir::Shape& shape,
               const Axis& y, const Axis& x) {
  const Expr within = logical_and(inside(y, shape[1]), inside(x, shape[2]));
  Expr expected = load_at(load.buffer, load.dtype, {at[0], y.index(), x.index(), at[3]}, within);
  expected = apply(Op::where, {within, std::move(expected),
                               constant(load.dtype, -std::numeric_limits<double>::infinity())});
  return to_string(expected) == to_string(value);
}

std::optional<Pooling> pooling_of(const Program& program, const Kernel& kernel) {
  const auto* nest = std::get_if<LoopNest>(&kernel.body);
  if (!nest || nest->stages.size() != 2) return std::nullopt;
  const auto* reduction = std::get_if<Reduction>(&nest->stages[0]);
  const auto* store = std::get_if<Store>(&nest->stages[1]);
  if (!reduction || !store || reduction->op != ReduceOp::Max || store->scan ||
      !store->loops.empty() || store->value->kind != ExprKind::Reduced ||
      store->indices.size() != 4 || !is_floating(reduction->value->dtype))
    return std::nullopt;
  const ExprNode* load = nullptr;
  visit(reduction->value, [&](const ExprNode& node) {
    if (node.kind == ExprKind::Load) load = &node;
  });
  const auto at = load ? load_indices(*load) : std::nullopt;
  if (!at || at->size() != 4 || !(at->front() == store->indices[0]) ||
      !(at->back() == store->indices[3]))
    return std::nullopt;
  const auto y = axis_of((*at)[1], store->indices[1], *nest, *reduction);
  const auto x = axis_of((*at)[2], store->indices[2], *nest, *reduction);
  const ir::Shape& shape = program.buffers[load->buffer].type.shape;
  if (!y || !x || !is_window(reduction->value, *load, *at, shape, *y, *x)) return std::nullopt;
  return Pooling{load->buffer, store->buffer, *y, *x};
}

// Whether the loops of a pooling cover its result, and its operand is the convolution's result as it is.
bool fits(const Program& program, const Convolution& c, const Pooling& pooling) {
  const ir::Shape results = {c.b.extent(), c.y.extent(), c.x.extent(), c.o.extent()};
  const ir::Shape pooled = {c.b.extent(), pooling.y.at.extent(), pooling.x.at.extent(),
                            c.o.extent()};
  return program.buffers[pooling.from].type.shape == results &&
         program.buffers[pooling.to].type.shape == pooled;
}

bool pool(Program& program, Uses& uses, size_t index) {
  const auto pooling = pooling_of(program, program.kernels[index]);
  if (!pooling || program.buffers[pooling->from].kind != BufferKind::Temporary ||
      uses.readers[pooling->from].size() != 1 || uses.writers[pooling->from].size() != 1)
    return false;
  const size_t writer = uses.writers[pooling->from][0];
  Kernel kernel = program.kernels[writer];
  auto* c = std::get_if<Convolution>(&kernel.body);
  if (!c || c->pool || !fits(program, *c, *pooling)) return false;
  const Axis &y = pooling->y, &x = pooling->x;
  c->pool = Pool{y.at, x.at, y.size, x.size, y.stride, x.stride, y.pad, x.pad};
  c->out = pooling->to;
  if (!allows_pool(program, *c, *c->pool)) return false;
  kernel.name = program.kernels[index].name;
  kernel.sources = program.kernels[index].sources;
  absorb_name(kernel, program.kernels[writer]);
  make_empty(program.kernels[writer]);
  program.kernels[index] = std::move(kernel);
  uses.update(program, writer);
  uses.update(program, index);
  return true;
}

}  // namespace

bool pool_convolutions(Program& program) {
  if (!program.traits.pooled_convolutions) return false;
  bool changed = false;
  Uses uses(program);
  for (size_t i = 0; i < program.kernels.size(); ++i) changed |= pool(program, uses, i);
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
