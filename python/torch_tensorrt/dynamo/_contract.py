"""What sizes of a program's inputs have to do with each other: one list of conditions for everything that checks them.

A condition is Python text over `i<input>_<dim>`, sizes of the program's flat inputs, such as

    i0_1 + i1_1 == (i2_1 + 1) // 2

That is what torch.export's guards and TorchScript are, too; compiled modules, loaded programs and packages check it as
a part of a size program (`torch_tensorrt/_sizes.py`). Conditions come from the symbolic shapes of the inputs (a size is
that of another input, or computed from it) and from the guards of torch.export: what the program's author, or an
operator, relied on.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo

from torch_tensorrt._sizes import Operand, SizeProgram, size_name
from torch_tensorrt.dynamo._symbols import (
    UNBOUNDED,
    Range,
    SymbolError,
    expression,
    free_symbols,
    linear,
    print_size,
)

logger = logging.getLogger(__name__)

_OPERATORS: dict[type, str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.And: "and",
    ast.Or: "or",
}
_FUNCTIONS = ("max", "min", "int")


@dataclass(frozen=True)
class Condition:
    """Something that has to be true of the sizes of a program's inputs."""

    text: str
    in_engines: bool = False  # an engine that gets all the inputs checks it by itself

    def sizes(self) -> list[tuple[int, int]]:
        """The sizes that it mentions, as (input, dim), in the order in which they are first mentioned."""
        names = [node.id for node in ast.walk(self._tree()) if isinstance(node, ast.Name)]
        found = [name[1:].split("_") for name in dict.fromkeys(names) if name not in _FUNCTIONS]
        return [(int(index), int(dim)) for index, dim in found]

    def write(self, size: Callable[[int, int], str]) -> str:
        """The text with other names of sizes."""
        return ast.unparse(_Rename(size).visit(self._tree()))

    def add_to(self, program: SizeProgram) -> Operand:
        """The condition in a size program: the operand that is not to be zero. SymbolError: no arithmetic on sizes."""
        return _add(self._tree(), program)

    def _tree(self) -> ast.expr:
        return ast.parse(self.text, mode="eval").body


def message(condition: Condition, names: Sequence[str]) -> str:
    """What is expected, in words of the user's: `x.size(1) + y.size(1) == 8`."""
    return condition.write(lambda index, dim: f"{names[index]}.size({dim})")


def script_text(condition: Condition) -> str:
    """The condition in TorchScript; `{0}` stands for the first flat input, and so on."""
    tree = _ScriptPower().visit(ast.parse(condition.text, mode="eval").body)
    text = Condition(ast.unparse(tree)).write(lambda index, dim: f"input_{index}.size({dim})")
    return re.sub(r"\binput_(\d+)\b", r"{\1}", text)


class _ScriptPower(ast.NodeTransformer):
    """TorchScript's power of integers is a float."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        is_power = isinstance(node.op, ast.Pow)
        return ast.Call(ast.Name("int"), [node], []) if is_power else node


def ranges_of(constraints: Mapping[sympy.Symbol, Any]) -> dict[sympy.Symbol, Range]:
    """The ranges of torch.export's `range_constraints`."""
    return {
        symbol: Range(
            _integer(bounds.lower, below=0), 0, min(_integer(bounds.upper, UNBOUNDED), UNBOUNDED)
        )
        for symbol, bounds in constraints.items()
    }


def _integer(bound: Any, above: int = UNBOUNDED, below: int = 0) -> int:
    """A bound as a number; sizes are never negative."""
    if bound in (int_oo, sympy.oo):
        return above
    if bound in (-int_oo, -sympy.oo):
        return below
    return max(int(bound), below)


@dataclass(frozen=True)
class Sizes:
    """How symbols follow from the inputs."""

    names: dict[sympy.Symbol, str]  # text over i<input>_<dim>
    bounds: list[Condition]  # of symbols that no size is: the others' are those of a size
    equalities: list[Condition]


def symbol_sizes(
    shapes: Sequence[Sequence[Any] | None], ranges: Mapping[sympy.Symbol, Range]
) -> Sizes:
    """Finds a size of an input for every symbol, and what the shapes say besides.

    A symbol is read off a size that it is, or else off one that is a multiple of it plus a number.

    Args:
        shapes: of the flat inputs, None for those that are not tensors.
        ranges: of the symbols.
    """
    sizes = [
        (size_name(index, dim), expression(size))
        for index, shape in enumerate(shapes)
        for dim, size in enumerate(shape or ())
        if not isinstance(size, int)
    ]
    names: dict[sympy.Symbol, str] = {}
    for name, expr in sizes:
        if isinstance(expr, sympy.Symbol):
            names.setdefault(expr, name)
    bounds, equalities = [], []
    for name, expr in sizes:
        if (solved := _solve(name, expr)) is not None and solved[0] not in names:
            symbol, text = solved
            names[symbol] = text
            measured, known = (name, ranges[expr]) if expr in ranges else (text, ranges.get(symbol))
            if known is not None:
                bounds.append(f"{measured} >= {known.min}")
            if known is not None and known.max < UNBOUNDED:
                bounds.append(f"{measured} <= {known.max}")
    for name, expr in sizes:
        if names.get(expr) == name:
            continue
        try:
            equalities.append(f"{name} == {print_size(expr, names)}")
        except SymbolError as error:
            logger.debug("the size %s of an input is not checked: %s", expr, error)
    return Sizes(names, _conditions(bounds), _conditions(equalities))


