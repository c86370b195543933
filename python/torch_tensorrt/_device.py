"""`Device`: where a model is compiled for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torch_tensorrt._enums import DeviceType


class Device:
    """A device, from a string ("cpu", "cuda:0", "gpu:0", "dla:0"), a torch.device, or keywords.

    Args:
        spec: the device as text or torch.device.
        gpu_id: number of the GPU, instead of `spec`.
        dla_core: number of the DLA core, with the GPU that it belongs to.
        allow_gpu_fallback: let a GPU run what the DLA cannot.
    """

    device_type: DeviceType
    gpu_id: int
    dla_core: int
    allow_gpu_fallback: bool

    def __init__(
        self,
        spec: str | torch.device | None = None,
        *,
        gpu_id: int | None = None,
        dla_core: int | None = None,
        allow_gpu_fallback: bool = False,
    ) -> None:
        self.gpu_id, self.dla_core, self.allow_gpu_fallback = -1, -1, allow_gpu_fallback
        if spec is not None:
            if gpu_id is not None or dla_core is not None:
                raise ValueError(
                    "Device was given both a description and gpu_id or dla_core: give one of them"
                )
            self._parse(str(spec))
        elif dla_core is not None:
            self.device_type, self.dla_core = DeviceType.DLA, dla_core
            self.gpu_id = gpu_id if gpu_id is not None else 0
        elif gpu_id is not None:
            self.device_type, self.gpu_id = DeviceType.GPU, gpu_id
        else:
            raise ValueError(
                'Device needs a description such as "cpu" or "cuda:0", a gpu_id or a dla_core'
            )

    def _parse(self, text: str) -> None:
        kind, _, number = text.lower().partition(":")
        if number and not number.isdigit():
            raise ValueError(f"Device is {text!r}, expected a number after the colon")
        index = int(number) if number else 0
        if kind == "cpu":
            self.device_type = DeviceType.CPU
        elif kind in ("cuda", "gpu"):
            self.device_type, self.gpu_id = DeviceType.GPU, index
        elif kind == "dla":
            self.device_type, self.gpu_id, self.dla_core = DeviceType.DLA, 0, index
        else:
            raise ValueError(f"Device is {text!r}, expected cpu, cuda:N, gpu:N or dla:N")

    @classmethod
    def default(cls) -> Device:
        """The current GPU, or the CPU where there is none."""
        return cls(gpu_id=torch.cuda.current_device()) if torch.cuda.is_available() else cls("cpu")

    @classmethod
    def _from(cls, value: Any) -> Device:
        if value is None:
            return cls.default()
        if isinstance(value, Mapping):
            return cls._from_mapping(value)
        return value if isinstance(value, Device) else cls(value)

    @classmethod
    def _from_mapping(cls, given: Mapping[str, Any]) -> Device:
        """A device from the dictionary that specifications of Torch-TensorRT 1.x have."""
        names = ("device_type", "gpu_id", "dla_core", "allow_gpu_fallback")
        for name in given:
            if name not in names:
                raise ValueError(f"device has {name!r}, expected {', '.join(names)}")
        if "device_type" not in given:
            raise KeyError(f"device is {dict(given)!r}, expected a device_type in it")
        kind = DeviceType._from(given["device_type"])
        fallback = bool(given.get("allow_gpu_fallback", False))
        if kind is DeviceType.CPU:
            return cls("cpu", allow_gpu_fallback=fallback)
        core = given.get("dla_core", 0) if kind is DeviceType.DLA else None
        return cls(gpu_id=given.get("gpu_id", 0), dla_core=core, allow_gpu_fallback=fallback)

    def to(self, t: type[torch.device]) -> torch.device:
        """Converts to torch.device."""
        if t is not torch.device:
            raise TypeError(f"{t!r} is not a kind of device that can be converted to: torch.device")
        return (
            torch.device("cpu")
            if self.device_type is DeviceType.CPU
            else torch.device("cuda", self.gpu_id)
        )

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Device) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        if self.device_type is DeviceType.CPU:
            return "cpu"
        if self.device_type is DeviceType.DLA:
            return f"dla:{self.dla_core}"
        return f"cuda:{self.gpu_id}"

    def __repr__(self) -> str:
        return f"Device({str(self)!r})"


def set_device(gpu_id: int) -> None:
    """Makes a GPU the current one of this thread, as torch.cuda.set_device does. RuntimeError: there is no such GPU."""
    if not 0 <= gpu_id < torch.cuda.device_count():
        raise RuntimeError(
            f"gpu_id is {gpu_id}, expected the number of a GPU: PyTorch sees {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(gpu_id)
