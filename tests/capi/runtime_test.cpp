// The running half of the C API, as a C program would use and misuse it.
#include <gtest/gtest.h>
#include <sched.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "engine/sample_engine.h"
#include "engine/writer.h"
#include "helpers/exhaust_memory.h"
#include "kiln/kiln.h"

namespace {

using kiln::testing::kSampleFactor;
using kiln::testing::make_sample_engine;

class CapiRuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto sample = make_sample_engine();
    path_ = ::testing::TempDir() + "kiln_capi_runtime_test.kiln";
    ASSERT_TRUE(kiln::engine::write_file(sample.spec, sample.constants(), path_).ok());
    const kiln_load_options options{sizeof(options), "cpu:x86-64-v3", 1};
    ASSERT_EQ(kiln_engine_load_file(path_.c_str(), &options, &engine_), KILN_OK)
        << kiln_last_error();
    ASSERT_EQ(kiln_session_create(engine_, nullptr, &session_), KILN_OK) << kiln_last_error();
  }
  void TearDown() override {
    kiln_session_destroy(session_);
    kiln_engine_destroy(engine_);
    std::remove(path_.c_str());
  }

  static kiln_tensor tensor(std::vector<float>& values, const int64_t* shape) {
    return {sizeof(kiln_tensor), values.data(), KILN_F32, 2, shape, nullptr, {}};
  }
  kiln_status run(kiln_tensor x, kiln_tensor y, kiln_tensor out) {
    const kiln_tensor inputs[] = {x, y};
    return kiln_session_run(session_, inputs, 2, &out, 1, nullptr);
  }

  std::string path_;
  kiln_engine* engine_ = nullptr;
  kiln_session* session_ = nullptr;
  std::vector<float> x_ = std::vector<float>(8, 5), y_ = std::vector<float>(8, 1);
  std::vector<float> out_ = std::vector<float>(8);
  int64_t shape_[2] = {2, 4};
};

TEST_F(CapiRuntimeTest, Runs) {
  ASSERT_EQ(run(tensor(x_, shape_), tensor(y_, shape_), tensor(out_, shape_)), KILN_OK);
  EXPECT_EQ(out_, std::vector<float>(8, (5 - 1) * kSampleFactor));
}

#ifdef KILN_CAN_EXHAUST_MEMORY
// The first error of a thread: what keeps texts for it takes memory.
TEST_F(CapiRuntimeTest, ALackOfMemoryIsToldWithoutMemory) {
  const auto load = [&] {
    std::thread([&] {
      kiln::test::exhaust_memory();
      kiln_engine* engine = nullptr;
      const kiln_status status = kiln_engine_load_file(path_.c_str(), nullptr, &engine);
      const bool said = std::strncmp(kiln_last_error(), "out of memory", 13) == 0;
      std::quick_exit(status == KILN_OUT_OF_MEMORY && said ? 0 : 1);
    }).join();
  };
  EXPECT_EXIT(load(), ::testing::ExitedWithCode(0), "");
}
#endif

std::string text_of(kiln_bytes* bytes) {
  std::string text(static_cast<const char*>(kiln_bytes_data(bytes)), kiln_bytes_size(bytes));
  kiln_bytes_destroy(bytes);
  return text;
}

TEST_F(CapiRuntimeTest, VerifiesBytes) {
  auto bytes = make_sample_engine().bytes();
  kiln_bytes* json = nullptr;
  ASSERT_EQ(kiln_engine_verify(bytes.data(), bytes.size(), &json), KILN_OK);
  EXPECT_EQ(text_of(json), R"({"sound":true,"problems":[]})");
  bytes.back() ^= std::byte{1};
  ASSERT_EQ(kiln_engine_verify(bytes.data(), bytes.size(), &json), KILN_OK);
  const std::string text = text_of(json);
  EXPECT_NE(text.find(R"({"sound":false,"problems":[{"where":"weights","offset":)"),
            std::string::npos)
      << text;
  ASSERT_EQ(kiln_engine_verify(nullptr, 0, &json), KILN_OK);
  EXPECT_NE(text_of(json).find("not a Kiln engine"), std::string::npos);
  EXPECT_EQ(kiln_engine_verify(nullptr, 1, &json), KILN_INVALID_ARGUMENT);
}

