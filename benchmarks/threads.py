#!/usr/bin/env python3
"""How models scale over threads, beside other runtimes; prints Markdown.

Models are built once, for all numbers of threads; then, for each number, every peer has a process of its own, and
they take turns. Batch 1, medians, outputs checked against eager PyTorch.

    python benchmarks/threads.py --threads 1 4 16 --peers onnxruntime openvino kiln
"""

from __future__ import annotations

import argparse
import concurrent.futures
import math
import sys
import tempfile
from pathlib import Path
from statistics import median

from report import geometric_mean, table
from run import MAX_ERROR, MODELS, PEERS, Worker, WorkerFailed, machine, once, say


def with_threads(options: argparse.Namespace, threads: int) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "threads": threads})


def build(model: str, peers: list[str], folder: Path, options: argparse.Namespace) -> list[str]:
    """The peers that there are."""
    built = []
    try:
        once("expect", "eager", model, folder / "expected", options)
    except WorkerFailed as failure:
        say(f"{model} left out: {failure}")
        return built
    for peer in peers:
        try:
            once("build", peer, model, folder / peer, options)
            built.append(peer)
        except WorkerFailed as failure:
            say(f"{model}: {peer} left out: {failure}")
    return built


def measure(
    model: str, peers: list[str], folder: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Milliseconds of a call."""
    workers, times = {}, {}
    try:
        for peer in peers:
            workers[peer] = Worker("serve", peer, model, folder / peer, options)
        for peer, worker in workers.items():
            try:
                worker.ask()
                error = worker.ask(batch=1, first=True, seconds=0)["error"]
                if error > MAX_ERROR:
                    raise WorkerFailed(f"its outputs are wrong: relative error {error:.1e}")
                times[peer] = []
            except WorkerFailed as failure:
                say(f"{model}: {peer} left out: {failure}")
        for number in range(options.rounds + 1):  # the first round warms up
            for peer, samples in times.items():
                found = workers[peer].ask(batch=1, first=False, seconds=options.seconds)["times"]
                if number > 0:
                    samples += found
        return {peer: 1e3 * median(samples) for peer, samples in times.items()}
    finally:
        for worker in workers.values():
            worker.close()


def rows_of(results: dict[int, dict[str, dict[str, float]]], peers: list[str]) -> list[list[str]]:
    rows = []
    for threads, models in results.items():
        ratios = []
        for model, times in models.items():
            others = [time for peer, time in times.items() if peer != "kiln"]
            ratio = times["kiln"] / min(others) if others and "kiln" in times else math.nan
            ratios.append(ratio)
            cells = [f"{times[peer]:.2f}" if peer in times else "" for peer in peers]
            rows.append([model, str(threads), *cells, f"{ratio:.2f}"])
        mean = geometric_mean(ratios)
        rows.append(["geometric mean", str(threads), *[""] * len(peers), f"**{mean:.2f}**"])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS, metavar="PEER")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each peer in each round")
    parser.add_argument("--builds", type=int, default=1, help="models that are built at once")
    parser.add_argument("--reduced", action="store_true", help="small sizes: to try it out")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="kiln-bench-") as name:
        folders = {model: Path(name) / model for model in options.models}
        for folder in folders.values():
            folder.mkdir()
        with concurrent.futures.ThreadPoolExecutor(options.builds) as pool:
            building = with_threads(options, 2)
            built = dict(
                zip(
                    options.models,
                    pool.map(lambda m: build(m, options.peers, folders[m], building), folders),
                    strict=True,
                )
            )
        results = {}
        for threads in options.threads:
            results[threads] = {}
            for model in [name for name in options.models if built[name]]:
                say(f"{model}, {threads} threads")
                times = measure(model, built[model], folders[model], with_threads(options, threads))
                say(" ".join(f"{peer} {time:.2f} ms" for peer, time in times.items()))
                results[threads][model] = times
    header = ["milliseconds", "threads", *options.peers, "Kiln / best peer"]
    print(table(header, rows_of(results, options.peers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
