#include "backends/cuda/compile/cuda_backend.h"

#include <algorithm>
#include <limits>

#include "backends/common/code_store.h"
#include "backends/common/parallel.h"
#include "backends/cuda/compile/contract/contraction.h"
#include "backends/cuda/compile/contract/convolution.h"
#include "backends/cuda/compile/generate.h"
#include "backends/cuda/compile/nvrtc.h"
#include "backends/cuda/compile/tune/tuner.h"
#include "support/error.h"

namespace kiln {
namespace cuda {
namespace {

// One set for all generations, which share a plan.
const plan::TargetTraits& traits() {
  static const plan::TargetTraits kTraits = {
      .matmul = {DType::F32, DType::F16, DType::BF16, DType::F64},
      .convolution = {DType::F32, DType::F16, DType::BF16, DType::F64},
      .attention = {DType::F32, DType::F16, DType::BF16},
      .places = true,
      .native_16_bit = true,
      .integer_products = true,
      .float8_products = true,
      .float8_weight_rows = 1,
      .tf32 = true,
      // A step of a product is 16 channels; of narrower groups most would be padding.
      .min_group_channels = 4,
      // Fewer than a vector of 16 bytes has.
      .max_patch_channels = 7,
      .loops_in_memory_order = true,
      // 6304 x 768 x 3072 with a residual on an H100: 83 us in place, 48 apart.
      .results_apart = true,
      // 512 x 16384 x 2048 as one product and half of its results stored.
      .paired_products = true,
      // What fits 99 KiB of shared memory, with 16 x 16 results of 64 channels in it (window_pool.cuh). ResNet-50 with
      // 128 images on an H200: 3.27 ms instead of 3.55.
      .pooled_convolutions =
          plan::PooledConvolutions{
              .channels = 4, .kernel = 7, .stride = 2, .window = 3, .vector = 8},
      .epilogue = plan::EpilogueRule::AnyLoads,
      // Throughput of a multiprocessor: 128 multiplications a clock, 16 of the special functions that
      // roots, exponentials and quotients are made of.
      .root_cost = 8,
      .division_cost = 10,
      .series_cost = 12,
      .iterated_cost = 40,
      // Twenty multiplications in the time of a byte of memory; a round trip of two is four of them.
      .round_trip_cost = 64,
      .near_load_cost = 8,
      .position_cost = 32,
      .max_operations = 128,
      .max_loads = 16,
      // A block for each outer point is too little work for the machine below a block for each
      // multiprocessor.
      .min_parallel_points = 128,
      .large_task_points = 4096,
      .long_reduction = 16384,
      .few_reductions = 128,
      // Rotations of 512 x 8 heads of keys take 1.4 us beside those of queries, on an H200.
      .joined_points = 1 << 20,
  };
  return kTraits;
}

// What tile_wgmma.cuh has besides: the limits of the copy engine's im2col. For 32 rows and fewer tile_mma.cuh is as fast.
const plan::TargetTraits& hopper_traits() {
  static const plan::TargetTraits kTraits = [] {
    plan::TargetTraits hopper = traits();
    hopper.second_sums = plan::SecondSums{.vector = 8,
                                          .fewest_filters = CopiedImages::kFewestFilters,
                                          .fewest_pixels = CopiedImages::kFewestPixels,
                                          .most_pixels = std::numeric_limits<int32_t>::max(),
                                          .stride = CopiedImages::kMostStride,
                                          .reach = CopiedImages::kMostReach,
                                          .corner = CopiedImages::kCorner};
    return hopper;
  }();
  return kTraits;
}

const plan::TargetTraits& traits_of(const std::vector<std::string>& variants) {
  const bool is_hopper =
      std::ranges::all_of(variants, [](const std::string& variant) { return variant == "sm_90"; });
  return is_hopper && !variants.empty() ? hopper_traits() : traits();
}

const std::vector<Variant>& variants() {
  static const std::vector<Variant> kVariants = [] {
    std::vector<Variant> variants;
    for (const Target& target : all_targets()) variants.push_back({target.name, {target.name}});
    return variants;
  }();
  return kVariants;
}

class Generator : public KernelGenerator {
 public:
  Generator(const Target& target, backend::CodeStore* store) : target_(target), store_(store) {}

  backend::GeneratedKernel generate(const plan::Program& program,
                                    const plan::Kernel& kernel) override {
    KernelText result = generate_text(program, kernel, target_);
    if (!result.text.empty())
      result.kernel.code = backend::compile_once(store_, code_key(result.text, target_), [&] {
        return compile_text(result.text, target_).code;
      });
    result.kernel.text = std::move(result.text);
    result.kernel.text_ending = ".cu";
    return std::move(result.kernel);
  }

 private:
  const Target& target_;
  backend::CodeStore* const store_;
};

// Tries the best ways of each kernel.
class TunedGenerator : public KernelGenerator {
 public:
  TunedGenerator(const Target& target, const GeneratorOptions& options)
      : target_(target), store_(options.code), tuner_(target, *options.tuning) {}

  backend::GeneratedKernel generate(const plan::Program& program,
                                    const plan::Kernel& kernel) override {
    std::vector<KernelText> ways = {generate_text(program, kernel, target_)};
    const size_t most = std::min(ways[0].ways, static_cast<size_t>(tuner_.candidates()));
    for (size_t i = 1; i < most; ++i) ways.push_back(generate_text(program, kernel, target_, i));
    std::vector<std::vector<std::byte>> codes(ways.size());
    const auto compile = [&](size_t i) {
      return codes[i] = compile_text(ways[i].text, target_).code;
    };
    const size_t fastest = tuner_.choose(program, ways, compile);
    KernelText& chosen = ways[fastest];
    // What is slower is not kept.
    if (!chosen.text.empty())
      chosen.kernel.code = backend::compile_once(store_, code_key(chosen.text, target_), [&] {
        return codes[fastest].empty() ? compile(fastest) : std::move(codes[fastest]);
      });
    chosen.kernel.text = std::move(chosen.text);
    chosen.kernel.text_ending = ".cu";
    return std::move(chosen.kernel);
  }

 private:
  const Target& target_;
  backend::CodeStore* const store_;
  const Tuner tuner_;
};

const Target& target_of(const Variant& variant) {
  const auto target = std::ranges::find_if(
      all_targets(), [&](const Target& target) { return target.name == variant.name; });
  KILN_CHECK(target != all_targets().end(), "there is no generation " + variant.name);
  return *target;
}

std::unique_ptr<KernelGenerator> make_generator(const Variant& variant,
                                                const GeneratorOptions& options) {
  const Target& target = target_of(variant);
  // What is fast on a GPU of this machine says nothing of those that PTX is for.
  if (options.tuning == nullptr || target.is_ptx)
    return std::make_unique<Generator>(target, options.code);
  return std::make_unique<TunedGenerator>(target, options);
}

}  // namespace
}  // namespace cuda

const Backend& cuda_backend() {
  static const Backend kBackend = {.name = "cuda",
                                   .traits = cuda::traits(),
                                   .variants = cuda::variants(),
                                   .make_generator = cuda::make_generator,
                                   .run_workers = backend::run_workers,
                                   .derive_constant = cuda::derive_constant,
                                   .toolchain = cuda::nvrtc_version,
                                   .tuning_machine = cuda::TimingGpu::machine,
                                   .traits_of = cuda::traits_of};
  return kBackend;
}

}  // namespace kiln
