#include "backends/cuda/compile/generate.h"

#include <variant>

#include "backends/cuda/compile/contract/attention.h"
#include "backends/cuda/compile/contract/convolution.h"
#include "backends/cuda/compile/contract/matmul.h"
#include "support/error.h"

namespace kiln::cuda {
namespace {

std::string text_of(KernelContext& context, const plan::LoopNest& nest) {
  return loop_nest_text(context, nest);
}

std::string text_of(KernelContext& context, const plan::MatMul& matmul) {
  return matmul_text(context, matmul);
}

std::string text_of(KernelContext& context, const plan::Convolution& convolution) {
  return convolution_text(context, convolution);
}

std::string text_of(KernelContext& context, const plan::Attention& attention) {
  return attention_text(context, attention);
}

std::string text_of(KernelContext& context, const plan::Sort& sort) {
  return sort_text(context, sort);
}

std::string text_of(KernelContext& context, const plan::Scatter& scatter) {
  return scatter_text(context, scatter);
}

std::string text_of(KernelContext&, const plan::Custom& custom) {
  throw CompileError("[" + custom.kernel +
                     "] got a kernel of the user's own, expected Kiln's own: custom kernels run on "
                     "CPUs");
}

}  // namespace

const std::vector<Target>& all_targets() {
  // PTX is for GPUs that nobody knows yet: kernels have no more shared memory than all have, and no
  // instructions of one generation alone, which is what those for sm_89 are.
  static const std::vector<Target> kTargets = {{"sm_90", "sm_90a", 90},
                                               {"sm_89", "sm_89", 89},
                                               {"sm_86", "sm_86", 86},
                                               {"sm_80", "sm_80", 80},
                                               {"compute_90", "compute_90", 89, true}};
  return kTargets;
}

KernelText generate_text(const plan::Program& program, const plan::Kernel& kernel,
                         const Target& target, size_t way) {
  KernelText result{backend::GeneratedKernel(program), {}};
  result.kernel.kind = engine::StepKind::Launch;
  result.kernel.function = "kernel";
  KernelContext context{program, target, result.kernel, way};
  result.text = std::visit([&](const auto& body) { return text_of(context, body); }, kernel.body);
  result.ways = context.ways;
  return result;
}

}  // namespace kiln::cuda
