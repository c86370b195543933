"""Divides a program between engines and PyTorch.

Every node has a *level*: how often a path that leads to it changes between nodes that an engine
takes and nodes that it does not. Engine nodes of one level become one engine. A path that leaves
such a region comes back at a higher level, so regions never wait for each other in a circle, and
there are no more engines than the longest path needs.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.fx import Graph, Node

from kiln import KilnError, Model, NodeSupport
from torch_tensorrt._operator import is_engine_dtype
from torch_tensorrt.dynamo._batch_statistics import BATCH_NORMS, statistics_dtypes
from torch_tensorrt.dynamo._contractions import has_contractions
from torch_tensorrt.dynamo._devices import engine_device, tensor_values
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._ranges import as_constraints
from torch_tensorrt.dynamo._serialize import serialize, weight_views
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._symbols import (
    Range,
    free_symbols,
    is_comparison,
    is_symbolic_node,
    tensor_of,
)
from torch_tensorrt.dynamo.conversion._registry import DYNAMO_CONVERTERS


@dataclass
class Partition:
    """`regions` run in engines, each a list of nodes in the order of the graph. `left_out` says why others do not."""

    regions: dict[int, list[Node]]  # by level
    level: dict[Node, int]
    left_out: dict[Node, str] = field(default_factory=dict)

    def drop(self, level: int, reason: str) -> None:
        """Leaves a region to PyTorch."""
        for node in self.regions.pop(level):
            self.left_out[node] = reason


def check_support(
    program: Program,
    settings: CompilationSettings,
    ranges: Mapping[sympy.Symbol, Range] | None = None,
) -> dict[Node, str]:
    """For every node that computes tensors: why it cannot be in an engine; "" if it can.

    `ranges` are those of the symbols, the program's own when None.
    """
    weights = [node for node in program.lifted if tensor_of(node) is not None]
    views = weight_views((program.lifted[node], program.weight(node)) for node in weights)
    constraints = as_constraints(program, ranges or {})
    serialized = serialize(program.module, program.signature, constraints, program.records)
    try:
        answers = Model.from_memory(serialized.json, views).check()
    except KilnError as error:  # the program as a whole cannot be read
        answers = [
            NodeSupport(node.name, str(node.target), False, str(error)) for node in serialized.nodes
        ]
    reasons: dict[Node, str] = {}
    device = engine_device(program.graph)
    # Programs for GPUs do not wait for what the data says.
    waits = device.type == "cpu" and all(
        target.startswith("cpu") for target in settings.targets_for(device)
    )
    for node, answer in zip(serialized.nodes, answers, strict=True):
        if is_symbolic_node(node):
            continue
        reason = (
            _veto(node, settings)
            or _veto_device(program, node, device)
            or _veto_mutation(node, answer)
            or _veto_data_size(program, node, waits, settings)
            or (None if waits else _veto_repeats(answer) or _veto_kernels(answer))
        )
        if node in program.in_place.shared:
            reason = reason or "its memory is changed in place"
        if reason is None:
            reason = "" if answer.supported else _refusal(node, answer, settings)
        reasons[node] = reason
    _leave_unknown_dtypes(program.graph, reasons)
    return reasons


_ATEN = torch.ops.aten
_OTHER_NORMS = (_ATEN.native_layer_norm.default, _ATEN.native_group_norm.default)


def _leave_unknown_dtypes(graph: Graph, reasons: dict[Node, str]) -> None:
    """Leaves to PyTorch what computes with values whose dtype is not what the program says: an engine is compiled for
    one. Such are the statistics that a norm of 16-bit numbers gives besides its result."""
    unknown: set[Node] = set()
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is operator.getitem and node.args[1] > 0 and _has_other_dtypes(node.args[0]):
            unknown.add(node)
        elif found := [arg for arg in node.all_input_nodes if arg in unknown]:
            if reasons.get(node) == "":
                reasons[node] = f"the dtype of {found[0].name} is not what the program says"
            if node.kwargs.get("dtype") is None:
                unknown.add(node)


def _has_other_dtypes(norm: Node) -> bool:
    """Whether the results after the first may have other dtypes than the exporter writes down."""
    if norm.target in BATCH_NORMS:
        dtypes = statistics_dtypes(norm)
        if dtypes is not None:
            return dtypes != [value.dtype for value in norm.meta["val"]]
        return not _operand_dtypes(norm).isdisjoint((torch.float16, torch.bfloat16))
    return norm.target in _OTHER_NORMS and len(_operand_dtypes(norm)) > 1


def _operand_dtypes(node: Node) -> set[torch.dtype]:
    return {value.dtype for arg in node.all_input_nodes for value in tensor_values(arg)}


def _refusal(node: Node, answer: NodeSupport, settings: CompilationSettings) -> str:
    converters = DYNAMO_CONVERTERS.refusals(node, settings)
    return "; ".join(reason for reason in (answer.reason or "not supported", converters) if reason)


def _veto(node: Node, settings: CompilationSettings) -> str | None:
    if settings.runs_in_torch(node.target):
        return "named in torch_executed_ops"
    if node.op != "call_function":
        return "submodules run in PyTorch"
    if not settings.require_full_compilation and _has_dear_branches(node):
        return "it has products, and both branches are computed in an engine: require_full_compilation=True allows it"
    for arg in node.all_input_nodes:
        if node.target is torch.ops.higher_order.cond and arg is node.args[0]:
            continue  # a condition on sizes is possible there
        value = arg.meta.get("val")
        if _is_assertion(node) and isinstance(value, torch.SymBool) and is_comparison(value):
            continue  # the engine checks it
        if isinstance(value, (torch.SymBool, torch.SymFloat)):
            return f"depends on {arg.meta['val']}: engines compute with sizes that are integers"
    for value in (
        *tensor_values(node),
        *(v for arg in node.all_input_nodes for v in tensor_values(arg)),
    ):
        if not is_engine_dtype(value.dtype) or value.layout is not torch.strided:
            return f"a tensor of dtype {value.dtype} and layout {value.layout}"
    return None


def _is_assertion(node: Node) -> bool:
    """Whether a node asserts a condition on sizes."""
    return node.target is torch.ops.aten._assert_scalar.default


def _has_dear_branches(node: Node) -> bool:
    if node.target is not torch.ops.higher_order.cond:
        return False
    owner = node.graph.owning_module
    return any(has_contractions(getattr(owner, str(branch.target))) for branch in node.args[1:3])  # type: ignore[union-attr]


def _veto_device(program: Program, node: Node, device: torch.device) -> str | None:
    """An engine computes on one device. Constants become a part of it, wherever they are now."""
    values = list(tensor_values(node))
    for source in node.all_input_nodes:
        if not program.is_constant(source):
            values += tensor_values(source)
    for value in values:
        if value.device != device:
            return f"a tensor on {value.device}: the engines of this program run on {device}"
    return None


def _veto_data_size(
    program: Program, node: Node, waits: bool, settings: CompilationSettings
) -> str | None:
    """Engines for GPUs do not wait for a size that they find in their data; on CPUs the user may want it so."""
    if waits and not settings.fallback_data_dependent_ops:
        return None
    found = {symbol for symbol, finder in program.data_symbols.items() if finder is node}
    given = free_symbols(size for each in node.all_input_nodes for size in _shape_of(each))
    for arg in node.all_input_nodes:
        size = arg.meta.get("val")
        if isinstance(size, torch.SymInt):
            found |= {
                symbol
                for symbol in free_symbols([size]) - given
                if symbol in program.data_symbols and is_symbolic_node(program.data_symbols[symbol])
            }
    if not found:
        return None
    names = ", ".join(sorted(map(str, found)))
    why = "fallback_data_dependent_ops=True" if waits else "engines for GPUs do not wait for it"
    return f"the size {names} depends on data: {why}"


def _veto_repeats(answer: NodeSupport) -> str | None:
    """Engines for GPUs do not look at a condition while they run."""
    if not answer.repeats:
        return None
    return (
        "a loop whose steps are not known, or a branch that may fail: engines for GPUs have neither"
    )


def _veto_kernels(answer: NodeSupport) -> str | None:
    """Kernels of the user's own work in this process's memory."""
    if not answer.kernels:
        return None
    return f"a kernel of the user's own for {', '.join(answer.kernels)}: custom kernels run on CPUs"


def _veto_mutation(node: Node, answer: NodeSupport) -> str | None:
    """Kernels of the user's own only read their inputs, and give memory of its own for each output."""
    schema = getattr(node.target, "_schema", None)
    if not answer.kernels or schema is None:
        return None
    changes = any(value.alias_info is not None for value in (*schema.arguments, *schema.returns))
    return (
        "it changes its arguments or gives views of them, which kernels cannot" if changes else None
    )


