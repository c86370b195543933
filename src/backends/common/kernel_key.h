// Recognising kernels that have the same code: the layers of a transformer are compiled once.
#pragma once

#include <string>
#include <vector>

#include "plan/form/program.h"

namespace kiln::backend {

// Kernels with equal texts have equal code: they differ in which buffers they work on and what
// their checks are called, no more.
struct KernelKey {
  std::string text;
  std::vector<plan::BufferId> buffers;  // in order of first occurrence in the text
  std::vector<int32_t> checks;          // of the program, likewise

  std::string hash() const;  // of the text, the same in every process
};

KernelKey key_of(const plan::Program& program, const plan::Kernel& kernel);

}  // namespace kiln::backend
