// libkiln_cuda beside libkiln_runtime: opened where a program for a GPU asks for it and not before, and
// named where it is missing or not the one that belongs there. Each case has a folder with copies of the
// libraries, opened through the C API.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <kiln/kiln.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "backends/device_library.h"
#include "cuda/fake_driver/fake_driver.h"
#include "cuda/fake_driver/gpu_engine.h"
#include "engine/sample_engine.h"

namespace kiln::test {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

constexpr const char* kRuntime = "libkiln_runtime.so.0";
constexpr const char* kLibrary = "libkiln_cuda.so";

bool is_mapped(const fs::path& path) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.ends_with(path.string())) return true;
  return false;
}

// The sample engine for CPUs, with a program for GPUs in front.
Bytes engine_for_both() {
  kiln::testing::SampleEngine sample = kiln::testing::make_sample_engine();
  engine::ProgramSpec program = kiln::testing::foreign_program();
  program.target = "cuda";
  program.variant = "sm_90";
  program.features = {"sm_90"};
  kiln::testing::add_program(sample, 0, program);
  return sample.bytes();
}

struct Loaded {
  kiln_status status = KILN_OK;
  std::string error, target;
};

class DeviceLibrary : public ::testing::Test {
 protected:
  void SetUp() override {
    static int count = 0;
    folder_ = fs::canonical(fs::temp_directory_path()) /
              ("kiln_device_library_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    fs::create_directory(folder_);
    fs::copy_file(KILN_RUNTIME_LIBRARY, folder_ / kRuntime);
  }
  // The libraries stay in memory, whatever becomes of their files.
  void TearDown() override { fs::remove_all(folder_); }

  template <typename Function>
  Function* find(const char* name) {
    if (runtime_ == nullptr) runtime_ = dlopen((folder_ / kRuntime).c_str(), RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(runtime_, nullptr) << dlerror();
    return reinterpret_cast<Function*>(dlsym(runtime_, name));
  }
#define KILN_FIND(name) find<decltype(::name)>(#name)

  Loaded load(const Bytes& bytes, const char* target = nullptr) {
    kiln_load_options options{};
    options.struct_size = sizeof(options);
    options.target = target;
    kiln_engine* engine = nullptr;
    Loaded loaded;
    loaded.status =
        KILN_FIND(kiln_engine_load_memory)(bytes.data(), bytes.size(), &options, &engine);
    if (engine == nullptr) loaded.error = KILN_FIND(kiln_last_error)();
    loaded.target = KILN_FIND(kiln_engine_target)(engine);
    KILN_FIND(kiln_engine_destroy)(engine);
    return loaded;
  }

  std::string describe(const Bytes& bytes) {
    kiln_load_options options{};
    options.struct_size = sizeof(options);
    options.describe_only = 1;
    kiln_engine* engine = nullptr;
    kiln_bytes* json = nullptr;
    EXPECT_EQ(KILN_FIND(kiln_engine_load_memory)(bytes.data(), bytes.size(), &options, &engine),
              KILN_OK);
    EXPECT_EQ(KILN_FIND(kiln_engine_describe)(engine, &json), KILN_OK);
    std::string text(static_cast<const char*>(KILN_FIND(kiln_bytes_data)(json)),
                     KILN_FIND(kiln_bytes_size)(json));
    KILN_FIND(kiln_bytes_destroy)(json);
    KILN_FIND(kiln_engine_destroy)(engine);
    return text;
  }

  // What is said of an engine for a GPU; one with a program for CPUs runs all the same, and either can
  // be described.
  std::string obstacle() {
    const Loaded loaded = load(make_gpu_engine("sm_90"));
    EXPECT_EQ(loaded.status, KILN_UNSUPPORTED);
    EXPECT_EQ(load(engine_for_both()).target, "cpu");
    EXPECT_NE(load(engine_for_both(), "cuda").error, "");
    const std::string prefix = "this machine runs no program of the engine: cuda:sm_90 (";
    EXPECT_TRUE(loaded.error.starts_with(prefix) && loaded.error.ends_with(")")) << loaded.error;
    const std::string obstacle =
        loaded.error.substr(prefix.size(), loaded.error.size() - prefix.size() - 1);
    EXPECT_NE(describe(make_gpu_engine("sm_90")).find(obstacle), std::string::npos);
    return obstacle;
  }

  fs::path library() const { return folder_ / kLibrary; }

  fs::path folder_;

 private:
  void* runtime_ = nullptr;
};

TEST_F(DeviceLibrary, IsNotOpenedForOtherTargets) {
  fs::copy_file(KILN_CUDA_LIBRARY, library());
  EXPECT_EQ(load(kiln::testing::make_sample_engine().bytes()).target, "cpu");
  EXPECT_EQ(load(engine_for_both(), "cpu").target, "cpu");
  kiln::testing::SampleEngine foreign = kiln::testing::make_sample_engine();
  kiln::testing::add_program(foreign, 0, kiln::testing::foreign_program());
  EXPECT_EQ(load(foreign.bytes()).target, "cpu");
  EXPECT_TRUE(is_mapped(folder_ / kRuntime));
  EXPECT_FALSE(is_mapped(library()));
}

TEST_F(DeviceLibrary, RunsProgramsFromAnyFolder) {
  fs::copy_file(KILN_CUDA_LIBRARY, library());
  const Bytes bytes = make_gpu_engine("sm_90");
  kiln_engine* engine = nullptr;
  ASSERT_EQ(KILN_FIND(kiln_engine_load_memory)(bytes.data(), bytes.size(), nullptr, &engine),
            KILN_OK)
      << KILN_FIND(kiln_last_error)();
  EXPECT_TRUE(is_mapped(library()));
  kiln_session* session = nullptr;
  ASSERT_EQ(KILN_FIND(kiln_session_create)(engine, nullptr, &session), KILN_OK);
  std::array<float, 4> x = {}, y = {};
  const int64_t shape[] = {4};
  const auto tensor = [&](std::array<float, 4>& data) {
    return kiln_tensor{sizeof(kiln_tensor), data.data(), KILN_F32, 1, shape, nullptr,
                       {KILN_CUDA, 0}};
  };
  const kiln_tensor input = tensor(x), output = tensor(y);
  const auto run = [&] {
    return KILN_FIND(kiln_session_run)(session, &input, 1, &output, 1, nullptr);
  };
  FakeGpu& gpu = *reinterpret_cast<FakeGpu* (*)()>(
      dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), "kiln_fake_gpu"))();
  gpu = FakeGpu();
  gpu.largest_allocation = 8;
  EXPECT_EQ(run(), KILN_OUT_OF_MEMORY);
  EXPECT_TRUE(std::string(KILN_FIND(kiln_last_error)()).starts_with("[cuda] allocating 256 bytes"));
  gpu = FakeGpu();
  EXPECT_EQ(run(), KILN_OK) << KILN_FIND(kiln_last_error)();
  EXPECT_GT(gpu.launches, 0);
  KILN_FIND(kiln_session_destroy)(session);
  KILN_FIND(kiln_engine_destroy)(engine);
  EXPECT_EQ(gpu.things(), 0);
}

