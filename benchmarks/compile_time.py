#!/usr/bin/env python3
"""How long models of many operators take to compile, by number of nodes: seconds of PyTorch's export, of PyTorch's part
and of Kiln's in `torch_tensorrt.dynamo.compile`, and of the compiler alone.

Graphs of several kinds, each one engine. CPU time of all threads, which other work on the machine disturbs less.

    python benchmarks/compile_time.py --kinds blocks wide --nodes 1000 5000 20000 --save /tmp/programs
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import kiln
import torch_tensorrt
from report import table

WIDTH = 16


class Block(nn.Module):
    """A layer norm, two linear layers, activations, a transposition and a mean: 15 operators."""

    operators = 15

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        heads = x.reshape(x.shape[0], 4, -1).transpose(1, 2)
        heads = (heads * torch.sigmoid(heads)).transpose(1, 2).reshape(x.shape)
        return torch.tanh(x + heads + x.mean(-1, keepdim=True))


class Chain(nn.Module):
    """A product and pointwise operators."""

    operators = 5

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight + 1) * 0.9 - 0.1


class Pointwise(nn.Module):
    """Pointwise operators alone, which may all become one kernel."""

    operators = 5

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.sigmoid(x * 1.5) + x) - x.relu()


class Residual(nn.Module):
    """A convolution with its batch norm and a residual connection, as in a deep ResNet."""

    operators = 4

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + 0.1 * self.norm(self.convolution(x)))


class Views(nn.Module):
    """Writes into views of what was cloned, which become slices and scatters of it."""

    operators = 12

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :4].mul_(0.5)
        x[:, 4:8] = x[:, 8:12]
        return x.reshape(4, -1).t().reshape(x.shape).unsqueeze(1).squeeze(1)


class Wide(nn.Module):
    """Branches of one value, concatenated."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.branches = nodes // 4

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :4].tanh()
        return torch.cat(
            [(x * (1.5 + i / self.branches)).sin() + x.relu() for i in range(self.branches)], 1
        )


class WideProducts(nn.Module):
    """Products of one value with many weights, concatenated."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 4) for _ in range(nodes // 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x).tanh() for layer in self.layers], 1)


def repeated(block: type[nn.Module]) -> Callable[[int], nn.Module]:
    return lambda nodes: nn.Sequential(*[block() for _ in range(nodes // block.operators)])


KINDS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "blocks": (repeated(Block), (8, WIDTH)),
    "chain": (repeated(Chain), (8, WIDTH)),
    "pointwise": (repeated(Pointwise), (8, WIDTH)),
    "residual": (repeated(Residual), (1, 4, 8, 8)),
    "views": (repeated(Views), (8, WIDTH)),
    "wide": (Wide, (8, WIDTH)),
    "wide products": (WideProducts, (8, WIDTH)),
}


class Clock:
    """CPU seconds spent in functions while they are watched, calls from each other counted once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running = False

    def watch(self, owner: Any, name: str, label: str) -> Any:
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._running:
                return function(*args, **kwargs)
            self._running = True
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._running = False
                self.seconds[label] = self.seconds.get(label, 0) + time.process_time() - start

        return mock.patch.object(owner, name, timed)


@contextmanager
def watched() -> Iterator[Clock]:
    clock = Clock()
    with ExitStack() as stack:
        stack.enter_context(clock.watch(kiln, "compile", "compiler"))
        stack.enter_context(clock.watch(ExportedProgram, "run_decompositions", "torch"))
        yield clock


def measure(kind: str, nodes: int, save: Path | None) -> list[str]:
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    model = make(nodes).eval()
    x = torch.randn(shape)
    start = time.process_time()
    program = torch.export.export(model, (x,), strict=False)
    exported = time.process_time() - start
    found = sum(node.op == "call_function" for node in program.graph.nodes)
    if save:
        torch.export.save(program, save / f"{kind.replace(' ', '_')}_{nodes}.pt2")
    with watched() as clock:
        start = time.process_time()
        compiled = torch_tensorrt.dynamo.compile(
            program, arg_inputs=[x], min_block_size=1, require_full_compilation=True
        )
        total = time.process_time() - start
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    torchs, compiler = clock.seconds.get("torch", 0), clock.seconds["compiler"]
    parts = [exported, torchs, total - torchs - compiler, compiler, total]
    row = [kind, f"{found:,}", *(f"{s:.2f}" for s in parts), f"{1000 * compiler / found:.2f}"]
    print(*row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--save", type=Path, help="folder for the exported programs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        measure(options.kinds[0], 100, None)  # what is loaded once
        rows = [
            measure(kind, nodes, options.save) for kind in options.kinds for nodes in options.nodes
        ]
    columns = [
        "graph",
        "nodes",
        "export s",
        "torch s",
        "front s",
        "compiler s",
        "compile s",
        "ms a node",
    ]
    print(table(columns, rows))


if __name__ == "__main__":
    main()
