"""`enable_autocast`: a program of f32 with its operators in f16 or bf16, but those that rules keep as they are.

The rules are Torch-TensorRT's, which has them from ModelOpt. They look at the program as it was exported, where
operators and modules have the names that users know; casts become operators of the program. Regions under
`torch.autocast` say themselves what they compute in, and stay as they are.

Results have the type that they are computed in, as under `torch.autocast`.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._export.verifier import TrainingIRVerifier
from torch.export import ExportedProgram
from torch.export._tree_utils import reorder_kwargs
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._contractions import (
    ATTENTION,
    CONVOLUTIONS,
    PRODUCTS,
    SUMS_OF_PRODUCTS,
    operator_name,
)
from torch_tensorrt.dynamo._functional import InPlace, functional
from torch_tensorrt.dynamo._names import argument_names
from torch_tensorrt.dynamo._settings import CompilationSettings, is_among
from torch_tensorrt.dynamo._symbols import fake_mode_of, tensor_of

logger = logging.getLogger(__name__)

_CASTABLE = (torch.float32, torch.float16, torch.bfloat16)
_REDUCTIONS = {"sum", "mean", "var", "std", "prod", "logsumexp", "linalg_vector_norm", "norm"}


@dataclass(frozen=True)
class Decisions:
    """What became of the rules: the type to compute in, and the names of the nodes that keep that of the model. They
    hold for every export of the same model, so that a refit needs no data to calibrate with."""

    low: torch.dtype
    high: frozenset[str]

    def as_metadata(self) -> dict[str, Any]:
        return {"type": str(self.low).removeprefix("torch."), "high": sorted(self.high)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Decisions:
        return cls(getattr(torch, metadata["type"]), frozenset(metadata["high"]))


def autocast(
    exported: ExportedProgram, settings: CompilationSettings, *, keep_results: bool = False
) -> tuple[ExportedProgram, CompilationSettings]:
    """The program in the precision that the settings ask for, and the settings with what was decided.

    Nothing changes without enable_autocast. `keep_results`: results are cast back to the types that they had.
    ValueError: data to calibrate with that does not fit the program.
    """
    if not settings.enable_autocast:
        return exported, settings
    if settings.autocast_low_precision_type is None:
        logger.warning(
            "enable_autocast=True without autocast_low_precision_type changes nothing: give it torch.float16 or "
            "torch.bfloat16"
        )
        return exported, settings
    exported = made_functional(exported)
    decisions = settings.autocast_decisions or decide(exported, settings)
    decided = copy.copy(settings)
    decided.autocast_decisions = decisions  # type: ignore[misc] - of this one alone
    return cast(exported, decisions, keep_results=keep_results), decided


def made_functional(exported: ExportedProgram) -> ExportedProgram:
    """Without operators that write into tensors, which have to find those that the model means."""
    return functional(exported, {}) if InPlace(exported.graph).order else exported


def decide(exported: ExportedProgram, settings: CompilationSettings) -> Decisions:
    """Which operators keep the precision of the model, by the rules of the settings."""
    low = settings.autocast_low_precision_type
    assert low is not None
    rules = _rules(exported, settings, low)
    high = set()
    for node in exported.graph.nodes:
        reason = next(filter(None, (rule(node) for rule in rules)), None)
        if node.op == "call_function" and reason:
            logger.info("%s keeps its precision: %s", node.name, reason)
            high.add(node.name)
    return Decisions(low, frozenset(high))


Rule = Callable[[Node], str | None]


def _rules(
    exported: ExportedProgram, settings: CompilationSettings, low: torch.dtype
) -> list[Rule]:
    """Each gives the reason for which an operator keeps its precision, or None."""
    patterns = [re.compile(pattern) for pattern in settings.autocast_excluded_nodes]
    most = settings.autocast_max_output_threshold
    most = math.inf if most is None else most
    deepest = settings.autocast_max_depth_of_reduction
    limit = torch.finfo(low).max
    sizes = {**_sizes_of_weights(exported), **_calibrate(exported, settings)}

    def by_name(node: Node) -> str | None:
        names = (_module_path(node), node.name)
        return next((f"{p.pattern!r}" for p in patterns if any(map(p.match, names))), None)

    def by_operator(node: Node) -> str | None:
        excluded = settings.autocast_excluded_ops
        return f"{node.target} is excluded" if is_among(node.target, excluded) else None

    def by_number(node: Node) -> str | None:
        numbers = [value for value in (*node.args, *node.kwargs.values()) if _is_number(value)]
        large = [value for value in numbers if limit < abs(value) < math.inf]
        return f"{large[0]} is no number of {low}" if large else None

    def by_values(node: Node) -> str | None:
        for near in (*node.all_input_nodes, *node.users):
            size = sizes.get(near.name, 0.0)
            if size > (limit if near.op == "placeholder" and near.name in weights else most):
                return f"{near.name} has values up to {size:.4g}"
        return None

    def by_depth(node: Node) -> str | None:
        depth = _depth(node)
        too_deep = deepest is not None and depth is not None and depth > deepest
        return f"it adds up {depth} numbers" if too_deep else None

    updates = _updates(exported)

    def by_state(node: Node) -> str | None:
        return f"it updates {updates[node]}" if node in updates else None

    weights = {
        spec.arg.name for spec in exported.graph_signature.input_specs if spec.target is not None
    }
    return [by_state, by_name, by_operator, by_number, by_values, by_depth]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _updates(exported: ExportedProgram) -> dict[Node, str]:
    """The nodes that lead from the old values of a buffer or an input to the new ones, and the name of that: what is
    kept from call to call would be rounded every time."""
    signature = exported.graph_signature
    nodes = {node.name: node for node in exported.graph.nodes}
    sources = {spec.target: spec.arg.name for spec in signature.input_specs if spec.target}
    updates = {}
    for spec in signature.output_specs:
        if spec.kind is OutputKind.USER_OUTPUT or spec.target is None:
            continue
        old, new = nodes.get(sources.get(spec.target, spec.target)), nodes.get(spec.arg.name)
        before = _reachable(new, lambda node: node.all_input_nodes)
        for node in before & _reachable(old, lambda node: list(node.users)):
            updates[node] = spec.target
    return updates


def _reachable(start: Node | None, near: Callable[[Node], list[Node]]) -> set[Node]:
    found: set[Node] = set()
    pending = [] if start is None else [start]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += near(node)
    return found


def _module_path(node: Node) -> str:
    """The module that a node is of, as the user calls it: "layers.0.conv1"."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(next(reversed(stack.values()))[0]).removeprefix("L['self'].")


