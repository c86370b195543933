"""Settings of the runtime: accepted as in Torch-TensorRT, where they are for another runtime of TensorRT.

They choose when kernels are compiled, where compiled kernels are kept, and whether they are launched as CUDA graphs.
An engine of Kiln holds machine code for the whole range of its shapes, so that nothing is compiled when it runs, and
on a GPU its calls are CUDA graphs in any case: the settings are checked and kept, and a warning says that they change
nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_tensorrt._arguments import input_device
from torch_tensorrt.runtime._modes import engines_of

_CHOICES = {
    "dynamic_shapes_kernel_specialization_strategy": ("lazy", "eager", "none"),
    "cuda_graph_strategy": ("disabled", "whole_graph_capture"),
}
_WHY_NO_EFFECT = (
    "engines hold machine code for all of their shapes, compile nothing when they run, and on a GPU launch their "
    "kernels as CUDA graphs in any case"
)


class RuntimeCache:
    """A cache of kernels that were compiled when an engine ran. It stays empty, because none are.

    Args:
        path: where Torch-TensorRT would keep it; nothing is written.
        autosave: accepted.
    """

    def __init__(self, path: str | os.PathLike[str] = "", autosave: bool = True) -> None:
        self.path = Path(path) if os.fspath(path) else None
        self.autosave = autosave

    def save(self) -> None:
        """Does nothing: there is nothing to save."""

    def load(self) -> None:
        """Does nothing: there is nothing to load."""

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"RuntimeCache(path={str(self.path or '')!r}, empty)"


@dataclass(frozen=True)
class RuntimeSettings:
    """Settings of how an engine runs. ValueError for a value that Torch-TensorRT does not know."""

    dynamic_shapes_kernel_specialization_strategy: str = "lazy"
    cuda_graph_strategy: str = "disabled"
    runtime_cache: RuntimeCache | str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}"
                )
        if not isinstance(self.runtime_cache, (RuntimeCache, str, os.PathLike, type(None))):
            raise TypeError(
                f"runtime_cache is {type(self.runtime_cache).__name__}, expected a path or a RuntimeCache"
            )

    def merge(self, **changes: Any) -> RuntimeSettings:
        """These settings with changes; TypeError for one that does not exist."""
        known = [option.name for option in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise TypeError(f"unknown runtime setting {name!r}; the nearest one is {near!r}")
        return dataclasses.replace(self, **changes)


def as_modules(modules: Any) -> list[Any]:
    """The modules of an argument that may be one or several; TypeError for what is none."""
    result = list(modules) if isinstance(modules, (list, tuple)) else [modules]
    for module in result:
        engines_of(module)
    return result


@contextmanager
def runtime_config(compiled_module: Any, **settings: Any) -> Iterator[Any]:
    """`RuntimeSettings` for a block, which are checked and kept in `module.runtime_settings`.

    with torch_tensorrt.runtime.runtime_config(trt_gm, dynamic_shapes_kernel_specialization_strategy="eager"):
        trt_gm(x)

    Args:
        compiled_module: a module with engines, or a list of them.
        settings: fields of RuntimeSettings. TypeError for others, ValueError for their values, and for CUDA graphs
            of a module on the CPU.

    Yields what was given. Warns (UserWarning) if a setting is changed, because it has no effect.
    """
    modules = as_modules(compiled_module)
    old = [getattr(module, "runtime_settings", RuntimeSettings()) for module in modules]
    new = [before.merge(**settings) for before in old]
    for module, value in zip(modules, new, strict=True):
        if value.cuda_graph_strategy != "disabled" and input_device(module).type != "cuda":
            raise ValueError(
                f"cuda_graph_strategy is {value.cuda_graph_strategy!r}, but the engines of this module run on the "
                "CPU: CUDA graphs need a GPU"
            )
    if new != old:
        warnings.warn(
            f"runtime settings {sorted(settings)} have no effect: {_WHY_NO_EFFECT}",
            UserWarning,
            stacklevel=3,
        )
    _set_all(modules, new)
    try:
        yield compiled_module
    finally:
        _set_all(modules, old)


def _set_all(modules: Sequence[Any], settings: Sequence[RuntimeSettings]) -> None:
    for module, value in zip(modules, settings, strict=True):
        module.runtime_settings = value


@contextmanager
def set_dynamic_shapes_kernel_strategy(compiled_module: Any, strategy: str) -> Iterator[Any]:
    """The setting dynamic_shapes_kernel_specialization_strategy ("lazy", "eager", "none") for a block."""
    with runtime_config(compiled_module, dynamic_shapes_kernel_specialization_strategy=strategy):
        yield compiled_module


@contextmanager
def runtime_cache(
    compiled_module: Any, path: str | os.PathLike[str] = "", autosave: bool = True
) -> Iterator[RuntimeCache]:
    """A RuntimeCache for a block; it stays empty, and nothing is written to `path`."""
    cache = RuntimeCache(path, autosave)
    with runtime_config(compiled_module, runtime_cache=cache):
        yield cache
