"""A process may end while threads of its use engines: it ends with its own exit code, never with a signal."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from models_small import Mlp

_THREADS = """
import os, sys, threading, time
import numpy as np
threads = []

def use(work, daemon=True, count=4):
    def forever():
        while True:
            work()
    for _ in range(count):
        threads.append(threading.Thread(target=forever, daemon=daemon))
        threads[-1].start()
"""

_SESSIONS = """
import kiln
engine = kiln.load(PATH) if MAPPED else kiln.load(open(PATH, "rb").read())
x = np.ones((64, 16), np.float32)
shared = engine.session(2)

def one_each():
    session = engine.session(2)
    for _ in range(20):
        session.run(x)

def describe():
    engine.describe()

use(one_each)
use(describe, count=1)
use(lambda: shared.run(x), count=1)
"""

_OPERATOR = """
import torch, torch_tensorrt
model = torch_tensorrt.load(PATH)
x = torch.ones(64, 16)
"""

_COMPILES = """
import kiln
use(lambda: kiln.compile(PATH), count=3)
use(lambda: kiln.Model.open(PATH).check(), count=1)
"""

_ENDS = {
    "end of the script": "",
    "sys.exit": "sys.exit(0)",
    "exception": "sys.excepthook = lambda *_: None\nraise RuntimeError",
    "teardown of globals": "globals().pop('shared', None)\nglobals().pop('engine', None)",
}


def run(code: str, expected: int = 0, may_be_pytorchs: bool = False) -> None:
    # No warnings: what is on stderr is compared with what PyTorch itself may say there.
    command = [sys.executable, "-W", "ignore", "-c", _THREADS + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    # Before Python 3.14 a daemon thread inside any operator of PyTorch ends the process so: the interpreter unwinds it
    # through frames that must not be unwound. A plain torch.nn.Linear does it.
    pytorchs = set(done.stderr.splitlines()) <= {
        "terminate called without an active exception",
        "terminate called recursively",
    }
    if may_be_pytorchs and done.returncode == -6 and pytorchs:
        return
    assert done.returncode == expected, f"{done.returncode}: {done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Paths of one model: exported, as an engine, and in each container."""
    import kiln
    import torch_tensorrt

    folder = tmp_path_factory.mktemp("exit")
    model = Mlp().eval()
    x = torch.ones(64, 16)
    torch.export.save(torch.export.export(model, (x,)), folder / "model.pt2")
    kiln.compile(folder / "model.pt2", output=folder / "model.kiln")
    compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[x], min_block_size=1)
    torch_tensorrt.save(compiled, str(folder / "model.ep"), arg_inputs=[x])
    torch_tensorrt.save(
        compiled, str(folder / "model.ts"), output_format="torchscript", arg_inputs=[x]
    )
    torch_tensorrt.save(
        compiled, str(folder / "packed.pt2"), output_format="aot_inductor", arg_inputs=[x]
    )
    return folder


@pytest.mark.parametrize("end", _ENDS)
@pytest.mark.parametrize("mapped", [True, False])
def test_sessions(saved, end, mapped):
    start = f"PATH = {str(saved / 'model.kiln')!r}\nMAPPED = {mapped}\n"
    for wait in (0.0, 0.05, 0.2):
        code = f"{start}{_SESSIONS}\ntime.sleep({wait})\n{_ENDS[end]}\n"
        run(code, expected=1 if end == "exception" else 0)


@pytest.mark.parametrize("name", ["model.ep", "model.ts", "packed.pt2"])
def test_operator(saved, name):
    for wait in (0.0, 0.1):
        start = f"PATH = {str(saved / name)!r}\n{_OPERATOR}"
        run(f"{start}\nuse(lambda: model(x))\ntime.sleep({wait})\n", may_be_pytorchs=True)
        waited_for = """
def while_main_runs():
    while threading.main_thread().is_alive():
        model(x)
for _ in range(4):
    threading.Thread(target=while_main_runs).start()
"""
        run(f"{start}{waited_for}\ntime.sleep({wait})\n")


@pytest.mark.parametrize("wait", [0.0, 0.3])
def test_compiles(saved, wait):
    run(f"PATH = {str(saved / 'model.pt2')!r}\n{_COMPILES}\ntime.sleep({wait})\n")


def test_progress_of_a_daemon_thread(saved):
    code = """
import kiln
use(lambda: kiln.compile(PATH, progress=lambda stage, done: None), count=2)
time.sleep(0.3)
"""
    run(f"PATH = {str(saved / 'model.pt2')!r}\n{code}")


def test_child_of_a_fork_ends_too(saved):
    code = """
import kiln
engine = kiln.load(PATH)
x = np.ones((64, 16), np.float32)
engine.session(2).run(x)
use(lambda: engine.session(2).run(x), count=3)
for _ in range(10):
    child = os.fork()
    if child == 0:
        engine.session(2).run(x)
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    run(f"PATH = {str(saved / 'model.kiln')!r}\n{code}")
