"""Contexts that change how the engines of a module run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from torch_tensorrt.runtime import _cuda as gpu_modes
from torch_tensorrt.runtime._modes import (
    Mode,
    engines_of,
    has_mode,
    last_profile,
    mode,
    set_mode,
)
from torch_tensorrt.runtime._module import check_optimization_profile

logger = logging.getLogger(__name__)


def _engines(module: Any, caller: str) -> dict[str, torch.Tensor]:
    engines = engines_of(module)
    if not engines:
        logger.warning("%s: the module has no engines, so nothing changes", caller)
    return engines


class enable_pre_allocated_outputs:  # noqa: N801 - upstream's name
    """Engines allocate the results of the next call after each call, for as long as shapes stay the same.

    That takes the allocation out of the way to the results, and memory for one more set of them. Results of earlier
    calls stay as they are; those that PyTorch computes are not affected.

    with torch_tensorrt.runtime.enable_pre_allocated_outputs(trt_gm) as context:
        for batch in batches:
            consume(trt_gm(batch))
        context.set_pre_allocated_output(False)  # from here on, every call allocates its own

    The context can be called as the module itself.
    """

    def __init__(self, compiled_module: Any) -> None:
        self._module = compiled_module
        self._engines = list(_engines(compiled_module, "enable_pre_allocated_outputs").values())
        self._before: list[bool] = []

    def set_pre_allocated_output(self, enable: bool) -> None:
        """Switches it on or off, inside the block or without one."""
        for engine in self._engines:
            set_mode(engine, Mode.PRE_ALLOCATE, enable)

    def __enter__(self) -> enable_pre_allocated_outputs:
        self._before = [has_mode(engine, Mode.PRE_ALLOCATE) for engine in self._engines]
        self.set_pre_allocated_output(True)
        return self

    def __exit__(self, *_: object) -> None:
        for engine, enabled in zip(self._engines, self._before, strict=True):
            set_mode(engine, Mode.PRE_ALLOCATE, enabled)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._module(*args, **kwargs)


@contextmanager
def enable_output_allocator(compiled_module: Any) -> Iterator[Any]:
    """Accepted: engines compute the sizes of their results first and allocate what is needed, always.

    RuntimeError: CUDA graphs are enabled, which exclude it.
    """
    _engines(compiled_module, "enable_output_allocator")
    with gpu_modes.output_allocator():
        yield compiled_module


@contextmanager
def optimization_profile(compiled_module: Any, profile: int | str | None = "auto") -> Iterator[Any]:
    """Accepted: one engine serves the ranges of all profiles, and chooses by the shapes of every call.

    Args:
        compiled_module: a module with engines.
        profile: number of a profile, "auto" or None. TypeError or ValueError for others.
    """
    check_optimization_profile(profile)
    _engines(compiled_module, "optimization_profile")
    yield compiled_module


class Profile:
    """Times of the kernels of the last call, by engine."""

    def __init__(self, engines: dict[str, torch.Tensor]) -> None:
        self._engines = engines

    def kernels(self) -> dict[str, list[dict[str, Any]]]:
        """By name of the engine's buffer: one entry per kernel, in the order in which they ran, as
        `TorchTensorRTModule.profile` has them; empty before the first call."""
        return {name: last_profile(engine) for name, engine in self._engines.items()}

    def nanoseconds(self) -> int:
        """Time of all kernels."""
        return sum(row["nanoseconds"] for rows in self.kernels().values() for row in rows)


@contextmanager
def profiling(compiled_module: Any) -> Iterator[Profile]:
    """Times every kernel of every engine of a module. Read the times inside the block.

    with torch_tensorrt.runtime.profiling(trt_gm) as profile:
        trt_gm(x)
        print(profile.kernels())
    """
    engines = _engines(compiled_module, "profiling")
    with mode(list(engines.values()), Mode.PROFILE):
        yield Profile(engines)
