// An engine bound to one set of sizes: everything of a run that does not depend on the data. A program with
// sizes that the run finds is bound part by part.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
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
  // Of the first part. `symbols` are within their ranges; the engine has a program that runs.
  static Result<std::unique_ptr<Binding>> create(const Engine& engine, std::vector<int64_t> symbols,
                                                 const Placement& placement);
  // Of the part behind this one, when the data sizes between them have these values: made, or made for a
  // run before. Owned by this one, and valid until its next call.
  Result<Binding*> next(const Engine& engine, std::span<const int64_t> found,
                        const Placement& placement);

  // Of the inputs, and the data sizes that are known.
  const std::vector<int64_t>& symbols() const { return symbols_; }
  const std::vector<BoundTensor>& inputs() const { return inputs_; }
  // Of an output whose shape is not known yet: the largest sizes, and no bytes.
  const std::vector<BoundTensor>& outputs() const { return outputs_; }
  bool is_known(size_t output) const { return known_outputs_.empty() || known_outputs_[output]; }
  BoundProgram& program() const { return *program_; }
  const std::vector<StepWork>& work() const { return work_; }  // by step

  // The data sizes that this part ends with: the numbers of the first and of that behind the last.
  std::pair<size_t, size_t> ends_with() const { return ends_with_; }
  // Where a temporary lies: a part, and the offset in its workspace.
  std::pair<size_t, uint64_t> place_of(size_t buffer) const {
    return {static_cast<size_t>(buffer_parts_[buffer]), offsets_[buffer]};
  }

 private:
  Binding() = default;
  static Result<std::unique_ptr<Binding>> create(const Engine& engine, std::vector<int64_t> symbols,
                                                 const Placement& placement, const Binding* before);

  std::vector<int64_t> symbols_;
  std::vector<BoundTensor> inputs_, outputs_;
  std::vector<bool> known_outputs_;  // empty: all are
  std::unique_ptr<BoundProgram> program_;
  std::vector<StepWork> work_;
  // Of programs with data sizes alone.
  size_t part_ = 0;
  std::pair<size_t, size_t> ends_with_ = {0, 0};
  std::vector<uint64_t> offsets_;
  std::vector<int32_t> buffer_parts_;
  std::vector<std::unique_ptr<Binding>> next_;  // the most recently used first
};

// By data size: the most that it can be for these symbols.
std::vector<int64_t> largest_data_sizes(const engine::Spec& spec, std::span<const int64_t> symbols);

// What a session on one thread allocates to run a program of an engine, whether or not it runs here.
Result<uint64_t> workspace_bytes(const engine::Spec& spec, const engine::ProgramSpec& program,
                                 const std::vector<int64_t>& symbols);

}  // namespace kiln::runtime
