"""Shapes of recurrent networks whose sequences have any length.

PyTorch finds them by running all steps of a sequence, which fixes its length in whatever is traced. Where a tracer
wants shapes alone and one of them is symbolic, they follow from the operands' here. What computes never asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses import FakeTensor, FakeTensorMode, fake_impls
from torch.fx.experimental.proxy_tensor import get_proxy_mode

Tensor = torch.Tensor


def _lstm(x: Tensor, hx: Sequence[Tensor], *args: Any) -> tuple[Tensor, ...]:
    output = _output(x, hx[0], *args)
    return output, x.new_empty(hx[0].shape), x.new_empty(hx[1].shape)


def _one_state(x: Tensor, hx: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return _output(x, hx, *args), x.new_empty(hx.shape)


def _output(
    x: Tensor,
    hidden: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Tensor:
    """[steps, batch, features], or [batch, steps, features] as a view of it."""
    steps, batch = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
    features = hidden.shape[2] * (2 if bidirectional else 1)
    output = x.new_empty((steps, batch, features))
    return output.transpose(0, 1) if batch_first else output


def _wants_sizes(x: Any) -> bool:
    """Not where a tracer records what the operator is made of: that would be these empty tensors."""
    is_symbolic = isinstance(x, FakeTensor) and any(
        isinstance(size, torch.SymInt) for size in x.shape
    )
    return is_symbolic and get_proxy_mode() is None


def _replaced(kernel: Callable[..., Any], shapes: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(kernel)
    def call(x: Any, *args: Any) -> Any:
        return shapes(x, *args) if _wants_sizes(x) else kernel(x, *args)

    return call


def register_recurrent_sizes() -> None:
    """For the whole process."""
    aten = torch.ops.aten
    _register(aten.lstm.input, _lstm)
    for operator in (aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input):
        _register(operator, _one_state)


def _register(operator: OpOverload, shapes: Callable[..., Any]) -> None:
    def of_fake_tensors(mode: FakeTensorMode, *args: Any) -> Any:
        with mode:
            return shapes(*args)

    # Tracers that know the operator as one ask fake tensors; those that would take it apart ask its kernels.
    fake_impls.register_fast_op_impl(operator)(of_fake_tensors)
    for key, kernel in operator.py_kernels.items():
        if callable(kernel):
            operator.py_kernels[key] = _replaced(kernel, shapes)
    operator._dispatch_cache.clear()
