"""Arrays as the C API sees them: NumPy arrays, anything that speaks DLPack, or bare addresses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from kiln import _library, dlpack
from kiln.errors import InvalidArgumentError

# In the order of kiln_dtype.
DTYPES = ("f32", "f64", "f16", "bf16", "i8", "u8", "i16", "i32", "i64", "bool", "f8e4m3")
# NumPy has neither bfloat16 nor float8: their bits travel as uint16 and uint8.
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
        "uint8",
    )
)
# Plain integers of 8 bits are u8; a Float8Array, or one of ml_dtypes, is f8e4m3.
_CODE_OF_NUMPY = {dtype: code for code, dtype in reversed(list(enumerate(NUMPY_DTYPES)))}


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


class _BitsArray(np.ndarray):
    """The bits of numbers of a dtype that NumPy lacks, as integers. DLPack says what they are, so that
    `torch.from_dlpack` gives a tensor of them. What is computed with them is a plain array of integers."""

    bits_dtype: ClassVar[np.dtype]
    dlpack_code: ClassVar[int]

    def __dlpack__(self, **options: Any) -> Any:
        capsule = super().__dlpack__(**options)
        return dlpack.mark(capsule, self.dlpack_code) if self.dtype == self.bits_dtype else capsule

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            options["out"] = tuple(_plain(array) for array in options["out"])
        return getattr(ufunc, method)(*map(_plain, inputs), **options)


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, _BitsArray) else value


class BFloat16Array(_BitsArray):
    """The bits of bfloat16 numbers, as uint16."""

    bits_dtype = np.dtype("uint16")
    dlpack_code = dlpack.BFLOAT


class Float8Array(_BitsArray):
    """The codes of float8_e4m3fn numbers, as uint8."""

    bits_dtype = np.dtype("uint8")
    dlpack_code = dlpack.FLOAT8_E4M3FN


_BITS_ARRAYS = {"bf16": BFloat16Array, "f8e4m3": Float8Array}


def empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A new array for a dtype of DTYPES."""
    array = np.empty(shape, NUMPY_DTYPES[DTYPES.index(dtype)])
    return array.view(_BITS_ARRAYS[dtype]) if dtype in _BITS_ARRAYS else array


def borrow(value: Any, stream: int | None = None) -> dlpack.Borrowed:
    """A tensor where it lies: an array of NumPy's, or whatever has `__dlpack__`. Lists become arrays.

    Raises:
        InvalidArgumentError: what has no dtype of ours, or cannot be taken without a copy.
    """
    if not isinstance(value, np.ndarray):
        if hasattr(value, "__dlpack__"):
            return dlpack.borrow(value, stream)
        value = np.asarray(value)
    return dlpack.Borrowed(view(value), value, not value.flags.writeable)


def view(array: np.ndarray) -> _library.Tensor:
    """The C view of an array; valid while the array lives."""
    is_float8 = isinstance(array, Float8Array) and array.dtype == Float8Array.bits_dtype
    if is_float8 or array.dtype.name == "float8_e4m3fn":
        code: int | None = DTYPES.index("f8e4m3")
    else:
        code = _CODE_OF_NUMPY.get(array.dtype)
    if code is None:
        expected = ", ".join(str(dtype) for dtype in NUMPY_DTYPES[:-1])
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


def is_contiguous(tensor: _library.Tensor) -> bool:
    """Row-major without gaps; strides of dimensions of one element do not matter."""
    shape = tensor.shape[: tensor.rank]
    if not tensor.strides or 0 in shape:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(tensor.strides[: tensor.rank]), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


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


def as_view(value: Any, what: str) -> TensorView:
    """A view of a contiguous array in the CPU's memory, of a copy where NumPy's is strided. `what` is for the error."""
    if isinstance(value, TensorView):
        return value
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        value = value.copy()
    borrowed = borrow(value)
    tensor = borrowed.tensor
    if tensor.device.type != 0:
        raise InvalidArgumentError(f"{what} lies on a GPU, expected one in the CPU's memory")
    if not is_contiguous(tensor):
        raise InvalidArgumentError(f"{what} is not contiguous: pass a contiguous copy")
    shape = tuple(tensor.shape[: tensor.rank])
    return TensorView(tensor.data or 0, DTYPES[tensor.dtype], shape, borrowed.owner)
