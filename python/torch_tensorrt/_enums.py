"""The enumerations of Torch-TensorRT's API."""

# ruff: noqa: PIE796 - a dtype has several names

from __future__ import annotations

import enum
import platform
import sys
from typing import Any

import numpy as np
import torch


class dtype(enum.Enum):  # noqa: N801 - upstream's name
    """Data types. `to` and `try_to` convert to torch and NumPy; `try_from` reads either."""

    unknown = enum.auto()
    u8 = enum.auto()
    i8 = enum.auto()
    i32 = enum.auto()
    i64 = enum.auto()
    f16 = enum.auto()
    f32 = enum.auto()
    f64 = enum.auto()
    b = enum.auto()
    bf16 = enum.auto()
    f8 = enum.auto()
    f4 = enum.auto()

    uint8 = u8
    int8 = i8
    int32 = i32
    int = i32
    int64 = i64
    long = i64
    float16 = f16
    half = f16
    fp16 = f16
    float32 = f32
    float = f32
    fp32 = f32
    float64 = f64
    double = f64
    fp64 = f64
    bool = b
    bfloat16 = bf16
    fp8 = f8
    float8 = f8
    fp4 = f4
    float4 = f4

    @classmethod
    def _from(cls, value: Any) -> dtype:
        result = cls.try_from(value)
        if result is None:
            raise TypeError(
                f"{value!r} is not a dtype that is supported: {', '.join(cls.__members__)}"
            )
        return result

    @classmethod
    def try_from(cls, value: Any) -> dtype | None:
        """The dtype for a torch, NumPy or other dtype, or None."""
        if isinstance(value, dtype):
            return value
        if isinstance(value, torch.dtype):
            return _FROM_TORCH.get(value)
        if isinstance(value, str):
            return cls.__members__.get(value)
        try:
            return _FROM_NUMPY.get(np.dtype(value))
        except TypeError:
            return None

    def to(self, t: Any, use_default: Any = False) -> Any:
        """Converts to `torch.dtype` or `numpy.dtype`; unknown becomes float32 with `use_default`."""
        source = dtype.f32 if self is dtype.unknown and use_default else self
        if t is dtype:
            return source
        table = {torch.dtype: _TO_TORCH, np.dtype: _TO_NUMPY}.get(t)
        if table is None:
            raise TypeError(
                f"{t!r} is not a kind of dtype that can be converted to: torch.dtype, numpy.dtype"
            )
        if source not in table:
            raise TypeError(f"{self} has no counterpart in {t.__module__}")
        return table[source]

    def try_to(self, t: Any, use_default: Any = False) -> Any:
        try:
            return self.to(t, use_default)
        except TypeError:
            return None

    def __eq__(self, other: Any) -> Any:
        converted = dtype.try_from(other) if not isinstance(other, dtype) else other
        return NotImplemented if converted is None else self is converted

    def __hash__(self) -> Any:
        return hash(self.name)


_TO_TORCH = {
    dtype.u8: torch.uint8,
    dtype.i8: torch.int8,
    dtype.i32: torch.int32,
    dtype.i64: torch.int64,
    dtype.f16: torch.float16,
    dtype.f32: torch.float32,
    dtype.f64: torch.float64,
    dtype.b: torch.bool,
    dtype.bf16: torch.bfloat16,
    dtype.f8: torch.float8_e4m3fn,
}
_FROM_TORCH = {value: key for key, value in _TO_TORCH.items()}
_TO_NUMPY = {
    dtype.u8: np.dtype("uint8"),
    dtype.i8: np.dtype("int8"),
    dtype.i32: np.dtype("int32"),
    dtype.i64: np.dtype("int64"),
    dtype.f16: np.dtype("float16"),
    dtype.f32: np.dtype("float32"),
    dtype.f64: np.dtype("float64"),
    dtype.b: np.dtype("bool"),
}
_FROM_NUMPY = {value: key for key, value in _TO_NUMPY.items()}


class memory_format(enum.Enum):  # noqa: N801 - upstream's name
    """Layouts of TensorRT. Kiln reads any strides and chooses its own layouts, so all of them mean the same here."""

    linear = enum.auto()
    chw2 = enum.auto()
    hwc8 = enum.auto()
    chw4 = enum.auto()
    chw16 = enum.auto()
    chw32 = enum.auto()
    dhwc8 = enum.auto()
    cdhw32 = enum.auto()
    hwc = enum.auto()
    dla_linear = enum.auto()
    dla_hwc4 = enum.auto()
    hwc16 = enum.auto()
    dhwc = enum.auto()

    contiguous = linear
    channels_last = hwc
    channels_last_3d = dhwc

    @classmethod
    def _from(cls, value: Any) -> memory_format:
        """Reads a torch.memory_format as well."""
        if isinstance(value, memory_format):
            return value
        for member, counterpart in _TORCH_FORMATS.items():
            if value is counterpart:
                return cls[member]
        raise TypeError(
            f"{value!r} is not a memory format that is supported: {', '.join(cls.__members__)}"
        )

    def to(self, t: Any) -> Any:
        """Converts to `torch.memory_format`. TypeError: a layout that PyTorch does not have."""
        if t is memory_format:
            return self
        if t is not torch.memory_format:
            raise TypeError(
                f"{t!r} is not a kind of memory format that can be converted to: torch.memory_format"
            )
        if self.name not in _TORCH_FORMATS:
            raise TypeError(f"{self} has no counterpart in torch")
        return _TORCH_FORMATS[self.name]


_TORCH_FORMATS = {
    "linear": torch.contiguous_format,
    "hwc": torch.channels_last,
    "dhwc": torch.channels_last_3d,
}


def _by_name(cls: Any, value: Any, aliases: dict[str, str]) -> Any:
    """A member from itself or from its name, in any case."""
    if isinstance(value, cls):
        return value
    name = str(value).upper() if isinstance(value, str) else ""
    name = aliases.get(name, name)
    if name not in cls.__members__:
        raise TypeError(f"got {value!r}, expected one of {', '.join(cls.__members__)}")
    return cls[name]


class DeviceType(enum.Enum):
    """Where engines run."""

    UNKNOWN = enum.auto()
    GPU = enum.auto()
    DLA = enum.auto()
    CPU = enum.auto()

    @classmethod
    def _from(cls, value: Any) -> DeviceType:
        """Reads names and torch.device as well."""
        kind = value.type if isinstance(value, torch.device) else value
        return _by_name(cls, kind, {"CUDA": "GPU"})


class EngineCapability(enum.Enum):
    """Restrictions of TensorRT's runtimes; engines of Kiln are always STANDARD."""

    STANDARD = enum.auto()
    SAFETY = enum.auto()
    DLA_STANDALONE = enum.auto()

    @classmethod
    def _from(cls, value: Any) -> EngineCapability:
        """Reads names as well."""
        return _by_name(cls, value, {})


class Platform(enum.Enum):
    """The operating system and processor that an engine is for."""

    LINUX_X86_64 = enum.auto()
    LINUX_AARCH64 = enum.auto()
    WIN_X86_64 = enum.auto()
    WIN_ARM64 = enum.auto()
    UNKNOWN = enum.auto()

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def current_platform(cls) -> Platform:
        system = "WIN" if sys.platform.startswith("win") else sys.platform.upper()
        machine = {
            "amd64": "x86_64",
            "x86_64": "x86_64",
            "aarch64": "aarch64",
            "arm64": "aarch64",
        }.get(platform.machine().lower(), "")
        return cls.__members__.get(f"{system}_{machine.upper()}", cls.UNKNOWN)
