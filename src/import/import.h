// Models -> ir::Graph: programs of torch.export (without torch: the archive, its JSON and raw weights
// are read here), and ONNX models (import/onnx).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "support/hash.h"

namespace kiln::import {

struct DimRange {
  std::string input;
  int32_t dim = 0;
  int64_t min = 0, opt = 0, max = 0;
};

struct NodeSupport {
  std::string name;    // name of the node's first output (or target, when it has none)
  std::string target;  // "torch.ops.aten.add.Tensor", "ai.onnx.Add"
  bool supported = false;
  std::string reason;  // when not
  bool repeats =
      false;  // it becomes a loop whose steps the run counts: for targets with such loops
  std::vector<std::string> kernels;  // of the user's own that it calls: for targets that can
};

// A model read but not yet imported: the parsed program and the weights, by name.
class Model {
 public:
  // Opens a .pt2 archive or an ONNX model; weights stay mapped. Throws CompileError for anything else.
  static std::shared_ptr<Model> open_file(const std::string& path);
  struct NamedTensor {
    std::string name;
    ir::Literal literal;
  };
  // JSON text of the ExportedProgram (copied) and its weights and constants (borrowed).
  static std::shared_ptr<Model> open_memory(std::string_view json,
                                            std::vector<NamedTensor> tensors);

  virtual ~Model() = default;

  // Whether there is a kernel of the user's own for an operator that is not known here, "mylib::scaled_sine": then it
  // is part of the graph. Null: there is none.
  bool (*has_kernel)(const char* name) = nullptr;

  // Behind the functions below, which say what they do.
  virtual ir::Graph import_graph(std::span<const DimRange> ranges,
                                 bool replaceable_weights) const = 0;
  virtual std::vector<NodeSupport> check_support() const = 0;
  virtual std::vector<DimRange> with_small_sizes(std::span<const DimRange> ranges) const = 0;
  // See import/fingerprint.h.
  virtual void add_fingerprint(Hasher& hasher) const = 0;
  // Whether the model has that dimension and leaves its size open.
  virtual bool is_dynamic(const std::string& input, int32_t dim) const = 0;
};

// The caller's ranges, and ranges for the other dynamic sizes with 0 and 1 in them wherever
// `program.module()` takes these and the traced graph is the model's for them: torch.export's tracer
// takes 0 and 1 for constants, and writes 2 as the lower bound of what is left.
inline std::vector<DimRange> with_small_sizes(const Model& model,
                                              std::span<const DimRange> ranges) {
  return model.with_small_sizes(ranges);
}

// Imports everything; CompileError names the first node that cannot be, and why. With
// `replaceable_weights`, floating-point parameters and buffers are literals of that kind.
inline ir::Graph import_graph(const Model& model, std::span<const DimRange> ranges = {},
                              bool replaceable_weights = false) {
  return model.import_graph(ranges, replaceable_weights);
}
// Says of each node whether it can be imported.
inline std::vector<NodeSupport> check_support(const Model& model) { return model.check_support(); }
// "aten.add.Tensor", sorted.
std::vector<std::string> supported_targets();
// "Add", of the domain ai.onnx, sorted.
std::vector<std::string> supported_onnx_operators();

}  // namespace kiln::import
