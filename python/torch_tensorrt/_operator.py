"""Loads the operator `kiln::execute_engine` and teaches PyTorch the shapes of its results.

Every call of the operator carries a `spec`: the dtypes and shapes of its results as text, for tracing. It reads

    f32[i0_0,16];i64[i0_0*2,max(i1_1,4)]

with one entry per result; `i<input>_<dim>` is a size of an input, and + - * // % ** max min have
Python's meaning. `{0,2,3,1}` after the sizes are the dimensions in the order in which they lie in memory,
the innermost last, for results that are not row-major: the engine gives them in that order. A spec has no quotes or
backslashes, so every exporter can carry it.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
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

_ENTRY = re.compile(r"([a-z0-9]+)\[(.*)\](?:\{([0-9,]+)\})?")
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
    for function in (library.kiln_torch_hold_engine, library.kiln_torch_release_engine):
        function.argtypes, function.restype = [ctypes.c_void_p], None
    return library


_library = _load()
execute_engine = torch.ops.kiln.execute_engine.default


def engine_tensor(engine: bytes | bytearray | memoryview) -> torch.Tensor:
    """The bytes of an engine as the operator takes them: in memory of PyTorch's, which is aligned to the 64 bytes that
    weights need to be used where they are."""
    source = np.frombuffer(engine, dtype=np.uint8)
    tensor = torch.empty(source.size, dtype=torch.uint8)
    tensor.numpy()[:] = source
    return tensor


# What lets go of an engine, by its holder and address.
_holds: dict[tuple[int, int], weakref.finalize] = {}


def hold(module: torch.nn.Module, engine: torch.Tensor) -> None:
    """Keeps what the operator loads from an engine for as long as a module that has it lives."""
    key = id(module), engine.data_ptr()
    if key not in _holds:
        _library.kiln_torch_hold_engine(key[1])
        _holds[key] = weakref.finalize(module, _let_go, key)
        _holds[key].atexit = False


def release(module: torch.nn.Module, engine: torch.Tensor) -> None:
    """Ends what `hold` began before the module does: the operator forgets the engine unless another module has it."""
    if finalizer := _holds.get((id(module), engine.data_ptr())):
        finalizer()


def _let_go(key: tuple[int, int]) -> None:
    del _holds[key]
    _library.kiln_torch_release_engine(key[1])


@functools.lru_cache(maxsize=1024)
def _parse_spec(spec: str) -> tuple[tuple[torch.dtype, Any, tuple[int, ...]], ...]:
    """Gives, per result, its dtype, the compiled tuple of its sizes and their order in memory."""
    results = []
    for entry in spec.split(";") if spec else ():
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] not in _DTYPES:
            raise ValueError(
                f"[execute_engine] spec has the entry {entry!r}, expected dtype[size,size,...] and an order such as "
                "{1,0} if it is not row-major"
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
        order = tuple(int(dim) for dim in (match[3] or "").split(",") if dim)
        if order and sorted(order) != list(range(len(tree.body.elts))):
            raise ValueError(
                f"[execute_engine] spec has the order {match[3]}, expected every dimension of [{match[2]}] once"
            )
        results.append((_DTYPES[match[1]], compile(tree, "<spec>", "eval"), order))
    return tuple(results)


def layouts_of(spec: str) -> str:
    """The orders in a spec alone, such as "{1,0};" for two results; "" if all of them are row-major."""
    orders = [entry[entry.find("]") + 1 :] for entry in spec.split(";")]
    return ";".join(orders) if any(orders) else ""


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
    return [
        _new_empty(engine, eval(code, names), dtype, order)
        for dtype, code, order in _parse_spec(spec)
    ]


def _new_empty(
    like: torch.Tensor, shape: tuple[Any, ...], dtype: torch.dtype, order: tuple[int, ...]
) -> torch.Tensor:
    if not order:
        return like.new_empty(shape, dtype=dtype)
    stored = like.new_empty([shape[dim] for dim in order], dtype=dtype).stride()
    strides = [stored[order.index(dim)] for dim in range(len(order))]
    return like.new_empty_strided(shape, strides, dtype=dtype)