def _shape_of(node: Node) -> Iterable[Any]:
    return (size for value in tensor_values(node) for size in value.shape)


def partition(
    program: Program, reasons: Mapping[Node, str], input_views: Collection[Node] = ()
) -> Partition:
    """Finds the regions; every node that an engine can take is in one. `input_views` are as good as inputs: a region
    needs none before it to have them."""
    level: dict[Node, int] = {}
    in_engine: dict[Node, bool] = {}
    regions: dict[int, list[Node]] = defaultdict(list)
    least = 0
    for node in program.graph.nodes:
        if node in program.in_place.order:
            in_engine[node], level[node] = False, max(level.values(), default=0)
            least = level[node] + 1
        elif node.op in ("placeholder", "get_attr") or node in input_views:
            level[node] = 0
        elif node.op == "output":
            continue
        elif node.target is operator.getitem:
            producer = node.args[0]
            level[node], in_engine[node] = level[producer], in_engine.get(producer, False)
            if in_engine[node]:
                regions[level[node]].append(node)
        elif _is_assertion(node):  # where its sizes are found
            sources = tensor_sources(node)
            in_engine[node] = reasons.get(node) == "" and any(in_engine.get(s) for s in sources)
            level[node] = max(least, _level(node, level, in_engine))
            if in_engine[node]:
                regions[level[node]].append(node)
        else:
            in_engine[node] = reasons.get(node) == ""
            level[node] = max(least, _level(node, level, in_engine))
            if in_engine[node]:
                regions[level[node]].append(node)
    left_out = {node: reason for node, reason in reasons.items() if reason}
    return Partition(dict(sorted(regions.items())), level, left_out)


