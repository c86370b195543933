#include "backends/cpu/compile/contract/pack_nibbles.h"

#include <algorithm>

namespace kiln::cpu {

ir::Literal pack_nibbles(const ir::Literal& literal, const ConstantMatrix& matrix, int64_t width) {
  const int64_t panels = (matrix.n + width - 1) / width;
  const int64_t lanes = (matrix.k + kNibbleSteps - 1) / kNibbleSteps;
  std::byte* bytes = nullptr;
  ir::Literal packed = ir::Literal::allocate(DType::I32, {panels, lanes, width}, &bytes);
  auto* to = reinterpret_cast<uint32_t*>(bytes);
  const auto* from = literal.data<int8_t>();
  for (int64_t n = 0; n < matrix.n; ++n) {
    const int8_t* column = from + matrix.offset + n * matrix.n_stride;
    uint32_t* lane = to + n / width * lanes * width + n % width;
    for (int64_t k = 0; k < matrix.k; ++k) {
      const uint32_t bits = static_cast<uint32_t>(column[k * matrix.k_stride]) & 0xF;
      lane[k / kNibbleSteps * width] |= bits << (nibble_place(k % kNibbleSteps) * 4);
    }
  }
  return packed;
}

}  // namespace kiln::cpu