TEST_F(CapiRuntimeTest, DescribesInputsAndOutputs) {
  EXPECT_EQ(kiln_engine_num_inputs(engine_), 2u);
  EXPECT_EQ(kiln_engine_num_outputs(engine_), 1u);
  kiln_tensor_info info{};
  info.struct_size = sizeof(info);
  ASSERT_EQ(kiln_engine_input(engine_, 1, &info), KILN_OK);
  EXPECT_STREQ(info.name, "y");
  EXPECT_EQ(info.dtype, KILN_F32);
  ASSERT_EQ(info.rank, 2);
  EXPECT_EQ(info.dims[0].max, 32);
  ASSERT_EQ(kiln_engine_output(engine_, 0, &info), KILN_OK);
  EXPECT_STREQ(info.name, "out");
  EXPECT_EQ(kiln_engine_output(engine_, 1, &info), KILN_NOT_FOUND);
  EXPECT_STREQ(kiln_last_error(), "got index 1, expected below 1");
  EXPECT_STREQ(info.name, "out");  // untouched
  EXPECT_STREQ(kiln_engine_target(engine_), "cpu");
  EXPECT_STREQ(kiln_engine_variant(engine_), "x86-64-v3");
}

TEST_F(CapiRuntimeTest, DescribesTheEngineAsJson) {
  kiln_bytes* json = nullptr;
  ASSERT_EQ(kiln_engine_describe(engine_, &json), KILN_OK);
  const std::string text(static_cast<const char*>(kiln_bytes_data(json)), kiln_bytes_size(json));
  kiln_bytes_destroy(json);
  EXPECT_EQ(text.front(), '{');
  EXPECT_NE(text.find(R"("target":"cpu","variant":"x86-64-v3","runs_here":true)"),
            std::string::npos);
}

TEST_F(CapiRuntimeTest, Profiles) {
  ASSERT_EQ(kiln_session_enable_profiling(session_, 1), KILN_OK);
  ASSERT_EQ(run(tensor(x_, shape_), tensor(y_, shape_), tensor(out_, shape_)), KILN_OK);
  kiln_bytes* json = nullptr;
  ASSERT_EQ(kiln_session_profile(session_, &json), KILN_OK);
  const std::string text(static_cast<const char*>(kiln_bytes_data(json)), kiln_bytes_size(json));
  kiln_bytes_destroy(json);
  EXPECT_NE(text.find(R"("kernel":"add_0")"), std::string::npos);
}

TEST_F(CapiRuntimeTest, GivesOutputShapes) {
  const kiln_tensor inputs[] = {{sizeof(kiln_tensor), nullptr, KILN_F32, 2, shape_, nullptr, {}},
                                {sizeof(kiln_tensor), nullptr, KILN_F32, 2, shape_, nullptr, {}}};
  int64_t shapes[1][KILN_MAX_RANK] = {};
  ASSERT_EQ(kiln_session_output_shapes(session_, inputs, 2, shapes, 1), KILN_OK);
  EXPECT_EQ(shapes[0][0], 2);
  EXPECT_EQ(shapes[0][1], 4);
  EXPECT_EQ(kiln_session_output_shapes(session_, inputs, 2, shapes, 2), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "got 2 outputs, expected 1");
}

