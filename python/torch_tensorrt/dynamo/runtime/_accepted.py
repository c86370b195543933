"""The inputs that a compiled module takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.export._tree_utils import reorder_kwargs
from torch.utils import _pytree as pytree

from torch_tensorrt.dynamo._symbols import expression


class AcceptedInputs:
    """Says whether a call fits: structure, dtypes, fixed sizes, ranges, equal sizes, and values that were constants.

    Args:
        in_spec: the tree of (args, kwargs).
        examples: per leaf, the tracer's tensor or the constant.
        ranges: of the symbols in the sizes.
    """

    def __init__(
        self, in_spec: pytree.TreeSpec, examples: Sequence[Any], ranges: Mapping[sympy.Symbol, Any]
    ) -> None:
        self._in_spec = in_spec
        self._examples = list(examples)
        self._ranges = ranges

    def fit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        if set(kwargs) != set(self._in_spec.child(1).context):
            return False
        ordered = reorder_kwargs(dict(kwargs), self._in_spec)
        leaves, spec = pytree.tree_flatten((args, ordered))
        sizes: dict[sympy.Expr, int] = {}
        return spec == self._in_spec and all(
            self._fits(value, example, sizes)
            for value, example in zip(leaves, self._examples, strict=True)
        )

    def _fits(self, value: Any, example: Any, sizes: dict[sympy.Expr, int]) -> bool:
        if not isinstance(example, torch.Tensor):
            return type(value) is type(example) and value == example
        return (
            isinstance(value, torch.Tensor)
            and (value.dtype, value.dim()) == (example.dtype, example.dim())
            and all(
                self._fits_size(size, expected, sizes)
                for size, expected in zip(value.shape, example.shape, strict=True)
            )
        )

    def _fits_size(self, size: int, expected: Any, sizes: dict[sympy.Expr, int]) -> bool:
        if isinstance(expected, int):
            return size == expected
        symbol = expression(expected)
        bounds = self._ranges.get(symbol)
        in_range = bounds is None or bounds.lower <= size <= bounds.upper
        return bool(in_range) and sizes.setdefault(symbol, size) == size
