#include "cuda/kernels.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <regex>
#include <stdexcept>

#include "backends/common/distinct_kernels.h"
#include "backends/cuda/compile/cuda_backend.h"
#include "backends/cuda/compile/nvrtc.h"
#include "compiler/backends.h"
#include "compiler/stages.h"

namespace kiln::test {
namespace {

std::string find_problem(const std::string& text, const cuda::Target& target);

// NVRTC takes minutes for all of them. Those of one major number have the same registers, and so have those after Hopper:
// unless KILN_TEST_EVERY_GENERATION is set, a text is compiled for one of each kind.
bool of_every_generation() {
  static const bool set = std::getenv("KILN_TEST_EVERY_GENERATION") != nullptr;
  return set;
}

// It is portable, and so is what it is made of: it compiles for generations that came later.
std::string find_problem_of_ptx(const std::string& text, const cuda::Target& target) {
  const cuda::Compiled compiled = cuda::compile_text(text, target);
  if (!compiled.log.empty()) return compiled.log;
  const std::string_view ptx(reinterpret_cast<const char*>(compiled.code.data()),
                             compiled.code.size());
  if (ptx.find('\0') != ptx.size() - 1) return "the text does not end with a zero byte";
  if (ptx.find(".target sm_90\n") == ptx.npos) return "the text is not for all from sm_90 on";
  for (const auto& [later, always] : {std::pair{"sm_120", true}, {"sm_100", false}}) {
    if (!always && !of_every_generation()) continue;
    const cuda::Target real = {later, later, target.sm};
    if (const std::string problem = find_problem(text, real); !problem.empty())
      return std::string(later) + ": " + problem;
  }
  return "";
}

std::string find_problem(const std::string& text, const cuda::Target& target) {
  try {
    if (target.is_ptx) return find_problem_of_ptx(text, target);
    const cuda::Compiled compiled = cuda::compile_text(text, target, true);
    if (compiled.code.empty()) return "the code is empty";
    static const std::regex kBad("warning|[1-9][0-9]* bytes spill|C75[0-9][0-9]");
    if (std::regex_search(compiled.log, kBad)) return compiled.log;
    // An array whose index is not known at compile time: the reduction of large angles has one.
    static const std::regex kStack("[1-9][0-9]* bytes stack");
    static const std::regex kAngles("= op_(sin|cos|tan)\\(");
    const bool angles = std::regex_search(text, kAngles);
    return !angles && std::regex_search(compiled.log, kStack) ? compiled.log : "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

plan::Program plan_for(const char* target, ir::Graph graph, uint8_t tf32 = 0,
                       const std::vector<std::string>& variants = {}) {
  CompileOptions options;
  options.targets = {{target, variants}};
  options.verify_passes = true;
  options.tf32 = tf32;
  return std::move(plan_graph(std::move(graph), options).front().program);
}

// A backend of the same traits but for the forms.
const char* add_nests() {
  static const plan::TargetTraits kTraits = [] {
    plan::TargetTraits traits = cuda_backend().traits;
    traits.matmul = traits.convolution = traits.attention = {};
    return traits;
  }();
  const Backend& cuda = cuda_backend();
  static const Backend kNests = {"cuda nests",        kTraits,          cuda.variants,
                                 cuda.make_generator, cuda.run_workers, cuda.derive_constant,
                                 cuda.toolchain};
  add_backend(kNests);
  return "cuda nests";
}

}  // namespace

plan::Program plan_for_cuda(ir::Graph graph, uint8_t tf32, const std::string& variant) {
  std::vector<std::string> variants;
  if (!variant.empty()) variants = {variant};
  return plan_for("cuda", std::move(graph), tf32, variants);
}

plan::Program plan_nests(ir::Graph graph) {
  static const char* const kTarget = add_nests();
  return plan_for(kTarget, std::move(graph));
}

std::vector<cuda::KernelText> kernel_texts(const plan::Program& program,
                                           const cuda::Target& target) {
  std::vector<cuda::KernelText> result;
  const backend::DistinctKernels kernels(program);
  for (const auto& code : kernels.codes) {
    cuda::KernelText made = cuda::generate_text(program, *code.kernel, target);
    if (!made.text.empty()) result.push_back(std::move(made));
  }
  return result;
}

const cuda::Target& target_named(const std::string& name) {
  const auto found = std::ranges::find_if(
      cuda::all_targets(), [&](const cuda::Target& target) { return target.name == name; });
  if (found == cuda::all_targets().end()) throw std::runtime_error("there is no target " + name);
  return *found;
}

std::string problem_of(const std::string& text, const cuda::Target& target) {
  struct Known {
    int sm;  // the oldest generation that it was compiled for
    std::string problem;
  };
  static std::map<std::pair<std::string, std::string>, Known> known;
  std::string kind = target.name;
  if (!target.is_ptx && !of_every_generation()) kind = "major " + std::to_string(target.sm / 10);
  const auto [it, fresh] = known.try_emplace({kind, text}, Known{target.sm, ""});
  if (fresh || target.sm < it->second.sm) it->second = {target.sm, find_problem(text, target)};
  return it->second.problem;
}

}  // namespace kiln::test
