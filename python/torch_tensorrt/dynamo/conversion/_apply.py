"""Lowers a program with what users registered: passes over the whole graph, then converters of operators; then with
PyTorch's decompositions of operators that are left.

A converter is traced in place of its operator, with the symbolic tensors of the program, and what it did is put
into the graph. Everything then is decomposed together, so that a converter's operators are treated as the model's own.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from torch_tensorrt.dynamo._capture import capture
from torch_tensorrt.dynamo._decompositions import decompositions
from torch_tensorrt.dynamo._partition import check_support
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._symbols import expression, fake_mode_of, get_attribute
from torch_tensorrt.dynamo.conversion import _flex_attention
from torch_tensorrt.dynamo.conversion._context import ConversionContext, ConverterError
from torch_tensorrt.dynamo.conversion._rebuild import ProgramEditor
from torch_tensorrt.dynamo.conversion._registry import (
    DYNAMO_CONVERTERS,
    ConverterPriority,
    ConverterSupport,
    builtin_operators,
)
from torch_tensorrt.dynamo.lowering.passes import pass_names, run_passes

logger = logging.getLogger(__name__)

# What tracing leaves of `with torch.no_grad()`; nothing here has gradients.
_GRAD_MODE = torch._C._set_grad_enabled


def has_user_lowerings() -> bool:
    """Whether there are passes or converters of the user's, which are for operators as a tracer leaves them."""
    return bool(pass_names() or DYNAMO_CONVERTERS.has_converters())


def lower(program: Program, settings: CompilationSettings) -> Program:
    """The program after the user's passes and converters. ConverterError: a converter is wrong."""
    program = run_passes(program, settings)
    chosen, flex = _choose(program, settings), _flex_attentions(program, settings)
    if not chosen and not flex:
        return _decompose(program, settings)
    with capture("convert", program.graph) as after:
        inliner = _Inliner(program, settings)
        for node, converter in chosen.items():
            inliner.replace(node, converter, frozenset())
        for node in flex:
            inliner.replace_flex_attention(node)
        program = Program.decomposed(inliner.finish(), guarded=program.guarded)
        after.append(program.graph)
    return _decompose(program, settings)


def _decompose(program: Program, settings: CompilationSettings) -> Program:
    """With PyTorch's decompositions of what engines have no rows for, but what the user named or has converters of."""

    def is_kept(target: Any) -> bool:
        return settings.runs_in_torch(target) or bool(DYNAMO_CONVERTERS.converters(target))

    table = decompositions(program.graph, is_kept)
    if not table:
        return program
    exported = ProgramEditor(program).finish()
    return Program.decomposed(exported, guarded=program.guarded, decompositions=table)


def _choose(program: Program, settings: CompilationSettings) -> dict[Node, ConverterSupport]:
    candidates = [
        node
        for node in program.graph.nodes
        if node.op == "call_function"
        and DYNAMO_CONVERTERS.converters(node.target)
        and not settings.runs_in_torch(node.target)
    ]
    if not candidates:
        return {}
    reasons = check_support(program, settings)
    found = {
        node: _find_converter(node, settings, supported=reasons.get(node) == "")
        for node in candidates
    }
    return {node: converter for node, converter in found.items() if converter is not None}


def _flex_attentions(program: Program, settings: CompilationSettings) -> list[Node]:
    """Calls that have functions of the user's on single scores, which no converter of one operator can be."""
    if settings.runs_in_torch(_flex_attention.TARGET):
        return []
    return list(program.graph.find_nodes(op="call_function", target=_flex_attention.TARGET))


def _find_converter(
    node: Node, settings: CompilationSettings, supported: bool
) -> ConverterSupport | None:
    """The first converter that takes a node; only one of high priority if Kiln has a lowering of its own."""
    for support in DYNAMO_CONVERTERS.converters(node.target):
        if supported and support.priority is not ConverterPriority.HIGH:
            continue
        if support.refusal(node, settings) is None:
            return support
    return None


