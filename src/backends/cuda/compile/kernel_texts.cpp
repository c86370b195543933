#include "backends/cuda/compile/kernel_texts.h"

#include <string>

#include "support/error.h"

namespace kiln::cuda {
namespace {

struct File {
  std::string_view name, text;
};

// Rows of {name, text}, made of the files by cmake/KilnEmbedText.cmake.
constexpr File kFiles[] = {
#include "cuda_kernel_texts.inc"
};

}  // namespace

std::string_view kernel_text(std::string_view file) {
  for (const auto& [name, text] : kFiles) {
    if (name == file) return text;
  }
  throw InternalError("there is no kernel text " + std::string(file));
}

}  // namespace kiln::cuda
