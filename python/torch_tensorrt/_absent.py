"""Parts of Torch-TensorRT that are not here, and what to use instead; modules that have another name here."""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any, NoReturn

_PARTITION = (
    "divide with torch_tensorrt.compile(..., dryrun=True), min_block_size and torch_executed_ops"
)
_NO_LAYERS = (
    "there are no TensorRT layers; write converters with functions of PyTorch and "
    "torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter (docs/converters.md)"
)
_ABSENT = {
    "fx": "use torch_tensorrt.compile(module, ir='dynamo', ...)",
    "kernels": "give an operator a lowering with torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter, or a "
    "kernel with kiln.register_kernel (docs/custom_kernels.md)",
    "distributed": "engines run on one device; use torch.distributed around compiled modules",
    "executorch": "save with output_format='exported_program' or 'aot_inductor', or write a .kiln file",
    "PythonTorchTensorRTModule": "there is one runtime; use torch_tensorrt.runtime.TorchTensorRTModule",
    "dynamo.conversion.aten_ops_converters": "Kiln's own lowerings are not Python; "
    "torch_tensorrt.dynamo.conversion.DYNAMO_CONVERTERS lists them",
    "dynamo.conversion.converter_utils": _NO_LAYERS,
    "dynamo.conversion.impl": _NO_LAYERS,
    "dynamo.partitioning": _PARTITION,
    "dynamo.types": _NO_LAYERS,
}
# Names of Torch-TensorRT's modules, and what they are here.
_MODULES = {
    "_Device": "_device",
    "_Input": "_input",
    "dynamo.conversion._ConversionContext": "dynamo.conversion._context",
    "dynamo.conversion._ConverterRegistry": "dynamo.conversion._registry",
    "dynamo.lowering.passes._aten_lowering_pass": "dynamo.lowering.passes",
    "dynamo.lowering.passes.pass_utils": "dynamo.lowering.passes",
    "dynamo.runtime._MutableTorchTensorRTModule": "dynamo.runtime._mutable_module",
    "dynamo.runtime._PythonTorchTensorRTModule": "runtime._module",
    "dynamo.runtime._TorchTensorRTModule": "runtime._module",
    "runtime._runtime_cache": "runtime._runtime_settings",
}
_PACKAGE = "torch_tensorrt"


def get_absent(name: str) -> NoReturn:
    """AttributeError that says what to use instead, if that is known."""
    raise AttributeError(_says(name))


def _says(name: str) -> str:
    hint = f": {_ABSENT[name]}" if name in _ABSENT else ""
    return f"{_PACKAGE} has no {name!r}{hint}"


class _AbsentModules(importlib.abc.MetaPathFinder):
    """Is asked last, for modules that nobody has."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        package, _, name = fullname.partition(".")
        if package == _PACKAGE and name in _ABSENT:
            # Without a name: an import that knows it would replace the text by its own.
            raise ModuleNotFoundError(_says(name))


def register_modules() -> None:
    """Makes imports by Torch-TensorRT's names of modules find them, or say what to use instead."""
    for name, here in _MODULES.items():
        module = sys.modules[f"{_PACKAGE}.{here}"]
        sys.modules[f"{_PACKAGE}.{name}"] = module
        parent, _, last = f"{_PACKAGE}.{name}".rpartition(".")
        if last not in vars(sys.modules[parent]):
            setattr(sys.modules[parent], last, module)
    sys.meta_path.append(_AbsentModules())
