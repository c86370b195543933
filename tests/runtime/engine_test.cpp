// Loading: from files and memory, and what is known of inputs and outputs.
#include "runtime/engine.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "engine/writer.h"
#include "runtime/describe.h"
#include "runtime/sessions.h"

namespace kiln::runtime {
namespace {

using kiln::testing::cpu_runs_v4;
using kiln::testing::expect_error;
using kiln::testing::expect_ok;
using kiln::testing::kSampleFactor;
using kiln::testing::LoadedEngine;
using kiln::testing::make_add_engine;
using kiln::testing::make_sample_engine;
using kiln::testing::run;
using kiln::testing::SampleEngine;
using kiln::testing::Tensor;

class EngineFile {
 public:
  explicit EngineFile(const SampleEngine& sample)
      : path_(::testing::TempDir() + "kiln_engine_test_" + std::to_string(getpid())) {
    expect_ok(engine::write_file(sample.spec, sample.constants(), path_));
  }
  ~EngineFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

bool runs_right(const std::shared_ptr<const Engine>& engine) {
  auto session = std::move(*Session::create(engine, {.num_threads = 1}));
  Tensor x({2, 4}, 1, 1), y({2, 4}, 10), out({2, 4});
  expect_ok(run(*session, x, y, out));
  for (size_t i = 0; i < 8; ++i)
    if (out.values[i] != (x.values[i] + y.values[i]) * kSampleFactor) return false;
  return true;
}

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cpu_runs_v4()) GTEST_SKIP() << "the sample's first variant needs AVX-512";
  }
};

TEST_F(EngineTest, RunsFromAFile) {
  const EngineFile file(make_sample_engine());
  const auto engine = Engine::load_file(file.path());
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_TRUE(runs_right(*engine));
}

TEST_F(EngineTest, RunsAfterTheFileIsReplaced) {
  const EngineFile file(make_sample_engine());
  const auto engine = Engine::load_file(file.path());
  ASSERT_TRUE(engine.ok());
  SampleEngine other = make_add_engine();
  expect_ok(engine::write_file(other.spec, other.constants(), file.path()));
  EXPECT_TRUE(runs_right(*engine));
}

TEST_F(EngineTest, RunsFromMemoryAtAnyAddress) {
  const std::vector<std::byte> bytes = make_sample_engine().bytes();
  for (const size_t shift : {0, 1, 8, 32}) {
    std::vector<std::byte> shifted(shift);
    shifted.insert(shifted.end(), bytes.begin(), bytes.end());
    const auto engine = Engine::load_memory(std::span(shifted).subspan(shift));
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    EXPECT_TRUE(runs_right(*engine));
    const engine::BufferSpec& factor = (*engine)->program()->buffers[4];
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*engine)->constant(factor)) % 64, 0u);
  }
}

TEST_F(EngineTest, UsesAlignedMemoryInPlace) {
  const LoadedEngine loaded(make_sample_engine());
  const engine::View& view = loaded.get()->view();
  EXPECT_EQ(view.sections.back().name, "weights");
  EXPECT_EQ(view.weights.data(), view.bytes.data() + view.sections.back().offset);
}

// Code is never writable and executable at once.
TEST_F(EngineTest, MapsNothingWritableAndExecutable) {
  const EngineFile file(make_sample_engine());
  const auto from_file = Engine::load_file(file.path());
  const LoadedEngine from_memory(make_sample_engine());
  EXPECT_TRUE(runs_right(*from_file) && runs_right(from_memory.get()));
  std::ifstream maps("/proc/self/maps");
  bool code_is_mapped_from_the_file = false;
  for (std::string line; std::getline(maps, line);) {
    EXPECT_EQ(line.find(" rwx"), std::string::npos) << line;
    code_is_mapped_from_the_file |=
        line.find(" r-xp") != std::string::npos && line.find(file.path()) != std::string::npos;
  }
  EXPECT_TRUE(code_is_mapped_from_the_file);
}

TEST(EngineLoad, ErrorsNameTheFile) {
  const std::string path = ::testing::TempDir() + "kiln_no_engine";
  std::ofstream(path) << "something else";
  expect_error(Engine::load_file(path).status(), StatusCode::InvalidEngine,
               path + ": not a Kiln engine");
  std::remove(path.c_str());
  expect_error(Engine::load_file(path).status(), StatusCode::NotFound,
               "cannot open " + path + ": No such file or directory");
}

