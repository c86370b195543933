#include "import/onnx/registry.h"

#include <map>

#include "import/import.h"

namespace kiln::import {
namespace onnx {
namespace {

using Table = std::map<std::string_view, const OperatorRow*>;

const Table& table() {
  static const Table kTable = [] {
    Table result;
    for (const OperatorRows rows :
         {activation_operators(), attention_operators(), contract_operators(),
          convolution_operators(), create_operators(), fourier_operators(), index_operators(),
          microsoft_attention_operators(), microsoft_operators(), normalise_operators(),
          pointwise_operators(), pool_operators(), quantise_operators(), recurrent_operators(),
          reduce_operators(), resize_operators(), shape_operators()}) {
      for (const OperatorRow& row : rows) result.emplace(row.name, &row);
    }
    return result;
  }();
  return kTable;
}

}  // namespace

const OperatorRow* find_operator(std::string_view name) {
  const auto found = table().find(name);
  return found == table().end() ? nullptr : found->second;
}

}  // namespace onnx

std::vector<std::string> supported_onnx_operators() {
  std::vector<std::string> result = {"If", "Loop", "Scan"};
  for (const auto& [name, row] : onnx::table()) result.emplace_back(name);
  return result;
}

}  // namespace kiln::import
