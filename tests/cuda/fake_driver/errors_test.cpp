// What engines say where a GPU cannot do something, and that they work afterwards: with a driver that has
// no GPU behind it, so that this is tested everywhere.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
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
    gpu_ = find_fake_gpu();
    ASSERT_NE(gpu_, nullptr) << "the driver is not the fake: LD_LIBRARY_PATH has to lead to it";
    *gpu_ = FakeGpu();
  }

  std::unique_ptr<Session> make_session(const std::shared_ptr<const Engine>& engine,
                                        uint64_t weight_budget) {
    auto session = Session::create(engine, {.weight_budget = weight_budget});
    EXPECT_TRUE(session.ok()) << session.status().message();
    return std::move(*session);
  }

  Result<std::shared_ptr<const Engine>> load() { return Engine::load_memory(bytes_); }

  Status run(Session& session, int device = 0) {
    const std::array<int64_t, 1> shape = {4};
    const auto view = [&](std::array<float, 4>& data) {
      return runtime::TensorView{data.data(), DType::F32, shape, {}, {DeviceType::Cuda, device}};
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
 protected:
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

// Code says which program it is by its first byte: of the first one here it is 1.
TEST_F(WholeDriver, GpusNewerThanAllGenerationsTakePtx) {
  bytes_ = make_gpu_engine({"sm_90", "sm_80", "compute_90"}, true);
  for (const auto& [device, loaded] : {std::pair{0, 1}, {1, 3}, {2, 3}}) {
    {
      gpu_->current = device;
      const auto session = Session::create(*load(), {.device = device});
      ASSERT_TRUE(session.ok()) << session.status().message();
      const Status status = run(**session, device);
      EXPECT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(gpu_->loaded, loaded) << device;
    }
    EXPECT_EQ(gpu_->things(), 0);
  }
}

TEST_F(WholeDriver, PtxIsForGpusFromItsGenerationOn) {
  bytes_ = make_gpu_engine({"compute_100"}, true);
  const auto engine = load();
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().message(),
            "this machine runs no program of the engine: cuda:compute_100 (cuda:0 (Fake GPU, "
            "sm_90) does not run code for compute_100)");
  for (const char* unknown : {"compute_", "compute_x", "compute_90a"}) {
    bytes_ = make_gpu_engine({unknown}, true);
    EXPECT_NE(load().status().message().find("which this version of Kiln does not know"),
              std::string::npos)
        << unknown;
  }
}

// The driver would read on behind the code.
TEST_F(WholeDriver, PtxWithoutAnEndIsDamaged) {
  bytes_ = make_gpu_engine({"compute_90"}, false);
  const auto session = make_session();
  const Status status = run(*session);
  EXPECT_EQ(status.code(), StatusCode::InvalidEngine);
  EXPECT_EQ(status.message(), "damaged engine: the code of kernel spread has no end");
  EXPECT_EQ(gpu_->loads, 0);
}

// 200 CUDA_ERROR_INVALID_IMAGE, 209 CUDA_ERROR_NO_BINARY_FOR_GPU; of PTX, 218 CUDA_ERROR_INVALID_PTX,
// 221 CUDA_ERROR_JIT_COMPILER_NOT_FOUND, 222 CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 223
// CUDA_ERROR_JIT_COMPILATION_DISABLED.
TEST_F(WholeDriver, CodeThatTheDriverDoesNotTakeIsForANewerOne) {
  for (const int result : {200, 209, 218, 221, 222, 223}) {
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

// Steps that found other weights than theirs, and steps in all.
size_t wrong = 0, steps = 0;
constexpr size_t kSteps = 7, kWeightBytes = 96 << 10;

// The second parameter is the step's weights; the last step's third, those of the first step.
void look_at_weights(void** parameters) {
  const auto holds = [&](size_t parameter, size_t value) {
    const auto* bytes = *static_cast<std::byte* const*>(parameters[parameter]);
    return std::all_of(bytes, bytes + kWeightBytes,
                       [&](std::byte byte) { return byte == static_cast<std::byte>(value); });
  };
  const size_t step = steps++ % kSteps;
  if (!holds(1, step + 1)) ++wrong;
  if (step + 1 == kSteps && !holds(2, 1)) ++wrong;
}

class StreamedWeights : public WholeDriver {
 protected:
  void SetUp() override {
    WholeDriver::SetUp();
    if (IsSkipped()) return;
    wrong = steps = 0;
    gpu_->at_launch = look_at_weights;
    bytes_ = make_weights_engine(kSteps, kWeightBytes);
  }
};

TEST_F(StreamedWeights, AreThereWhereStepsUseThem) {
  const auto engine = *load();
  const uint64_t all = engine->executable()->streamable_bytes();
  EXPECT_EQ(all, kSteps * kWeightBytes);
  for (const uint64_t budget :
       {uint64_t{0}, uint64_t{1}, all / 3, all / 2, all - 1, all, all + 1}) {
    const auto session = make_session(engine, budget);
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(run(*session).ok());
    session->enable_profiling(true);
    EXPECT_TRUE(run(*session).ok());
    EXPECT_EQ(session->profile().size(), kSteps);
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_GE(steps, 7 * 3 * kSteps);
}

TEST_F(StreamedWeights, TakeNoMoreThanTheBudget) {
  {
    const auto engine = *load();
    const uint64_t all = engine->executable()->streamable_bytes();
    // The ring holds the weights of two steps, of which the last has two; the rest of the workspace is
    // temporaries.
    const uint64_t temporaries = 4096, ring = std::max(4 * kWeightBytes, all);
    for (const uint64_t budget : {uint64_t{0}, all / 2}) {
      const auto session = make_session(engine, budget);
      gpu_->allocated_bytes = 0;
      EXPECT_TRUE(run(*session).ok());
      EXPECT_LE(gpu_->allocated_bytes, budget + ring + temporaries);
    }
  }
  EXPECT_EQ(gpu_->things(), 0);
}

TEST_F(StreamedWeights, AreSharedBySessionsOfOneBudgetAndGoWhenAnotherOneIsUsed) {
  const auto engine = *load();
  const auto first = make_session(engine, 0), second = make_session(engine, 0);
  EXPECT_TRUE(run(*first).ok());
  const int pinned = gpu_->host_allocations, modules = gpu_->modules;
  EXPECT_TRUE(run(*second).ok());
  EXPECT_EQ(gpu_->host_allocations, pinned);
  EXPECT_EQ(gpu_->modules, modules);
  // Both budgets at once, as long as somebody uses either.
  auto third = make_session(engine, ~uint64_t{0});
  EXPECT_TRUE(run(*third).ok());
  EXPECT_EQ(gpu_->modules, 2 * modules);
  EXPECT_TRUE(run(*first).ok());
  third = nullptr;
  const auto fourth = make_session(engine, 1000);
  EXPECT_TRUE(run(*fourth).ok());
  EXPECT_EQ(gpu_->modules, 2 * modules);
  EXPECT_EQ(wrong, 0u);
}

TEST_F(StreamedWeights, NeedPinnedMemory) {
  {
    const auto engine = *load();
    const auto session = make_session(engine, 0);
    gpu_->largest_host_allocation = 1000;
    const Status status = run(*session);
    EXPECT_EQ(status.code(), StatusCode::OutOfMemory);
    EXPECT_NE(status.message().find("bytes of pinned memory for weights that are streamed"),
              std::string::npos)
        << status.message();
    gpu_->largest_host_allocation = ~size_t{0};
    EXPECT_TRUE(run(*session).ok());
  }
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
