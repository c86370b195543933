"""`torch_tensorrt.dynamo.trace`: torch.export with shapes from `Input`s."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._dynamo.exc import UserError, UserErrorType
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree
from torch.utils._sympy.symbol import SymT, symbol_is_type

from torch_tensorrt._arguments import device_of_inputs, merge_inputs, sample_inputs
from torch_tensorrt._input import Input
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._opaque_data import data_is_opaque
from torch_tensorrt.dynamo._ranges import range_bounds
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._small_sizes import TracedGraph, holds
from torch_tensorrt.dynamo._symbols import linear, mark_oblivious, oblivious
from torch_tensorrt.dynamo._words import check_words

logger = logging.getLogger(__name__)

# Of a program that nothing binds to a device: engines for all of them can be called from anywhere.
ANYWHERE = "kiln_runs_anywhere"
# Lines of torch.export's suggestions: one size is another; a size has a smaller range.
_SMALLER_RANGE = re.compile(r"^\s*(\w+) = Dim\(.*\)\s*$")
_EQUALITY = re.compile(r"^\s*(\w+) = ([A-Za-z_]\w*)\s*$", re.MULTILINE)


def trace(
    mod: torch.nn.Module,
    inputs: Sequence[Any] | None = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> ExportedProgram:
    """Exports a module, with dynamic sizes where the `Input`s have ranges.

    Args:
        mod: the module, in eval mode.
        inputs, arg_inputs: positional inputs: tensors, `Input`s, or structures of them.
        kwarg_inputs: keyword inputs, likewise.
        options: `strict` is handed to torch.export.export (False by default); `dynamic_shapes`
            overrides what the Inputs say. Others are those of `compile`, and have no part in this.

    Raises:
        TypeError: an option that no version of Torch-TensorRT knew.
    """
    check_words(options, CompilationSettings.names(), "trace")
    args = merge_inputs(inputs, arg_inputs, required=kwarg_inputs is None)
    if mod.training and not isinstance(mod, GraphModule):  # which is traced already, as it will be
        logger.warning(
            "the module is in training mode: call .eval() first, or dropout and batch norm are traced as such"
        )
    dynamic_shapes = options.get("dynamic_shapes")
    if dynamic_shapes is None:
        dynamic_shapes = shapes_of_inputs(mod.forward, args or (), kwarg_inputs or {})
    samples, keyword_samples = sample_inputs(mod, args, kwarg_inputs, options.get("device"))
    strict = bool(options.get("strict", False))
    program = export_ranges(mod, samples, keyword_samples, dynamic_shapes, strict=strict)
    given = (args, kwarg_inputs)
    has_inputs = any(isinstance(leaf, Input) for leaf in pytree.tree_leaves(given))
    if has_inputs and options.get("device") is None and device_of_inputs(mod, given) is None:
        program.graph_module.meta[ANYWHERE] = True
    return program


# How sizes can be traced. As torch.export does by default, a graph is that of sizes of 2 and more, and a range in which
# some size would take another branch is refused: a slice of 2:5 of a size from 2, a stride that leaves one element.
# *Oblivious* to sizes of 0 and 1 the graph is that of all sizes. *Deferred* are the conditions that each call checks.
_BEYOND: tuple[Mapping[str, bool], ...] = (
    {"oblivious": True, "deferred": False},
    {"oblivious": True, "deferred": True},
)


def export_ranges(
    mod: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any,
    *,
    strict: bool = False,
    prefer_deferred_runtime_asserts_over_guards: bool = False,
) -> ExportedProgram:
    """torch.export's program, in the first way that takes the ranges as they are, else what the default makes of them.

    Args:
        mod, args, kwargs, dynamic_shapes, and the options: as torch.export.export has them.
    """

    def export(shapes: Any, oblivious_to_small: bool, deferred: bool) -> ExportedProgram:
        with torch.no_grad(), quiet_torch(), data_is_opaque(strict), oblivious(oblivious_to_small):
            program = torch.export.export(
                mod,
                args,
                dict(kwargs),
                dynamic_shapes=shapes,
                strict=strict,
                prefer_deferred_runtime_asserts_over_guards=deferred,
            )
        if oblivious_to_small:
            mark_oblivious(program)
        return program

    def attempt(oblivious: bool, deferred: bool) -> ExportedProgram:
        return _with_equal_sizes(lambda shapes: export(shapes, oblivious, deferred), dynamic_shapes)

    result: ExportedProgram | None = None
    is_whole = False  # whether the result takes the ranges as they are
    refused: Exception | None = None
    # Of a range up to 2 the default takes 2 alone, and does not say that two of them have to be equal. Conditions that
    # are deferred would come back where the program is decomposed.
    defers = prefer_deferred_runtime_asserts_over_guards
    suffices = all(dim.max > 2 and not defers for dim in _dims(dynamic_shapes))
    try:
        result = attempt(oblivious=False, deferred=defers)
        is_whole = _takes_ranges(result)
        if suffices and is_whole:
            return result
    except UserError as error:
        if error.error_type is not UserErrorType.CONSTRAINT_VIOLATION:
            raise
        refused = error
    except AssertionError as error:  # PyTorch's own, of what it would suggest
        refused = error
    for way in _BEYOND:
        try:
            other = attempt(**way)
            takes = _takes_ranges(other)
        except Exception as error:  # an attempt: what it stumbles over says nothing of the model
            logger.debug("tracing with %s: %s", way, error)
            continue
        # PyTorch before 2.13 takes the size of a slice for one that depends on data, which is worse.
        is_worse = result is not None and _data_symbols(other) > _data_symbols(result)
        if takes and not is_worse:
            return other
        if result is None:
            result, is_whole = other, takes
    if result is None:
        assert refused is not None
        raise refused
    if not is_whole:
        logger.warning(
            "sizes of 0 or 1 are in the ranges for which the model is another than for its example: calls with them "
            "will be errors"
        )
    return result


def _data_symbols(program: ExportedProgram) -> int:
    sizes = [size for size in program.range_constraints if isinstance(size, sympy.Symbol)]
    return sum(symbol_is_type(symbol, SymT.UNBACKED_INT) for symbol in sizes)


def _takes_ranges(program: ExportedProgram) -> bool:
    """Whether sizes of 0 or 1 that are in the ranges are those of the graph and its guards, too. With `strict`, guards
    may exclude the least size also where it is larger."""
    least: dict[sympy.Symbol, int] = {}
    for size, bounds in program.range_constraints.items():
        # Of a size that follows from a symbol the bound is the author's, and that of the symbol may be the tracer's.
        if (found := linear(size)) is not None:
            low = found.least(range_bounds(bounds)[0])
            least[found.symbol] = min(low, least.get(found.symbol, low))
    graph = TracedGraph.of(program)
    small = [(symbol, value) for symbol, low in least.items() for value in range(low, 2)]
    if graph.guards.inputs:
        small += [(symbol, low) for symbol, low in least.items() if low >= 2]
    return all(holds(graph, {}, symbol, value, unless_known=True) for symbol, value in small)


def _with_equal_sizes(
    export: Callable[[Any], ExportedProgram], dynamic_shapes: Any
) -> ExportedProgram:
    try:
        return export(dynamic_shapes)
    except UserError as error:
        unified = _unify(dynamic_shapes, str(error))
        if unified is None:
            raise
    return export(unified)


def _dims(dynamic_shapes: Any) -> list[Any]:
    return [dim for dim in pytree.tree_leaves(dynamic_shapes) if isinstance(dim, Dim)]


def shapes_of_inputs(
    forward: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    by_parameter: bool = True,
) -> dict[str, Any] | None:
    """torch.export's `dynamic_shapes` for Inputs, by parameter; None if every size is fixed.

    Axes are called `{name}_{axis}`, with the name of the Input, or, with `by_parameter`, of the
    parameter if the Input has none; shared axes have the shared name.
    """
    if not any(
        isinstance(leaf, Input) and leaf.dynamic_axes()
        for leaf in pytree.tree_leaves((list(args), kwargs))
    ):
        return None
    dims: dict[str, Any] = {}
    result = {}
    for parameter, value in _bind(forward, args, kwargs).items():
        leaves, spec = pytree.tree_flatten(value)
        names = [
            parameter if len(leaves) == 1 else f"{parameter}_{index}"
            for index in range(len(leaves))
        ]
        shapes = [
            _leaf_shapes(leaf, name if by_parameter else "", dims)
            for leaf, name in zip(leaves, names, strict=True)
        ]
        result[parameter] = pytree.tree_unflatten(shapes, spec)
    return result


def get_dynamic_shapes_args(mod: torch.nn.Module, inputs: Sequence[Any]) -> dict[str, Any]:
    """torch.export's `dynamic_shapes` for the positional inputs of a module, by parameter.

    Args:
        mod: the module.
        inputs: tensors and `Input`s, or structures of them; those without a range have None.
    """
    shapes = shapes_of_inputs(mod.forward, inputs, {})
    if shapes is not None:
        return shapes
    bound = _bind(mod.forward, inputs, {})
    return {name: pytree.tree_map(lambda _: None, value) for name, value in bound.items()}


def _leaf_shapes(leaf: Any, default_name: str, dims: dict[str, Any]) -> dict[int, Any] | None:
    if not isinstance(leaf, Input):
        return None
    axes = {}
    for axis, (low, high) in leaf.dynamic_axes().items():
        name = leaf.shared_dims.get(axis) or f"{leaf.name or default_name}_{axis}"
        dim = dims.setdefault(name, Dim(name, min=low, max=high))
        if (dim.min, dim.max) != (low, high):
            raise ValueError(
                f"dynamic size {name!r} is {dim.min}..{dim.max} in one input and {low}..{high} in "
                "another: sizes of one name have one range; give the Inputs different names, or the "
                "same ranges"
            )
        axes[axis] = dim
    return axes or None


def _bind(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Inputs by the names of `forward`'s parameters, as torch.export counts them."""
    signature = inspect.signature(forward)
    result: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            result.update(value)
        else:
            result[name] = value
    return result


