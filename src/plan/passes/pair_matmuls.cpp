// Two products of the same left operand whose results meet in an epilogue become one: the gated units
// of feed-forward networks, silu(x g) * (x u).
//
// Before: the epilogue of a MatMul loads, for each of its own points, the result of another MatMul at
// that very point. Both multiply the same `a`, with constants that are alike; nobody else reads the
// other result. After: one MatMul with a pair of right operands, which computes both sums: one of the
// results is never stored.
//
// Both may be one product to begin with, of a weight that holds one operand behind the other: what reads its
// result is a pointwise kernel, for each of its own points a column of one half and that of the other. It
// becomes the epilogue of a MatMul with the halves of the weight as a pair.
#include "plan/form/kernels.h"
#include "plan/passes/contraction_result.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

bool same_view(const View& a, const View& b) {
  return a.buffer == b.buffer && a.offset == b.offset && a.strides == b.strides;
}

bool is_constant(const Program& program, BufferId buffer) {
  return program.buffers[buffer].kind == BufferKind::Constant;
}

// Whether both products multiply the same rows, with constants that are alike.
bool is_pair(const Program& program, const MatMul& first, const MatMul& second) {
  return first.batch.empty() && second.batch.empty() && !first.pair && !second.pair &&
         !first.groups && !second.groups && same_view(first.a, second.a) &&
         first.formats == second.formats && first.m.extent() == second.m.extent() &&
         first.n.extent() == second.n.extent() && first.k.extent() == second.k.extent() &&
         first.b.strides == second.b.strides && is_constant(program, first.b.buffer) &&
         is_constant(program, second.b.buffer) &&
         program.buffers[first.b.buffer].type.dtype == program.buffers[second.b.buffer].type.dtype;
}

Index offset_at(const View& view, const Index& m, const Index& n) {
  return view.offset + view.strides[0] * m + view.strides[1] * n;
}

// The epilogue with the other one's in place of its result, as Accumulator 1; null where it loads that at
// another point.
Expr joined(const Program& program, const MatMul& matmul, const MatMul& other) {
  const ir::Shape& shape = program.buffers[other.out.buffer].type.shape;
  const Index m(matmul.m.index), n(matmul.n.index);
  const Index own = offset_at(other.out, m, n);
  Expr epilogue = substitute(other.epilogue, replace_loops({other.m, other.n}, {m, n}));
  epilogue = rewrite(epilogue, [](const ExprNode& node) -> Expr {
    return node.kind == ExprKind::Accumulator ? accumulator(node.dtype, 1) : nullptr;
  });
  bool matches = true;
  const Expr result = rewrite(matmul.epilogue, [&](const ExprNode& node) -> Expr {
    if (node.kind != ExprKind::Load || node.buffer != other.out.buffer) return nullptr;
    const auto at = load_indices(node);
    matches &= at && !node.predicate && linearize(shape, *at) == own;
    return epilogue;
  });
  return matches ? result : nullptr;
}

// The product whose result a MatMul reads in its epilogue, and nobody else does.
std::optional<size_t> other_of(const Program& program, const Uses& uses, size_t index) {
  const auto* matmul = std::get_if<MatMul>(&program.kernels[index].body);
  if (!matmul) return std::nullopt;
  for (BufferId buffer : loads(matmul->epilogue)) {
    if (program.buffers[buffer].kind != BufferKind::Temporary) continue;
    if (uses.readers[buffer].size() != 1 || uses.writers[buffer].size() != 1) continue;
    const size_t writer = uses.writers[buffer][0];
    const auto* other = std::get_if<MatMul>(&program.kernels[writer].body);
    if (writer < index && other && is_pair(program, *matmul, *other)) return writer;
  }
  return std::nullopt;
}

bool pair(Program& program, size_t index, size_t other_index) {
  auto& matmul = std::get<MatMul>(program.kernels[index].body);
  Kernel& other_kernel = program.kernels[other_index];
  const auto& other = std::get<MatMul>(other_kernel.body);
  const Expr epilogue = joined(program, matmul, other);
  if (!epilogue || !is_small_enough(program.traits, epilogue)) return false;
  matmul.epilogue = epilogue;
  matmul.pair = other.b;
  Kernel& kernel = program.kernels[index];
  kernel.sources.insert(kernel.sources.begin(), other_kernel.sources.begin(),
                        other_kernel.sources.end());
  make_empty(other_kernel);
  return true;
}

// --- Halves of one product ---

// The two positions at which a pointwise kernel loads a result of 2 * `half` columns: the same ones of its
// first half and of its second.
struct Halves {
  Indices first, second;
};
std::optional<Halves> find_halves(const Expr& value, BufferId buffer, const ir::Dim& half) {
  std::vector<Indices> places;
  bool known = true;
  visit(value, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load || node.buffer != buffer) return;
    const auto at = load_indices(node);
    known &= at && !node.predicate;
    if (at && std::ranges::find(places, *at) == places.end()) places.push_back(*at);
  });
  if (!known || places.size() != 2) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    Indices shifted = places[i];
    shifted.back() += half;
    if (shifted == places[1 - i]) return Halves{places[i], places[1 - i]};
  }
  return std::nullopt;
}

