#include "backends/cpu/compile/cpu_backend.h"

#include <algorithm>

#include "backends/cpu/compile/contract/group_digits.h"
#include "backends/cpu/compile/contract/pack.h"
#include "backends/cpu/compile/generate.h"
#include "backends/cpu/compile/image/llvm_threads.h"
#include "support/error.h"

namespace kiln {
namespace cpu {
namespace {

// One set for all levels, so that they share a plan.
const plan::TargetTraits& traits() {
  // The tiles of contract/ hold sums of f32 and f64; the softmax of attention is in f32.
  static const plan::TargetTraits kTraits = {
      .matmul = {DType::F32, DType::F16, DType::BF16, DType::F64},
      .convolution = {DType::F32, DType::F16, DType::BF16, DType::F64},
      .attention = {DType::F32, DType::F16, DType::BF16},
      .places = true,
      .data_sizes = true,
      .repeats = true,
      .calls = true,
      .integer_products = true,
      .integer_convolutions = true,
      .integer_windows = true,
      .folds_scales = true,
      .integer_weights = true,
      .min_group_channels = 4,
      .winograd = plan::WinogradCosts{.pixel = 5, .result = 6, .weight = 5, .fewest_rows = 12},
      .results_in_rows = true,
      .epilogue = plan::EpilogueRule::EvenLoads,
      // Rough ratios of the throughput of vector instructions: a polynomial is about ten
      // multiplications, and divisions and roots share one slow unit.
      .root_cost = 4,
      .division_cost = 4,
      .series_cost = 10,
      .iterated_cost = 20,
      .round_trip_cost = 8,
      .near_load_cost = 5,
      .byte_table_cost = 16,
      .position_cost = 6,
      .max_operations = 64,
      .max_loads = 12,
      .min_parallel_points = 64,
      .large_task_points = 4096,
      .long_reduction = 8192,
      .few_reductions = 8,
      .reduced_at_once = 16,
  };
  return kTraits;
}

bool multiplies_pairs(const plan::Program&, const plan::LoopNest&, const Target&) { return false; }
bool multiplies_pairs(const plan::Program&, const plan::Sort&, const Target&) { return false; }
bool multiplies_pairs(const plan::Program&, const plan::Scatter&, const Target&) { return false; }
bool multiplies_pairs(const plan::Program&, const plan::Custom&, const Target&) { return false; }
bool multiplies_tiles(const plan::Program&, const plan::Custom&, const Target&) { return false; }
bool multiplies_tiles(const plan::Program&, const plan::LoopNest&, const Target&) { return false; }
bool multiplies_tiles(const plan::Program&, const plan::Sort&, const Target&) { return false; }
bool multiplies_tiles(const plan::Program&, const plan::Scatter&, const Target&) { return false; }

const Target& first_with(Feature feature) {
  return *std::ranges::find_if(all_targets(),
                               [&](const Target& level) { return level.has(feature); });
}

bool has_pairs(const plan::Program& program) {
  return std::ranges::any_of(program.kernels, [&](const plan::Kernel& kernel) {
    const auto multiplies = [&](const auto& body) {
      return multiplies_pairs(program, body, first_with(Feature::Avx512Bf16));
    };
    return std::visit(multiplies, kernel.body);
  });
}

bool has_tiles(const plan::Program& program) {
  return std::ranges::any_of(program.kernels, [&](const plan::Kernel& kernel) {
    const auto multiplies = [&](const auto& body) {
      return multiplies_tiles(program, body, first_with(Feature::AmxTile));
    };
    return std::visit(multiplies, kernel.body);
  });
}

bool has_bytes(const plan::Program& program) {
  return std::ranges::any_of(program.kernels, [&](const plan::Kernel& kernel) {
    const auto* matmul = std::get_if<plan::MatMul>(&kernel.body);
    const auto* convolution = std::get_if<plan::Convolution>(&kernel.body);
    const auto* nest = std::get_if<plan::LoopNest>(&kernel.body);
    if (nest != nullptr) return plan::sums_byte_products(nest->stages.front());
    if (matmul != nullptr && matmul->groups && group_multiplies_digits(program, *matmul))
      return true;
    return (matmul != nullptr && matmul->formats.accumulator == DType::I32) ||
           (convolution != nullptr && convolution->formats.accumulator == DType::I32);
  });
}

// Which programs gain by what a level has beyond the plain ones; null: all.
bool (*served_by(const Target& target))(const plan::Program&) {
  if (target.has(Feature::AmxTile)) return has_tiles;
  if (target.has(Feature::Avx512Bf16)) return has_pairs;
  const bool has_vnni = target.has(Feature::Avx512Vnni) || target.has(Feature::AvxVnni);
  return has_vnni ? has_bytes : nullptr;
}

const std::vector<Variant>& variants() {
  static const std::vector<Variant> kVariants = [] {
    std::vector<Variant> variants;
    for (const Target& target : all_targets())
      variants.push_back({target.name, target.features.required(), served_by(target)});
    return variants;
  }();
  return kVariants;
}

class Generator : public KernelGenerator {
 public:
  Generator(const Target& target, backend::CodeStore* store)
      : target_(target), machine_(target), store_(store) {}

  backend::GeneratedKernel generate(const plan::Program& program,
                                    const plan::Kernel& kernel) override {
    return generate_kernel(program, kernel, target_, machine_, store_);
  }

 private:
  const Target& target_;
  const Machine machine_;
  backend::CodeStore* const store_;
};

std::unique_ptr<KernelGenerator> make_generator(const Variant& variant,
                                                const GeneratorOptions& options) {
  const auto target = std::ranges::find(all_targets(), variant.name, &Target::name);
  KILN_CHECK(target != all_targets().end(), "there is no CPU level " + variant.name);
  return std::make_unique<Generator>(*target, options.code);
}

}  // namespace
}  // namespace cpu

const Backend& cpu_backend() {
  static const Backend kBackend = {.name = "cpu",
                                   .traits = cpu::traits(),
                                   .variants = cpu::variants(),
                                   .make_generator = cpu::make_generator,
                                   .run_workers = cpu::run_on_llvm_threads,
                                   .derive_constant = cpu::derive_constant,
                                   .toolchain = nullptr};
  return kBackend;
}

}  // namespace kiln
