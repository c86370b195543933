"""Weights of engines on a GPU that are copied there when they are used: how much memory they may take."""

from __future__ import annotations

import itertools
from typing import Any

import torch

import kiln
from torch_tensorrt._arguments import input_device
from torch_tensorrt._operator import _library, engine_array
from torch_tensorrt.runtime._modes import engines_of

NOTHING_TO_STREAM = (
    "engine does not have streamable weights: those of engines on a GPU are, from 16 KiB on, while engines on the CPU "
    "use theirs in place, where there is no device memory to keep them out of"
)
# Part of a GPU's free memory that an automatic budget leaves to everything else.
_RESERVE = 0.1


def streamable_bytes(engine: torch.Tensor) -> int:
    """Bytes of the weights of an engine that can be streamed to a GPU; 0 for an engine for CPUs alone.

    kiln.UnsupportedError: it is for a GPU that is not there.
    """
    try:
        return kiln.load(engine_array(engine), target="cuda").streamable_bytes
    except kiln.InvalidArgumentError:  # it has no program for GPUs
        return 0


def get_budget(engine: torch.Tensor, streamable: int) -> int:
    """Bytes of a GPU's memory for these weights; all of them if no budget was set."""
    budget = _library.kiln_torch_weight_budget(engine.data_ptr())
    return streamable if budget < 0 else budget


def set_budget(engine: torch.Tensor, streamable: int, budget: int) -> int:
    """Sets the budget from the next call on, and gives what there is now: at most what can be streamed.

    RuntimeError: it is negative.
    """
    if budget < 0:
        raise RuntimeError(f"weight streaming budget is {budget}, expected 0 or more bytes")
    wanted = min(budget, streamable)
    _library.kiln_torch_set_weight_budget(engine.data_ptr(), wanted if wanted < streamable else -1)
    return wanted


def automatic_budget(streamable: int, device: torch.device) -> int:
    """The most that fits into the memory that is free on a GPU now, but for a tenth of it."""
    free, _ = torch.cuda.mem_get_info(device)
    return min(streamable, int(free * (1 - _RESERVE)))


class Budgets:
    """Those of the engines of a module on a GPU.

    Attributes:
        total: bytes of all weights that can be streamed; 0 for a module on the CPU.
    """

    def __init__(self, module: Any) -> None:
        self.device = input_device(module)
        engines = engines_of(module).values() if self.device.type == "cuda" else ()
        self._engines = [(engine, streamable_bytes(engine)) for engine in engines]
        self.total = sum(streamable for _, streamable in self._engines)

    def get(self) -> list[int]:
        return [get_budget(*engine) for engine in self._engines]

    def set(self, budgets: list[int]) -> None:
        for engine, budget in zip(self._engines, budgets, strict=True):
            set_budget(*engine, budget)

    def divide(self, requested: int) -> None:
        """Divides bytes among the engines by the size of their weights. RuntimeError: they are negative."""
        if requested < 0:
            raise RuntimeError(f"weight streaming budget is {requested}, expected 0 or more bytes")
        # Ends of the engines' parts, if all weights lay in a row: together they are what was asked for.
        share, total = min(requested, self.total), max(self.total, 1)
        sizes = [streamable for _, streamable in self._engines]
        ends = [share * end // total for end in itertools.accumulate(sizes)]
        self.set([end - begin for begin, end in zip([0, *ends], ends, strict=False)])

    def automatic(self) -> int:
        return automatic_budget(self.total, self.device)


class weight_streaming:  # noqa: N801 - upstream's name
    """How many bytes of a GPU's memory the weights of a module's engines take; the rest is copied in every call.

    with torch_tensorrt.runtime.weight_streaming(trt_gm) as context:
        context.device_budget = context.total_device_budget // 2
        trt_gm(x)

    Weights above the budget stay in pinned memory of the host; a call copies them to a ring in its workspace, ahead of
    the kernels that use them. Results are the same to the last bit. What was set before comes back at the end of the
    block; without one, as scripts have it, what is set stays.

    Attributes:
        total_device_budget: bytes of all weights that can be streamed.
        device_budget: bytes that stay on the GPU, divided among the engines by the size of their weights. As much as
            `total_device_budget`, or more, streams nothing. RuntimeError for a negative one.

    A module without such weights, one on the CPU for instance, is a RuntimeError where the block begins or an attribute
    is asked for.
    """

    def __init__(self, module: Any) -> None:
        engines_of(module)
        self._module = module
        self._budgets: Budgets | None = None
        self._before: list[int] = []

    def __enter__(self) -> weight_streaming:
        self._budgets = None  # of the engines that there are now
        self._before = self._found().get()
        return self

    def __exit__(self, *_: object) -> None:
        self._found().set(self._before)

    @property
    def total_device_budget(self) -> int:
        return self._found().total

    @property
    def device_budget(self) -> int:
        return sum(self._found().get())

    @device_budget.setter
    def device_budget(self, requested: int) -> None:
        self._found().divide(requested)

    def get_automatic_weight_streaming_budget(self) -> int:
        """The most that fits into the memory that is free on the GPU now, but for a tenth of it."""
        return self._found().automatic()

    def _found(self) -> Budgets:
        if self._budgets is None:
            budgets = Budgets(self._module)
            if budgets.total == 0:
                raise RuntimeError(NOTHING_TO_STREAM)
            self._budgets = budgets
        return self._budgets
