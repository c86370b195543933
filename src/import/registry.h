// The table of importers: one row per target of PyTorch, in one file per family (import/ops/).
#pragma once

#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "import/call.h"

namespace kiln::import {

using ImportOne = ir::Value* (*)(Call&);
// A null stands for an output that nothing may refer to.
using ImportMany = std::vector<ir::Value*> (*)(Call&);

struct Row {
  std::string_view target;  // "aten.add.Tensor"
  std::variant<ImportOne, ImportMany> function;
};

using Rows = std::span<const Row>;
Rows pointwise_rows();
Rows activation_rows();
Rows comparison_rows();
Rows convert_rows();
Rows reduce_rows();
Rows normalise_rows();
Rows contract_rows();
Rows attention_rows();
Rows convolution_rows();
Rows pool_rows();
Rows shape_rows();
Rows split_rows();
Rows pad_rows();
Rows index_rows();
Rows create_rows();
Rows resize_rows();
Rows grid_sample_rows();
Rows distance_rows();
Rows prims_rows();
Rows quantise_rows();
Rows float8_rows();
Rows scan_rows();
Rows sort_rows();
Rows scatter_rows();
Rows recurrent_rows();
Rows data_size_rows();
Rows nms_rows();
Rows linalg_rows();
Rows experts_rows();
Rows special_rows();
Rows strided_rows();
Rows masked_rows();
Rows divisor_rows();
Rows representation_rows();
Rows counting_rows();
Rows factor_rows();
Rows singular_rows();
Rows bessel_rows();
Rows orthogonal_rows();
Rows incomplete_gamma_rows();
Rows histogram_rows();

// Null for a target without a row.
const Row* find_row(std::string_view target);

// Operators with complex operands or results have rows of their own. A null `im`: a real result.
using ImportComplex = std::vector<Complex> (*)(Call&);
struct ComplexRow {
  std::string_view target;
  ImportComplex function;
};
using ComplexRows = std::span<const ComplexRow>;
ComplexRows complex_rows();
ComplexRows complex_function_rows();
ComplexRows complex_sum_rows();
ComplexRows fourier_rows();
ComplexRows spectrogram_rows();
const ComplexRow* find_complex_row(std::string_view target);

// Calls the importer, and rounds its results if it computes in f32.
std::vector<ir::Value*> call_row(const Row& row, Call& call);
// "aten.add.Tensor" of "torch.ops.aten.add.Tensor".
std::string_view short_target(std::string_view target);

}  // namespace kiln::import
