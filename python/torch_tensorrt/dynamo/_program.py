"""An exported program made ready for partitioning: functional, without checks, sizes computed from its inputs."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from torch_tensorrt.dynamo._batch_statistics import correct_batch_statistics
from torch_tensorrt.dynamo._capture import capture
from torch_tensorrt.dynamo._contract import (
    Condition,
    asserted,
    asserted_conditions,
    guard_conditions,
    shape_of,
    symbol_sizes,
)
from torch_tensorrt.dynamo._devices import make_on_engine_device
from torch_tensorrt.dynamo._functional import InPlace, as_exported, functional
from torch_tensorrt.dynamo._lstm_states import correct_lstm_states
from torch_tensorrt.dynamo._names import argument_names
from torch_tensorrt.dynamo._serialize import Records
from torch_tensorrt.dynamo._symbols import (
    Carrier,
    SizeNodes,
    SymbolError,
    find_carriers,
    free_symbols,
    is_symbolic_node,
    tensor_of,
)
from torch_tensorrt.logging import GRAPHS

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LIFTED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ)
MUTATIONS = (
    OutputKind.BUFFER_MUTATION,
    OutputKind.PARAMETER_MUTATION,
    OutputKind.USER_INPUT_MUTATION,
)

_COPIES = (torch.ops.aten.clone.default, torch.ops.aten.lift_fresh_copy.default)


class Program:
    """A decomposed ExportedProgram and what partitioning asks about it. Its graph is ours to change."""

    def __init__(
        self, exported: ExportedProgram, *, guarded: bool = False, is_retraced: bool = True
    ) -> None:
        """Takes a program that is functional already, or as functional as it can be, as `decomposed` makes one.

        `guarded`: whoever calls it checks every size against its range before, as torch.compile does. `is_retraced`:
        nodes have the names that PyTorch's tracer gives, not those of the export.
        """
        self.exported = exported
        self.is_retraced = is_retraced
        self.guarded = guarded
        self.in_place = InPlace(exported.graph)
        self.module = self.exported.graph_module
        self.graph: Graph = self.module.graph
        self.signature = self.exported.graph_signature
        placeholders = {node.name: node for node in self.graph.nodes if node.op == "placeholder"}
        specs = [(placeholders[spec.arg.name], spec) for spec in self.signature.input_specs]
        # Name in the state dict, or that of a constant, for each placeholder that is not an input of the user's.
        self.lifted: dict[Node, str] = {
            node: str(spec.target) for node, spec in specs if spec.kind in _LIFTED
        }
        self.user_inputs: list[Node] = [
            node for node, spec in specs if spec.kind is InputKind.USER_INPUT
        ]
        self.records: Records = {}  # of nodes that were serialised
        self._input_specs = dict(specs)
        self.mutated = {
            spec.target for spec in self.signature.output_specs if spec.kind in MUTATIONS
        }
        correct_lstm_states(self.graph)
        correct_batch_statistics(self.graph)
        self._remove_copies_of_constants()
        self._remove_checks()
        self._compute_sizes_from_inputs()
        make_on_engine_device(self.graph, self.in_place.shared)
        logger.log(GRAPHS, "program to partition:\n%s", self.graph)

    @classmethod
    def decomposed(
        cls,
        exported: ExportedProgram,
        *,
        guarded: bool = False,
        decompositions: Mapping[Any, Callable[..., Any]] = MappingProxyType({}),
    ) -> Program:
        """Of any ExportedProgram, which stays as it is. Of its operators those in `decompositions` are decomposed."""
        with capture("decompose", exported.graph) as after:
            result = in_fresh_thread(lambda: functional(exported, decompositions))
            after.append(result.graph)
        return cls(result, guarded=guarded)

    @classmethod
    def as_exported(cls, exported: ExportedProgram) -> Program | None:
        """Of an ExportedProgram whose operators engines are likely to take as they are; None of any other."""
        with capture("decompose", exported.graph) as after:
            result = as_exported(exported)
            if result is None:
                return None
            after.append(result.graph)
        return cls(result, is_retraced=False)

    def input_spec(self, node: Node) -> Any:
        return self._input_specs[node]

    def weight(self, node: Node) -> Any:
        """The value of a lifted placeholder."""
        name = self.lifted[node]
        state = self.exported.state_dict
        return state[name] if name in state else self.exported.constants[name]

    def is_constant(self, node: Node) -> bool:
        """Whether a node is a weight that nothing changes, so that it can be part of an engine."""
        return (
            node in self.lifted
            and self.lifted[node] not in self.mutated
            and node not in self.in_place.shared
            and tensor_of(node) is not None
        )

    @cached_property
    def guards(self) -> list[Condition]:
        """What the program relies on of the sizes of its inputs: torch.export's guards."""
        code = getattr(self.exported, "_guards_code", ())
        in_spec = self.exported.call_spec.in_spec
        return guard_conditions(code, in_spec, argument_names(self.exported))

    @cached_property
    def assertions(self) -> list[Condition]:
        """What its author says of them: the assertions that were in its graph."""
        shapes = [shape_of(tensor_of(node)) for node in self.user_inputs]
        return asserted_conditions(self._asserted, symbol_sizes(shapes, {}).names)

    @cached_property
    def data_symbols(self) -> dict[sympy.Symbol, Node]:
        """Symbols of sizes that depend on data, and the nodes that find them."""
        known: set[sympy.Symbol] = set()
        found: dict[sympy.Symbol, Node] = {}
        for node in self.graph.nodes:
            value = node.meta.get("val")
            values = value if isinstance(value, (list, tuple)) else [value]
            sizes = [size for each in values for size in getattr(each, "shape", (each,))]
            new = free_symbols(sizes) - known
            known |= new
            if node.op == "call_function":
                found |= dict.fromkeys(sorted(new, key=str), node)
        return found

    def size_carriers(self) -> dict[sympy.Symbol, Carrier[Node]]:
        tensors = [(node, tensor_of(node)) for node in self.user_inputs]
        return find_carriers((node, tensor) for node, tensor in tensors if tensor is not None)

    def _remove_copies_of_constants(self) -> None:
        """`x[x > 2] = 0.5` copies a constant that lies on the CPU, whatever x is on. A copy is no constant, and what is
        on the CPU is in no engine for a GPU: who reads it may read the constant itself."""
        for node in list(self.graph.nodes):
            is_copy = node.target in _COPIES and len(node.args) == 1 and not node.kwargs
            if not is_copy or node in self.in_place.shared or not self.is_constant(node.args[0]):
                continue
            if all(_only_reads(user) for user in node.users):
                node.replace_all_uses_with(node.args[0])
                self.graph.erase_node(node)

    def _remove_checks(self) -> None:
        """Drops assertions on metadata and on sizes of inputs: what calls the program checks its inputs first, and gets
        what was asserted of sizes from `assertions`."""
        inputs = free_symbols(size for node in self.user_inputs for size in _shape(node))
        statements = asserted(self.graph, inputs)
        self._asserted = list(statements.values())
        for node in list(self.graph.nodes):
            if node.target is torch.ops.aten._assert_tensor_metadata.default or node in statements:
                self.graph.erase_node(node)
        self.graph.eliminate_dead_code()

    def _compute_sizes_from_inputs(self) -> None:
        """Rewrites every size as arithmetic on sizes of the inputs, so that no size depends on a tensor in between."""
        first = next(node for node in self.graph.nodes if node.op != "placeholder")
        sizes = SizeNodes(self.graph, self.size_carriers())
        for node in list(self.graph.nodes):
            if node.op != "call_function" or not isinstance(
                node.meta.get("val"), (int, torch.SymInt)
            ):
                continue
            if not is_symbolic_node(node):
                continue
            try:
                with self.graph.inserting_before(first):
                    size = (
                        sizes.node_for(node.meta["val"])
                        if isinstance(node.meta["val"], torch.SymInt)
                        else None
                    )
            except SymbolError:
                continue  # depends on the values of a tensor: computed where it is
            _replace(node, node.meta["val"] if size is None else size)
        self.graph.eliminate_dead_code()


def in_fresh_thread(function: Callable[[], T]) -> T:
    """Calls a function where no tracer of PyTorch's is active: torch.compile may be in the middle of a trace here."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(contextvars.copy_context().run, function).result()


def _only_reads(node: Node) -> bool:
    """Whether no result of an operator shares memory with what it is given."""
    return isinstance(node.target, torch._ops.OpOverload) and all(
        argument.alias_info is None for argument in node.target._schema.arguments
    )


def _shape(node: Node) -> tuple[Any, ...]:
    tensor = tensor_of(node)
    return tuple(tensor.shape) if tensor is not None else ()


def _replace(node: Node, value: Node | int) -> None:
    if isinstance(value, Node):
        node.replace_all_uses_with(value)
        return
    for user in list(node.users):
        user.args = map_arg(user.args, lambda arg: value if arg is node else arg)
        user.kwargs = map_arg(user.kwargs, lambda arg: value if arg is node else arg)
