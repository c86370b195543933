"""Every operator of PyTorch's OpInfo database, in engines, against eager PyTorch.

    python tests/opinfo/sweep.py --dtypes f32,i64,bool --samples 6 --jobs 2 --out build/opinfo.json [--ops 'sort|topk']

Operators are tried in processes of their own, so that one that crashes or hangs is a line of the result, too.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import selectors
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", default="f32,i64,bool")
    parser.add_argument("--ops", default="", help="a regular expression for names")
    parser.add_argument(
        "--samples", type=int, default=6, help="of each operator and dtype, at most"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=120, help="seconds for one operator")
    parser.add_argument("--out", type=Path, help="a JSON file for all outcomes")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.samples)
    from one_op import all_ops, full_name

    names = sorted({full_name(op) for op in all_ops()})
    tasks = [
        (name, dtype)
        for dtype in options.dtypes.split(",")
        for name in names
        if re.search(options.ops, name)
    ]
    outcomes = run(tasks, options)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(outcomes, indent=1))
    report(outcomes)
    return any(each["status"] in ("wrong", "error", "crash", "hang") for each in outcomes)


def work(samples: int) -> int:
    """Reads names and dtypes from stdin, and writes what came of them."""
    import torch
    from one_op import all_ops, full_name, try_op

    torch.set_num_threads(1)
    by_name = {full_name(op): op for op in all_ops()}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        name, dtype = json.loads(line)
        print(json.dumps(asdict(try_op(by_name[name], dtype, samples))), file=answers, flush=True)
    return 0


def run(tasks: list[tuple[str, str]], options: argparse.Namespace) -> list[dict[str, Any]]:
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    outcomes: list[dict[str, Any]] = []

    def serve() -> None:
        worker = None
        while True:
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None:
                worker = Worker(options.samples)
            outcome = worker.ask(task, options.limit)
            if outcome["status"] in ("crash", "hang"):
                worker = None
            outcomes.append(outcome)
            line = f"{outcome['op']} {outcome['dtype']}: {outcome['status']}"
            print(f"{len(outcomes)}/{len(tasks)} {line}", file=sys.stderr, flush=True)
        if worker is not None:
            worker.end()

    threads = [threading.Thread(target=serve) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes, key=lambda each: (each["dtype"], each["op"]))


class Worker:
    def __init__(self, samples: int) -> None:
        command = [sys.executable, __file__, "--work", "--samples", str(samples)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._is_new = True

    def ask(self, task: tuple[str, str], limit: float) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        failed = {"op": task[0], "dtype": task[1], "samples": 0, "passed": 0}
        try:
            print(json.dumps(task), file=self._process.stdin, flush=True)
            ready = self._selector.select(limit + (60 if self._is_new else 0))
            line = self._process.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = [1], ""
        self._is_new = False
        if line:
            return json.loads(line)
        self.end()
        if not ready:
            return failed | {"status": "hang", "reasons": {f"no answer in {limit:g} s": 1}}
        code = self._process.returncode
        return failed | {"status": "crash", "reasons": {f"the process ended with {code}": 1}}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def report(outcomes: list[dict[str, Any]]) -> None:
    for status, number in sorted(Counter(each["status"] for each in outcomes).items()):
        print(f"{status}: {number}")
    for each in outcomes:
        if each["status"] in ("wrong", "error", "crash", "hang"):
            print(
                f"{each['status'].upper()} {each['op']} {each['dtype']}: {'; '.join(each['reasons'])}"
            )
    refused: Counter[str] = Counter()
    for each in outcomes:
        refused.update({reason: 1 for reason in each["reasons"] if each["status"] == "refused"})
    for reason, number in refused.most_common(60):
        print(f"{number:4} {reason}")


if __name__ == "__main__":
    sys.exit(main())
