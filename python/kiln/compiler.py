"""Compiles models: torch.export archives and ONNX models on disk, or programs in memory. Needs no torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiln import _library
from kiln._library import check, compiler
from kiln.arrays import as_view
from kiln.cache import CacheCall, EngineCache, Tuning, set_tuning
from kiln.errors import InvalidArgumentError
from kiln.quantization import Quantization, Samples, set_quantization


@dataclass(frozen=True)
class NodeSupport:
    """Whether a node of a model can be compiled, and if not, why. One that `repeats` becomes a loop whose steps the run
    counts, and one with `kernels` calls those of the user's own: programs for CPUs have both."""

    name: str
    target: str
    supported: bool
    reason: str
    repeats: bool = False
    kernels: tuple[str, ...] = ()


class Model:
    """A model read but not yet compiled. Make one with `open` or `from_memory`."""

    def __init__(self, handle: ctypes.c_void_p, owners: Any = None) -> None:
        self._handle = handle
        self._owners = owners
        _library.destroy_with(self, compiler().kiln_model_destroy, handle)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Model:
        """Opens what `torch.export.save` wrote (.pt2), or an ONNX model. The weights are mapped."""
        handle = ctypes.c_void_p()
        check(compiler().kiln_model_open_file(os.fsencode(path), ctypes.byref(handle)))
        return cls(handle)

    @classmethod
    def from_memory(cls, json: bytes, tensors: Mapping[str, Any]) -> Model:
        """Takes a program in torch.export's JSON schema, and its weights.

        Args:
            json: the text that an archive has as models/model.json.
            tensors: weights and constants by their names in the graph signature: contiguous arrays, or `TensorView`s.
                They are not copied, and stay alive with the model.
        """
        owners = {name: as_view(value, "a weight") for name, value in tensors.items()}
        names = (ctypes.c_char_p * len(owners))(*(name.encode() for name in owners))
        c_tensors = (_library.Tensor * len(owners))(*(view.to_c() for view in owners.values()))
        handle = ctypes.c_void_p()
        check(
            compiler().kiln_model_open_memory(
                json, len(json), names, c_tensors, len(owners), ctypes.byref(handle)
            )
        )
        return cls(handle, owners)

    def check(self) -> list[NodeSupport]:
        """Says for every node whether it can be compiled, in the order of the graph."""
        handle = ctypes.c_void_p()
        check(compiler().kiln_model_check(self._handle, ctypes.byref(handle)))
        return [
            NodeSupport(
                node["name"],
                node["target"],
                node["supported"],
                node["reason"],
                node["repeats"],
                tuple(node["kernels"]),
            )
            for node in _library.take_json(handle)["nodes"]
        ]


@dataclass(frozen=True)
class InputRange:
    """The sizes to compile for, of one dimension of an input."""

    input: str
    dim: int
    min: int
    opt: int
    max: int