def _conditions(texts: Iterable[str]) -> list[Condition]:
    return [Condition(_normalised(text), in_engines=True) for text in texts]


def _solve(name: str, expr: sympy.Expr) -> tuple[sympy.Symbol, str] | None:
    """`factor * symbol + offset` solved for the symbol: its text, given the name of the size."""
    found = linear(expr)
    if found is None:
        return None
    difference = f"({name} - {found.offset})" if found.offset else name
    return found.symbol, f"({difference} // {found.factor})"


def guard_conditions(
    guards: Iterable[str], in_spec: pytree.TreeSpec, names: Sequence[str]
) -> list[Condition]:
    """The conditions among torch.export's guards.

    Args:
        guards: as ExportedProgram has them, such as "L['x'].size()[0] != 4".
        in_spec: the tree of (args, kwargs).
        names: of the parameters.
    """
    sources = _sources(in_spec, names)
    found = []
    for guard in guards:
        try:
            tree = _FromGuard(sources).visit(ast.parse(guard, mode="eval").body)
            condition = Condition(_normalised(ast.unparse(tree)))
            condition.add_to(SizeProgram())  # refuses what is not arithmetic on sizes
        except (SymbolError, SyntaxError) as error:
            logger.debug("the guard %s is not checked: %s", guard, error)
            continue
        if condition.sizes():
            found.append(condition)
    return found


def asserted(graph: Graph, symbols: Set[sympy.Symbol]) -> dict[Node, sympy.Basic]:
    """What assertions in a graph say of symbols, by the node."""
    found = {}
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        condition = node.args[0]
        value = condition.meta.get("val") if isinstance(condition, Node) else condition
        if free_symbols([value]) <= symbols:
            found[node] = value.node.expr if isinstance(value, torch.SymBool) else sympy.true
    return found


def asserted_conditions(
    statements: Iterable[sympy.Basic], names: Mapping[sympy.Symbol, str]
) -> list[Condition]:
    """Assertions as conditions; names are those of `symbol_sizes`."""
    found = []
    for statement in statements:
        try:
            condition = Condition(_normalised(_print_condition(statement, names)))
        except SymbolError as error:
            logger.debug("the assertion %s is not checked: %s", statement, error)
            continue
        if condition.sizes():
            found.append(condition)
    return found


def _print_condition(statement: Any, names: Mapping[sympy.Symbol, str]) -> str:
    if isinstance(statement, sympy.core.relational.Relational):
        sides = [print_size(side, names) for side in statement.args]
        return f"({sides[0]}) {statement.rel_op} ({sides[1]})"
    if isinstance(statement, (sympy.And, sympy.Or)):
        word = " and " if isinstance(statement, sympy.And) else " or "
        parts = sorted(statement.args, key=str)
        return word.join(f"({_print_condition(part, names)})" for part in parts)
    if isinstance(statement, sympy.Not):
        return f"not ({_print_condition(statement.args[0], names)})"
    if statement is sympy.true:
        return "1 == 1"
    raise SymbolError(f"{statement} is not a comparison of sizes")


def as_guards(
    conditions: Iterable[Condition], in_spec: pytree.TreeSpec, names: Sequence[str]
) -> list[str]:
    """Conditions in the form of torch.export's guards, so that its modules check them."""
    sources: dict[int, str] = {}
    for source, index in _sources(in_spec, names).items():
        if not source.startswith("L['flat_args']"):
            sources.setdefault(index, source)
    return [
        condition.write(lambda index, dim: f"{sources[index]}.size()[{dim}]")
        for condition in conditions
        if all(index in sources for index, _ in condition.sizes())
    ]


def contract(
    shapes: Sequence[Sequence[Any] | None],
    ranges: Mapping[sympy.Symbol, Range],
    guards: Sequence[Condition] = (),
) -> list[Condition]:
    """Every condition that sizes of the inputs have to fulfil together, each once."""
    sizes = symbol_sizes(shapes, ranges)
    conditions = {condition.text: condition for condition in sizes.bounds + sizes.equalities}
    for condition in guards:
        if _swapped(condition.text) not in conditions:
            conditions.setdefault(condition.text, condition)
    return list(conditions.values())