TEST(EngineInfo, KnowsRanges) {
  const LoadedEngine loaded(make_sample_engine());
  const std::vector<DimInfo>& dims = loaded.get()->output_dims(0);
  ASSERT_EQ(dims.size(), 2u);
  EXPECT_EQ(dims[0].min, 1);
  EXPECT_EQ(dims[0].opt, 8);
  EXPECT_EQ(dims[0].max, 32);
  EXPECT_EQ(dims[1].min, 4);
  EXPECT_EQ(dims[1].max, 4);
}

TEST(EngineInfo, DescribesItself) {
  const LoadedEngine loaded(make_sample_engine());
  const std::string json = *describe(*loaded.get());
  for (const char* part : {R"("name":"sample")", R"("shape":"[batch, 4]")",
                           R"({"size":"i0_0","min":1,"opt":8,"max":32})",
                           R"("kernels":[{"name":"add_0","kind":"loop_nest","sources":["add"]})",
                           R"("name":"code:cpu:x86-64-v3")", R"("weights_bytes":64)",
                           R"("workspace_bytes_at_opt":192,"workspace_bytes_at_max":576)"})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
}

TEST(EngineInfo, WritesSizesInFullDepth) {
  SampleEngine sample = make_sample_engine();
  sample.spec.symbols[0].factor = 2;
  sample.spec.symbols[0].offset = -1;
  const auto last = [&] { return static_cast<engine::Slot>(sample.spec.sizes.size() - 1); };
  sample.spec.sizes.push_back({engine::SizeOp::Constant, -1, -1, 3});
  sample.spec.sizes.push_back({engine::SizeOp::Mul, sample.spec.inputs[0].shape[0], last(), 0});
  for (int i = 0; i < 20; ++i)
    sample.spec.sizes.push_back({engine::SizeOp::Max, last(), last(), 0});
  sample.spec.outputs[0].shape[0] = last();
  const LoadedEngine loaded(sample);
  const std::string json = *describe(*loaded.get());
  for (const char* part : {R"("sizes":["sub i0_0 -1","floordiv #0 2","mul #1 3","max #2 #2",)",
                           R"("max #21 #21"],)", R"({"size":"#1",)", R"({"size":"#22",)"})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
}

// Names of a megabyte in every formula, many formulas, many kernels: a description is no longer
// than a small multiple of the file.
TEST(EngineInfo, DescriptionsAreNoLongerThanTheirFiles) {
  constexpr size_t kLargestFactor = 64;
  SampleEngine sample = make_sample_engine();
  sample.spec.symbols[0].name = std::string(1 << 20, 'n');
  for (engine::Slot slot = 4; slot < 64; ++slot)
    sample.spec.sizes.push_back({engine::SizeOp::Max, slot, slot, 0});
  for (int i = 0; i < 2000; ++i)
    sample.spec.outputs.push_back({"", DType::F32, std::vector<engine::Slot>(16, 63)});
  const LoadedEngine named(sample);
  EXPECT_LE(describe(*named.get())->size(), 8u << 20);

  sample.spec.symbols[0].name = "n";
  for (engine::ProgramSpec& program : sample.spec.programs)
    for (int i = 0; i < 5000; ++i)
      program.kernels.push_back({"", "", std::vector<std::string>(3), "", 0, ""});
  const LoadedEngine many(sample);
  EXPECT_LE(describe(*many.get())->size(), kLargestFactor * sample.bytes().size());
}

// A kernel with sources of a megabyte that ten thousand steps run.
TEST(EngineInfo, ProfilesAreNoLongerThanTheirFiles) {
  SampleEngine sample = make_add_engine();
  for (engine::ProgramSpec& program : sample.spec.programs) {
    program.kernels[0].sources = {std::string(1 << 20, 's')};
    program.steps.assign(10000, program.steps[0]);
  }
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  session->enable_profiling(true);
  Tensor x({2, 4}), y({2, 4}), out({2, 4});
  expect_ok(run(*session, x, y, out));
  const std::string json = describe_profile(*session);
  EXPECT_EQ(session->profile().size(), 10000u);
  EXPECT_LE(json.size(), 32 * sample.bytes().size());
}

}  // namespace
}  // namespace kiln::runtime