def compile(
    model: Model | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    ranges: Iterable[InputRange] = (),
    targets: str | Iterable[str] = (),
    num_threads: int = 0,
    disabled_passes: Iterable[str] = (),
    verify_passes: bool = False,
    dump_directory: str | os.PathLike[str] | None = None,
    progress: Callable[[str, float], None] | None = None,
    cache: EngineCache | None = None,
    strip_weights: bool = False,
    refittable: bool = False,
    metadata: str = "",
    emulate_precision_casts: bool = False,
    check_bounds: bool = True,
    tf32: Iterable[str] = (),
    tuning: Tuning | None = None,
    quantize: str | Quantization | None = None,
    calibration: Samples = (),
) -> memoryview | None:
    """Compiles a model into an engine. The same model and options give the same bytes, unless there is a tuning.

    Args:
        model: a `Model`, or the path of a torch.export archive or an ONNX model.
        output: where to write the engine; the file appears only when it is complete.
        ranges: narrows the ranges of dynamic input dimensions, and says what sizes to optimise for.
        targets: what to make programs for: "cpu", "cuda", or variants of them such as "cuda:sm_90", as a list or in a
            string with commas; all of the CPU's when empty. A machine that can run several takes the first.
        num_threads: threads to compile with; 0 means one per core.
        disabled_passes: names of passes to leave out, for finding bugs.
        verify_passes: check the graph after every pass.
        dump_directory: write the graph after every pass there.
        progress: called with a short text and a fraction between 0 and 1.
        cache: where to look for the engine first, and to keep it.
        strip_weights: leave the contents of the weights out: `refit` fills them in before the engine can run.
        refittable: let no optimisation depend on the values of weights, so that `refit` takes any.
        metadata: text that the engine keeps, and `Engine.describe` shows.
        emulate_precision_casts: round every operator's result in f16 or bf16, as eager PyTorch does.
        check_bounds: whether a run fails where an index in the data is out of range or integers are divided by zero,
            as in PyTorch. If not, such an index reads the first or last element, and the quotient is unspecified.
        tf32: where GPUs may round operands of f32 to TF32: "matmul", "convolution", or both. Nowhere when empty.
        tuning: choose kernels for GPUs by timing them. None: by a model of the machine.
        quantize: what to quantise: a `Quantization`, or its scheme: "int8", "int8-weights" or "int4-weights".
        calibration: sets of inputs, each a sequence of arrays in the order of the model's inputs or a mapping by their
            names: "int8" runs the model on them to see what values its tensors have. Arrays with an axis more in
            front than the inputs are that many sets.

    Returns:
        The engine's bytes, or None if `output` was given.

    Raises:
        UnsupportedError or InvalidArgumentError: the model cannot be compiled; the text names the node.
    """
    if not isinstance(model, Model):
        model = Model.open(model)
    options = _engine_options(ranges, targets, disabled_passes, metadata)
    _set_flags(options, strip_weights, refittable, emulate_precision_casts, check_bounds)
    options.tf32 = _tf32(tf32)
    _set_work_options(options, num_threads, verify_passes, dump_directory)
    callback = _ProgressCallback(progress)
    options.progress = callback.function
    cached = CacheCall(cache, tuning, options)
    _samples = set_quantization(options, quantize, calibration)
    if output is not None:
        status = compiler().kiln_compile_to_file(
            model._handle, ctypes.byref(options), os.fsencode(output)
        )
        callback.reraise()
        check(status)
        cached.finish()
        return None
    handle = ctypes.c_void_p()
    status = compiler().kiln_compile(model._handle, ctypes.byref(options), ctypes.byref(handle))
    callback.reraise()
    check(status)
    cached.finish()
    return _library.take_bytes(handle)


def compile_key(
    model: Model | str | os.PathLike[str],
    *,
    ranges: Iterable[InputRange] = (),
    targets: str | Iterable[str] = (),
    disabled_passes: Iterable[str] = (),
    strip_weights: bool = False,
    refittable: bool = False,
    metadata: str = "",
    emulate_precision_casts: bool = False,
    check_bounds: bool = True,
    tf32: Iterable[str] = (),
    tuning: Tuning | None = None,
    quantize: str | Quantization | None = None,
    calibration: Samples = (),
) -> str:
    """The key of the engine that `compile` gives with these options: 32 hexadecimal digits.

    Whatever decides the bytes of the engine decides the key: the model, the contents of its weights, the options, and
    the version of Kiln.
    """
    if not isinstance(model, Model):
        model = Model.open(model)
    options = _engine_options(ranges, targets, disabled_passes, metadata)
    _set_flags(options, strip_weights, refittable, emulate_precision_casts, check_bounds)
    options.tf32 = _tf32(tf32)
    set_tuning(options, tuning)
    _samples = set_quantization(options, quantize, calibration)
    handle = ctypes.c_void_p()
    check(compiler().kiln_compile_key(model._handle, ctypes.byref(options), ctypes.byref(handle)))
    return _library.take_bytes(handle).tobytes().decode()


def refit(
    engine: bytes | memoryview | np.ndarray,
    model: Model | str | os.PathLike[str],
    *,
    num_threads: int = 0,
    strip_weights: bool = False,
    verify_passes: bool = False,
) -> memoryview:
    """Gives an engine the weights of another model of the same structure, without generating code.

    Args:
        engine: what `compile` gave, with its weights or without.
        model: a `Model`, or the path of a torch.export archive.

    Returns:
        The bytes that `compile` would give for this model with the options that the engine was made with.

    Raises:
        InvalidArgumentError: the model differs in more than the values of its weights; or their values had decided
        something, which `compile(refittable=True)` excludes. The text says what differs.
    """
    if not isinstance(model, Model):
        model = Model.open(model)
    options = _engine_options()
    options.strip_weights = int(strip_weights)
    _set_work_options(options, num_threads, verify_passes, None)
    data = np.frombuffer(engine, dtype=np.uint8)
    handle = ctypes.c_void_p()
    check(
        compiler().kiln_refit(
            data.ctypes.data,
            data.size,
            model._handle,
            ctypes.byref(options),
            ctypes.byref(handle),
        )
    )
    return _library.take_bytes(handle)


