"""Parts of Torch-TensorRT that are not here, and what to use instead."""

from __future__ import annotations

from typing import NoReturn

_ABSENT = {
    "fx": "use torch_tensorrt.compile(module, ir='dynamo', ...)",
    "kernels": "CUDA kernels need a GPU; give an operator a lowering with "
    "torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter",
    "distributed": "engines run on one device; use torch.distributed around compiled modules",
    "executorch": "save with output_format='exported_program' or 'aot_inductor', or write a .kiln file",
    "PythonTorchTensorRTModule": "there is one runtime; use torch_tensorrt.runtime.TorchTensorRTModule",
}


def get_absent(name: str) -> NoReturn:
    """AttributeError that says what to use instead, if that is known."""
    hint = f": {_ABSENT[name]}" if name in _ABSENT else ""
    raise AttributeError(f"torch_tensorrt has no {name!r}{hint}")
