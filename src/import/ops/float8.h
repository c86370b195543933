// What Model Optimizer's tensorrt::quantize_op does with 8-bit floats.
#pragma once

#include "import/call.h"

namespace kiln::import {

// The argument `amax`, broadcast to the input: one number, or one for each channel, with the rank of the
// input or as a row for its axis 0.
ir::Value* amax_of(Call& call, const ir::Value* input);

// tensorrt::quantize_op with 4 of 8 bits for the exponent: to float8_e4m3fn and back.
ir::Value* import_quantize_op_float8(Call& call);

}  // namespace kiln::import
