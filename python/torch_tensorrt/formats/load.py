"""`torch_tensorrt.load`: a file into something that can be called."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.export._trace  # torch.export.load needs it: then loading does not have to wait for it
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from torch_tensorrt._operator import engine_call, engine_calls, hold_engines
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._calling import set_calling
from torch_tensorrt.dynamo._checks import (
    SIZES_KEY,
    InputSizes,
    add_input_checks,
    add_structure_check,
    refuse_tracing,
)
from torch_tensorrt.dynamo._contract import guard_conditions, ranges_of
from torch_tensorrt.dynamo._names import argument_names
from torch_tensorrt.dynamo._symbols import get_attribute
from torch_tensorrt.formats.aoti.package import LoadedPackage, is_package, load_package
from torch_tensorrt.formats.engine_check import check_engines
from torch_tensorrt.formats.engine_file import LoadedEngine, is_engine, load_engine
from torch_tensorrt.formats.entries import entry_names, read_entry
from torch_tensorrt.formats.torchscript import LoadedScript, is_torchscript, load_torchscript


class LoadedProgram(ExportedProgram):
    """An ExportedProgram that can also be called directly, like the module that it was made from."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self.__dict__.get("_kiln_module")
        if module is None:
            module = self.__dict__["_kiln_module"] = self.module()
        return module(*args, **kwargs)

    def module(self, check_guards: bool = True) -> GraphModule:
        """A module of this program. Where every input goes into an engine, which checks it, torch's own checks of the
        inputs are left out: they take longer than a small engine runs."""
        names = self.module_call_graph[0].signature.forward_arg_names
        if not _engines_check_inputs(self):
            with quiet_torch():
                checked = super().module(check_guards=check_guards)
            refuse_tracing(checked)
            add_structure_check(checked, self.call_spec.in_spec, names or ())
            checked.meta[SIZES_KEY] = _input_sizes(self)
            hold_engines(checked)
            return checked
        with quiet_torch():
            module = super().module(check_guards=False)
        graph = module.graph
        if names:
            set_calling(graph, names, self.call_spec.in_spec, self.call_spec.out_spec)
        attributes = {
            str(node.target): get_attribute(module, str(node.target))
            for node in graph.find_nodes(op="get_attr")
        }
        result = GraphModule(attributes, graph).eval()
        refuse_tracing(result)
        add_input_checks(result, argument_names(self), self.call_spec.in_spec, _input_sizes(self))
        hold_engines(result)
        return result


def load(
    file_path: str | bytes | os.PathLike[str] = "",
    extra_files: dict[str, Any] | None = None,
    *,
    format: str | None = None,
    **kwargs: Any,
) -> LoadedProgram | LoadedScript | LoadedPackage | LoadedEngine:
    """Loads what `save` wrote, or an engine of its own (`.kiln`). Nothing is compiled.

    Args:
        file_path: the file.
        extra_files: names of extra files to read; their contents are filled in.
        format: None.

    Returns:
        An ExportedProgram, or for TorchScript a ScriptModule: call it, or `.module()` for a torch.nn.Module. A
        `LoadedPackage` for a package of AOTInductor, or a folder that one was unpacked to; a `TorchTensorRTModule` for
        an engine. All of them can be called, and have `.module()`.

    Raises:
        ValueError: no path, or a file that is not a saved model. FileNotFoundError: no such file.
    """
    if format == "executorch":
        raise ImportError(
            "format='executorch' needs a runtime that this project does not have; leave format out to load what "
            "torch_tensorrt.save wrote"
        )
    if format is not None:
        raise ValueError(f"Unsupported format {format!r}; expected None or 'executorch'")
    file_path = os.fsdecode(file_path)
    if not file_path:
        raise ValueError(
            "File path cannot be empty. Please provide the path of a file that torch_tensorrt.save wrote"
        )
    if is_engine(file_path):
        return load_engine(file_path)
    names = [] if os.path.isdir(file_path) else entry_names(file_path)
    if is_package(file_path, names):
        return load_package(file_path, extra_files)
    if is_torchscript(names):
        return load_torchscript(file_path, extra_files)
    with open(file_path, "rb") as file:
        _check_program(names, file_path)
        try:
            with quiet_torch():
                program = torch.export.load(file, extra_files=extra_files)
        except Exception as error:  # of many kinds, if the file is damaged
            raise ValueError(
                f"The file {os.fspath(file_path)} doesn't correspond to a valid ExportedProgram: "
                f"{error or type(error).__name__}"
            ) from error
    check_engines(file_path, program.state_dict.items())
    program.__class__ = LoadedProgram
    return program


def _input_sizes(program: ExportedProgram) -> InputSizes:
    code = getattr(program, "_guards_code", ())
    guards = guard_conditions(code, program.call_spec.in_spec, argument_names(program))
    return InputSizes(ranges_of(program.range_constraints), guards, code)


def _check_program(names: Sequence[str], path: Any) -> None:
    """Says what a file is, if it is not an ExportedProgram, and makes the classes of its results known to PyTorch."""
    name = os.fspath(path)
    if not names:
        raise ValueError(
            f"The file {name} doesn't correspond to a valid ExportedProgram: it is not an archive, or truncated"
        )
    models = [entry for entry in names if "/models/" in entry and entry.endswith(".json")]
    if not models:
        raise ValueError(
            f"The file {name} doesn't correspond to a valid ExportedProgram: it is of unknown format"
        )
    for entry in models:
        try:
            _import_result_types(read_entry(path, entry), name)
        except RecursionError:
            raise ValueError(
                f"The file {name} doesn't correspond to a valid ExportedProgram: the JSON of {entry} is nested too deep"
            ) from None


def _import_result_types(model: bytes, name: str) -> None:
    """Results such as transformers' ModelOutput can be rebuilt only when their module was imported."""
    try:
        entries = json.loads(model)["graph_module"]["module_call_graph"]
        specs = [
            json.loads(entry["signature"][key])
            for entry in entries
            for key in ("in_spec", "out_spec")
        ]
        type_names = sorted({type_name for spec in specs for type_name in _type_names(spec)})
    except (ValueError, KeyError, TypeError):
        return  # torch.export.load says what is wrong
    for type_name in type_names:
        if type_name in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE or "." not in type_name:
            continue
        module = type_name.rpartition(".")[0]
        if module.split(".")[0] == "transformers":
            importlib.import_module(module)
        if type_name not in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE:
            raise ValueError(
                f"The file {name} has results of type {type_name}: import {module} before loading it"
            )


def _type_names(spec: Any) -> Iterator[str]:
    if isinstance(spec, dict):
        if isinstance(spec.get("type"), str):
            yield spec["type"]
        for value in spec.values():
            yield from _type_names(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _type_names(value)


def _engines_check_inputs(program: ExportedProgram) -> bool:
    """Whether every input of the user's is a tensor that an engine takes as it is."""
    inputs = {
        spec.arg.name: spec
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    }
    taken = {node.name for call in engine_calls(program.graph) for node in engine_call(call).inputs}
    return set(inputs) <= taken
