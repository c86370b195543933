// The CUDA backend in the suite: the best variant that the GPU of this machine runs, or the one that
// KILN_CUDA_VARIANT names.
#include <cstdlib>
#include <string>

#include "backends/cuda/compile/cuda_backend.h"
#include "backends/cuda/compile/nvrtc.h"
#include "backends/cuda/device/executable.h"
#include "conformance/engine_runner.h"
#include "engine/spec.h"
#include "runtime/devices.h"

namespace kiln::conformance {
namespace {

// What stands against running a variant here; empty: nothing.
std::string obstacle_of(const Variant& variant) {
  static const bool kJoined = runtime::add_device(cuda::kDevice);
  if (!kJoined) return "it is in no table";
  engine::ProgramSpec program;
  program.target = "cuda";
  program.variant = variant.name;
  program.features = variant.features;
  return cuda::kDevice.obstacle(program);
}

const Variant* find_variant() {
  const char* wanted = std::getenv("KILN_CUDA_VARIANT");
  for (const Variant& variant : cuda_backend().variants) {
    const bool counts = wanted == nullptr || variant.name == wanted;
    if (counts && obstacle_of(variant).empty()) return &variant;
  }
  return nullptr;
}

}  // namespace

std::vector<Backend> cuda_backends() {
  Backend backend;
  backend.name = "cuda";
  backend.unavailable = []() -> std::string {
    if (const std::string obstacle = cuda::nvrtc_obstacle(); !obstacle.empty()) return obstacle;
    return find_variant() != nullptr ? "" : obstacle_of(cuda_backend().variants.back());
  };
  backend.compile = [](ir::Graph graph) {
    return compile_and_load(std::move(graph), "cuda", find_variant()->name);
  };
  for (const Gaps& gaps : kGapsOfRuns) add_gaps(gaps, backend.gaps);
  return {backend};
}

}  // namespace kiln::conformance
