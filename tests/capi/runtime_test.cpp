// The running half of the C API, as a C program would use and misuse it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <thread>

#include "engine/sample_engine.h"
#include "engine/writer.h"
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
    const kiln_load_options options{sizeof(options), "x86-64-v3", 1};
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
    return {values.data(), KILN_F32, 2, shape, nullptr};
  }
  kiln_status run(kiln_tensor x, kiln_tensor y, kiln_tensor out) {
    const kiln_tensor inputs[] = {x, y};
    return kiln_session_run(session_, inputs, 2, &out, 1);
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
  EXPECT_STREQ(kiln_engine_cpu_variant(engine_), "x86-64-v3");
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
  const kiln_tensor inputs[] = {{nullptr, KILN_F32, 2, shape_, nullptr},
                                {nullptr, KILN_F32, 2, shape_, nullptr}};
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
  EXPECT_EQ(kiln_session_run(nullptr, nullptr, 0, nullptr, 0), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_run(session_, nullptr, 2, nullptr, 1), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "the inputs are null");
  EXPECT_EQ(kiln_session_profile(session_, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_session_enable_profiling(nullptr, 1), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_engine_num_inputs(nullptr), 0u);
  EXPECT_EQ(kiln_bytes_size(nullptr), 0u);
  EXPECT_EQ(kiln_bytes_data(nullptr), nullptr);
  EXPECT_STREQ(kiln_engine_cpu_variant(nullptr), "");
  kiln_engine_destroy(nullptr);
  kiln_session_destroy(nullptr);
  kiln_bytes_destroy(nullptr);
}

TEST_F(CapiRuntimeTest, RefusesTensorsThatMakeNoSense) {
  const kiln_tensor good = tensor(x_, shape_);
  kiln_tensor bad = good;
  bad.dtype = static_cast<kiln_dtype>(10);
  EXPECT_EQ(run(bad, good, good), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "input 0: got dtype 10, expected 0..9");
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

TEST_F(CapiRuntimeTest, RefusesManyInputs) {
  const std::vector<kiln_tensor> inputs(100, tensor(x_, shape_));
  kiln_tensor out = tensor(out_, shape_);
  EXPECT_EQ(kiln_session_run(session_, inputs.data(), inputs.size(), &out, 1),
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
  EXPECT_STREQ(kiln_last_error(), "struct_size of the options is not set");
}

TEST_F(CapiRuntimeTest, OptionsMayBeOlderOrNewer) {
  struct Newer {
    kiln_load_options options;
    uint64_t more[4];
  } newer = {{sizeof(Newer), "x86-64-v3", 0}, {1, 2, 3, 4}};
  kiln_engine* engine = nullptr;
  ASSERT_EQ(kiln_engine_load_file(path_.c_str(), &newer.options, &engine), KILN_OK);
  kiln_engine_destroy(engine);
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
