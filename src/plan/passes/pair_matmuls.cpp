// Two products of the same left operand whose results meet in an epilogue become one: the gated units
// of feed-forward networks, silu(x g) * (x u).
//
// Before: the epilogue of a MatMul loads, for each of its own points, the result of another MatMul at
// that very point. Both multiply the same `a`, with constants that are alike; nobody else reads the
// other result. After: one MatMul with a pair of right operands, which computes both sums: one of the
// results is never stored.
#include "plan/form/kernels.h"
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

}  // namespace

bool pair_matmuls(Program& program) {
  if (!program.traits.paired_products) return false;
  bool changed = false;
  Uses uses(program);
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    const auto other = other_of(program, uses, i);
    if (!other || !pair(program, i, *other)) continue;
    uses.update(program, *other);
    uses.update(program, i);
    changed = true;
  }
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
