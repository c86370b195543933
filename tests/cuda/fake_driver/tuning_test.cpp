// Choosing kernels by their times, on a driver that says how long they take: what is chosen, what is
// remembered, and what happens where something fails.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

#include "backends/cuda/compile/nvrtc.h"
#include "backends/cuda/compile/tune/tuner.h"
#include "compiler/driver.h"
#include "cuda/fake_driver/fake_driver.h"
#include "cuda/kernels.h"
#include "helpers/random_values.h"
#include "ir/text.h"

namespace kiln::test {
namespace {

const char* const kGraph =
    "graph main(%x0: f16[512, 256], %w: f16[384, 256]) {\n  %x = relu(%x0)\n"
    "  %y = linear(%x, %w)\n  return %y as \"y\"\n}";

ir::Graph graph() {
  return graph_with_constants(kGraph, {}, [](const ir::SymbolPtr& symbol) { return symbol->opt; });
}

// Of the fake NVRTC, which is loaded already.
int* find_compilations() {
  void* const library = dlopen(std::getenv("KILN_NVRTC"), RTLD_NOW | RTLD_NOLOAD);
  return static_cast<int*>(dlsym(library, "kiln_fake_nvrtc_compilations"));
}

class FakeTuning : public testing::Test {
 protected:
  void SetUp() override {
    gpu_ = find_fake_gpu();
    ASSERT_NE(gpu_, nullptr) << "the driver is not the fake: LD_LIBRARY_PATH has to lead to it";
    *gpu_ = FakeGpu();
    for (size_t way = 0; way < kWays; ++way)
      ways_.push_back(cuda::generate_text(program_, program_.kernels.back(), target_, way));
    ASSERT_GE(ways_[0].ways, kWays);
  }
  void TearDown() override { EXPECT_EQ(gpu_->things(), 0); }

  // Times in milliseconds, by way; a time below 0: the way does not compile.
  size_t choose(const std::array<float, 4>& times, backend::Tuning& tuning) {
    std::ranges::copy(times, gpu_->milliseconds);
    return cuda::Tuner(target_, tuning).choose(program_, ways_, [&](size_t i) {
      if (times[i] < 0) throw InternalError("does not compile");
      return std::vector<std::byte>(64, static_cast<std::byte>(i));
    });
  }

