#include "engine/sample_engine.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "backends/cpu/device/cpu_features.h"
#include "engine/writer.h"

namespace kiln::testing {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::KernelSpec;
using engine::ProgramSpec;
using engine::SizeOp;
using engine::Spec;
using engine::StepSpec;

// buffers a, b, out: out[i] = a[i] + b[i] for i in [begin, end). The byte at kOperation is 0x58 for
// addss, 0x5c for subss.
constexpr std::array<uint8_t, 37> kAddCode = {
    0x48, 0x8b, 0x07,              // mov rax, [rdi]
    0x48, 0x8b, 0x57, 0x08,        // mov rdx, [rdi+8]
    0x48, 0x8b, 0x7f, 0x10,        // mov rdi, [rdi+16]
    0x4c, 0x39, 0xc1,              // loop: cmp rcx, r8
    0x7d, 0x14,                    // jge done
    0xf3, 0x0f, 0x10, 0x04, 0x88,  // movss xmm0, [rax+rcx*4]
    0xf3, 0x0f, 0x58, 0x04, 0x8a,  // addss xmm0, [rdx+rcx*4]
    0xf3, 0x0f, 0x11, 0x04, 0x8f,  // movss [rdi+rcx*4], xmm0
    0x48, 0xff, 0xc1,              // inc rcx
    0xeb, 0xe7,                    // jmp loop
    0xc3,                          // done: ret
};
constexpr size_t kOperation = 23;

// buffers a, factor, out: scratch[0] = factor[0]; out[i] = a[i] * scratch[0].
constexpr std::array<uint8_t, 45> kScaleCode = {
    0x48, 0x8b, 0x07,              // mov rax, [rdi]
    0x4c, 0x8b, 0x4f, 0x08,        // mov r9, [rdi+8]
    0x48, 0x8b, 0x7f, 0x10,        // mov rdi, [rdi+16]
    0xf3, 0x41, 0x0f, 0x10, 0x09,  // movss xmm1, [r9]
    0xf3, 0x0f, 0x11, 0x0a,        // movss [rdx], xmm1
    0x4c, 0x39, 0xc1,              // loop: cmp rcx, r8
    0x7d, 0x13,                    // jge done
    0xf3, 0x0f, 0x10, 0x04, 0x88,  // movss xmm0, [rax+rcx*4]
    0xf3, 0x0f, 0x59, 0x02,        // mulss xmm0, [rdx]
    0xf3, 0x0f, 0x11, 0x04, 0x8f,  // movss [rdi+rcx*4], xmm0
    0x48, 0xff, 0xc1,              // inc rcx
    0xeb, 0xe8,                    // jmp loop
    0xc3,                          // done: ret
};

constexpr uint64_t kScaleEntry = 64;

std::span<const std::byte> make_code(uint8_t operation) {
  static std::array<std::array<std::byte, 128>, 2> images;
  std::array<std::byte, 128>& image = images[operation == 0x58 ? 0 : 1];
  image.fill(std::byte{0xcc});
  std::memcpy(image.data(), kAddCode.data(), kAddCode.size());
  std::memcpy(image.data() + kScaleEntry, kScaleCode.data(), kScaleCode.size());
  image[kOperation] = std::byte{operation};
  return image;
}

// Slots of the size program.
enum Slots : engine::Slot { kBatch, kFour, kElements, kBytes, kScratch };

BufferSpec make_buffer(BufferKind kind, int32_t index) {
  BufferSpec buffer;
  buffer.kind = kind;
  buffer.index = index;
  buffer.bytes = kBytes;
  return buffer;
}

StepSpec make_step(int32_t kernel, std::vector<int32_t> buffers) {
  StepSpec step;
  step.kernel = kernel;
  step.buffers = std::move(buffers);
  step.tasks = kElements;
  step.min_tasks_per_thread = 16;
  step.scratch_bytes = kScratch;
  step.writes.assign(step.buffers.size(), -1);
  step.writes.back() = kFour;  // one f32 per task
  return step;
}

KernelSpec make_kernel(const char* name, std::vector<std::string> sources, uint64_t entry) {
  KernelSpec kernel;
  kernel.name = name;
  kernel.kind = "loop_nest";
  kernel.sources = std::move(sources);
  kernel.entry = entry;
  return kernel;
}

// The program of make_add_engine() for one level; `operation` is that of kAddCode.
ProgramSpec make_program(const char* variant, std::vector<std::string> features,
                         uint8_t operation) {
  ProgramSpec program;
  program.target = "cpu";
  program.variant = variant;
  program.features = std::move(features);
  program.code = make_code(operation);
  program.kernels = {make_kernel("add_0", {"add"}, 0)};
  program.buffers = {make_buffer(BufferKind::Input, 0), make_buffer(BufferKind::Input, 1),
                     make_buffer(BufferKind::Output, 0)};
  program.steps = {make_step(0, {0, 1, 2})};
  return program;
}

Spec make_spec() {
  Spec spec;
  spec.name = "sample";
  spec.producer = "tests";
  spec.symbols = {{.name = "batch", .input = 0, .dim = 0, .min = 1, .max = 32, .opt = 8}};
  spec.sizes = {{SizeOp::Symbol, -1, -1, 0},
                {SizeOp::Constant, -1, -1, 4},
                {SizeOp::Mul, kBatch, kFour, 0},
                {SizeOp::Mul, kElements, kFour, 0},
                {SizeOp::Constant, -1, -1, 8}};
  spec.inputs = {{"x", DType::F32, {kBatch, kFour}}, {"y", DType::F32, {kBatch, kFour}}};
  spec.outputs = {{"out", DType::F32, {kBatch, kFour}}};
  spec.programs = {make_program("x86-64-v4", {"avx2", "avx512"}, 0x58),
                   make_program("x86-64-v3", {"avx2"}, 0x5c)};
  return spec;
}

}  // namespace