// A MatMul whose result is read in halves, with the pointwise kernel that does so as its epilogue; nothing
// where there is no such kernel.
std::optional<Kernel> in_halves(const Program& program, const Kernel& before,
                                const Kernel& consumer) {
  Kernel kernel = before;
  auto* matmul = std::get_if<MatMul>(&kernel.body);
  auto pointwise = as_pointwise(consumer);
  if (!matmul || !pointwise || !matmul->batch.empty() || matmul->pair || matmul->groups ||
      !is_constant(program, matmul->b.buffer) || !matmul->n.extent().is_constant() ||
      matmul->n.extent().constant() % 2 != 0)
    return std::nullopt;
  const BufferId result = matmul->out.buffer;
  const ir::Dim columns = matmul->n.extent(), half(columns.constant() / 2);
  ir::Shape shape = program.buffers[result].type.shape;
  const bool is_dense = covers_buffer(program, *contraction_result(kernel)) && !shape.empty() &&
                        shape.back() == columns && matmul->out.offset.is_constant(0) &&
                        matmul->out.strides[0] == columns && matmul->out.strides[1].is_constant(1);
  if (!is_dense) return std::nullopt;
  *pointwise = refined(std::move(*pointwise), result);
  const auto halves = find_halves(pointwise->value, result, half);
  if (!halves) return std::nullopt;
  shape.back() = half;
  const ir::Dim elements = matmul->m.extent() * half;
  const auto map = Bijection::find(linearize(shape, halves->first), pointwise->loops, elements);
  if (!map) return std::nullopt;

  const Loop n = make_loop("n", half);
  const Index point = Index(matmul->m.index) * half + Index(n.index);
  const IndexMap loops = replace_loops(pointwise->loops, map->loops_at(point));
  const auto epilogue = [&](int32_t of) {
    const Index column = Index(n.index) + half * of;
    return rewrite(substitute(matmul->epilogue, replace_loops({matmul->n}, {column})),
                   [&](const ExprNode& node) -> Expr {
                     return node.kind == ExprKind::Accumulator ? accumulator(node.dtype, of)
                                                               : nullptr;
                   });
  };
  const Expr parts[] = {epilogue(0), epilogue(1)};
  const Expr in_place = rewrite(pointwise->value, [&](const ExprNode& node) -> Expr {
    if (node.kind != ExprKind::Load || node.buffer != result) return nullptr;
    return accumulator(node.dtype, *load_indices(node) == halves->first ? 0 : 1);
  });
  const Expr value = rewrite(substitute(in_place, loops), [&](const ExprNode& node) -> Expr {
    return node.kind == ExprKind::Accumulator ? parts[node.slot] : nullptr;
  });
  if (has_checks(value) || !is_small_enough(program.traits, value) ||
      !loads_in_bounds(program, value))
    return std::nullopt;
  View second = matmul->b;
  second.offset += second.strides[1] * half;
  matmul->n = n;
  matmul->pair = std::move(second);
  matmul->epilogue = value;
  const Indices target = substitute(pointwise->indices, loops);
  if (!epilogue_takes(program, kernel, value) ||
      !redirect(program, kernel, *contraction_result(kernel), pointwise->buffer, target))
    return std::nullopt;
  kernel.name = consumer.name;
  kernel.sources = consumer.sources;
  absorb_name(kernel, before);
  return kernel;
}

// The MatMul takes the place of what reads it.
std::optional<size_t> split(Program& program, const Uses& uses, size_t index) {
  const auto* matmul = std::get_if<MatMul>(&program.kernels[index].body);
  if (!matmul) return std::nullopt;
  const BufferId result = matmul->out.buffer;
  const bool is_private = program.buffers[result].kind == BufferKind::Temporary &&
                          uses.readers[result].size() == 1 && uses.writers[result].size() == 1;
  if (!is_private) return std::nullopt;
  const size_t reader = uses.readers[result][0];
  auto kernel = in_halves(program, program.kernels[index], program.kernels[reader]);
  if (!kernel) return std::nullopt;
  program.kernels[reader] = std::move(*kernel);
  make_empty(program.kernels[index]);
  return reader;
}

}  // namespace

bool pair_matmuls(Program& program) {
  if (!program.traits.paired_products) return false;
  bool changed = false;
  Uses uses(program);
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    auto other = other_of(program, uses, i);
    if (other && !pair(program, i, *other)) other.reset();
    if (!other) other = split(program, uses, i);
    if (!other) continue;
    uses.update(program, *other);
    uses.update(program, i);
    changed = true;
  }
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
