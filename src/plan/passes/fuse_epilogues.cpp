// Pointwise work on the result of a contraction moves into its epilogue: out = f(matmul(a, b)) in
// one kernel.
//
// Before: a contraction whose result is read by one pointwise kernel only, at a bijection of its
// positions (reshapes and permutes between them included). After: the contraction computes and
// stores what the pointwise kernel did, at the pointwise kernel's place in the order, where all
// that it reads is there.
#include <utility>

#include "plan/form/kernels.h"
#include "plan/passes/contraction_result.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

bool fuse(Program& program, size_t producer, size_t consumer) {
  Kernel kernel = program.kernels[producer];
  Expr& epilogue = *epilogue_of(kernel);
  const ContractionResult result = *contraction_result(kernel);
  auto pointwise = as_pointwise(program.kernels[consumer]);
  if (!pointwise || !covers_buffer(program, result)) return false;
  *pointwise = refined(std::move(*pointwise), result.buffer);
  const ir::Type& type = program.buffers[result.buffer].type;
  const auto at = only_load(pointwise->value, result.buffer);
  if (!at) return false;
  const auto map = Bijection::find(linearize(type.shape, *at), pointwise->loops, type.elements());
  if (!map) return false;
  const IndexMap loops = replace_loops(pointwise->loops, map->loops_at(result.offset));
  const Expr value =
      rewrite(substitute(pointwise->value, loops), [&](const ExprNode& node) -> Expr {
        return node.kind == ExprKind::Load && node.buffer == result.buffer ? epilogue : nullptr;
      });
  if (has_checks(value) || !is_small_enough(program.traits, value) ||
      !loads_in_bounds(program, value)) {
    return false;
  }
  if (!epilogue_takes(program, kernel, value)) return false;
  const Indices target = substitute(pointwise->indices, loops);
  if (!redirect(program, kernel, result, pointwise->buffer, target)) return false;
  epilogue = value;
  const Kernel before = std::exchange(program.kernels[producer], Kernel{});
  kernel.name = program.kernels[consumer].name;
  kernel.sources = program.kernels[consumer].sources;
  absorb_name(kernel, before);
  program.kernels[consumer] = std::move(kernel);
  return true;
}

}  // namespace

bool fuse_epilogues(Program& program) {
  if (program.traits.epilogue == EpilogueRule::OwnBias) return false;
  const auto result = [&](size_t i) {
    return epilogue_of(program.kernels[i]) ? writes(program.kernels[i])[0] : BufferId{-1};
  };
  return fuse_with_readers(program, result, [&](size_t producer, size_t reader) {
    return fuse(program, producer, reader);
  });
}

}  // namespace kiln::plan
