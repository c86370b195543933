// A loaded package: runs its program. Immutable; any number of threads may run it at once.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "support/file_map.h"
#include "torch/aoti/compiled_model.h"
#include "torch/aoti/program.h"
#include "torch/engine_runner.h"
#include "torch/tensors.h"

namespace kiln::aoti {

class Model {
 public:
  // Loads the program and what it uses from a folder. Engines and constants are mapped, not copied.
  // `device` is "cpu", "cuda" for the current GPU, or "cuda:1". Throws std::runtime_error.
  Model(const std::string& directory, size_t num_runners, const std::string& device);

  const Program& program() const { return program_; }

  // One tensor per result; null for None. On a GPU the work is queued on `stream`. Throws
  // std::runtime_error for inputs that the program was not compiled for.
  std::vector<torch_op::OwnedTensor> run(std::vector<torch_op::OwnedTensor> inputs, void* stream,
                                         AOTIProxyExecutorHandle proxy);

 private:
  struct Values;

  void map_constants(const std::string& path);
  torch_op::OwnedTensor load_constant(const ConstantSpec& constant) const;
  // Fills in what the inputs are seen as, and their sizes.
  void check_inputs(std::span<const torch_op::OwnedTensor> inputs, Values& values) const;
  void check_shape(size_t index, const Values& values) const;
  void check_sizes(const Values& values) const;
  torch_op::OwnedTensor copy_with_strides(AtenTensorHandle input, size_t index,
                                          const Values& values) const;
  std::vector<torch_op::OwnedTensor> run_call(const Call& call, const Values& values,
                                              const CompiledModel::Context& context);
  std::vector<torch_op::OwnedTensor> run_model(const Call& call, const Values& values,
                                               const CompiledModel::Context& context);
  torch_op::OwnedTensor take_result(size_t value, Values& values) const;
  bool lies_in_constants(AtenTensorHandle tensor) const;

  Program program_;
  kiln_device device_;
  std::vector<std::string> labels_;  // of the inputs, for messages
  std::vector<std::unique_ptr<torch_op::EngineRunner>> engines_;
  std::vector<int64_t> engine_numbers_;  // what compiled code gets instead of engines
  std::optional<CompiledModel> compiled_;
  FileMap constant_file_;
  std::vector<torch_op::OwnedTensor> constants_;
  std::vector<std::span<const std::byte>> constant_memory_;  // pairwise
};

}  // namespace kiln::aoti
