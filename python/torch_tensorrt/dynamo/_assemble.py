"""Puts compiled regions and what stays in PyTorch together again, as a module that is called like the original."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export.graph_signature import ConstantArgument, OutputKind
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from torch_tensorrt._operator import PART_DTYPES, execute_engine, execute_engine_in_place, hold
from torch_tensorrt.dynamo._calling import set_calling, shorten_calls
from torch_tensorrt.dynamo._checks import InputSizes, add_input_checks, refuse_tracing
from torch_tensorrt.dynamo._contract import as_guards, ranges_of
from torch_tensorrt.dynamo._layouts import node_taken, order_taken
from torch_tensorrt.dynamo._names import argument_names
from torch_tensorrt.dynamo._partition import Partition
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._ranges import as_constraints
from torch_tensorrt.dynamo._region import Region
from torch_tensorrt.dynamo._strides import has_gaps
from torch_tensorrt.dynamo._symbols import Range, is_symbolic_node

# Key of `ProgramInfo` in the `meta` of a compiled module.
INFO_KEY = "torch_tensorrt"


@dataclass(frozen=True)
class ProgramInfo:
    """What a compiled module knows about the program that it was made from; saving needs it."""

    in_spec: pytree.TreeSpec  # of (args, kwargs)
    out_spec: pytree.TreeSpec
    argument_names: list[str]
    range_constraints: dict[sympy.Symbol, Any]
    example_inputs: Any


@dataclass(frozen=True)
class CompiledRegion:
    region: Region
    engine: torch.Tensor


def assemble(
    program: Program,
    partition: Partition,
    compiled: Mapping[int, CompiledRegion],
    ranges: Mapping[sympy.Symbol, Range],
) -> GraphModule:
    """Builds the module: `compiled` has an engine for every level of the partition that has one."""
    builder = _Builder(program)
    in_engine = {node for part in compiled.values() for node in part.region.nodes}
    last = max(partition.level.values(), default=0)
    by_level: list[list[Node]] = [[] for _ in range(last + 1)]
    for node in program.graph.nodes:
        if (
            node.op in ("call_function", "get_attr")
            and node not in in_engine
            and not is_symbolic_node(node)
            and not (node.op == "get_attr" and in_engine.issuperset(node.users))
            and not order_taken(node)  # engines take what it is a view of
        ):
            by_level[partition.level[node]].append(node)
    for level, nodes in enumerate(by_level):
        if level in compiled:
            builder.add_engine(compiled[level])
        for node in nodes:
            builder.add(node)
    builder.add_outputs()
    module = builder.finish(as_constraints(program, ranges))
    info: ProgramInfo = module.meta[INFO_KEY]
    add_input_checks(module, info.argument_names, info.in_spec, builder.input_sizes(info))
    refuse_tracing(module)
    return module


def _copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides. `clone` would close gaps, and join what overlaps."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or not has_gaps(tensor):
        return tensor.clone()
    return copy.deepcopy(tensor)


_ATEN = torch.ops.aten


def _is_complex(node: Node) -> bool:
    return node.meta["val"].dtype in PART_DTYPES


def _engine_value(node: Node) -> torch.Tensor:
    """A tensor as an engine has it."""
    value = node.meta["val"]
    return torch.view_as_real(value.resolve_conj()) if _is_complex(node) else value


class _Builder:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._graph = Graph()
        self._attributes: dict[str, Any] = {}
        self._copies: dict[Node, Node] = {}
        self._engines: list[torch.Tensor] = []
        for node in program.user_inputs:
            self._copies[node] = self._graph.placeholder(node.name)
            self._copies[node].meta["val"] = node.meta.get("val")

    def add(self, node: Node) -> None:
        """A node that stays in PyTorch, if the engine in front did not need it already."""
        if node not in self._copies:
            self.copy(node)

    def copy(self, node: Node) -> None:
        """A node that stays in PyTorch."""
        if node.op == "get_attr":  # a submodule of control flow
            self._attributes[str(node.target)] = getattr(self._program.module, str(node.target))
        copy = self._graph.node_copy(node, self._value)
        copy.meta = {key: node.meta[key] for key in ("val", "stack_trace") if key in node.meta}
        self._copies[node] = copy

    def add_engine(self, part: CompiledRegion) -> None:
        name = f"engine_{len(self._engines)}"
        self._engines.append(part.engine)
        region = part.region
        inputs = [self._parts(node_taken(node)) for node in region.inputs]
        engine = self._get_attr(name, part.engine)
        if region.updates:
            split = len(inputs) - len(region.updates)
            arguments = (inputs[:split], inputs[split:], engine, region.spec)
            call = self._graph.call_function(execute_engine_in_place, arguments)
        else:
            call = self._graph.call_function(execute_engine, (inputs, engine, region.spec))
        call.meta["val"] = [_engine_value(node) for node in region.results]
        for index, node in enumerate(region.results):
            result = self._graph.call_function(operator.getitem, (call, index))
            result.meta["val"] = _engine_value(node)
            if _is_complex(node):
                result = self._graph.call_function(_ATEN.view_as_complex.default, (result,))
                result.meta["val"] = node.meta["val"]
            self._copies[node] = result
        for node, source in region.updates.items():  # from here on they are the same tensor
            self._copies[node] = self._value(source)

    def _parts(self, node: Node) -> Node:
        """What an engine takes of a tensor: the parts of a complex one side by side."""
        value = self._value(node)
        if not _is_complex(node):
            return value
        plain = self._graph.call_function(_ATEN.resolve_conj.default, (value,))
        plain.meta["val"] = node.meta["val"]
        parts = self._graph.call_function(_ATEN.view_as_real.default, (plain,))
        parts.meta["val"] = _engine_value(node)
        return parts

    def add_outputs(self) -> None:
        """The user's results; changed buffers and inputs are written back first."""
        results = []
        produced = next(iter(reversed(self._program.graph.nodes))).args[0]
        for node, spec in zip(produced, self._program.signature.output_specs, strict=True):
            if spec.kind is OutputKind.USER_OUTPUT:
                constant = isinstance(spec.arg, ConstantArgument)
                results.append(spec.arg.value if constant else self._value(node))
            elif spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
                self._write_back(self._lifted_by_name(spec.target), node)
            elif spec.kind is OutputKind.USER_INPUT_MUTATION:
                inputs = {source.name: source for source in self._program.user_inputs}
                self._write_back(inputs[spec.target], node)
        self._graph.output(tuple(results))

    def finish(self, range_constraints: dict[sympy.Symbol, Any]) -> GraphModule:
        call_spec = self._program.exported.call_spec
        names = argument_names(self._program.exported)
        set_calling(self._graph, names, call_spec.in_spec, call_spec.out_spec)
        module = GraphModule(self._attributes, self._graph)
        exported = self._program.exported
        module.meta[INFO_KEY] = ProgramInfo(
            in_spec=call_spec.in_spec,
            out_spec=call_spec.out_spec,
            argument_names=names,
            range_constraints=range_constraints,
            example_inputs=exported.example_inputs,
        )
        for engine in self._engines:
            hold(module, engine)
        shorten_calls(module)
        return module.eval()

    def input_sizes(self, info: ProgramInfo) -> InputSizes:
        """What has to be true of the sizes of the inputs: shapes, guards and assertions of the program."""
        program = self._program
        code = list(getattr(program.exported, "_guards_code", ()))
        code += as_guards(program.assertions, info.in_spec, info.argument_names)
        conditions = [*program.guards, *program.assertions]
        return InputSizes(ranges_of(info.range_constraints), conditions, code)

    def _write_back(self, target: Node, value: Node) -> None:
        if self._value(target) is self._value(value):
            return  # an engine wrote there
        copy = self._graph.call_function(
            torch.ops.aten.copy_.default, (self._value(target), self._value(value))
        )
        copy.meta["val"] = target.meta["val"]

    def _lifted_by_name(self, name: str) -> Node:
        return next(node for node, lifted in self._program.lifted.items() if lifted == name)

    def _value(self, node: Any) -> Any:
        if not isinstance(node, Node):
            return node
        if node not in self._copies:  # sizes and weights are copied when they are needed
            if node in self._program.lifted:
                self._copies[node] = self._weight(node)
            else:
                self.copy(node)
        return self._copies[node]

    def _weight(self, node: Node) -> Node:
        """A weight that PyTorch still needs: a copy, so that changes to the model do not reach half of the program."""
        value = self._program.weight(node)
        own = _copy_of(value) if isinstance(value, torch.Tensor) else value
        if isinstance(value, torch.Tensor):  # which may have been moved to the CPU meanwhile
            own = own.to(node.meta["val"].device)
        result = self._get_attr(self._program.lifted[node], own)
        result.meta["val"] = node.meta["val"]
        return result

    def _get_attr(self, name: str, value: Any) -> Node:
        self._attributes[name] = value
        return self._graph.create_node("get_attr", name)
