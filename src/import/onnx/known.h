// What is known of the elements of small tensors while a model is imported.
//
// ONNX computes sizes with tensors: Shape, Gather, Mul, Concat, Reshape. A size is known when all
// that it is made of are constants and sizes of inputs, so each small tensor carries its elements:
// integers and bools as ir::Dim, floating ones as numbers.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "ir/builder.h"

namespace kiln::import::onnx {

struct Elements {
  DType dtype = DType::I64;
  std::vector<ir::Dim> integers;  // row-major; empty for floating dtypes
  std::vector<double> reals;      // for these

  size_t size() const { return is_floating(dtype) ? reals.size() : integers.size(); }
};

// Of the values of one graph, which live as long as it does: see import/onnx/within.h.
class KnownElements {
 public:
  // Null where some element depends on data, or the tensor is large. The pointer stays valid.
  const Elements* find(const ir::Value* value);

 private:
  std::optional<Elements> compute(const ir::Value& value);
  std::optional<Elements> compute_source(const ir::Node& node, size_t count);
  std::optional<Elements> compute_pointwise(const ir::Node& node);
  std::optional<Elements> compute_move(const ir::Node& node);
  std::optional<Elements> compute_concat(const ir::Node& node);
  std::optional<Elements> compute_gather(const ir::Node& node);
  std::optional<Elements> compute_reduction(const ir::Node& node);

  std::map<const ir::Value*, std::optional<Elements>> found_;
};

}  // namespace kiln::import::onnx
