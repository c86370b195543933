"""Operators as PyTorch's kernels compute them, where its own decompositions leave something out, or there are none.

What a kernel checks of its data is an assertion here: a program that ends with an error in PyTorch ends with one in the
engine. The decomposition behind a check is PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import global_decomposition_table
from torch._export.utils import _get_decomp_for_cia, _is_cia_op
from torch._ops import OpOverload

aten = torch.ops.aten
Tensor = torch.Tensor

# torch.fx knows that of the overload with a message alone, and removes the other as dead code.
torch.fx.node.has_side_effect(aten._assert_async.default)


def pytorchs(operator: OpOverload) -> Callable[..., Any] | None:
    """PyTorch's decomposition: of composite operators the definition itself; those in Python take other arguments."""
    if _is_cia_op(operator):
        return _get_decomp_for_cia(operator)
    return global_decomposition_table["post_autograd"].get(operator)


def _rest(operator: OpOverload) -> Callable[..., Any]:
    """What is behind a check. It is asked for while nothing is decomposed: a composite operator has no other definition
    then."""
    decomposition = pytorchs(operator)
    return decomposition if decomposition is not None else lambda *_, **__: NotImplemented


def require(condition: Tensor, operator: str, fault: str) -> None:
    """Ends the run unless the condition is true everywhere; `fault` is "got X, expected Y"."""
    aten._assert_async.msg(condition.all(), f"[{operator}] {fault}")


_BINARY_CROSS_ENTROPY = _rest(aten.binary_cross_entropy.default)


def _binary_cross_entropy(x: Tensor, target: Tensor, *args: Any, **named: Any) -> Tensor:
    for tensor, name in ((x, "input"), (target, "target")):
        within = (tensor >= 0).logical_and(tensor <= 1)
        fault = f"got an element of the {name} outside of [0, 1], expected probabilities"
        require(within, "binary_cross_entropy", fault)
    return _BINARY_CROSS_ENTROPY(x, target, *args, **named)


def _quantile_of(operator: OpOverload, name: str) -> Callable[..., Tensor]:
    rest = _rest(operator)

    def quantile(x: Tensor, q: Tensor, *args: Any, **named: Any) -> Tensor:
        within = (q >= 0).logical_and(q <= 1)
        require(within, name, "got a q outside of [0, 1], expected q within it")
        return rest(x, q, *args, **named)

    return quantile


def _max_unpool_of(operator: OpOverload, name: str) -> Callable[..., Tensor]:
    rest = _rest(operator)

    def max_unpool(x: Tensor, places: Tensor, output_size: Sequence[int], *args: Any) -> Tensor:
        size = math.prod(output_size)
        within = (places >= 0).logical_and(places < size)
        require(within, name, "got an index outside of the output, expected 0 to its last place")
        return rest(x, places, output_size, *args)

    return max_unpool


def _sequence_of(operator: OpOverload) -> Callable[..., Tensor]:
    """Sequences of integers begin and end with integers, whatever they are given; their steps are of f64."""
    rest = _rest(operator)

    def whole(end: Any, dtype: torch.dtype) -> Any:
        return end.to(dtype).to(torch.float64) if isinstance(end, Tensor) else int(end)

    def sequence(start: Any, end: Any, *args: Any, dtype: Any = None, **named: Any) -> Tensor:
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            start, end = whole(start, dtype), whole(end, dtype)
        return rest(start, end, *args, dtype=dtype, **named)

    return sequence