def _sizes_of_weights(exported: ExportedProgram) -> dict[str, float]:
    """The largest finite magnitude in each weight, by the name of its placeholder."""
    sizes = {}
    for spec in exported.graph_signature.input_specs:
        value = _value(exported, spec.target)
        if value is not None and value.is_floating_point() and value.numel():
            sizes[spec.arg.name] = float(value.detach().nan_to_num(0, 0, 0).abs().max())
    return sizes


def _value(exported: ExportedProgram, name: str | None) -> torch.Tensor | None:
    if name is None:
        return None
    value = exported.state_dict.get(name, exported.constants.get(name))
    return value if isinstance(value, torch.Tensor) else None


def _calibrate(exported: ExportedProgram, settings: CompilationSettings) -> dict[str, float]:
    """The largest magnitude that each value takes with the user's data, infinite where it is NaN."""
    if settings.autocast_calibration_dataloader is None:
        return {}
    interpreter = _Calibration(exported.graph_module)
    batches = 0
    with torch.no_grad(), quiet_torch():
        for batch in settings.autocast_calibration_dataloader:
            interpreter.run(*_flat_arguments(exported, batch))
            batches += 1
    if not batches:
        raise ValueError("autocast_calibration_dataloader is empty, expected batches of inputs")
    return interpreter.sizes


