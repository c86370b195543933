// The stub's device looks at code from a file before it runs any, and at places in memory while it
// does.
#include <gtest/gtest.h>

#include <cstring>

#include "backends/stub/device/check_code.h"
#include "backends/stub/device/machine.h"

namespace kiln::stub {
namespace {

// y[task] = sum over 3 elements of x, for a step with buffers x and y, a parameter and a check.
std::vector<Instruction> sample() {
  return {
      {.code = Code::Begin, .immediate = 6},
      {.code = Code::Constant, .to = 1},
      {.code = Code::Constant, .to = 2, .immediate = 3},
      {.code = Code::Loop, .to = 3, .a = 2, .immediate = 8},
      {.code = Code::Parameter, .to = 5},
      {.code = Code::SkipUnless, .a = 5, .immediate = 7},
      {.code = Code::Load, .to = 4, .a = 3, .immediate = 0},
      {.code = Code::Add, .to = 1, .a = 1, .b = 4},
      {.code = Code::End, .immediate = 3},
      {.code = Code::Note, .a = 1},
      {.code = Code::Store, .a = 0, .b = 1, .immediate = 1},
      {.code = Code::Return},
  };
}

Status check(const std::vector<Instruction>& code, uint64_t entry = 0) {
  engine::ProgramSpec program;
  program.kernels.push_back({.name = "sum", .entry = entry});
  engine::StepSpec step;
  step.kernel = 0;
  step.buffers = {0, 1};
  step.params = {0};
  step.checks.resize(1);
  program.steps.push_back(step);
  program.code = std::as_bytes(std::span(code));
  return read_code(program).status();
}

TEST(StubCode, IsRead) { EXPECT_TRUE(check(sample()).ok()) << check(sample()).message(); }

TEST(StubCode, ThatIsForgedIsRefused) {
  struct Forgery {
    size_t at;
    Instruction instruction;
  };
  const std::vector<Forgery> forgeries = {
      {0, {.code = Code::Add}},
      {0, {.code = Code::Begin, .immediate = 0}},
      {0, {.code = Code::Begin, .immediate = 1 << 20}},
      {0, {.code = Code::Begin, .immediate = 5}},  // one register less than is used
      {1, {.code = Code::Begin}},
      {1, {.code = static_cast<Code>(static_cast<int>(kLastCode) + 1)}},
      {1, {.code = Code::Constant, .dtype = DType::F16}},
      {1, {.code = Code::Constant, .to = 6}},
      {1, {.code = Code::Convert, .immediate = -1}},
      {1, {.code = Code::Convert, .immediate = 300}},
      {3, {.code = Code::Add}},  // the end of no loop
      {3, {.code = Code::Loop, .to = 3, .a = 2, .immediate = 9}},
      {3, {.code = Code::Loop, .to = 3, .a = 2, .immediate = -1}},
      {4, {.code = Code::Parameter, .to = 5, .immediate = 1}},
      {4, {.code = Code::Parameter, .to = 5, .immediate = -1}},
      {4, {.code = Code::Add, .to = 3}},  // the counter of the loop
      {4, {.code = Code::Add, .to = 2}},  // its extent
      {5, {.code = Code::SkipUnless, .a = 5, .immediate = 4}},
      {5, {.code = Code::SkipUnless, .a = 5, .immediate = 9}},  // out of the loop
      {5, {.code = Code::SkipUnless, .a = 5, .immediate = 100}},
      {6, {.code = Code::Load, .to = 4, .a = 3, .immediate = 2}},
      {6, {.code = Code::Load, .to = 4, .a = 7, .immediate = 0}},
      {8, {.code = Code::Add}},  // a loop without an end
      {8, {.code = Code::End, .immediate = 2}},
      {9, {.code = Code::Note, .immediate = 1}},
      {10, {.code = Code::Store, .b = 1, .immediate = -1}},
      {11, {.code = Code::Add}},  // no return
  };
  for (const Forgery& forgery : forgeries) {
    std::vector<Instruction> code = sample();
    code[forgery.at] = forgery.instruction;
    EXPECT_EQ(check(code).code(), StatusCode::InvalidEngine)
        << "instruction " << forgery.at << ", forgery " << (&forgery - forgeries.data());
  }
  EXPECT_FALSE(check(sample(), 8).ok());
  EXPECT_FALSE(check(sample(), 12 * sizeof(Instruction)).ok());
  EXPECT_FALSE(check({}).ok());
}

TEST(StubCode, StaysInsideOfBuffers) {
  std::vector<int64_t> x = {1, 2, 3}, y = {0, 0};
  const std::vector<int64_t> params = {1};
  const auto memory_of = [](std::vector<int64_t>& values, size_t count, bool writable) {
    return Memory{reinterpret_cast<std::byte*>(values.data()), count * sizeof(int64_t), writable};
  };
  const std::vector<Instruction> code = sample();
  std::vector<Register> registers;
  const auto run = [&](const std::vector<Memory>& buffers, int64_t task) {
    return run_task({code.data(), buffers, params}, task, registers);
  };
  const std::vector<Memory> good = {memory_of(x, 3, false), memory_of(y, 2, true)};
  EXPECT_FALSE(run(good, 1).out_of_bounds);
  EXPECT_EQ(y, (std::vector<int64_t>{0, 6}));
  EXPECT_TRUE(run(good, 2).out_of_bounds);
  EXPECT_TRUE(run(good, -1).out_of_bounds);
  EXPECT_TRUE(run({memory_of(x, 2, false), memory_of(y, 2, true)}, 0).out_of_bounds);
  EXPECT_TRUE(run({memory_of(x, 3, false), memory_of(y, 2, false)}, 0).out_of_bounds);
  EXPECT_EQ(y, (std::vector<int64_t>{0, 6}));
}

TEST(StubCode, NotesWhatFails) {
  std::vector<int64_t> x = {1, -2, -3}, y = {0};
  const std::vector<Memory> buffers = {{reinterpret_cast<std::byte*>(x.data()), 24, false},
                                       {reinterpret_cast<std::byte*>(y.data()), 8, true}};
  std::vector<Register> registers;
  const std::vector<Instruction> code = sample();
  const std::vector<int64_t> all = {1}, none = {0};
  EXPECT_EQ(run_task({code.data(), buffers, all}, 0, registers).failed_checks, 1U);
  EXPECT_EQ(y[0], -4);
  EXPECT_EQ(run_task({code.data(), buffers, none}, 0, registers).failed_checks, 0U);
  EXPECT_EQ(y[0], 0);
}

}  // namespace
}  // namespace kiln::stub
