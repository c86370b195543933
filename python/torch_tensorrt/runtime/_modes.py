"""The engines inside a module, and the modes of their calls (src/torch/engine_modes.h)."""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram

from torch_tensorrt._operator import _library

# What an engine file starts with.
ENGINE_MAGIC = b"KILNENG\0"

_library.kiln_torch_set_engine_modes.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
_library.kiln_torch_set_engine_modes.restype = None
_library.kiln_torch_engine_modes.argtypes = [ctypes.c_void_p]
_library.kiln_torch_engine_modes.restype = ctypes.c_uint32
_library.kiln_torch_set_weight_budget.argtypes = [ctypes.c_void_p, ctypes.c_int64]
_library.kiln_torch_set_weight_budget.restype = None
_library.kiln_torch_weight_budget.argtypes = [ctypes.c_void_p]
_library.kiln_torch_weight_budget.restype = ctypes.c_int64
_library.kiln_torch_engine_profile.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
_library.kiln_torch_engine_profile.restype = ctypes.c_size_t


class Mode(enum.IntFlag):
    """What calls of an engine do besides running it."""

    PRE_ALLOCATE = 1
    PROFILE = 2


def is_engine(tensor: Any) -> bool:
    """Whether a tensor holds the bytes of an engine."""
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.dtype is torch.uint8
        and tensor.dim() == 1
        and tensor.numel() > len(ENGINE_MAGIC)
        and tensor.device.type in ("cpu", "cuda")
        and bytes(tensor[: len(ENGINE_MAGIC)].tolist()) == ENGINE_MAGIC
    )


def engines_of(module: Any) -> dict[str, torch.Tensor]:
    """The engines of a module by the names of their buffers.

    Args:
        module: a torch.nn.Module, GraphModule or ScriptModule, or an ExportedProgram.
    """
    if not isinstance(module, (torch.nn.Module, ExportedProgram)):
        raise TypeError(
            f"got {type(module).__name__}, expected a module with engines: what torch_tensorrt.compile or "
            "torch_tensorrt.load gave, or a TorchTensorRTModule"
        )
    return {name: buffer for name, buffer in module.named_buffers() if is_engine(buffer)}


def has_mode(engine: torch.Tensor, mode: Mode) -> bool:
    return bool(_library.kiln_torch_engine_modes(engine.data_ptr()) & mode)


def set_mode(engine: torch.Tensor, mode: Mode, enable: bool) -> None:
    """Switches a mode of an engine on or off; what the mode had kept is dropped."""
    address = engine.data_ptr()
    flags = _library.kiln_torch_engine_modes(address)
    wanted = flags | mode if enable else flags & ~mode
    if wanted != flags:
        _library.kiln_torch_set_engine_modes(address, wanted)


@contextmanager
def mode(engines: list[torch.Tensor], wanted: Mode) -> Iterator[None]:
    """A mode for a block; engines that are in it already stay in it."""
    changed = [engine for engine in engines if not has_mode(engine, wanted)]
    for engine in changed:
        set_mode(engine, wanted, True)
    try:
        yield
    finally:
        for engine in changed:
            set_mode(engine, wanted, False)


def last_profile(engine: torch.Tensor) -> list[dict[str, Any]]:
    """Times of the kernels of the last call with `Mode.PROFILE`, in the order in which they ran; empty before one.

    Each entry has "kernel", "kind", "sources" (operators of the model), "tasks", "threads", "nanoseconds", and what it
    has to do: "operations" (arithmetic), "bytes" (of memory), "precision".
    """
    capacity = 1 << 16
    while True:
        buffer = ctypes.create_string_buffer(capacity)
        length = _library.kiln_torch_engine_profile(engine.data_ptr(), buffer, capacity)
        if length <= capacity:
            return json.loads(buffer.raw[:length]) if length else []
        capacity = length
