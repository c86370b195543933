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

constexpr std::array<float, 4> kConstant = {1, 2, 3, 4};

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

engine::ProgramSpec empty_program(const char* generation) {
  static constexpr std::array<std::byte, 64> kCode = {};
  engine::ProgramSpec program;
  program.target = "cuda";
  program.variant = generation;
  program.features = {generation};
  program.code = kCode;
  return program;
}

// The engine with these programs.
std::vector<std::byte> written(const std::vector<engine::ProgramSpec>& programs,
                               const std::vector<engine::ProgramConstants>& constants) {
  engine::Spec spec;
  spec.name = "sample";
  spec.producer = "tests";
  spec.sizes = {{SizeOp::Constant, -1, -1, 4},
                {SizeOp::Constant, -1, -1, 16},
                {SizeOp::Constant, -1, -1, 1},
                {SizeOp::Constant, -1, -1, 1 << 20}};
  spec.inputs = {{"x", DType::F32, {kElements}}};
  spec.outputs = {{"y", DType::F32, {kElements}}};
  spec.programs = programs;
  const auto bytes = engine::write(spec, constants, engine::Weights::Included);
  EXPECT_TRUE(bytes.ok()) << bytes.status().message();
  return bytes.ok() ? *bytes : std::vector<std::byte>();
}

// Two steps with a temporary between them, and a constant.
engine::ProgramSpec spread_program(const char* generation) {
  engine::ProgramSpec program = empty_program(generation);
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
  return program;
}

engine::ProgramConstants spread_constants() {
  return {{}, {}, std::as_bytes(std::span(kConstant)), {}};
}

}  // namespace

std::vector<std::byte> make_gpu_engine(const char* generation) {
  return written({spread_program(generation)}, {spread_constants()});
}

std::vector<std::byte> make_gpu_engine(std::initializer_list<const char*> generations, bool ends) {
  std::vector<std::vector<std::byte>> codes;
  std::vector<engine::ProgramSpec> programs;
  std::vector<engine::ProgramConstants> constants;
  for (const char* generation : generations) {
    auto& code = codes.emplace_back(64, static_cast<std::byte>(codes.size() + 1));
    if (ends) code.back() = {};
    programs.push_back(spread_program(generation));
    constants.push_back(spread_constants());
  }
  for (size_t i = 0; i < codes.size(); ++i) programs[i].code = codes[i];
  return written(programs, constants);
}

std::vector<std::byte> make_weights_engine(size_t num_steps, size_t weight_bytes) {
  engine::ProgramSpec program = empty_program("sm_90");
  engine::ProgramConstants contents;
  std::vector<std::vector<std::byte>> weights;
  const auto add = [&](BufferSpec spec) {
    program.buffers.push_back(std::move(spec));
    return static_cast<int32_t>(program.buffers.size() - 1);
  };
  int32_t from = add(buffer(BufferKind::Input, kBytes));
  std::vector<int32_t> places;
  for (size_t i = 0; i < num_steps; ++i) {
    BufferSpec constant;
    constant.kind = BufferKind::Constant;
    constant.constant_bytes = weight_bytes;
    weights.emplace_back(weight_bytes, static_cast<std::byte>(i + 1));
    places.push_back(add(constant));
  }
  for (size_t i = 0; i < num_steps; ++i) {
    const bool is_last = i + 1 == num_steps;
    BufferSpec to = buffer(is_last ? BufferKind::Output : BufferKind::Temporary, kBytes);
    to.first_step = is_last ? -1 : static_cast<int32_t>(i);
    to.last_step = is_last ? -1 : static_cast<int32_t>(i + 1);
    const int32_t result = add(to);
    std::vector<int32_t> buffers = {from, places[i]};
    if (is_last) buffers.push_back(places[0]);
    buffers.push_back(result);
    program.kernels.push_back(
        {.name = "step", .kind = "loop_nest", .entry = 0, .function = "kernel"});
    program.steps.push_back(launch(static_cast<int32_t>(i), buffers, kBytes));
    from = result;
  }
  contents.resize(program.buffers.size());
  for (size_t i = 0; i < num_steps; ++i) contents[static_cast<size_t>(places[i])] = weights[i];
  return written({program}, {contents});
}

}  // namespace kiln::test
