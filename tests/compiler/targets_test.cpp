// One engine with programs for several targets: the CPU, and the stub backend's interpreter, which joins
// the tables here because it needs no other machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "backends/common/join_programs.h"
#include "backends/stub/compile/stub_backend.h"
#include "backends/stub/device/executable.h"
#include "compiler/backends.h"
#include "compiler/cached_compile.h"
#include "compiler/linear_model.h"
#include "compiler/refit.h"
#include "engine/reader.h"
#include "ir/text.h"
#include "runtime/devices.h"
#include "runtime/session.h"
#include "support/error.h"

namespace kiln::testing {
namespace {

using Bytes = std::vector<std::byte>;
using Floats = std::vector<float>;
using Outcome = CacheReport::Outcome;

void join_tables() {
  static const bool kJoined = [] {
    add_backend(stub_backend());
    return runtime::add_device(stub::kDevice);
  }();
  ASSERT_TRUE(kJoined);
}

CompileOptions options_for(const std::vector<std::string>& targets) {
  join_tables();
  CompileOptions options = quick_options();
  options.targets.clear();
  for (const std::string& target : targets)
    options.targets.push_back({target, target == "cpu" ? std::vector<std::string>{"x86-64-v3"}
                                                       : std::vector<std::string>()});
  return options;
}

const CompileOptions& both() {
  static const CompileOptions kOptions = options_for({"cpu", "stub"});
  return kOptions;
}

LinearModel with_other_weights() {
  LinearModel model;
  for (float& value : model.weight) value = 1 / value;
  model.bias = {7, 8, 9, 10};
  return model;
}

engine::Spec spec_of(const Bytes& bytes) {
  const auto view = engine::read(bytes, {.verify_weights = true});
  EXPECT_TRUE(view.ok()) << view.status().message();
  return view->spec;
}

std::vector<std::string> targets_in(const Bytes& bytes) {
  std::vector<std::string> targets;
  for (const engine::ProgramSpec& program : spec_of(bytes).programs)
    targets.push_back(program.target);
  return targets;
}

// What the program for a target, "" for the first, makes of three rows of numbers.
Floats run_on(const Bytes& bytes, const std::string& target) {
  const auto engine = runtime::Engine::load_memory(bytes, {.target = target});
  if (!engine.ok()) {
    ADD_FAILURE() << engine.status().message();
    return {};
  }
  EXPECT_TRUE(target.empty() || (*engine)->program()->target == target);
  const auto session = runtime::Session::create(*engine, {.num_threads = 1});
  EXPECT_TRUE(session.ok()) << session.status().message();
  Floats input = {1, 2, -3, 4, 0.5f, 0, 7, -1, 3, 3, 3, -9}, output(12, -1);
  const std::vector<int64_t> shape = {3, 4};
  const auto view = [&](Floats& values) {
    runtime::TensorView tensor;
    tensor.data = values.data();
    tensor.dtype = DType::F32;
    tensor.shape = shape;
    return tensor;
  };
  const Status status = (*session)->run(std::vector{view(input)}, std::vector{view(output)});
  EXPECT_TRUE(status.ok()) << status.message();
  return output;
}

void expect_near(const Floats& actual, const Floats& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-4) << i;
}

TEST(Targets, EngineHasAProgramForEach) {
  const Bytes bytes = LinearModel().compile(both());
  EXPECT_EQ(targets_in(bytes), (std::vector<std::string>{"cpu", "stub"}));
  EXPECT_EQ(targets_in(LinearModel().compile(options_for({"stub", "cpu"}))),
            (std::vector<std::string>{"stub", "cpu"}));
}

TEST(Targets, EachProgramIsPlannedForItsMachine) {
  const engine::Spec spec = spec_of(LinearModel().compile(both()));
  const auto has_matmul = [](const engine::ProgramSpec& program) {
    return std::ranges::count(program.kernels, "matmul", &engine::KernelSpec::kind) > 0;
  };
  EXPECT_TRUE(has_matmul(spec.programs[0]));
  EXPECT_FALSE(has_matmul(spec.programs[1]));
  EXPECT_NE(spec.programs[0].program_hash, spec.programs[1].program_hash);
}

TEST(Targets, ProgramsAreThoseOfACompileForOneTarget) {
  const Bytes bytes = LinearModel().compile(both());
  const engine::Spec spec = spec_of(bytes);
  size_t index = 0;
  for (const char* target : {"cpu", "stub"}) {
    const Bytes alone_bytes = LinearModel().compile(options_for({target}));
    const engine::Spec alone = spec_of(alone_bytes);
    const engine::ProgramSpec &program = spec.programs[index++], &expected = alone.programs[0];
    EXPECT_EQ(program.program_hash, expected.program_hash);
    EXPECT_EQ(program.sizes, expected.sizes);
    EXPECT_TRUE(std::ranges::equal(program.code, expected.code));
    EXPECT_EQ(spec.sizes, alone.sizes);
  }
}

TEST(Targets, EachProgramRunsAndTheFirstIsTheDefault) {
  const LinearModel model;
  const Bytes bytes = model.compile(both());
  const Floats expected = run_on(model.compile(quick_options()), "cpu");
  EXPECT_GT(*std::ranges::max_element(expected), 1);
  EXPECT_EQ(run_on(bytes, "cpu"), expected);
  EXPECT_EQ(run_on(bytes, ""), expected);
  expect_near(run_on(bytes, "stub"), expected);
  const auto engine = runtime::Engine::load_memory(bytes);
  EXPECT_EQ((*engine)->program()->target, "cpu");
}

TEST(Targets, EqualConstantsAreStoredOnce) {
  const engine::Spec spec = spec_of(LinearModel().compile(both()));
  std::multiset<uint64_t> offsets[2];
  for (size_t i = 0; i < 2; ++i)
    for (const engine::BufferSpec& buffer : spec.programs[i].buffers)
      if (buffer.kind == engine::BufferKind::Constant) offsets[i].insert(buffer.offset);
  const bool shared =
      std::ranges::any_of(offsets[0], [&](uint64_t offset) { return offsets[1].contains(offset); });
  EXPECT_TRUE(shared);
}

TEST(Targets, TwoCompilesGiveTheSameBytes) {
  CompileOptions threads = both();
  threads.compile_threads = 3;
  EXPECT_EQ(LinearModel().compile(both()), LinearModel().compile(threads));
}

TEST(Targets, RefitGivesEveryProgramTheNewWeights) {
  const LinearModel a, b = with_other_weights();
  const Bytes refitted = refit(a.compile(both()), *b.open(), quick_options());
  EXPECT_EQ(refitted, b.compile(both()));
  const Floats expected = run_on(b.compile(quick_options()), "cpu");
  EXPECT_NE(run_on(a.compile(quick_options()), "cpu"), expected);
  EXPECT_EQ(run_on(refitted, "cpu"), expected);
  expect_near(run_on(refitted, "stub"), expected);
}

TEST(Targets, RefitFillsEveryProgramOfAStrippedEngine) {
  CompileOptions stripped = both();
  stripped.strip_weights = true;
  const LinearModel a, b = with_other_weights();
  EXPECT_EQ(refit(a.compile(stripped), *b.open(), quick_options()), b.compile(both()));
}

TEST(Targets, RefitWithAnotherModelIsRefused) {
  LinearModel other;
  other.activation = "sigmoid";
  EXPECT_THROW(refit(LinearModel().compile(both()), *other.open(), quick_options()), CompileError);
}

CacheReport compile_through(const std::string& directory, CompileOptions options,
                            const LinearModel& model, Bytes& engine) {
  CacheReport report;
  options.cache.directory = directory;
  options.cache_report = &report;
  engine = model.compile(options);
  return report;
}

TEST(Targets, CacheTellsSetsOfTargetsApart) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  const std::vector<std::vector<std::string>> sets = {
      {"cpu"}, {"stub"}, {"cpu", "stub"}, {"stub", "cpu"}};
  Bytes engine;
  for (const auto& targets : sets) {
    const CompileOptions options = options_for(targets);
    EXPECT_EQ(compile_through(directory, options, {}, engine).outcome, Outcome::Compiled);
    EXPECT_EQ(targets_in(engine), targets);
  }
  for (const auto& targets : sets) {
    const CompileOptions options = options_for(targets);
    EXPECT_EQ(compile_through(directory, options, {}, engine).outcome, Outcome::EngineFound);
    EXPECT_EQ(engine, LinearModel().compile(options));
  }
}

