"""A whole program as one engine."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from torch_tensorrt.dynamo._compiler import flat_inputs
from torch_tensorrt.dynamo._partition import check_support
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._ranges import symbol_ranges
from torch_tensorrt.dynamo._region import Region, compile_region
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._symbols import is_symbolic_node, tensor_of


def whole_engine(
    exported: ExportedProgram, args: Any, kwargs: Any, settings: CompilationSettings
) -> bytes:
    """The bytes of an engine whose inputs and outputs are the program's. RuntimeError: what it cannot take."""
    program = Program.decomposed(exported)
    ranges = symbol_ranges(program, flat_inputs(program, args, kwargs))
    reasons = {node: why for node, why in check_support(program, settings).items() if why}
    if reasons:
        lines = "\n".join(f"  {node.name} ({node.target}): {why}" for node, why in reasons.items())
        raise RuntimeError(f"{len(reasons)} operator(s) cannot be in an engine:\n{lines}")
    if program.mutated:
        raise RuntimeError(
            f"the method changes {', '.join(sorted(map(str, program.mutated)))}, which an engine cannot: compile it to "
            "a module instead"
        )
    outputs = _outputs(program)
    nodes = [
        node
        for node in program.graph.nodes
        if node.op == "call_function" and not is_symbolic_node(node)
    ]
    used = {source for node in nodes for source in node.all_input_nodes}
    region = Region(
        nodes=nodes,
        weights=[node for node in program.lifted if node in used],
        inputs=[node for node in program.user_inputs if tensor_of(node) is not None],
        outputs=outputs,
    )
    return compile_region(program, region, ranges, settings).numpy().tobytes()


def _outputs(program: Program) -> list[Node]:
    """A node of its own for every result."""
    output = program.graph.output_node()
    results: list[Node] = []
    for value in output.args[0]:
        tensor = tensor_of(value) if isinstance(value, Node) else None
        if tensor is None:
            raise RuntimeError(f"a result is {value!r}, expected a tensor: engines give tensors")
        if value.op != "call_function" or value in results:
            with program.graph.inserting_before(output):
                value = program.graph.call_function(torch.ops.aten.clone.default, (value,))
            value.meta["val"] = tensor.clone()
        results.append(value)
    return results
