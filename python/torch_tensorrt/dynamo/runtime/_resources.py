"""`ResourceAllocationStrategy`: when modules hold the memory that their engines compute in."""

from __future__ import annotations

from typing import Any

import torch

from torch_tensorrt.runtime._module import TorchTensorRTModule


class ResourceAllocationStrategy(torch.nn.Module):
    """A context that tells the engines of a module to allocate what they compute in at each call.

    They always do, as little as the shapes so far need, so that results and memory are the same in it and outside.

    Args:
        compiled_module: what `torch_tensorrt.compile` gave.
        dynamically_allocate_resources: accepted.

    Raises:
        TypeError: `compiled_module` is no module.
    """

    def __init__(
        self, compiled_module: torch.nn.Module, dynamically_allocate_resources: bool = True
    ) -> None:
        super().__init__()
        if not isinstance(compiled_module, torch.nn.Module):
            raise TypeError(
                f"got {type(compiled_module).__name__}, expected a compiled torch.nn.Module"
            )
        self.compiled_module = compiled_module
        self.dynamically_allocate_resources = dynamically_allocate_resources

    def _tell(self, is_dynamic: bool) -> None:
        for module in self.compiled_module.modules():
            if isinstance(module, TorchTensorRTModule):
                module.use_dynamically_allocated_resources(is_dynamic)

    def __enter__(self) -> None:
        self._tell(self.dynamically_allocate_resources)

    def __exit__(self, *exception: Any) -> None:
        self._tell(False)
