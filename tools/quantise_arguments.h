// What `kiln compile` and `kiln accuracy` share: options of quantisation, and sets of inputs in files.
#pragma once

#include <string>
#include <vector>

#include "kiln/kiln.hpp"
#include "npy.h"

namespace tools {

class Command;

// Sets of inputs by name.
class SampleSets {
 public:
  SampleSets() = default;
  // .npz files, and folders of them: a set each. Failure for sets with other names than the first has.
  explicit SampleSets(const std::vector<std::string>& paths);
  // One set.
  SampleSets(std::vector<std::string> names, std::vector<Array> arrays);

  bool empty() const { return arrays_.empty(); }
  // Valid while this lives and is not changed.
  kiln_samples view();

 private:
  void add(const std::string& path);

  std::vector<std::string> names_;
  std::vector<Array> arrays_;  // of each set in the order of the names
  std::vector<kiln::Tensor> tensors_;
  std::vector<kiln_tensor> views_;
  std::vector<const char*> name_views_;
};

struct QuantiseArguments {
  std::string scheme, exclude, method;
  int64_t group_size = 0;
  std::vector<std::string> calibration;
};

void add_quantise_options(Command& command, QuantiseArguments& arguments);

// The options of the C API; lives as long as they are used.
class QuantiseOptions {
 public:
  explicit QuantiseOptions(const QuantiseArguments& arguments);
  void set(kiln_compile_options& options);

 private:
  const QuantiseArguments& arguments_;
  SampleSets calibration_;
  kiln_samples samples_{};
};

}  // namespace tools