  static constexpr size_t kWays = 4;
  FakeGpu* gpu_ = nullptr;
  const cuda::Target target_ = target_named("sm_90");
  const plan::Program program_ = plan_for_cuda(graph());
  std::vector<cuda::KernelText> ways_;
};

TEST_F(FakeTuning, TakesTheFastestAndRemembersIt) {
  backend::Tuning tuning(4);
  EXPECT_EQ(choose({5, 4, 2, 3}, tuning), 2U);
  EXPECT_GT(gpu_->launches, 0);
  EXPECT_EQ(tuning.warnings().size(), 0U);
  ASSERT_EQ(tuning.found().size(), 1U);
  EXPECT_EQ(tuning.found().begin()->second, 2U);

  const int launches = gpu_->launches;
  backend::Tuning again(4, tuning.found());
  EXPECT_EQ(choose({1, 4, 2, 3}, again), 2U);
  EXPECT_EQ(gpu_->launches, launches);
  EXPECT_EQ(again.found().size(), 0U);
}

TEST_F(FakeTuning, KeepsTheModelsChoiceWhereOthersAreHardlyFaster) {
  backend::Tuning tuning(4);
  EXPECT_EQ(choose({1, 0.99F, 0.98F, 1}, tuning), 0U);
}

TEST_F(FakeTuning, LeavesOutWhatDoesNotCompile) {
  backend::Tuning tuning(4);
  EXPECT_EQ(choose({5, -1, 3, 2}, tuning), 3U);
}

TEST_F(FakeTuning, ReadsNothingOutOfRangeOfWhatIsKnown) {
  backend::Tuning tuning(4);
  const Hash128 key = cuda::Tuner(target_, tuning).key_of(program_, ways_);
  backend::Tuning hostile(4, {{key, 4000000000U}});
  EXPECT_EQ(choose({5, 4, 3, 1}, hostile), 3U);
}

TEST_F(FakeTuning, MachinesAndKernelsHaveKeysOfTheirOwn) {
  backend::Tuning tuning(4);
  const auto key = [&](size_t count) {
    return cuda::Tuner(target_, tuning).key_of(program_, std::span(ways_).first(count));
  };
  const Hash128 first = key(4);
  EXPECT_EQ(first, key(4));
  EXPECT_NE(first, key(3));
  gpu_->name = "Another GPU";
  EXPECT_NE(first, key(4));
}

TEST_F(FakeTuning, SaysWhereThereIsNoSuchGpu) {
  gpu_->sm = 80;
  backend::Tuning tuning(4);
  EXPECT_EQ(choose({5, 4, 2, 3}, tuning), 0U);
  EXPECT_EQ(tuning.found().size(), 0U);
  EXPECT_EQ(
      *tuning.warnings().begin(),
      "kernels for sm_90 are not timed: this machine has no GPU of the generation sm_90; they "
      "are chosen by a model of the machine");
  EXPECT_EQ(gpu_->launches, 0);
}

TEST_F(FakeTuning, SaysWhereMemoryOrTheDriverFails) {
  {
    backend::Tuning tuning(4);
    gpu_->largest_allocation = 1 << 20;
    EXPECT_EQ(choose({5, 4, 2, 3}, tuning), 0U);
    EXPECT_NE(tuning.warnings().begin()->find("allocating 192 MiB: CUDA_ERROR_OUT_OF_MEMORY"),
              std::string::npos);
    EXPECT_EQ(tuning.found().size(), 0U);
  }
  backend::Tuning tuning(4);
  gpu_->largest_allocation = ~size_t{0};
  gpu_->load_result = 200;
  EXPECT_EQ(choose({5, 4, 2, 3}, tuning), 0U);
  EXPECT_NE(tuning.warnings().begin()->find("loading code"), std::string::npos);
}

// From end to end: the second compile times nothing, and both give one engine.
TEST_F(FakeTuning, SecondCompileGivesTheSameBytes) {
  ASSERT_EQ(cuda::nvrtc_obstacle(), "");
  const std::string path = testing::TempDir() + "/times_" + std::to_string(getpid());
  std::vector<std::string> warnings;
  CompileOptions options;
  options.targets = {{"cuda", {"sm_90"}}};
  options.warning = [&](const std::string& text) { warnings.push_back(text); };
  const std::vector<std::byte> plain = compile(graph(), options);
  EXPECT_EQ(plain, compile(graph(), options));

  // The kernel that is loaded last is the fastest: not the model's choice, which is loaded first.
  for (size_t i = 0; i < std::size(gpu_->milliseconds); ++i)
    gpu_->milliseconds[i] = 10 - static_cast<float>(i);
  options.tuning = {.candidates = 4, .cache_file = path};
  const std::vector<std::byte> tuned = compile(graph(), options);
  EXPECT_NE(plain, tuned);
  EXPECT_GT(gpu_->launches, 0);
  gpu_->launches = 0;
  int* const compilations = find_compilations();
  ASSERT_NE(compilations, nullptr);
  EXPECT_GE(*compilations, 4);
  *compilations = 0;
  EXPECT_EQ(tuned, compile(graph(), options));
  EXPECT_EQ(gpu_->launches, 0);
  EXPECT_EQ(*compilations, 0) << "code is kept beside the times";
  EXPECT_EQ(std::filesystem::status(path + ".kernels").permissions(),
            std::filesystem::perms::owner_all);
  EXPECT_EQ(warnings, std::vector<std::string>());

  std::filesystem::resize_file(path, 20);
  gpu_->loads = 0;
  EXPECT_EQ(tuned, compile(graph(), options));
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("tuning: the timing cache " + path + " is damaged"),
            std::string::npos);
  EXPECT_GT(gpu_->launches, 0);
  std::filesystem::remove(path);

  // A folder that others may write to: everything is compiled, with a warning.
  *compilations = gpu_->loads = 0;
  warnings.clear();
  std::filesystem::permissions(path + ".kernels", std::filesystem::perms::all);
  EXPECT_EQ(tuned, compile(graph(), options));
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("kernel cache " + path + ".kernels is not used"), std::string::npos);
  EXPECT_GT(*compilations, 0);
  std::filesystem::remove_all(path + ".kernels");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace kiln::test
