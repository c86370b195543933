// torch.export programs -> ir::Graph. No torch: the archive (zip of stored entries), its JSON and
// raw weights are read here.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace kiln::import {

// A model read but not yet imported: the parsed JSON and the weights, by name.
class Model {
 public:
  // Opens a .pt2 archive; weights stay mapped. Throws CompileError for anything that is not one.
  static std::shared_ptr<Model> open_file(const std::string& path);
  struct NamedTensor {
    std::string name;
    ir::Literal literal;
  };
  // JSON text of the ExportedProgram (copied) and its weights and constants (borrowed).
  static std::shared_ptr<Model> open_memory(std::string_view json,
                                            std::vector<NamedTensor> tensors);

  virtual ~Model() = default;
};

struct DimRange {
  std::string input;
  int32_t dim = 0;
  int64_t min = 0, opt = 0, max = 0;
};

struct NodeSupport {
  std::string name;    // name of the node's first output (or target, when it has none)
  std::string target;  // "torch.ops.aten.add.Tensor"
  bool supported = false;
  std::string reason;  // when not
};

// The caller's ranges, and ranges for the other dynamic sizes with 0 and 1 in them wherever
// `program.module()` takes these and the traced graph is the model's for them: torch.export's tracer
// takes 0 and 1 for constants, and writes 2 as the lower bound of what is left.
std::vector<DimRange> with_small_sizes(const Model& model, std::span<const DimRange> ranges);

// Imports everything; CompileError names the first node that cannot be, and why. With
// `replaceable_weights`, floating-point parameters and buffers are literals of that kind.
ir::Graph import_graph(const Model& model, std::span<const DimRange> ranges = {},
                       bool replaceable_weights = false);
// Says of each node whether it can be imported.
std::vector<NodeSupport> check_support(const Model& model);
// "aten.add.Tensor", sorted.
std::vector<std::string> supported_targets();

}  // namespace kiln::import