std::vector<engine::ProgramConstants> SampleEngine::constants() const {
  std::vector<engine::ProgramConstants> constants;
  for (const auto& program : contents) constants.emplace_back(program.begin(), program.end());
  return constants;
}

std::vector<std::byte> SampleEngine::bytes() const {
  Result<std::vector<std::byte>> written = engine::write(spec, constants());
  EXPECT_TRUE(written.ok()) << written.status().message();
  return written.ok() ? *written : std::vector<std::byte>();
}

SampleEngine make_add_engine() {
  SampleEngine sample{make_spec(), {}};
  for (const ProgramSpec& program : sample.spec.programs)
    sample.contents.emplace_back(program.buffers.size());
  return sample;
}

SampleEngine make_data_size_engine() {
  enum Numbers : engine::Slot { kMost, kWord, kFound, kCount, kAll, kResult };
  SampleEngine sample = make_add_engine();
  Spec& spec = sample.spec;
  spec.symbols.clear();
  spec.data_sizes = {{.name = "u", .min = 0, .max = int64_t{1} << 60, .opt = 8, .bound = kMost}};
  spec.sizes = {{SizeOp::Constant, -1, -1, 16}, {SizeOp::Constant, -1, -1, 4},
                {SizeOp::Symbol, -1, -1, 0},    {SizeOp::Constant, -1, -1, 8},
                {SizeOp::Constant, -1, -1, 64}, {SizeOp::Mul, kFound, kWord, 0},
                {SizeOp::Constant, -1, -1, 2}};
  spec.inputs = {{"x", DType::F32, {6}}, {"y", DType::F32, {6}}, {"z", DType::F32, {kMost}}};
  spec.outputs = {{"out", DType::F32, {kFound}}};
  const auto buffer = [](BufferKind kind, int32_t index, engine::Slot bytes) {
    BufferSpec result = make_buffer(kind, index);
    result.bytes = bytes;
    return result;
  };
  const auto step = [](std::vector<int32_t> buffers, engine::Slot tasks) {
    StepSpec result = make_step(0, std::move(buffers));
    result.tasks = tasks;
    result.scratch_bytes = -1;
    result.writes.back() = kWord;
    return result;
  };
  for (size_t i = 0; i < spec.programs.size(); ++i) {
    ProgramSpec& program = spec.programs[i];
    program.version = engine::kProgramVersion;
    program.buffers = {buffer(BufferKind::Input, 0, kCount), buffer(BufferKind::Input, 1, kCount),
                       buffer(BufferKind::Input, 2, kAll), buffer(BufferKind::Output, 0, kResult),
                       buffer(BufferKind::Temporary, -1, kCount)};
    program.steps = {step({0, 1, 4}, 6), step({2, 2, 3}, kFound)};
    program.data_sizes = {{.step = 1, .buffer = 4}};
    sample.contents[i].resize(program.buffers.size());
  }
  return sample;
}