def _multilabel_margin_loss(x: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    """The labels of a row end before its first -1. Terms that are NaN do not count, as in PyTorch's kernel."""
    rows, labels = torch.atleast_2d(x), torch.atleast_2d(target)
    classes = rows.shape[1]
    within = (labels >= -1).logical_and(labels < classes)
    require(
        within,
        "multilabel_margin_loss",
        f"got a target outside of [-1, {classes}), expected a class or -1",
    )
    counts = (labels == -1).cumsum(1) == 0
    label = torch.where(counts, labels, 0)
    each = torch.arange(classes, device=labels.device)
    is_target = ((labels.unsqueeze(2) == each) & counts.unsqueeze(2)).any(1)
    margin = 1 - rows.gather(1, label).unsqueeze(2) + rows.unsqueeze(1)
    adds = (margin > 0) & counts.unsqueeze(2) & ~is_target.unsqueeze(1)
    loss = torch.where(adds, margin, 0).sum((1, 2)) / classes
    if reduction == 1:
        return loss.mean()
    return loss.sum() if reduction == 2 else loss.reshape(x.shape[:-1])


def _fractional_max_pool(
    x: Tensor, kernel: Sequence[int], output: Sequence[int], samples: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Windows begin where the samples say, in each plane elsewhere. `reverse`: the last axis has the first sample."""
    spatial = len(output)
    count, taken = math.prod(x.shape[:-spatial]), math.prod(output)
    planes = x.reshape(count, math.prod(x.shape[-spatial:]))
    numbers = samples.reshape(count, spatial)
    places = torch.zeros((count, *[1] * (2 * spatial)), dtype=torch.int64, device=x.device)
    for i, (taps, size) in enumerate(zip(kernel, output, strict=True)):
        length = x.shape[i - spatial]
        sample = numbers[:, spatial - 1 - i if reverse else i]
        starts = _interval_starts(sample, length, size, taps)
        along = starts.unsqueeze(2) + torch.arange(taps, device=x.device)
        shape = [count, *[1] * (2 * spatial)]
        shape[1 + i], shape[1 + spatial + i] = size, taps
        places = places * length + along.reshape(shape)
    shape = [count, taken, math.prod(kernel)]
    places = places.reshape(shape)
    windows = planes.gather(1, places.reshape(count, shape[1] * shape[2])).reshape(shape)
    found = windows.argmax(2, keepdim=True)
    if x.is_floating_point():  # of several NaN the last
        number = torch.arange(shape[2], device=x.device)
        last = torch.where(windows.isnan(), number, -1).amax(2, keepdim=True)
        found = torch.where(last >= 0, last, found)
    shape = [*x.shape[:-spatial], *output]
    return windows.gather(2, found).reshape(shape), places.gather(2, found).reshape(shape)


def _interval_starts(sample: Tensor, length: int, size: int, taps: int) -> Tensor:
    """Where the `size` windows of an axis begin: [planes, size]; the last one ends where the axis does."""
    last = torch.full((sample.shape[0], 1), length - taps, device=sample.device)
    if size == 1:
        return last
    # Each step in the dtype of the samples, as in the kernel.
    gap = torch.full((1,), length - taps, dtype=sample.dtype, device=sample.device)
    step = gap / torch.full((1,), size - 1, dtype=sample.dtype, device=sample.device)
    number = torch.arange(size - 1, device=sample.device, dtype=sample.dtype)
    of_sample = (sample.unsqueeze(1) * step).to(torch.int64)
    return torch.cat([((number + sample.unsqueeze(1)) * step).to(torch.int64) - of_sample, last], 1)


def _fractional_max_pool2d(
    x: Tensor, kernel: Sequence[int], output: Sequence[int], samples: Tensor
) -> tuple[Tensor, Tensor]:
    return _fractional_max_pool(x, kernel, output, samples, reverse=True)


def _fractional_max_pool3d(
    x: Tensor, kernel: Sequence[int], output: Sequence[int], samples: Tensor
) -> tuple[Tensor, Tensor]:
    return _fractional_max_pool(x, kernel, output, samples, reverse=False)


def _resize_as(x: Tensor, template: Tensor, *, memory_format: Any = None) -> Tensor:
    """The first elements in the shape of another tensor; more than there are would be memory that nobody wrote."""
    if memory_format not in (None, torch.contiguous_format) or template.numel() > x.numel():
        return NotImplemented
    return x.reshape(-1)[: template.numel()].reshape(template.shape)


# By names as in `_decompositions`.
KERNELS: dict[str, Callable[..., Any]] = {
    "binary_cross_entropy": _binary_cross_entropy,
    "fractional_max_pool2d": _fractional_max_pool2d,
    "fractional_max_pool3d": _fractional_max_pool3d,
    **{
        f"linspace.{ends}": _sequence_of(getattr(aten.linspace, ends))
        for ends in ("Scalar_Tensor", "Tensor_Scalar", "Tensor_Tensor")
    },
    "max_unpool2d": _max_unpool_of(aten.max_unpool2d.default, "max_unpool2d"),
    "max_unpool3d": _max_unpool_of(aten.max_unpool3d.default, "max_unpool3d"),
    "multilabel_margin_loss": _multilabel_margin_loss,
    "nanquantile": _quantile_of(aten.nanquantile.default, "nanquantile"),
    "quantile": _quantile_of(aten.quantile.default, "quantile"),
    "resize_as": _resize_as,
}
