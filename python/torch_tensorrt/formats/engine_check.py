"""Engines inside of other files."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

import kiln
from torch_tensorrt._operator import engine_array, is_engine_name


def check_engines(
    path: str | os.PathLike[str], buffers: Iterable[tuple[str, torch.Tensor]]
) -> None:
    """Looks at the engines among the buffers of a module that was loaded from a file; weights are not read.

    Raises:
        ValueError: an engine is damaged; the text says which.
    """
    for name, buffer in buffers:
        if not is_engine_name(name) or buffer.dtype is not torch.uint8:
            continue
        try:
            kiln.Engine(engine_array(buffer))
        except kiln.InvalidEngineError as error:
            raise ValueError(f"The file {os.fspath(path)}: {name} is damaged: {error}") from error
        except kiln.KilnError:
            pass  # calls say what this machine lacks