TEST_F(DeviceLibrary, IsOpenedByManyThreadsAtOnce) {
  fs::copy_file(KILN_CUDA_LIBRARY, library());
  const Bytes bytes = make_gpu_engine("sm_90");
  (void)KILN_FIND(kiln_version);
  std::atomic<int> works = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] { works += load(bytes).target == "cuda" ? 1 : 0; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(works, 8);
}

TEST_F(DeviceLibrary, IsNamedWhereItIsMissing) {
  EXPECT_EQ(obstacle(), "there is no " + library().string() +
                            ", which runs programs for cuda: it belongs beside " + kRuntime);
}

TEST_F(DeviceLibrary, ThatIsNoLibraryIsNamed) {
  std::ofstream(library()) << "not a library";
  const std::string text = obstacle();
  EXPECT_TRUE(text.starts_with(library().string() + " cannot be opened: ")) << text;
}

TEST_F(DeviceLibrary, OfAnotherBuildIsRefused) {
  fs::copy_file(KILN_OTHER_LIBRARY, library());
  EXPECT_EQ(obstacle(), library().string() + " is of another build than " + kRuntime +
                            ": got 0.0.9-other, expected " KILN_DEVICE_INTERFACE
                            "; install them together");
}

TEST_F(DeviceLibrary, WithoutAVersionIsRefused) {
  fs::copy_file(KILN_RUNTIME_LIBRARY, library());
  EXPECT_EQ(obstacle(), library().string() + " is of another build than " + kRuntime +
                            ": got a library without a version, expected " KILN_DEVICE_INTERFACE
                            "; install them together");
}

TEST(DeviceLibraryItself, RefusesCallersOfAnotherBuild) {
  void* opened = dlopen(KILN_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(opened, nullptr) << dlerror();
  const auto find = reinterpret_cast<DeviceFunction*>(dlsym(opened, kDeviceFunction));
  ASSERT_NE(find, nullptr);
  const char* own = nullptr;
  EXPECT_EQ(find("0.0.9-other", &own), nullptr);
  EXPECT_STREQ(own, KILN_DEVICE_INTERFACE);
  ASSERT_NE(find(KILN_DEVICE_INTERFACE, &own), nullptr);
  EXPECT_STREQ(find(KILN_DEVICE_INTERFACE, &own)->target, "cuda");
}

}  // namespace
}  // namespace kiln::test
