// Engines come back as they were written.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "engine/format.h"
#include "engine/reader.h"
#include "engine/sample_engine.h"
#include "engine/writer.h"
#include "support/file_map.h"

namespace kiln::engine {
namespace {

using kiln::testing::make_sample_engine;
using kiln::testing::SampleEngine;

std::vector<std::byte> make_content(size_t size, int seed) {
  std::vector<std::byte> content(size);
  for (size_t i = 0; i < size; ++i)
    content[i] = static_cast<std::byte>(i * 7 + static_cast<size_t>(seed));
  return content;
}

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

std::span<const std::byte> constant(const View& view, size_t program, size_t buffer) {
  const BufferSpec& spec = view.spec.programs[program].buffers[buffer];
  return view.weights.subspan(spec.offset, spec.constant_bytes);
}

TEST(EngineRoundTrip, KeepsTheInterface) {
  const SampleEngine sample = make_sample_engine();
  const std::vector<std::byte> bytes = sample.bytes();
  const Result<View> view = read(bytes, {.verify_weights = true});
  ASSERT_TRUE(view.ok()) << view.status().message();
  const Spec& spec = view->spec;
  EXPECT_EQ(view->format_version, kPlainFormatVersion);
  EXPECT_FALSE(view->stripped);
  EXPECT_EQ(spec.name, "sample");
  EXPECT_EQ(spec.producer, "tests");
  ASSERT_EQ(spec.symbols.size(), 1u);
  EXPECT_EQ(spec.symbols[0].name, "batch");
  EXPECT_EQ(spec.symbols[0].min, 1);
  EXPECT_EQ(spec.symbols[0].opt, 8);
  EXPECT_EQ(spec.symbols[0].max, 32);
  EXPECT_EQ(spec.symbols[0].factor, 1);
  EXPECT_EQ(spec.symbols[0].offset, 0);
  ASSERT_EQ(spec.sizes.size(), 5u);
  EXPECT_EQ(spec.sizes[2].op, SizeOp::Mul);
  EXPECT_EQ(spec.sizes[1].immediate, 4);
  ASSERT_EQ(spec.inputs.size(), 2u);
  EXPECT_EQ(spec.inputs[1].name, "y");
  EXPECT_EQ(spec.inputs[1].shape, (std::vector<Slot>{0, 1}));
  ASSERT_EQ(spec.outputs.size(), 1u);
}

TEST(EngineRoundTrip, KeepsWhatOutputsUpdate) {
  SampleEngine sample = make_sample_engine();
  sample.spec.outputs[0].updates = 1;
  for (ProgramSpec& program : sample.spec.programs) program.version = kProgramVersion;
  const std::vector<std::byte> bytes = sample.bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->spec.outputs[0].updates, 1);
  EXPECT_EQ(view->spec.inputs[1].updates, -1);
  EXPECT_EQ(view->spec.programs[1].version, kProgramVersion);
}

TEST(EngineRoundTrip, KeepsPrograms) {
  const SampleEngine sample = make_sample_engine();
  const std::vector<std::byte> bytes = sample.bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  ASSERT_EQ(view->spec.programs.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const ProgramSpec &program = view->spec.programs[i], &written = sample.spec.programs[i];
    EXPECT_EQ(program.target, "cpu");
    EXPECT_EQ(program.variant, written.variant);
    EXPECT_EQ(program.features, written.features);
    EXPECT_EQ(program.version, kPlainProgramVersion);
    EXPECT_EQ(program.unknown, "");
    ASSERT_EQ(program.kernels.size(), 2u);
    EXPECT_EQ(program.kernels[1].sources, (std::vector<std::string>{"mul", "factor"}));
    EXPECT_EQ(program.kernels[1].entry, written.kernels[1].entry);
    ASSERT_EQ(program.buffers.size(), 5u);
    EXPECT_EQ(program.buffers[3].kind, BufferKind::Temporary);
    EXPECT_EQ(program.buffers[3].last_step, 1);
    EXPECT_EQ(program.buffers[3].alias_of, -1);
    ASSERT_EQ(program.steps.size(), 2u);
    EXPECT_EQ(program.steps[1].kind, StepKind::Tasks);
    EXPECT_EQ(program.steps[1].buffers, (std::vector<int32_t>{3, 4, 2}));
    EXPECT_EQ(program.steps[1].min_tasks_per_thread, 16);
    EXPECT_EQ(program.steps[1].scratch_bytes, 4);
    EXPECT_EQ(program.steps[1].writes, (std::vector<engine::Slot>{-1, -1, 1}));
    EXPECT_TRUE(same_bytes(program.code, written.code));
  }
}

TEST(EngineRoundTrip, KeepsOtherKindsOfSteps) {
  SampleEngine sample = kiln::testing::make_add_engine();
  ProgramSpec& program = sample.spec.programs[1];
  program.sizes = {{SizeOp::Mul, 3, 3, 0}, {SizeOp::Add, 5, 0, 0}};
  program.kernels[0].function = "gemm_f32";
  program.kernels[0].entry = kNoEntry;
  program.steps[0].kind = StepKind::Launch;
  program.steps[0].launch = {{5, 6, 0}, {1}, 4};
  program.steps.push_back(program.steps[0]);
  program.steps[1].kind = StepKind::Call;
  program.steps[1].launch = {};
  const std::vector<std::byte> bytes = sample.bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  const ProgramSpec& found = view->spec.programs[1];
  ASSERT_EQ(found.sizes.size(), 2u);
  EXPECT_EQ(found.sizes[1].op, SizeOp::Add);
  EXPECT_EQ(found.sizes[1].a, 5);
  EXPECT_EQ(found.kernels[0].function, "gemm_f32");
  EXPECT_EQ(found.kernels[0].entry, kNoEntry);
  EXPECT_EQ(found.steps[0].kind, StepKind::Launch);
  EXPECT_EQ(found.steps[0].launch.grid, (std::vector<Slot>{5, 6, 0}));
  EXPECT_EQ(found.steps[0].launch.block, (std::vector<Slot>{1}));
  EXPECT_EQ(found.steps[0].launch.shared_bytes, 4);
  EXPECT_EQ(found.steps[1].kind, StepKind::Call);
  EXPECT_TRUE(found.steps[1].launch.grid.empty());
}

TEST(EngineRoundTrip, KeepsWhatARefitNeeds) {
  SampleEngine sample = make_sample_engine();
  ProgramSpec& written = sample.spec.programs[1];
  written.program_hash = "0123";
  sample.spec.disabled_passes = {"a", "b"};
  sample.spec.refittable = true;
  sample.spec.emulate_precision_casts = true;
  sample.spec.tf32 = kTf32Convolutions;
  sample.spec.quantized = "int8";
  sample.spec.metadata = "{}";
  written.kernels[1].key = "4567";
  written.buffers[4].source = 7;
  written.buffers[4].transform = "pack:1";
  const std::vector<std::byte> bytes = sample.bytes();
  const Spec spec = read(bytes)->spec;
  const ProgramSpec& program = spec.programs[1];
  EXPECT_EQ(program.program_hash, "0123");
  EXPECT_EQ(spec.programs[0].program_hash, "");
  EXPECT_EQ(spec.disabled_passes, sample.spec.disabled_passes);
  EXPECT_TRUE(spec.refittable);
  EXPECT_TRUE(spec.emulate_precision_casts);
  EXPECT_EQ(spec.tf32, kTf32Convolutions);
  EXPECT_EQ(spec.quantized, "int8");
  EXPECT_EQ(spec.metadata, "{}");
  EXPECT_EQ(program.kernels[1].key, "4567");
  EXPECT_EQ(program.buffers[4].source, 7);
  EXPECT_EQ(program.buffers[4].transform, "pack:1");
  EXPECT_EQ(program.buffers[3].source, -1);
}

TEST(EngineRoundTrip, KeepsChecks) {
  SampleEngine sample = make_sample_engine();
  sample.spec.unchecked = true;
  sample.spec.programs[1].steps[1].checks = {{"embedding", CheckKind::Index, 1, 0},
                                             {"floor_divide", CheckKind::Nonzero, -1, -1},
                                             {"inv", CheckKind::Nonzero, -1, -1, "got none"}};
  const std::vector<std::byte> bytes = sample.bytes();
  const Spec spec = read(bytes)->spec;
  EXPECT_TRUE(spec.unchecked);
  const std::vector<StepSpec>& steps = spec.programs[1].steps;
  EXPECT_TRUE(steps[0].checks.empty());
  ASSERT_EQ(steps[1].checks.size(), 3u);
  const CheckSpec &index = steps[1].checks[0], &divisor = steps[1].checks[1];
  EXPECT_EQ(index.operation, "embedding");
  EXPECT_EQ(index.kind, CheckKind::Index);
  EXPECT_EQ(index.size, 1);
  EXPECT_EQ(index.input, 0);
  EXPECT_EQ(divisor.operation, "floor_divide");
  EXPECT_EQ(divisor.kind, CheckKind::Nonzero);
  EXPECT_EQ(divisor.size, -1);
  EXPECT_EQ(divisor.input, -1);
  EXPECT_EQ(divisor.fault, "");
  EXPECT_EQ(steps[1].checks[2].fault, "got none");
}

TEST(EngineRoundTrip, KeepsRequirements) {
  SampleEngine sample = make_sample_engine();
  sample.spec.requirements = {{0, RequirementKind::Sizes, "", "x.size(0) % 2 == 0"},
                              {2, RequirementKind::Index, "amax", "a size other than 0"}};
  const std::vector<std::byte> bytes = sample.bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  ASSERT_EQ(view->spec.requirements.size(), 2u);
  const RequirementSpec &guard = view->spec.requirements[0], &amax = view->spec.requirements[1];
  EXPECT_EQ(guard.condition, 0);
  EXPECT_EQ(guard.kind, RequirementKind::Sizes);
  EXPECT_EQ(guard.operation, "");
  EXPECT_EQ(guard.expected, "x.size(0) % 2 == 0");
  EXPECT_EQ(amax.condition, 2);
  EXPECT_EQ(amax.kind, RequirementKind::Index);
  EXPECT_EQ(amax.operation, "amax");
}

TEST(EngineRoundTrip, WithoutConstantsNothingIsStripped) {
  const kiln::testing::SampleEngine sample = kiln::testing::make_add_engine();
  const auto stripped = write(sample.spec, sample.constants(), Weights::Stripped);
  ASSERT_TRUE(stripped.ok()) << stripped.status().message();
  EXPECT_EQ(*stripped, sample.bytes());
}

TEST(EngineRoundTrip, StrippedEngineHasNoWeights) {
  SampleEngine sample = make_sample_engine();
  kiln::testing::add_constant(sample, make_content(1000, 1));
  const auto bytes = write(sample.spec, sample.constants(), Weights::Stripped);
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  const Result<View> view = read(*bytes, {.verify_weights = true});
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_TRUE(view->stripped);
  EXPECT_TRUE(view->weights.empty());
  EXPECT_EQ(view->sections.size(), 5u);
  for (const ProgramSpec& program : view->spec.programs) {
    EXPECT_EQ(program.buffers[5].constant_bytes, 1000u);
    EXPECT_EQ(program.buffers[5].offset, 0u);
    EXPECT_EQ(program.buffers[5].content_hash, Hash128{});
  }
}

TEST(EngineRoundTrip, AlignsSections) {
  const std::vector<std::byte> bytes = make_sample_engine().bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok());
  ASSERT_EQ(view->sections.size(), 6u);
  EXPECT_EQ(view->sections[0].name, "interface");
  EXPECT_EQ(view->sections[1].name, "program:cpu:x86-64-v4");
  EXPECT_EQ(view->sections[3].name, "code:cpu:x86-64-v4");
  EXPECT_EQ(view->sections[4].name, "code:cpu:x86-64-v3");
  EXPECT_EQ(view->sections[5].name, "weights");
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(view->sections[i].offset % kTableAlignment, 0u);
  for (size_t i = 3; i < 6; ++i) EXPECT_EQ(view->sections[i].offset % kPageSize, 0u);
}

