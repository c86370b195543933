#include "import/views.h"

#include <algorithm>
#include <array>

namespace kiln::import {
namespace {

constexpr std::array kViews = std::to_array<ViewRule>({
    {"_conj", Back::None},
    {"_neg_view", Back::None},
    {"_reshape_alias", Back::None},
    {"_unsafe_view", Back::None},
    {"adjoint", Back::None},
    {"alias", Back::Same},
    {"alpha_dropout", Back::None},
    {"as_strided", Back::None},
    {"atleast_1d", Back::Reshape},
    {"atleast_2d", Back::Reshape},
    {"atleast_3d", Back::Reshape},
    {"broadcast_tensors", Back::None},
    {"broadcast_to", Back::None},
    {"cartesian_prod", Back::None},
    {"chunk", Back::Pieces},
    {"conj", Back::None},
    {"conj_physical", Back::None},
    {"contiguous", Back::None},
    {"detach", Back::Same},
    {"detach_", Back::Same},
    {"diagonal", Back::None},
    {"dropout", Back::None},
    {"dsplit", Back::None},
    {"einsum", Back::None},
    {"expand", Back::None},
    {"expand_as", Back::None},
    {"feature_alpha_dropout", Back::None},
    {"feature_dropout", Back::None},
    {"flatten", Back::None},
    {"hsplit", Back::None},
    {"imag", Back::None},
    {"lift_fresh", Back::Same},
    {"linalg_diagonal", Back::None},
    {"mH", Back::None},
    {"mT", Back::Again},
    {"matrix_H", Back::None},
    {"meshgrid", Back::None},
    {"moveaxis", Back::None},
    {"movedim", Back::None},
    {"narrow", Back::Narrow},
    {"numpy_T", Back::Again},
    {"permute", Back::Permute},
    {"pin_memory", Back::None},
    {"positive", Back::Same},
    {"ravel", Back::None},
    {"real", Back::None},
    {"requires_grad_", Back::Same},
    {"reshape", Back::None},
    {"reshape_as", Back::None},
    {"resolve_conj", Back::None},
    {"resolve_neg", Back::None},
    {"select", Back::Scatter},
    {"slice", Back::Scatter},
    {"split", Back::Pieces},
    {"split_with_sizes", Back::Pieces},
    {"squeeze", Back::Reshape},
    {"sum_to_size", Back::None},
    {"swapaxes", Back::Again},
    {"swapdims", Back::Again},
    {"t", Back::Again},
    {"tensor_split", Back::None},
    {"to", Back::None},
    {"transpose", Back::Again},
    {"type_as", Back::None},
    {"unbind", Back::Elements},
    {"unflatten", Back::Reshape},
    {"unfold", Back::None},
    {"unsafe_chunk", Back::None},
    {"unsafe_split", Back::None},
    {"unsafe_split_with_sizes", Back::None},
    {"unsqueeze", Back::Reshape},
    {"view", Back::Reshape},
    {"view_as", Back::Reshape},
    {"view_as_complex", Back::None},
    {"view_as_real", Back::None},
    {"vsplit", Back::None},
});

}  // namespace

const ViewRule* find_view(std::string_view operator_name) {
  const auto* found = std::ranges::find(kViews, operator_name, &ViewRule::name);
  return found == kViews.end() ? nullptr : found;
}

}  // namespace kiln::import
