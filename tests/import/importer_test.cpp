#include <gtest/gtest.h>

#include <algorithm>

#include "import/import.h"
#include "import/sample_program.h"
#include "ir/verify.h"
#include "support/error.h"

namespace kiln::import {
namespace {

using test::SampleProgram;

const std::string kSelf = R"({"name":"self","arg":{"as_tensor":{"name":"x"}},"kind":1})";

std::string message_of(const SampleProgram& sample, std::vector<DimRange> ranges = {}) {
  try {
    import_graph(*sample.open(), ranges);
  } catch (const CompileError& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(ImporterTest, ImportsAProgram) {
  const ir::Graph graph = import_graph(*SampleProgram().open());
  ir::verify(graph);
  ASSERT_EQ(graph.nodes().size(), 1u);
  const ir::Node& node = *graph.nodes().front();
  EXPECT_EQ(node.op, ir::Op::relu);
  EXPECT_EQ(node.location, "model.py:12 in forward");
  EXPECT_EQ(node.output()->name, "y");
  EXPECT_EQ(graph.inputs()[0]->name, "x");
  EXPECT_EQ(graph.output_names()[0], "y");
  const ir::SymbolPtr symbol = graph.inputs()[0]->type.shape[0].as_symbol();
  ASSERT_TRUE(symbol);
  EXPECT_EQ(symbol->min, 1);
  EXPECT_EQ(symbol->max, 32);
  EXPECT_EQ(symbol->opt, 2);
}

TEST(ImporterTest, TakesRangesFromTheCaller) {
  const ir::Graph graph =
      import_graph(*SampleProgram().open(), std::vector<DimRange>{{"x", 0, 2, 4, 8}});
  const ir::SymbolPtr symbol = graph.inputs()[0]->type.shape[0].as_symbol();
  EXPECT_EQ(symbol->min, 2);
  EXPECT_EQ(symbol->opt, 4);
  EXPECT_EQ(symbol->max, 8);
  const ir::Graph fixed =
      import_graph(*SampleProgram().open(), std::vector<DimRange>{{"x", 0, 3, 3, 3}});
  EXPECT_EQ(fixed.inputs()[0]->type.str(), "f32[3, 4]");
}

// x is [2*s0 + 1, 4].
SampleProgram odd_program(const std::string& ranges) {
  SampleProgram sample;
  const std::string size =
      R"json({"as_expr":{"expr_str":"Add(Mul(Integer(2), Symbol('s0')), Integer(1))","hint":{"as_int":5}}})json";
  sample.tensor_values = SampleProgram::meta("x", size) + "," + SampleProgram::meta("y", size);
  sample.ranges = ranges;
  return sample;
}

TEST(ImporterTest, ReadsASymbolOffAMultipleOfIt) {
  const SampleProgram sample = odd_program(R"("s0":{"min_val":2,"max_val":9})");
  const auto size_of = [&](const std::vector<DimRange>& ranges) {
    return import_graph(*sample.open(), ranges).inputs()[0]->type.shape[0];
  };
  EXPECT_EQ(size_of({}).str(), "s0*2 + 1");
  EXPECT_EQ(size_of({}).symbols().front()->opt, 2);
  const ir::SymbolPtr narrowed = size_of({{"x", 0, 4, 10, 16}}).symbols().front();
  EXPECT_EQ(narrowed->min, 2);
  EXPECT_EQ(narrowed->opt, 4);
  EXPECT_EQ(narrowed->max, 7);
  EXPECT_EQ(size_of({{"x", 0, 7, 7, 7}}).constant(), 7);
  EXPECT_EQ(size_of({{"x", 0, 1, 1, 19}}).symbols().front()->min, 0);
  EXPECT_TRUE(contains(message_of(sample, {{"x", 0, 5, 5, 21}}), "expected a range within 1..19"));
  EXPECT_TRUE(contains(message_of(sample, {{"x", 0, 6, 6, 6}}), "expected a range within 1..19"));
}

TEST(ImporterTest, ABoundOf2IsTheTracers) {
  SampleProgram sample;
  sample.ranges = R"("s0":{"min_val":2,"max_val":32})";
  const auto least = [&](const std::vector<DimRange>& ranges) {
    return import_graph(*sample.open(), ranges).inputs()[0]->type.shape[0].as_symbol()->min;
  };
  EXPECT_EQ(least({}), 2);
  EXPECT_EQ(least({{"x", 0, 1, 4, 8}}), 1);
  EXPECT_EQ(least({{"x", 0, 0, 4, 8}}), 0);
  sample.ranges = R"("s0":{"min_val":3,"max_val":32})";
  EXPECT_TRUE(contains(message_of(sample, {{"x", 0, 2, 4, 8}}), "expected a range within 3..32"));
}

// A program that drops the first axis of x if its size is 1.
SampleProgram squeezing_program() {
  SampleProgram sample;
  sample.nodes = SampleProgram::node("torch.ops.aten.squeeze.dim",
                                     kSelf + R"(,{"name":"dim","arg":{"as_int":0},"kind":1})");
  return sample;
}

std::vector<int64_t> with_small(SampleProgram sample, int64_t least,
                                const std::vector<DimRange>& ranges = {}) {
  sample.ranges = R"("s0":{"min_val":)" + std::to_string(least) + R"(,"max_val":32})";
  std::vector<int64_t> result;
  for (const DimRange& range : with_small_sizes(*sample.open(), ranges))
    for (const int64_t number : {range.min, range.opt, range.max}) result.push_back(number);
  return result;
}

TEST(ImporterTest, TakesSizesThatTheTracerLeftOut) {
  using Numbers = std::vector<int64_t>;
  const SampleProgram sample;
  const int64_t traced = with_small(sample, 2).at(1);
  EXPECT_EQ(with_small(sample, 2), (Numbers{0, traced, 32}));
  EXPECT_EQ(with_small(sample, 2, {{"x", 0, 2, 4, 8}}), (Numbers{2, 4, 8}));
  for (const int64_t meant : {0, 1, 3}) EXPECT_EQ(with_small(sample, meant), Numbers{});
}

TEST(ImporterTest, LeavesOutSizesForWhichTheGraphIsNotTheModels) {
  using Numbers = std::vector<int64_t>;
  const SampleProgram sample = squeezing_program();
  EXPECT_EQ(with_small(sample, 2), Numbers{});
  const Numbers narrowed = with_small(sample, 1);
  ASSERT_EQ(narrowed.size(), 3u);
  EXPECT_EQ(narrowed[0], 2);
  EXPECT_EQ(narrowed[2], 32);
  SampleProgram unknown;
  unknown.nodes = SampleProgram::node("torch.ops.aten.nonzero.default", kSelf);
  for (const int64_t least : {1, 2}) EXPECT_EQ(with_small(unknown, least), Numbers{});
}

TEST(ImporterTest, RefusesRangesThatContradictTheModel) {
  const SampleProgram sample;
  EXPECT_TRUE(contains(message_of(sample, {{"x", 0, 1, 1, 33}}), "expected a range within 1..32"));
  EXPECT_TRUE(
      contains(message_of(sample, {{"x", 1, 1, 4, 8}}), "the model was exported with that size"));
  EXPECT_EQ(message_of(sample, {{"x", 1, 4, 4, 4}}), "no error");
  EXPECT_TRUE(contains(message_of(sample, {{"z", 0, 1, 1, 1}}), "expected an input of the model"));
  EXPECT_TRUE(contains(message_of(sample, {{"x", 2, 1, 1, 1}}), "one of its dimensions"));
  EXPECT_TRUE(contains(message_of(sample, {{"x", 0, 4, 2, 8}}), "min <= opt <= max"));
}

std::string requirements_text(const ir::Graph& graph) {
  std::string text;
  for (const ir::Requirement& requirement : graph.requirements)
    text += requirement.condition.str() + ": " + requirement.expected + "\n";
  return text;
}

TEST(ImporterTest, GuardsAreRequirements) {
  SampleProgram sample;
  sample.guards =
      R"("(L['x'].size()[0] % 2) == 1", "L[\"x\"].size()[0] != 4", "L['x'].size()[0] < 99",)"
      R"("L['x'].size()[1] == 4", "L['x'].stride()[0] == 1", "L['y'].size()[0] == 1",)"
      R"("L['x'].size()[2] == 1", "L['x'].size()[0] / 2 == 1", "L['x'].size()[0] == 1.5",)"
      R"("L['x'].size()[0] + max(1, L['x'].size()[0] // 2)**2 <= 30 or not True",)"
      R"json("L['flat_args'][0].size()[0] != 4", "", "((((", "__import__('os')", "L['x")json";
  const ir::Graph graph = import_graph(*sample.open());
  ir::verify(graph);
  std::string expected;
  for (const ir::Requirement& requirement : graph.requirements)
    expected += requirement.expected + "\n";
  EXPECT_EQ(expected,
            "(x.size(0) % 2) == 1\nx.size(0) != 4\n"
            "x.size(0) + max(1, x.size(0) // 2)**2 <= 30 or not True\n");
  const auto holds = [&](size_t index, int64_t size) {
    return graph.requirements[index].condition.evaluate(
               [=](const ir::SymbolPtr&) { return size; }) != 0;
  };
  for (int64_t size = 1; size <= 32; ++size) {
    EXPECT_EQ(holds(0, size), size % 2 == 1) << size;
    EXPECT_EQ(holds(1, size), size != 4) << size;
    const int64_t half = std::max<int64_t>(1, size / 2);
    EXPECT_EQ(holds(2, size), size + half * half <= 30) << size;
  }
}

TEST(ImporterTest, AGuardMayBeCutAnywhere) {
  const std::string guard = "not (L['x'].size()[0] // max(2, int(3)) >= -1 and -2**2 < 1) or True";
  for (size_t length = 0; length < guard.size(); ++length) {
    SampleProgram sample;
    sample.guards = "\"" + guard.substr(0, length) + "\"";
    message_of(sample);  // whatever it says, it comes back
  }
  for (const char* part : {"(", "-", "not ", "L['x'].size()[0]**", "max(", "1 + "}) {
    std::string nested;
    for (int i = 0; i < 2000; ++i) nested += part;
    SampleProgram sample;
    sample.guards = "\"" + nested + "1\"";
    EXPECT_EQ(message_of(sample), "no error") << part;
  }
}

TEST(ImporterTest, GuardsFollowTheStructureOfTheInputs) {
  SampleProgram sample;
  sample.module_calls =
      R"json({"fqn":"","signature":{"forward_arg_names":["pair"],"in_spec":"[1,{\"type\":)json"
      R"json(\"builtins.tuple\",\"context\":\"null\",\"children_spec\":[{\"type\":\"builtins.tuple\",)json"
      R"json(\"context\":\"null\",\"children_spec\":[{\"type\":\"builtins.dict\",\"context\":)json"
      R"json(\"[\\\"k\\\"]\",\"children_spec\":[{\"type\":\"builtins.list\",\"context\":\"null\",)json"
      R"json(\"children_spec\":[{\"type\":null,\"context\":null,\"children_spec\":[]}]}]}]},)json"
      R"json({\"type\":\"builtins.dict\",\"context\":\"[]\",\"children_spec\":[]}]}]"}})json";
  sample.guards = R"("L['pair']['k'][0].size()[0] != 4", "L['pair']['z'][0].size()[0] != 5")";
  EXPECT_EQ(import_graph(*sample.open()).requirements.size(), 1u);
}

TEST(ImporterTest, AGuardThatNeverHoldsIsRefused) {
  SampleProgram sample;
  sample.guards = R"("L['x'].size()[0] > 40")";
  EXPECT_EQ(message_of(sample), "[size] got sizes that never fit, expected x.size(0) > 40");
}

TEST(ImporterTest, AssertionsAreRequirements) {
  SampleProgram sample;
  sample.conditions =
      R"json("even":{"as_expr":{"expr_str":"Equality(Mod(Symbol('s0'), Integer(2)), Integer(0))","hint":null}},)json"
      R"json("data":{"as_expr":{"expr_str":"LessThan(Symbol('u0'), Integer(2))","hint":null}},)json"
      R"json("known":{"as_bool":true})json";
  const auto assertion = [](const std::string& name) {
    return R"({"target":"torch.ops.aten._assert_scalar.default","inputs":[{"name":"self","arg":)"
           R"({"as_sym_bool":{"as_name":")" +
           name + R"("}},"kind":1},{"name":"assert_msg","arg":{"as_string":"no )" + name +
           R"("},"kind":1}],"outputs":[],"metadata":{}},)";
  };
  sample.nodes = assertion("even") + assertion("data") + assertion("known") + sample.nodes;
  const ir::Graph graph = import_graph(*sample.open());
  EXPECT_EQ(requirements_text(graph), "-mod(s0, 2) + 1: what the model asserts: no even\n");
}

TEST(ImporterTest, ExtremesNeedElements) {
  const auto reduced = [](const std::string& target, const std::string& more, int64_t least) {
    SampleProgram sample;
    sample.ranges = R"("s0":{"min_val":)" + std::to_string(least) + R"(,"max_val":9})";
    sample.nodes = SampleProgram::node(target, kSelf + more);
    sample.tensor_values = SampleProgram::meta("x", SampleProgram::symbolic_size()) +
                           R"(,"y":{"dtype":7,"sizes":[{"as_int":4}],"strides":[{"as_int":1}],)"
                           R"("storage_offset":{"as_int":0}})";
    return import_graph(*sample.open());
  };
  const std::string axis = R"(,{"name":"dim","arg":{"as_ints":[0]},"kind":1})";
  const ir::Graph graph = reduced("torch.ops.aten.amax.default", axis, 0);
  ASSERT_EQ(graph.requirements.size(), 1u);
  EXPECT_EQ(graph.requirements[0].operation, "amax");
  EXPECT_EQ(graph.requirements[0].kind, ir::Requirement::Kind::Index);
  EXPECT_EQ(requirements_text(graph),
            "s0: a size other than 0 for dimension 0 of x, which is reduced\n");
  EXPECT_TRUE(reduced("torch.ops.aten.amax.default", axis, 1).requirements.empty());
  EXPECT_TRUE(reduced("torch.ops.aten.sum.dim_IntList", axis, 0).requirements.empty());
}

TEST(ImporterTest, AnUnboundedRangeStaysOpen) {
  SampleProgram sample;
  sample.ranges = "";
  const ir::Graph graph = import_graph(*sample.open());
  EXPECT_EQ(graph.inputs()[0]->type.shape[0].as_symbol()->max, ir::kDimInfinity);
  sample.ranges = R"("s0":{"min_val":2,"max_val":null})";
  const ir::Graph other = import_graph(*sample.open());
  EXPECT_EQ(other.inputs()[0]->type.shape[0].as_symbol()->max, ir::kDimInfinity);
}

TEST(ImporterTest, NamesTheNodeThatCannotBeImported) {
  SampleProgram sample;
  sample.nodes = SampleProgram::node("torch.ops.aten.linalg_eig.default", kSelf);
  EXPECT_EQ(
      message_of(sample),
      "cannot import y = aten.linalg_eig.default (model.py:12 in forward): the operator is not "
      "supported");
  sample.nodes = SampleProgram::node("torch.ops.aten.relu.default",
                                     R"({"name":"self","arg":{"as_tensor":{"name":"z"}}})");
  EXPECT_TRUE(contains(message_of(sample), "unknown tensor z"));
  sample.nodes = SampleProgram::node("torch.ops.aten.relu.default", "");
  EXPECT_TRUE(contains(message_of(sample), "no argument self"));
}

TEST(ImporterTest, ChecksTypesAgainstTheRecordedOnes) {
  SampleProgram sample;
  sample.tensor_values = SampleProgram::meta("x", SampleProgram::symbolic_size()) + "," +
                         SampleProgram::meta("y", SampleProgram::symbolic_size(), 8);
  EXPECT_TRUE(contains(message_of(sample), "got type f32[s0, 4], expected f64[s0, 4] as recorded"));
}

TEST(ImporterTest, WeightsAreConstants) {
  SampleProgram sample;
  sample.input_specs += R"(,{"parameter":{"arg":{"name":"w"},"parameter_name":"layer.weight"}})";
  sample.tensor_values += "," + SampleProgram::meta("w", R"({"as_int":1})");
  sample.nodes =
      SampleProgram::node("torch.ops.aten.add.Tensor",
                          kSelf + R"(,{"name":"other","arg":{"as_tensor":{"name":"w"}},"kind":1})");
  EXPECT_TRUE(contains(message_of(sample), "no weight layer.weight"));

  const std::vector<float> data{1, 2, 3, 4};
  ir::Literal literal{DType::F32, {1, 4}, std::as_bytes(std::span(data)), nullptr};
  const auto model = sample.open({{"layer.weight", literal}});
  const ir::Graph graph = import_graph(*model);
  const ir::Node& constant = *graph.nodes().front();
  EXPECT_EQ(constant.op, ir::Op::constant);
  EXPECT_EQ(constant.attr<ir::Literal>("value").bytes.data(),
            std::as_bytes(std::span(data)).data());  // not copied

  literal.shape = {4, 1};
  EXPECT_THROW(import_graph(*sample.open({{"layer.weight", literal}})), CompileError);
  literal.shape = {4, 2};
  EXPECT_THROW(sample.open({{"layer.weight", literal}}), CompileError);
}

TEST(ImporterTest, RefusesStateAndOddOutputs) {
  SampleProgram sample;
  sample.output_specs = R"({"buffer_mutation":{"arg":{"name":"y"},"buffer_name":"counter"}})";
  EXPECT_TRUE(contains(message_of(sample), "buffer_mutation of counter"));
  sample.output_specs = R"({"user_output":{"arg":{"as_none":true}}})";
  EXPECT_TRUE(contains(message_of(sample), "output 0 that is not a tensor"));
  sample.output_specs =
      R"({"user_output":{"arg":{"as_tensor":{"name":"x"}}}},{"user_output":{"arg":{"as_tensor":{"name":"x"}}}})";
  const ir::Graph graph = import_graph(*sample.open());
  EXPECT_EQ(graph.outputs()[0], graph.inputs()[0]);
  EXPECT_EQ(graph.output_names()[1], "x_1");
}

TEST(ImporterTest, WhatIsChangedIsAnInputAndAnOutput) {
  SampleProgram sample;  // y = relu(x): what x is to be, and a buffer
  sample.input_specs =
      R"({"buffer":{"arg":{"name":"b"},"buffer_name":"layer.0.cache","persistent":true}},)" +
      sample.input_specs;
  sample.tensor_values += "," + SampleProgram::meta("b", SampleProgram::symbolic_size());
  sample.output_specs = R"({"buffer_mutation":{"arg":{"name":"y"},"buffer_name":"layer.0.cache"}},)"
                        R"({"user_input_mutation":{"arg":{"name":"b"},"user_input_name":"x"}},)" +
                        sample.output_specs;
  const std::vector<float> data(4);
  const ir::Literal literal{DType::F32, {1, 4}, std::as_bytes(std::span(data)), nullptr};
  const ir::Graph graph = import_graph(*sample.open({{"layer.0.cache", literal}}));
  ASSERT_EQ(graph.inputs().size(), 2u);
  EXPECT_EQ(graph.inputs()[1]->name, "buf_layer_0_cache");
  EXPECT_EQ(graph.output_names(),
            (std::vector<std::string>{"y", "buf_layer_0_cache_updated", "x_updated"}));
  EXPECT_EQ(graph.updates, (std::map<size_t, size_t>{{1, 1}, {2, 0}}));
  EXPECT_EQ(graph.outputs()[2], graph.inputs()[1]);

  sample.tensor_values += "," + SampleProgram::meta("h", SampleProgram::symbolic_size(), 6);
  sample.nodes +=
      "," + SampleProgram::node("torch.ops.aten.to.dtype",
                                kSelf + R"(,{"name":"dtype","arg":{"as_scalar_type":6},"kind":1})",
                                "h");
  sample.output_specs = R"({"user_input_mutation":{"arg":{"name":"h"},"user_input_name":"x"}})";
  EXPECT_TRUE(contains(message_of(sample), "for what x is to be, expected f32"));
}

TEST(ImporterTest, ChangesInPlaceNeedMemoryOfTheirOwn) {
  SampleProgram sample;
  sample.nodes = SampleProgram::node("torch.ops.aten.relu_.default", kSelf);
  EXPECT_TRUE(contains(message_of(sample), "a change of x in place"));

  // z = x + x; y = relu_(z)
  const std::string add = SampleProgram::node(
      "torch.ops.aten.add.Tensor",
      kSelf + R"(,{"name":"other","arg":{"as_tensor":{"name":"x"}},"kind":1})", "z");
  const std::string of_z = R"({"name":"self","arg":{"as_tensor":{"name":"z"}},"kind":1})";
  sample.tensor_values += "," + SampleProgram::meta("z", SampleProgram::symbolic_size());
  sample.nodes = add + "," + SampleProgram::node("torch.ops.aten.relu_.default", of_z);
  EXPECT_EQ(message_of(sample), "no error");

  // z = x + x; v = alias(z); y = relu_(z); w = neg(v)
  const std::string of_v = R"({"name":"self","arg":{"as_tensor":{"name":"v"}},"kind":1})";
  sample.tensor_values += "," + SampleProgram::meta("v", SampleProgram::symbolic_size()) + "," +
                          SampleProgram::meta("w", SampleProgram::symbolic_size());
  sample.nodes = add + "," + SampleProgram::node("torch.ops.aten.alias.default", of_z, "v") + "," +
                 SampleProgram::node("torch.ops.aten.relu_.default", of_z) + "," +
                 SampleProgram::node("torch.ops.aten.neg.default", of_v, "w");
  EXPECT_TRUE(contains(message_of(sample), "that w sees under another name"));
}

TEST(ImporterTest, SupportIsJudgedNodeByNode) {
  SampleProgram sample;
  const std::string of_z = R"({"name":"self","arg":{"as_tensor":{"name":"z"}},"kind":1})";
  sample.tensor_values += "," + SampleProgram::meta("z", SampleProgram::symbolic_size()) + "," +
                          SampleProgram::meta("w", SampleProgram::symbolic_size());
  sample.nodes = SampleProgram::node("torch.ops.aten.neg.default", kSelf, "w") + "," +
                 SampleProgram::node("torch.ops.custom.thing.default", kSelf, "z") + "," +
                 SampleProgram::node("torch.ops.aten.relu.default", of_z);
  const std::vector<NodeSupport> support = check_support(*sample.open());
  ASSERT_EQ(support.size(), 3u);
  EXPECT_TRUE(support[0].supported);
  EXPECT_FALSE(support[1].supported);
  EXPECT_EQ(support[1].name, "z");
  EXPECT_EQ(support[1].target, "torch.ops.custom.thing.default");
  EXPECT_EQ(support[1].reason, "the operator is not supported");
  EXPECT_TRUE(support[2].supported);  // judged with a stand-in for z
}

TEST(ImporterTest, OddInputsDoNotKeepNodesFromBeingJudged) {
  SampleProgram sample;
  sample.input_specs += R"(,{"token":{"arg":{"name":"token"}}})";
  EXPECT_TRUE(contains(message_of(sample), "an input of kind token"));
  EXPECT_TRUE(check_support(*sample.open()).at(0).supported);
}

TEST(ImporterTest, TargetsAreSortedAndUnique) {
  const std::vector<std::string> targets = supported_targets();
  EXPECT_GT(targets.size(), 300u);
  EXPECT_TRUE(std::ranges::is_sorted(targets));
  EXPECT_EQ(std::ranges::adjacent_find(targets), targets.end());
}

}  // namespace
}  // namespace kiln::import
