"""The benchmark's results as Markdown."""

from __future__ import annotations

from math import exp, log
from typing import Any

Results = dict[str, Any]


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def geometric_mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def medians(peers: Results, batch: Any) -> dict[str, float]:
    """Seconds per peer; JSON has turned the batch into a text when the results were read from a file."""
    found = {}
    for peer, result in peers.items():
        batches = result.get("batches", {})
        case = batches.get(batch, batches.get(str(batch), {}))
        if "median_s" in case:
            found[peer] = case["median_s"]
    return found


def cases(results: Results) -> list[tuple[str, int, dict[str, float]]]:
    return [
        (model, batch, medians(peers, batch))
        for model, peers in results["models"].items()
        if model != "call_overhead"
        for batch in (1, 8)
    ]


def peer_names(results: Results) -> list[str]:
    names: dict[str, None] = {}
    for peers in results["models"].values():
        names.update(dict.fromkeys(peers))
    return list(names)


def latency_table(results: Results) -> str:
    peers = peer_names(results)
    rows = []
    speedups: list[float] = []
    to_best: list[float] = []
    for model, batch, times in cases(results):
        row = [f"{model}, batch {batch}"]
        row += [f"{times[peer] * 1e3:.2f}" if peer in times else "–" for peer in peers]
        others = {peer: t for peer, t in times.items() if peer != "kiln"}
        if "kiln" in times and others:
            best = min(others, key=others.get)
            to_best.append(others[best] / times["kiln"])
            if "eager" in times:
                speedups.append(times["eager"] / times["kiln"])
            eager = f"{speedups[-1]:.2f}" if "eager" in times else "–"
            row += [eager, f"{to_best[-1]:.2f} ({best})"]
        else:
            row += ["–", "–"]
        rows.append(row)
    if to_best:
        mean = f"**{geometric_mean(speedups):.2f}**" if speedups else "–"
        filler = [""] * len(peers)
        rows.append(["geometric mean", *filler, mean, f"**{geometric_mean(to_best):.2f}**"])
    return table(["milliseconds", *peers, "eager / kiln", "best peer / kiln"], rows)


def cost_table(results: Results) -> str:
    rows = []
    for model, peers in results["models"].items():
        for peer, result in peers.items():
            if "build_s" not in result:
                continue
            first = next(iter(result["batches"].values()), {})
            rows.append(
                [
                    f"{model}, {peer}",
                    f"{result['build_s']:.1f}",
                    f"{result['load_s'] * 1e3:.0f}",
                    f"{first.get('first_call_s', 0) * 1e3:.0f}",
                    f"{result.get('memory_bytes', 0) / 2**20:.0f}",
                    f"{first.get('error', 0):.1e}",
                ]
            )
    header = ["", "build s", "load ms", "first call ms", "peak memory MiB", "relative error"]
    return table(header, rows)


def overhead_table(results: Results) -> str:
    times = medians(results["models"].get("call_overhead", {}), 1)
    return table(["", "us per call"], [[peer, f"{t * 1e6:.1f}"] for peer, t in times.items()])


def left_out(results: Results) -> list[str]:
    return [
        f"- {model}, {peer}: {result['left_out']}"
        for model, peers in results["models"].items()
        for peer, result in peers.items()
        if "left_out" in result
    ]


def markdown(results: Results) -> str:
    machine = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    parts = [
        "# Benchmark results",
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores of which {results['threads']} used, "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}, {packages}; "
        f"{results['sizes']} sizes, f32; text of 128 tokens, images of 224 x 224.",
        "## Latency\n\nMedians; above 1, Kiln is the faster one.",
        latency_table(results),
        "## Building, loading, memory\n\nEach peer in a process of its own, PyTorch included. Figures for batch 1. "
        "torch.compile compiles in its first calls.",
        cost_table(results),
        "## Call overhead\n\nAdding two numbers, called from Python with tensors.",
        overhead_table(results),
    ]
    if missing := left_out(results):
        parts += ["## Left out", "\n".join(missing)]
    return "\n\n".join(parts) + "\n"
