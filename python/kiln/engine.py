"""Engines and sessions: load an engine file, look at it, run it on NumPy arrays."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiln import _library, arrays
from kiln._library import check, runtime
from kiln.errors import InvalidArgumentError


@dataclass(frozen=True)
class DimRange:
    """The sizes that one dimension may have; min == opt == max when it is fixed."""

    min: int
    opt: int
    max: int

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}..{self.max}"


@dataclass(frozen=True)
class TensorInfo:
    """What an engine takes or gives: `dtype` is a name such as "f32" or "i64"."""

    name: str
    dtype: str
    dims: tuple[DimRange, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.dims))}]"


class Engine:
    """A compiled model. Immutable: share it between threads, and give each its own `Session`.

    Args:
        source: path of an engine file, which is mapped and not copied, or the bytes of one (anything with the buffer
            protocol; kept alive, and not to be changed).
        cpu_variant: force a code variant ("x86-64-v3", "x86-64-v4"); None takes the best that this CPU can run.
        verify_weights: check the hash of the weights too, which reads all of them.
        describe_only: load no code: the engine can be described, on any machine, and not run.

    Raises:
        InvalidEngineError: not an engine, or a damaged one. NotFoundError: no such file.
        UnsupportedError: this CPU cannot run it.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | memoryview,
        *,
        cpu_variant: str | None = None,
        verify_weights: bool = False,
        describe_only: bool = False,
    ) -> None:
        variant = cpu_variant.encode() if cpu_variant else None
        options = _library.LoadOptions(
            ctypes.sizeof(_library.LoadOptions),
            variant,
            int(verify_weights),
            int(describe_only),
        )
        handle = ctypes.c_void_p()
        if isinstance(source, (str, os.PathLike)):
            check(
                runtime().kiln_engine_load_file(
                    os.fsencode(source), ctypes.byref(options), ctypes.byref(handle)
                )
            )
        else:
            self._bytes = np.frombuffer(source, dtype=np.uint8)
            address, size = self._bytes.ctypes.data, self._bytes.size
            check(
                runtime().kiln_engine_load_memory(
                    address, size, ctypes.byref(options), ctypes.byref(handle)
                )
            )
        self._handle = handle
        # Sessions hold a reference inside the library, so the order of finalisation does not matter.
        _library.destroy_with(self, runtime().kiln_engine_destroy, handle)
        self.inputs = _describe_tensors(
            handle, runtime().kiln_engine_num_inputs, runtime().kiln_engine_input
        )
        self.outputs = _describe_tensors(
            handle, runtime().kiln_engine_num_outputs, runtime().kiln_engine_output
        )

    @property
    def cpu_variant(self) -> str:
        """The code variant in use; empty for an engine that was loaded to be described."""
        return runtime().kiln_engine_cpu_variant(self._handle).decode()

    def describe(self) -> dict[str, Any]:
        """Inputs, ranges, kernels, memory, programs and hashes."""
        handle = ctypes.c_void_p()
        check(runtime().kiln_engine_describe(self._handle, ctypes.byref(handle)))
        return _library.take_json(handle)

    def session(self, num_threads: int = 0) -> Session:
        """A session that runs on `num_threads` threads, the calling one included; 0 means one per core."""
        return Session(self, num_threads)

    def __repr__(self) -> str:
        inputs, outputs = ("; ".join(map(str, infos)) for infos in (self.inputs, self.outputs))
        return f"Engine({inputs} -> {outputs})"


