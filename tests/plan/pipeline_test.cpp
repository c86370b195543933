// The whole pipeline: how many kernels are left of the blocks that models are made of, and the
// runner's options.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "plan/compare.h"
#include "plan/form/kernels.h"
#include "plan/form/lifetimes.h"
#include "plan/passes/pass.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

// A layer of an encoder, as the importer writes it.
constexpr const char* kEncoderLayer = R"(graph main(%x: f32[s, t, 8], %m: i64[s, t],
    %w1: f32[8, 8], %w2: f32[8, 8], %w3: f32[8, 8], %w4: f32[8, 8], %w5: f32[16, 8], %w6: f32[8, 16],
    %wb1: f32[8], %wb2: f32[8], %wb3: f32[8], %wb4: f32[8], %wb5: f32[16], %wb6: f32[8], %wg: f32[8], %wh: f32[8])
    symbols s in [1, 8] opt 2, t in [1, 8] opt 4 {
  %b = cast(%m) {dtype = bool}
  %r = reshape(%b) {shape = [s, 1, 1, t]}
  %e = expand(%r) {shape = [s, 1, t, t]}
  %q = linear(%x, %w1, %wb1)
  %k = linear(%x, %w2, %wb2)
  %v = linear(%x, %w3, %wb3)
  %q1 = reshape(%q) {shape = [s, t, 2, 4]}
  %k1 = reshape(%k) {shape = [s, t, 2, 4]}
  %v1 = reshape(%v) {shape = [s, t, 2, 4]}
  %q2 = permute(%q1) {axes = [0, 2, 1, 3]}
  %k2 = permute(%k1) {axes = [0, 2, 1, 3]}
  %v2 = permute(%v1) {axes = [0, 2, 1, 3]}
  %a = attention(%q2, %k2, %v2, %e) {causal = false, scale = 0.5}
  %a1 = permute(%a) {axes = [0, 2, 1, 3]}
  %a2 = reshape(%a1) {shape = [s, t, 8]}
  %o = linear(%a2, %w4, %wb4)
  %o1 = add(%o, %x)
  %n = layer_norm(%o1, %wg, %wh) {axes = 1, eps = 1e-05}
  %f = linear(%n, %w5, %wb5)
  %f1 = gelu(%f) {approximate = "none"}
  %f2 = linear(%f1, %w6, %wb6)
  %f3 = add(%f2, %n)
  %y = layer_norm(%f3, %wg, %wh) {axes = 1, eps = 1e-05}
  return %y as "y"
})";

TEST(PipelineTest, AnEncoderLayerIsSevenKernels) {
  const Case options{.sizes = {{"t", 5}}, .integer_limit = 2};
  const Program program = expect_same_as_reference(kEncoderLayer, options);
  // projections, attention, out + residual, norm, ffn + GELU, ffn + residual, norm
  EXPECT_EQ(program.kernels.size(), 7u) << to_text(program);
}

// Graphs of `count` steps, in which everything could become one kernel.
using Steps = std::string (*)(int count);

std::string chain_of(const std::string& step, int count) {
  std::string body = "graph main(%x0: f32[8, 16]) {\n";
  for (int i = 0; i < count; ++i) {
    const std::string n = std::to_string(i), next = std::to_string(i + 1);
    body += "  %t" + n + " = " + step + "(%x" + n + ")" + (step == "softmax" ? " {axis = 1}" : "") +
            "\n  %x" + next + " = add(%t" + n + ", %x" + n + ")\n";
  }
  return body + "  return %x" + std::to_string(count) + " as \"y\"\n}";
}

std::string branches_of(bool products, int count) {
  std::string inputs = "%x: f32[8, 16]", body, operands;
  for (int i = 0; i < count; ++i) {
    const std::string n = std::to_string(i);
    if (products) inputs += ", %w" + n + ": f32[4, 16]";
    body += products
                ? "  %p" + n + " = linear(%x, %w" + n + ")\n  %b" + n + " = tanh(%p" + n + ")\n"
                : "  %b" + n + " = tanh(%x)\n";
    operands += (i == 0 ? "%b" : ", %b") + n;
  }
  return "graph main(" + inputs + ") {\n" + body + "  %y = concat(" + operands +
         ") {axis = 1}\n  return %y as \"y\"\n}";
}

// Stages, expressions and columns of the largest kernel.
size_t largest_kernel(const std::string& text) {
  Program program = lower(make_graph(text), test_traits());
  run_pipeline(program, {});
  size_t largest = 0;
  for (const Kernel& kernel : program.kernels) {
    size_t size = 0;
    if (const auto* nest = std::get_if<LoopNest>(&kernel.body)) size += nest->stages.size();
    if (const auto* product = std::get_if<MatMul>(&kernel.body))
      size += static_cast<size_t>(product->n.extent().constant());
    for_each_expr(kernel, [&](const Expr& expr) { visit(expr, [&](const ExprNode&) { ++size; }); });
    largest = std::max(largest, size);
  }
  return largest;
}

