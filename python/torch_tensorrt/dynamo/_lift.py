"""A compiled module as an ExportedProgram, without tracing it again.

The graph is complete already; what PyTorch wants besides is that weights and engines are inputs of the graph, listed
in a signature.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch._export.verifier import TrainingIRVerifier
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    SymIntArgument,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen

from torch_tensorrt._operator import engine_call, engine_calls, execute_engine_in_place
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._assemble import INFO_KEY, ProgramInfo
from torch_tensorrt.dynamo._calling import flat_results
from torch_tensorrt.dynamo._checks import SIZES_KEY
from torch_tensorrt.dynamo._contract import as_guards, ranges_of, shape_of, symbol_sizes
from torch_tensorrt.dynamo._names import argument_names
from torch_tensorrt.dynamo._symbols import fake_mode_of, free_symbols, get_attribute


def program_info(gm: GraphModule) -> ProgramInfo | None:
    return getattr(gm, "meta", {}).get(INFO_KEY)


def lift(gm: GraphModule, example_inputs: Any = None) -> ExportedProgram:
    """The ExportedProgram of a compiled module."""
    info = program_info(gm)
    if info is None:
        raise ValueError(
            "this module was not made by torch_tensorrt.compile, so its inputs are not known: save it "
            "with retrace=True and arg_inputs"
        )
    lifting = _Lifting(gm)
    root = GraphModule(lifting.submodules, lifting.graph)
    signature = ModuleCallSignature([], [], info.in_spec, info.out_spec, info.argument_names)
    used = free_symbols(size for node in lifting.tensors() for size in node.meta["val"].shape)
    program = ExportedProgram(
        root=root,
        graph=root.graph,
        graph_signature=ExportGraphSignature(lifting.input_specs, lifting.output_specs),
        state_dict=lifting.state_dict,
        range_constraints={
            key: value
            for key, value in info.range_constraints.items()
            if key.free_symbols <= used  # sizes such as 2 * d have ranges too
        },
        module_call_graph=[ModuleCallEntry("", signature)],
        example_inputs=example_inputs if example_inputs is not None else info.example_inputs,
        constants=lifting.constants,
        verifiers=[TrainingIRVerifier] if lifting.changes_in_place else None,
    )
    add_guards(program, gm)
    return program


def add_guards(program: ExportedProgram, gm: GraphModule) -> None:
    """Gives a program the guards of the one that its module was compiled from: torch.export's modules check them."""
    if SIZES_KEY not in gm.meta:
        return
    values = {
        node.name: node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")
    }
    shapes = [
        shape_of(values.get(spec.arg.name))
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    ]
    sizes = symbol_sizes(shapes, ranges_of(program.range_constraints))
    # torch.export's modules do not look at sizes such as 2 * d where no size is d.
    unseen = sizes.bounds + sizes.equalities if sizes.bounds else []
    hidden = as_guards(unseen, program.call_spec.in_spec, argument_names(program))
    known = getattr(program, "_guards_code", [])
    program._guards_code = list(dict.fromkeys([*known, *gm.meta[SIZES_KEY].guards_code, *hidden]))


def changed_buffers(program: ExportedProgram) -> list[str]:
    """Names of the buffers that a program changes: at its end, or in engines."""
    names = {
        spec.arg.name: str(spec.target)
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.BUFFER
    }
    in_place = [
        names[node.name]
        for call in engine_calls(program.graph)
        for node in engine_call(call).state
        if node.name in names
    ]
    return list(dict.fromkeys([*program.graph_signature.buffers_to_mutate.values(), *in_place]))


class _Lifting:
    """Moves attributes of a graph module to the front of its inputs, and write-backs to the front of its outputs."""

    def __init__(self, gm: GraphModule) -> None:
        with quiet_torch():
            self.graph: Graph = copy.deepcopy(gm.graph)
        self.graph.set_codegen(CodeGen())
        self.state_dict: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}
        self.submodules: dict[str, Any] = {}  # of control flow
        self._gm = gm
        self._fake_mode = self._find_fake_mode()
        self._user_inputs = self.graph.find_nodes(op="placeholder")
        self.input_specs = self._lift_attributes() + [
            self._user_input_spec(node) for node in self._user_inputs
        ]
        self.output_specs = self._lift_outputs()
        self.changes_in_place = bool(
            self.graph.find_nodes(op="call_function", target=execute_engine_in_place)
        )
        self.graph.lint()

    def tensors(self) -> list[Node]:
        return [node for node in self.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]

    def _find_fake_mode(self) -> FakeTensorMode:
        return fake_mode_of(node.meta.get("val") for node in self._gm.graph.nodes)

    def _lift_attributes(self) -> list[InputSpec]:
        specs = []
        first = next(iter(self.graph.nodes))
        self._attribute_of: dict[Node, str] = {}
        for node in self.graph.find_nodes(op="get_attr"):
            name = str(node.target)
            value = get_attribute(self._gm, name)
            if not isinstance(value, torch.Tensor):
                self.submodules[name] = value
                continue
            with self.graph.inserting_before(first):
                placeholder = self.graph.placeholder("b_" + name.replace(".", "_"))
            placeholder.meta["val"] = self._fake_mode.from_tensor(value, static_shapes=True)
            node.replace_all_uses_with(placeholder)
            self.graph.erase_node(node)
            self.state_dict[name] = value
            self._attribute_of[placeholder] = name
            specs.append(
                InputSpec(InputKind.BUFFER, TensorArgument(placeholder.name), name, persistent=True)
            )
        return specs

    def _user_input_spec(self, node: Node) -> InputSpec:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            argument: Any = TensorArgument(node.name)
        elif isinstance(value, torch.SymInt):
            argument = SymIntArgument(node.name)
        else:
            argument = ConstantArgument(node.name, value)
        return InputSpec(InputKind.USER_INPUT, argument, None)

    def _lift_outputs(self) -> list[OutputSpec]:
        specs, values = [], []
        for node in self.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default):
            target, value = node.args
            if target in self._attribute_of:
                specs.append(
                    OutputSpec(
                        OutputKind.BUFFER_MUTATION,
                        TensorArgument(value.name),
                        self._attribute_of[target],
                    )
                )
            else:
                specs.append(
                    OutputSpec(
                        OutputKind.USER_INPUT_MUTATION, TensorArgument(value.name), target.name
                    )
                )
            values.append(value)
            node.replace_all_uses_with(value)
            self.graph.erase_node(node)
        results = flat_results(self.graph)
        specs += [
            OutputSpec(OutputKind.USER_OUTPUT, _output_argument(value), None) for value in results
        ]
        self.graph.output_node().args = ((*values, *results),)
        return specs


def _output_argument(value: Any) -> Any:
    if not isinstance(value, Node):
        return ConstantArgument("", value)
    if isinstance(value.meta.get("val"), torch.SymInt):
        return SymIntArgument(value.name)
    return TensorArgument(value.name)
