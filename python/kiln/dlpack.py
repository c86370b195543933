"""Tensors that are handed over through DLPack, as the C API sees them.

The capsules are read here and not by NumPy, which knows no bfloat16 and no float8, no memory of GPUs, and takes nothing
that it may only read.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

from kiln import _library
from kiln.errors import InvalidArgumentError

# Of kiln_device_type; the numbers are DLPack's: memory of the CPU, of a GPU, pinned, managed.
_DEVICES = {1: 0, 2: 1, 3: 0, 13: 1}
_CUDA = 1
# Type code and bits to the place in arrays.DTYPES. The bits of bfloat16 may come as uint16, as from NumPy.
_INT, _UINT, _FLOAT, BFLOAT, _BOOL, FLOAT8_E4M3FN = 0, 1, 2, 4, 6, 10
_DTYPES = {
    (_FLOAT, 32): 0,
    (_FLOAT, 64): 1,
    (_FLOAT, 16): 2,
    (BFLOAT, 16): 3,
    (_UINT, 16): 3,
    (_INT, 8): 4,
    (_UINT, 8): 5,
    (_INT, 16): 6,
    (_INT, 32): 7,
    (_INT, 64): 8,
    (_BOOL, 8): 9,
    (FLOAT8_E4M3FN, 8): 10,
}
_VERSION = (1, 0)
_READ_ONLY, _IS_COPIED = 1, 2
_DEFAULT_STREAM = 1  # the protocol's number of CUDA's default stream


class _DataType(ctypes.Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("dtype", _DataType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _Managed(ctypes.Structure):
    """DLManagedTensor: what there was before versions."""

    _fields_ = [("tensor", _Tensor), ("manager_ctx", c_void_p), ("deleter", c_void_p)]


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("manager_ctx", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", _Tensor),
    ]


_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype = ctypes.c_char_p
_capsule_name.argtypes = [ctypes.py_object]
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


@dataclass(frozen=True)
class Borrowed:
    """A tensor of somebody else's; its memory is there for as long as `owner` is."""

    tensor: _library.Tensor
    owner: Any
    read_only: bool = False


def _managed(capsule: Any) -> tuple[_Tensor, int]:
    """The tensor in a capsule that nobody has taken yet, and its flags."""
    name = _capsule_name(capsule)
    if name == b"dltensor":
        return ctypes.cast(_capsule_pointer(capsule, name), POINTER(_Managed)).contents.tensor, 0
    if name != b"dltensor_versioned":
        raise InvalidArgumentError(f"got a capsule {name!r}, expected one of DLPack")
    versioned = ctypes.cast(_capsule_pointer(capsule, name), POINTER(_Versioned)).contents
    if versioned.major != _VERSION[0]:
        raise InvalidArgumentError(
            f"got a tensor of DLPack {versioned.major}.{versioned.minor}, expected {_VERSION[0]}.*"
        )
    return versioned.tensor, versioned.flags


def _export(value: Any, **stream: Any) -> Any:
    """A capsule without a copy; a tensor that would have to be copied is a BufferError of its own."""
    try:
        return value.__dlpack__(max_version=_VERSION, copy=False, **stream)
    except TypeError:  # from before DLPack 1.0
        return value.__dlpack__(**stream)


def borrow(value: Any, stream: int | None = None) -> Borrowed:
    """The tensor behind an object with `__dlpack__`, where it lies: nothing is copied.

    Args:
        stream: where a tensor of a GPU will be used, as the address of a cudaStream_t; None for the default stream.

    Raises:
        InvalidArgumentError: another device than a CPU or an NVIDIA GPU, a dtype that Kiln lacks, or what the object
            itself does not export, such as a tensor that requires a gradient.
    """
    kind = type(value).__name__
    try:
        device_type = int(value.__dlpack_device__()[0])
        if device_type not in _DEVICES:
            raise InvalidArgumentError(
                f"{kind} lies on a device that Kiln does not know (DLPack's type {device_type})"
            )
        on_gpu = _DEVICES[device_type] == _CUDA
        capsule = _export(value, **({"stream": stream or _DEFAULT_STREAM} if on_gpu else {}))
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise InvalidArgumentError(f"{kind} cannot be read through DLPack: {error}") from error
    tensor, flags = _managed(capsule)
    return Borrowed(_to_c(tensor, kind), capsule, bool(flags & (_READ_ONLY | _IS_COPIED)))


def _to_c(tensor: _Tensor, kind: str) -> _library.Tensor:
    dtype = _DTYPES.get((tensor.dtype.code, tensor.dtype.bits))
    if dtype is None or tensor.dtype.lanes != 1:
        raise InvalidArgumentError(
            f"{kind} has a dtype that Kiln lacks (DLPack's code {tensor.dtype.code} of {tensor.dtype.bits} bits)"
        )
    if tensor.ndim > _library.MAX_RANK:
        raise InvalidArgumentError(
            f"{kind} has {tensor.ndim} dimensions, expected at most {_library.MAX_RANK}"
        )
    return _library.Tensor(
        ctypes.sizeof(_library.Tensor),
        (tensor.data or 0) + tensor.byte_offset,
        dtype,
        tensor.ndim,
        tensor.shape,
        tensor.strides,
        _library.Device(_DEVICES[tensor.device_type], tensor.device_id),
    )


def mark(capsule: Any, code: int) -> Any:
    """The same capsule of integers, which says now that they are the bits of numbers of another type code."""
    _managed(capsule)[0].dtype.code = code
    return capsule
