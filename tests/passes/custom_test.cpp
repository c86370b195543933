// Passes leave kernels of the user's own alone: nobody knows what they do. The golden tests compare with the reference
// interpreter, which cannot call them.
#include <gtest/gtest.h>

#include "backends/reference/reference.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/runner.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

std::string custom(const std::string& operands, const std::string& sizes) {
  return "custom(" + operands +
         ") {arguments = \"{\\\"a\\\":1}\", dtypes = [0], kernel = \"my::op\", ranks = [1], shapes "
         "= [" +
         sizes + "]}";
}

std::string optimised(const std::string& text) {
  ir::Graph graph = ir::parse_graph(text);
  ir::verify(graph);
  PassContext context{[](const ir::Node& node, std::span<const ir::Literal* const> inputs) {
    return reference::evaluate(node, inputs, [](const ir::SymbolPtr& s) { return s->opt; });
  }};
  run_pipeline(graph, context, {});
  ir::verify(graph);
  return ir::to_text(graph);
}

TEST(CustomTest, IsNeitherFoldedNorJoinedNorRemoved) {
  const std::string text =
      "graph main(%x: f32[2]) {\n"
      "  %c = constant() {value = f32[2] [1, 2]} : f32[2]\n"
      "  %a = " +
      custom("%c", "2") +
      " : f32[2]\n"
      "  %b = " +
      custom("%c", "2") +
      " : f32[2]\n"
      "  %unused = " +
      custom("%x", "2") +
      " : f32[2]\n"
      "  %y = sub(%a, %b) : f32[2]\n"
      "  return %y as \"y\"\n}\n";
  EXPECT_EQ(optimised(text), text);
}

TEST(CustomTest, StaysWhereItsResultHasNoElements) {
  const std::string text =
      "graph main(%x: f32[0]) {\n"
      "  %y = " +
      custom("%x", "0") +
      " : f32[0]\n"
      "  return %y as \"y\"\n}\n";
  EXPECT_EQ(optimised(text), text);
}

TEST(CustomTest, IsNotInterpreted) {
  const ir::Graph graph = ir::parse_graph("graph main(%x: f32[2]) {\n  %y = " + custom("%x", "2") +
                                          "\n  return %y as \"y\"\n}\n");
  std::byte* data = nullptr;
  const std::vector<ir::Literal> inputs{ir::Literal::allocate(DType::F32, {2}, &data)};
  EXPECT_THROW(reference::run(graph, inputs), CompileError);
}

}  // namespace
}  // namespace kiln::passes
