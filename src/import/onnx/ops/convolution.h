// What convolutions of floats and of integers share.
#pragma once

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {

// The kernel's size, from the weight [O, C / groups, kernel...]; kernel_shape must say the same.
std::vector<int64_t> kernel_of(NodeCall& call, const Value* weight);
// Reads the window and group from the node's attributes. `bias` may be null.
Value* convolve(NodeCall& call, Value* x, Value* weight, Value* bias);

}  // namespace kiln::import::onnx
