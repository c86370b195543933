"""Bare engines: `.kiln` files."""

from __future__ import annotations

import os

import torch

from torch_tensorrt.runtime import TorchTensorRTModule
from torch_tensorrt.runtime._modes import ENGINE_MAGIC


class LoadedEngine(TorchTensorRTModule):
    """An engine that `load` gave: `.module()` gives what to call for every format, here the module itself."""

    def module(self) -> LoadedEngine:
        return self


def is_engine(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an engine. OSError: it cannot be read."""
    if os.path.isdir(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(ENGINE_MAGIC)) == ENGINE_MAGIC


def load_engine(path: str | os.PathLike[str]) -> LoadedEngine:
    """An engine as a module. The file is mapped and not read. kiln.InvalidEngineError: it is damaged."""
    name = os.fspath(path)
    engine = torch.from_file(name, size=os.path.getsize(name), dtype=torch.uint8)
    return LoadedEngine(engine, name=os.path.basename(name))