class _Inliner:
    def __init__(self, program: Program, settings: CompilationSettings) -> None:
        self._editor = ProgramEditor(program)
        self._graph = program.graph
        self._settings = settings

    def finish(self) -> torch.export.ExportedProgram:
        return self._editor.finish()

    def replace(self, node: Node, support: ConverterSupport, active: frozenset[Any]) -> None:
        """Puts what a converter does in the place of a node, and converts what it did in turn.

        `active` has the operators whose converters this is part of: they are not converted again.
        """
        traced = _trace(node, support, self._settings)
        new_nodes, results = self._inline(node, traced)
        _check_results(node, support, results)
        _replace_results(node, results)
        self._graph.erase_node(node)
        active = active | {node.target}
        for new in new_nodes:
            if new.target in active or self._settings.runs_in_torch(new.target):
                continue
            nested = _find_converter(
                new, self._settings, supported=str(new.target) in builtin_operators()
            )
            if nested is not None:
                self.replace(new, nested, active)

    def replace_flex_attention(self, node: Node) -> None:
        """A call of it; one that cannot be traced stays in PyTorch, with a warning."""
        try:
            self.replace(node, _flex_attention.support_of(node), frozenset())
        except Exception as error:  # of any kind: those of functions of the user's
            logger.warning("%s stays in PyTorch: %s", node.name, error)

    def _inline(self, node: Node, traced: GraphModule) -> tuple[list[Node], list[Any]]:
        sources = iter(_argument_nodes(node))
        copies: dict[Node, Any] = {}
        new_nodes = []
        with self._graph.inserting_before(node):
            for inner in traced.graph.nodes:
                if inner.op == "placeholder":
                    copies[inner] = next(sources)
                elif inner.op == "get_attr":
                    copies[inner] = self._editor.add_constant(getattr(traced, str(inner.target)))
                elif inner.op == "call_function" and inner.target is not _GRAD_MODE:
                    copy = self._graph.node_copy(inner, lambda source: copies[source])
                    copy.meta = {"val": inner.meta.get("val")}
                    if "stack_trace" in node.meta:
                        copy.meta["stack_trace"] = node.meta["stack_trace"]
                    copies[inner] = copy
                    new_nodes.append(copy)
        output = traced.graph.output_node().args[0]
        leaves = pytree.tree_leaves(output, is_leaf=lambda leaf: leaf is None)
        return new_nodes, [copies[leaf] if isinstance(leaf, Node) else leaf for leaf in leaves]


def _argument_nodes(node: Node) -> list[Node]:
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Node) and _function(leaf) is None]


def _function(node: Node) -> GraphModule | None:
    """The graph of a function that is an argument."""
    if node.op != "get_attr":
        return None
    value = get_attribute(node.graph.owning_module, str(node.target))
    return value if isinstance(value, GraphModule) else None


def _trace(node: Node, support: ConverterSupport, settings: CompilationSettings) -> GraphModule:
    """The graph of what a converter does for a node; its inputs are `_argument_nodes`."""
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    context = ConversionContext(settings, node, node.name)
    sources = _argument_nodes(node)
    values = [source.meta["val"] for source in sources]
    fake_mode = fake_mode_of([*values, node.meta.get("val")])

    def argument(leaf: Node, given: Iterator[Any]) -> Any:
        function = _function(leaf)
        return next(given) if function is None else function

    def call(*inputs: Any) -> Any:
        given = iter(inputs)
        arguments = [argument(leaf, given) if isinstance(leaf, Node) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(arguments, spec)
        return support.converter_implementation(
            context, node.target, tuple(args), dict(kwargs), node.name
        )

    allowed = fake_mode.allow_non_fake_inputs
    fake_mode.allow_non_fake_inputs = True  # constants of the converter's own
    try:
        with torch.no_grad(), fake_mode:
            return make_fx(call, pre_dispatch=True)(*values)
    except Exception as error:
        raise ConverterError(
            f"the converter {support.name} of {node.target} failed for {node.name}: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        fake_mode.allow_non_fake_inputs = allowed


def _check_results(node: Node, support: ConverterSupport, results: list[Any]) -> None:
    expected = pytree.tree_leaves(node.meta["val"], is_leaf=lambda leaf: leaf is None)
    where = f"the converter {support.name} of {node.target} for {node.name}"
    if len(results) != len(expected):
        raise ConverterError(
            f"{where}: got {len(results)} results, expected {len(expected)} as of the operator"
        )
    for index, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        value = result.meta["val"] if isinstance(result, Node) else result
        if _describe(value) != _describe(wanted):
            raise ConverterError(
                f"{where}: result {index} is {_show(value)}, expected {_show(wanted)} as of the operator"
            )


def _describe(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return type(value)
    return value.dtype, [expression(size) for size in value.shape]


def _show(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{value.dtype} of shape [{', '.join(map(str, value.shape))}]"


def _replace_results(node: Node, results: list[Any]) -> None:
    if not isinstance(node.meta["val"], (list, tuple)):
        node.replace_all_uses_with(results[0])
        return
    for user in list(node.users):
        if user.target is not operator.getitem:
            raise ConverterError(
                f"{user.name} uses all results of {node.name} as a list, which converters cannot replace"
            )
        user.replace_all_uses_with(results[user.args[1]])
        user.graph.erase_node(user)