class _Calibration(Interpreter):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.sizes: dict[str, float] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and result.is_floating_point() and result.numel():
            size = float(result.detach().abs().max())
            known = self.sizes.get(n.name, 0.0)
            self.sizes[n.name] = math.inf if math.isnan(size) else max(size, known)
        return result


def _flat_arguments(exported: ExportedProgram, batch: Any) -> Iterator[Any]:
    """What the program's graph takes: its weights, of which it may change a copy, and a batch of the user's."""
    in_spec = exported.call_spec.in_spec
    kwargs: dict[str, Any] = {}
    if isinstance(batch, Mapping):
        kwargs = dict(batch)
        names = argument_names(exported)[: in_spec.children()[0].num_children]
        args = tuple(kwargs.pop(name) for name in names if name in kwargs)
    else:
        args = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    try:
        leaves, spec = pytree.tree_flatten((args, reorder_kwargs(kwargs, in_spec)))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"a batch of autocast_calibration_dataloader does not fit: {error}"
        ) from error
    if spec != in_spec:
        raise ValueError(
            f"a batch of autocast_calibration_dataloader has {len(leaves)} inputs, but the program was exported with "
            f"{in_spec.num_leaves}: give a tensor, a tuple of the positional inputs or a dictionary by their names"
        )
    inputs = iter(leaves)
    for input_spec in exported.graph_signature.input_specs:
        value = _value(exported, input_spec.target)
        if value is None and input_spec.target is not None:
            yield exported.constants[input_spec.target]  # an object
        else:
            value = next(inputs) if value is None else value
            yield value.detach().clone() if isinstance(value, torch.Tensor) else value


def _depth(node: Node) -> int | None:
    """How many numbers an operator adds up for a result; None for others, and where that is not static."""
    shapes = [list(t.shape) for t in map(tensor_of, node.all_input_nodes) if t is not None]
    name = operator_name(node)
    depth: Any = None
    if name in CONVOLUTIONS and len(shapes) > 1:
        depth = math.prod(shapes[1][1:])
    elif name in PRODUCTS and shapes:
        depth = shapes[0][-1]
    elif name in SUMS_OF_PRODUCTS and len(shapes) > 1:
        depth = shapes[1][-1]
    elif name == ATTENTION and len(shapes) > 1:
        depth = max(shapes[0][-1], shapes[1][-2])
    elif name in _REDUCTIONS and (result := tensor_of(node)) is not None and shapes:
        results = max(math.prod(result.shape), 1)
        depth = math.prod(shapes[0]) // results
    return depth if isinstance(depth, int) else None


def cast(
    exported: ExportedProgram, decisions: Decisions, *, keep_results: bool = False
) -> ExportedProgram:
    """A program of `made_functional` with casts in front of its operators; the one that was given stays as it is."""
    graph = copy.deepcopy(exported.graph)
    module = GraphModule(exported.graph_module, graph)
    module.meta.update(exported.graph_module.meta)
    caster = _Caster(module, decisions)
    for node in list(graph.nodes):
        caster.visit(node)
    specs = exported.graph_signature.output_specs
    results = list(graph.output_node().args[0])
    for index, (spec, result) in enumerate(zip(specs, results, strict=True)):
        if keep_results or spec.kind is not OutputKind.USER_OUTPUT:
            results[index] = caster.restored(result, graph.output_node())
    graph.output_node().args = (tuple(results),)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    signature = dataclasses.replace(
        exported.graph_signature,
        output_specs=[
            dataclasses.replace(spec, arg=TensorArgument(result.name))
            if isinstance(result, Node) and isinstance(spec.arg, TensorArgument)
            else spec
            for spec, result in zip(specs, results, strict=True)
        ],
    )
    return ExportedProgram(
        root=module,
        graph=graph,
        graph_signature=signature,
        state_dict=exported.state_dict,
        range_constraints=exported.range_constraints,
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=exported.constants,
        verifiers=[TrainingIRVerifier],
    )