TEST(EngineRoundTrip, StoresEqualConstantsOnce) {
  SampleEngine sample = make_sample_engine();
  const std::vector<std::byte> content = make_content(1000, 1);
  kiln::testing::add_constant(sample, content);
  kiln::testing::add_constant(sample, make_content(999, 2));
  kiln::testing::add_constant(sample, content);
  kiln::testing::add_constant(sample, {});
  const std::vector<std::byte> bytes = sample.bytes();
  const Result<View> view = read(bytes, {.verify_weights = true});
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->weights.size(), 64u + 1024u + 1024u);
  for (size_t p = 0; p < 2; ++p) {
    const std::vector<BufferSpec>& buffers = view->spec.programs[p].buffers;
    EXPECT_EQ(buffers[5].offset, buffers[7].offset);
    EXPECT_NE(buffers[5].offset, buffers[6].offset);
    for (size_t i = 4; i < 9; ++i) {
      EXPECT_TRUE(same_bytes(constant(*view, p, i), sample.contents[p][i])) << i;
      EXPECT_EQ(buffers[i].offset % 64, 0u);
    }
  }
}

// Programs that pack some constants in ways of their own, and share others.
TEST(EngineRoundTrip, ProgramsShareConstantsByContent) {
  SampleEngine sample = make_sample_engine();
  kiln::testing::add_constant(sample, make_content(1000, 1));  // in memory twice
  kiln::testing::add_constant(sample, make_content(1000, 2));
  sample.contents[1][6] = make_content(1000, 3);
  sample.contents[1].push_back(make_content(500, 4));  // the second's alone
  BufferSpec own;
  own.kind = BufferKind::Constant;
  sample.spec.programs[1].buffers.push_back(own);
  const std::vector<std::byte> bytes = sample.bytes();
  const Result<View> view = read(bytes, {.verify_weights = true});
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->weights.size(), 64u + 3 * 1024u + 512u);
  const auto& first = view->spec.programs[0].buffers;
  const auto& second = view->spec.programs[1].buffers;
  EXPECT_EQ(first[4].offset, second[4].offset);
  EXPECT_EQ(first[5].offset, second[5].offset);
  EXPECT_EQ(first[5].content_hash, second[5].content_hash);
  EXPECT_NE(first[6].offset, second[6].offset);
  for (size_t p = 0; p < 2; ++p)
    for (size_t i = 4; i < view->spec.programs[p].buffers.size(); ++i)
      EXPECT_TRUE(same_bytes(constant(*view, p, i), sample.contents[p][i])) << p << " " << i;
}

