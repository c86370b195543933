#include "cuda/fake_driver/gpu_engine.h"

#include <gtest/gtest.h>

#include <array>
#include <span>
#include <string>

#include "engine/writer.h"

namespace kiln::test {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::SizeOp;

// Slots.
constexpr engine::Slot kElements = 0, kBytes = 1, kOne = 2, kWorkspace = 3;

BufferSpec buffer(BufferKind kind, engine::Slot bytes) {
  BufferSpec result;
  result.kind = kind;
  result.index = kind == BufferKind::Temporary ? -1 : 0;
  result.bytes = bytes;
  return result;
}

engine::StepSpec launch(int32_t kernel, std::vector<int32_t> buffers, engine::Slot writes) {
  engine::StepSpec step;
  step.kind = engine::StepKind::Launch;
  step.kernel = kernel;
  step.buffers = std::move(buffers);
  step.launch.grid = step.launch.block = {kOne};
  step.writes.assign(step.buffers.size(), -1);
  step.writes.back() = writes;
  return step;
}

}  // namespace

std::vector<std::byte> make_gpu_engine(const char* generation) {
  static constexpr std::array<std::byte, 64> kCode = {};
  static constexpr std::array<float, 4> kConstant = {1, 2, 3, 4};
  engine::ProgramSpec program;
  program.target = "cuda";
  program.variant = generation;
  program.features = {generation};
  program.code = kCode;
  program.kernels = {{.name = "spread", .kind = "loop_nest", .entry = 0, .function = "kernel"},
                     {.name = "gather", .kind = "loop_nest", .entry = 0, .function = "kernel"}};
  BufferSpec temporary = buffer(BufferKind::Temporary, kWorkspace), constant;
  temporary.first_step = 0;
  temporary.last_step = 1;
  constant.kind = BufferKind::Constant;
  constant.constant_bytes = sizeof(kConstant);
  program.buffers = {buffer(BufferKind::Input, kBytes), temporary, constant,
                     buffer(BufferKind::Output, kBytes)};
  program.steps = {launch(0, {0, 1}, kWorkspace), launch(1, {1, 2, 3}, kBytes)};
  engine::Spec spec;
  spec.name = "sample";
  spec.producer = "tests";
  spec.sizes = {{SizeOp::Constant, -1, -1, 4},
                {SizeOp::Constant, -1, -1, 16},
                {SizeOp::Constant, -1, -1, 1},
                {SizeOp::Constant, -1, -1, 1 << 20}};
  spec.inputs = {{"x", DType::F32, {kElements}}};
  spec.outputs = {{"y", DType::F32, {kElements}}};
  spec.programs = {program};
  const std::vector<engine::ProgramConstants> constants = {
      {{}, {}, std::as_bytes(std::span(kConstant)), {}}};
  const auto bytes = engine::write(spec, constants, engine::Weights::Included);
  EXPECT_TRUE(bytes.ok()) << bytes.status().message();
  return bytes.ok() ? *bytes : std::vector<std::byte>();
}

}  // namespace kiln::test