SampleEngine make_sample_engine() {
  SampleEngine sample = make_add_engine();
  BufferSpec sum = make_buffer(BufferKind::Temporary, -1);
  sum.first_step = 0;
  sum.last_step = 1;
  for (size_t i = 0; i < sample.spec.programs.size(); ++i) {
    ProgramSpec& program = sample.spec.programs[i];
    program.buffers.push_back(sum);
    sample.contents[i].emplace_back();
    program.kernels.push_back(make_kernel("scale_1", {"mul", "factor"}, kScaleEntry));
    program.steps = {make_step(0, {0, 1, 3}), make_step(1, {3, 4, 2})};
  }
  const auto factor = std::as_bytes(std::span(&kSampleFactor, 1));
  add_constant(sample, {factor.begin(), factor.end()});
  return sample;
}

SampleEngine make_winograd_engine() {
  SampleEngine sample = make_sample_engine();
  for (size_t i = 0; i < sample.spec.programs.size(); ++i) {
    ProgramSpec& program = sample.spec.programs[i];
    program.version = engine::kProgramVersion;
    BufferSpec filters, made;
    filters.kind = made.kind = BufferKind::Constant;
    made.winograd = {5, DType::F32, 4, 1, 8, 8, 8, 1};
    made.constant_bytes = 36 * 8 * sizeof(float);
    program.buffers.insert(program.buffers.end(), {filters, made});
    sample.contents[i].emplace_back(9 * 8 * sizeof(float), std::byte{0});
    sample.contents[i].emplace_back();
  }
  return sample;
}

void add_constant(SampleEngine& sample, const std::vector<std::byte>& content) {
  for (size_t i = 0; i < sample.spec.programs.size(); ++i) {
    BufferSpec buffer;
    buffer.kind = BufferKind::Constant;
    sample.spec.programs[i].buffers.push_back(buffer);
    sample.contents[i].push_back(content);
  }
}

void add_program(SampleEngine& sample, size_t place, ProgramSpec program) {
  const auto at = static_cast<std::ptrdiff_t>(place);
  sample.contents.emplace(sample.contents.begin() + at, program.buffers.size());
  sample.spec.programs.insert(sample.spec.programs.begin() + at, std::move(program));
}

void remove_program(SampleEngine& sample, size_t place) {
  const auto at = static_cast<std::ptrdiff_t>(place);
  sample.contents.erase(sample.contents.begin() + at);
  sample.spec.programs.erase(sample.spec.programs.begin() + at);
}

ProgramSpec foreign_program() {
  ProgramSpec program;
  program.target = "npu";
  program.variant = "n1";
  program.features = {"tensor_cores"};
  KernelSpec kernel;
  kernel.name = "everything";
  program.kernels = {kernel};
  StepSpec step;
  step.kind = static_cast<engine::StepKind>(9);
  step.kernel = 77;
  program.steps = {step};
  return program;
}

bool cpu_runs_v4() { return cpu::has_cpu_feature("avx512"); }

}  // namespace kiln::testing
