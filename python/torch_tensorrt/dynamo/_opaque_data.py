"""Functions that look into data or fix sizes while they are called, which a tracer cannot have, written so that they
do not.

What they only check is an assertion of the program (`_kernels.require`). In cases that a replacement does not cover it
gives NotImplemented, and PyTorch's own function is traced.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import _meta_registrations
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode

from torch_tensorrt.dynamo._kernels import require

Tensor = torch.Tensor
fn = torch.nn.functional

# Steps of a CTC loss are operators of the program, ten for each.
_MAX_STEPS = 256


def _cov(
    x: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    if x.dim() > 2 or x.dtype is torch.bool or not _are_weights(x, fweights, aweights):
        return NotImplemented  # PyTorch says what is wrong
    rows = x if x.dim() == 2 else x.reshape(1, -1)
    weights = None
    for name, given in (("fweights", fweights), ("aweights", aweights)):
        if given is not None:
            require(~(given < 0).any(), "cov", f"got negative {name}, expected none")
            weights = given if weights is None else weights * given
    if weights is None:
        total: Any = rows.shape[1]
        factor: Any = torch.full((), total - correction, dtype=torch.int64, device=x.device)
        weighted = rows
    else:
        total = weights.sum()
        require(total != 0, "cov", "got weights whose sum is zero, expected another sum")
        factor = total - correction
        if aweights is not None and correction != 0:
            factor = total - correction * (weights * aweights).sum() / total
        weighted = rows * weights
    centred = rows - (weighted.sum(1) / total).unsqueeze(1)
    other = centred if weights is None else centred * weights
    products = centred @ other.t().conj()
    return (products / torch.where(factor <= 0, 0, factor)).squeeze()


def _are_weights(x: Tensor, fweights: Tensor | None, aweights: Tensor | None) -> bool:
    count = x.shape[1] if x.dim() == 2 else x.numel()
    for given, is_float in ((fweights, False), (aweights, True)):
        if given is None:
            continue
        is_number = given.dtype is not torch.bool and not given.is_complex()
        if not is_number or given.is_floating_point() != is_float:
            return False
        if given.dim() != 1 or given.shape[0] != count:
            return False
    return True


def _corrcoef(x: Tensor) -> Tensor:
    c = _cov(x)
    if c is NotImplemented:
        return NotImplemented
    if c.dim() == 0:
        return c / c
    variances = c.diagonal()
    deviation = (variances.real if c.is_complex() else variances).sqrt()
    c = c / deviation.unsqueeze(1) / deviation.unsqueeze(0)
    if c.is_complex():
        return torch.complex(c.real.clip(-1, 1), c.imag.clip(-1, 1))
    return c.clip(-1, 1)


def _gaussian_nll_loss(
    x: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    if not isinstance(var, Tensor) or reduction not in ("none", "mean", "sum"):
        return NotImplemented
    require(~(var < 0).any(), "gaussian_nll_loss", "got a negative variance, expected none")
    if var.shape != x.shape:
        if x.shape[:-1] == var.shape:
            var = var.unsqueeze(-1)
        else:
            pairs = zip(x.shape, var.shape, strict=False)
            others = [size for own, size in pairs if own != size]
            if x.dim() != var.dim() or sum(others) != 1:
                raise ValueError("var is of incorrect size")
    var = var.clamp(min=eps)
    loss = 0.5 * (var.log() + (x - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduced(loss, reduction)


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


_REDUCTIONS = ("none", "mean", "sum")


def _ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str | int = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """The forward variables of all samples, step by step; those of a sample stay what they are behind its last step."""
    reduction = _REDUCTIONS[reduction] if isinstance(reduction, int) else reduction
    steps = log_probs.shape[0]
    if (
        log_probs.dim() not in (2, 3)
        or log_probs.dtype not in (torch.float32, torch.float64)
        or targets.dim() not in (1, 2)
        or not isinstance(steps, int)
        or not 0 < steps <= _MAX_STEPS
        or not 0 <= blank < log_probs.shape[-1]
        or reduction not in _REDUCTIONS
    ):
        return NotImplemented
    is_batch = log_probs.dim() == 3
    scores = log_probs if is_batch else log_probs.unsqueeze(1)
    in_steps, in_labels = (
        torch.as_tensor(lengths, device=scores.device).to(torch.int64).reshape(-1)
        for lengths in (input_lengths, target_lengths)
    )
    if in_steps.shape[0] != scores.shape[1] or in_labels.shape[0] != scores.shape[1]:
        return NotImplemented
    within = (in_steps >= 0) & (in_steps <= steps)
    require(within, "ctc_loss", f"got an input length outside of [0, {steps}], expected one within")
    states, skips = _ctc_states(targets.to(torch.int64), in_labels, blank, scores.shape[2])
    loss = _ctc_loss_of(scores, states, skips, in_steps, in_labels)
    if zero_infinity:
        loss = torch.where(loss == math.inf, 0, loss)
    if reduction == "mean":
        loss = loss / in_labels.clamp(min=1).to(loss.dtype)
    elif reduction == "none" and not is_batch:
        return loss.squeeze(0)
    return _reduced(loss, reduction)


def _ctc_states(
    targets: Tensor, lengths: Tensor, blank: int, classes: int
) -> tuple[Tensor, Tensor]:
    """[samples, 2 * labels + 1]: labels between blanks, and where the blank before a label may be left out."""
    labels = targets.shape[-1]
    place = torch.arange(labels, device=targets.device)
    require(
        (lengths >= 0) & (lengths <= labels),
        "ctc_loss",
        "got a target length that is negative or more than there are labels, expected one within",
    )
    is_label = place < lengths.unsqueeze(1)
    if targets.dim() == 1 and labels > 0:  # one behind the other
        require(
            lengths.sum() == labels,
            "ctc_loss",
            "got targets of another length than the sum of their lengths, expected as many",
        )
        begin = (lengths.cumsum(0) - lengths).unsqueeze(1)
        targets = targets[torch.where(is_label, begin + place, 0).clamp(max=labels - 1)]
    elif targets.dim() == 1:
        targets = targets.expand(lengths.shape[0], 0)
    targets = torch.where(is_label, targets, blank)
    require(
        (targets >= 0) & (targets < classes),
        "ctc_loss",
        "got a label that is not a class, expected one of the classes",
    )
    blanks = torch.full_like(targets, blank)
    pairs = torch.stack([blanks, targets], 2).flatten(1)
    states = fn.pad(pairs, (0, 1), value=blank)
    before = fn.pad(states, (2, 0), value=blank)[:, : states.shape[1]]
    is_odd = torch.arange(states.shape[1], device=targets.device) % 2 == 1
    is_third = torch.arange(states.shape[1], device=targets.device) > 1
    return states, is_odd & is_third & (states != before)


def _ctc_loss_of(
    scores: Tensor, states: Tensor, skips: Tensor, in_steps: Tensor, in_labels: Tensor
) -> Tensor:
    count = states.shape[1]
    of_states = scores.gather(2, states.unsqueeze(0).expand(scores.shape[0], -1, -1))
    number = torch.arange(count, device=states.device)
    alpha = torch.where(number < 2, of_states[0], -math.inf)
    for step in range(1, scores.shape[0]):
        one = fn.pad(alpha, (1, 0), value=-math.inf)[:, :count]
        two = fn.pad(alpha, (2, 0), value=-math.inf)[:, :count]
        two = torch.where(skips, two, -math.inf)
        after = _log_of_sum(alpha, one, two) + of_states[step]
        alpha = torch.where((step < in_steps).unsqueeze(1), after, alpha)
    last = (2 * in_labels).unsqueeze(1).clamp(0, count - 1)
    ends = alpha.gather(1, last).squeeze(1)
    others = alpha.gather(1, (last - 1).clamp(min=0)).squeeze(1)
    loss = -_log_of_sum(ends, torch.where(in_labels > 0, others, -math.inf))
    of_none = torch.where(in_labels == 0, 0.0, math.inf).to(loss.dtype)
    return torch.where(in_steps == 0, of_none, loss)


def _log_of_sum(*terms: Tensor) -> Tensor:
    most = terms[0]
    for term in terms[1:]:
        most = torch.maximum(most, term)
    most = torch.where(most == -math.inf, 0, most)
    total = (terms[0] - most).exp()
    for term in terms[1:]:
        total = total + (term - most).exp()
    return total.log() + most


def _max_pool1d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """PyTorch's own fixes the length."""
    if return_indices or x.dim() < 2 or all(isinstance(size, int) for size in x.shape):
        return NotImplemented
    kernel, step, pad, spread = (
        (first, *(each if isinstance(each, (list, tuple)) else (each,)))
        for first, each in (
            (1, kernel_size),
            (1, stride or kernel_size),
            (0, padding),
            (1, dilation),
        )
    )
    return fn.max_pool2d(x.unsqueeze(-2), kernel, step, pad, spread, ceil_mode).squeeze(-2)


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    torch.cov: _cov,
    torch.Tensor.cov: _cov,
    torch.corrcoef: _corrcoef,
    torch.Tensor.corrcoef: _corrcoef,
    fn.gaussian_nll_loss: _gaussian_nll_loss,
    fn.ctc_loss: _ctc_loss,
    torch.ctc_loss: _ctc_loss,
    fn.max_pool1d: _max_pool1d,
    torch.max_pool1d: _max_pool1d,
}
# PyTorch's names of first arguments that are given by name.
_FIRST = ("input", "self")