TEST(EngineRoundTrip, IsDeterministic) {
  EXPECT_EQ(make_sample_engine().bytes(), make_sample_engine().bytes());
}

TEST(EngineRoundTrip, FileAndMemoryAreTheSame) {
  const SampleEngine sample = make_sample_engine();
  const std::string path = ::testing::TempDir() + "round_trip.kiln";
  const Status status = write_file(sample.spec, sample.constants(), path);
  ASSERT_TRUE(status.ok()) << status.message();
  const Result<FileMap> file = FileMap::open(path);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(same_bytes(file->bytes(), sample.bytes()));
  std::remove(path.c_str());
}

TEST(EngineRoundTrip, ReadsFromAnyAddress) {
  const std::vector<std::byte> bytes = make_sample_engine().bytes();
  for (size_t shift = 0; shift < 16; ++shift) {
    std::vector<std::byte> shifted(shift);
    shifted.insert(shifted.end(), bytes.begin(), bytes.end());
    EXPECT_TRUE(read(std::span(shifted).subspan(shift)).ok()) << shift;
  }
}

TEST(EngineWriter, RefusesASpecThatTheReaderWould) {
  SampleEngine sample = make_sample_engine();
  sample.spec.programs[1].steps[0].kernel = 7;
  const auto written = write(sample.spec, sample.constants());
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.status().code(), StatusCode::Internal);
  EXPECT_EQ(written.status().message(),
            "internal error: damaged engine: cpu:x86-64-v3: step 0: unknown kernel");
}

}  // namespace
}  // namespace kiln::engine
