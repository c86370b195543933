// An engine bound to one set of input shapes: everything of a run that does not depend on the data.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/engine.h"
#include "runtime/tensor.h"
#include "support/status.h"

namespace kiln::runtime {

struct BoundTensor {
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;

  // Dtype and shape.
  bool matches(const TensorView& tensor) const;
};

// What a step has to do: arithmetic operations, and bytes of memory read and written; -1: not known.
struct StepWork {
  int64_t operations = -1, bytes = -1;
};

// Where and how widely a bound program runs.
struct Placement {
  int threads = 1;
  int device = 0;
  uint64_t weight_budget = UINT64_MAX;
};

class Binding {
 public:
  // `symbols` are within their ranges; the engine has a program that runs.
  static Result<std::unique_ptr<Binding>> create(const Engine& engine, std::vector<int64_t> symbols,
                                                 const Placement& placement);

  const std::vector<int64_t>& symbols() const { return symbols_; }
  const std::vector<BoundTensor>& inputs() const { return inputs_; }
  const std::vector<BoundTensor>& outputs() const { return outputs_; }
  BoundProgram& program() const { return *program_; }
  const std::vector<StepWork>& work() const { return work_; }  // by step

 private:
  Binding() = default;

  std::vector<int64_t> symbols_;
  std::vector<BoundTensor> inputs_, outputs_;
  std::unique_ptr<BoundProgram> program_;
  std::vector<StepWork> work_;
};

// What a session on one thread allocates to run a program of an engine, whether or not it runs here.
Result<uint64_t> workspace_bytes(const engine::Spec& spec, const engine::ProgramSpec& program,
                                 const std::vector<int64_t>& symbols);

}  // namespace kiln::runtime
