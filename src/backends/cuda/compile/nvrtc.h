// NVRTC, NVIDIA's run-time compiler: text in, a cubin or PTX out. The library is found when the first kernel is
// compiled; nothing of CUDA is needed to build Kiln, and no GPU to compile for one.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "backends/cuda/compile/kernel_context.h"
#include "support/hash.h"

namespace kiln::cuda {

struct Compiled {
  std::vector<std::byte> code;  // a cubin, or PTX and a zero byte
  std::string log;              // of NVRTC and ptxas: warnings; empty if there are none
};

// Any thread, several at once. The same text and target give the same bytes with one version of NVRTC.
// CompileError: NVRTC is not there, and how to get it. InternalError, with the log: text that does not
// compile. `verbose`: the log has the registers and spills of each function.
Compiled compile_text(const std::string& text, const Target& target, bool verbose = false);

// Stands for the code of compile_text(text, target): the text, the target, and which NVRTC it is. CompileError
// where there is none.
Hash128 code_key(const std::string& text, const Target& target);

// Why compile_text() cannot work on this machine; empty if it can.
std::string nvrtc_obstacle();
// "13.0"; empty if there is none.
std::string nvrtc_version();

}  // namespace kiln::cuda
