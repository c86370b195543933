"""A whole program as one engine, as bytes: what a `.kiln` file holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from torch_tensorrt._arguments import check_program, merge_inputs
from torch_tensorrt.dynamo._autocast import autocast
from torch_tensorrt.dynamo._bindings import Renaming, input_names, output_names
from torch_tensorrt.dynamo._capture import show_engine
from torch_tensorrt.dynamo._compiler import flat_inputs, supported_ranges
from torch_tensorrt.dynamo._partition import list_reasons
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._progress import CompileProgress
from torch_tensorrt.dynamo._ranges import symbol_ranges
from torch_tensorrt.dynamo._region import Region, compile_region
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._symbols import is_symbolic_node, tensor_of
from torch_tensorrt.dynamo.conversion._apply import lower


def convert_exported_program_to_serialized_trt_engine(
    exported_program: ExportedProgram,
    inputs: Sequence[Any] | None = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    arg_input_binding_names: Any = None,
    kwarg_input_binding_names: Mapping[str, Any] | None = None,
    output_binding_names: Any = None,
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
        options: see `CompilationSettings`.

    Returns:
        An engine file: write it as `.kiln`, load it with `kiln.Engine`, or give it to
        `torch_tensorrt.runtime.TorchTensorRTModule`. The engine's inputs are the tensors among the program's, in order.

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
    program = lower(Program.decomposed(exported_program), settings)
    ranges = symbol_ranges(program, flat_inputs(program, args, kwarg_inputs))
    names_in = input_names(program, arg_input_binding_names, kwarg_input_binding_names)
    names_out = output_names(program, output_binding_names)
    ranges, support = supported_ranges(program, settings, ranges)
    _check_whole(program, support)
    renaming = Renaming(program)
    renaming.set(program.user_inputs, names_in)
    outputs = _outputs(program)
    renaming.set(outputs, [name or f"output{index}" for index, name in enumerate(names_out)])
    region = _whole_region(program, outputs)
    with CompileProgress(1) as progress:
        progress.next_engine()
        engine = compile_region(
            program, region, ranges, settings, progress.update, renaming.finish()
        )
    show_engine("engine", engine)
    return engine.numpy().tobytes()


def _check_whole(program: Program, support: Mapping[Node, str]) -> None:
    reasons = {node: reason for node, reason in support.items() if reason}
    if reasons:
        raise RuntimeError(
            f"{len(reasons)} operator(s) cannot be in an engine, so the program cannot be one engine:\n"
            f"{list_reasons(reasons)}\n"
            "torch_tensorrt.compile runs them in PyTorch, between engines"
        )
    for spec in program.signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise RuntimeError(
                f"the program changes {spec.target} ({spec.kind.name}), which an engine alone cannot do: "
                "torch_tensorrt.compile keeps it in PyTorch"
            )


def _outputs(program: Program) -> list[Node]:
    """A node of its own for every result. RuntimeError: a result that is not a tensor."""
    output = program.graph.output_node()
    result: list[Node] = []
    for index, value in enumerate(output.args[0]):
        tensor = tensor_of(value) if isinstance(value, Node) else None
        if tensor is None:
            raise RuntimeError(
                f"result {index} of the program is {value!r}, expected a tensor: an engine gives tensors only"
            )
        if value.op != "call_function" or value in result:  # an input, a weight, or twice the same
            with program.graph.inserting_before(output):
                value = program.graph.call_function(torch.ops.aten.clone.default, (value,))
            value.meta["val"] = tensor.clone()
        result.append(value)
    return result


def _whole_region(program: Program, outputs: Sequence[Node]) -> Region:
    nodes = [
        node
        for node in program.graph.nodes
        if node.op == "call_function" and not is_symbolic_node(node)
    ]
    used = {source for node in nodes for source in node.all_input_nodes}
    return Region(
        nodes=nodes,
        weights=[node for node in program.lifted if node in used],
        inputs=[node for node in program.user_inputs if tensor_of(node) is not None],
        outputs=list(outputs),
    )
