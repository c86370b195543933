// A small model with weights, for tests of what happens to them:
//   y = relu(layer_norm(x) @ weight + bias), x: f32[s0, 4] with s0 in 1..32
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "compiler/driver.h"
#include "import/import.h"

namespace kiln::testing {

struct LinearModel {
  std::vector<float> weight = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  std::vector<float> bias = {0.5f, -1, 2, -3};
  std::vector<float> scale = {1, 1, 1, 1}, shift = {0, 0, 0, 0};  // of the layer norm
  std::string activation = "relu", left = "mm", right = "bias", eps = "1e-05";
  int max_batch = 32;
  std::string source_line = "model.py";

  // Borrows the weights.
  std::shared_ptr<import::Model> open() const;
  std::vector<std::byte> compile(const CompileOptions& options = {}) const;
};

// One level of CPU, one thread: fast.
CompileOptions quick_options();

// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  std::string path(const std::string& name = "") const;

 private:
  std::filesystem::path folder_;
};

}  // namespace kiln::testing
