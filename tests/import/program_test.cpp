#include "import/program.h"

#include <gtest/gtest.h>

#include "import/sample_program.h"
#include "support/error.h"

namespace kiln::import {
namespace {

using test::SampleProgram;

std::string message_of(const std::string& json) {
  try {
    parse_program(json);
  } catch (const CompileError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ProgramTest, ReadsAProgram) {
  const Program program = parse_program(SampleProgram().json());
  ASSERT_EQ(program.graph.nodes.size(), 1u);
  const ProgramNode& node = program.graph.nodes[0];
  EXPECT_EQ(node.target, "torch.ops.aten.relu.default");
  EXPECT_EQ(node.name(), "y");
  EXPECT_EQ(node.location, "model.py:12 in forward");
  EXPECT_EQ(program.inputs.at(0).name, "x");
  EXPECT_EQ(program.outputs.at(0).kind, "user_output");
  EXPECT_EQ(program.ranges.at("s0").max, 32);
  const SizeExpression& size = program.graph.tensor_values.at("x").sizes.at(0);
  EXPECT_EQ(size.expression, "Symbol('s0', positive=True, integer=True)");
  EXPECT_EQ(size.hint, 2);
}

TEST(ProgramTest, ReadsEveryKindOfArgument) {
  SampleProgram sample;
  sample.nodes = SampleProgram::node("t", R"(
      {"name":"a","arg":{"as_none":true}}, {"name":"b","arg":{"as_int":-5}}, {"name":"c","arg":{"as_ints":[1,2]}},
      {"name":"d","arg":{"as_float":2.5}}, {"name":"e","arg":{"as_float":"-Infinity"}}, {"name":"f","arg":{"as_bool":true}},
      {"name":"g","arg":{"as_string":"mean"}}, {"name":"h","arg":{"as_sym_int":{"as_name":"n"}}},
      {"name":"i","arg":{"as_sym_int":{"as_int":3}}}, {"name":"j","arg":{"as_sym_ints":[{"as_name":"n"},{"as_int":4}]}},
      {"name":"k","arg":{"as_tensors":[{"name":"x"},{"name":"x"}]}}, {"name":"l","arg":{"as_scalar_type":12}},
      {"name":"m","arg":{"as_optional_tensors":[{"as_none":true},{"as_tensor":{"name":"x"}}]}},
      {"name":"n","arg":{"as_device":{"type":"cpu","index":null}}}, {"name":"o","arg":{"as_floats":[0.5,"NaN"]}})");
  const Program program = parse_program(sample.json());
  const auto& inputs = program.graph.nodes[0].inputs;
  EXPECT_TRUE(std::holds_alternative<None>(inputs[0].second));
  EXPECT_EQ(std::get<int64_t>(inputs[1].second), -5);
  EXPECT_EQ(std::get<int64_t>(std::get<std::vector<SizeArgument>>(inputs[2].second)[1]), 2);
  EXPECT_EQ(std::get<double>(inputs[3].second), 2.5);
  EXPECT_EQ(std::get<double>(inputs[4].second), -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::get<bool>(inputs[5].second));
  EXPECT_EQ(std::get<std::string>(inputs[6].second), "mean");
  EXPECT_EQ(std::get<SizeName>(inputs[7].second).name, "n");
  EXPECT_EQ(std::get<int64_t>(inputs[8].second), 3);
  EXPECT_EQ(std::get<SizeName>(std::get<std::vector<SizeArgument>>(inputs[9].second)[0]).name, "n");
  EXPECT_EQ(std::get<std::vector<TensorName>>(inputs[10].second).size(), 2u);
  EXPECT_EQ(dtype_of(std::get<ScalarType>(inputs[11].second)), DType::Bool);
  EXPECT_EQ(std::get<std::vector<TensorName>>(inputs[12].second)[0].name, "");
  EXPECT_EQ(std::get<OtherArgument>(inputs[13].second).kind, "as_device");
  EXPECT_EQ(std::get<std::vector<double>>(inputs[14].second)[0], 0.5);
}

TEST(ProgramTest, KnowsTheDtypesOfTorchExport) {
  EXPECT_EQ(dtype_of({7}), DType::F32);
  EXPECT_EQ(dtype_of({13}), DType::BF16);
  EXPECT_EQ(dtype_of({5}), DType::I64);
  EXPECT_EQ(dtype_of({10}), std::nullopt);
  EXPECT_EQ(scalar_type_name({29}), "float8_e4m3fn");
}

TEST(ProgramTest, RefusesOtherVersions) {
  SampleProgram sample;
  sample.major = 9;
  EXPECT_NE(message_of(sample.json()).find("schema version 9, expected 8"), std::string::npos);
}

TEST(ProgramTest, NamesTheKeyThatIsWrong) {
  EXPECT_NE(message_of("").find("expected JSON"), std::string::npos);
  EXPECT_NE(message_of("[1, 2").find("expected JSON"), std::string::npos);
  EXPECT_NE(message_of("[]").find("schema_version"), std::string::npos);
  EXPECT_NE(message_of("{}").find("no \"schema_version\""), std::string::npos);
  SampleProgram sample;
  sample.nodes = R"({"target":7})";
  EXPECT_NE(message_of(sample.json()).find("\"target\", expected a string"), std::string::npos);
  sample.nodes = R"({"target":"t","inputs":{},"outputs":[]})";
  EXPECT_NE(message_of(sample.json()).find("\"inputs\", expected a list"), std::string::npos);
  sample.nodes = R"({"target":"t","inputs":[{"name":"a","arg":{}}],"outputs":[]})";
  EXPECT_NE(message_of(sample.json()).find("empty \"argument\""), std::string::npos);
}

TEST(ProgramTest, RefusesDeepNesting) {
  EXPECT_NE(message_of(std::string(100000, '[')).find("expected JSON"), std::string::npos);
}

// Every truncation is an error, and none a crash.
TEST(ProgramTest, RefusesATruncationAtEveryLength) {
  const std::string json = SampleProgram().json();
  for (size_t length = 0; length < json.size(); ++length) {
    EXPECT_NE(message_of(json.substr(0, length)), "no error") << length;
  }
}

}  // namespace
}  // namespace kiln::import
