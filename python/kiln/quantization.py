"""What `compile` quantises, as options of the C API."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kiln import _library
from kiln.arrays import TensorView, as_view
from kiln.errors import InvalidArgumentError


@dataclass(frozen=True)
class Quantization:
    """What is quantised when a model is compiled, and how.

    Attributes:
        scheme: "int8", linear layers, products with a constant matrix and convolutions in integers: inputs with one
            scale and zero point, weights with a scale for each output channel; "int8-weights" and "int4-weights",
            weights of linear layers and products alone.
        group_size: how many steps along k of a weight share a scale, a multiple of 8; -1: all. By default all in 8
            bits and 32 in 4 bits. Not of "int8".
        exclude: a regular expression (ECMAScript's): layers whose whole name it matches stay as they are. `accuracy`
            shows the names.
        calibration_method: how "int8" chooses the range of a tensor from its values: "percentile", without 0.001 % at
            each end, as by default; "minmax", all of it; "mse", with the least mean squared error.
    """

    scheme: str
    group_size: int | None = None
    exclude: str | None = None
    calibration_method: str | None = None


Samples = Iterable[Sequence[Any] | Mapping[str, Any]]


class SampleTensors:
    """Sets of inputs as the C API takes them; keeps them alive."""

    def __init__(self, samples: Samples) -> None:
        sets = list(samples)
        names = list(sets[0]) if sets and isinstance(sets[0], Mapping) else None
        rows = [self._row(number, sample, names) for number, sample in enumerate(sets)]
        self._views: list[TensorView] = [
            as_view(value, "an input") for row in rows for value in row
        ]
        self._tensors = (_library.Tensor * len(self._views))(*(v.to_c() for v in self._views))
        self._names = (
            (ctypes.c_char_p * len(names))(*(n.encode() for n in names)) if names else None
        )
        self.c = _library.Samples(
            ctypes.sizeof(_library.Samples),
            len(rows),
            len(rows[0]) if rows else 0,
            ctypes.cast(self._tensors, ctypes.POINTER(_library.Tensor)),
            ctypes.cast(self._names, ctypes.POINTER(ctypes.c_char_p)) if names else None,
        )
        if len({len(row) for row in rows}) > 1:
            raise InvalidArgumentError("sets of inputs: got some of other sizes than the first")

    @staticmethod
    def _row(number: int, sample: Any, names: list[str] | None) -> list[Any]:
        if names is None and not isinstance(sample, Mapping):
            return list(sample)
        if names is None or not isinstance(sample, Mapping) or sample.keys() != set(names):
            raise InvalidArgumentError(
                f"set {number} of inputs: got other names than the first set has, {names}"
            )
        return [sample[name] for name in names]


def set_quantization(
    options: _library.CompileOptions,
    quantize: str | Quantization | None,
    calibration: Samples,
) -> SampleTensors:
    """Fills in the options. What it gives has to live until they were used."""
    chosen = Quantization(quantize) if isinstance(quantize, str) else quantize
    samples = SampleTensors(calibration)
    if samples.c.num_sets > 0:
        options.calibration = ctypes.pointer(samples.c)
    if chosen is not None:
        options.quantize = chosen.scheme.encode()
        options.group_size = chosen.group_size or 0
        options.quantize_exclude = chosen.exclude.encode() if chosen.exclude else None
        if chosen.calibration_method is not None:
            options.calibration_method = chosen.calibration_method.encode()
    return samples
