"""Makes random models: operators are chosen and tried in eager PyTorch with every size, and kept if they work."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence

import operators
import torch
from graph import Graph, Input, Step

FLOATS = ("float32", "float16", "bfloat16", "float64")
# What results may have at most: more costs time and shows nothing new.
MAX_RANK, MAX_ELEMENTS = 5, 60_000
SYMBOLS = ("b", "s")
SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33)
LARGE_SIZES = (1, 3, 8, 14, 16, 17, 32, 48, 65, 130)


class Builder:
    """A model under construction. Every value is there once for each choice of sizes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.symbols: dict[str, tuple[int, int, int]] = {}
        for name in SYMBOLS[: self.random.choice((0, 0, 1, 1, 2))]:
            low, opt = self.random.choice((0, 1, 1, 2)), self.random.randint(3, 5)
            self.symbols[name] = (low, opt, opt + self.random.randint(1, 5))
        self.sizes = Graph((), (), (), self.symbols).sizes()
        self.inputs: list[Input] = []
        self.steps: list[Step] = []
        self.values: dict[str, list[torch.Tensor]] = {}
        self.float_dtype = self.random.choices(FLOATS, (5, 2, 2, 1))[0]
        self.special = self.random.random() < 0.1
        # Each model has its own mixture, without some operators and with many of others: so more of them meet.
        self.likely = [weight * self.random.choice((0, 1, 1, 5)) for weight in operators.WEIGHTS]
        self.sizes_of_axes = self.random.choice((SIZES, SIZES, SIZES, LARGE_SIZES))

    def graph(self, steps: int) -> Graph:
        for _ in range(self.random.randint(1, 3)):
            self.add_input()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            tries = 0
            while len(self.steps) < steps and tries < 30 * steps:
                tries += 1
                make = self.random.choices(operators.MAKERS, self.likely)[0]
                self.try_step(make)
        used = {name for step in self.steps for name in step.operands}
        results = [step.result for step in self.steps]
        outputs = [name for name in results if name not in used or self.random.random() < 0.1]
        # What this machine takes first, or what older ones take.
        target = self.random.choice(("cpu", "cpu:x86-64-v3"))
        return Graph(tuple(self.inputs), tuple(self.steps), tuple(outputs), self.symbols, target)

    def add_input(
        self, shape: tuple[int | str, ...] | None = None, dtype: str | None = None
    ) -> str:
        # Of weights that are infinite a sum with zeros is NaN or not, as its terms happen to be grouped.
        special = self.special and shape is None
        if shape is None:
            shape = self.shape()
        if dtype is None:
            kinds = (self.float_dtype, "int64", "int32", "bool")
            dtype = self.random.choices(kinds, (12, 1, 1, 1))[0] if self.inputs else kinds[0]
        constant = bool(self.inputs) and self.random.random() < 0.4
        constant = constant and not any(isinstance(size, str) for size in shape)
        name = f"{'c' if constant else 'x'}{len(self.inputs)}"
        seed = self.random.randrange(1 << 30)
        self.inputs.append(Input(name, dtype, shape, seed, special, constant))
        self.values[name] = [self.inputs[-1].make(sizes) for sizes in self.sizes]
        return name

    def shape(self) -> tuple[int | str, ...]:
        rank = self.random.choices((0, 1, 2, 3, 4), (1, 3, 6, 6, 4))[0]
        shape: list[int | str] = [
            self.random.choice(self.sizes_of_axes[: 10 - rank]) for _ in range(rank)
        ]
        for symbol in self.symbols:
            if rank and self.random.random() < 0.8:
                shape[self.random.randrange(rank)] = symbol
        return tuple(shape)

    # What operators ask for.

    def pick(self, accepts: Callable[[torch.Tensor], bool] = lambda _: True) -> str:
        """A value, a late one more often than others. Raises `Unfit` if none is accepted."""
        names = [name for name, each in self.values.items() if accepts(each[0])]
        if not names:
            raise operators.Unfit
        return names[max(self.random.randrange(len(names)) for _ in range(2))]

    def floating(self, low: int = 0, high: int = MAX_RANK) -> str:
        return self.pick(lambda x: x.is_floating_point() and low <= x.dim() <= high)

    def integer(self) -> str:
        return self.pick(lambda x: not x.is_floating_point() and x.dtype != torch.bool)

    def bool(self) -> str:
        return self.pick(lambda x: x.dtype == torch.bool)

    def partner(self, name: str, mixed: bool = False) -> str:
        """A value that broadcasts with another; of its dtype unless `mixed`."""
        mine = self.values[name]

        def fits(other: str) -> bool:
            theirs = self.values[other]
            if not mixed and theirs[0].dtype != mine[0].dtype:
                return False
            try:
                for a, b in zip(mine, theirs, strict=True):
                    torch.broadcast_shapes(a.shape, b.shape)
            except RuntimeError:
                return False
            return True

        return self.random.choice([other for other in self.values if fits(other)])

    def of(self, name: str) -> torch.Tensor:
        return self.values[name][0]

    def dim(self, name: str) -> int:
        rank = self.of(name).dim()
        if not rank:
            raise operators.Unfit
        return self.random.randrange(-rank, rank)

    def is_fixed(self, name: str, dim: int) -> bool:
        return len({x.shape[dim] for x in self.values[name]}) == 1

    def is_finite(self, name: str) -> bool:
        return all(bool(x.isfinite().all()) for x in self.values[name])

    def weights(self, shape: Sequence[int], dtype: torch.dtype) -> str:
        """A constant of the model, or an input, of known sizes."""
        return self.add_input(tuple(shape), str(dtype).removeprefix("torch."))

    def before(self, expression: str, operand: str) -> str:
        """The result of an exact step that the one under construction begins with."""
        result = f"w{len(self.steps)}"
        made = operators.step(result, expression, operand, rounding="exact")
        self.values[result] = self._computed(made)
        self.steps.append(made)
        return result

    def try_step(self, make: operators.Maker) -> None:
        inputs, steps = len(self.inputs), len(self.steps)
        result = f"v{len(self.steps)}"
        try:
            made = make(self, result)
            computed = self._computed(made)
            self._expect_usable(computed)
        except (operators.Unfit, RuntimeError, IndexError, ValueError, TypeError):
            for name in [x.name for x in self.inputs[inputs:]] + [
                x.result for x in self.steps[steps:]
            ]:
                del self.values[name]
            del self.inputs[inputs:], self.steps[steps:]
            return
        self.steps.append(made)
        self.values[result] = computed

    def _computed(self, made: Step) -> list[torch.Tensor]:
        """The result of a step for each choice of sizes."""
        code = compile(made.source, "<step>", "exec")
        computed = []
        for i in range(len(self.sizes)):
            scope = {name: each[i] for name, each in self.values.items()}
            scope |= {"torch": torch, "functional": torch.nn.functional}
            exec(code, scope)
            computed.append(scope[made.result])
        return computed

    def _expect_usable(self, computed: list[torch.Tensor]) -> None:
        first = computed[0]
        for each in computed:
            if (
                not isinstance(each, torch.Tensor)
                or each.dtype != first.dtype
                or each.dim() != first.dim()
                or each.dim() > MAX_RANK
                or each.numel() > MAX_ELEMENTS
                or each.is_complex()
            ):
                raise operators.Unfit
        hopeless = first.is_floating_point() and first.numel() and not first.isfinite().any()
        if hopeless and self.random.random() < 0.9:
            raise operators.Unfit


def generate(seed: int, steps: int | None = None) -> Graph:
    builder = Builder(seed)
    return builder.graph(steps or builder.random.choice((3, 6, 10, 15, 25)))
