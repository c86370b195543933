// The plan of copies of weights: whatever the order in which copies and steps run, as far as the plan
// leaves it open, every step finds its weights.
#include "backends/cuda/device/weight_stream.h"

#include <gtest/gtest.h>

#include <random>

namespace kiln::cuda {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::ProgramSpec;

constexpr uint64_t kUnit = 256;

// Steps that use weights of any size, some of them several times, and other buffers.
ProgramSpec random_program(std::mt19937& random, uint64_t largest) {
  const auto below = [&](uint64_t bound) { return random() % bound; };
  ProgramSpec program;
  uint64_t offset = 0;
  const uint64_t num_weights = 1 + below(20);
  for (uint64_t i = 0; i < num_weights; ++i) {
    BufferSpec buffer;
    buffer.kind = BufferKind::Constant;
    buffer.offset = offset;
    buffer.constant_bytes = 1 + below(largest);
    offset += buffer.constant_bytes;
    program.buffers.push_back(buffer);
  }
  program.buffers.push_back(program.buffers.front());  // another buffer of the same weights
  program.buffers.emplace_back().kind = BufferKind::Input;
  const uint64_t num_steps = 1 + below(40);
  for (uint64_t i = 0; i < num_steps; ++i) {
    engine::StepSpec& step = program.steps.emplace_back();
    const uint64_t operands = below(5);
    for (uint64_t k = 0; k < operands; ++k)
      step.buffers.push_back(static_cast<int32_t>(below(program.buffers.size())));
  }
  return program;
}

WeightPlace place_of(const BufferSpec& buffer) { return {buffer.offset, buffer.constant_bytes}; }

// A ring in units of 256 bytes.
class Ring {
 public:
  Ring(const ProgramSpec& program, const StreamPlan& plan)
      : program_(program), plan_(plan), holds_(plan.ring_bytes / kUnit, kNothing) {}

  // With the copies as early as they may be, or as late.
  void run(bool early) {
    size_t copied = 0;
    for (size_t step = 0; step < program_.steps.size(); ++step) {
      const auto may_be = [&](const StreamPlan::Chunk& chunk) {
        return early ? chunk.after < static_cast<int64_t>(step) : chunk.step <= step;
      };
      for (; copied < plan_.chunks.size() && may_be(plan_.chunks[copied]); ++copied)
        copy(plan_.chunks[copied]);
      ASSERT_TRUE(copied == plan_.chunks.size() || plan_.chunks[copied].step > step);
      for (size_t k = 0; k < program_.steps[step].buffers.size(); ++k) check(step, k);
    }
    EXPECT_EQ(copied, plan_.chunks.size());
  }

 private:
  static constexpr WeightPlace kNothing = {~uint64_t{0}, 0};

  void copy(const StreamPlan::Chunk& chunk) {
    for (size_t i = chunk.begin; i < chunk.end; ++i) {
      const auto& [place, offset] = plan_.copies[i];
      ASSERT_EQ(offset % kUnit, 0u);
      const uint64_t units = (place.second + kUnit - 1) / kUnit;
      ASSERT_LE(offset / kUnit + units, holds_.size());
      std::fill_n(holds_.begin() + static_cast<std::ptrdiff_t>(offset / kUnit), units, place);
    }
  }

  void check(size_t step, size_t operand) const {
    const int64_t offset = plan_.offset(step, operand);
    if (offset < 0) return;
    const auto index = static_cast<size_t>(program_.steps[step].buffers[operand]);
    const WeightPlace place = place_of(program_.buffers[index]);
    const uint64_t units = (place.second + kUnit - 1) / kUnit;
    for (uint64_t i = 0; i < units; ++i)
      ASSERT_EQ(holds_.at(static_cast<uint64_t>(offset) / kUnit + i), place)
          << "step " << step << ", operand " << operand;
  }

