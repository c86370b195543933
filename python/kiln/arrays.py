"""Arrays as the C API sees them: NumPy arrays, anything that speaks DLPack on the CPU, or bare addresses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kiln import _library
from kiln.errors import InvalidArgumentError

# In the order of kiln_dtype.
DTYPES = ("f32", "f64", "f16", "bf16", "i8", "u8", "i16", "i32", "i64", "bool")
# NumPy has no bfloat16: its bits travel as uint16.
NUMPY_DTYPES = tuple(
    np.dtype(name)
    for name in (
        "float32",
        "float64",
        "float16",
        "uint16",
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
        "bool",
    )
)
_CODE_OF_NUMPY = {dtype: code for code, dtype in enumerate(NUMPY_DTYPES)}


@dataclass(frozen=True)
class TensorView:
    """Contiguous memory of someone else's. `owner` keeps it alive for as long as the view lives."""

    address: int
    dtype: str
    shape: tuple[int, ...]
    owner: Any = field(default=None, repr=False)

    def to_c(self) -> _library.Tensor:
        if self.dtype not in DTYPES:
            raise InvalidArgumentError(
                f"dtype is {self.dtype!r}, expected one of {', '.join(DTYPES)}"
            )
        return _c_tensor(self.address, DTYPES.index(self.dtype), self.shape, None)


def as_array(value: Any) -> np.ndarray:
    """A NumPy array over the same memory where possible: arrays and DLPack tensors are not copied, lists are."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise InvalidArgumentError(
                f"{type(value).__name__} cannot be read through DLPack: {error}"
            ) from error
    return np.asarray(value)


def view(array: np.ndarray) -> _library.Tensor:
    """The C view of an array; valid while the array lives."""
    code = _CODE_OF_NUMPY.get(array.dtype)
    if code is None:
        expected = ", ".join(str(dtype) for dtype in NUMPY_DTYPES)
        raise InvalidArgumentError(f"array has dtype {array.dtype}, expected one of {expected}")
    if array.ndim > _library.MAX_RANK:
        raise InvalidArgumentError(
            f"array has {array.ndim} dimensions, expected at most {_library.MAX_RANK}"
        )
    if any(stride % array.itemsize for stride in array.strides):
        raise InvalidArgumentError("array has strides that are not whole elements: copy it first")
    strides = (
        None if array.flags.c_contiguous else [stride // array.itemsize for stride in array.strides]
    )
    return _c_tensor(array.ctypes.data, code, array.shape, strides)


def _c_tensor(address: int, code: int, shape: Any, strides: Any) -> _library.Tensor:
    dims = ctypes.c_int64 * len(shape)
    return _library.Tensor(
        ctypes.sizeof(_library.Tensor),
        address,
        code,
        len(shape),
        dims(*shape),
        dims(*strides) if strides is not None else None,
    )
