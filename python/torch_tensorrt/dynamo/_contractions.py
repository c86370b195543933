"""The operators whose time is that of products: what is dear enough to be thought about."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution"}
PRODUCTS = {"matmul", "mm", "bmm", "mv", "dot", "linear"}
SUMS_OF_PRODUCTS = {"addmm", "addmv", "addbmm", "baddbmm"}
ATTENTION = "scaled_dot_product_attention"
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_ALL = CONVOLUTIONS | PRODUCTS | SUMS_OF_PRODUCTS | _TRANSPOSED | _RECURRENT | {ATTENTION}


def operator_name(node: Node) -> str:
    """ "linear" of aten.linear.default; "" for what is no operator."""
    target = node.target
    return target.overloadpacket.__name__ if isinstance(target, torch._ops.OpOverload) else ""


def has_contractions(module: GraphModule) -> bool:
    """Whether a graph, or one that it calls, has such an operator."""
    graphs = (each.graph for each in module.modules() if isinstance(each, GraphModule))
    return any(operator_name(node) in _ALL for graph in graphs for node in graph.nodes)
