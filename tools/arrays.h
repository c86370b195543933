// Arrays as an engine's inputs and outputs.
#pragma once

#include <string>
#include <vector>

#include "kiln/kiln.hpp"
#include "npy.h"

namespace tools {

std::vector<kiln_tensor_info> inputs_of(const kiln::Engine& engine);
std::vector<kiln_tensor_info> outputs_of(const kiln::Engine& engine);

// "float32[1..8..32, 384]"
std::string type_text(const kiln_tensor_info& info);

// Made-up contents, the same every time: floats in [-1, 1); integers 0 or 1, which are valid
// indices nearly everywhere.
Array random_array(kiln_dtype dtype, std::vector<int64_t> shape);

// Arrays of the shapes that the outputs have for these inputs.
std::vector<Array> make_outputs(const kiln::Engine& engine, kiln::Session& session,
                                const std::vector<Array>& inputs);

// Views; valid while the arrays are.
std::vector<kiln::Tensor> as_tensors(const std::vector<Array>& arrays);

}  // namespace tools
