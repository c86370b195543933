"""Operators that engines have no rows for, but that PyTorch itself can write with operators that they have.

The names are those whose results were compared with PyTorch's, by OpInfo's samples (tests/opinfo/sweep.py). An operator
that cannot be decomposed to the end stays in PyTorch, which runs it faster whole than in pieces: hence a list, and
not everything that has a decomposition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, GraphModule

import kiln
from torch_tensorrt.dynamo._kernels import KERNELS, pytorchs

# Of the namespace aten; "default" where no overload is named.
NAMES = (
    "_chunk_cat",
    "_softmax_backward_data",
    "_unsafe_masked_index",
    "_unsafe_masked_index_put_accumulate",
    "_weight_norm",
    "_weight_norm_interface",
    "addr",
    "atleast_1d.Sequence",
    "atleast_2d.Sequence",
    "atleast_3d.Sequence",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "block_diag",
    "broadcast_tensors",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross",
    "cross_entropy_loss",
    "cumulative_trapezoid.dx",
    "cumulative_trapezoid.x",
    "deg2rad",
    "diag",
    "diag_embed",
    "diagflat",
    "dist",
    "fliplr",
    "flipud",
    "float_power.Tensor_Tensor",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "gradient.scalarint",
    "gradient.scalarrayarray",
    "gradient.tensorarray",
    "heaviside",
    "hinge_embedding_loss",
    "huber_loss",
    "inner",
    "isclose",
    "isin.Tensor_Tensor",
    "isreal",
    "kl_div",
    "kron",
    "l1_loss",
    "ldexp.Tensor",
    "linalg_matrix_norm",
    "linalg_matrix_norm.str_ord",
    "linalg_multi_dot",
    "linalg_norm",
    "linalg_norm.ord_str",
    "linalg_tensorsolve",
    "linalg_vander",
    "linalg_vecdot",
    "linspace.Scalar_Tensor",
    "linspace.Tensor_Scalar",
    "linspace.Tensor_Tensor",
    "logaddexp2",
    "logspace",
    "logspace.Scalar_Tensor",
    "logspace.Tensor_Scalar",
    "logspace.Tensor_Tensor",
    "margin_ranking_loss",
    "max_pool2d_with_indices_backward",
    "max_unpool2d",
    "max_unpool3d",
    "mse_loss",
    "multilabel_margin_loss",
    "nanmean",
    "nanquantile",
    "nanquantile.scalar",
    "nansum",
    "narrow_copy",
    "native_dropout_backward",
    "nll_loss",
    "nll_loss2d",
    "nll_loss2d_forward",
    "nll_loss_forward",
    "nll_loss_nd",
    "pairwise_distance",
    "poisson_nll_loss",
    "quantile",
    "quantile.scalar",
    "rad2deg",
    "renorm",
    "resize_as",
    "sinc",
    "smooth_l1_loss",
    "soft_margin_loss",
    "special_entr",
    "special_xlog1py",
    "squeeze_copy",
    "squeeze_copy.dim",
    "sum_to_size",
    "t_copy",
    "take",
    "tensordot",
    "trace",
    "transpose_copy.int",
    "trapezoid.dx",
    "trapezoid.x",
    "trapz.dx",
    "trapz.x",
    "triplet_margin_loss",
    "unsafe_split.Tensor",
    "vdot",
)

Decompositions = dict[Any, Callable[..., Any]]
IsKept = Callable[[Any], bool]


def decompositions(graph: Graph, is_kept: IsKept) -> Decompositions:
    """The table for a graph, as `run_decompositions` takes it; empty where the graph has nothing to decompose.

    `is_kept` says which operators the user wants as they are: in PyTorch, or lowered by the user's own function.
    """
    table = {target: function for target, function in _known().items() if not is_kept(target)}
    return table if any(target in table for target in _targets(graph)) else {}


def _targets(graph: Graph) -> set[Any]:
    found = {node.target for node in graph.nodes if node.op == "call_function"}
    owner = graph.owning_module
    if owner is not None:
        for child in owner.children():
            if isinstance(child, GraphModule):
                found |= _targets(child.graph)
    return found


@functools.cache
def _known() -> Decompositions:
    supported = kiln.supported_ops().get("aten", ())
    table: Decompositions = {}
    for name in NAMES:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if operator is None or f"aten.{packet}.{overload or 'default'}" in supported:
            continue  # an older torch may lack it
        decomposition = KERNELS.get(name) or pytorchs(operator)
        if decomposition is not None:
            table[operator] = decomposition
    return table
