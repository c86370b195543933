#pragma once

namespace kiln::cuda {

// The text of kernels/strided_copy.ptx.
const char* strided_copy_ptx();

}  // namespace kiln::cuda
