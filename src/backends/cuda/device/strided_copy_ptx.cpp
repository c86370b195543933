#include "backends/cuda/device/strided_copy_ptx.h"

namespace kiln::cuda {
namespace {

struct Text {
  const char *name, *text;
};

constexpr Text kTexts[] = {
#include "strided_copy_ptx.inc"
};

}  // namespace

const char* strided_copy_ptx() { return kTexts[0].text; }

}  // namespace kiln::cuda