TEST_F(CapiRuntimeTest, RefusesNullPointers) {
  kiln_engine* engine = nullptr;
  EXPECT_EQ(kiln_engine_load_file(nullptr, nullptr, &engine), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "the argument \"path\" is null");
  EXPECT_EQ(kiln_engine_load_file("x", nullptr, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_engine_load_memory(nullptr, 5, nullptr, &engine), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_engine_input(engine_, 0, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_engine_input(nullptr, 0, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_engine_describe(engine_, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_create(nullptr, nullptr, &session_), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_create(engine_, nullptr, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_run(nullptr, nullptr, 0, nullptr, 0, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_run(session_, nullptr, 2, nullptr, 1, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "the inputs are null");
  EXPECT_EQ(kiln_session_synchronize(nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_device(nullptr).type, KILN_CPU);
  EXPECT_EQ(kiln_session_num_threads(nullptr), 0);
  EXPECT_EQ(kiln_session_profile(session_, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_enable_profiling(nullptr, 1), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_engine_num_inputs(nullptr), 0u);
  EXPECT_EQ(kiln_bytes_size(nullptr), 0u);
  EXPECT_EQ(kiln_bytes_data(nullptr), nullptr);
  EXPECT_STREQ(kiln_engine_target(nullptr), "");
  EXPECT_STREQ(kiln_engine_variant(nullptr), "");
  kiln_engine_destroy(nullptr);
  kiln_session_destroy(nullptr);
  kiln_bytes_destroy(nullptr);
}

TEST_F(CapiRuntimeTest, RefusesTensorsThatMakeNoSense) {
  const kiln_tensor good = tensor(x_, shape_);
  kiln_tensor bad = good;
  bad.dtype = static_cast<kiln_dtype>(11);
  EXPECT_EQ(run(bad, good, good), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "input 0: got dtype 11, expected 0..10");
  bad = good;
  bad.rank = 17;
  EXPECT_EQ(run(good, bad, good), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "input 1: got rank 17, expected 0..16");
  bad.rank = -1;
  EXPECT_EQ(run(good, good, bad), KILN_INVALID_ARGUMENT);
  bad = good;
  bad.shape = nullptr;
  EXPECT_EQ(run(good, good, bad), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "output 0: its shape is null");
}

TEST_F(CapiRuntimeTest, RefusesTensorsOfUnknownSize) {
  const kiln_tensor good = tensor(x_, shape_);
  kiln_tensor bad = good;
  bad.struct_size = 0;
  EXPECT_EQ(run(bad, good, good), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(),
               "input 0: got struct_size 0, expected sizeof(kiln_tensor), which is 48");
  bad.struct_size = size_t{1} << 40;
  EXPECT_EQ(run(good, good, bad), KILN_INVALID_ARGUMENT);
  bad.struct_size = sizeof(kiln_tensor) + 8;
  EXPECT_EQ(run(good, bad, good), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(),
               "input 1: got struct_size 56, expected 48 as in the tensor before");
}

TEST_F(CapiRuntimeTest, TakesTensorsOfANewerHeader) {
  struct Newer {
    kiln_tensor tensor;
    uint64_t more;
  } inputs[2] = {{tensor(x_, shape_), 0}, {tensor(y_, shape_), 0}};
  for (Newer& input : inputs) input.tensor.struct_size = sizeof(Newer);
  const kiln_tensor out = tensor(out_, shape_);
  const auto run_newer = [&] {
    return kiln_session_run(session_, &inputs[0].tensor, 2, &out, 1, nullptr);
  };
  ASSERT_EQ(run_newer(), KILN_OK) << kiln_last_error();
  EXPECT_EQ(out_, std::vector<float>(8, (5 - 1) * kSampleFactor));
  inputs[1].more = 1;
  EXPECT_EQ(run_newer(), KILN_UNSUPPORTED);
  EXPECT_STREQ(kiln_last_error(),
               "input 1 has fields set that this version of Kiln, 0.1.0, does not know");
}

// What 0 stands for: no more than the process may use.
TEST_F(CapiRuntimeTest, TellsTheThreadsOfASession) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  kiln_session_options options{sizeof(kiln_session_options)};
  kiln_session *usual = nullptr, *chosen = nullptr;
  EXPECT_EQ(kiln_session_create(engine_, &options, &usual), KILN_OK);
  options.num_threads = 3;
  EXPECT_EQ(kiln_session_create(engine_, &options, &chosen), KILN_OK);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(kiln_session_num_threads(usual), 1);
  EXPECT_EQ(kiln_session_num_threads(chosen), 3);
  kiln_session_destroy(usual);
  kiln_session_destroy(chosen);
}

TEST_F(CapiRuntimeTest, RefusesTensorsOfOtherDevices) {
  EXPECT_EQ(kiln_session_device(session_).type, KILN_CPU);
  const kiln_tensor good = tensor(x_, shape_);
  kiln_tensor bad = good;
  bad.device = {KILN_CPU, -1};  // PyTorch's index of the CPU; not looked at
  EXPECT_EQ(run(good, bad, tensor(out_, shape_)), KILN_OK);
  bad.device = {KILN_CUDA, 0};
  EXPECT_EQ(run(good, bad, good), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(),
               "input \"y\": got a tensor on cuda:0, expected one on the CPU, where the engine's "
               "program runs");
  bad.device = {7, 0};
  EXPECT_EQ(run(good, bad, good), KILN_INVALID_ARGUMENT);
  EXPECT_NE(std::string(kiln_last_error()).find("got a tensor on device type 7"),
            std::string::npos);
}

TEST_F(CapiRuntimeTest, RunsAreCancelled) {
  const kiln_tensor inputs[] = {tensor(x_, shape_), tensor(y_, shape_)};
  const kiln_tensor out = tensor(out_, shape_);
  volatile int32_t flag = 1;
  kiln_run_options options{};
  options.struct_size = sizeof(options);
  options.cancel = &flag;
  EXPECT_EQ(kiln_session_run(session_, inputs, 2, &out, 1, &options), KILN_CANCELLED);
  EXPECT_STREQ(kiln_last_error(), "the run was cancelled: what its outputs hold is unspecified");
  EXPECT_EQ(out_, std::vector<float>(8));
  flag = 0;
  EXPECT_EQ(kiln_session_run(session_, inputs, 2, &out, 1, &options), KILN_OK);
  EXPECT_EQ(out_, std::vector<float>(8, (5 - 1) * kSampleFactor));
  EXPECT_EQ(kiln_session_synchronize(session_), KILN_OK);
}

// Gives memory for one output, and keeps what it was asked.
struct Outputs {
  std::vector<float> values;
  std::vector<int64_t> shape;
  bool is_full = false;

  kiln_run_options options() {
    kiln_run_options options{};
    options.struct_size = sizeof(options);
    options.output_user = this;
    options.allocate_output = [](void* user, const kiln_output* output) -> void* {
      auto* self = static_cast<Outputs*>(user);
      EXPECT_EQ(output->struct_size, sizeof(kiln_output));
      EXPECT_EQ(output->index, 0u);
      EXPECT_EQ(output->device.type, KILN_CPU);
      EXPECT_EQ(output->dtype, KILN_F32);
      self->shape.assign(output->shape, output->shape + output->rank);
      if (self->is_full) return nullptr;
      self->values.resize(output->bytes / sizeof(float));
      return self->values.data();
    };
    return options;
  }
};

TEST_F(CapiRuntimeTest, AsksForTheMemoryOfOutputs) {
  const kiln_tensor inputs[] = {tensor(x_, shape_), tensor(y_, shape_)};
  const kiln_tensor out = tensor(out_, shape_);
  Outputs outputs;
  kiln_run_options options = outputs.options();
  ASSERT_EQ(kiln_session_run(session_, inputs, 2, nullptr, 0, &options), KILN_OK)
      << kiln_last_error();
  EXPECT_EQ(outputs.shape, (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(outputs.values, std::vector<float>(8, (5 - 1) * kSampleFactor));
  EXPECT_EQ(kiln_session_run(session_, inputs, 2, &out, 1, &options), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(),
               "got outputs and kiln_run_options.allocate_output, expected one of them");
  outputs.is_full = true;
  EXPECT_EQ(kiln_session_run(session_, inputs, 2, nullptr, 0, &options), KILN_OUT_OF_MEMORY);
  EXPECT_STREQ(kiln_last_error(), "output \"out\": the caller gave no memory for 32 bytes");
  // Nobody is asked where the inputs are wrong.
  outputs.shape.clear();
  const kiln_tensor null = {sizeof(kiln_tensor), nullptr, KILN_F32, 2, shape_, nullptr, {}};
  const kiln_tensor wrong[] = {inputs[0], null};
  EXPECT_EQ(kiln_session_run(session_, wrong, 2, nullptr, 0, &options), KILN_INVALID_ARGUMENT);
  EXPECT_TRUE(outputs.shape.empty());
}

TEST_F(CapiRuntimeTest, FillsInAsMuchOfAStructAsTheCallerHas) {
  kiln_tensor_info info{};
  EXPECT_EQ(kiln_engine_input(engine_, 0, &info), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "kiln_tensor_info.struct_size is not set");
  info.struct_size = offsetof(kiln_tensor_info, dtype);
  info.rank = 77;
  ASSERT_EQ(kiln_engine_input(engine_, 0, &info), KILN_OK);
  EXPECT_STREQ(info.name, "x");
  EXPECT_EQ(info.rank, 77);  // behind an older caller's struct
  struct Newer {
    kiln_tensor_info info;
    uint64_t more;
  } newer{{sizeof(Newer), nullptr, KILN_F32, 0, nullptr}, 7};
  ASSERT_EQ(kiln_engine_input(engine_, 1, &newer.info), KILN_OK);
  EXPECT_EQ(newer.info.struct_size, sizeof(Newer));
  EXPECT_EQ(newer.info.rank, 2);
  EXPECT_EQ(newer.more, 0u);
}

TEST_F(CapiRuntimeTest, TargetsChooseTheProgram) {
  const auto load = [&](const char* target) {
    const kiln_load_options options{sizeof(options), target, 0, 0};
    kiln_engine* engine = nullptr;
    const kiln_status status = kiln_engine_load_file(path_.c_str(), &options, &engine);
    kiln_engine_destroy(engine);
    return status;
  };
  EXPECT_EQ(load("cpu"), KILN_OK);
  EXPECT_EQ(load("cpu:x86-64-v3"), KILN_OK);
  EXPECT_EQ(load("cuda"), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), (path_ + ": got the program \"cuda\", expected one of "
                                           "cpu:x86-64-v4, cpu:x86-64-v3")
                                      .c_str());
  EXPECT_EQ(load("x86-64-v3,cpu"), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(load(""), KILN_INVALID_ARGUMENT);
}

// An engine that is for a machine that nobody here knows.
TEST_F(CapiRuntimeTest, EnginesOfUnknownTargetsAreDescribed) {
  kiln::testing::SampleEngine sample = kiln::testing::make_add_engine();
  while (!sample.spec.programs.empty()) remove_program(sample, 0);
  add_program(sample, 0, kiln::testing::foreign_program());
  const auto bytes = sample.bytes();
  kiln_engine* engine = nullptr;
  EXPECT_EQ(kiln_engine_load_memory(bytes.data(), bytes.size(), nullptr, &engine),
            KILN_UNSUPPORTED);
  const kiln_load_options options{sizeof(options), nullptr, 1, 1};
  ASSERT_EQ(kiln_engine_load_memory(bytes.data(), bytes.size(), &options, &engine), KILN_OK)
      << kiln_last_error();
  EXPECT_EQ(kiln_engine_num_inputs(engine), 2u);
  EXPECT_STREQ(kiln_engine_target(engine), "");
  kiln_bytes* json = nullptr;
  ASSERT_EQ(kiln_engine_describe(engine, &json), KILN_OK);
  EXPECT_NE(text_of(json).find(R"("target":"npu","variant":"n1")"), std::string::npos);
  kiln_session* session = nullptr;
  EXPECT_EQ(kiln_session_create(engine, nullptr, &session), KILN_UNSUPPORTED);
  kiln_engine_destroy(engine);
}

#ifdef KILN_COMMAND
// What `kiln inspect` prints about an engine.
std::string inspect(const kiln::testing::SampleEngine& sample) {
  const std::string path = ::testing::TempDir() + "kiln_capi_inspect_test.kiln";
  EXPECT_TRUE(kiln::engine::write_file(sample.spec, sample.constants(), path).ok());
  std::FILE* pipe = popen((KILN_COMMAND " inspect " + path + " 2>&1").c_str(), "r");
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  EXPECT_EQ(pclose(pipe), 0) << text;
  std::remove(path.c_str());
  return text;
}

TEST(KilnInspect, DescribesEnginesForOtherMachines) {
  kiln::testing::SampleEngine sample = kiln::testing::make_add_engine();
  for (auto& program : sample.spec.programs) program.features = {"avx1024"};
  std::string text = inspect(sample);
  EXPECT_NE(text.find("x: float32[1..8..32, 4]"), std::string::npos) << text;
  EXPECT_NE(text.find("cpu:x86-64-v4"), std::string::npos) << text;
  EXPECT_NE(text.find("does not run here: it needs \"avx1024\""), std::string::npos) << text;
  EXPECT_NE(text.find("add_0"), std::string::npos) << text;  // its kernels are known
  while (!sample.spec.programs.empty()) remove_program(sample, 0);
  add_program(sample, 0, kiln::testing::foreign_program());
  text = inspect(sample);
  EXPECT_NE(text.find("x: float32[1..8..32, 4]"), std::string::npos) << text;
  EXPECT_NE(text.find("npu:n1"), std::string::npos) << text;
  EXPECT_NE(text.find("does not know the target \"npu\""), std::string::npos) << text;
}
#endif

TEST_F(CapiRuntimeTest, RefusesStreamsOfTheCpu) {
  const kiln_tensor inputs[] = {tensor(x_, shape_), tensor(y_, shape_)};
  const kiln_tensor out = tensor(out_, shape_);
  kiln_run_options options{};
  options.struct_size = sizeof(options);
  options.stream = out_.data();
  EXPECT_EQ(kiln_session_run(session_, inputs, 2, &out, 1, &options), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "got a stream for a program that runs on a CPU, expected none");
}

// Counts what it gave.
struct Pool {
  int given = 0, taken = 0;

  kiln_allocator allocator() {
    return {sizeof(kiln_allocator), this,
            [](void* user, size_t bytes, size_t alignment, kiln_device device, void*) {
              EXPECT_EQ(device.type, KILN_CPU);
              ++static_cast<Pool*>(user)->given;
              return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
            },
            [](void* user, void* data, size_t, kiln_device, void*) {
              ++static_cast<Pool*>(user)->taken;
              std::free(data);
            }};
  }
};

TEST_F(CapiRuntimeTest, SessionsUseTheCallersAllocator) {
  Pool pool;
  {
    const kiln_allocator allocator = pool.allocator();  // copied
    const kiln_session_options options{sizeof(options), 1, 0, &allocator, nullptr};
    kiln_session_destroy(session_);
    ASSERT_EQ(kiln_session_create(engine_, &options, &session_), KILN_OK);
  }
  ASSERT_EQ(run(tensor(x_, shape_), tensor(y_, shape_), tensor(out_, shape_)), KILN_OK);
  EXPECT_EQ(out_, std::vector<float>(8, (5 - 1) * kSampleFactor));
  EXPECT_EQ(pool.given, 1);
  kiln_session_destroy(session_);
  session_ = nullptr;
  EXPECT_EQ(pool.taken, 1);
}

TEST_F(CapiRuntimeTest, RefusesSessionOptions) {
  kiln_session* session = nullptr;
  kiln_allocator allocator = Pool().allocator();
  allocator.release = nullptr;
  kiln_session_options options{sizeof(options), 1, 0, &allocator, nullptr};
  EXPECT_EQ(kiln_session_create(engine_, &options, &session), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(),
               "kiln_allocator has one function of two: set allocate and release");
  options = {sizeof(options), 1, 3, nullptr, nullptr};
  EXPECT_EQ(kiln_session_create(engine_, &options, &session), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "got device 3, expected 0..0 for a program of the target cpu");
  EXPECT_EQ(session, nullptr);
}

TEST_F(CapiRuntimeTest, BudgetsOfWeightsAreForGpus) {
  EXPECT_EQ(kiln_engine_streamable_bytes(nullptr), 0u);
  EXPECT_EQ(kiln_engine_streamable_bytes(engine_), 0u);
  const uint64_t budget = 0;
  const kiln_session_options options{sizeof(options), 1, 0, nullptr, &budget};
  kiln_session_destroy(session_);
  ASSERT_EQ(kiln_session_create(engine_, &options, &session_), KILN_OK);
  ASSERT_EQ(run(tensor(x_, shape_), tensor(y_, shape_), tensor(out_, shape_)), KILN_OK);
  EXPECT_EQ(out_, std::vector<float>(8, (5 - 1) * kSampleFactor));
}

TEST_F(CapiRuntimeTest, TellsWhichInputAnOutputUpdates) {
  EXPECT_EQ(kiln_engine_updated_input(nullptr, 0), -1);
  EXPECT_EQ(kiln_engine_updated_input(engine_, 0), -1);
  EXPECT_EQ(kiln_engine_updated_input(engine_, 1), -1);
  auto sample = kiln::testing::make_add_engine();
  sample.spec.outputs[0].updates = 0;
  for (auto& program : sample.spec.programs) program.version = kiln::engine::kProgramVersion;
  const auto bytes = sample.bytes();
  const kiln_load_options options{sizeof(options), "cpu:x86-64-v3", 0, 0};
  kiln_session_destroy(session_);
  kiln_engine_destroy(engine_);
  session_ = nullptr;
  engine_ = nullptr;
  ASSERT_EQ(kiln_engine_load_memory(bytes.data(), bytes.size(), &options, &engine_), KILN_OK);
  EXPECT_EQ(kiln_engine_updated_input(engine_, 0), 0);
  ASSERT_EQ(kiln_session_create(engine_, nullptr, &session_), KILN_OK);
  for (int step = 0; step < 3; ++step)  // of one state, in place
    ASSERT_EQ(run(tensor(x_, shape_), tensor(y_, shape_), tensor(x_, shape_)), KILN_OK);
  EXPECT_EQ(x_, std::vector<float>(8, 5 - 3));
  kiln_session* other = nullptr;  // with a state of its own
  ASSERT_EQ(kiln_session_create(engine_, nullptr, &other), KILN_OK);
  std::swap(session_, other);
  ASSERT_EQ(run(tensor(out_, shape_), tensor(y_, shape_), tensor(out_, shape_)), KILN_OK);
  kiln_session_destroy(other);
  EXPECT_EQ(out_, std::vector<float>(8, -1));
  EXPECT_EQ(x_, std::vector<float>(8, 5 - 3));
  kiln_session_destroy(session_);
  kiln_engine_destroy(engine_);  // which borrows the bytes
  session_ = nullptr;
  engine_ = nullptr;
}

// A later version tells a struct that ends in padding from none that has a field there.
template <typename Struct, typename Last>
bool ends_with(Last Struct::* last) {
  const Struct object{};
  const void* end = &(object.*last) + 1;
  return end == &object + 1;
}

TEST(CapiRuntime, GrowingStructsHaveNoPaddingAtTheEnd) {
  EXPECT_TRUE(ends_with(&kiln_tensor::device));
  EXPECT_TRUE(ends_with(&kiln_load_options::describe_only));
  EXPECT_TRUE(ends_with(&kiln_allocator::release));
  EXPECT_TRUE(ends_with(&kiln_session_options::weight_budget));
  EXPECT_TRUE(ends_with(&kiln_run_options::output_user));
  EXPECT_TRUE(ends_with(&kiln_output::rank));
  EXPECT_TRUE(ends_with(&kiln_tensor_info::dims));
  EXPECT_TRUE(ends_with(&kiln_kernel_call::run));
  EXPECT_TRUE(ends_with(&kiln_kernel_entry::user));
}

TEST_F(CapiRuntimeTest, RefusesManyInputs) {
  const std::vector<kiln_tensor> inputs(100, tensor(x_, shape_));
  kiln_tensor out = tensor(out_, shape_);
  EXPECT_EQ(kiln_session_run(session_, inputs.data(), inputs.size(), &out, 1, nullptr),
            KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "got 100 inputs, expected 2");
}

TEST_F(CapiRuntimeTest, RangeErrorsSayEverything) {
  const int64_t large[2] = {33, 4};
  std::vector<float> values(33 * 4);
  const kiln_tensor big = tensor(values, large);
  EXPECT_EQ(run(big, big, big), KILN_OUT_OF_RANGE);
  EXPECT_STREQ(kiln_last_error(), "input \"x\" dim 0: got 33, expected 1..32");
}

TEST_F(CapiRuntimeTest, OptionsNeedTheirSize) {
  kiln_engine* engine = nullptr;
  const kiln_load_options options{};
  EXPECT_EQ(kiln_engine_load_file(path_.c_str(), &options, &engine), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "kiln_load_options.struct_size is not set");
}

TEST_F(CapiRuntimeTest, OptionsMayBeOlderOrNewer) {
  struct Newer {
    kiln_load_options options;
    uint64_t more[4];
  } newer = {{sizeof(Newer), "cpu:x86-64-v3", 0}, {}};
  kiln_engine* engine = nullptr;
  ASSERT_EQ(kiln_engine_load_file(path_.c_str(), &newer.options, &engine), KILN_OK);
  kiln_engine_destroy(engine);
  // What is asked for in a field that is not known is not left undone in silence.
  newer.more[3] = 1;
  engine = nullptr;
  EXPECT_EQ(kiln_engine_load_file(path_.c_str(), &newer.options, &engine), KILN_UNSUPPORTED);
  EXPECT_STREQ(kiln_last_error(),
               "kiln_load_options has fields set that this version of Kiln, 0.1.0, does not know");
  EXPECT_EQ(engine, nullptr);
  const size_t older = sizeof(size_t);
  ASSERT_EQ(kiln_engine_load_file(path_.c_str(), reinterpret_cast<const kiln_load_options*>(&older),
                                  &engine),
            KILN_OK);
  kiln_engine_destroy(engine);
}

TEST_F(CapiRuntimeTest, ErrorsBelongToTheirThread) {
  EXPECT_EQ(kiln_engine_input(engine_, 9, nullptr), KILN_INVALID_ARGUMENT);
  const std::string here = kiln_last_error();
  std::thread([] { EXPECT_STREQ(kiln_last_error(), ""); }).join();
  EXPECT_EQ(kiln_last_error(), here);
}

TEST_F(CapiRuntimeTest, SessionsKeepTheEngineAlive) {
  kiln_engine_destroy(engine_);
  engine_ = nullptr;
  ASSERT_EQ(run(tensor(x_, shape_), tensor(y_, shape_), tensor(out_, shape_)), KILN_OK);
}

TEST(CapiRuntime, NamesAndVersion) {
  EXPECT_STREQ(kiln_version(), "0.1.0");
  EXPECT_STREQ(kiln_status_name(KILN_OUT_OF_RANGE), "out of range");
  EXPECT_STREQ(kiln_status_name(KILN_INDEX_ERROR), "index error");
  EXPECT_STREQ(kiln_status_name(KILN_DIVISION_BY_ZERO), "division by zero");
  EXPECT_STREQ(kiln_status_name(KILN_CANCELLED), "cancelled");
  EXPECT_STREQ(kiln_status_name(KILN_KERNEL_FAILED), "kernel failed");
  EXPECT_STREQ(kiln_status_name(static_cast<kiln_status>(99)), "unknown status");
}

TEST(CapiRuntime, RefusesForeignFiles) {
  kiln_engine* engine = nullptr;
  EXPECT_EQ(kiln_engine_load_file("/proc/self/exe", nullptr, &engine), KILN_INVALID_ENGINE);
  EXPECT_EQ(kiln_engine_load_file("/nowhere/at.all", nullptr, &engine), KILN_NOT_FOUND);
  EXPECT_EQ(kiln_engine_load_file("/", nullptr, &engine), KILN_IO_ERROR);
  EXPECT_EQ(kiln_engine_load_memory("", 0, nullptr, &engine), KILN_INVALID_ENGINE);
  EXPECT_EQ(engine, nullptr);
}

}  // namespace
