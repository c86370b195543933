"""Loads the operator `kiln::execute_engine` and teaches PyTorch the shapes of its results.

Every call of the operator carries a `spec`: the dtypes and shapes of its results as text, for tracing. It reads

    f32[i0_0,16];i64[i0_0*2,max(i1_1,4)]

with one entry per result; `i<input>_<dim>` is a size of an input, and + - * // % ** max min have
Python's meaning. It has no quotes or backslashes, so every exporter can carry it.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import re
import weakref
from collections.abc import Callable
from typing import Any

import torch

import kiln

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "bool",
}
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}

_ENTRY = re.compile(r"([a-z0-9]+)\[(.*)\]")
_SIZE_NAME = re.compile(r"i(\d+)_(\d+)")
_FUNCTIONS: dict[str, Callable[..., Any]] = {"max": torch.sym_max, "min": torch.sym_min}
_SYNTAX = (
    *(
        ast.Expression,
        ast.Tuple,
        ast.Load,
        ast.Name,
        ast.Constant,
        ast.BinOp,
        ast.UnaryOp,
        ast.USub,
        ast.Call,
    ),
    *(ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.Pow),
)


def _load() -> ctypes.CDLL:
    path = kiln.library_directory() / "libkiln_torch.so"
    if not path.is_file():
        raise ImportError(f"{path} does not exist: was Kiln built with KILN_BUILD_TORCH=OFF?")
    torch.ops.load_library(str(path))
    library = ctypes.CDLL(str(path))
    library.kiln_torch_release_engine.argtypes = [ctypes.c_void_p]
    library.kiln_torch_release_engine.restype = None
    return library


_library = _load()
execute_engine = torch.ops.kiln.execute_engine.default


def release_with(module: torch.nn.Module, engine: torch.Tensor) -> None:
    """Lets the operator forget what it loaded from an engine when a module that has it goes away."""
    release = _library.kiln_torch_release_engine
    weakref.finalize(module, release, engine.data_ptr()).atexit = False


def release(engine: torch.Tensor) -> None:
    """Lets the operator forget what it loaded from an engine, now."""
    _library.kiln_torch_release_engine(engine.data_ptr())


@functools.lru_cache(maxsize=1024)
def _parse_spec(spec: str) -> tuple[tuple[torch.dtype, Any], ...]:
    """Gives, per result, its dtype and the compiled tuple of its sizes."""
    results = []
    for entry in spec.split(";") if spec else ():
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] not in _DTYPES:
            raise ValueError(
                f"[execute_engine] spec has the entry {entry!r}, expected dtype[size,size,...]"
            )
        tree = ast.parse(f"({match[2]},)" if match[2] else "()", mode="eval")
        for node in ast.walk(tree):
            known_name = (
                not isinstance(node, ast.Name)
                or node.id in _FUNCTIONS
                or _SIZE_NAME.fullmatch(node.id)
            )
            integer = not isinstance(node, ast.Constant) or type(node.value) is int
            if not isinstance(node, _SYNTAX) or not known_name or not integer:
                raise ValueError(
                    f"[execute_engine] spec has the sizes {match[2]!r}, which are no integer arithmetic"
                )
        results.append((_DTYPES[match[1]], compile(tree, "<spec>", "eval")))
    return tuple(results)


@torch.library.register_fake("kiln::execute_engine")
def _execute_engine_fake(
    inputs: list[torch.Tensor], engine: torch.Tensor, spec: str
) -> list[torch.Tensor]:
    sizes = {
        f"i{i}_{dim}": size
        for i, tensor in enumerate(inputs)
        for dim, size in enumerate(tensor.shape)
    }
    names = {**_FUNCTIONS, **sizes, "__builtins__": {}}
    return [engine.new_empty(eval(code, names), dtype=dtype) for dtype, code in _parse_spec(spec)]
