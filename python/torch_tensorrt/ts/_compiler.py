"""`torch_tensorrt.ts.compile` and its siblings: ScriptModules in or out, with the pipeline of `ir="dynamo"` between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

import kiln
from torch_tensorrt import dynamo
from torch_tensorrt._arguments import merge_inputs, take_trace_options
from torch_tensorrt._method import method_as_module
from torch_tensorrt.formats.script_writer import define_script
from torch_tensorrt.formats.torchscript import quiet_torchscript, to_torchscript
from torch_tensorrt.ts._compile_spec import to_settings, warn_deprecated
from torch_tensorrt.ts._from_script import parameter_names, program_of_script, whole_graph


def compile(
    module: torch.nn.Module,
    inputs: Sequence[Any] | None = None,
    input_signature: Any = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> torch.jit.ScriptModule:
    """Compiles a module into a ScriptModule.

    Args:
        module: a torch.nn.Module in eval mode, or a scripted or traced one.
        inputs, arg_inputs, input_signature: positional inputs, one of the three: tensors for fixed shapes, Inputs for
            ranges; lists, tuples and dictionaries of them where the module is not a ScriptModule.
        kwarg_inputs: keyword inputs, likewise.
        options: those of `torch_tensorrt.dynamo.CompilationSettings`, with `capability` for `engine_capability`, names
            such as "aten::relu" in `torch_executed_ops`, and 3 as the default of `min_block_size`.

    Raises:
        TypeError: an unknown option. AssertionError: no inputs, or two kinds of them. ValueError: inputs that do not
            fit, or a module that cannot be a ScriptModule.
    """
    warn_deprecated("compile")
    return compile_to_script(
        module, _merge(inputs, arg_inputs, input_signature, kwarg_inputs), kwarg_inputs, options
    )


def compile_to_script(
    module: torch.nn.Module, args: Any, kwargs: Any, options: Mapping[str, Any]
) -> torch.jit.ScriptModule:
    """`compile`, for callers that have merged the inputs; an ExportedProgram is taken too."""
    rest = dict(options)
    trace_options = take_trace_options(rest)
    settings = to_settings("ts.compile", rest)
    program, args, kwargs = _export(module, args, kwargs, trace_options)
    compiled = dynamo.compile(program, arg_inputs=args, kwarg_inputs=kwargs, settings=settings)
    names = parameter_names(module) if isinstance(module, torch.jit.ScriptModule) else None
    return to_torchscript(compiled, args, kwargs, names=names)


def _merge(inputs: Any, arg_inputs: Any, input_signature: Any, kwarg_inputs: Any) -> Any:
    if input_signature is not None:
        inputs = merge_inputs(inputs, input_signature)
    return merge_inputs(inputs, arg_inputs, required=not kwarg_inputs) or ()


def _export(
    module: Any, args: Any, kwargs: Any, trace_options: Mapping[str, Any] | None = None
) -> tuple[ExportedProgram, Any, Any]:
    """A module as a program, with the inputs that the program takes."""
    if isinstance(module, ExportedProgram):
        return module, args or None, kwargs
    if isinstance(module, torch.jit.ScriptModule):
        if trace_options and trace_options.get("dynamic_shapes") is not None:
            raise ValueError("dynamic_shapes is not for ScriptModules: give Inputs with ranges")
        program, inputs = program_of_script(module, args, kwargs or {})
        return program, inputs, None
    options = trace_options or {}
    return dynamo.trace(module, arg_inputs=args, kwarg_inputs=kwargs, **options), args, kwargs


def convert_method_to_trt_engine(
    module: torch.nn.Module,
    method_name: str = "forward",
    inputs: Sequence[Any] | None = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> bytes:
    """Compiles a whole method into one engine.

    Args:
        module: as in `compile`.
        method_name: a method that takes and gives tensors.
        inputs, arg_inputs, kwarg_inputs, options: as in `compile`.

    Returns:
        The bytes of an engine file. Its inputs are those of the method and its outputs the results, flat, in order.

    Raises:
        RuntimeError: operators that no engine can take, by name. AttributeError: no such method.
    """
    warn_deprecated("convert_method_to_trt_engine")
    settings = to_settings("convert_method_to_trt_engine", options)
    args = merge_inputs(inputs, arg_inputs, required=not kwarg_inputs) or ()
    program, args, kwargs = _export(_with_method(module, method_name), args, kwarg_inputs)
    return dynamo.convert_exported_program_to_serialized_trt_engine(
        program, args, kwarg_inputs=kwargs, settings=settings
    )


def _with_method(module: torch.nn.Module, name: str) -> torch.nn.Module:
    """A module, scripted if the given one is, whose `forward` is another one's method."""
    if name == "forward" or not isinstance(module, torch.jit.ScriptModule):
        return method_as_module(module, name)
    arguments = getattr(module, name).schema.arguments[1:]
    holder = torch.nn.Module()
    holder.inner = module
    head = ", ".join(["self", *(f"{each.name}: {each.type.annotation_str}" for each in arguments)])
    call = ", ".join(each.name for each in arguments)
    with quiet_torchscript():
        return define_script(
            holder, f"def forward({head}):\n    return self.inner.{name}({call})\n"
        )


def check_method_op_support(module: torch.nn.Module, method_name: str = "forward") -> bool:
    """Whether every operator of a method can be in an engine, as far as TorchScript's graph tells.

    Args:
        module: a ScriptModule, or a module that torch.jit.script takes.
        method_name: the method.

    Raises:
        AttributeError: no such method. RuntimeError: a module that cannot be scripted.
    """
    warn_deprecated("check_method_op_support")
    with quiet_torchscript():
        script = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
        graph = whole_graph(_with_method(script, method_name))
    known = {target.split(".")[1] for target in kiln.supported_ops()["aten"]}
    return all(_is_supported(node, known) for node in _nodes(graph))


def _nodes(block: Any) -> list[Any]:
    found = []
    for node in block.nodes():
        found += [node, *(inner for child in node.blocks() for inner in _nodes(child))]
    return found


# What becomes constants or tuples, or is arithmetic on sizes.
_GLUE = {
    "prim": {"Constant", "ListConstruct", "ListUnpack", "TupleConstruct", "TupleUnpack"}
    | {"DictConstruct", "GetAttr", "NumToTensor", "dtype", "device", "RaiseException"},
    "aten": {"size", "Int", "ScalarImplicit", "__getitem__", "dim", "len", "floordiv", "warn"},
}


def _is_supported(node: Any, known: set[str]) -> bool:
    namespace, _, name = node.kind().partition("::")
    if name in _GLUE.get(namespace, ()):
        return True
    return namespace == "aten" and name.rstrip("_") in known | {"_convolution"}
