#!/usr/bin/env python3
"""Compares Kiln with other ways to run PyTorch models on this CPU, side by side; writes JSON and Markdown.

Every peer has a process of its own. The processes take turns: in every round each is timed for a
moment, so that a change of the machine's speed meets all of them. Figures are medians over all runs;
outputs are checked against eager PyTorch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import report

HERE = Path(__file__).resolve().parent
MODELS = ["minilm", "bert", "gpt2", "llama", "vit", "resnet50", "convnext", "mobilenetv2"]
MODELS += ["swin", "segformer", "whisper", "efficientnet", "t5", "vgg16"]
PEERS = ["eager", "torch.compile", "AOTInductor", "onnxruntime", "openvino", "kiln"]
BATCHES = [1, 8]
CALL_OVERHEAD = "call_overhead"
MAX_ERROR = 1e-3  # above this a peer's figures would be for another function


class WorkerFailed(Exception):
    pass


@dataclass
class Worker:
    """A worker.py process; requests and answers are JSON lines."""

    stage: str
    peer: str
    model: str
    folder: Path
    options: argparse.Namespace
    process: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        size = "reduced" if self.options.reduced else "full"
        command = [sys.executable, str(HERE / "worker.py"), self.stage, self.peer, self.model]
        command += [str(self.folder), str(self.options.threads), size]
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{self.stage}.log").open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(self.options.threads)},
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        if request:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps(request) + "\n")
                self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"failed": "the process died"}
        if reason := answer.get("missing") or answer.get("failed"):
            raise WorkerFailed(reason)
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=20)
        if self.process.poll() is None:
            self.process.kill()


def say(text: str) -> None:
    print(f"bench: {text}", flush=True)


def once(stage: str, peer: str, model: str, folder: Path, options: argparse.Namespace) -> dict:
    worker = Worker(stage, peer, model, folder, options)
    try:
        return worker.ask()
    finally:
        worker.close()


def start_peers(model: str, folder: Path, options: argparse.Namespace) -> tuple[dict, dict]:
    """Builds and loads every peer; gives the live workers and what is known of all peers."""
    workers: dict[str, Worker] = {}
    results: dict[str, dict[str, Any]] = {}
    for peer in options.peers:
        say(f"{model}: {peer}: building")
        try:
            built = once("build", peer, model, folder / peer, options)
            worker = Worker("serve", peer, model, folder / peer, options)
            loaded = worker.ask()
        except WorkerFailed as failure:
            say(f"{model}: {peer} left out: {failure}")
            results[peer] = {"left_out": str(failure)}
            continue
        workers[peer] = worker
        results[peer] = {"build_s": built["seconds"], "load_s": loaded["seconds"], "batches": {}}
    return workers, results


def measure_batch(
    model: str, batch: int, workers: dict, results: dict, options: argparse.Namespace
) -> None:
    times: dict[str, list[float]] = {}
    for peer in list(workers):
        try:
            first = workers[peer].ask(batch=batch, first=True, seconds=0)
            if first["error"] > MAX_ERROR:
                raise WorkerFailed(f"its outputs are wrong: relative error {first['error']:.1e}")
        except WorkerFailed as failure:
            say(f"{model}: {peer} left out at batch {batch}: {failure}")
            results[peer]["left_out"] = f"batch {batch}: {failure}"
            workers.pop(peer).close()
            continue
        results[peer]["batches"][batch] = {
            "first_call_s": first["seconds"],
            "error": first["error"],
        }
        times[peer] = []
    for round_number in range(options.rounds + 1):  # the first round warms up
        for peer in list(times):
            answer = workers[peer].ask(batch=batch, first=False, seconds=options.seconds)
            if round_number > 0:
                times[peer] += answer["times"]
            results[peer]["memory_bytes"] = answer["memory"]
    for peer, samples in times.items():
        results[peer]["batches"][batch] |= {"median_s": median(samples), "runs": len(samples)}


def measure_model(model: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="kiln-bench-") as name:
        folder = Path(name)
        once("expect", "eager", model, folder / "expected", options)
        workers, results = start_peers(model, folder, options)
        try:
            for batch in BATCHES[:1] if model == CALL_OVERHEAD else BATCHES:
                say(f"{model}: timing batch {batch}")
                measure_batch(model, batch, workers, results, options)
        finally:
            for worker in workers.values():
                worker.close()
    return results


def machine() -> dict[str, Any]:
    cpu = next(
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packages = {}
    for package in ["torch", "transformers", "onnxruntime", "openvino", "torch-kiln"]:
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS, metavar="PEER")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each peer in each round")
    parser.add_argument(
        "--reduced", action="store_true", help="small sizes: to try the benchmark out"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results", help="without suffix")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    start = time.monotonic()
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "threads": options.threads,
        "sizes": "reduced" if options.reduced else "full",
        "models": {},
    }
    for model in [CALL_OVERHEAD, *options.models]:
        results["models"][model] = measure_model(model, options)
        options.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(report.markdown(results))
    print(report.markdown(results))
    say(f"wrote {options.output}.json and .md in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
