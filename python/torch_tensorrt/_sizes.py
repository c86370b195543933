"""Size programs: how sizes are written down wherever they leave Python, and what they give for the sizes of inputs.

An instruction is a text "<function> <operand> <operand>", such as "add i0_1 1". An operand is a number, a size of an
input ("i<input>_<dimension>") or the result of an earlier instruction ("#<number>", from 0). A size is an operand. So a
program has as many instructions as there is arithmetic, however deep that is nested. Functions have Python's meaning;
what is not zero is true. "data <least> <most>", of the spec of an engine alone, is a size that the engine finds in its
data (-1: no most). The operator's spec, packages of AOTInductor and the descriptions of engines have this form;
in C++ it is src/support/size_arithmetic.h.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

Operand = int | str

_NUMBER = re.compile(r"-?[0-9]+")
_SIZE = re.compile(r"i(0|[1-9][0-9]*)_(0|[1-9][0-9]*)")
_RESULT = re.compile(r"#(0|[1-9][0-9]*)")
_LIMIT = 1 << 63


def _power(base: Any, exponent: Any) -> Any:
    unit = isinstance(base, int) and -1 <= base <= 1
    if isinstance(exponent, int) and (exponent < 0 or (exponent > 63 and not unit)):
        return None
    return base**exponent


def _new_size(least: Any, most: Any) -> Any:
    """A size that the data decides: a new symbol, for whoever traces an operator."""
    context = torch.library.get_ctx()
    return context.new_dynamic_size(min=least, max=None if most < 0 else most)


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "data": _new_size,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": _power,
    "min": torch.sym_min,
    "max": torch.sym_max,
    "eq": lambda left, right: int(left == right),
    "ne": lambda left, right: int(left != right),
    "lt": lambda left, right: int(left < right),
    "le": lambda left, right: int(left <= right),
    "gt": lambda left, right: int(left > right),
    "ge": lambda left, right: int(left >= right),
    "and": lambda left, right: int(left != 0 and right != 0),
    "or": lambda left, right: int(left != 0 or right != 0),
}


def size_name(index: int, dim: int) -> str:
    """The operand that is a size of an input."""
    return f"i{index}_{dim}"


class SizeProgram:
    """Instructions, to which more can be added.

    Args:
        instructions: as text, from anywhere.

    Raises:
        ValueError: text that is not an instruction.
    """

    def __init__(self, instructions: Iterable[str] = ()) -> None:
        self._steps: list[tuple[str, Operand, Operand]] = []
        self._places: dict[tuple[str, Operand, Operand], str] = {}
        for text in instructions:
            words = text.split(" ")
            if len(words) != 3 or words[0] not in FUNCTIONS:
                raise ValueError(f"got the instruction {text!r}, expected one such as 'add i0_1 1'")
            self._append(words[0], self.operand(words[1]), self.operand(words[2]))

    @property
    def instructions(self) -> list[str]:
        return [f"{function} {left} {right}" for function, left, right in self._steps]

    def operand(self, text: str) -> Operand:
        """An operand of this program. ValueError: anything else."""
        if _NUMBER.fullmatch(text):
            return int(text)
        result = _RESULT.fullmatch(text)
        if _SIZE.fullmatch(text) or (result and int(result[1]) < len(self._steps)):
            return text
        raise ValueError(
            f"got the size {text!r}, expected a number, i<input>_<dimension> or the #<number> of an earlier instruction"
        )

    def add(self, function: str, left: Operand, right: Operand) -> str:
        """The operand that is a function of two others; what is there already is not added again."""
        place = self._places.get((function, left, right))
        return self._append(function, left, right) if place is None else place

    def add_data_size(self, least: int, most: int | None) -> str:
        """The operand that is a size which the data decides, from `least` to `most`; each is one of its own."""
        self._append("data", least, -1 if most is None else most)
        return f"#{len(self._steps) - 1}"

    def _append(self, function: str, left: Operand, right: Operand) -> str:
        place = f"#{len(self._steps)}"
        self._steps.append((function, left, right))
        return self._places.setdefault((function, left, right), place)

    def evaluate(self, operands: Sequence[Operand], sizes: Mapping[str, Any]) -> list[Any]:
        """The values of operands; None where there is no 64-bit value: overflow, division by zero, negative powers.

        Args:
            operands: of this program.
            sizes: of the inputs, by `size_name`; they may be symbolic.

        Raises:
            KeyError: a size that is not among them.
        """
        values = dict(sizes)
        for index, (function, left, right) in enumerate(self._steps):
            values[f"#{index}"] = _apply(
                function,
                values[left] if isinstance(left, str) else left,
                values[right] if isinstance(right, str) else right,
            )
        return [values[each] if isinstance(each, str) else each for each in operands]


def _apply(function: str, left: Any, right: Any) -> Any:
    if left is None or (right is None and not _is_decided(function, left)):
        return None
    try:
        result = FUNCTIONS[function](left, right)
    except ZeroDivisionError:
        return None
    return None if isinstance(result, int) and not -_LIMIT <= result < _LIMIT else result


def _is_decided(function: str, left: Any) -> bool:
    """Whether the second operand does not matter."""
    return (function == "and" and left == 0) or (function == "or" and left != 0)
