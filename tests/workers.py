"""Tasks in processes of their own: one that crashes or hangs is an outcome, too.

A worker is a command that reads tasks from stdin, a line of JSON each, and writes an object of JSON for each to stdout.
What ends without an answer has the status "crash", what gives none in time "hang".
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

# Seconds that a new process may take to import what it needs.
_START = 60


class Worker:
    """One process, which is asked one task after the other."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._is_new = True

    def ask(self, task: Any, limit: float) -> dict[str, Any]:
        """The answer, or a status and reasons if there is none within `limit` seconds; the process has ended then."""
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps(task), file=self._process.stdin, flush=True)
            ready = self._selector.select(limit + (_START if self._is_new else 0))
            line = self._process.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = [1], ""
        self._is_new = False
        if line:
            return json.loads(line)
        if not ready:
            self.end()
            return {"status": "hang", "reasons": {f"no answer in {limit:g} s": 1}}
        # It is about to end by itself: a signal of ours would hide its own.
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            code = None
        self.end()
        return {"status": "crash", "reasons": {f"the process ended with {code}": 1}}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def add_options(parser: argparse.ArgumentParser, limit: float, item: str) -> None:
    """The options that every sweep has; `item` is what it tries, each for `limit` seconds unless told otherwise."""
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=limit, help=f"seconds for one {item}")
    parser.add_argument("--out", type=Path, help="a file of outcomes, a line of JSON each")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)


def run(
    tasks: Iterable[Any],
    start: Callable[[], Worker],
    done: Callable[[Any, dict[str, Any]], None],
    jobs: int,
    limit: float,
) -> None:
    """Asks `jobs` workers at once, and tells `done` each task's answer, one call at a time."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    lock = threading.Lock()

    def serve() -> None:
        worker = None
        while True:
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                break
            worker = worker or start()
            answer = worker.ask(task, limit)
            if answer["status"] in ("crash", "hang"):
                worker = None
            with lock:
                done(task, answer)
        if worker is not None:
            worker.end()

    threads = [threading.Thread(target=serve) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def answer_tasks(answer: Callable[[Any], dict[str, Any]]) -> None:
    """The other side: reads tasks from stdin until it ends, and writes what `answer` says of each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def read_lines(path: Path | None) -> list[dict[str, Any]]:
    """Outcomes in a file of a line of JSON each; one that was cut off is left out."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def add_line(path: Path | None, outcome: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(outcome) + "\n")
