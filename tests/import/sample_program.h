// Texts of small torch.export programs, as JSON.
#pragma once

#include <string>
#include <vector>

#include "import/import.h"

namespace kiln::test {

// Pieces of a program; the defaults make y = relu(x) of x: f32[s0, 4], s0 in 1..32.
struct SampleProgram {
  int major = 8;
  std::string nodes = node("torch.ops.aten.relu.default",
                           R"({"name":"self","arg":{"as_tensor":{"name":"x"}},"kind":1})");
  std::string tensor_values = meta("x", symbolic_size()) + "," + meta("y", symbolic_size());
  std::string size_values;
  std::string input_specs = R"({"user_input":{"arg":{"as_tensor":{"name":"x"}}}})";
  std::string output_specs = R"({"user_output":{"arg":{"as_tensor":{"name":"y"}}}})";
  std::string conditions, guards, module_calls;
  std::string ranges = R"("s0":{"min_val":1,"max_val":32})";

  std::string json() const;
  std::shared_ptr<import::Model> open(std::vector<import::Model::NamedTensor> tensors = {}) const {
    return import::Model::open_memory(json(), std::move(tensors));
  }

  // A node with one output, y by default.
  static std::string node(const std::string& target, const std::string& inputs,
                          const std::string& output = "y");
  // "x" has the shape [size, 4].
  static std::string meta(const std::string& name, const std::string& size, int dtype = 7);
  static std::string symbolic_size();
};

}  // namespace kiln::test
