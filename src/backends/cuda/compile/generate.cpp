#include "backends/cuda/compile/generate.h"

#include <variant>

#include "support/error.h"

namespace kiln::cuda {
namespace {

std::string text_of(KernelContext& context, const plan::LoopNest& nest) {
  return loop_nest_text(context, nest);
}

// The traits of the backend ask for loop nests alone.
template <typename Form>
std::string text_of(KernelContext& /*context*/, const Form& /*form*/) {
  throw InternalError("[cuda] there is no code for contractions");
}

}  // namespace

const std::vector<Target>& all_targets() {
  static const std::vector<Target> kTargets = {{"sm_90", "sm_90a", 90},
                                               {"sm_89", "sm_89", 89},
                                               {"sm_86", "sm_86", 86},
                                               {"sm_80", "sm_80", 80}};
  return kTargets;
}

KernelText generate_text(const plan::Program& program, const plan::Kernel& kernel,
                         const Target& target) {
  KernelText result{backend::GeneratedKernel(program), {}};
  result.kernel.kind = engine::StepKind::Launch;
  result.kernel.function = "kernel";
  KernelContext context{program, target, result.kernel};
  result.text = std::visit([&](const auto& body) { return text_of(context, body); }, kernel.body);
  return result;
}

}  // namespace kiln::cuda
