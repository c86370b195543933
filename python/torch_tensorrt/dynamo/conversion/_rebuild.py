"""Changes of a program's graph that need new constants, and the ExportedProgram of the result."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    SymIntArgument,
    TensorArgument,
)
from torch.fx import GraphModule, Node

from torch_tensorrt.dynamo._function_constants import with_constants
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._symbols import fake_mode_of


def adopt_graph(program: Program, module: GraphModule) -> None:
    """Gives a program another graph with the same inputs; an ExportedProgram has to be made of it next."""
    old, new = (graph.find_nodes(op="placeholder") for graph in (program.graph, module.graph))
    copies = dict(zip(old, new, strict=True))
    for source, copy in copies.items():
        copy.meta.setdefault("val", source.meta["val"])
    program.module, program.graph = module, module.graph
    program.lifted = {copies[node]: name for node, name in program.lifted.items()}
    program.user_inputs = [copies[node] for node in program.user_inputs]


class ProgramEditor:
    """Adds constants to a program whose graph somebody else changes, and makes a valid ExportedProgram of it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._constants: dict[str, torch.Tensor] = {}
        self._specs: list[InputSpec] = []
        self.fake_mode = fake_mode_of(node.meta.get("val") for node in program.graph.nodes)

    def add_constant(self, value: Any) -> Node:
        """An input of the graph that is a constant of the program. TypeError: it is not a tensor."""
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"a {type(value).__name__} is an attribute of the graph, expected a tensor: control flow and "
                "submodules are not possible here"
            )
        program = self._program
        name = f"lowering_constant_{len(program.exported.constants) + len(self._constants)}"
        graph = program.graph
        operators = (node for node in graph.nodes if node.op != "placeholder")
        first = program.user_inputs[0] if program.user_inputs else next(operators)
        with graph.inserting_before(first):
            node = graph.placeholder(f"c_{name}")
        constant = value.detach().clone()
        node.meta["val"] = self.fake_mode.from_tensor(constant, static_shapes=True)
        program.lifted[node] = name
        self._constants[name] = constant
        argument = TensorArgument(node.name)
        self._specs.append(InputSpec(InputKind.CONSTANT_TENSOR, argument, name))
        return node

    def finish(self) -> ExportedProgram:
        """The changed program."""
        program, old = self._program, self._program.exported
        program.graph.eliminate_dead_code()
        program.graph.lint()
        program.module.recompile()
        specs = old.graph_signature.input_specs
        kinds = [spec.kind for spec in specs]
        has_inputs = InputKind.USER_INPUT in kinds
        place = kinds.index(InputKind.USER_INPUT) if has_inputs else len(kinds)
        signature = ExportGraphSignature(
            [*specs[:place], *self._specs, *specs[place:]], self._output_specs()
        )
        return with_constants(old, program.module, signature, self._constants)

    def _output_specs(self) -> list[OutputSpec]:
        """Results have the names of the nodes that they are now."""
        results = self._program.graph.output_node().args[0]
        return [
            dataclasses.replace(spec, arg=_argument(spec.arg, result))
            for spec, result in zip(self._program.signature.output_specs, results, strict=True)
        ]


def _argument(old: Any, result: Any) -> Any:
    if not isinstance(result, Node):
        return ConstantArgument(old.name, result)
    if isinstance(result.meta.get("val"), torch.SymInt):
        return SymIntArgument(result.name)
    return TensorArgument(result.name) if isinstance(old, TensorArgument) else old
