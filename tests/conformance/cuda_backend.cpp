// The CUDA backend in the suite: the best variant that the GPU of this machine runs, or the one that
// KILN_CUDA_VARIANT names.
#include <cstdlib>
#include <sstream>
#include <string>

#include "backends/cuda/compile/cuda_backend.h"
#include "backends/cuda/compile/nvrtc.h"
#include "backends/cuda/device/executable.h"
#include "conformance/engine_runner.h"
#include "engine/spec.h"
#include "runtime/devices.h"

namespace kiln::conformance {
namespace {

constexpr const char* kWaiting =
    "data_size_select_f32 data_size_select_f16 data_size_select_i64 data_size_none_f32 "
    "data_size_all_f32 data_size_products_f32 data_size_products_bf16 "
    "data_size_products_f64 data_size_moves_f32 data_size_moves_i64 "
    "data_size_attention_f32 data_size_two_f32 data_size_chain_f32 data_size_chain_i64 "
    "data_size_state_f32 data_size_item_i64 data_size_item_i32 data_size_alone_f32 "
    "data_size_sorted_f32 "
    "data_size_masked_f32 data_size_masked_u8";

constexpr const char* kRepeating =
    "repeat_count_f32 repeat_count_f64 repeat_count_f16 repeat_count_bf16 "
    "repeat_count_i32 repeat_count_i64 repeat_never_f32 repeat_swaps_f32 "
    "repeat_swaps_i64 repeat_rows_f32 repeat_rows_f16 repeat_rows_i8 repeat_rows_bool "
    "repeat_nested_f32 repeat_matmul_f32 repeat_matmul_f16 repeat_matmul_bf16 "
    "repeat_matmul_f64 repeat_of_found_size_f32 repeat_of_views_f32 repeat_of_views_i64 "
    "repeat_updates_f32 repeat_updates_i64 "
    "repeat_convolution_f32";

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
  std::istringstream waiting(kWaiting);
  for (std::string test; waiting >> test;)
    backend.gaps.push_back({test, "a run does not wait for a size that it finds"});
  std::istringstream repeating(kRepeating);
  for (std::string test; repeating >> test;)
    backend.gaps.push_back({test, "a run does not look at a condition that it finds"});
  return {backend};
}

}  // namespace kiln::conformance
