#include "engine/sample_engine.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "engine/writer.h"
#include "support/cpu_features.h"

namespace kiln::testing {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::CodeVariant;
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

Spec make_spec() {
  Spec spec;
  spec.name = "sample";
  spec.producer = "tests";
  spec.target = "cpu";
  spec.symbols = {{.name = "batch", .input = 0, .dim = 0, .min = 1, .max = 32, .opt = 8}};
  spec.sizes = {{SizeOp::Symbol, -1, -1, 0},
                {SizeOp::Constant, -1, -1, 4},
                {SizeOp::Mul, kBatch, kFour, 0},
                {SizeOp::Mul, kElements, kFour, 0},
                {SizeOp::Constant, -1, -1, 8}};
  spec.inputs = {{"x", DType::F32, {kBatch, kFour}}, {"y", DType::F32, {kBatch, kFour}}};
  spec.outputs = {{"out", DType::F32, {kBatch, kFour}}};
  spec.variants = {{"x86-64-v4", kCpuAvx2Fma | kCpuAvx512, {0}, make_code(0x58)},
                   {"x86-64-v3", kCpuAvx2Fma, {0}, make_code(0x5c)}};
  spec.kernels = {{"add_0", "loop_nest", {"add"}}};
  spec.buffers = {make_buffer(BufferKind::Input, 0), make_buffer(BufferKind::Input, 1),
                  make_buffer(BufferKind::Output, 0)};
  return spec;
}

}  // namespace

std::vector<std::span<const std::byte>> SampleEngine::constants() const {
  return {contents.begin(), contents.end()};
}

std::vector<std::byte> SampleEngine::bytes() const {
  Result<std::vector<std::byte>> written = engine::write(spec, constants());
  EXPECT_TRUE(written.ok()) << written.status().message();
  return written.ok() ? *written : std::vector<std::byte>();
}

SampleEngine make_add_engine() {
  SampleEngine sample{make_spec(), {}};
  sample.contents.resize(sample.spec.buffers.size());
  sample.spec.steps = {make_step(0, {0, 1, 2})};
  return sample;
}

SampleEngine make_sample_engine() {
  SampleEngine sample = make_add_engine();
  Spec& spec = sample.spec;
  BufferSpec sum = make_buffer(BufferKind::Temporary, -1);
  sum.first_step = 0;
  sum.last_step = 1;
  spec.buffers.push_back(sum);
  sample.contents.emplace_back();
  const auto factor = std::as_bytes(std::span(&kSampleFactor, 1));
  add_constant(sample, {factor.begin(), factor.end()});
  spec.kernels.push_back({"scale_1", "loop_nest", {"mul", "factor"}});
  for (CodeVariant& variant : spec.variants) variant.entry.push_back(kScaleEntry);
  spec.steps = {make_step(0, {0, 1, 3}), make_step(1, {3, 4, 2})};
  return sample;
}

void add_constant(SampleEngine& sample, std::vector<std::byte> content) {
  BufferSpec buffer;
  buffer.kind = BufferKind::Constant;
  sample.spec.buffers.push_back(buffer);
  sample.contents.push_back(std::move(content));
}

bool cpu_runs_v4() { return (detect_cpu_features() & kCpuAvx512) != 0; }

}  // namespace kiln::testing
