// What engines say where a GPU cannot do something, and that they work afterwards: with a driver that has
// no GPU behind it, so that this is tested everywhere.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>

#include "backends/cuda/device/executable.h"
#include "cuda/fake_driver/fake_driver.h"
#include "cuda/fake_driver/gpu_engine.h"
#include "runtime/devices.h"
#include "runtime/session.h"

namespace kiln::test {
namespace {

using runtime::Engine;
using runtime::Session;

class FakeDriver : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    static const bool kAdded = runtime::add_device(cuda::kDevice);
    ASSERT_TRUE(kAdded);
  }

  void SetUp() override {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    const auto find = library == nullptr
                          ? nullptr
                          : reinterpret_cast<FakeGpu* (*)()>(dlsym(library, "kiln_fake_gpu"));
    ASSERT_NE(find, nullptr) << "the driver is not the fake: LD_LIBRARY_PATH has to lead to it";
    gpu_ = find();
    *gpu_ = FakeGpu();
  }

  Result<std::shared_ptr<const Engine>> load() { return Engine::load_memory(bytes_); }

  Status run(Session& session) {
    const std::array<int64_t, 1> shape = {4};
    const auto view = [&](std::array<float, 4>& data) {
      return runtime::TensorView{data.data(), DType::F32, shape, {}, {DeviceType::Cuda, 0}};
    };
    return session.run(std::array{view(x_)}, std::array{view(y_)});
  }

  std::unique_ptr<Session> make_session() {
    const auto engine = load();
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    auto session = Session::create(*engine);
    EXPECT_TRUE(session.ok()) << session.status().message();
    return std::move(*session);
  }

  FakeGpu* gpu_ = nullptr;
  std::vector<std::byte> bytes_ = make_gpu_engine("sm_90");
  std::array<float, 4> x_ = {}, y_ = {};
};

bool is_old() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  return library != nullptr && dlsym(library, "cuTensorMapEncodeIm2col") == nullptr;
}

class WholeDriver : public FakeDriver {
  void SetUp() override {
    FakeDriver::SetUp();
    if (is_old()) GTEST_SKIP() << "this driver starts nothing";
  }
};

TEST_F(WholeDriver, RunsAndGivesEverythingBack) {
  {
    const auto session = make_session();
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(run(*session).ok());
    EXPECT_GT(gpu_->launches, 0);
    EXPECT_GT(gpu_->things(), 0);
  }
  EXPECT_EQ(gpu_->things(), 0);
}

TEST_F(WholeDriver, WeightsThatDoNotFitAreSaidAndTheSessionWorksLater) {
  {
    const auto session = make_session();
    gpu_->largest_allocation = 8;
    const int before = gpu_->things();
    for (int i = 0; i < 2; ++i) {
      const Status status = run(*session);
      EXPECT_EQ(status.code(), StatusCode::OutOfMemory);
      EXPECT_EQ(
          status.message(),
          "[cuda] allocating 256 bytes for weights on cuda:0 (Fake GPU, sm_90) failed for want "
          "of memory: 96 of 81920 MiB are free");
      EXPECT_EQ(gpu_->things(), before);
    }
    gpu_->largest_allocation = ~size_t{0};
    EXPECT_TRUE(run(*session).ok());
  }
  EXPECT_EQ(gpu_->things(), 0);
}

TEST_F(WholeDriver, WorkspaceThatDoesNotFitIsSaidAndTheSessionWorksLater) {
  {
    const auto session = make_session();
    gpu_->largest_allocation = 1 << 16;
    const Status status = run(*session);
    EXPECT_EQ(status.code(), StatusCode::OutOfMemory);
    EXPECT_EQ(status.message(),
              "[cuda] allocating 1048576 bytes of workspace on cuda:0 (Fake GPU, sm_90) failed for "
              "want of memory: 96 of 81920 MiB are free");
    EXPECT_EQ(gpu_->launches, 0);
    gpu_->largest_allocation = ~size_t{0};
    EXPECT_TRUE(run(*session).ok());
  }
  EXPECT_EQ(gpu_->things(), 0);
}

// 200 CUDA_ERROR_INVALID_IMAGE, 209 CUDA_ERROR_NO_BINARY_FOR_GPU.
TEST_F(WholeDriver, CodeThatTheDriverDoesNotTakeIsForANewerOne) {
  for (const int result : {200, 209}) {
    {
      const auto session = make_session();
      gpu_->load_result = result;
      const Status status = run(*session);
      EXPECT_EQ(status.code(), StatusCode::Unsupported);
      EXPECT_EQ(
          status.message(),
          "[cuda] the driver, for CUDA 12.2, does not take the code of spread on cuda:0 (Fake "
          "GPU, sm_90): CUDA_ERROR_OF_THE_FAKE; where the code was made by a newer CUDA, "
          "update the driver, or compile with the NVRTC of CUDA 12");
      gpu_->load_result = 0;
      EXPECT_TRUE(run(*session).ok());
    }
    EXPECT_EQ(gpu_->things(), 0);
  }
}

TEST_F(WholeDriver, CodeForAnotherGenerationIsRefusedByName) {
  bytes_ = make_gpu_engine("sm_80");
  const auto engine = load();
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), StatusCode::Unsupported);
  EXPECT_EQ(engine.status().message(),
            "this machine runs no program of the engine: cuda:sm_80 (cuda:0 (Fake GPU, sm_90) does "
            "not run code for sm_80)");
  EXPECT_EQ(gpu_->things(), 0);
}

TEST_F(FakeDriver, OldDriversAreSaidByWhatTheyLack) {
  if (!is_old()) GTEST_SKIP() << "this driver has everything";
  const auto engine = load();
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), StatusCode::Unsupported);
  EXPECT_NE(
      engine.status().message().find(
          "cuda:sm_90 ([cuda] the NVIDIA driver is too old: it lacks cuTensorMapEncodeIm2col, "
          "which drivers from 525 (CUDA 12.0) have)"),
      std::string::npos)
      << engine.status().message();
}

}  // namespace
}  // namespace kiln::test
