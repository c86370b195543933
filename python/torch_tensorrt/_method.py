"""A method of a module as a module."""

from __future__ import annotations

from typing import Any

import torch


def method_as_module(module: torch.nn.Module, name: str) -> torch.nn.Module:
    """A module whose `forward` is another one's method; the module itself for `forward`.

    Raises:
        RuntimeError: not a module. AttributeError: it has no such method.
    """
    if not isinstance(module, torch.nn.Module):
        raise RuntimeError(
            f"Module is an unknown format: got {type(module).__name__}, expected torch.nn.Module or ExportedProgram"
        )
    if name == "forward":
        return module
    method = getattr(module, name, None)
    if not callable(method):
        raise AttributeError(f"{type(module).__name__} has no method {name!r}")
    return _Method(module, method)


class _Method(torch.nn.Module):
    """Has the module's weights; `forward` has the method's own parameters, which name the inputs."""

    def __init__(self, module: torch.nn.Module, method: Any) -> None:
        super().__init__()
        self.module = module
        self.training = (
            module.training
        )  # without `train`, which would change the module's own parts
        self.forward = method
