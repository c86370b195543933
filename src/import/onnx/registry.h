// The table of importers: one row per operator of ONNX, in one file per family (import/onnx/ops/).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "import/onnx/call.h"

namespace kiln::import::onnx {

using OnnxOne = Value* (*)(NodeCall&);
// Outputs that nothing refers to may be null, or left out at the end.
using OnnxMany = std::vector<Value*> (*)(NodeCall&);

struct OperatorRow {
  std::string_view name;  // "Add", or "com.microsoft.Gelu" of another domain than ai.onnx
  std::variant<OnnxOne, OnnxMany> function;
};

using OperatorRows = std::span<const OperatorRow>;
OperatorRows activation_operators();
OperatorRows attention_operators();
OperatorRows contract_operators();
OperatorRows convolution_operators();
OperatorRows create_operators();
OperatorRows fourier_operators();
OperatorRows index_operators();
OperatorRows microsoft_attention_operators();
OperatorRows microsoft_operators();
OperatorRows normalise_operators();
OperatorRows pointwise_operators();
OperatorRows pool_operators();
OperatorRows quantise_operators();
OperatorRows recurrent_operators();
OperatorRows reduce_operators();
OperatorRows resize_operators();
OperatorRows shape_operators();

// The newest version of ai.onnx whose operators the table has.
inline constexpr int64_t kNewestOpset = 28;
// The oldest: before it operators had attributes that nobody writes any more.
inline constexpr int64_t kOldestOpset = 6;

// Null for an operator without a row.
const OperatorRow* find_operator(std::string_view name);

}  // namespace kiln::import::onnx
