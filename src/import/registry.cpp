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
         {pointwise_rows(),   activation_rows(), comparison_rows(),     convert_rows(),
          reduce_rows(),      normalise_rows(),  contract_rows(),       attention_rows(),
          convolution_rows(), pool_rows(),       shape_rows(),          split_rows(),
          pad_rows(),         index_rows(),      create_rows(),         resize_rows(),
          grid_sample_rows(), distance_rows(),   prims_rows(),          quantise_rows(),
          scan_rows(),        sort_rows(),       scatter_rows(),        recurrent_rows(),
          float8_rows(),      data_size_rows(),  linalg_rows(),         experts_rows(),
          nms_rows(),         special_rows(),    strided_rows(),        masked_rows(),
          divisor_rows(),     counting_rows(),   representation_rows(), factor_rows(),
          singular_rows(),    bessel_rows(),     orthogonal_rows(),     incomplete_gamma_rows(),
          histogram_rows()}) {
      for (const Row& row : rows) {
        if (!result.emplace(row.target, &row).second)
          throw InternalError("[import] got two importers of " + std::string(row.target));
      }
    }
    return result;
  }();
  return kTable;
}

using ComplexTable = std::map<std::string_view, const ComplexRow*>;

const ComplexTable& complex_table() {
  static const ComplexTable kTable = [] {
    ComplexTable result;
    for (const ComplexRows rows : {complex_rows(), complex_function_rows(), complex_sum_rows(),
                                   fourier_rows(), spectrogram_rows()}) {
      for (const ComplexRow& row : rows) {
        if (!result.emplace(row.target, &row).second)
          throw InternalError("[import] got two importers of " + std::string(row.target) +
                              " for complex tensors");
      }
    }
    return result;
  }();
  return kTable;
}

}  // namespace

const ComplexRow* find_complex_row(std::string_view target) {
  const auto found = complex_table().find(target);
  return found == complex_table().end() ? nullptr : found->second;
}

std::vector<ir::Value*> call_row(const Row& row, Call& call) {
  const auto* one = std::get_if<ImportOne>(&row.function);
  std::vector<ir::Value*> values =
      one ? std::vector<ir::Value*>{(*one)(call)} : std::get<ImportMany>(row.function)(call);
  if (!call.computes_in_f32()) return values;
  const std::vector<std::string> names = call.node().output_names();
  for (size_t i = 0; i < std::min(values.size(), names.size()); ++i) {
    if (values[i] == nullptr || names[i].empty()) continue;
    const DType dtype = call.scope().recorded_type(names[i]).dtype;
    if (is_16_bit_float(dtype)) values[i] = call.builder().cast(values[i], dtype);
  }
  return values;
}

std::string_view short_target(std::string_view target) {
  constexpr std::string_view kPrefix = "torch.ops.";
  if (target.starts_with(kPrefix)) target.remove_prefix(kPrefix.size());
  return target;
}

const Row* find_row(std::string_view target) {
  const auto found = table().find(target);
  return found == table().end() ? nullptr : found->second;
}

std::vector<std::string> supported_targets() {
  std::vector<std::string> result;
  for (const auto& [target, row] : table()) result.emplace_back(target);
  for (const auto& [target, row] : complex_table())
    if (find_row(target) == nullptr) result.emplace_back(target);
  std::ranges::sort(result);
  return result;
}

}  // namespace kiln::import
