"""Finds Kiln's shared libraries and declares the C API (include/kiln/kiln.h) for ctypes."""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import weakref
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from kiln.cuda import tell_library_folders
from kiln.errors import BY_STATUS, InternalError

MAX_RANK = 16


class Device(ctypes.Structure):
    _fields_ = [("type", c_int32), ("index", c_int32)]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("dtype", c_int),
        ("rank", c_int32),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("device", Device),
    ]


class LoadOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("target", c_char_p),
        ("verify_weights", c_int),
        ("describe_only", c_int),
    ]


class Dim(ctypes.Structure):
    _fields_ = [("min", c_int64), ("opt", c_int64), ("max", c_int64)]


class TensorInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("dtype", c_int),
        ("rank", c_int32),
        ("dims", POINTER(Dim)),
    ]


class SessionOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("num_threads", c_int32),
        ("device", c_int32),
        ("allocator", c_void_p),
        ("weight_budget", POINTER(c_uint64)),
    ]


class Output(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("index", c_size_t),
        ("shape", POINTER(c_int64)),
        ("bytes", c_size_t),
        ("device", Device),
        ("dtype", c_int),
        ("rank", c_int32),
    ]


AllocateFunction = ctypes.CFUNCTYPE(c_void_p, c_void_p, POINTER(Output))


class RunOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("stream", c_void_p),
        ("cancel", POINTER(c_int32)),
        ("allocate_output", AllocateFunction),
        ("output_user", c_void_p),
    ]


class DimRange(ctypes.Structure):
    _fields_ = [
        ("input", c_char_p),
        ("dim", c_int32),
        ("min", c_int64),
        ("opt", c_int64),
        ("max", c_int64),
    ]


ProgressFunction = ctypes.CFUNCTYPE(None, c_void_p, c_char_p, c_double)
WarningFunction = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)


class Samples(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("num_sets", c_size_t),
        ("num_inputs", c_size_t),
        ("tensors", POINTER(Tensor)),
        ("names", POINTER(c_char_p)),
    ]


class CompileOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("ranges", POINTER(DimRange)),
        ("num_ranges", c_size_t),
        ("targets", c_char_p),
        ("disabled_passes", c_char_p),
        ("metadata", c_char_p),
        ("strip_weights", c_int),
        ("refittable", c_int),
        ("emulate_precision_casts", c_int),
        ("no_bounds_checks", c_int),
        ("num_threads", c_int32),
        ("verify_passes", c_int),
        ("dump_directory", c_char_p),
        ("progress", ProgressFunction),
        ("progress_user", c_void_p),
        ("warning", WarningFunction),
        ("warning_user", c_void_p),
        ("cache_directory", c_char_p),
        ("cache_mode", c_int32),
        ("cache_bytes", c_uint64),
        ("cache_result", POINTER(c_int32)),
        ("tf32", c_int32),
        ("tuning_candidates", c_int32),
        ("timing_cache", c_char_p),
        ("quantize", c_char_p),
        ("group_size", c_int64),
        ("quantize_exclude", c_char_p),
        ("calibration_method", c_char_p),
        ("calibration", POINTER(Samples)),
    ]


class KernelCall(ctypes.Structure):
    pass


KernelErrorFunction = ctypes.CFUNCTYPE(None, POINTER(KernelCall), c_char_p)
KernelCall._fields_ = [
    ("struct_size", c_size_t),
    ("inputs", POINTER(Tensor)),
    ("num_inputs", c_size_t),
    ("outputs", POINTER(Tensor)),
    ("num_outputs", c_size_t),
    ("arguments", c_char_p),
    ("set_error", KernelErrorFunction),
    ("run", c_void_p),
]
KernelFunction = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(KernelCall))

_Shapes = POINTER(c_int64 * MAX_RANK)

