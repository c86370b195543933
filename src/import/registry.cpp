#include "import/registry.h"

#include <algorithm>
#include <map>
#include <string>

#include "import/import.h"
#include "support/error.h"

namespace kiln::import {
namespace {

using Table = std::map<std::string_view, const Row*>;

const Table& table() {
  static const Table kTable = [] {
    Table result;
    for (const Rows rows :
         {pointwise_rows(),   activation_rows(), comparison_rows(), convert_rows(),
          reduce_rows(),      normalise_rows(),  contract_rows(),   attention_rows(),
          convolution_rows(), pool_rows(),       shape_rows(),      split_rows(),
          pad_rows(),         index_rows(),      create_rows(),     resize_rows(),
          grid_sample_rows(), distance_rows(),   prims_rows(),      quantise_rows(),
          scan_rows(),        sort_rows(),       scatter_rows(),    recurrent_rows(),
          float8_rows(),      data_size_rows()}) {
      for (const Row& row : rows) {
        if (!result.emplace(row.target, &row).second)
          throw InternalError("[import] got two importers of " + std::string(row.target));
      }
    }
    return result;
  }();
  return kTable;
}

}  // namespace

const Row* find_row(std::string_view target) {
  const auto found = table().find(target);
  return found == table().end() ? nullptr : found->second;
}

std::vector<std::string> supported_targets() {
  std::vector<std::string> result;
  for (const auto& [target, row] : table()) result.emplace_back(target);
  return result;
}

}  // namespace kiln::import
