"""A whole program as one engine, as bytes: what a `.kiln` file holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from torch_tensorrt._arguments import check_program, merge_inputs
from torch_tensorrt.dynamo._autocast import autocast
from torch_tensorrt.dynamo._bindings import Renaming, input_names, output_names
from torch_tensorrt.dynamo._capture import show_engine
from torch_tensorrt.dynamo._compile_program import flat_inputs, supported_ranges, whole_program
from torch_tensorrt.dynamo._partition import list_reasons
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._progress import CompileProgress
from torch_tensorrt.dynamo._ranges import symbol_ranges
from torch_tensorrt.dynamo._region import Region, compile_region
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._symbols import is_symbolic_node, tensor_of
from torch_tensorrt.dynamo.conversion._apply import lower
from torch_tensorrt.dynamo.conversion._context import UnsupportedOperatorException


def convert_exported_program_to_serialized_trt_engine(
    exported_program: ExportedProgram,
    inputs: Sequence[Any] | None = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    arg_input_binding_names: Any = None,
    kwarg_input_binding_names: Mapping[str, Any] | None = None,
    output_binding_names: Any = None,
    lift_mutable_buffers: bool = False,
    **options: Any,
) -> bytes:
    """Compiles a whole exported program into one engine.

    Args:
        exported_program: what `torch.export.export` or `torch_tensorrt.dynamo.trace` gave.
        inputs, arg_inputs, kwarg_inputs: as for `torch_tensorrt.dynamo.compile`.
        arg_input_binding_names: names of the engine's inputs, in the structure of the positional inputs; those of
            the program when None.
        kwarg_input_binding_names: likewise for the keyword inputs.
        output_binding_names: names of the engine's outputs, in the structure of the results; output0, output1, ...
            when None.
        lift_mutable_buffers: buffers that the program changes become inputs of the engine behind the others, called
            buf_ and their name, and what they are to be outputs behind the others, which may lie in the same memory
            (`kiln.Engine.updates`, `TorchTensorRTModule(aliased_io=)`). Their contents are not in the engine. Inputs of
            the program's that it changes are such inputs in any case.
        options: see `CompilationSettings`.

    Returns:
        An engine file: write it as `.kiln`, load it with `kiln.Engine`, or give it to
        `torch_tensorrt.runtime.TorchTensorRTModule`. The engine's inputs are the tensors among the program's, in order,
        but those that it changes come last.

    Raises:
        RuntimeError: something cannot be in an engine; the text has the operators and the reasons.
        BindingNameMismatchError (a ValueError): names in another structure than what they name.
        TypeError: an unknown option. ValueError: inputs that do not fit the program.
    """
    check_program(exported_program)
    settings = CompilationSettings.from_options(
        options, "convert_exported_program_to_serialized_trt_engine"
    )
    args = merge_inputs(inputs, arg_inputs, required=False)
    settings = dataclasses.replace(settings, require_full_compilation=True)
    exported_program, settings = autocast(exported_program, settings)
    whole = whole_program(exported_program, args, kwarg_inputs, settings)
    if whole is None:
        program = lower(Program.decomposed(exported_program), settings)
        ranges = symbol_ranges(program, flat_inputs(program, args, kwarg_inputs))
        ranges, support = supported_ranges(program, settings, ranges)
    else:
        program, ranges, support = whole.program, whole.ranges, whole.support
    names_in = input_names(program, arg_input_binding_names, kwarg_input_binding_names)
    names_out = output_names(program, output_binding_names)
    _check_whole(program, support, lift_mutable_buffers)
    changes = _changes(program)
    renaming = Renaming(program)
    renaming.set(program.user_inputs, names_in)
    outputs = _outputs(program)
    renaming.set(outputs, [name or f"output{index}" for index, name in enumerate(names_out)])
    buffers = [node for node in changes if node in program.lifted]
    renaming.set(buffers, ["buf_" + program.lifted[node].replace(".", "_") for node in buffers])
    region = _whole_region(program, outputs, changes)
    with CompileProgress(1) as progress:
        progress.next_engine()
        engine = compile_region(
            program, region, ranges, settings, progress.update, renaming.finish()
        )
    show_engine("engine", engine)
    return engine.numpy().tobytes()


def _check_whole(program: Program, support: Mapping[Node, str], lift_buffers: bool) -> None:
    reasons = {node: reason for node, reason in support.items() if reason}
    if reasons:
        raise UnsupportedOperatorException(
            f"{len(reasons)} operator(s) cannot be in an engine, so the program cannot be one engine:\n"
            f"{list_reasons(reasons)}\n"
            "torch_tensorrt.compile runs them in PyTorch, between engines"
        )
    for spec in program.signature.output_specs:
        if spec.kind not in _KINDS or (spec.kind in _OF_BUFFERS and not lift_buffers):
            raise RuntimeError(
                f"the program changes {spec.target} ({spec.kind.name}), which an engine does not keep: "
                "lift_mutable_buffers=True makes it an input and an output of the engine, and what "
                "torch_tensorrt.compile gives has it as a buffer"
            )


_OF_BUFFERS = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
_KINDS = (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION, *_OF_BUFFERS)


def _changes(program: Program) -> dict[Node, Node]:
    """What inputs and buffers are to be, a node of its own for each, by what is changed."""
    targets = {name: node for node, name in program.lifted.items()}
    inputs = {node.name: node for node in program.user_inputs}
    output = program.graph.output_node()
    changes: dict[Node, Node] = {}
    for value, spec in zip(output.args[0], program.signature.output_specs, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            continue
        of_user = spec.kind is OutputKind.USER_INPUT_MUTATION
        target = inputs[spec.target] if of_user else targets[spec.target]
        changes[target] = _own_node(program, value, taken=changes.values())
    return changes


def _own_node(program: Program, value: Node, taken: Collection[Node]) -> Node:
    """The node, or a copy of an input, a weight or what is taken."""
    if value.op == "call_function" and value not in taken:
        return value
    with program.graph.inserting_before(program.graph.output_node()):
        copy = program.graph.call_function(torch.ops.aten.clone.default, (value,))
    copy.meta["val"] = value.meta["val"].clone()
    return copy


def _outputs(program: Program) -> list[Node]:
    """A node of its own for every result. RuntimeError: a result that is not a tensor."""
    output = program.graph.output_node()
    specs = program.signature.output_specs
    pairs = list(zip(output.args[0], specs, strict=True))
    changed = [value for value, spec in pairs if spec.kind is not OutputKind.USER_OUTPUT]
    result: list[Node] = []
    for value, spec in pairs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            continue
        tensor = tensor_of(value) if isinstance(value, Node) else None
        if tensor is None:
            raise RuntimeError(
                f"result {len(result)} of the program is {value!r}, expected a tensor: an engine gives tensors only"
            )
        result.append(_own_node(program, value, taken=[*changed, *result]))
    return result


def _whole_region(
    program: Program, outputs: Sequence[Node], changes: Mapping[Node, Node]
) -> Region:
    nodes = [
        node
        for node in program.graph.nodes
        if node.op == "call_function" and not is_symbolic_node(node)
    ]
    used = {source for node in nodes for source in node.all_input_nodes}
    inputs = [node for node in program.user_inputs if tensor_of(node) is not None]
    region = Region(
        nodes=nodes,
        weights=[node for node in program.lifted if node in used and node not in changes],
        inputs=[*inputs, *(node for node in changes if node not in inputs)],
        outputs=[*outputs, *changes.values()],
    )
    region.update({value: target for target, value in changes.items()})
    return region
