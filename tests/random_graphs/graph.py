"""A random model as data: inputs, steps of one line of Python each, outputs; made into a module and a program."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch


def values(seed: int, dtype: torch.dtype, shape: tuple[int, ...], special: bool) -> torch.Tensor:
    """Numbers of a size that few operators make infinite; a few special ones among them if asked for."""
    generator = torch.Generator().manual_seed(seed)
    if not dtype.is_floating_point:
        low, high = (0, 2) if dtype == torch.bool else (-4, 5)
        return torch.randint(low, high, shape, generator=generator).to(dtype)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if special:
        chosen = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e4, -1e-6, 1.0])
        which = torch.randint(0, 8, shape, generator=generator)
        x = torch.where(torch.rand(shape, generator=generator) < 0.1, chosen.double()[which], x)
    return x.to(dtype)


@dataclass(frozen=True)
class Input:
    """`shape` has sizes and names of symbols. A constant belongs to the model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    seed: int
    special: bool = False
    constant: bool = False

    def make(self, sizes: dict[str, int]) -> torch.Tensor:
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)
        return values(self.seed, getattr(torch, self.dtype), shape, self.special)


@dataclass(frozen=True)
class Step:
    """`result` is what the lines of Python assign, from `operands`. How it may be wrong: see check.py."""

    result: str
    source: str
    operands: tuple[str, ...]
    rounding: str


@dataclass(frozen=True)
class Graph:
    """`symbols`: lowest, usual and highest value by name. `target`: as `torch_tensorrt.compile` takes it."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    symbols: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    target: str = "cpu"

    def sizes(self) -> list[dict[str, int]]:
        """Values of the symbols to try, the usual ones first."""
        if not self.symbols:
            return [{}]
        low, opt, high = ({n: v[i] for n, v in self.symbols.items()} for i in range(3))
        between = {n: (v[1] + v[2]) // 2 for n, v in self.symbols.items()}
        mixed = {n: v[2 * (i % 2)] for i, (n, v) in enumerate(self.symbols.items())}
        return [opt, low, high, mixed, between]

    def arguments(self) -> list[Input]:
        return [each for each in self.inputs if not each.constant]

    def tensors(self, sizes: dict[str, int]) -> list[torch.Tensor]:
        return [each.make(sizes) for each in self.arguments()]

    def module_source(self) -> str:
        constants = [each for each in self.inputs if each.constant]
        lines = [
            "class Model(torch.nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
        ]
        for each in constants:
            made = f"values({each.seed}, torch.{each.dtype}, {each.shape}, {each.special})"
            lines.append(f'        self.register_buffer("{each.name}", {made})')
        arguments = [each.name for each in self.arguments()]
        lines += ["", f"    def forward({', '.join(['self', *arguments])}):"]
        lines += [f"        {each.name} = self.{each.name}" for each in constants]
        for step in self.steps:
            lines += [f"        {line}" for line in step.source.split("\n")]
        lines.append(f"        return ({''.join(name + ', ' for name in self.outputs)})")
        return "\n".join(lines)

    def module(self) -> torch.nn.Module:
        # A module of its own, so that torch.export finds the source's globals.
        scope = types.ModuleType("random_graph")
        scope.__dict__.update(torch=torch, functional=torch.nn.functional, values=values)
        exec(compile(self.module_source(), "<random graph>", "exec"), scope.__dict__)
        return scope.Model().eval()

    def program(self, note: str = "") -> str:
        """Python that compiles the model and prints what it and eager PyTorch give."""
        dims = "".join(
            f'{name} = torch.export.Dim("{name}", min={low}, max={high})\n'
            for name, (low, _, high) in self.symbols.items()
        )
        arguments = self.arguments()
        made = ", ".join(
            f"values({a.seed}, torch.{a.dtype}, {_tuple(a.shape, 'sizes')}, {a.special})"
            for a in arguments
        )
        shapes = ", ".join(
            "{"
            + ", ".join(f"{i}: {size}" for i, size in enumerate(a.shape) if isinstance(size, str))
            + "}"
            for a in arguments
        )
        ranges = ", ".join(
            "torch_tensorrt.Input("
            + ", ".join(
                f"{key}={_tuple(a.shape, f'bounds[{i}]')}"
                for i, key in enumerate(("min_shape", "opt_shape", "max_shape"))
            )
            + f", dtype=torch.{a.dtype})"
            for a in arguments
        )
        bounds = [{name: limits[i] for name, limits in self.symbols.items()} for i in range(3)]
        return f"""# {note}
import torch
from torch.nn import functional

import torch_tensorrt


{inspect.getsource(values)}

{self.module_source()}


{dims}bounds = {bounds}
model, sizes = Model().eval(), bounds[1]
program = torch.export.export(
    model, ({made},), dynamic_shapes=(({shapes},),)[0], strict=False
)
compiled = torch_tensorrt.dynamo.compile(
    program, arg_inputs=[{ranges}], min_block_size=1, require_full_compilation=True, targets="{self.target}"
)
for sizes in {self.sizes()}:
    inputs = ({made},)
    for got, expected in zip(compiled(*inputs), model(*inputs)):
        print(sizes, got.dtype, tuple(got.shape), (got != expected).sum(), got, expected, sep="\\n")
"""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def from_json(text: str) -> Graph:
    data = json.loads(text)
    return Graph(
        tuple(Input(**{**each, "shape": tuple(each["shape"])}) for each in data["inputs"]),
        tuple(Step(**{**each, "operands": tuple(each["operands"])}) for each in data["steps"]),
        tuple(data["outputs"]),
        {name: tuple(limits) for name, limits in data["symbols"].items()},
        data.get("target", "cpu"),
    )


def without_unused(graph: Graph) -> Graph:
    """The same outputs, without steps, inputs and symbols that they do not need."""
    needed = set(graph.outputs)
    steps: list[Step] = []
    for step in reversed(graph.steps):
        if step.result in needed:
            steps.append(step)
            needed.update(step.operands)
    inputs = tuple(each for each in graph.inputs if each.name in needed)
    used = {size for each in inputs for size in each.shape if isinstance(size, str)}
    symbols = {name: limits for name, limits in graph.symbols.items() if name in used}
    return replace(graph, inputs=inputs, steps=tuple(reversed(steps)), symbols=symbols)


def _tuple(items: Iterable[Any], sizes: str) -> str:
    text = [f'{sizes}["{item}"]' if isinstance(item, str) else str(item) for item in items]
    return f"({''.join(item + ', ' for item in text)})"
