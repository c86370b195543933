#include "backends/cuda/device/loaded_program.h"

#include <algorithm>
#include <map>
#include <utility>

#include "backends/cuda/call.h"
#include "backends/cuda/device/upload.h"
#include "support/aligned_buffer.h"

namespace kiln::cuda {

using engine::BufferKind;
using engine::BufferSpec;
using engine::KernelSpec;

namespace {

// The GPU was found to be of the right generation before: what is left is the driver.
Status refused_code(api::CUresult result, const std::string& kernel, const Gpu& gpu) {
  int version = 0;
  const char* error = nullptr;
  driver().cuDriverGetVersion(&version);
  driver().cuGetErrorName(result, &error);
  const std::string major = std::to_string(version / 1000);
  return Status(StatusCode::Unsupported,
                "[cuda] the driver, for CUDA " + major + "." + std::to_string(version % 1000 / 10) +
                    ", does not take the code of " + kernel + " on " + gpu.str() + ": " +
                    (error == nullptr ? std::to_string(result) : error) +
                    "; where the code was made by a newer CUDA, update the driver, or compile with "
                    "the NVRTC of CUDA " +
                    major);
}

// Whether the driver may read PTX from there: it goes on until a zero byte.
bool ends(std::span<const std::byte> text) {
  return std::ranges::find(text, std::byte{0}) != text.end();
}

bool is_ptx(const engine::ProgramSpec& program) {
  return std::ranges::any_of(program.features, [](const std::string& feature) {
    return feature.starts_with(kPtxFeaturePrefix);
  });
}

bool is_refusal(api::CUresult result) {
  return result == api::kInvalidImage || result == api::kNoBinaryForGpu ||
         result == api::kInvalidPtx || result == api::kNoJitCompiler ||
         result == api::kUnsupportedPtx || result == api::kJitDisabled;
}

}  // namespace

Result<std::unique_ptr<LoadedProgram>> LoadedProgram::load(const engine::ProgramSpec& program,
                                                           std::span<const std::byte> weights,
                                                           const Gpu& gpu, uint64_t budget) {
  std::unique_ptr<LoadedProgram> loaded(new LoadedProgram(program, gpu));
  const CurrentContext current(gpu);
  const OutsideCapture outside;
  KILN_RETURN_IF_ERROR(loaded->load_kernels());
  const std::vector<WeightPlace> streamed = choose_streamed(program, budget);
  loaded->stream_plan_ = StreamPlan::make(program, streamed);
  KILN_RETURN_IF_ERROR(loaded->load_streamed(streamed, weights));
  KILN_RETURN_IF_ERROR(loaded->load_constants(weights));
  return loaded;
}

LoadedProgram::~LoadedProgram() {
  const CurrentContext current(gpu_);
  // Runs may be on their way still: memory is freed and code unloaded behind them.
  if (memory_ != 0 || !modules_.empty()) driver().cuCtxSynchronize();
  if (memory_ != 0) driver().cuMemFree_v2(memory_);
  if (pinned_ != nullptr) driver().cuMemFreeHost(pinned_);
  for (api::CUmodule module : modules_) driver().cuModuleUnload(module);
}

Status LoadedProgram::load_kernels() {
  functions_.resize(spec_.kernels.size(), nullptr);
  for (const engine::StepSpec& step : spec_.steps) {
    const auto kernel = static_cast<size_t>(step.kernel);
    if (step.kind == engine::StepKind::Launch && functions_[kernel] == nullptr)
      KILN_RETURN_IF_ERROR(load_kernel(kernel));
  }
  return Status();
}

Status LoadedProgram::load_kernel(size_t index) {
  const KernelSpec& kernel = spec_.kernels[index];
  if (kernel.entry >= spec_.code.size())
    return Status(StatusCode::InvalidEngine,
                  "damaged engine: kernel " + kernel.name + " is launched and has no code");
  const std::span<const std::byte> code = spec_.code.subspan(kernel.entry);
  if (is_ptx(spec_) && !ends(code))
    return Status(StatusCode::InvalidEngine,
                  "damaged engine: the code of kernel " + kernel.name + " has no end");
  api::CUmodule module = nullptr;
  const api::CUresult loaded = driver().cuModuleLoadData(&module, code.data());
  if (is_refusal(loaded)) return refused_code(loaded, kernel.name, gpu_);
  KILN_RETURN_IF_CUDA_ERROR(loaded, "loading the code of " + kernel.name + " on " + gpu_.str());
  modules_.push_back(module);
  KILN_RETURN_IF_CUDA_ERROR(
      driver().cuModuleGetFunction(&functions_[index], module, kernel.function.c_str()),
      "finding \"" + kernel.function + "\" in the code of " + kernel.name);
  return Status();
}

Status LoadedProgram::load_streamed(std::span<const WeightPlace> places,
                                    std::span<const std::byte> weights) {
  uint64_t size = 0;
  for (const WeightPlace& place : places) size += align_up(place.second, kConstantAlignment);
  if (size == 0) return Status();
  KILN_RETURN_IF_CUDA_ERROR(driver().cuMemHostAlloc(&pinned_, size, api::kHostPortable),
                            "allocating " + std::to_string(size) +
                                " bytes of pinned memory for weights that are streamed");
  auto* to = static_cast<std::byte*>(pinned_);
  for (const WeightPlace& place : places) {
    copy_on_host(to, weights.subspan(place.first, place.second));
    streamed_[place] = to;
    to += align_up(place.second, kConstantAlignment);
  }
  return Status();
}

Status LoadedProgram::load_constants(std::span<const std::byte> weights) {
  // By place in the file: buffers that share one share it here.
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> offsets;
  const auto is_on_gpu = [&](const BufferSpec& buffer) {
    return buffer.kind == BufferKind::Constant &&
           !streamed_.contains({buffer.offset, buffer.constant_bytes});
  };
  uint64_t size = 0;
  for (const BufferSpec& buffer : spec_.buffers) {
    if (!is_on_gpu(buffer)) continue;
    const auto [place, added] = offsets.insert({{buffer.offset, buffer.constant_bytes}, size});
    if (added) size += align_up(buffer.constant_bytes, kConstantAlignment);
  }
  constants_.resize(spec_.buffers.size(), 0);
  if (size == 0) return Status();
  KILN_RETURN_IF_CUDA_ERROR(
      driver().cuMemAlloc_v2(&memory_, size),
      "allocating " + std::to_string(size) + " bytes for weights on " + gpu_.str());
  std::vector<Upload> uploads;
  for (const auto& [place, offset] : offsets)
    uploads.push_back({weights.subspan(place.first, place.second), memory_ + offset});
  for (size_t i = 0; i < constants_.size(); ++i)
    if (const BufferSpec& buffer = spec_.buffers[i]; is_on_gpu(buffer))
      constants_[i] = memory_ + offsets.at({buffer.offset, buffer.constant_bytes});
  return upload(uploads);
}

}  // namespace kiln::cuda