def _level(node: Node, level: Mapping[Node, int], in_engine: Mapping[Node, bool]) -> int:
    result = 0
    for source in tensor_sources(node):
        crosses = source in in_engine and in_engine[source] != in_engine[node]
        result = max(result, level[source] + crosses)
    return result


def tensor_sources(node: Node) -> list[Node]:
    """The tensors that a node needs; sizes are looked through to the tensors that they are read from."""
    result: dict[Node, None] = {}
    pending = list(reversed(node.all_input_nodes))
    while pending:
        source = pending.pop()
        if is_symbolic_node(source) and source.op == "call_function":
            pending.extend(reversed(source.all_input_nodes))
        else:
            result[source] = None
    return list(result)


def count_operators(nodes: Iterable[Node]) -> int:
    """The number that min_block_size is compared with: picking one of several results is not an operator."""
    return sum(node.target is not operator.getitem and not _is_assertion(node) for node in nodes)


def apply_min_block_size(partition: Partition, settings: CompilationSettings) -> None:
    """Leaves regions of too few operators to PyTorch."""
    if settings.require_full_compilation:
        return
    for level, nodes in list(partition.regions.items()):
        count = count_operators(nodes)
        if count < settings.min_block_size:
            partition.drop(
                level,
                f"in a block of {count} operators, below min_block_size={settings.min_block_size}",
            )


def describe(partition: Partition) -> str:
    """A report for people: what runs where, and why."""
    lines = [f"{len(partition.regions)} engine(s)"]
    for level, nodes in partition.regions.items():
        lines.append(f"  engine at level {level}: {count_operators(nodes)} operators")
        lines += [f"    {target} x {count}" for target, count in _histogram(nodes).items()]
    lines.append(f"{count_operators(partition.left_out)} operator(s) in PyTorch")
    return "\n".join([*lines, *filter(None, [list_reasons(partition.left_out)])])


def list_reasons(reasons: Mapping[Node, str]) -> str:
    """A line for every node that cannot be in an engine."""
    return "\n".join(f"  {node.name} ({node.target}): {reason}" for node, reason in reasons.items())


def _histogram(nodes: Iterable[Node]) -> dict[Any, int]:
    counts: dict[Any, int] = defaultdict(int)
    for node in nodes:
        if node.target is not operator.getitem:
            counts[str(node.target)] += 1
    return dict(sorted(counts.items()))
