// A library that AOTInductor compiled from what lies outside the engines of a program.
#pragma once

#include <cstdarg>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "torch/tensors.h"

namespace kiln::aoti {

// Runs engine `index` on borrowed inputs; `spec` is that of the operator's call.
using RunEngine = std::function<std::vector<torch_op::OwnedTensor>(
    size_t index, std::string_view spec, std::span<const AtenTensorHandle> inputs)>;

class CompiledModel {
 public:
  // At most `num_runners` runs at once; others wait. `device` is "cpu" or a GPU, as "cuda:0", that
  // constants are copied to. Throws std::runtime_error.
  CompiledModel(const std::string& path, size_t num_runners, const std::string& device);
  ~CompiledModel();
  CompiledModel(const CompiledModel&) = delete;
  CompiledModel& operator=(const CompiledModel&) = delete;

  // What LibTorch gives a run: the stream that work on a GPU is queued on, and what operators are
  // called by.
  struct Context {
    void* stream = nullptr;
    AOTIProxyExecutorHandle proxy = nullptr;
  };

  // The numbers that the library's calls of engines stand for are inputs of their own, after the
  // others. Throws std::runtime_error.
  std::vector<torch_op::OwnedTensor> run(std::vector<torch_op::OwnedTensor> inputs,
                                         size_t num_outputs, const Context& context,
                                         const RunEngine& run_engine) const;

 private:
  struct Functions;

  template <typename Function>
  void find(Function*& function, const char* name, bool required = true);
  std::string last_error() const;

  void* library_ = nullptr;
  std::unique_ptr<Functions> functions_;
  void* container_ = nullptr;
};

}  // namespace kiln::aoti
