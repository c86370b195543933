// Refitting gives the bytes of a compile, or says why it cannot.
#include "compiler/refit.h"

#include <gtest/gtest.h>

#include "backends/common/refill.h"
#include "backends/cpu/compile/cpu_backend.h"
#include "compiler/linear_model.h"
#include "engine/reader.h"
#include "runtime/session.h"

namespace kiln::testing {
namespace {

using Bytes = std::vector<std::byte>;

LinearModel with_other_weights() {
  LinearModel model;
  for (float& value : model.weight) value = 1 / value;
  model.bias = {7, 8, 9, 10};
  return model;
}

std::string refusal(const Bytes& engine, const LinearModel& model) {
  try {
    refit(engine, *model.open(), quick_options());
  } catch (const CompileError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Refit, GivesTheBytesOfACompile) {
  const LinearModel a, b = with_other_weights();
  const Bytes expected = b.compile(quick_options());
  ASSERT_NE(a.compile(quick_options()), expected);
  EXPECT_EQ(refit(a.compile(quick_options()), *b.open(), quick_options()), expected);
}

TEST(Refit, GivesTheBytesOfACompileForBothLevelsOfCpu) {
  const LinearModel a, b = with_other_weights();
  EXPECT_EQ(refit(a.compile(), *b.open(), {}), b.compile());
}

TEST(Refit, KeepsRangesAndDisabledPassesOfTheEngine) {
  CompileOptions options = quick_options();
  options.ranges = {{"x", 0, 2, 3, 8}};
  options.disabled_passes = {"fuse_epilogues"};
  options.metadata = "kept";
  const LinearModel a, b = with_other_weights();
  EXPECT_EQ(refit(a.compile(options), *b.open(), quick_options()), b.compile(options));
}

TEST(Refit, KeepsAFixedSizeOfADynamicDimension) {
  CompileOptions options = quick_options();
  options.ranges = {{"x", 0, 4, 4, 4}};
  const LinearModel a, b = with_other_weights();
  EXPECT_EQ(refit(a.compile(options), *b.open(), quick_options()), b.compile(options));
}

TEST(Refit, FillsAStrippedEngine) {
  CompileOptions stripped = quick_options();
  stripped.strip_weights = true;
  const LinearModel a, b = with_other_weights();
  EXPECT_EQ(refit(a.compile(stripped), *b.open(), quick_options()), b.compile(quick_options()));
}

TEST(Refit, StrippedEnginesOfOneStructureAreEqual) {
  CompileOptions stripped = quick_options();
  stripped.strip_weights = true;
  const Bytes engine = LinearModel().compile(stripped);
  EXPECT_EQ(engine, with_other_weights().compile(stripped));
  EXPECT_LT(engine.size(), LinearModel().compile(quick_options()).size());
}

TEST(Refit, StrippedEngineLoadsAndDoesNotRun) {
  CompileOptions stripped = quick_options();
  stripped.strip_weights = true;
  const Bytes bytes = LinearModel().compile(stripped);
  const auto engine = runtime::Engine::load_memory(bytes);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_TRUE((*engine)->view().stripped);
  const auto session = runtime::Session::create(*engine, {});
  ASSERT_FALSE(session.ok());
  EXPECT_EQ(session.status().code(), StatusCode::Unsupported);
  EXPECT_NE(session.status().message().find("kiln_refit"), std::string::npos);
}

TEST(Refit, ValuesThatAreInTheCodeAreRefused) {
  LinearModel trained;
  trained.scale = {1, 2, 3, 4};
  const std::string text = refusal(LinearModel().compile(quick_options()), trained);
  EXPECT_NE(text.find("immutable_weights=False"), std::string::npos) << text;
}

TEST(Refit, RefittableEngineTakesAnyValues) {
  CompileOptions options = quick_options();
  options.refittable = true;
  LinearModel trained = with_other_weights();
  trained.scale = {1, 2, 3, 4};
  trained.shift = {0.5f, 0, -1, 0};
  EXPECT_EQ(refit(LinearModel().compile(options), *trained.open(), quick_options()),
            trained.compile(options));
}

TEST(Refit, RoundsAsTheEngineDoes) {
  CompileOptions options = quick_options();
  options.emulate_precision_casts = true;
  EXPECT_EQ(refit(LinearModel().compile(options), *with_other_weights().open(), quick_options()),
            with_other_weights().compile(options));
}

TEST(Refit, KeepsWhereNumbersMayBeRounded) {
  CompileOptions options = quick_options();
  options.tf32 = engine::kTf32Products;
  EXPECT_EQ(refit(LinearModel().compile(options), *with_other_weights().open(), quick_options()),
            with_other_weights().compile(options));
  EXPECT_NE(LinearModel().compile(options), LinearModel().compile(quick_options()));
}

TEST(Refit, RefusalSaysWhatDiffers) {
  const Bytes engine = LinearModel().compile(quick_options());
  LinearModel other;
  other.activation = "sigmoid";
  const std::string text = refusal(engine, other);
  EXPECT_NE(text.find("kernel"), std::string::npos) << text;
  EXPECT_NE(text.find("compile the model again"), std::string::npos) << text;
}

TEST(Refit, OtherRangesOfTheModelAreRefused) {
  LinearModel other;
  other.max_batch = 16;
  EXPECT_NE(refusal(LinearModel().compile(quick_options()), other).find("1..16"),
            std::string::npos);
}

TEST(Refit, BytesThatAreNoEngineAreRefused) {
  const Bytes garbage(100);
  try {
    refit(garbage, *LinearModel().open(), {});
    FAIL() << "expected an error";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.code(), StatusCode::InvalidEngine);
  }
}

TEST(Refit, ForgedConstantsAreRefused) {
  const Bytes engine = LinearModel().compile(quick_options());
  for (const char* transform :
       {"pack:99999999:0:4:1:4:4:1:0", "pack:16:5:4:1:4:4:1:0", "pack:16", "fold",
        "pack:16:0:4:1:4:4:1:0:1", "pack:16:0:4:1:4:4:1:0:0:2", "pack:16:0:4:1:4:4:1:0:3:2",
        "pack_bf16", "pack_bf16:16", "winograd4_pack:16:0:4:1:4:4:1:0",
        "winograd3_pack:16:0:4:1:4:4:1:0", "winograd_pack:16:0:4:1:4:4:1:0",
        "pack_i8:16:0:4:1:4:4:1:0", "pack_f12:16:0:4:1:4:4:1:0", "packbf16:16:0:4:1:4:4:1:0"}) {
    engine::Spec spec = engine::read(engine)->spec;
    for (engine::ProgramSpec& part : spec.programs)
      for (engine::BufferSpec& buffer : part.buffers)
        if (buffer.kind == engine::BufferKind::Constant) buffer.transform = transform;
    plan::Program program;
    std::byte* data = nullptr;
    const ir::Literal literal = ir::Literal::allocate(DType::F32, {4, 4}, &data);
    for (size_t i = 0; i < 64; ++i)
      program.add_buffer({plan::BufferKind::Constant, "c", literal.type(), literal, -1});
    EXPECT_THROW(backend::refill_constants(cpu_backend(), spec, program, 1), CompileError)
        << transform;
  }
}

}  // namespace
}  // namespace kiln::testing