class _Replaced(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        replacement = _REPLACEMENTS.get(func)
        if replacement is not None:
            named = {("x" if name in _FIRST else name): value for name, value in kwargs.items()}
            result = replacement(*args, **named)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


class _Patch:
    """A function of one of PyTorch's modules that is another one while a tracer needs it, in whatever threads."""

    def __init__(self, module: Any, name: str, replacement: Callable[..., Any]) -> None:
        self._module, self._name, self._replacement = module, name, replacement
        self._own = getattr(module, name, None)
        self._lock, self._users = threading.Lock(), 0

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._own is not None:
                setattr(self._module, self._name, self._replacement)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._own is not None and self._users == 0:
                setattr(self._module, self._name, self._own)


def _only_what_is_said(mask: Any, is_causal: bool | None = None, size: Any = None) -> bool:
    """torch.nn's transformers look into masks to find out whether they are causal. The answer is a hint for PyTorch's
    kernels: the mask is applied all the same."""
    return bool(is_causal)


def _pooled_size(
    size: Any, kernel: Any, before: Any, after: Any, stride: Any, dilation: Any, ceil_mode: bool
) -> Any:
    """The number of a pool's windows. PyTorch's own asks whether the last one starts behind the input, and so has
    another program for some sizes."""
    room = before + after - dilation * (kernel - 1) - 1
    if ceil_mode:
        room = min(room + stride - 1, before - 1)
    return (size + room) // stride + 1


_patches = (
    _Patch(transformer, "_detect_is_causal_mask", _only_what_is_said),
    _Patch(_meta_registrations, "pooling_output_shape_pad_lr", _pooled_size),
)


@contextmanager
def data_is_opaque(strict: bool = False) -> Iterator[None]:
    """While torch.export traces on this thread. With `strict` Dynamo does, which has its own way with functions."""
    for patch in _patches:
        patch.enter()
    try:
        with nullcontext() if strict else _Replaced():
            yield
    finally:
        for patch in _patches:
            patch.leave()
