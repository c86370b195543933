"""torch.nn.attention.flex_attention with PyTorch's operators; its functions of single scores are vectorised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

from torch_tensorrt.dynamo._strides import storage_order
from torch_tensorrt.dynamo.conversion._registry import ConverterSupport

TARGET = torch.ops.higher_order.flex_attention


def _flex_attention(context: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
    """The result, the logarithm of the sums of the softmax, and the largest scores, both to the base of 2.

    The definition is eager PyTorch's (torch/_higher_order_ops/flex_attention.py, math_attention): the blocks of a
    BlockMask only save work, its mask_mod says the same of each pair.
    """
    query, key, value, score_mod, block_mask, scale = args[:6]
    score_buffers, mask_buffers = args[7:9]
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    key, value = _as_wide_as(query, key), _as_wide_as(query, value)
    scores = torch.matmul(query.to(wide), key.to(wide).transpose(-2, -1)) * scale
    places = [torch.arange(size, device=query.device) for size in scores.shape]
    scores = _of_each(score_mod, (0,), [scores, *places, *score_buffers])
    keep = _of_each(block_mask[-1], (), [*places, *mask_buffers])
    scores = torch.where(keep, scores, -math.inf)

    is_empty = torch.all(scores == -math.inf, dim=-1)
    log_sums = torch.where(is_empty, -math.inf, torch.logsumexp(scores, dim=-1))
    largest = torch.amax(scores, dim=-1)
    weights = torch._safe_softmax(scores, dim=-1).to(query.dtype)
    # f32 is what programs record of them, whatever the queries are.
    log_sums, largest = (x.to(torch.float32) / math.log(2) for x in (log_sums, largest))
    return _lying_as(context.node.meta["val"][0], torch.matmul(weights, value)), log_sums, largest


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


def _of_each(function: Callable[..., Any], prefix: tuple[int, ...], args: list[Any]) -> Any:
    """A function on a single score and its places, on all of them: `args` are the scores if it takes one, the places
    along the four axes, and tensors that it sees whole."""
    whole = (None,) * (len(args) - len(prefix) - 4)
    vectorised = function
    for axis in reversed(range(4)):
        places = [0 if axis == other else None for other in range(4)]
        vectorised = torch.vmap(vectorised, in_dims=(*prefix, *places, *whole))
    # vmap cannot be traced before dispatch, which keeps operators such as matmul whole.
    with disable_proxy_modes_tracing():
        traced = make_fx(vectorised)(*args)
    for node in traced.graph.find_nodes(op="call_function", target=torch.ops.aten._to_copy.default):
        if not isinstance(node.args[0], Node):  # a number that vmap gave a dtype
            node.target = torch.ops.aten.scalar_tensor.default
    traced.recompile()
    return traced(*args)


SUPPORT = ConverterSupport(_flex_attention, supports_dynamic_shapes=True)
