"""Checks a TorchScript file that was just written."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torch_tensorrt.formats.verify import WriteError, WrittenArchive


def check_written_script(path: Path, script: torch.jit.ScriptModule) -> None:
    """Compares a file with the module that it was written from: its code is read again, its tensors are compared.

    Raises:
        WriteError: it lacks something, or torch.jit.load could not read it.
    """
    _check_code(script)
    with path.open("rb") as file:
        archive = WrittenArchive(file)
        root = _Reader(io.BytesIO(archive.read("data.pkl"))).load()
        contents: dict[str, Any] = {}
        for name, tensor in (*script.named_parameters(), *script.named_buffers()):
            if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
                continue  # in the form of other backends
            found = _find(root, name)
            if found is None:
                raise WriteError(f"nothing was saved: the tensor {name!r} was not written")
            if found.place != (tensor.storage_offset(), tuple(tensor.shape), tensor.stride()):
                raise WriteError(f"nothing was saved: the tensor {name!r} has another shape")
            contents[f"data/{found.record}"] = tensor.untyped_storage()
        archive.check(contents)


def _check_code(script: torch.jit.ScriptModule) -> None:
    """Writes and loads the module with small tensors in the place of its own: all but the data."""
    light = script._c.__copy__()
    _lighten(light)
    small = io.BytesIO(light.save_to_buffer())
    try:
        torch.jit.load(small)
    except RuntimeError as error:
        raise WriteError(
            f"nothing was saved: torch.jit.load cannot read what torch.jit.save wrote: {error}"
        ) from error


def _lighten(module: Any) -> None:
    """Replaces the tensors of a module's copy, and its submodules by such copies."""
    for name, value in _attributes(module):
        if isinstance(value, torch.Tensor):
            module.setattr(name, value.new_zeros(1))
        else:
            copy = value.__copy__()
            _lighten(copy)
            module.setattr(name, copy)


def _attributes(module: Any) -> list[tuple[str, Any]]:
    names = [*torch._C.ParameterDict(module).items(), *torch._C.BufferDict(module).items()]
    return [*names, *torch._C.ModuleDict(module).items()]


class _Tensor:
    """Where a tensor lies in the archive."""

    def __init__(self, storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> None:
        self.record = storage[2]
        self.place = (offset, tuple(size), tuple(stride))


class _Object:
    """A module or another object; its attributes are what the pickle says."""

    def __new__(cls, *_: Any) -> _Object:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """Reads a pickle of torch.jit's without its classes and its data."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _Tensor if name == "_rebuild_tensor_v2" else lambda tensor, *_: tensor
        if module == "collections" and name == "OrderedDict":
            return dict
        return type(name, (_Object,), {})

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _find(root: Any, name: str) -> _Tensor | None:
    for part in name.split("."):
        state = root.state if isinstance(root, _Object) else None
        root = state.get(part) if isinstance(state, dict) else None
    return root if isinstance(root, _Tensor) else None
