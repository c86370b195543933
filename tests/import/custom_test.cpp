// Operators that Kiln does not know and the user has kernels for.
#include "import/custom.h"

#include <gtest/gtest.h>

#include <cstring>

#include "import/sample_program.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "support/error.h"

namespace kiln::import {
namespace {

using test::SampleProgram;

const std::string kX = R"({"name":"x","arg":{"as_tensor":{"name":"x"}},"kind":1})";

bool has_kernel(const char* name) { return std::strncmp(name, "my::op", 6) == 0; }

std::string argument(const std::string& name, const std::string& value) {
  return R"(,{"name":")" + name + R"(","arg":)" + value + R"(,"kind":1})";
}

ir::Graph imported(const std::string& target, const std::string& arguments) {
  SampleProgram sample;
  sample.nodes = SampleProgram::node("torch.ops." + target, kX + arguments);
  const auto model = sample.open();
  model->has_kernel = has_kernel;
  ir::Graph graph = import_graph(*model);
  ir::verify(graph);
  return graph;
}

std::string arguments_of(const std::string& arguments) {
  return imported("my.op.default", arguments).nodes().back()->attr<std::string>("arguments");
}

std::string error_of(const std::string& target, const std::string& arguments) {
  try {
    imported(target, arguments);
  } catch (const CompileError& error) {
    return error.what();
  }
  return "no error";
}

TEST(CustomTest, KernelsHaveTheNamesOfOperators) {
  EXPECT_EQ(kernel_name("my.op.default"), "my::op");
  EXPECT_EQ(kernel_name("my.op.out_variant"), "my::op.out_variant");
  EXPECT_EQ(kernel_name("my.op_.default"), std::nullopt);
  EXPECT_EQ(kernel_name("higher_order.cond"), std::nullopt);
  EXPECT_EQ(kernel_name("higher_order.some.thing"), std::nullopt);
  EXPECT_EQ(kernel_name("op"), std::nullopt);
}

TEST(CustomTest, TypesAreThoseOfTheModel) {
  const ir::Graph graph = imported("my.op.default", "");
  const ir::Node& node = *graph.nodes().back();
  EXPECT_EQ(node.op, ir::Op::custom);
  EXPECT_EQ(node.output()->type.str(), "f32[s0, 4]");
  EXPECT_EQ(node.attr<std::string>("kernel"), "my::op");
  EXPECT_EQ(node.attr<std::string>("arguments"), "{}");
  EXPECT_TRUE(ir::may_fail(node));
}

TEST(CustomTest, ArgumentsAreJson) {
  EXPECT_EQ(arguments_of(argument("n", R"({"as_int":3})") + argument("f", R"({"as_float":2.0})") +
                         argument("b", R"({"as_bool":true})") +
                         argument("t", R"({"as_string":"a \"b\""})") +
                         argument("z", R"({"as_none":true})")),
            R"({"n":3,"f":2.0,"b":true,"t":"a \"b\"","z":null})");
  EXPECT_EQ(arguments_of(argument("i", R"({"as_ints":[1,-2]})") +
                         argument("f", R"({"as_floats":[0.5,1e300]})") +
                         argument("b", R"({"as_bools":[true,false]})") +
                         argument("d", R"({"as_scalar_type":6})") +
                         argument("v", R"({"as_device":{"type":"cpu","index":null}})")),
            R"({"i":[1,-2],"f":[0.5,1e+300],"b":[true,false],"d":"float16"})");
  EXPECT_EQ(arguments_of(argument("more", R"({"as_tensors":[{"name":"x"},{"name":"x"}]})")),
            R"({"more":[1,2]})");
}

TEST(CustomTest, ArgumentsThatAKernelCannotHaveAreRefused) {
  const std::string strings = error_of("my.op.default", argument("t", R"({"as_strings":["a"]})"));
  EXPECT_NE(strings.find("got as_strings as argument t"), std::string::npos) << strings;
  const std::string list = R"json({"as_sym_ints":[{"as_name":"n"}]})json";
  EXPECT_NE(error_of("my.op.default", argument("n", list)), "no error");
}

TEST(CustomTest, OthersAreNotSupported) {
  for (const char* target : {"other.op.default", "my.op_.default"}) {
    const std::string error = error_of(target, "");
    EXPECT_NE(error.find("the operator is not supported"), std::string::npos) << error;
  }
  SampleProgram sample;
  sample.nodes = SampleProgram::node("torch.ops.my.op.default", kX);
  EXPECT_THROW(import_graph(*sample.open()), CompileError);
}

TEST(CustomTest, SupportNamesTheKernels) {
  SampleProgram sample;
  sample.nodes = SampleProgram::node("torch.ops.my.op.default", kX);
  const auto model = sample.open();
  model->has_kernel = has_kernel;
  EXPECT_EQ(check_support(*model)[0].kernels, std::vector<std::string>{"my::op"});
}

}  // namespace
}  // namespace kiln::import
