#include "import/sample_program.h"

namespace kiln::test {

std::string SampleProgram::node(const std::string& target, const std::string& inputs,
                                const std::string& output) {
  return R"({"target":")" + target + R"(","inputs":[)" + inputs +
         R"(],"outputs":[{"as_tensor":{"name":")" + output +
         R"json("}}],"metadata":{"stack_trace":"File \"/home/me/model.py\", line 12, in forward\n    return f(x)"}})json";
}

std::string SampleProgram::symbolic_size() {
  return R"json({"as_expr":{"expr_str":"Symbol('s0', positive=True, integer=True)","hint":{"as_int":2}}})json";
}

std::string SampleProgram::meta(const std::string& name, const std::string& size, int dtype) {
  return "\"" + name + R"(":{"dtype":)" + std::to_string(dtype) + R"(,"sizes":[)" + size +
         R"(,{"as_int":4}],"requires_grad":false,"device":{"type":"cpu","index":null},)" +
         R"("strides":[{"as_int":4},{"as_int":1}],"storage_offset":{"as_int":0},"layout":7})";
}

std::string SampleProgram::json() const {
  return R"({"graph_module":{"graph":{"inputs":[{"as_tensor":{"name":"x"}}],"outputs":[{"as_tensor":{"name":"y"}}],)"
         R"("nodes":[)" +
         nodes + R"(],"tensor_values":{)" + tensor_values + R"(},"sym_int_values":{)" +
         size_values + R"(},"sym_bool_values":{)" + conditions +
         R"(},"is_single_tensor_return":false},"signature":{"input_specs":[)" + input_specs +
         R"(],"output_specs":[)" + output_specs + R"(]},"module_call_graph":[)" + module_calls +
         R"(]},"guards_code":[)" + guards + R"(],"opset_version":{"aten":10},)" +
         R"("range_constraints":{)" + ranges + R"(},"schema_version":{"major":)" +
         std::to_string(major) + R"(,"minor":20},"verifiers":[],"torch_version":"2.13.0"})";
}

}  // namespace kiln::test