class _Caster:
    """Goes through a graph once; `val` of each node becomes what it gives now."""

    def __init__(self, module: GraphModule, decisions: Decisions) -> None:
        self._graph = module.graph
        self._low, self._high = decisions.low, decisions.high
        self._fake_mode = fake_mode_of(node.meta.get("val") for node in module.graph.nodes)
        self._shared = InPlace(module.graph).shared
        self._exported = {node: node.meta.get("val") for node in module.graph.nodes}
        self._casts: dict[tuple[Node, torch.dtype], Node] = {}

    def visit(self, node: Node) -> None:
        if node.op != "call_function" or not node.all_input_nodes:
            return
        if node.name in self._high or not self._may_change(node):
            self._keep(node)
            return
        args, kwargs = node.args, node.kwargs
        if self._takes_casts(node):
            self._cast_arguments(node, lambda _: self._low)
        if not self._infer(node):
            node.args, node.kwargs = args, kwargs
            self._keep(node)

    def restored(self, value: Any, before: Node) -> Any:
        """A value in the type that it had in the program."""
        if not isinstance(value, Node) or not isinstance(self._exported.get(value), torch.Tensor):
            return value
        return self._cast(value, self._exported[value].dtype, before)

    def _may_change(self, node: Node) -> bool:
        """Whether an operator takes its operands in other types than the program says."""
        if node in self._shared:
            return False  # something writes into its memory
        if node.target is operator.getitem:
            return True
        if not isinstance(node.target, torch._ops.OpOverload):
            return False
        changing_shapes = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
        if any(tag in node.target.tags for tag in changing_shapes):
            return False
        operands = (tensor_of(source) for source in node.all_input_nodes)
        dtypes = {t.dtype for t in operands if t is not None and t.dtype.is_floating_point}
        return bool(dtypes) and dtypes <= set(_CASTABLE)

    def _takes_casts(self, node: Node) -> bool:
        """Not what gives a view, which is of the same memory and the same type, nor what says which type it gives."""
        if node.target is operator.getitem:
            return False
        schema = node.target._schema  # type: ignore[union-attr]
        if any(each.alias_info is not None for each in schema.returns):
            return False
        return not any(isinstance(value, torch.dtype) for value in _leaves(node))

    def _keep(self, node: Node) -> None:
        before = {source: self._exported.get(source) for source in node.all_input_nodes}
        self._cast_arguments(node, lambda source: getattr(before[source], "dtype", None))
        node.meta["val"] = self._exported[node]

    def _cast_arguments(self, node: Node, wanted: Callable[[Node], torch.dtype | None]) -> None:
        def convert(source: Node) -> Node:
            tensor, dtype = tensor_of(source), wanted(source)
            if tensor is None or dtype is None or tensor.dtype not in _CASTABLE:
                return source
            return self._cast(source, dtype, node)

        node.args = torch.fx.map_arg(node.args, convert)
        node.kwargs = torch.fx.map_arg(node.kwargs, convert)

    def _cast(self, source: Node, dtype: torch.dtype, before: Node) -> Node:
        tensor = tensor_of(source)
        if tensor is None or tensor.dtype == dtype:
            return source
        known = self._casts.get((source, dtype))
        if known is not None and source not in self._shared:
            return known
        name = f"{source.name}_as_{str(dtype).removeprefix('torch.')}"
        with self._graph.inserting_before(before):
            target = torch.ops.aten.to.dtype
            result = self._graph.create_node("call_function", target, (source, dtype), name=name)
        with self._fake_mode:
            result.meta["val"] = tensor.to(dtype)
        self._casts[source, dtype] = result
        return result

    def _infer(self, node: Node) -> bool:
        """Whether an operator takes what its arguments are now; if so its result is known then."""

        def value(source: Node) -> Any:
            return source.meta["val"]

        args = torch.fx.map_arg(node.args, value)
        kwargs = torch.fx.map_arg(node.kwargs, value)
        try:
            with self._fake_mode, torch.no_grad(), quiet_torch():
                node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:  # of any kind, by operator
            logger.info("%s keeps its precision: %s", node.name, error)
            return False
        return True


def _leaves(node: Node) -> list[Any]:
    return [*pytree.tree_leaves(node.args), *pytree.tree_leaves(node.kwargs)]
