"""Compiling for Windows: not possible here, and said so."""

from __future__ import annotations

from typing import Any, NoReturn

_LINUX_ONLY = (
    "{caller}: engines are for Linux on x86-64 and cannot be compiled for Windows, or run there; use "
    "{instead}, on Linux or in WSL"
)


def cross_compile_for_windows(module: Any, *args: Any, **kwargs: Any) -> NoReturn:
    """NotImplementedError: engines are for Linux."""
    instead = "torch_tensorrt.compile and torch_tensorrt.save"
    raise NotImplementedError(
        _LINUX_ONLY.format(caller="cross_compile_for_windows", instead=instead)
    )


def save_cross_compiled_exported_program(gm: Any, *args: Any, **kwargs: Any) -> NoReturn:
    """NotImplementedError: engines are for Linux."""
    caller = "save_cross_compiled_exported_program"
    raise NotImplementedError(_LINUX_ONLY.format(caller=caller, instead="torch_tensorrt.save"))


def load_cross_compiled_exported_program(file_path: str = "", **kwargs: Any) -> NoReturn:
    """ValueError: this is not Windows."""
    caller = "load_cross_compiled_exported_program"
    raise ValueError(_LINUX_ONLY.format(caller=caller, instead="torch_tensorrt.load"))