// Passes and code generators may take the square of a kernel's size: it must not grow with the graph.
TEST(PipelineTest, KernelsDoNotGrowWithTheGraph) {
  const std::pair<const char*, Steps> graphs[] = {
      {"pointwise", [](int count) { return chain_of("tanh", count); }},
      {"rows", [](int count) { return chain_of("softmax", count); }},
      {"branches", [](int count) { return branches_of(false, count); }},
      {"products", [](int count) { return branches_of(true, count); }},
  };
  for (const auto& [name, graph] : graphs) {
    SCOPED_TRACE(name);
    EXPECT_EQ(largest_kernel(graph(600)), largest_kernel(graph(300)));
  }
}

// Constants of a plan that are made of replaceable weights are replaceable.
void expect_replaceable(const std::string& text) {
  const ir::Graph graph = make_graph(text);
  for (const auto& node : graph.nodes()) {
    if (node->op != ir::Op::constant) continue;
    std::get<ir::Literal>(node->attrs["value"]).replaceable = true;
  }
  Program program = lower(graph, test_traits());
  run_pipeline(program, {});
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::Constant) continue;
    EXPECT_TRUE(buffer.literal.replaceable) << buffer.name;
  }
}

TEST(PipelineTest, WeightsThatAreJoinedOrRearrangedStayReplaceable) {
  expect_replaceable(kEncoderLayer);
  expect_replaceable(
      "graph main(%x: f32[2, 5, 5, 4], %w: f32[4, 3, 3, 1]) {\n"
      " %y = convolution(%x, %w) {stride = [1, 1], padding_before = [0, 0], padding_after = [0, "
      "0], "
      "dilation = [1, 1], groups = 4, layout = \"nhwc\"}\n return %y\n}");
}

TEST(PipelineTest, EverySizeInRangeGivesTheSame) {
  for (int64_t s : {1, 8}) {
    for (int64_t t : {1, 8}) {
      expect_same_as_reference(kEncoderLayer, {.sizes = {{"s", s}, {"t", t}}, .integer_limit = 2});
    }
  }
}

TEST(PipelineTest, ResidualBlocksAreOneKernelPerConvolution) {
  const std::string attributes =
      "{dilation = [1, 1], groups = 1, layout = \"nhwc\", padding_after = [1, 1], "
      "padding_before = [1, 1], stride = [1, 1]}";
  const Program program = expect_same_as_reference(
      "graph main(%x: f32[s, 5, 5, 4], %w: f32[4, 3, 3, 4], %wb: f32[4]) symbols s in [1, 4] opt 2 "
      "{\n"
      "%a = convolution(%x, %w, %wb) " +
      attributes +
      "\n %b = relu(%a)\n"
      "%c = convolution(%b, %w, %wb) " +
      attributes + "\n %d = add(%c, %x)\n %y = relu(%d)\n return %y\n}");
  EXPECT_EQ(program.kernels.size(), 2u) << to_text(program);
}

TEST(PipelineTest, DisabledPassesDoNotRun) {
  Program program = lowered(kEncoderLayer);
  run_pipeline(program, {.disabled = {"merge_matmuls"}, .verify = true, .dump_directory = {}});
  EXPECT_EQ(program.kernels.size(), 9u) << to_text(program);
}

TEST(PipelineTest, DisablingWhatIsNoPassNamesTheNearest) {
  Program program = lowered(kEncoderLayer);
  try {
    run_pipeline(program, {.disabled = {"merge_matmul"}, .verify = false, .dump_directory = {}});
    FAIL();
  } catch (const CompileError& error) {
    EXPECT_STREQ(error.what(),
                 "[passes] got \"merge_matmul\", expected the name of a pass; "
                 "the nearest is \"merge_matmuls\"");
  }
}

TEST(PipelineTest, DumpsEveryPassThatChangedTheProgram) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "kiln_plan_dumps";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  Program program = lowered(kEncoderLayer);
  run_pipeline(program, {.disabled = {}, .verify = false, .dump_directory = folder.string()});
  EXPECT_TRUE(std::filesystem::exists(folder / "plan_000_lowered.plan"));
  EXPECT_TRUE(std::filesystem::exists(folder / "plan_001_inline_pointwise.plan"));
  std::filesystem::remove_all(folder);
}

TEST(PipelineTest, GivesTheSameTextEveryTime) {
  const auto text = [] {
    Program program = lowered(kEncoderLayer);
    run_pipeline(program, {});
    return to_text(program);
  };
  EXPECT_EQ(text(), text());
}

TEST(LifetimesTest, CountAliasesForTheirRoot) {
  Program program = lowered(R"(graph main(%x: f32[4]) {
  %a = neg(%x)
  %b = exp(%a)
  %c = tanh(%b)
  %d = add(%c, %x)
  return %d as "d"
})");
  EXPECT_TRUE(reuse_buffers(program));
  const std::vector<Lifetime> times = lifetimes(program);
  int live = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    if (times[i].first < 0) continue;
    ++live;
    EXPECT_EQ(times[i].first, 0);
    EXPECT_EQ(times[i].last, 3);
  }
  EXPECT_EQ(live, 1) << to_text(program);
}

}  // namespace
}  // namespace kiln::plan
