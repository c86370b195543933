"""Gradients of a graph whose forward pass runs in an engine: the backward pass runs the graph again in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def require_gradients(values: Iterable[Any]) -> list[bool]:
    return [isinstance(value, torch.Tensor) and value.requires_grad for value in values]


class RecomputedInBackward(torch.autograd.Function):
    """`apply(run, module, differentiable, *args)`: the results of `run(*args)`, with the gradients of `module(*args)`.

    `differentiable` says which results have gradients in PyTorch: others may be detached, or computed without.
    """

    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Any],
        module: Callable[..., Any],
        differentiable: Sequence[bool],
        *args: Any,
    ) -> tuple[Any, ...]:
        ctx.module = module
        ctx.set_materialize_grads(False)
        ctx.autocast = (
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        )
        ctx.others = [None if isinstance(value, torch.Tensor) else value for value in args]
        ctx.positions = [i for i, value in enumerate(args) if isinstance(value, torch.Tensor)]
        ctx.save_for_backward(*(args[index] for index in ctx.positions))
        results = tuple(run(*args))
        ctx.mark_non_differentiable(
            *(
                result
                for result, wanted in zip(results, differentiable, strict=True)
                if isinstance(result, torch.Tensor) and not wanted
            )
        )
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        args = list(ctx.others)
        for index, saved in zip(ctx.positions, ctx.saved_tensors, strict=True):
            args[index] = saved.detach().requires_grad_(ctx.needs_input_grad[3 + index])
        enabled, dtype, cache = ctx.autocast
        with (
            torch.enable_grad(),
            torch.autocast("cpu", dtype=dtype, enabled=enabled, cache_enabled=cache),
        ):
            results = ctx.module(*args)
        pairs = [
            (result, gradient)
            for result, gradient in zip(results, gradients, strict=True)
            if isinstance(result, torch.Tensor) and result.requires_grad and gradient is not None
        ]
        wanted = [index for index in ctx.positions if args[index].requires_grad]
        found = torch.autograd.grad(
            [result for result, _ in pairs],
            [args[index] for index in wanted],
            [gradient for _, gradient in pairs],
            allow_unused=True,
        )
        all_gradients: list[Any] = [None] * len(args)
        for index, gradient in zip(wanted, found, strict=True):
            all_gradients[index] = gradient
        return (None, None, None, *all_gradients)
