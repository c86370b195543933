"""Makes a program functional: without operators that change their inputs. What cannot be, stays as it is.

`run_decompositions` ends with an error at operators that PyTorch cannot functionalise: `resize_` of an input, or an
operator of the user's that gives a view. Such a program is compiled as it was exported. `InPlace` says what is to be
kept in PyTorch, and in its order, so that nothing is read before or after it should be.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Graph, GraphModule, Node

import kiln
from torch_tensorrt._mutation import changed_arguments
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._function_constants import lift_function_constants
from torch_tensorrt.dynamo._symbols import (
    copied_graph,
    free_symbols,
    is_oblivious,
    oblivious,
)

logger = logging.getLogger(__name__)


def functional(
    exported: ExportedProgram, decompositions: Mapping[Any, Callable[..., Any]]
) -> ExportedProgram:
    """A program in which no operator changes its inputs, or the same program with a warning.

    Raises:
        ValueError: a size that may vary would become a constant.
    """
    errors: list[Exception] = []
    exported = lift_function_constants(exported)
    varying = _varying_sizes(exported)
    with torch.no_grad(), quiet_torch(), oblivious(is_oblivious(exported)):
        for candidate in _candidates(exported):
            try:
                result = candidate.run_decompositions(dict(decompositions))
                _check_mutations(result)
            except Exception as error:  # of any kind: PyTorch's assertions and the operators' own
                errors.append(error)
                continue
            _check_sizes(varying, result)
            return result
    reason = str(errors[-1]).partition("\n")[0] or type(errors[-1]).__name__
    logger.warning(
        "the program cannot be made functional (%s): operators that change tensors in place stay in PyTorch, and "
        "everything that shares their memory",
        reason,
    )
    return _copy(exported, copied_graph(exported.graph))


def as_exported(exported: ExportedProgram) -> ExportedProgram | None:
    """A copy of a program that is functional and has operators with importers alone. None if it is another.

    Retracing such a program changes nothing that engines see, but takes longer than all the rest of a compile.
    """
    rows = {*kiln.supported_ops()["aten"], "aten.sym_size.int", "aten.sym_numel.default"}
    if not all(_is_known(node, rows) for node in exported.graph.nodes):
        return None
    return _copy(exported, copied_graph(exported.graph))


def _is_known(node: Node, rows: set[str]) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    if node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return True  # arithmetic on sizes, and an operator's results one by one
    is_aten = node.target.namespace == "aten" and not node.target._schema.is_mutable
    return is_aten and str(node.target) in rows


def _check_mutations(program: ExportedProgram) -> None:
    """ValueError: a tensor of the caller's gets another shape, which writing its elements back cannot do."""
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    placeholders = {
        str(spec.target): spec.arg.name for spec in signature.input_specs if spec.target
    }
    for spec in signature.output_specs:
        if spec.kind is OutputKind.USER_OUTPUT or spec.target is None:
            continue
        written = _shape(nodes.get(spec.arg.name))
        target = nodes.get(placeholders.get(spec.target, spec.target))
        if written != _shape(target):
            raise ValueError(f"{spec.target} is resized in place")


# Dimensions of inputs whose sizes may vary, by the names of the inputs.
_Varying = Mapping[str, list[int]]


def _varying_sizes(program: ExportedProgram) -> _Varying:
    def varies(size: Any) -> bool:
        if not isinstance(size, torch.SymInt) or not size.node.expr.free_symbols:
            return False
        bounds = program.range_constraints.get(size.node.expr)
        return bounds is None or bounds.lower != bounds.upper

    return {
        name: [axis for axis, size in enumerate(shape) if varies(size)]
        for name, shape in _input_shapes(program).items()
    }


def _check_sizes(varying: _Varying, result: ExportedProgram) -> None:
    """Some operators are retraced with the number that a size had in the example, and the program is for it alone."""
    for name, shape in _input_shapes(result).items():
        for axis in varying.get(name, ()):
            if not free_symbols([shape[axis]]):
                raise ValueError(
                    f"input {name!r}, dimension {axis}, may vary, but PyTorch's decompositions fix it at "
                    f"{int(shape[axis])}: give it that size alone, or replace the operator of the model that does so"
                )


def _input_shapes(program: ExportedProgram) -> dict[str, torch.Size]:
    names = set(program.graph_signature.user_inputs)
    found = {node.name: node.meta.get("val") for node in program.graph.nodes if node.name in names}
    return {name: value.shape for name, value in found.items() if isinstance(value, torch.Tensor)}


def _shape(node: Node | None) -> list[str] | None:
    value = node.meta.get("val") if node is not None else None
    return [str(size) for size in value.shape] if isinstance(value, torch.Tensor) else None


def _candidates(exported: ExportedProgram) -> Iterator[ExportedProgram]:
    inlined = _without_prims(exported)
    if inlined is not None:
        yield inlined
    yield exported


def _without_prims(exported: ExportedProgram) -> ExportedProgram | None:
    """The program with ATen operators for PyTorch's primitives; those that engines take stay. None if it has none.

    Primitives that give views are to functionalisation as operators of the user's, which it refuses.
    """
    known = {f"prims.{name}" for name in _known_prims()}
    graph = copied_graph(exported.graph)
    changed = False
    for node in graph.nodes:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or target.namespace != "prims":
            continue
        meaning = getattr(target, "impl_aten", None)
        if meaning is not None and (str(target) not in known or _aliases(target)):
            node.target = meaning
            changed = True
    return _copy(exported, graph) if changed else None


def _known_prims() -> Iterable[str]:
    return [target.partition(".")[2] for target in kiln.supported_ops().get("prims", ())]


def _copy(exported: ExportedProgram, graph: Graph) -> ExportedProgram:
    """The program with another graph; the constructor would refuse targets that are not operators."""
    result = copy.copy(exported)
    module = GraphModule(exported.graph_module, graph)
    module.meta.update(exported.graph_module.meta)
    result._graph_module = module
    return result


def _aliases(target: Any) -> bool:
    """Whether a result of an operator shares the memory of an argument."""
    schema = getattr(target, "_schema", None)
    return schema is not None and any(each.alias_info is not None for each in schema.returns)


class InPlace:
    """What a program does to its tensors in place.

    Attributes:
        order: the nodes that change something. What comes before one runs before it, and what comes after, after it.
        shared: the nodes whose results share memory with something that is changed, those themselves included.
    """

    def __init__(self, graph: Graph) -> None:
        changed = {node: changed_arguments(node) for node in graph.nodes}
        self.order = {node for node, arguments in changed.items() if arguments}
        self.shared: set[Node] = set()
        pending = [*self.order, *(node for arguments in changed.values() for node in arguments)]
        while pending:
            node = pending.pop()
            if node in self.shared:
                continue
            self.shared.add(node)
            pending += [user for user in node.users if may_share(user)]
            if may_share(node):
                pending += node.all_input_nodes


def may_share(node: Node) -> bool:
    """Whether a result of a node may share the memory of an argument: views, and whatever has no schema."""
    if node.op in ("placeholder", "get_attr", "output"):
        return False
    schema = getattr(node.target, "_schema", None)
    # ATen's operators that may give either (reshape, contiguous, to, ...) have no alias in their schema.
    return schema is None or _aliases(node.target) or torch.Tag.core not in node.target.tags
