"""torch.nn.attention.flex_attention with PyTorch's operators; its functions of single scores are vectorised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from torch_tensorrt.dynamo._strides import storage_order
from torch_tensorrt.dynamo._symbols import fake_mode_of, get_attribute
from torch_tensorrt.dynamo.conversion._registry import ConverterSupport

TARGET = torch.ops.higher_order.flex_attention


def support_of(node: Node) -> ConverterSupport:
    """What replaces a call: eager PyTorch's definition (torch/_higher_order_ops/flex_attention.py, math_attention). The
    blocks of a BlockMask only save work, its mask_mod says the same of each pair.
    """
    score_mod, keeps = _vectorised_functions(node)

    def flex_attention(context: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        """The result, the logarithm of the sums of the softmax, and the largest scores, both to the base of 2."""
        query, key, value, _, _, scale = args[:6]
        key, value = _as_wide_as(query, key), _as_wide_as(query, value)
        wide = _wide(query)
        scores = torch.matmul(query.to(wide), key.to(wide).transpose(-2, -1)) * scale
        places = [torch.arange(size, device=query.device) for size in scores.shape]
        scores = score_mod(scores, *places, *args[7])
        scores = torch.where(keeps(*places, *args[8]), scores, -math.inf)

        is_empty = torch.all(scores == -math.inf, dim=-1)
        log_sums = torch.where(is_empty, -math.inf, torch.logsumexp(scores, dim=-1))
        largest = torch.amax(scores, dim=-1)
        weights = torch._safe_softmax(scores, dim=-1).to(query.dtype)
        result = _lying_as(context.node.meta["val"][0], torch.matmul(weights, value))
        # f32 is what programs record of them, whatever the queries are.
        log_sums, largest = (x.to(torch.float32) / math.log(2) for x in (log_sums, largest))
        return result, log_sums, largest

    return ConverterSupport(flex_attention, supports_dynamic_shapes=True)


def _wide(query: torch.Tensor) -> torch.dtype:
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def _vectorised_functions(node: Node) -> tuple[GraphModule, GraphModule]:
    """score_mod and mask_mod of all scores at once, of their places along the four axes, and of tensors that they see
    whole. Traced here, because vmap cannot be traced before dispatch, which keeps operators such as matmul whole.
    """
    query, key, score_buffers, mask_buffers = pytree.tree_map_only(
        Node, lambda source: source.meta["val"], (*node.args[:2], *node.args[7:9])
    )
    score_mod, mask_mod = (
        get_attribute(node.graph.owning_module, str(function.target))
        for function in (node.args[3], node.args[4][-1])
    )
    with torch.no_grad(), fake_mode_of([query]):
        scores = query.new_empty(*query.shape[:3], key.shape[2], dtype=_wide(query))
        places = [torch.arange(size, device=query.device) for size in scores.shape]
        return (
            _vectorised(score_mod, (0,), [scores, *places, *score_buffers], query.device),
            _vectorised(mask_mod, (), [*places, *mask_buffers], query.device),
        )


def _vectorised(
    function: Callable[..., Any], prefix: tuple[int, ...], args: list[Any], device: torch.device
) -> GraphModule:
    whole = (None,) * (len(args) - len(prefix) - 4)
    vectorised = function
    for axis in reversed(range(4)):
        places = [0 if axis == other else None for other in range(4)]
        vectorised = torch.vmap(vectorised, in_dims=(*prefix, *places, *whole))
    traced = make_fx(vectorised)(*args)
    for node in traced.graph.find_nodes(op="call_function", target=torch.ops.aten._to_copy.default):
        if not isinstance(node.args[0], Node):  # a number that vmap gave a dtype
            node.target = torch.ops.aten.scalar_tensor.default
            node.kwargs = {**node.kwargs, "device": device}
    traced.recompile()
    return traced


def _lying_as(wanted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """x with its dimensions in the order in memory that the exporter saw: a view of the result may need it."""
    order = storage_order(wanted)
    if not order:
        return x
    back = [order.index(dim) for dim in range(len(order))]
    return x.permute(order).contiguous().permute(back)


def _as_wide_as(query: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A head of keys or values for each of the queries', [B, H, N, D], of x [B or 1, G, N, D]."""
    x = x.expand(query.size(0), *x.shape[1:])
    if query.size(1) == x.size(1):
        return x
    batch, heads, length, size = x.shape
    repeats = query.size(1) // heads
    x = x.unsqueeze(2).expand(batch, heads, repeats, length, size)
    return x.reshape(batch, heads * repeats, length, size)
