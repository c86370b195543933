// Contractions as graphs: lowered and fused by the plan, and in the half types.
#include "cpu/nest_harness.h"
#include "plan/passes/pass.h"

namespace kiln::test {
namespace {

constexpr const char* kConvolution =
    "convolution(%x, %w, %wb) {dilation = [1, 1], groups = 1, layout = \"nhwc\", "
    "padding_after = [1, 1], padding_before = [1, 1], stride = [1, 1]}";

// Sums are short: what is compared is how operands are read and results are rounded.
TEST(ContractionGraph, HalfTypes) {
  for (const char* type : {"f16", "bf16"}) {
    auto tensor = [&](const char* name, const char* shape) {
      return "%" + std::string(name) + ": " + type + shape;
    };
    const plan::Case options{.tolerance = 2e-2};
    expect_compiled(graph_text(tensor("x", "[s0, 40]") + ", " + tensor("w", "[50, 40]") + ", " +
                                   tensor("wb", "[50]"),
                               " %y = linear(%x, %w, %wb)"),
                    options);
    expect_compiled(graph_text(tensor("a", "[3, s0, 20]") + ", " + tensor("b", "[3, 20, 33]"),
                               " %y = matmul(%a, %b) {transpose_b = false}"),
                    options);
    expect_compiled(graph_text(tensor("x", "[2, 6, 7, 9]") + ", " + tensor("w", "[20, 3, 3, 9]") +
                                   ", " + tensor("wb", "[20]"),
                               std::string(" %y = ") + kConvolution),
                    options);
    expect_compiled(
        graph_text(tensor("q", "[2, 3, s0, 16]") + ", " + tensor("k", "[2, 3, 11, 16]") + ", " +
                       tensor("v", "[2, 3, 11, 16]"),
                   " %y = attention(%q, %k, %v) {causal = false, scale = 0.25}"),
        options);
  }
}

TEST(ContractionGraph, LinearWithEpilogue) {
  for (int64_t rows : {1, 5, 37, 70}) {
    expect_compiled(graph_text("%x: f32[s0, 40], %r: f32[s0, 70], %w: f32[70, 40], %wb: f32[70]",
                               " %a = linear(%x, %w, %wb)\n"
                               " %g = gelu(%a) {approximate = \"none\"}\n"
                               " %y = add(%g, %r)"),
                    {.sizes = {{"s0", rows}}});
  }
}

TEST(ContractionGraph, ConvolutionWithEpilogue) {
  expect_compiled(
      graph_text("%x: f32[2, 9, 10, 16], %w: f32[48, 3, 3, 16], %wb: f32[48], "
                 "%r: f32[2, 9, 10, 48]",
                 std::string(" %c = ") + kConvolution + "\n %s = add(%c, %r)\n %y = relu(%s)"));
}

// Heads split, attended and joined, as transformers do it.
TEST(ContractionGraph, AttentionOfHeads) {
  const std::string heads = " {shape = [2, s0, 3, 16]}\n";
  auto head = [&](const std::string& name) {
    return " %" + name + "r = reshape(%" + name + "0)" + heads + " %" + name + " = permute(%" +
           name + "r) {axes = [0, 2, 1, 3]}\n";
  };
  std::string body;
  for (const char* name : {"q", "k", "v"}) {
    body += " %" + std::string(name) + "0 = linear(%x, %w" + name + ")\n" + head(name);
  }
  body +=
      " %a = attention(%q, %k, %v) {causal = true, scale = 0.25}\n"
      " %p = permute(%a) {axes = [0, 2, 1, 3]}\n"
      " %j = reshape(%p) {shape = [2, s0, 48]}\n"
      " %y = linear(%j, %wo)";
  for (int64_t size : {1, 19, 66}) {
    expect_compiled(graph_text("%x: f32[2, s0, 24], %wq: f32[48, 24], %wk: f32[48, 24], "
                               "%wv: f32[48, 24], %wo: f32[24, 48]",
                               body),
                    {.sizes = {{"s0", size}}, .tolerance = 1e-4});
  }
}

// Two layers of one shape, whose results leave i32 in one of them: what is limited before it is rounded follows from the
// magnitude of the scales.
TEST(ContractionGraph, QuantisedLayersOfOtherScales) {
  const auto layer = [](const std::string& n, const std::string& scales) {
    return "\n %s" + n + " = constant() {value = f32[4, 1] [" + scales + "]}\n %v" + n +
           " = dequantize(%w" + n + ", %s" + n + ") {dtype = f32}\n %l" + n + " = linear(%d, %v" +
           n + ")\n %y" + n + " = quantize(%l" + n +
           ", %t, %z) {dtype = u8, quant_min = 0, quant_max = 255}";
  };
  const std::string text = graph_text(
      "%x: u8[s0, 12], %wa: i8[4, 12], %wb: i8[4, 12]",
      " %t = full() {dtype = f32, shape = [], value = 0.5}\n %z = full() {dtype = i64, shape = [], "
      "value = 3}\n %o = full() {dtype = f32, shape = [], value = 0.25}\n %d = dequantize(%x, %o, "
      "%z) "
      "{dtype = f32}" +
          layer("a", "0.0009765625, 0.001953125, 0.25, 0.125") +
          layer("b", "16777216.0, 1.0, 0.5, 8388608.0"),
      "%ya, %yb");
  const plan::Case options{.integer_limit = 100};
  const ir::Graph graph = plan::make_graph(text, options);
  plan::Program program = plan::lower(graph, cpu_backend().traits);
  plan::run_pipeline(program,
                     {.disabled = {"merge_matmuls"}, .verify = true, .dump_directory = {}});
  ASSERT_EQ(program.kernels.size(), 2U);
  expect_compiled(program, plan::make_inputs(graph, options), 0);
}

}  // namespace
}  // namespace kiln::test
