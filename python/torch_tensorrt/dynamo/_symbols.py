"""Symbolic sizes: reading them off traced tensors, printing them, and computing them again elsewhere.

A size is an integer or an expression over symbols. A tensor with a dimension that is one symbol, or a
multiple of one with a constant added, is a *carrier* of that symbol: its value can be read off there at run time.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sympy
import torch
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.experimental import _config as symbolic_config
from torch.utils._sympy.functions import FloorDiv

from torch_tensorrt._sizes import Operand, SizeProgram, size_name

T = TypeVar("T")
Size = int | torch.SymInt | sympy.Expr
SYMBOLIC_TYPES = (torch.SymInt, torch.SymBool, torch.SymFloat)
# What kiln.h takes as "no upper bound".
UNBOUNDED = 1 << 60


class SymbolError(RuntimeError):
    """An expression that cannot be carried into an engine."""


@dataclass(frozen=True)
class Range:
    """The sizes a symbol may have, and the one to optimise for."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class Linear:
    """A size `factor * symbol + offset`, with a factor of 1 or more."""

    symbol: sympy.Symbol
    factor: int = 1
    offset: int = 0

    @property
    def is_plain(self) -> bool:
        return (self.factor, self.offset) == (1, 0)

    def size(self, value: int) -> int:
        """The size for a value of the symbol; unbounded stays unbounded."""
        return UNBOUNDED if value >= UNBOUNDED else self.factor * value + self.offset

    def least(self, size: int) -> int:
        """The smallest value of the symbol for which the size is not below."""
        return -((self.offset - size) // self.factor)

    def largest(self, size: int) -> int:
        """The largest value of the symbol for which the size is not above."""
        return UNBOUNDED if size >= UNBOUNDED else (size - self.offset) // self.factor


@dataclass(frozen=True)
class Carrier(Generic[T]):
    """Dimension `dim` of the tensor that `tensor` stands for is the size `linear`."""

    tensor: T
    dim: int
    linear: Linear


def linear(size: Size) -> Linear | None:
    """A size as a multiple of one symbol with a constant added, if it is that."""
    expr = expression(size)
    if isinstance(expr, sympy.Symbol):
        return Linear(expr)
    if len(expr.free_symbols) != 1:
        return None
    (symbol,) = expr.free_symbols
    try:
        rest, factor = expr.subs(symbol, 0), sympy.expand(expr).coeff(symbol)
    except ZeroDivisionError:  # a quotient by the symbol
        return None
    if not (factor.is_Integer and rest.is_Integer and factor >= 1):
        return None
    if sympy.expand(expr - factor * symbol - rest) != 0:
        return None
    return Linear(symbol, int(factor), int(rest))


def expression(size: Size) -> sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.sympify(size)


def is_symbolic_node(node: Node) -> bool:
    """Whether a node computes a size and not a tensor."""
    return (
        isinstance(node.meta.get("val"), SYMBOLIC_TYPES)
        or node.target is torch.ops.aten.sym_size.int
    )


def tensor_of(node: Node) -> torch.Tensor | None:
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def fake_mode_of(values: Iterable[Any]) -> FakeTensorMode:
    """The mode of the fake tensors among some values; a new one if there are none."""
    return detect_fake_mode(list(values)) or FakeTensorMode()


def get_attribute(module: Any, name: str) -> Any:
    """What a dotted name stands for, as in `get_attr` nodes."""
    return operator.attrgetter(name)(module)


# In the meta of an exported program's module: it was traced oblivious to sizes of 0 and 1, and is to be retraced so.
_OBLIVIOUS = "torch_tensorrt.oblivious"


@contextmanager
def oblivious(is_oblivious: bool) -> Iterator[None]:
    """Whether what is traced now is the graph of all sizes, rather than that of sizes of 2 and more."""
    with symbolic_config.patch(backed_size_oblivious=is_oblivious):
        yield


def mark_oblivious(program: ExportedProgram) -> None:
    program.graph_module.meta[_OBLIVIOUS] = True


def is_oblivious(program: ExportedProgram) -> bool:
    return bool(program.graph_module.meta.get(_OBLIVIOUS))


def copied_graph(graph: Graph) -> Graph:
    """With the same names, by which the signature knows inputs and outputs: a copy would rename `input`."""
    result = copy.deepcopy(graph)
    for old, new in zip(graph.nodes, result.nodes, strict=True):
        new.name = old.name
    return result


def free_symbols(sizes: Iterable[Any]) -> set[sympy.Symbol]:
    result: set[sympy.Symbol] = set()
    for size in sizes:
        if isinstance(size, SYMBOLIC_TYPES):
            result |= size.node.expr.free_symbols
    return result


def find_carriers(tensors: Iterable[tuple[T, torch.Tensor]]) -> dict[sympy.Symbol, Carrier[T]]:
    """For every symbol that a tensor carries: the first dimension that is it, or else from which it follows."""
    carriers: dict[sympy.Symbol, Carrier[T]] = {}
    for key, tensor in tensors:
        for dim, size in enumerate(tensor.shape):
            found = linear(size) if isinstance(size, torch.SymInt) else None
            if found is None:
                continue
            old = carriers.get(found.symbol)
            if old is None or (found.is_plain and not old.linear.is_plain):
                carriers[found.symbol] = Carrier(key, dim, found)
    return carriers


def fold(expr: sympy.Expr, leaf: Callable[[sympy.Symbol], T], apply: Callable[..., T]) -> T | int:
    """Rebuilds an expression bottom-up.

    `leaf` gives the value of a symbol, `apply(function, a, b)` that of an operation.
    Functions are operator.add, mul, floordiv, mod and pow, torch.sym_max and sym_min.
    """
    if isinstance(expr, sympy.Integer):
        return int(expr)
    if isinstance(expr, sympy.Symbol):
        return leaf(expr)
    name = type(expr).__name__
    if name in _CHAINS:
        parts = [fold(part, leaf, apply) for part in _ordered(expr)]
        result = parts[0]
        for part in parts[1:]:
            result = apply(_CHAINS[name], result, part)
        return result
    if name in _PAIRS and len(expr.args) == 2:
        left, right = (fold(part, leaf, apply) for part in expr.args)
        if name == "Pow" and not (isinstance(right, int) and right >= 0):
            raise SymbolError(f"size {expr} has a power that is not a constant integer")
        return apply(_PAIRS[name], left, right)
    if scaled := _scaled(expr):
        size, (numerator, denominator) = scaled
        product = apply(operator.mul, fold(size, leaf, apply), numerator)
        return product if denominator == 1 else apply(operator.floordiv, product, denominator)
    if (rounded := _rounded(expr)) is not None:
        return fold(rounded, leaf, apply)
    raise SymbolError(f"size {expr} uses {name}, which engines cannot compute")


def is_comparison(condition: torch.SymBool) -> bool:
    """Whether a condition compares two sizes, and is nothing else."""
    return type(condition.node.expr).__name__ in _COMPARISONS


_COMPARISONS = {
    "StrictGreaterThan": operator.gt,
    "GreaterThan": operator.ge,
    "StrictLessThan": operator.lt,
    "LessThan": operator.le,
    "Equality": operator.eq,
    "Unequality": operator.ne,
}
_CHAINS = {"Add": operator.add, "Mul": operator.mul, "Max": torch.sym_max, "Min": torch.sym_min}
_PAIRS = {
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Pow": operator.pow,
    "PowByNatural": operator.pow,
}


def _scaled(expr: sympy.Expr) -> tuple[sympy.Expr, tuple[int, int]] | None:
    """Of int(1.5 * size), which is exact in floats, the size and 3, 2; the importer of C++ knows the same."""
    if type(expr).__name__ not in ("TruncToInt", "FloorToInt"):
        return None
    factors = expr.args[0].args
    if not isinstance(expr.args[0], sympy.Mul) or len(factors) != 2:
        return None
    number, size = sorted(factors, key=lambda part: not part.is_number)
    ratio = float(number).as_integer_ratio() if number.is_number else (0, 0)
    if not 1 <= ratio[1] <= 1 << 16 or type(size).__name__ != "ToFloat":
        return None
    return (size.args[0], ratio) if ratio[0] >= 0 and size.args[0].is_nonnegative else None


def _rounded(expr: sympy.Expr) -> sympy.Expr | None:
    """Of int(), floor() or ceil() of a quotient of sizes and numbers, as `torch.arange(0.0, n, 2.0)` has it, the same
    in integers; the importer of C++ knows the same."""
    name = type(expr).__name__
    if name not in ("CeilToInt", "FloorToInt", "TruncToInt"):
        return None
    found = _fraction(expr.args[0])
    if found is None:
        return None
    numerator, denominator = found
    if name == "CeilToInt":
        return -FloorDiv(-numerator, denominator)
    is_floor = name == "FloorToInt" or numerator.is_nonnegative
    return FloorDiv(numerator, denominator) if is_floor else None


def _fraction(expr: sympy.Expr) -> tuple[sympy.Expr, int] | None:
    """An expression of floats as an integer over a positive number."""
    name = type(expr).__name__
    if name == "ToFloat":
        return expr.args[0], 1
    if expr.is_number:
        numerator, denominator = float(expr).as_integer_ratio()
        return (sympy.Integer(numerator), denominator) if denominator <= 1 << 16 else None
    parts = [_fraction(part) for part in expr.args]
    if name not in ("Add", "Mul", "FloatTrueDiv") or None in parts:
        return None
    numerator, denominator = parts[0]
    for other, below in parts[1:]:
        if name == "Add":
            numerator = numerator * below + other * denominator
        elif name == "Mul":
            numerator = numerator * other
        elif other.is_number and other != 0:
            sign = 1 if other > 0 else -1
            numerator, below = numerator * (below * sign), int(other) * sign
        else:
            return None
        denominator *= below
    return numerator, denominator


def _ordered(expr: sympy.Expr) -> list[sympy.Expr]:
    """Arguments in an order that does not depend on the process; numbers last, as people write them."""
    return sorted(expr.args, key=lambda part: (part.is_number, sympy.default_sort_key(part)))


_SIGNS = {
    operator.add: "+",
    operator.mul: "*",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
}


def carrier_operands(
    carriers: Mapping[sympy.Symbol, Carrier[int]], program: SizeProgram
) -> dict[sympy.Symbol, Operand]:
    """Symbols in a size program: read off the sizes of the inputs that carry them."""
    operands: dict[sympy.Symbol, Operand] = {}
    for symbol, carrier in carriers.items():
        operand: Operand = size_name(carrier.tensor, carrier.dim)
        if carrier.linear.offset:
            operand = program.add("sub", operand, carrier.linear.offset)
        if carrier.linear.factor != 1:
            operand = program.add("floordiv", operand, carrier.linear.factor)
        operands[symbol] = operand
    return operands


def size_operand(
    size: Size, program: SizeProgram, operands: Mapping[sympy.Symbol, Operand]
) -> Operand:
    """A size in a size program, given its symbols. SymbolError: a symbol that is not given."""

    def leaf(symbol: sympy.Symbol) -> Operand:
        if symbol not in operands:
            raise SymbolError(f"no input has {symbol} as one of its sizes")
        return operands[symbol]

    def apply(function: Any, left: Operand, right: Operand) -> Operand:
        return program.add(_FUNCTION_NAMES[function], left, right)

    return fold(expression(size), leaf, apply)


_FUNCTION_NAMES = {
    operator.add: "add",
    operator.mul: "mul",
    operator.floordiv: "floordiv",
    operator.mod: "mod",
    operator.pow: "pow",
    torch.sym_max: "max",
    torch.sym_min: "min",
}


def print_size(size: Size, names: Mapping[sympy.Symbol, str]) -> str:
    """A size as Python text, with the given names of symbols."""

    def leaf(symbol: sympy.Symbol) -> str:
        if symbol not in names:
            raise SymbolError(f"no input has {symbol} as one of its sizes")
        return names[symbol]

    def apply(function: Any, left: Any, right: Any) -> str:
        if function in _SIGNS:
            return f"({left}{_SIGNS[function]}{right})"
        return f"{'max' if function is torch.sym_max else 'min'}({left},{right})"

    text = str(fold(expression(size), leaf, apply))
    return text[1:-1] if text.startswith("(") and _closes_at_end(text) else text


def _closes_at_end(text: str) -> bool:
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position == len(text) - 1
    return False


class SizeNodes:
    """Makes nodes that compute sizes in a graph from the tensors that carry the symbols; equal ones are shared."""

    def __init__(self, graph: Graph, carriers: Mapping[sympy.Symbol, Carrier[Node]]) -> None:
        self._graph = graph
        self._carriers = dict(carriers)
        self._items: dict[sympy.Symbol, tuple[Node, torch.SymInt]] = {}
        self._made: dict[Any, Node] = {}

    def add_carriers(self, node: Node, symbols: Collection[sympy.Symbol]) -> None:
        """From here on those of the symbols that a node's result has as a size can be read off it."""
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            found = find_carriers([(node, value)])
            self._carriers |= {
                symbol: carrier
                for symbol, carrier in found.items()
                if symbol in symbols and symbol not in self._carriers
            }

    def add_item(self, symbol: sympy.Symbol, tensor: Node, value: torch.SymInt) -> None:
        """From here on a symbol is what a tensor of one integer holds."""
        self._items[symbol] = tensor, value

    def node_for(self, size: Any) -> Node | int:
        """A size, or a comparison of two. SymbolError: what else a size can be, or no tensor has it."""
        if isinstance(size, torch.SymBool):
            compare = _COMPARISONS.get(type(size.node.expr).__name__)
            if compare is None:
                raise SymbolError(
                    f"{size} crosses into an engine, expected a comparison of two sizes"
                )
            sides = (fold(part, self._read, self._apply) for part in size.node.expr.args)
            return self._apply(compare, *sides)
        if not isinstance(size, torch.SymInt):
            raise SymbolError(
                f"a {type(size).__name__} crosses into an engine, expected an integer"
            )
        return fold(expression(size), self._read, self._apply)

    def _read(self, symbol: sympy.Symbol) -> Node | int:
        if symbol in self._items:
            tensor, value = self._items[symbol]
            return self._make(torch.ops.aten._local_scalar_dense.default, (tensor,), value)
        if symbol not in self._carriers:
            raise SymbolError(f"no input has {symbol} as one of its sizes")
        carrier = self._carriers[symbol]
        size = carrier.tensor.meta["val"].shape[carrier.dim]
        result = self._make(torch.ops.aten.sym_size.int, (carrier.tensor, carrier.dim), size)
        if carrier.linear.offset:
            result = self._apply(operator.add, result, -carrier.linear.offset)
        if carrier.linear.factor != 1:
            result = self._apply(operator.floordiv, result, carrier.linear.factor)
        return result

    def _apply(self, function: Any, left: Node | int, right: Node | int) -> Node:
        values = [part.meta["val"] if isinstance(part, Node) else part for part in (left, right)]
        return self._make(function, (left, right), function(*values))

    def _make(self, target: Any, args: tuple[Any, ...], value: Any) -> Node:
        key = (target, args)
        if key not in self._made:
            node = self._graph.call_function(target, args)
            node.meta["val"] = value
            self._made[key] = node
        return self._made[key]
