// The kernels of a program that have code of their own.
#pragma once

#include <string>
#include <vector>

#include "plan/form/program.h"

namespace kiln::backend {

// Kernels that differ only in their buffers and checks share one compilation.
struct DistinctKernels {
  // Kernels that have the same code.
  struct Code {
    const plan::Kernel* kernel = nullptr;  // the first that uses it; of the program
    std::vector<plan::BufferId> buffers;   // of that kernel's key
    std::vector<int32_t> checks;           // of that kernel's key
    std::string hash;                      // of the key
    std::vector<std::string> sources;      // of all that use it
  };
  // A kernel of the program: which code it runs, and on which buffers in the order of its key.
  struct Use {
    size_t code = 0;
    std::vector<plan::BufferId> buffers;
    std::vector<int32_t> checks;
  };

  explicit DistinctKernels(const plan::Program& program);

  std::vector<Code> codes;
  std::vector<Use> uses;  // in the order of the program's kernels
};

}  // namespace kiln::backend
