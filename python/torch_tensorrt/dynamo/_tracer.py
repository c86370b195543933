"""`torch_tensorrt.dynamo.trace`: torch.export with shapes from `Input`s."""

from __future__ import annotations

import inspect
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.nn.modules import transformer
from torch.utils import _pytree as pytree

from torch_tensorrt._arguments import merge_inputs, sample_inputs
from torch_tensorrt._input import Input
from torch_tensorrt.dynamo._opaque_data import data_is_opaque
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._words import check_words

logger = logging.getLogger(__name__)

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
    if mod.training:
        logger.warning(
            "the module is in training mode: call .eval() first, or dropout and batch norm are traced as such"
        )
    dynamic_shapes = options.get("dynamic_shapes")
    if dynamic_shapes is None:
        dynamic_shapes = shapes_of_inputs(mod.forward, args or (), kwarg_inputs or {})
    samples, keyword_samples = sample_inputs(mod, args, kwarg_inputs)
    strict = bool(options.get("strict", False))

    def export(shapes: Any) -> ExportedProgram:
        # Dynamo has its own way with modes.
        opaque = nullcontext() if strict else data_is_opaque()
        with torch.no_grad(), masks_are_opaque(), opaque:
            return torch.export.export(
                mod, samples, keyword_samples, dynamic_shapes=shapes, strict=strict
            )

    try:
        return export(dynamic_shapes)
    except UserError as error:
        unified = _unify(dynamic_shapes, str(error))
        if unified is None:
            raise
    return export(unified)


class _OpaqueMasks:
    """While a tracer needs it, in whatever threads, torch.nn's transformers do not look into masks."""

    NAME = "_detect_is_causal_mask"

    def __init__(self) -> None:
        self._own = getattr(transformer, self.NAME, None)
        self._lock, self._users = threading.Lock(), 0

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._own is not None:
                setattr(transformer, self.NAME, _only_what_is_said)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._own is not None and self._users == 0:
                setattr(transformer, self.NAME, self._own)


def _only_what_is_said(mask: Any, is_causal: bool | None = None, size: Any = None) -> bool:
    return bool(is_causal)


_opaque_masks = _OpaqueMasks()


@contextmanager
def masks_are_opaque() -> Iterator[None]:
    """torch.nn's transformers look into a mask to find out whether it is causal, which a tracer cannot. The answer is a
    hint for PyTorch's kernels: the mask is applied all the same.
    """
    _opaque_masks.enter()
    try:
        yield
    finally:
        _opaque_masks.leave()


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
