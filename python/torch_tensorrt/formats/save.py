"""`torch_tensorrt.save`: a compiled module into a file."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from torch_tensorrt._arguments import check_graph_module, sample_inputs
from torch_tensorrt._files import errors_at_the_end, replaced_file
from torch_tensorrt._input import Input
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._lift import add_guards, lift, program_info
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._tracer import shapes_of_inputs
from torch_tensorrt.dynamo._words import WORDS, check_words, export_words, warn
from torch_tensorrt.dynamo.backend import check_not_jit
from torch_tensorrt.formats.aoti.package import check_package_path, check_platform, save_package
from torch_tensorrt.formats.exported_program import save_program
from torch_tensorrt.formats.torchscript import save_torchscript

logger = logging.getLogger(__name__)

_FORMATS = ("exported_program", "torchscript", "aot_inductor", "executorch")
_SUPPORTED_FORMATS = ("exported_program", "torchscript", "aot_inductor")


def save(
    module: Any,
    file_path: str | bytes | os.PathLike[str] = "",
    *,
    extra_files: Mapping[str, Any] | None = None,
    output_format: str = "exported_program",
    inputs: Sequence[Any] | None = None,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    retrace: bool = True,
    use_legacy_exporter: bool | None = None,
    pickle_protocol: int = 2,
    dynamic_shapes: Any = None,
    **kwargs: Any,
) -> None:
    """Saves a compiled module. The file appears only when it is complete: an old one stays intact until then.

    Args:
        module: what `torch_tensorrt.compile` gave, or an ExportedProgram.
        file_path: any name and ending; a regular file, a link to one, or nothing yet.
        extra_files: more files for the archive, by name.
        output_format: "exported_program", "torchscript", or "aot_inductor" for a package that is loaded without this
            project.
        inputs, arg_inputs: the inputs that the module was compiled with; `Input`s with ranges keep their dynamic sizes.
        kwarg_inputs: keyword inputs, likewise.
        retrace: export the module again with these inputs; False takes the graph as it is, which needs no inputs.
        use_legacy_exporter: True is the same as retrace=False, False the same as retrace=True.
        pickle_protocol: of the example inputs in the file.
        dynamic_shapes: as in torch.export.export, instead of Inputs.
        kwargs: `inductor_configs`, a dictionary of options for AOTInductor.

    Raises:
        TypeError: a keyword that no version of Torch-TensorRT knew.
        ValueError: arguments that do not go together, or a model of torch.compile's; the text says what to do. A path
            to a device, a pipe or a socket.
        OSError: the file cannot be written; an old one is as it was.
    """
    check_not_jit(module)
    if not isinstance(module, (torch.nn.Module, ExportedProgram)):
        raise RuntimeError(f"Module is an unknown format: got {type(module).__name__}")
    _check_leaves(arg_inputs)
    if inputs is not None and arg_inputs is not None:
        raise AssertionError("'arg_inputs' and 'inputs' should not be used at the same time.")
    args = inputs if arg_inputs is None else arg_inputs
    if args is not None and not isinstance(args, (list, tuple)):
        args = [args]
    if kwarg_inputs is not None and any(value is None for value in kwarg_inputs.values()):
        raise ValueError("kwargs should not include None.")
    _check_format(output_format)
    is_package = output_format == "aot_inductor"
    inductor_configs = kwargs.pop("inductor_configs", None) if is_package else None
    _check_words(kwargs)
    if is_package:
        check_platform()
    file_path = os.fsdecode(file_path)
    if not file_path:
        raise ValueError("File path cannot be empty. Please provide a valid file path")
    if output_format == "torchscript":
        save_torchscript(module, file_path, args, kwarg_inputs, extra_files)
        return
    if is_package:
        check_package_path(file_path)
    program = _to_program(
        module, args, kwarg_inputs, dynamic_shapes, _wants_retrace(retrace, use_legacy_exporter)
    )
    if is_package:
        save_package(program, file_path, inductor_configs=inductor_configs, extra_files=extra_files)
    else:
        _write(program, Path(file_path), extra_files, pickle_protocol)


def _check_leaves(arg_inputs: Any) -> None:
    for leaf in pytree.tree_leaves(
        list(arg_inputs) if isinstance(arg_inputs, (list, tuple)) else arg_inputs
    ):
        if leaf is not None and not isinstance(leaf, (torch.Tensor, Input)):
            raise ValueError(
                "Not all inputs provided are torch.Tensor or torch_tensorrt.Input objects. Please provide inputs of a "
                f"valid type; got {type(leaf).__name__}"
            )


def _check_format(output_format: str) -> None:
    if output_format not in _FORMATS:
        raise ValueError(
            f"Provided output_format {output_format} is not supported. Supported options are {' | '.join(_FORMATS)}"
        )
    if output_format not in _SUPPORTED_FORMATS:
        raise ImportError(
            f"output_format={output_format!r} needs a backend that this project does not have; supported are "
            f"{', '.join(_SUPPORTED_FORMATS)}"
        )


def _check_words(kwargs: Mapping[str, Any]) -> None:
    """TypeError: a word that no version knew. Warns about those that belong to other calls or formats."""
    parameters = inspect.signature(save).parameters
    check_words(kwargs, {*parameters, *CompilationSettings.names(), *export_words()}, "save")
    for name, value in kwargs.items():
        if name == "inductor_configs":
            advice = "is for output_format='aot_inductor'"
        else:
            advice = "has no effect: the module is compiled already, and saved as it is"
        if name not in WORDS or WORDS[name].asks(value):
            warn(f"save: option {name!r} {advice}")


def _wants_retrace(retrace: bool, use_legacy_exporter: bool | None) -> bool:
    return retrace if use_legacy_exporter is None else not use_legacy_exporter


def _to_program(
    module: Any, args: Any, kwargs: Any, dynamic_shapes: Any, retrace: bool
) -> ExportedProgram:
    has_inputs = args is not None or bool(kwargs)
    if isinstance(module, ExportedProgram):
        if has_inputs:
            logger.warning(
                "Provided model is a torch.export.ExportedProgram, inputs or arg_inputs is not necessary"
            )
        return module
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            "Provided model is a torch.jit.ScriptModule but the output_format specified is not torchscript. Please "
            "verify the output_format"
        )
    check_graph_module(module)
    inferred = _infer_shapes(module, args or (), kwargs or {})
    if inferred is not None and dynamic_shapes is not None:
        logger.warning(
            "dynamic_shapes and Inputs with ranges were both given: dynamic_shapes is used"
        )
    shapes = dynamic_shapes if dynamic_shapes is not None else inferred
    samples = sample_inputs(module, args, kwargs) if has_inputs else None
    if not retrace or (
        program_info(module) is not None and (not has_inputs or _is_symbolic(module, shapes))
    ):
        return lift(module, samples)
    if samples is None:
        raise ValueError(
            "Provided model is a torch.fx.GraphModule without existing shape metadata and retrace is True, however no "
            "inputs specs were provided. Please provide valid torch.Tensors or torch_tensorrt.Input objects as inputs "
            "or retrace=False"
        )
    with torch.no_grad(), quiet_torch():
        program = torch.export.export(
            module, samples[0], samples[1], dynamic_shapes=shapes, strict=False
        )
    add_guards(program, module)
    return program


def _infer_shapes(module: GraphModule, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`dynamic_shapes` from the Inputs with ranges; sizes of tensors beside them are fixed."""
    return shapes_of_inputs(module.forward, args, kwargs, by_parameter=False)


def _is_symbolic(module: GraphModule, shapes: Any) -> bool:
    """Whether tracing again would lose dynamic sizes that the graph has."""
    values = [node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")]
    sizes = [size for value in values if isinstance(value, torch.Tensor) for size in value.shape]
    return shapes is None and any(isinstance(size, torch.SymInt) for size in sizes)


def _write(program: ExportedProgram, path: Path, extra_files: Any, pickle_protocol: int) -> None:
    # An open file, because torch warns about names that do not end in .pt2.
    with replaced_file(path) as file, quiet_torch(), errors_at_the_end(file) as archive:
        save_program(program, archive, extra_files, pickle_protocol)
