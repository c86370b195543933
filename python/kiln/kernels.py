"""Kernels of the user's own: what computes operators that Kiln does not know."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kiln import _library, arrays
from kiln._library import check, runtime

Kernel = Callable[[Sequence[np.ndarray], Sequence[np.ndarray], dict[str, Any]], None]

# The process has kernels for good: by name, the function and what ctypes made of it.
_registered: dict[str, tuple[Kernel, Any]] = {}


def load_kernels(path: str | os.PathLike[str]) -> None:
    """Loads a shared library of kernels, which stays loaded: what its function `kiln_kernels` gives (kiln/kiln.h). That
    runs its code: load only what you would run as a program.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: it is no library, or has no such function; or another kernel has one of its names.
    """
    check(runtime().kiln_load_kernels(os.fsencode(path)))


def register_kernel(name: str, function: Kernel) -> None:
    """Gives this process a kernel for an operator, "mylib::scaled_sine", for good: models with the operator can be
    compiled, and engines with it run.

    Args:
        name: the operator's, with its overload if that is not the default one: "mylib::scaled_sine.out_variant".
        function: gets the arrays of the inputs, which are only read; those of the outputs, to be filled in place; and
            the arguments that are no tensors, by name. Arrays are as those of a session (`BFloat16Array` for bfloat16),
            and gone when it returns. An exception ends the run with its text. Many threads may call it at once, one
            after another as far as Python goes.

    Raises:
        InvalidArgumentError: it is no such name, or has another kernel already.
    """
    known = _registered.get(name)
    callback = known[1] if known and known[0] is function else _as_callback(function)
    check(runtime().kiln_register_kernel(name.encode(), callback, None))
    _registered[name] = (function, callback)


def has_kernel(name: str) -> bool:
    """Whether this process has a kernel of that name."""
    return bool(runtime().kiln_has_kernel(name.encode()))


def _as_callback(function: Kernel) -> Any:
    def call(_: Any, given: Any) -> int:
        try:
            content = given.contents
            inputs = [_array(tensor) for tensor in content.inputs[: content.num_inputs]]
            outputs = [_array(tensor) for tensor in content.outputs[: content.num_outputs]]
            for array in inputs:
                array.flags.writeable = False
            function(inputs, outputs, json.loads(content.arguments))
        except BaseException as error:  # nothing may leave through the library
            text = f"{type(error).__name__}: {error}".encode(errors="replace").replace(b"\0", b"?")
            given.contents.set_error(given, text)
            return 1
        return 0

    return _library.KernelFunction(call)


def _array(tensor: _library.Tensor) -> np.ndarray:
    shape = tuple(tensor.shape[: tensor.rank])
    array = arrays.empty((0,), arrays.DTYPES[tensor.dtype])
    if 0 in shape or not tensor.data:
        return arrays.empty(shape, arrays.DTYPES[tensor.dtype])
    size = int(np.prod(shape, dtype=np.int64)) * array.itemsize
    memory = (ctypes.c_ubyte * size).from_address(tensor.data)
    return np.frombuffer(memory, array.dtype).reshape(shape).view(type(array))
