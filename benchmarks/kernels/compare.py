"""Contractions against PyTorch, one shape at a time, taking turns: a Markdown table.

    python benchmarks/kernels/compare.py build/benchmarks/kernels/contraction --threads 1

A ratio above 1 means that Kiln is faster. Times are the best of many runs.
"""

import argparse
import subprocess
import time

import torch
from torch.nn import functional

CASES = [
    ("matmul", (128, 768, 768)),
    ("matmul", (128, 3072, 768)),
    ("matmul", (128, 768, 3072)),
    ("matmul", (197, 768, 768)),
    ("matmul", (8, 768, 768)),
    ("matmul", (1, 4096, 4096)),
    ("matmul", (1024, 1024, 1024)),
    ("matmul", (3136, 64, 256)),
    ("matmul", (3136, 256, 64)),
    ("matmul", (49, 512, 2048)),
    ("convolution", (1, 56, 56, 64, 64, 3, 1, 1, 1)),
    ("convolution", (1, 28, 28, 128, 128, 3, 1, 1, 1)),
    ("convolution", (1, 14, 14, 256, 256, 3, 1, 1, 1)),
    ("convolution", (1, 7, 7, 512, 512, 3, 1, 1, 1)),
    ("convolution", (1, 224, 224, 3, 64, 7, 2, 3, 1)),
    ("convolution", (1, 224, 224, 3, 768, 16, 16, 0, 1)),
    ("convolution", (1, 56, 56, 128, 128, 3, 2, 1, 1)),
    ("convolution", (1, 56, 56, 128, 128, 3, 1, 1, 32)),
    ("attention", (1, 12, 128, 128, 64, 0)),
    ("attention", (1, 12, 128, 128, 64, 1)),
    ("attention", (1, 12, 197, 197, 64, 0)),
    ("attention", (1, 12, 1024, 1024, 64, 1)),
]


def best_ms(run, budget=1.0):
    run()
    best, spent = float("inf"), 0.0
    while spent < budget:
        start = time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
    return best * 1e3


def torch_call(kind, sizes):
    if kind == "matmul":
        m, n, k = sizes
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        return lambda: torch.mm(a, b, out=out)
    if kind == "convolution":
        b, h, w, c, o, kernel, stride, padding, groups = sizes
        layout = {"memory_format": torch.channels_last}
        x = torch.randn(b, c, h, w).to(**layout)
        weight = torch.randn(o, c // groups, kernel, kernel).to(**layout)
        return lambda: functional.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
    b, heads, m, n, d, causal = sizes
    q, k, v = (torch.randn(b, rows, heads, d).transpose(1, 2) for rows in (m, n, n))
    return lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=bool(causal))


def kiln_ms(program, threads, kind, sizes):
    command = [program, str(threads), kind, *map(str, sizes)]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    fields = line.split()
    return float(fields[0]), fields[4]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the built `contraction`")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| contraction | sizes | Kiln ms | % of ceiling | PyTorch ms | ratio |")
    print("|---|---|---|---|---|---|")
    for kind, sizes in CASES:
        ours, ceiling = kiln_ms(options.program, options.threads, kind, sizes)
        with torch.inference_mode():
            theirs = best_ms(torch_call(kind, sizes))
        text = ", ".join(map(str, sizes))
        print(f"| {kind} | {text} | {ours:.3f} | {ceiling} | {theirs:.3f} | {theirs / ours:.2f} |")


if __name__ == "__main__":
    main()
