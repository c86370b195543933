// kiln.hpp, as a user of it.
#include "kiln/kiln.hpp"

#include <gtest/gtest.h>

#include "engine/sample_engine.h"

namespace {

class CppApiTest : public ::testing::Test {
 protected:
  std::vector<std::byte> bytes_ = kiln::testing::make_sample_engine().bytes();
  kiln::Engine engine_ = kiln::Engine::load_memory(bytes_, {.target = "cpu:x86-64-v3"});
};

TEST_F(CppApiTest, Runs) {
  kiln::Session session(engine_, 2);
  const std::vector<float> x(12, 3), y(12, 1);
  std::vector<float> out(12);
  const auto shapes = session.output_shapes({kiln::Tensor(x, {3, 4}), kiln::Tensor(y, {3, 4})});
  ASSERT_EQ(shapes.size(), 1u);
  EXPECT_EQ(shapes[0], (std::vector<int64_t>{3, 4}));
  session.run({kiln::Tensor(x, {3, 4}), kiln::Tensor(y, {3, 4})}, {kiln::Tensor(out, shapes[0])});
  EXPECT_EQ(out, std::vector<float>(12, 6));
}

TEST_F(CppApiTest, RunsStrided) {
  kiln::Session session(engine_);
  const std::vector<float> x = {1, 2, 3, 4, 5, 6, 7, 8}, y(8);
  std::vector<float> out(8);
  session.run({kiln::Tensor(x.data(), KILN_F32, {2, 4}, {1, 2}), kiln::Tensor(y, {2, 4})},
              {kiln::Tensor(out, {2, 4})});
  EXPECT_EQ(out, (std::vector<float>{3, 9, 15, 21, 6, 12, 18, 24}));
}

TEST_F(CppApiTest, RunsAreCancelled) {
  kiln::Session session(engine_, kiln::SessionOptions{.num_threads = 1});
  EXPECT_EQ(session.device().type, KILN_CPU);
  std::vector<float> x(4), out(4);
  const kiln::Tensor in(x, {1, 4}), to(out, {1, 4});
  std::atomic<int32_t> cancel{1};
  try {
    session.run({in, in}, {to}, {.cancel = &cancel});
    FAIL() << "no error";
  } catch (const kiln::Error& error) {
    EXPECT_EQ(error.status(), KILN_CANCELLED);
  }
  cancel = 0;
  session.run({in, in}, {to}, {.cancel = &cancel});
  session.synchronize();
}

TEST_F(CppApiTest, AsksForTheMemoryOfOutputs) {
  kiln::Session session(engine_);
  const std::vector<float> x(12, 3), y(12, 1);
  std::vector<float> out;
  const auto allocate = [&](const kiln_output& output) -> void* {
    out.resize(output.bytes / sizeof(float));
    return out.data();
  };
  session.run({kiln::Tensor(x, {3, 4}), kiln::Tensor(y, {3, 4})}, allocate);
  EXPECT_EQ(out, std::vector<float>(12, 6));
  const auto fail = [](const kiln_output&) -> void* { throw std::length_error("too long"); };
  EXPECT_THROW(session.run({kiln::Tensor(x, {3, 4}), kiln::Tensor(y, {3, 4})}, fail),
               std::length_error);
}

TEST_F(CppApiTest, Describes) {
  EXPECT_EQ(engine_.num_inputs(), 2u);
  EXPECT_EQ(engine_.target(), "cpu");
  EXPECT_EQ(engine_.variant(), "x86-64-v3");
  EXPECT_STREQ(engine_.output(0).name, "out");
  EXPECT_EQ(engine_.describe().front(), '{');
  EXPECT_EQ(kiln::Session(engine_).profile(), "[]");
}

TEST_F(CppApiTest, ThrowsWhatWentWrong) {
  kiln::Session session(engine_);
  std::vector<float> values(33 * 4);
  const kiln::Tensor large(values, {33, 4});
  try {
    session.run({large, large}, {large});
    FAIL() << "no error";
  } catch (const kiln::Error& error) {
    EXPECT_EQ(error.status(), KILN_OUT_OF_RANGE);
    EXPECT_STREQ(error.what(), "input \"x\" dim 0: got 33, expected 1..32");
  }
  EXPECT_THROW(kiln::Engine::load_file("/nowhere"), kiln::Error);
  EXPECT_THROW(engine_.input(7), kiln::Error);
}

TEST_F(CppApiTest, ChecksTheNumberOfElements) {
  std::vector<float> values(8);
  EXPECT_THROW(kiln::Tensor(values, {3, 4}), kiln::Error);
  EXPECT_THROW(kiln::Tensor(values.data(), KILN_F32, {2, 4}, {1}), kiln::Error);
}

}  // namespace