class Session:
    """One caller's workspace for an engine. Use a session from one thread at a time."""

    def __init__(self, engine: Engine, num_threads: int = 0) -> None:
        if num_threads < 0:
            raise InvalidArgumentError(
                f"num_threads is {num_threads}, expected 0 (one per core) or more"
            )
        options = _library.SessionOptions(ctypes.sizeof(_library.SessionOptions), num_threads)
        handle = ctypes.c_void_p()
        check(
            runtime().kiln_session_create(
                engine._handle, ctypes.byref(options), ctypes.byref(handle)
            )
        )
        self.engine = engine
        self._handle = handle
        _library.destroy_with(self, runtime().kiln_session_destroy, handle)

    def output_shapes(self, *inputs: Any) -> list[tuple[int, ...]]:
        """The shapes that the outputs would have for these inputs, which are checked."""
        return self._output_shapes(
            _c_array([arrays.view(arrays.as_array(value)) for value in inputs])
        )

    def run(self, *inputs: Any, out: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Runs the engine.

        Args:
            inputs: one array per input of the engine, in its order and dtypes; NumPy arrays and DLPack tensors are
                read in place. bfloat16 inputs are given as uint16 bits.
            out: contiguous arrays to write the outputs to, of their dtypes and shapes; allocated when None.

        Returns:
            One array per output of the engine: `out` if given.

        Raises:
            InvalidArgumentError: a wrong number of inputs, dtype or rank.
            OutOfRangeError: a dimension that the engine was not compiled for.
        """
        sources = [self._as_input(index, value) for index, value in enumerate(inputs)]
        views = _c_array([_view_as(source, info) for source, info in sources])
        if out is None:
            shapes = self._output_shapes(views)
            out = [
                np.empty(shape, _numpy_dtype(info))
                for shape, info in zip(shapes, self.engine.outputs, strict=True)
            ]
        elif len(out) != len(self.engine.outputs):
            raise InvalidArgumentError(
                f"out has {len(out)} arrays, expected {len(self.engine.outputs)}"
            )
        targets = [
            _view_as(target, info) for target, info in zip(out, self.engine.outputs, strict=True)
        ]
        for target, info in zip(out, self.engine.outputs, strict=True):
            if not (target.flags.c_contiguous and target.flags.writeable):
                raise InvalidArgumentError(
                    f"output {info.name!r}: the array is not contiguous and writeable"
                )
        check(
            runtime().kiln_session_run(
                self._handle, views, len(views), _c_array(targets), len(targets), None
            )
        )
        return list(out)

    def enable_profiling(self, enable: bool = True) -> None:
        """Times every kernel of the following runs."""
        check(runtime().kiln_session_enable_profiling(self._handle, int(enable)))

    def profile(self) -> Any:
        """The times of the kernels of the last run."""
        handle = ctypes.c_void_p()
        check(runtime().kiln_session_profile(self._handle, ctypes.byref(handle)))
        return _library.take_json(handle)

    def _as_input(self, index: int, value: Any) -> tuple[np.ndarray, TensorInfo | None]:
        info = self.engine.inputs[index] if index < len(self.engine.inputs) else None
        return arrays.as_array(value), info

    def _output_shapes(self, views: ctypes.Array[_library.Tensor]) -> list[tuple[int, ...]]:
        outputs = self.engine.outputs
        shapes = ((ctypes.c_int64 * _library.MAX_RANK) * len(outputs))()
        check(
            runtime().kiln_session_output_shapes(
                self._handle, views, len(views), shapes, len(outputs)
            )
        )
        return [tuple(shape[: len(info.dims)]) for shape, info in zip(shapes, outputs, strict=True)]


def load(source: str | os.PathLike[str] | bytes | memoryview, **options: Any) -> Engine:
    """Loads an engine; see `Engine` for the options."""
    return Engine(source, **options)


def inspect(source: str | os.PathLike[str] | bytes | memoryview) -> dict[str, Any]:
    """Describes an engine file on any machine, whether or not it runs there: see `Engine.describe`."""
    return Engine(source, describe_only=True).describe()


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file: somewhere in the `size` bytes at `offset`, which are called `where`."""

    where: str
    offset: int
    size: int
    what: str


def verify(source: str | os.PathLike[str] | bytes | memoryview) -> list[Damage]:
    """Looks at every byte of an engine, weights included.

    Args:
        source: the path of an engine file or of a saved model (.ep, .ts, .pt2) with engines in it, or the bytes of an
            engine.

    Returns:
        What is damaged, and where; nothing for a sound file.

    Raises:
        NotFoundError, FileError: the file cannot be read.
    """
    handle = ctypes.c_void_p()
    if isinstance(source, (str, os.PathLike)):
        verify_file = _library.compiler().kiln_verify_file
        check(verify_file(os.fsencode(source), ctypes.byref(handle)))
    else:
        data = np.frombuffer(source, dtype=np.uint8)
        check(runtime().kiln_engine_verify(data.ctypes.data, data.size, ctypes.byref(handle)))
    return [Damage(**problem) for problem in _library.take_json(handle)["problems"]]


def _describe_tensors(handle: ctypes.c_void_p, count: Any, get: Any) -> tuple[TensorInfo, ...]:
    infos = []
    for index in range(count(handle)):
        info = _library.TensorInfo()
        check(get(handle, index, ctypes.byref(info)))
        dims = tuple(DimRange(dim.min, dim.opt, dim.max) for dim in info.dims[: info.rank])
        infos.append(TensorInfo(info.name.decode(), arrays.DTYPES[info.dtype], dims))
    return tuple(infos)


def _numpy_dtype(info: TensorInfo) -> np.dtype:
    return arrays.NUMPY_DTYPES[arrays.DTYPES.index(info.dtype)]


def _view_as(array: np.ndarray, info: TensorInfo | None) -> _library.Tensor:
    result = arrays.view(array)
    if info is not None and info.dtype == "bf16" and array.dtype == np.uint16:
        result.dtype = arrays.DTYPES.index("bf16")
    return result


def _c_array(views: list[_library.Tensor]) -> ctypes.Array[_library.Tensor]:
    return (_library.Tensor * len(views))(*views)
