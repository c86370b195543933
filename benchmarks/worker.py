"""One peer on one model, in a process of its own; run.py starts it and talks to it in JSON lines.

worker.py expect eager MODEL FOLDER THREADS SIZE   writes the outputs that the peers are checked against
worker.py build PEER MODEL FOLDER THREADS SIZE     builds; one line with the seconds
worker.py serve PEER MODEL FOLDER THREADS SIZE     loads; one line; then a line for each request
"""

from __future__ import annotations

import json
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

import peers
from models import CALL_OVERHEAD, MODELS_OF_BENCHMARK, Model, relative_error

BATCHES = (1, 8)

warnings.filterwarnings("ignore")

# Only protocol lines go to the parent: libraries that print are sent to the log.
PROTOCOL = sys.stdout
sys.stdout = sys.stderr


def answer(**fields: object) -> None:
    print(json.dumps(fields), file=PROTOCOL, flush=True)


def model_named(name: str) -> Model:
    return CALL_OVERHEAD if name == CALL_OVERHEAD.name else MODELS_OF_BENCHMARK[name]


def expect(peer: peers.Peer, name: str, folder: Path, full: bool) -> None:
    model = model_named(name)
    runner = peer.load(model, folder, full)
    for batch in BATCHES:
        outputs = peers.outputs_of(runner, model.inputs(batch, full=full))
        torch.save(outputs, folder.parent / f"expected_{batch}.pt")
    answer(batches=BATCHES)


def build(peer: peers.Peer, name: str, folder: Path, full: bool) -> None:
    start = time.perf_counter()
    peer.build(model_named(name), folder, full)
    answer(seconds=time.perf_counter() - start)


def resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_runs(runner: peers.Runner, inputs: peers.Inputs, seconds: float) -> list[float]:
    times = []
    with torch.no_grad():
        until = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < until:
            start = time.perf_counter()
            runner(*inputs)
            times.append(time.perf_counter() - start)
    return times


def serve(peer: peers.Peer, name: str, folder: Path, full: bool) -> None:
    model = model_named(name)
    peer.prepare()
    start = time.perf_counter()
    runner = peer.load(model, folder, full)
    answer(seconds=time.perf_counter() - start)
    for line in sys.stdin:
        request = json.loads(line)
        batch = request["batch"]
        inputs = model.inputs(batch, full=full)
        if request["first"]:
            start = time.perf_counter()
            outputs = peers.outputs_of(runner, inputs)
            seconds = time.perf_counter() - start
            expected = torch.load(folder.parent / f"expected_{batch}.pt")
            answer(seconds=seconds, error=relative_error(outputs, expected))
            continue
        answer(times=time_runs(runner, inputs, request["seconds"]), memory=resident_bytes())


def main() -> int:
    stage, peer, name, folder, threads, size = sys.argv[1:]
    peers.use_threads(int(threads))
    try:
        stages = {"expect": expect, "build": build, "serve": serve}
        stages[stage](peers.PEERS[peer], name, Path(folder), size == "full")
    except peers.Missing as missing:
        answer(missing=str(missing))
    except Exception as error:
        traceback.print_exc()
        answer(failed=f"{type(error).__name__}: {error}".splitlines()[0][:200])
    return 0


if __name__ == "__main__":
    sys.exit(main())
