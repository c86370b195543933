// How results and inputs of an engine lie in memory where that is not row-major.
//
// An engine's own tensors are row-major. Where PyTorch's graph has another order of dimensions in
// memory, such as that of a transposed or channels-last tensor, the engine gives the dimensions in
// that order, and the tensor made around its memory has them in the graph's. An input that was found to lie so
// when the engine was made is taken with its dimensions in that order.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kiln/kiln.h"

namespace kiln::torch_op {

using Shape = std::array<int64_t, KILN_MAX_RANK>;

// The dimensions of a tensor from the outermost in memory to the innermost; none: row-major.
struct Layout {
  std::array<uint8_t, KILN_MAX_RANK> order{};
  int32_t rank = 0;

  bool is_row_major() const { return rank == 0; }
};

// A tensor's shape, and the strides that it has in some layout.
struct Placement {
  Shape shape;
  Shape strides;
};

// Of a call: for each result and for each input, or empty if all of them are row-major.
struct Layouts {
  std::vector<Layout> results, inputs;
};

// Reads the layouts out of an operator's spec (python/torch_tensorrt/_operator.py): one entry per
// result, with ";" between them, that ends in an order such as "{1,0}" unless it is row-major; the same
// for inputs behind a "<". Throws std::runtime_error for anything that is not an order.
Layouts parse_layouts(std::string_view spec);

// The tensor whose dimensions are `stored` when they are taken in the layout's order. Throws
// std::runtime_error if the layout is of another rank.
Placement place(std::span<const int64_t> stored, const Layout& layout);
// The reverse for an input, whatever its strides: its dimensions in the layout's order. Throws
// std::runtime_error if the layout is of another rank.
Placement in_order(std::span<const int64_t> shape, std::span<const int64_t> strides,
                   const Layout& layout);

}  // namespace kiln::torch_op
