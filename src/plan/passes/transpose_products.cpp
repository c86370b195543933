// Products whose rows are neighbours in memory, and whose columns are not, are computed the other way round:
// the transpose of a * b is that of b times that of a. A 1x1 convolution whose image leaves the model channels-first.
//
// Before: results found their places. After: the columns of such a product, which vectors run along, are
// stored in one piece; what was the weight is the left operand, and read where it lies.
#include "plan/passes/transpose_products.h"

#include <utility>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

// Fewer rows are not worth packing the right operand for; with fewer columns a panel is partly empty.
constexpr int64_t kFewestRows = 8, kFewestColumns = 64;

// Whether each load is the same for all values of a loop, or of neighbours.
bool loads_neighbours(const Program& program, const Expr& expr, const Loop& loop) {
  bool result = true;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load) return;
    const auto at = load_indices(node);
    const auto linear =
        at ? linearize(program.buffers[node.buffer].type.shape, *at).as_linear_in(loop.index)
           : std::nullopt;
    result &= linear && (linear->first.is_constant(0) || linear->first.is_constant(1));
  });
  return result;
}

// Other products, of integers for one, take the types of their operands in one order only.
bool has_equal_operands(const Program& program, const MatMul& matmul) {
  const DType a = program.buffers[matmul.a.buffer].type.dtype;
  const Formats& formats = matmul.formats;
  return a == program.buffers[matmul.b.buffer].type.dtype && formats.left == formats.right &&
         is_floating(a) && is_floating(formats.accumulator) &&
         (formats.weight == a || formats.weight == formats.right);
}

void transpose(View& view) {
  std::swap(view.strides.back(), view.strides[view.strides.size() - 2]);
}

}  // namespace

bool gains_by_transpose(const Program& program, const MatMul& matmul) {
  if (!program.traits.results_in_rows || matmul.pair || matmul.groups ||
      !has_equal_operands(program, matmul))
    return false;
  const auto& strides = matmul.out.strides;
  return strides[strides.size() - 2].is_constant(1) && !strides.back().is_constant(1) &&
         matmul.n.extent().at_opt() >= kFewestRows &&
         matmul.m.extent().at_opt() >= kFewestColumns &&
         loads_neighbours(program, matmul.epilogue, matmul.m);
}

bool transpose_products(Program& program) {
  bool changed = false;
  for (Kernel& kernel : program.kernels) {
    auto* matmul = std::get_if<MatMul>(&kernel.body);
    if (!matmul || !gains_by_transpose(program, *matmul)) continue;
    std::swap(matmul->a, matmul->b);
    std::swap(matmul->m, matmul->n);
    for (View* view : {&matmul->a, &matmul->b, &matmul->out}) transpose(*view);
    const Buffer& right = program.buffers[matmul->b.buffer];
    Formats& formats = matmul->formats;
    formats.weight = right.kind == BufferKind::Constant ? right.type.dtype : formats.right;
    changed = true;
  }
  return changed;
}

}  // namespace kiln::plan
