// A program of torch.export as an import::Model: decoded, and its tensors by name.
#pragma once

#include <map>
#include <string>

#include "import/import.h"
#include "import/program.h"

namespace kiln::import {

struct LoadedModel final : Model {
  Program program;
  // Parameters, buffers and constants, by their names in the state dict.
  std::map<std::string, ir::Literal, std::less<>> tensors;

  ir::Graph import_graph(std::span<const DimRange> ranges, bool replaceable_weights) const override;
  std::vector<NodeSupport> check_support() const override;
  std::vector<DimRange> with_small_sizes(std::span<const DimRange> ranges) const override;
  void add_fingerprint(Hasher& hasher) const override;
  bool is_dynamic(const std::string& input, int32_t dim) const override;
};

}  // namespace kiln::import