def supported_ops() -> dict[str, Any]:
    """The operators that can be compiled: {"aten": [...], "onnx": [...], "ops": [{"name", "summary"}, ...]}."""
    handle = ctypes.c_void_p()
    check(compiler().kiln_supported_ops(ctypes.byref(handle)))
    return _library.take_json(handle)


def passes() -> dict[str, list[dict[str, str]]]:
    """The compiler's passes over graphs and over plans: {"graph": [{"name", "summary"}, ...], "plan": [...]}."""
    handle = ctypes.c_void_p()
    check(compiler().kiln_passes(ctypes.byref(handle)))
    return _library.take_json(handle)


class _ProgressCallback:
    """Carries an exception of the user's function past the C frames between it and us."""

    def __init__(self, progress: Callable[[str, float], None] | None) -> None:
        self._progress = progress
        self._error: BaseException | None = None
        self.function = (
            _library.ProgressFunction(self._call) if progress else _library.ProgressFunction()
        )

    def _call(self, _user: Any, stage: bytes, fraction: float) -> None:
        try:
            if self._error is None and self._progress is not None:
                self._progress(stage.decode(errors="replace"), fraction)
        except BaseException as error:  # raised again by reraise()
            self._error = error

    def reraise(self) -> None:
        if self._error is not None:
            raise self._error


def _engine_options(
    ranges: Iterable[InputRange] = (),
    targets: str | Iterable[str] = (),
    disabled_passes: Iterable[str] = (),
    metadata: str = "",
) -> _library.CompileOptions:
    """The options that decide the bytes of an engine; those that are flags are off."""
    c_ranges = [_c_range(r) for r in ranges]
    options = _library.CompileOptions(struct_size=ctypes.sizeof(_library.CompileOptions))
    options.ranges = (_library.DimRange * len(c_ranges))(*c_ranges) if c_ranges else None
    options.num_ranges = len(c_ranges)
    names = [targets] if isinstance(targets, str) else targets
    options.targets = ",".join(names).encode() or None
    options.disabled_passes = ",".join(disabled_passes).encode() or None
    options.metadata = metadata.encode() or None
    return options


def _set_flags(
    options: _library.CompileOptions,
    strip_weights: bool,
    refittable: bool,
    emulate_precision_casts: bool,
    check_bounds: bool,
) -> None:
    options.strip_weights = int(strip_weights)
    options.refittable = int(refittable)
    options.emulate_precision_casts = int(emulate_precision_casts)
    options.no_bounds_checks = int(not check_bounds)


_TF32 = {"matmul": 1, "convolution": 2}


def _tf32(names: Iterable[str]) -> int:
    names = {names} if isinstance(names, str) else set(names)
    if unknown := names - _TF32.keys():
        raise InvalidArgumentError(f"tf32: got {sorted(unknown)}, expected some of {list(_TF32)}")
    return sum(_TF32[name] for name in names)


def _c_range(r: InputRange) -> _library.DimRange:
    # ctypes would take larger numbers modulo 2^64.
    if not all(-(1 << 63) <= size < 1 << 63 for size in (r.min, r.opt, r.max)):
        raise InvalidArgumentError(
            f"input {r.input!r}, dimension {r.dim}: got the sizes {r.min}, {r.opt}, {r.max}, expected 64-bit numbers"
        )
    return _library.DimRange(r.input.encode(), r.dim, r.min, r.opt, r.max)


def _set_work_options(
    options: _library.CompileOptions,
    num_threads: int,
    verify_passes: bool,
    dump_directory: str | os.PathLike[str] | None,
) -> None:
    """The options that only say how the work is done."""
    options.num_threads = num_threads
    options.verify_passes = int(verify_passes)
    options.dump_directory = os.fsencode(dump_directory) if dump_directory is not None else None
