"""Options of the TorchScript front end, in the names of today's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch_tensorrt._device import Device
from torch_tensorrt._input import Input
from torch_tensorrt.dynamo._settings import CompilationSettings

TorchScriptInput = Input
TorchScriptDevice = Device

MIN_BLOCK_SIZE = 3


def warn_deprecated(name: str) -> None:
    warnings.warn(
        f"torch_tensorrt.ts.{name} is deprecated, as TorchScript is in PyTorch: use torch_tensorrt.compile with "
        'ir="dynamo", and save with output_format="torchscript" where a TorchScript file is needed',
        DeprecationWarning,
        stacklevel=3,
    )


def to_settings(caller: str, options: Mapping[str, Any]) -> CompilationSettings:
    """Settings for the options of `ts.compile`. TypeError: an unknown one."""
    given: dict[str, Any] = {"min_block_size": MIN_BLOCK_SIZE, **options}
    names = given.get("torch_executed_ops") or ()
    given["torch_executed_ops"] = {
        name.replace("::", ".") if isinstance(name, str) else name for name in names
    }
    return CompilationSettings.from_options(given, caller)


def TensorRTCompileSpec(  # noqa: N802 - the name of Torch-TensorRT
    inputs: Sequence[Any] | None = None, input_signature: Any = None, **options: Any
) -> dict[str, Any]:
    """The arguments of `ts.compile`, checked and kept: `ts.compile(module, **spec)`.

    There is no backend of torch._C._jit_to_backend that takes it.

    Raises:
        TypeError: an unknown option. ValueError: no inputs, or both `inputs` and `input_signature`.
    """
    if (inputs is None) == (input_signature is None):
        raise ValueError("give one of inputs and input_signature")
    to_settings("TensorRTCompileSpec", options)
    return {"inputs": inputs, "input_signature": input_signature, **options}
