// The run-time compiler: what it gives, and what it says.
#include "backends/cuda/compile/nvrtc.h"

#include <gtest/gtest.h>

#include <thread>

#include "cuda/kernels.h"
#include "support/error.h"

namespace kiln::test {
namespace {

const std::string kText =
    "extern \"C\" __global__ void kernel(float* x) { x[threadIdx.x] *= 2.0f; }\n";

class Nvrtc : public testing::Test {
  void SetUp() override {
    if (const std::string obstacle = cuda::nvrtc_obstacle(); !obstacle.empty())
      GTEST_SKIP() << obstacle;
  }
};

TEST_F(Nvrtc, CompilesForEachGeneration) {
  for (const cuda::Target& target : cuda::all_targets()) {
    const cuda::Compiled compiled = cuda::compile_text(kText, target);
    ASSERT_GT(compiled.code.size(), 4u) << target.name;
    const std::string_view code(reinterpret_cast<const char*>(compiled.code.data()),
                                compiled.code.size());
    if (target.is_ptx)
      EXPECT_NE(code.find(".target sm_90\n"), code.npos);
    else
      EXPECT_EQ(code.substr(1, 3), "ELF") << target.name;
    EXPECT_EQ(compiled.log, "");
  }
}

TEST_F(Nvrtc, GivesTheSameBytesOnAnyThread) {
  const cuda::Target& target = target_named("sm_90");
  const auto expected = cuda::compile_text(kText, target).code;
  std::vector<std::vector<std::byte>> got(4);
  std::vector<std::thread> threads;
  for (auto& cubin : got)
    threads.emplace_back([&] { cubin = cuda::compile_text(kText, target).code; });
  for (std::thread& thread : threads) thread.join();
  for (const auto& cubin : got) EXPECT_TRUE(cubin == expected);
}

TEST_F(Nvrtc, ErrorsCarryTheLog) {
  try {
    cuda::compile_text("extern \"C\" __global__ void kernel() { undeclared(); }",
                       target_named("sm_80"));
    FAIL() << "it compiled";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("undeclared"), std::string::npos) << error.what();
  }
}

TEST_F(Nvrtc, SpillsAreFound) {
  // 200 numbers that all live at once do not fit the 32 registers of a block of 1024 threads, twice on
  // a multiprocessor.
  std::string text = "extern \"C\" __global__ void __launch_bounds__(1024, 2) kernel(float* x) {\n";
  for (int i = 0; i < 200; ++i)
    text += "  float v" + std::to_string(i) + " = x[" + std::to_string(7 * i) + "];\n";
  text += "  __syncthreads();\n";
  for (int i = 0; i < 200; ++i)
    text += "  x[" + std::to_string(7 * i + 1) + "] = v" + std::to_string(i) + ";\n";
  EXPECT_NE(problem_of(text + "}\n", target_named("sm_80")), "");
}

}  // namespace
}  // namespace kiln::test
