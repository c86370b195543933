// The CPU backend in the suite, once for each code variant.
#include "backends/cpu/device/cpu_features.h"
#include "conformance/engine_runner.h"

namespace kiln::conformance {
namespace {

Backend make_backend(const std::string& variant, const std::string& feature) {
  Backend backend;
  backend.name = "cpu_" + variant;
  backend.unavailable = [feature]() -> std::string {
    return cpu::has_cpu_feature(feature) ? "" : "this CPU lacks " + feature;
  };
  backend.compile = [variant](ir::Graph graph) {
    return compile_and_load(std::move(graph), "cpu", variant);
  };
  return backend;
}

}  // namespace

std::vector<Backend> cpu_backends() {
  return {make_backend("x86-64-v3", "avx2"), make_backend("x86-64-v4", "avx512"),
          make_backend("x86-64-v4-bf16", "avx512bf16")};
}

}  // namespace kiln::conformance