# name: (result, arguments); a result of c_int is a kiln_status.
_RUNTIME = {
    "kiln_version": (c_char_p, []),
    "kiln_last_error": (c_char_p, []),
    "kiln_engine_load_file": (c_int, [c_char_p, POINTER(LoadOptions), POINTER(c_void_p)]),
    "kiln_engine_load_memory": (
        c_int,
        [c_void_p, c_size_t, POINTER(LoadOptions), POINTER(c_void_p)],
    ),
    "kiln_engine_destroy": (None, [c_void_p]),
    "kiln_engine_num_inputs": (c_size_t, [c_void_p]),
    "kiln_engine_num_outputs": (c_size_t, [c_void_p]),
    "kiln_engine_input": (c_int, [c_void_p, c_size_t, POINTER(TensorInfo)]),
    "kiln_engine_output": (c_int, [c_void_p, c_size_t, POINTER(TensorInfo)]),
    "kiln_engine_target": (c_char_p, [c_void_p]),
    "kiln_engine_variant": (c_char_p, [c_void_p]),
    "kiln_engine_streamable_bytes": (c_uint64, [c_void_p]),
    "kiln_engine_updated_input": (c_int64, [c_void_p, c_size_t]),
    "kiln_engine_num_data_sizes": (c_size_t, [c_void_p]),
    "kiln_engine_describe": (c_int, [c_void_p, POINTER(c_void_p)]),
    "kiln_engine_verify": (c_int, [c_void_p, c_size_t, POINTER(c_void_p)]),
    "kiln_session_create": (c_int, [c_void_p, POINTER(SessionOptions), POINTER(c_void_p)]),
    "kiln_session_destroy": (None, [c_void_p]),
    "kiln_session_output_shapes": (c_int, [c_void_p, POINTER(Tensor), c_size_t, _Shapes, c_size_t]),
    "kiln_session_result_shapes": (c_int, [c_void_p, _Shapes, c_size_t]),
    "kiln_session_device": (Device, [c_void_p]),
    "kiln_session_num_threads": (c_int32, [c_void_p]),
    "kiln_session_run": (
        c_int,
        [c_void_p, POINTER(Tensor), c_size_t, POINTER(Tensor), c_size_t, POINTER(RunOptions)],
    ),
    "kiln_session_synchronize": (c_int, [c_void_p]),
    "kiln_session_enable_profiling": (c_int, [c_void_p, c_int]),
    "kiln_session_profile": (c_int, [c_void_p, POINTER(c_void_p)]),
    "kiln_register_kernel": (c_int, [c_char_p, KernelFunction, c_void_p]),
    "kiln_has_kernel": (c_int, [c_char_p]),
    "kiln_load_kernels": (c_int, [c_char_p]),
    "kiln_bytes_data": (c_void_p, [c_void_p]),
    "kiln_bytes_size": (c_size_t, [c_void_p]),
    "kiln_bytes_destroy": (None, [c_void_p]),
}
_COMPILER = {
    "kiln_model_open_file": (c_int, [c_char_p, POINTER(c_void_p)]),
    "kiln_model_open_memory": (
        c_int,
        [c_char_p, c_size_t, POINTER(c_char_p), POINTER(Tensor), c_size_t, POINTER(c_void_p)],
    ),
    "kiln_model_destroy": (None, [c_void_p]),
    "kiln_model_check": (c_int, [c_void_p, POINTER(c_void_p)]),
    "kiln_compile": (c_int, [c_void_p, POINTER(CompileOptions), POINTER(c_void_p)]),
    "kiln_compile_to_file": (c_int, [c_void_p, POINTER(CompileOptions), c_char_p]),
    "kiln_accuracy": (
        c_int,
        [
            c_void_p,
            POINTER(CompileOptions),
            c_void_p,
            c_size_t,
            POINTER(Samples),
            c_int,
            POINTER(c_void_p),
        ],
    ),
    "kiln_compile_key": (c_int, [c_void_p, POINTER(CompileOptions), POINTER(c_void_p)]),
    "kiln_cache_load": (c_int, [c_char_p, c_char_p, POINTER(c_void_p)]),
    "kiln_cache_store": (c_int, [c_char_p, c_uint64, c_char_p, c_void_p, c_size_t]),
    "kiln_refit": (
        c_int,
        [c_void_p, c_size_t, c_void_p, POINTER(CompileOptions), POINTER(c_void_p)],
    ),
    "kiln_supported_ops": (c_int, [POINTER(c_void_p)]),
    "kiln_passes": (c_int, [POINTER(c_void_p)]),
    "kiln_verify_file": (c_int, [c_char_p, POINTER(c_void_p)]),
    "kiln_private_end_compiles": (None, []),
}


def library_directory() -> Path:
    """The folder of the shared libraries: $KILN_LIBRARY_DIR, or the one inside this package."""
    override = os.environ.get("KILN_LIBRARY_DIR")
    return Path(override) if override else Path(__file__).parent / "lib"


def _open(names: Sequence[str], functions: dict[str, tuple[Any, list[Any]]]) -> ctypes.CDLL:
    paths = [library_directory() / name for name in names]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ImportError(
            f"{paths[0]} does not exist: install the wheel, or set KILN_LIBRARY_DIR to the lib "
            "folder of a build of Kiln"
        )
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in functions.items():
        function = getattr(library, name, None)
        if function is None:
            raise ImportError(
                f"{path} is of another version than the Python package: it lacks {name}; build Kiln again "
                "(make build), or install the wheel again"
            )
        function.restype = result
        function.argtypes = arguments
    return library


@functools.cache
def runtime() -> ctypes.CDLL:
    """libkiln_runtime: loads and runs engines."""
    return _open(("libkiln_runtime.so.0", "libkiln_runtime.so"), _RUNTIME)


@functools.cache
def compiler() -> ctypes.CDLL:
    """libkiln: compiles. Opened on first use, since running engines does not need it."""
    runtime()
    tell_library_folders()
    library = _open(("libkiln.so",), _COMPILER)
    # Daemon threads may compile while the interpreter ends: the library must not be undone under them.
    atexit.register(library.kiln_private_end_compiles)
    return library


def check(status: int) -> None:
    """Raises the exception that belongs to a status, with the library's text."""
    if status == 0:
        return
    text = runtime().kiln_last_error().decode(errors="replace")
    error = BY_STATUS[status] if status < len(BY_STATUS) else InternalError
    raise error(text or f"status {status} without a text")


def destroy_with(owner: Any, destroy: Callable[[c_void_p], None], handle: c_void_p) -> None:
    """Frees what belongs to a Python object when that goes away; never because the interpreter ends: daemon threads may
    be using it then, and the system takes it back anyway."""
    weakref.finalize(owner, destroy, handle).atexit = False


def take_bytes(handle: c_void_p) -> memoryview:
    """A read-only view of a kiln_bytes, which is freed with the last reference to the view."""
    library = runtime()
    address, size = library.kiln_bytes_data(handle), library.kiln_bytes_size(handle)
    array = (ctypes.c_ubyte * size).from_address(address) if size else (ctypes.c_ubyte * 0)()
    destroy_with(array, library.kiln_bytes_destroy, handle)
    return memoryview(array).cast("B").toreadonly()


def take_json(handle: c_void_p) -> Any:
    return json.loads(take_bytes(handle).tobytes())
