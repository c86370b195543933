// Sizes that a run finds in its data: what it reads, what it makes of it, and what it refuses.
#include <array>
#include <bit>

#include "runtime/sessions.h"

namespace kiln::runtime {
namespace {

using kiln::testing::expect_error;
using kiln::testing::expect_ok;
using kiln::testing::LoadedEngine;
using kiln::testing::make_data_size_engine;
using kiln::testing::Tensor;

// out = z + z, as many elements as the i64 says that the bits of x + y are. On x86-64-v3 0 is subtracted.
class DataSizeTest : public ::testing::Test {
 protected:
  DataSizeTest() : engine_(make_data_size_engine()), session_(engine_.session()) {}

  void set_count(int64_t count) {
    const auto words = std::bit_cast<std::array<float, 2>>(count);
    x_.values = {words[0], words[1]};
  }
  std::array<TensorView, 3> inputs() { return {x_.view(), y_.view(), z_.view()}; }
  Status run_into(Tensor& out) {
    const std::array outputs = {out.view()};
    return session_->run(inputs(), outputs);
  }
  void expect_doubles(const std::vector<float>& got, size_t count) const {
    const bool adds = engine_.get()->program()->variant == "x86-64-v4";
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(got[i], adds ? 2 * z_.values[i] : 0.0f) << i;
  }

  LoadedEngine engine_;
  std::unique_ptr<Session> session_;
  Tensor x_{{2}}, y_{{2}}, z_{{16}, 1, 1};
};

TEST_F(DataSizeTest, OutputsAreAskedForWhenTheirShapesAreKnown) {
  struct Given {
    std::vector<float> memory;
    std::vector<int64_t> shape;
  };
  const auto allocate = [](void* user, const OutputRequest& request) -> void* {
    auto& given = *static_cast<Given*>(user);
    given.shape = request.tensor.shape;
    given.memory.assign(request.tensor.bytes / sizeof(float), -1.0f);
    return given.memory.data();
  };
  for (const int64_t count : {5, 0, 16, 1, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 5}) {
    set_count(count);
    Given given;
    expect_ok(session_->run(inputs(), {}, {.outputs = {&given, allocate}}));
    EXPECT_EQ(given.shape, std::vector<int64_t>{count});
    expect_doubles(given.memory, static_cast<size_t>(count));
  }
}

TEST_F(DataSizeTest, MemoryForTheLargestShapeBeginsWithTheResult) {
  const auto largest = session_->output_shapes(inputs());
  ASSERT_TRUE(largest.ok());
  EXPECT_EQ((*largest)[0].shape, std::vector<int64_t>{16});
  EXPECT_FALSE(session_->result_shapes().ok());
  for (const int64_t count : {3, 16, 0}) {
    set_count(count);
    Tensor out({16}, -1);
    expect_ok(run_into(out));
    EXPECT_EQ((*session_->result_shapes())[0].shape, std::vector<int64_t>{count});
    expect_doubles(out.values, static_cast<size_t>(count));
    for (size_t i = static_cast<size_t>(count); i < 16; ++i) EXPECT_EQ(out.values[i], -1);
  }
  Tensor small({3});
  EXPECT_EQ(run_into(small).code(), StatusCode::InvalidArgument);
}

TEST_F(DataSizeTest, SizesOutOfTheirRangeEndTheRun) {
  Tensor out({16}, -1);
  const int64_t negative = std::bit_cast<int64_t>(uint64_t{0xbf800000} << 32);
  for (const int64_t count : {int64_t{17}, int64_t{1} << 40, negative}) {
    set_count(count);
    expect_error(
        run_into(out), StatusCode::OutOfRange,
        "the size u that the data gives: got " + std::to_string(count) + ", expected 0..16");
    EXPECT_FALSE(session_->result_shapes().ok());
    EXPECT_EQ(out.values, std::vector<float>(16, -1));
  }
  set_count(2);
  expect_ok(run_into(out));
}

TEST_F(DataSizeTest, WithoutABoundMemoryIsAskedFor) {
  testing::SampleEngine sample = make_data_size_engine();
  sample.spec.data_sizes[0].bound = -1;
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  Tensor out({16});
  const std::array outputs = {out.view()};
  const Status status = session->run(inputs(), outputs);
  EXPECT_EQ(status.code(), StatusCode::InvalidArgument);
  EXPECT_NE(status.message().find("has no bound"), std::string::npos) << status.message();
}

// The file may say anything: what is read as a size has 8 bytes.
TEST_F(DataSizeTest, CountsOfOtherSizesAreRefused) {
  testing::SampleEngine sample = make_data_size_engine();
  for (engine::ProgramSpec& program : sample.spec.programs) program.buffers[4].bytes = 1;
  const LoadedEngine engine(sample);
  const Status status = engine.session()->output_shapes(inputs()).status();
  EXPECT_EQ(status.code(), StatusCode::InvalidEngine);
  EXPECT_NE(status.message().find("holds no size"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace kiln::runtime
