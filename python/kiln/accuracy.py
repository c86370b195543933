"""How far an engine's results are from those of the model in floats."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from kiln import _library
from kiln._library import check, compiler
from kiln.compiler import Model
from kiln.quantization import Quantization, Samples, SampleTensors, set_quantization


def accuracy(
    model: Model | str | os.PathLike[str],
    engine: bytes | memoryview | np.ndarray | None = None,
    *,
    inputs: Samples,
    quantize: str | Quantization | None = None,
    calibration: Samples = (),
    layers: bool = False,
    num_threads: int = 0,
) -> dict[str, Any]:
    """Runs a model in floats and an engine on the same inputs, on the CPU, and compares their outputs.

    Args:
        model: a `Model`, or the path of a torch.export archive or an ONNX model.
        engine: what is compared with it. None: the engine that `compile` makes with `quantize` and `calibration`.
        inputs: sets of inputs, as those of `compile(calibration=)`.
        layers: quantise each layer alone, to find those that cost the most.

    Returns:
        {"sets": how many, "outputs": [{"name", "relative_error", "worst", "cosine", "not_finite"}, ...],
        "layers": [the same and "location", ...]}.
        Errors are of the norm, over all sets; those of a layer are of all outputs together. None is infinite.

    Raises:
        InvalidArgumentError: inputs that are not the model's, or an engine with other outputs.
    """
    if not isinstance(model, Model):
        model = Model.open(model)
    options = _library.CompileOptions(struct_size=ctypes.sizeof(_library.CompileOptions))
    options.num_threads = num_threads
    _samples = set_quantization(options, quantize, calibration)
    data = np.frombuffer(b"" if engine is None else engine, dtype=np.uint8)
    sets = SampleTensors(inputs)
    handle = ctypes.c_void_p()
    check(
        compiler().kiln_accuracy(
            model._handle,
            ctypes.byref(options),
            data.ctypes.data if data.size else None,
            data.size,
            ctypes.byref(sets.c),
            int(layers),
            ctypes.byref(handle),
        )
    )
    return _library.take_json(handle)
