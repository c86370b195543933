// Convolutions of 3x3 that Winograd's algorithm computes in less time than the sum as it is written, by
// the costs that the target states for it.
#include "plan/form/winograd_costs.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

// Transformed filters are f32, so that those of 16 bits grow twice as much. In a network, where they come from memory,
// tiles that need fewer of them take no longer.
constexpr int64_t kNarrowWeightFactor = 3;

WinogradCosts costs_of(const Program& program, const Convolution& convolution,
                       WinogradCosts costs) {
  if (is_16_bit_float(program.buffers[convolution.weight].type.dtype))
    costs.weight *= kNarrowWeightFactor;
  return costs;
}

}  // namespace

bool choose_winograd(Program& program) {
  const auto& costs = program.traits.winograd;
  if (!costs) return false;
  bool changed = false;
  for (Kernel& kernel : program.kernels) {
    auto* convolution = std::get_if<Convolution>(&kernel.body);
    if (!convolution || convolution->winograd != 0 || !allows_winograd(program, *convolution))
      continue;
    convolution->winograd =
        best_winograd_tile(*convolution, costs_of(program, *convolution, *costs));
    changed |= convolution->winograd != 0;
  }
  return changed;
}

}  // namespace kiln::plan
