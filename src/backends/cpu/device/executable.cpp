#include "backends/cpu/device/executable.h"

#include <algorithm>

#include "backends/cpu/device/bound_program.h"
#include "backends/cpu/device/code_image.h"
#include "backends/cpu/device/cpu_features.h"
#include "backends/cpu/device/custom_kernels.h"
#include "backends/cpu/device/made_constants.h"

namespace kiln::cpu {
namespace {

class CpuExecutable : public Executable {
 public:
  CpuExecutable(const LoadRequest& request, CodeImage code, MadeConstants made)
      : program_(*request.program),
        weights_(request.weights),
        code_(std::move(code)),
        made_(std::move(made)) {}

  Result<std::unique_ptr<BoundProgram>> bind(const BindRequest& request) const override {
    return bind_program({program_, weights_, code_.data(), made_}, request);
  }

  Status find_functions() const override {
    for (const engine::StepSpec& step : program_.steps) {
      if (step.kind != engine::StepKind::Call) continue;
      const std::string name =
          engine::called_kernel(program_.kernels[static_cast<size_t>(step.kernel)].function);
      if (!find_kernel(name)) return missing_kernel(name);
    }
    return Status();
  }

 private:
  const engine::ProgramSpec& program_;
  const std::span<const std::byte> weights_;
  const CodeImage code_;
  const MadeConstants made_;
};

bool needs(const engine::ProgramSpec& program, const char* feature) {
  return std::ranges::find(program.features, feature) != program.features.end();
}

// What multiplies pairs of bf16 by vectors alone.
bool runs_slowly(const engine::ProgramSpec& program) {
  return needs(program, "avx512bf16") && !needs(program, "amxtile") && !has_quick_bf16_pairs();
}

std::string obstacle(const engine::ProgramSpec& program) {
  std::string missing;
  for (const std::string& name : program.features) {
    const CpuFeature* feature = find_cpu_feature(name);
    if (feature == nullptr)
      return "it needs \"" + name + "\", which this version of Kiln does not know";
    if (!feature->present) missing += (missing.empty() ? "" : " ") + name;
  }
  if (!missing.empty()) return "this CPU lacks " + missing;
  if (needs(program, "amxtile") && !allow_tiles())
    return "the operating system does not let this process use AMX";
  return "";
}

Status check_steps(const engine::ProgramSpec& program) {
  const bool has_calls = program.version > engine::kRepeatProgramVersion;
  for (size_t i = 0; i < program.steps.size(); ++i)
    if (program.steps[i].kind != engine::StepKind::Tasks &&
        (program.steps[i].kind != engine::StepKind::Call || !has_calls))
      return Status(StatusCode::Unsupported, "step " + std::to_string(i) +
                                                 " is a launch or a call, expected tasks: they are "
                                                 "all that a CPU runs");
  return Status();
}

Result<std::unique_ptr<Executable>> load(const LoadRequest& request) {
  const engine::ProgramSpec& program = *request.program;
  KILN_RETURN_IF_ERROR(check_steps(program));
  Result<CodeImage> code =
      request.is_mapped ? CodeImage::in_place(program.code) : CodeImage::copy(program.code);
  if (!code.ok() && request.is_mapped) code = CodeImage::copy(program.code);
  if (!code.ok()) return code.status();
  Result<MadeConstants> made = MadeConstants::make(program, request.weights, request.is_mapped);
  if (!made.ok()) return made.status();
  return std::unique_ptr<Executable>(
      new CpuExecutable(request, std::move(*code), std::move(*made)));
}

}  // namespace

const Device kDevice = {.target = "cpu",
                        .memory = &kHostMemory,
                        .obstacle = obstacle,
                        .load = load,
                        .runs_slowly = runs_slowly};

}  // namespace kiln::cpu
