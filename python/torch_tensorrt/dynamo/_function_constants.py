"""Constants of the functions that flex_attention is given: `score + torch.tensor(0.5)`.

torch.export leaves them in the function's graph, and its own `run_decompositions` ends with an error at them. Captured
tensors are arguments of the call, and so are these then.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch._export.verifier import TrainingIRVerifier
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    TensorArgument,
)
from torch.fx import GraphModule, Node

from torch_tensorrt.dynamo._symbols import copied_graph, fake_mode_of, get_attribute

_TARGET = torch.ops.higher_order.flex_attention
# What a tracer puts behind a constant; `detach_` would keep the program from being functional.
_COPIES = {
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.lift_fresh_copy.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.detach_.default,
}


def lift_function_constants(exported: ExportedProgram) -> ExportedProgram:
    """A program whose calls of flex_attention get constants of their functions as arguments; itself without any."""
    if not exported.graph.find_nodes(op="call_function", target=_TARGET):
        return exported
    lifter = _Lifter(exported)
    for node in lifter.graph.find_nodes(op="call_function", target=_TARGET):
        # score_mod and mask_mod, and the tensors that each of them captured.
        for function, captured in ((node.args[3], 7), (node.args[4][-1], 8)):
            new = lifter.constants_of(function)
            node.update_arg(captured, (*node.args[captured], *new))
    return lifter.finish()


class _Lifter:
    def __init__(self, exported: ExportedProgram) -> None:
        self._exported = exported
        self._module = GraphModule(exported.graph_module, copied_graph(exported.graph))
        self._module.meta.update(exported.graph_module.meta)
        self.graph = self._module.graph
        self._fake_mode = fake_mode_of(node.meta.get("val") for node in self.graph.nodes)
        self._constants: dict[str, torch.Tensor] = {}
        self._specs: list[InputSpec] = []
        self._done: dict[str, list[Node]] = {}

    def constants_of(self, function: Node) -> list[Node]:
        """Inputs of the program for the constants of a function, which takes them behind its other arguments."""
        name = str(function.target)
        if name not in self._done:
            owner = get_attribute(self._module, name)
            graph = copied_graph(owner.graph)
            self._done[name] = [
                self._lift(node, getattr(owner, str(node.target)))
                for node in graph.find_nodes(op="get_attr")
                if isinstance(getattr(owner, str(node.target)), torch.Tensor)
            ]
            setattr(self._module, name, GraphModule(owner, graph))
        return self._done[name]

    def _lift(self, node: Node, value: torch.Tensor) -> Node:
        """The input of the program; in the function's graph, the node becomes its last argument."""
        last = node.graph.find_nodes(op="placeholder")[-1]
        with node.graph.inserting_after(last):
            argument = node.graph.placeholder(f"constant_{len(self._constants)}")
        argument.meta.update(node.meta)
        node.replace_all_uses_with(argument)
        node.graph.erase_node(node)
        _remove_copies(argument)
        name = f"function_constant_{len(self._constants)}"
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            placeholder = self.graph.placeholder(f"c_{name}")
        placeholder.meta["val"] = self._fake_mode.from_tensor(value, static_shapes=True)
        self._constants[name] = value
        spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(placeholder.name), name)
        self._specs.insert(0, spec)  # the graph has them in that order, too
        return placeholder

    def finish(self) -> ExportedProgram:
        if not self._constants:
            return self._exported
        self._module.recompile()
        signature = self._exported.graph_signature
        specs = [*self._specs, *signature.input_specs]
        new = ExportGraphSignature(specs, signature.output_specs)
        return with_constants(self._exported, self._module, new, self._constants)


def with_constants(
    old: ExportedProgram,
    module: GraphModule,
    signature: ExportGraphSignature,
    constants: Mapping[str, torch.Tensor],
) -> ExportedProgram:
    """A program with another graph, whose signature names constants beyond those that the old one has."""
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=signature,
        state_dict=old.state_dict,
        range_constraints=old.range_constraints,
        module_call_graph=old.module_call_graph,
        example_inputs=old.example_inputs,
        constants={**old.constants, **constants},
        verifiers=[TrainingIRVerifier],  # may change tensors in place until it is decomposed
    )


def _remove_copies(argument: Node) -> None:
    while copies := [user for user in argument.users if user.target in _COPIES]:
        for copy in copies:
            copy.replace_all_uses_with(argument)
            copy.graph.erase_node(copy)
