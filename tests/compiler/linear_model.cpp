#include "compiler/linear_model.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace kiln::testing {
namespace {

std::string argument(const std::string& name, const std::string& tensor) {
  return R"({"name":")" + name + R"(","arg":{"as_tensor":{"name":")" + tensor + R"("}},"kind":1})";
}

std::string node(const std::string& target, const std::string& inputs, const std::string& output,
                 const std::string& source) {
  return R"({"target":"torch.ops.aten.)" + target + R"(","inputs":[)" + inputs +
         R"(],"outputs":[{"as_tensor":{"name":")" + output +
         R"json("}}],"metadata":{"stack_trace":"File \")json" + source +
         R"json(\", line 1, in f\n  x"}})json";
}

std::string meta(const std::string& name, const std::string& sizes, const std::string& strides) {
  return "\"" + name + R"(":{"dtype":7,"sizes":[)" + sizes +
         R"(],"requires_grad":false,"device":{"type":"cpu","index":null},"strides":[)" + strides +
         R"(],"storage_offset":{"as_int":0},"layout":7})";
}

std::string matrix(const std::string& name) {
  const std::string rows =
      R"json({"as_expr":{"expr_str":"Symbol('s0', positive=True, integer=True)","hint":{"as_int":2}}})json";
  return meta(name, rows + R"(,{"as_int":4})", R"({"as_int":4},{"as_int":1})");
}

std::string vector(const std::string& name) {
  return meta(name, R"({"as_int":4})", R"({"as_int":1})");
}

std::string parameter(const std::string& name) {
  return R"({"parameter":{"arg":{"name":")" + name + R"("},"parameter_name":")" + name + R"("}})";
}

import::Model::NamedTensor tensor(const std::string& name, const std::vector<float>& values,
                                  std::vector<int64_t> shape) {
  return {name, {DType::F32, std::move(shape), std::as_bytes(std::span(values)), nullptr}};
}

std::string nodes(const LinearModel& model) {
  const std::string norm = argument("input", "x") +
                           R"(,{"name":"normalized_shape","arg":{"as_ints":[4]},"kind":1},)" +
                           argument("weight", "scale") + "," + argument("bias", "shift") +
                           R"(,{"name":"eps","arg":{"as_float":)" + model.eps + R"(},"kind":1})";
  return node("layer_norm.default", norm, "norm", model.source_line) + "," +
         node("mm.default", argument("self", "norm") + "," + argument("mat2", "weight"), "mm",
              model.source_line) +
         "," +
         node("sub.Tensor", argument("self", model.left) + "," + argument("other", model.right),
              "sum", model.source_line) +
         "," + node(model.activation + ".default", argument("self", "sum"), "y", model.source_line);
}

std::string json(const LinearModel& model) {
  return R"({"graph_module":{"graph":{"inputs":[],"outputs":[{"as_tensor":{"name":"y"}}],"nodes":[)" +
         nodes(model) + R"(],"tensor_values":{)" + matrix("x") + "," + matrix("norm") + "," +
         matrix("mm") + "," + matrix("sum") + "," + matrix("y") + "," + vector("bias") + "," +
         vector("scale") + "," + vector("shift") + "," +
         meta("weight", R"({"as_int":4},{"as_int":4})", R"({"as_int":4},{"as_int":1})") +
         R"(},"sym_int_values":{},"sym_bool_values":{},"is_single_tensor_return":false},)" +
         R"("signature":{"input_specs":[)" + parameter("weight") + "," + parameter("bias") + "," +
         parameter("scale") + "," + parameter("shift") +
         R"(,{"user_input":{"arg":{"as_tensor":{"name":"x"}}}}],"output_specs":[)" +
         R"({"user_output":{"arg":{"as_tensor":{"name":"y"}}}}]},"module_call_graph":[]},)" +
         R"("opset_version":{"aten":10},"range_constraints":{"s0":{"min_val":1,"max_val":)" +
         std::to_string(model.max_batch) +
         R"(}},"schema_version":{"major":8,"minor":14},"verifiers":[],"torch_version":"2.13.0"})";
}

}  // namespace

std::shared_ptr<import::Model> LinearModel::open() const {
  return import::Model::open_memory(json(*this),
                                    {tensor("weight", weight, {4, 4}), tensor("bias", bias, {4}),
                                     tensor("scale", scale, {4}), tensor("shift", shift, {4})});
}

std::vector<std::byte> LinearModel::compile(const CompileOptions& options) const {
  return kiln::compile(*open(), options);
}

CompileOptions quick_options() {
  CompileOptions options;
  options.targets = {{"cpu", {"x86-64-v3"}}};
  options.compile_threads = 1;
  return options;
}

TemporaryFolder::TemporaryFolder() {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  folder_ = std::filesystem::temp_directory_path() /
            ("kiln_" + std::string(test->name()) + "_" + std::to_string(getpid()));
  std::filesystem::create_directory(folder_);
}

TemporaryFolder::~TemporaryFolder() { std::filesystem::remove_all(folder_); }

std::string TemporaryFolder::path(const std::string& name) const {
  return (folder_ / name).string();
}

}  // namespace kiln::testing