TEST(Targets, CodeInTheCacheIsFilledForEveryProgram) {
  const TemporaryFolder folder;
  const LinearModel other = with_other_weights();
  Bytes engine;
  compile_through(folder.path("cache"), both(), {}, engine);
  EXPECT_EQ(compile_through(folder.path("cache"), both(), other, engine).outcome,
            Outcome::CodeFound);
  EXPECT_EQ(engine, other.compile(both()));
}

TEST(Targets, PlansAreDumpedApart) {
  const TemporaryFolder folder;
  CompileOptions options = both();
  options.dump_directory = folder.path("dumps");
  LinearModel().compile(options);
  for (const char* file : {"cpu/plan_000_lowered.plan", "stub/plan_000_lowered.plan"})
    EXPECT_TRUE(std::filesystem::exists(folder.path("dumps/" + std::string(file)))) << file;
  EXPECT_FALSE(std::filesystem::exists(folder.path("dumps/plan_000_lowered.plan")));
}

TEST(Targets, ProgressNeverGoesBack) {
  std::vector<double> fractions;
  CompileOptions options = both();
  options.progress = [&](std::string_view, double fraction) { fractions.push_back(fraction); };
  LinearModel().compile(options);
  EXPECT_TRUE(std::ranges::is_sorted(fractions));
  EXPECT_EQ(fractions.back(), 1.0);
}

TEST(Targets, InterfacesThatDifferAreNotJoined) {
  CompiledProgram a, b;
  a.spec.inputs = {{"x", DType::F32, {}}};
  b.spec.inputs = {{"x", DType::F16, {}}};
  std::vector<CompiledProgram> parts = {a, b};
  EXPECT_THROW(backend::join_programs(parts), InternalError);
}

}  // namespace
}  // namespace kiln::testing
