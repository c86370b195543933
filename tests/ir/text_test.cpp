#include "ir/text.h"

#include <gtest/gtest.h>

#include <limits>

#include "ir/builder.h"

namespace kiln::ir {
namespace {

// Text that the printer gives for a graph is parsed back to a graph that prints the same.
void expect_round_trip(const std::string& text) { EXPECT_EQ(to_text(parse_graph(text)), text); }

TEST(TextTest, PrintsAGraph) {
  Graph graph;
  const SymbolPtr s0 = make_size_symbol("s0", 1, 32, 8);
  Value* x = graph.add_input("x", {DType::F32, {s0, 384}});
  Builder builder(graph);
  Value* two = builder.scalar(DType::F32, 2);
  Value* y = builder.value(Op::mul, {x, two});
  graph.set_outputs({y}, {"y"});
  EXPECT_EQ(to_text(graph),
            "graph main(%x: f32[s0, 384]) symbols s0 in [1, 32] opt 8 {\n"
            "  %constant = constant() {value = f32[] 2} : f32[]\n"
            "  %mul = mul(%x, %constant) : f32[s0, 384]\n"
            "  return %mul as \"y\"\n"
            "}\n");
}

TEST(TextTest, RoundTripsRequirements) {
  expect_round_trip(R"(graph needs(%x: f32[s0, 4]) symbols s0 in [0, 9] opt 8 {
  require mod(s0, 2) "" "x.size(0) is \"odd\""
  require s0 "amax" "a size other than 0" index
  %y = relu(%x) : f32[s0, 4]
  return %y as "y"
}
)");
}

TEST(TextTest, RoundTripsSizesThatAreFoundInTheData) {
  expect_round_trip(
      R"(graph found(%n: i64[], %x: f32[s0]) symbols s0 in [0, 9] opt 8, u0 in [0, 9] opt 4, u1 in [0, inf] opt 7 {
  %a = data_size(%n) {bound = s0, size = u0} : i64[]
  %y = full() {dtype = f32, shape = [u0 + 1, s0], value = 0} : f32[u0 + 1, s0]
  %b = data_size(%a) {size = u1} : i64[]
  %z = full() {dtype = f32, shape = [u1, u0], value = 0} : f32[u1, u0]
  return %y as "y", %z as "z"
}
)");
}

TEST(TextTest, RoundTripsEveryKindOfAttribute) {
  expect_round_trip(R"(graph kinds(%x: f32[s0, 4], %i: i64[2]) symbols s0 in [2, inf] opt 8 {
  %full = full() {dtype = f16, shape = [s0 + 1, 4], value = -inf} : f16[s0 + 1, 4]
  %iota = iota() {dtype = i32, size = s0*2, start = -3, step = -1} : i32[s0*2]
  %cast = cast(%x) {dtype = bf16} : bf16[s0, 4]
  %sum = reduce_sum(%x) {axes = [0, 1], keepdim = false} : f32[]
  %gelu = gelu(%x) {approximate = "tanh"} : f32[s0, 4]
  %norm = layer_norm(%x, _, _) {axes = 1, eps = 1e-05} : f32[s0, 4]
  %half = slice(%x) {axis = 0, size = floordiv(s0, 2), start = 0, step = 2} : f32[floordiv(s0, 2), 4]
  return %full as "full", %iota as "iota", %cast as "cast", %sum as "sum", %gelu as "gelu", %norm as "norm", %half as "half"
}
)");
}

TEST(TextTest, RoundTripsLiterals) {
  expect_round_trip(R"(graph literals() {
  %a = constant() {value = f32[3] [0.1, -2, nan]} : f32[3]
  %b = constant() {value = bool[2] [true, false]} : bool[2]
  %c = constant() {value = i64[1000, 10] splat -7} : i64[1000, 10]
  %d = constant() {value = f64[] 0.1} : f64[]
  %e = constant() {value = f16[0, 4] []} : f16[0, 4]
  %f = constant() {value = i64[2] [9223372036854775807, -9223372036854775808]} : i64[2]
  %g = constant() {value = bf16[2] [1, 9.96921e+37]} : bf16[2]
  return
}
)");
}

TEST(TextTest, RoundTripsNamesAndLocations) {
  const std::string text =
      "graph \"my model\"(%\"in put\": f32[2]) {\n"
      "  %y.1 = neg(%\"in put\") : f32[2] @ \"a \\\"b\\\".py:3\"\n"
      "  return %y.1 as \"out put\"\n"
      "}\n";
  EXPECT_EQ(to_text(parse_graph(text), {.types = true, .locations = true}), text);
}

TEST(TextTest, RoundTripsUpdates) {
  const std::string text =
      "graph main(%x: f32[2], %\"a cache\": f32[2]) {\n"
      "  %y = add(%x, %\"a cache\") : f32[2]\n"
      "  return %x as \"x\", %y as \"y\" updates %\"a cache\"\n"
      "}\n";
  const Graph graph = parse_graph(text);
  EXPECT_EQ(graph.updates, (std::map<size_t, size_t>{{1, 1}}));
  EXPECT_EQ(to_text(graph), text);
  EXPECT_THROW(parse_graph("graph main(%x: f32[2]) {\n  %y = neg(%x)\n"
                           "  return %x as \"x\" updates %y\n}\n"),
               CompileError);
}

TEST(TextTest, TypesAreOptional) {
  const std::string text = "graph main(%x: f32[2]) {\n  %y = neg(%x)\n  return %y as \"y\"\n}\n";
  EXPECT_EQ(to_text(parse_graph(text), {.types = false}), text);
}

TEST(TextTest, LargeLiteralsPrintAsAHashOfTheirContent) {
  std::byte* data = nullptr;
  Literal literal = Literal::allocate(DType::I32, {100}, &data);
  for (int i = 0; i < 100; ++i) Literal::set(data, DType::I32, i, i);
  auto print = [&] {
    Graph graph;
    Builder(graph).constant(literal);
    return to_text(graph);
  };
  const std::string before = print();
  EXPECT_NE(before.find("i32[100] #"), std::string::npos) << before;
  Literal::set(data, DType::I32, 99, 0);
  EXPECT_NE(print(), before);
}

TEST(TextTest, NamesAreKeptExactly) {
  // %add would be the default name of the first node, %add_1 that of the second.
  expect_round_trip(R"(graph main(%x: f32[2]) {
  %add_1 = add(%x, %x) : f32[2]
  %z = add(%x, %add_1) : f32[2]
  %add = add(%add_1, %z) : f32[2]
  return %add as "out"
}
)");
}

}  // namespace
}  // namespace kiln::ir
