// Which program of an engine runs, and what is said of the others.
#include <algorithm>
#include <cstdio>
#include <string>

#include "backends/cpu/device/cpu_features.h"
#include "engine/forge.h"
#include "engine/verify.h"
#include "runtime/describe.h"
#include "runtime/sessions.h"

namespace kiln::runtime {
namespace {

using engine::ProgramSpec;
using engine::StepKind;
using kiln::testing::add_program;
using kiln::testing::Bytes;
using kiln::testing::cpu_runs_v4;
using kiln::testing::expect_error;
using kiln::testing::expect_ok;
using kiln::testing::foreign_program;
using kiln::testing::kSampleFactor;
using kiln::testing::LoadedEngine;
using kiln::testing::make_add_engine;
using kiln::testing::make_sample_engine;
using kiln::testing::remove_program;
using kiln::testing::run;
using kiln::testing::SampleEngine;
using kiln::testing::Tensor;

constexpr const char* kForeign = "npu:n1 (this version of Kiln does not know the target \"npu\")";

std::string program_of(const SampleEngine& sample, const LoadOptions& options = {}) {
  return LoadedEngine(sample, options).get()->program()->name();
}

// The values of the output for x = 5, 6, ... and y = 1.
std::vector<float> result_of(const std::shared_ptr<const Engine>& engine) {
  const auto session = std::move(*Session::create(engine, {.num_threads = 1}));
  Tensor x({2, 4}, 5, 1), y({2, 4}, 1), out({2, 4});
  expect_ok(run(*session, x, y, out));
  return out.values;
}

TEST(Programs, TheFirstThatRunsIsUsed) {
  EXPECT_EQ(program_of(make_sample_engine()), cpu_runs_v4() ? "cpu:x86-64-v4" : "cpu:x86-64-v3");
  SampleEngine other_order = make_sample_engine();
  std::swap(other_order.spec.programs[0], other_order.spec.programs[1]);
  EXPECT_EQ(program_of(other_order), "cpu:x86-64-v3");
}

TEST(Programs, CanBeAskedForByName) {
  for (const LoadOptions& options : {LoadOptions{.target = "", .variant = "x86-64-v3"},
                                     LoadOptions{.target = "cpu", .variant = "x86-64-v3"}}) {
    const LoadedEngine loaded(make_sample_engine(), options);
    EXPECT_EQ(loaded.get()->program()->variant, "x86-64-v3");
    auto session = loaded.session();
    Tensor x({1, 4}, 5), y({1, 4}, 1), out({1, 4});
    expect_ok(run(*session, x, y, out));
    EXPECT_EQ(out.values, std::vector<float>(4, 12.0f));  // this program subtracts
  }
  SampleEngine sample = make_sample_engine();
  add_program(sample, 0, foreign_program());
  EXPECT_EQ(LoadedEngine(sample, {.target = "cpu"}).get()->program()->target, "cpu");
}

TEST(Programs, NamesThatTheEngineDoesNotHaveAreRefused) {
  const Bytes bytes = make_sample_engine().bytes();
  const auto status = [&](const LoadOptions& options) {
    return Engine::load_memory(bytes, options).status();
  };
  const std::string expected = ", expected one of cpu:x86-64-v4, cpu:x86-64-v3";
  expect_error(status({.target = "cpu", .variant = "x86-64-v9"}), StatusCode::InvalidArgument,
               "got the program \"cpu:x86-64-v9\"" + expected);
  expect_error(status({.variant = "x86-64-v9"}), StatusCode::InvalidArgument,
               "got the program \"x86-64-v9\"" + expected);
  expect_error(status({.target = "cuda"}), StatusCode::InvalidArgument,
               "got the program \"cuda\"" + expected);
  expect_error(status({.target = "cuda", .variant = "x86-64-v3"}), StatusCode::InvalidArgument,
               "got the program \"cuda:x86-64-v3\"" + expected);
}

TEST(Programs, WhatTheCpuLacksIsSkipped) {
  SampleEngine sample = make_sample_engine();
  sample.spec.programs[0].features = {"avx2", "avx1024"};
  EXPECT_EQ(program_of(sample), "cpu:x86-64-v3");
  const Bytes bytes = sample.bytes();
  expect_error(Engine::load_memory(bytes, {.variant = "x86-64-v4"}).status(),
               StatusCode::Unsupported,
               "this machine runs no program of the engine: cpu:x86-64-v4 (it needs \"avx1024\", "
               "which this version of Kiln does not know)");
}

TEST(Programs, KnownFeaturesThatThisCpuLacksAreNamed) {
  SampleEngine sample = make_sample_engine();
  std::string missing;
  sample.spec.programs[0].features.clear();
  for (const cpu::CpuFeature& feature : cpu::cpu_features()) {
    sample.spec.programs[0].features.emplace_back(feature.name);
    if (!feature.present) missing += " " + std::string(feature.name);
  }
  if (missing.empty()) GTEST_SKIP() << "this CPU has all features";
  const Bytes bytes = sample.bytes();
  expect_error(
      Engine::load_memory(bytes, {.variant = "x86-64-v4"}).status(), StatusCode::Unsupported,
      "this machine runs no program of the engine: cpu:x86-64-v4 (this CPU lacks" + missing + ")");
}

TEST(Programs, SaysWhatStandsAgainstEach) {
  SampleEngine sample = make_sample_engine();
  for (ProgramSpec& program : sample.spec.programs) program.features = {"avx1024"};
  add_program(sample, 1, foreign_program());
  const Bytes bytes = sample.bytes();
  const std::string unknown = " (it needs \"avx1024\", which this version of Kiln does not know)";
  expect_error(Engine::load_memory(bytes).status(), StatusCode::Unsupported,
               "this machine runs no program of the engine: cpu:x86-64-v4" + unknown + ", " +
                   kForeign + ", cpu:x86-64-v3" + unknown);
}

TEST(Programs, AnUnknownTargetIsSkippedWhereverItIs) {
  const std::vector<float> expected = result_of(LoadedEngine(make_sample_engine()).get());
  for (const size_t place : {0u, 1u, 2u}) {
    SampleEngine sample = make_sample_engine();
    add_program(sample, place, foreign_program());
    EXPECT_EQ(result_of(LoadedEngine(sample).get()), expected);
  }
}

TEST(Programs, NothingButAnUnknownTargetIsDescribedAndNotRun) {
  SampleEngine sample = make_add_engine();
  while (!sample.spec.programs.empty()) remove_program(sample, 0);
  add_program(sample, 0, foreign_program());
  const Bytes bytes = sample.bytes();
  expect_error(Engine::load_memory(bytes).status(), StatusCode::Unsupported,
               std::string("this machine runs no program of the engine: ") + kForeign);
  const auto engine = Engine::load_memory(bytes, {.describe_only = true});
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->program(), nullptr);
  EXPECT_EQ((*engine)->input_dims(0)[0].max, 32);
  const std::string json = *describe(**engine);
  for (const char* part :
       {R"("shape":"[batch, 4]")", R"("target":"npu","variant":"n1","needs":["tensor_cores"])",
        R"("runs_here":false,"obstacle":"this version of Kiln does not know the target \"npu\"")"})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
  expect_error(Session::create(*engine).status(), StatusCode::Unsupported,
               "the engine was loaded to be described, without code: load it again to run it");
}

// What runs on no CPU of today is described as well as anything.
TEST(Programs, WhatRunsNowhereIsDescribed) {
  SampleEngine sample = make_sample_engine();
  for (ProgramSpec& program : sample.spec.programs) program.features = {"avx1024"};
  const LoadedEngine loaded(sample, {.describe_only = true});
  const std::string json = *describe(*loaded.get());
  for (const char* part :
       {R"("target":"cpu","variant":"x86-64-v4","runs_here":false)",
        R"("kernels":[{"name":"add_0","kind":"loop_nest","sources":["add"]})",
        R"("workspace_bytes_at_opt":192,"workspace_bytes_at_max":576)",
        R"("obstacle":"it needs \"avx1024\", which this version of Kiln does not know")"})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
}

TEST(Programs, OneCanBeLeftOut) {
  SampleEngine sample = make_sample_engine();
  remove_program(sample, 0);
  EXPECT_EQ(program_of(sample), "cpu:x86-64-v3");
}

TEST(Programs, LaunchesAndCallsAreNotForACpu) {
  for (const StepKind kind : {StepKind::Launch, StepKind::Call}) {
    SampleEngine sample = make_add_engine();
    ProgramSpec& program = sample.spec.programs[0];
    program.features = {"avx2"};
    program.kernels[0].function = "add";
    program.steps[0].kind = kind;
    program.steps[0].launch = {{0, 1}, {1}, -1};
    EXPECT_EQ(program_of(sample), "cpu:x86-64-v3");
    const Bytes bytes = sample.bytes();
    expect_error(Engine::load_memory(bytes, {.variant = "x86-64-v4"}).status(),
                 StatusCode::Unsupported,
                 "this machine runs no program of the engine: cpu:x86-64-v4 (step 0 is a launch or "
                 "a call, expected tasks: they are all that a CPU runs)");
  }
}

// The blocks of a grid write 4 bytes each here, a call writes all of its output at once.
TEST(Programs, LaunchesAndCallsHaveToWriteAllOfTheOutput) {
  const auto workspace = [](StepKind kind, std::vector<engine::Slot> grid, engine::Slot writes) {
    SampleEngine sample = make_add_engine();
    ProgramSpec& program = sample.spec.programs[0];
    program.kernels[0].function = "add";
    program.steps[0].kind = kind;
    program.steps[0].launch = {std::move(grid), {1}, -1};
    program.steps[0].writes.back() = writes;
    remove_program(sample, 1);
    const std::string json = *describe(*LoadedEngine(sample, {.describe_only = true}).get());
    return json.substr(json.find("\"workspace_bytes_at_min\":"), 29);
  };
  const std::string sound = R"("workspace_bytes_at_min":64,")",
                    refused = R"("workspace_bytes_at_min":null)";
  EXPECT_EQ(workspace(StepKind::Launch, {0, 1}, 1), sound.substr(0, 29));
  EXPECT_EQ(workspace(StepKind::Launch, {0}, 1), refused);
  EXPECT_EQ(workspace(StepKind::Call, {}, 3), sound.substr(0, 29));
  EXPECT_EQ(workspace(StepKind::Call, {}, 1), refused);
}

// The first two steps become three, with buffers and a packing of their own:
// (x + y) * factor, and x * factor + y * factor.
SampleEngine two_ways_to_compute() {
  SampleEngine sample = make_sample_engine();
  ProgramSpec &first = sample.spec.programs[0], &second = sample.spec.programs[1];
  first.variant = "sum first";
  first.features = {"avx2"};
  second.variant = "products first";
  second.code = first.code;  // adds too
  const engine::BufferSpec sum = second.buffers[3], factor = second.buffers[4];
  second.buffers = {factor, second.buffers[2], second.buffers[1], sum, sum, second.buffers[0]};
  second.buffers[3].last_step = second.buffers[4].last_step = 2;
  const engine::StepSpec add = second.steps[0], scale = second.steps[1];
  second.steps = {scale, scale, add};
  second.steps[0].buffers = {5, 0, 3};
  second.steps[1].buffers = {2, 0, 4};
  second.steps[2].buffers = {3, 4, 1};
  // Its number of tasks is a size of its own.
  second.sizes = {{engine::SizeOp::Constant, -1, -1, 4}, {engine::SizeOp::Mul, 0, 5, 0}};
  for (engine::StepSpec& step : second.steps) step.tasks = 6;
  std::vector<std::byte> packed(200);
  std::ranges::copy(sample.contents[0][4], packed.begin());
  sample.contents[1] = {packed, {}, {}, {}, {}, {}};
  return sample;
}

TEST(Programs, WithOtherBuffersStepsAndPackingsGiveTheSameNumbers) {
  const SampleEngine sample = two_ways_to_compute();
  const LoadedEngine first(sample, {.variant = "sum first"}),
      second(sample, {.variant = "products first"});
  EXPECT_NE(first.get()->program()->steps.size(), second.get()->program()->steps.size());
  const std::vector<float> values = result_of(first.get());
  EXPECT_EQ(values[1], (6.0f + 1.0f) * kSampleFactor);
  EXPECT_EQ(values, result_of(second.get()));
  const auto session = second.session(2);
  session->enable_profiling(true);
  Tensor x({32, 4}, 1, 1), y({32, 4}, 2), out({32, 4});
  expect_ok(run(*session, x, y, out));
  EXPECT_EQ(session->profile().size(), 3u);
  for (size_t i = 0; i < 128; ++i)
    EXPECT_EQ(out.values[i], (x.values[i] + y.values[i]) * kSampleFactor);
}

// Each program is held to the promise that all bytes are written.
TEST(Programs, EveryOneIsCheckedByItself) {
  SampleEngine sample = two_ways_to_compute();
  sample.spec.programs[1].sizes[0].immediate = 3;  // tasks per row
  EXPECT_EQ(result_of(LoadedEngine(sample, {.variant = "sum first"}).get()).size(), 8u);
  const LoadedEngine second(sample, {.variant = "products first"});
  Tensor x({2, 4}), y({2, 4}), out({2, 4});
  expect_error(run(*second.session(), x, y, out), StatusCode::InvalidEngine,
               "damaged engine: its steps write at most 24 of the 32 bytes of output \"out\" for "
               "batch = 2");
}

// Loading looks at the program that runs; verify at all of them.
TEST(Programs, DamageToAnotherProgramIsNoDamageToTheOneThatRuns) {
  const Bytes sound = make_sample_engine().bytes();
  const auto sections = engine::read(sound)->sections;
  for (const char* name : {"program:cpu:x86-64-v4", "code:cpu:x86-64-v4"}) {
    Bytes damaged = sound;
    damaged[std::ranges::find(sections, name, &engine::SectionInfo::name)->offset] ^= std::byte{1};
    EXPECT_FALSE(engine::verify(damaged).empty());
    const auto engine = Engine::load_memory(damaged, {.variant = "x86-64-v3"});
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    EXPECT_EQ(result_of(*engine).front(), (5.0f - 1.0f) * kSampleFactor);
    const std::string json = *describe(**engine);
    EXPECT_NE(json.find("x86-64-v4 does not match its hash"), std::string::npos) << json;
    if (!cpu_runs_v4()) continue;
    EXPECT_EQ(Engine::load_memory(damaged).status().code(), StatusCode::InvalidEngine);
  }
}

TEST(Programs, ACpuHasNoStreams) {
  const LoadedEngine engine(make_sample_engine());
  const auto session = engine.session();
  Tensor x({2, 4}), y({2, 4}), out({2, 4});
  const std::vector<TensorView> inputs = {x.view(), y.view()}, outputs = {out.view()};
  int stream = 0;
  expect_error(session->run(inputs, outputs, {.stream = &stream}), StatusCode::InvalidArgument,
               "got a stream for a program that runs on a CPU, expected none");
  expect_ok(session->run(inputs, outputs));
}

}  // namespace
}  // namespace kiln::runtime