  const ProgramSpec& program_;
  const StreamPlan& plan_;
  std::vector<WeightPlace> holds_;
};

uint64_t bytes_on_gpu(const ProgramSpec& program, const std::vector<WeightPlace>& streamed) {
  uint64_t bytes = streamable_bytes(program);
  for (const WeightPlace& place : streamed) bytes -= (place.second + kUnit - 1) / kUnit * kUnit;
  return bytes;
}

TEST(WeightStream, StepsFindTheirWeightsHoweverCopiesRun) {
  std::mt19937 random(7);
  size_t chunks = 0, waits = 0, kept = 0;
  for (int i = 0; i < 600; ++i) {
    // Large ones make a ring of two chunks; small ones fit into it together.
    const ProgramSpec program = random_program(random, i % 2 == 0 ? 16 << 20 : 200 << 10);
    const uint64_t all = streamable_bytes(program);
    const uint64_t budget = i % 3 == 0 ? 0 : random() % (all + 1);
    const std::vector<WeightPlace> streamed = choose_streamed(program, budget);
    EXPECT_LE(bytes_on_gpu(program, streamed), budget);
    const StreamPlan plan = StreamPlan::make(program, streamed);
    for (const bool early : {true, false}) Ring(program, plan).run(early);
    if (testing::Test::HasFatalFailure()) FAIL() << "program " << i;
    chunks += plan.chunks.size();
    for (const StreamPlan::Chunk& chunk : plan.chunks) waits += chunk.after >= 0 ? 1 : 0;
    kept += plan.copies.size() == streamed.size() && !streamed.empty() ? 1 : 0;
  }
  EXPECT_GT(chunks, 2000u);
  EXPECT_GT(waits, 500u);
  EXPECT_GT(kept, 50u);  // each weight was copied once
}

TEST(WeightStream, EveryOperandThatIsStreamedIsInTheRing) {
  std::mt19937 random(8);
  for (int i = 0; i < 100; ++i) {
    const ProgramSpec program = random_program(random, 1 << 20);
    const std::vector<WeightPlace> streamed =
        choose_streamed(program, streamable_bytes(program) / 2);
    const StreamPlan plan = StreamPlan::make(program, streamed);
    for (size_t step = 0; step < program.steps.size(); ++step)
      for (size_t k = 0; k < program.steps[step].buffers.size(); ++k) {
        const BufferSpec& buffer =
            program.buffers[static_cast<size_t>(program.steps[step].buffers[k])];
        const bool is_streamed = buffer.kind == BufferKind::Constant &&
                                 std::ranges::count(streamed, place_of(buffer)) > 0;
        EXPECT_EQ(plan.offset(step, k) >= 0, is_streamed);
      }
  }
}

// Ten weights of 1 MiB in a row.
ProgramSpec ten_layers() {
  ProgramSpec program;
  for (uint64_t i = 0; i < 10; ++i) {
    BufferSpec buffer;
    buffer.kind = BufferKind::Constant;
    buffer.offset = i << 20;
    buffer.constant_bytes = 1 << 20;
    program.buffers.push_back(buffer);
    program.steps.emplace_back().buffers = {static_cast<int32_t>(i)};
  }
  return program;
}

TEST(WeightStream, TheBudgetIsSpreadOverTheSteps) {
  const ProgramSpec program = ten_layers();
  EXPECT_EQ(streamable_bytes(program), 10u << 20);
  const auto layers = [&](uint64_t budget) {
    std::string text;
    for (const WeightPlace& place : choose_streamed(program, budget))
      text += static_cast<char>('0' + (place.first >> 20));
    return text;
  };
  EXPECT_EQ(layers(0), "0123456789");
  EXPECT_EQ(layers(1), "0123456789");
  EXPECT_EQ(layers(5 << 20), "02468");
  EXPECT_EQ(layers((10 << 20) - 1), "0");
  EXPECT_EQ(layers(10 << 20), "");
  EXPECT_EQ(layers(~uint64_t{0}), "");
}

TEST(WeightStream, SmallWeightsStayOnTheGpu) {
  ProgramSpec program = ten_layers();
  for (BufferSpec& buffer : program.buffers) buffer.constant_bytes = kSmallestStreamed - 1;
  EXPECT_EQ(streamable_bytes(program), 0u);
  EXPECT_TRUE(choose_streamed(program, 0).empty());
  EXPECT_EQ(StreamPlan::make(program, {}).ring_bytes, 0u);
}

}  // namespace
}  // namespace kiln::cuda
