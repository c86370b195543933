#!/usr/bin/env python3
"""How long models of many operators take to compile: seconds by number of nodes, and what the export takes before.

Blocks of a layer norm, two linear layers, activations, a transposition and a mean, 15 operators each, as one engine.
CPU time of all threads, which other work on the machine disturbs less.

    python benchmarks/compile_time.py --nodes 1000 5000 20000
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

import torch_tensorrt
from report import table

WIDTH, OPERATORS = 16, 15


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        heads = x.reshape(x.shape[0], 4, -1).transpose(1, 2)
        heads = (heads * torch.sigmoid(heads)).transpose(1, 2).reshape(x.shape)
        return torch.tanh(x + heads + x.mean(-1, keepdim=True))


def measure(nodes: int) -> list[str]:
    torch.manual_seed(0)
    model = nn.Sequential(*[Block() for _ in range(nodes // OPERATORS)]).eval()
    x = torch.randn(8, WIDTH)
    start = time.process_time()
    program = torch.export.export(model, (x,), strict=False)
    exported = time.process_time()
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=[x], min_block_size=1, require_full_compilation=True
    )
    done = time.process_time()
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    found = sum(node.op == "call_function" for node in program.graph.nodes)
    seconds = done - exported
    return [
        f"{found:,}",
        f"{exported - start:.1f}",
        f"{seconds:.2f}",
        f"{1000 * seconds / found:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 5000, 20000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        measure(100)  # what is loaded once
        rows = [measure(nodes) for nodes in options.nodes]
    print(table(["nodes", "export s", "compile s", "ms a node"], rows))


if __name__ == "__main__":
    main()