def _unify(dynamic_shapes: Any, message: str) -> Any:
    """Makes one of sizes that the model needs to be equal, if that is all that the tracer asks for."""
    dims = {dim.__name__: dim for dim in pytree.tree_leaves(dynamic_shapes) if dim is not None}
    suggestions = message.partition("Suggested fixes:")[2].partition("\n\n")[0]
    equal = dict(_EQUALITY.findall(suggestions))
    named = {*equal.keys(), *equal.values()}
    rest = [line for line in suggestions.splitlines() if line.strip() and not _EQUALITY.match(line)]
    # Equal sizes have the ranges of both, so a smaller range for one of them says nothing new.
    only_ranges = all((m := _SMALLER_RANGE.match(line)) and m[1] in named for line in rest)
    if not equal or not only_ranges or not named <= dims.keys():
        return None
    unified = {}
    for representative in set(equal.values()):
        names = [
            representative,
            *(name for name, other in equal.items() if other == representative),
        ]
        low, high = max(dims[name].min for name in names), min(dims[name].max for name in names)
        if low > high:
            return None
        unified |= dict.fromkeys(names, Dim(representative, min=low, max=high))
        logger.info("these sizes have to be equal in this model: %s", ", ".join(names))
    return pytree.tree_map(
        lambda dim: unified.get(dim.__name__, dim) if dim is not None else None, dynamic_shapes
    )