def shape_of(value: Any) -> tuple[Any, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


class SizeChecks:
    """Checks of whether sizes of the inputs fit together."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._program = SizeProgram()
        self._conditions = list(conditions)
        self._operands = [condition.add_to(self._program) for condition in conditions]
        self._sizes = {size: None for condition in conditions for size in condition.sizes()}

    @property
    def inputs(self) -> set[int]:
        """The numbers of the inputs whose sizes are looked at."""
        return {index for index, _ in self._sizes}

    def check(self, values: Sequence[Any], names: Sequence[str]) -> None:
        """Raises RuntimeError for tensors whose sizes do not fit together."""
        if not self._conditions:
            return
        sizes = {size_name(index, dim): values[index].shape[dim] for index, dim in self._sizes}
        results = self._program.evaluate(self._operands, sizes)
        for condition, result in zip(self._conditions, results, strict=True):
            if not result:
                got = ", ".join(
                    f"{names[index]}.size({dim}) = {values[index].shape[dim]}"
                    for index, dim in condition.sizes()
                )
                raise RuntimeError(
                    f"the sizes of the inputs do not fit together: got {got}, expected "
                    f"{message(condition, names)}"
                )


def _normalised(text: str) -> str:
    return ast.unparse(ast.parse(text, mode="eval"))


def _swapped(text: str) -> str:
    left, equal, right = text.partition(" == ")
    return f"{right}{equal}{left}" if equal else text


def _sources(in_spec: pytree.TreeSpec, names: Sequence[str]) -> dict[str, int]:
    """Where a guard finds each flat input: "L['x'][0]"."""
    leaves = pytree.tree_unflatten(list(range(in_spec.num_leaves)), in_spec)
    args, kwargs = leaves
    values = [*args, *kwargs.values()]
    result = {f"L['flat_args'][{index}]": index for index in range(in_spec.num_leaves)}
    for name, value in zip(names, values, strict=False):
        for path, index in pytree.tree_leaves_with_path(value):
            result[f"L['{name}']{pytree.keystr(path)}"] = index
            base, _, number = name.rpartition("_")
            if number.isdigit():  # one of *args
                result.setdefault(f"L['{base}'][{number}]{pytree.keystr(path)}", index)
    return {ast.unparse(ast.parse(source, mode="eval")): index for source, index in result.items()}


class _FromGuard(ast.NodeTransformer):
    """Names for sizes of inputs, in the place of `L['x'].size()[0]`."""

    def __init__(self, sources: Mapping[str, int]) -> None:
        self._sources = sources

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        call = node.value
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "size"
            and isinstance(node.slice, ast.Constant)
        ):
            source = ast.unparse(call.func.value)
            if source not in self._sources:
                raise SymbolError(f"{source} is not an input")
            return ast.Name(size_name(self._sources[source], node.slice.value))
        raise SymbolError(f"{ast.unparse(node)} is not a size")


class _Rename(ast.NodeTransformer):
    def __init__(self, size: Callable[[int, int], str]) -> None:
        self._size = size

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in _FUNCTIONS:
            return node
        index, dim = map(int, node.id[1:].split("_"))
        return ast.parse(self._size(index, dim), mode="eval").body


def _add(node: ast.expr, program: SizeProgram) -> Operand:
    """Raises SymbolError for what is not arithmetic on sizes."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        return int(node.value)
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = _add(node.operand, program)
        return -operand if isinstance(operand, int) else program.add("sub", 0, operand)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return program.add("eq", _add(node.operand, program), 0)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _chain([node.left, node.right], _OPERATORS[type(node.op)], program)
    if isinstance(node, ast.BoolOp):
        return _chain(node.values, _OPERATORS[type(node.op)], program)
    if isinstance(node, ast.Compare) and all(type(op) in _OPERATORS for op in node.ops):
        if len(node.ops) == 1:
            parts = [node.left, *node.comparators]
            return _chain(parts, _OPERATORS[type(node.ops[0])], program)
        pairs = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
        return _chain(
            [ast.Compare(left, [op], [right]) for left, op, right in pairs], "and", program
        )
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _FUNCTIONS
        and (node.func.id != "int" or len(node.args) == 1)
        and not node.keywords
    ):
        return _chain(node.args, node.func.id, program)
    raise SymbolError(f"{ast.unparse(node)} is not arithmetic on sizes")


def _chain(parts: Sequence[ast.expr], function: str, program: SizeProgram) -> Operand:
    result = _add(parts[0], program)
    for part in parts[1:]:
        result = program.add(function, result, _add(part, program))
    return result
