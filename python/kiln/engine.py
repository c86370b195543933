"""Engines and sessions: load an engine file, look at it, run it on NumPy arrays and on tensors of others."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiln import _library, arrays, dlpack
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

    `inputs` and `outputs` describe its tensors. `updates` has, by the position of an output, that of the input that it
    updates: what a model changes is an input, and an output that is what it is to be next.

    Args:
        source: path of an engine file, which is mapped and not copied, or the bytes of one (anything with the buffer
            protocol; kept alive, and not to be changed).
        target: the program to run, "cpu", "cuda" or "cpu:x86-64-v3"; None takes the first that this machine runs.
        verify_weights: check the hash of the weights too, which reads all of them.
        describe_only: load no code: the engine can be described, on any machine, and not run.

    Raises:
        InvalidEngineError: not an engine, or a damaged one. NotFoundError: no such file.
        UnsupportedError: this machine runs none of its programs. InvalidArgumentError: it has none of that name.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | memoryview,
        *,
        target: str | None = None,
        verify_weights: bool = False,
        describe_only: bool = False,
    ) -> None:
        options = _library.LoadOptions(
            ctypes.sizeof(_library.LoadOptions),
            target.encode() if target is not None else None,
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
        updated = (runtime().kiln_engine_updated_input(handle, i) for i in range(len(self.outputs)))
        self.updates = {output: source for output, source in enumerate(updated) if source >= 0}
        # How many sizes a run finds in its data, on which shapes of outputs may depend.
        self.num_data_sizes: int = runtime().kiln_engine_num_data_sizes(handle)

    @property
    def target(self) -> str:
        """What the loaded program is for: "cpu"; empty for an engine that was loaded to be described."""
        return runtime().kiln_engine_target(self._handle).decode()

    @property
    def variant(self) -> str:
        """Which of its kind: "x86-64-v4"; empty likewise."""
        return runtime().kiln_engine_variant(self._handle).decode()

    def describe(self) -> dict[str, Any]:
        """Inputs, ranges, kernels, memory, programs and hashes."""
        handle = ctypes.c_void_p()
        check(runtime().kiln_engine_describe(self._handle, ctypes.byref(handle)))
        return _library.take_json(handle)

    @property
    def streamable_bytes(self) -> int:
        """Bytes of weights that the `weight_budget` of a session is about; 0 on a CPU."""
        return runtime().kiln_engine_streamable_bytes(self._handle)

    def session(
        self, num_threads: int = 0, *, device: int = 0, weight_budget: int | None = None
    ) -> Session:
        """A session.

        Args:
            num_threads: that it runs on, the calling one included; 0 means one per CPU that the process may use.
            device: which of those that the engine's program can run on.
            weight_budget: bytes of a GPU's memory that weights may take, as far as they can be streamed to it
                (`streamable_bytes`); the others are copied there in every run. None: no limit.
        """
        return Session(self, num_threads, device=device, weight_budget=weight_budget)

    def __repr__(self) -> str:
        inputs, outputs = ("; ".join(map(str, infos)) for infos in (self.inputs, self.outputs))
        return f"Engine({inputs} -> {outputs})"


class CancelFlag:
    """Ends runs before they are done: any thread may set it, and one flag may be given to many runs."""

    def __init__(self) -> None:
        self._value = ctypes.c_int32(0)

    def set(self) -> None:
        """Runs that have the flag end with a CancelledError, and so do those that begin."""
        self._value.value = 1

    def clear(self) -> None:
        self._value.value = 0

    def is_set(self) -> bool:
        return self._value.value != 0


# Makes the array or tensor for an output of a shape.
MakeOutput = Callable[[TensorInfo, tuple[int, ...]], Any]


class Session:
    """One caller's workspace for an engine. Use a session from one thread at a time."""

    def __init__(
        self,
        engine: Engine,
        num_threads: int = 0,
        *,
        device: int = 0,
        weight_budget: int | None = None,
    ) -> None:
        if num_threads < 0:
            raise InvalidArgumentError(
                f"num_threads is {num_threads}, expected 0 (one per core) or more"
            )
        options = _library.SessionOptions(
            ctypes.sizeof(_library.SessionOptions), num_threads, device
        )
        if weight_budget is not None:
            if weight_budget < 0:
                raise InvalidArgumentError(f"weight_budget is {weight_budget}, expected 0 or more")
            budget = ctypes.c_uint64(min(weight_budget, 2**64 - 1))
            options.weight_budget = ctypes.pointer(budget)
        handle = ctypes.c_void_p()
        check(
            runtime().kiln_session_create(
                engine._handle, ctypes.byref(options), ctypes.byref(handle)
            )
        )
        self.engine = engine
        self._handle = handle
        _library.destroy_with(self, runtime().kiln_session_destroy, handle)

    @property
    def device(self) -> str:
        """Where inputs and outputs lie: "cpu" or "cuda:0"."""
        device = runtime().kiln_session_device(self._handle)
        return "cpu" if device.type == 0 else f"cuda:{device.index}"

    @property
    def num_threads(self) -> int:
        """How many threads a run may use on CPUs: as many as were asked for, or as there are CPUs for this process."""
        return runtime().kiln_session_num_threads(self._handle)

    def output_shapes(self, *inputs: Any) -> list[tuple[int, ...]]:
        """The shapes that the outputs would have for these inputs, which are checked; of one whose shape depends on the
        data the largest."""
        borrowed = [arrays.borrow(value) for value in inputs]
        return self._output_shapes(_c_array([each.tensor for each in borrowed]))

    def result_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the outputs of the last run, which succeeded."""
        return self._shapes(runtime().kiln_session_result_shapes, self._handle)

    def run(
        self,
        *inputs: Any,
        out: Sequence[Any] | MakeOutput | None = None,
        stream: int | None = None,
        cancel: CancelFlag | None = None,
        in_place: bool = False,
    ) -> list[Any]:
        """Runs the engine.

        Args:
            inputs: one array per input of the engine, in its order and dtypes. NumPy arrays and tensors of other
                libraries (whatever has `__dlpack__`) are read where they lie. NumPy has no bfloat16: its arrays give
                the bits as uint16.
            out: arrays or tensors to write the outputs to, contiguous and of their dtypes and shapes; or a function
                that makes one for the info and the shape of an output. None makes NumPy arrays; those of bfloat16
                hold the bits, and say so to others through DLPack. On a GPU there is no None. An array for an output
                whose shape depends on the data has the largest (`output_shapes`); the elements are its first ones,
                and `result_shapes` has their shape.
            stream: where the work is queued, on a GPU: the address of a cudaStream_t. Inputs and outputs stay there
                until it is done.
            cancel: ends the run when it is set.
            in_place: outputs that update inputs (`Engine.updates`) are written to these, which are contiguous, and
                `out` has none for them. Otherwise they are as other outputs, and the inputs stay as they are.

        Returns:
            One array per output of the engine: those of `out` if given, and inputs that were updated in place.

        Raises:
            InvalidArgumentError: a wrong number of inputs, dtype, rank or device; an output that may only be read.
            OutOfRangeError: a dimension that the engine was not compiled for.
            CancelledError: `cancel` was set. The outputs are unspecified.
        """
        sources = [arrays.borrow(value, stream) for value in inputs]
        views = _c_array([source.tensor for source in sources])
        updates = self.engine.updates if in_place else {}
        options = _library.RunOptions(ctypes.sizeof(_library.RunOptions), stream)
        if cancel is not None:
            options.cancel = ctypes.pointer(cancel._value)
        if self.engine.num_data_sizes and (out is None or callable(out)):
            return self._run_and_allocate(views, options, self._maker(out), inputs, updates)
        results = self._results(views, out, inputs, updates)
        targets = [arrays.borrow(result, stream) for result in results]
        self._check_outputs(targets)
        check(
            runtime().kiln_session_run(
                self._handle,
                views,
                len(views),
                _c_array([target.tensor for target in targets]),
                len(targets),
                ctypes.byref(options),
            )
        )
        return results

    def synchronize(self) -> None:
        """Waits for the runs that are queued on a GPU, and raises what went wrong in them and was not raised."""
        check(runtime().kiln_session_synchronize(self._handle))

    def enable_profiling(self, enable: bool = True) -> None:
        """Times every kernel of the following runs."""
        check(runtime().kiln_session_enable_profiling(self._handle, int(enable)))

    def profile(self) -> Any:
        """The times of the kernels of the last run."""
        handle = ctypes.c_void_p()
        check(runtime().kiln_session_profile(self._handle, ctypes.byref(handle)))
        return _library.take_json(handle)

    def _run_and_allocate(
        self,
        views: ctypes.Array[_library.Tensor],
        options: _library.RunOptions,
        make: MakeOutput,
        inputs: Sequence[Any],
        updates: dict[int, int],
    ) -> list[Any]:
        """A run that asks for its outputs when their shapes are known."""
        infos = self.engine.outputs
        results: list[Any] = [None] * len(infos)
        borrowed, errors = [], []

        def allocate(_user: Any, pointer: Any) -> int | None:
            output = pointer.contents
            index, shape = output.index, tuple(output.shape[: output.rank])
            try:
                is_update = index in updates
                results[index] = inputs[updates[index]] if is_update else make(infos[index], shape)
                target = arrays.borrow(results[index], options.stream)
                self._check_output(target, infos[index])
                borrowed.append(target)
                return target.tensor.data
            except (
                BaseException
            ) as error:  # the library cannot carry it: raised when it has returned
                errors.append(error)
                return None

        options.allocate_output = _library.AllocateFunction(allocate)
        status = runtime().kiln_session_run(
            self._handle, views, len(views), None, 0, ctypes.byref(options)
        )
        if errors:
            raise errors[0]
        check(status)
        return results

    def _maker(self, out: MakeOutput | None) -> MakeOutput:
        return out or (lambda info, shape: arrays.empty(shape, info.dtype))

    def _results(
        self,
        views: ctypes.Array[_library.Tensor],
        out: Sequence[Any] | MakeOutput | None,
        inputs: Sequence[Any],
        updates: dict[int, int],
    ) -> list[Any]:
        """What the outputs are written to: those of `updates` to inputs, by position."""
        infos = self.engine.outputs
        if out is None and self.device != "cpu" and len(updates) < len(infos):
            raise InvalidArgumentError(
                f"the engine runs on {self.device}, where NumPy has no arrays: pass out="
            )
        if out is None or callable(out):
            make = self._maker(out)
            shapes = self._output_shapes(views)
            return [
                inputs[updates[i]] if i in updates else make(info, shape)
                for i, (info, shape) in enumerate(zip(infos, shapes, strict=True))
            ]
        given = list(out)
        for output, source in sorted(updates.items()):
            given.insert(output, inputs[source])
        return given

    def _check_outputs(self, targets: Sequence[dlpack.Borrowed]) -> None:
        infos = self.engine.outputs
        if len(targets) != len(infos):
            raise InvalidArgumentError(f"out has {len(targets)} arrays, expected {len(infos)}")
        for target, info in zip(targets, infos, strict=True):
            self._check_output(target, info)

    def _check_output(self, target: dlpack.Borrowed, info: TensorInfo) -> None:
        if target.read_only or not arrays.is_contiguous(target.tensor):
            raise InvalidArgumentError(
                f"output {info.name!r}: the array is not contiguous and writeable"
            )

    def _output_shapes(self, views: ctypes.Array[_library.Tensor]) -> list[tuple[int, ...]]:
        return self._shapes(runtime().kiln_session_output_shapes, self._handle, views, len(views))

    def _shapes(self, get: Any, *arguments: Any) -> list[tuple[int, ...]]:
        outputs = self.engine.outputs
        shapes = ((ctypes.c_int64 * _library.MAX_RANK) * len(outputs))()
        check(get(*arguments, shapes, len(outputs)))
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
        info = _library.TensorInfo(ctypes.sizeof(_library.TensorInfo))
        check(get(handle, index, ctypes.byref(info)))
        dims = tuple(DimRange(dim.min, dim.opt, dim.max) for dim in info.dims[: info.rank])
        infos.append(TensorInfo(info.name.decode(), arrays.DTYPES[info.dtype], dims))
    return tuple(infos)


def _c_array(views: list[_library.Tensor]) -> ctypes.Array[_library.Tensor]:
    return (_library.Tensor * len(views))(*views)
