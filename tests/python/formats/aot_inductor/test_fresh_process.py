"""A package runs in a process of an environment in which this project is not installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import fresh_environment
import pytest
import torch
from models_small import Mlp, NestedResults, SortInTheMiddle, batch_input, compile_all

import torch_tensorrt
from torch_tensorrt.formats import aoti

# Runs every case in four threads at once, then says what of this project is in the process.
SCRIPT = """
import json, sys, threading
import torch
from torch.utils import _pytree as pytree

path, cases, bad = sys.argv[1], torch.load(sys.argv[2]), torch.load(sys.argv[3])
model = torch._inductor.aoti_load_package(path)
failures = []

def work():
    for _ in range(20):
        for inputs, expected in cases:
            try:
                result = model(*inputs)
                for a, b in zip(pytree.tree_leaves(result), pytree.tree_leaves(expected), strict=True):
                    if b is not None:
                        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
            except Exception as error:
                failures.append(str(error))

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
errors = []
for inputs in bad:
    try:
        model(*inputs)
        errors.append(None)
    except RuntimeError as error:
        errors.append(str(error))
for name in ("kiln", "torch_tensorrt"):
    try:
        __import__(name)
        failures.append(name + " is installed here")
    except ImportError:
        pass
mapped = {line.split()[-1].rpartition("/")[2] for line in open("/proc/self/maps") if "/" in line}
print(json.dumps({
    "failures": failures,
    "errors": errors,
    "modules": sorted(name for name in sys.modules if "kiln" in name or "tensorrt" in name),
    "mapped": sorted(name for name in mapped if "kiln" in name or name.startswith("model.so")),
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_environment.make(tmp_path_factory.mktemp("venv"))


def run_in_fresh_process(
    python: Path, package: Path, cases: list[Any], bad: list[Any]
) -> dict[str, Any]:
    folder = package.parent
    torch.save(cases, folder / "cases.pt")
    torch.save(bad, folder / "bad.pt")
    command = [python, "-c", SCRIPT, package, folder / "cases.pt", folder / "bad.pt"]
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "KILN")) and key != "LD_LIBRARY_PATH"
    }
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def cases_of(model: torch.nn.Module, shapes: list[tuple[int, ...]]) -> list[Any]:
    with torch.no_grad():
        inputs = [torch.randn(shape) for shape in shapes]
        return [([x], model(x)) for x in inputs]


def test_dynamic_shapes(python, tmp_path) -> None:
    model = Mlp().eval()
    package = tmp_path / "model.pt2"
    torch_tensorrt.save(
        compile_all(model, batch_input()),
        package,
        arg_inputs=[batch_input()],
        output_format="aot_inductor",
    )
    seen = run_in_fresh_process(
        python,
        package,
        cases_of(model, [(1, 16), (7, 16), (32, 16)]),
        [
            [torch.zeros(33, 16)],
            [torch.zeros(4, 15)],
            [torch.zeros(16)],
            [torch.zeros(2, 16).double()],
        ],
    )
    assert seen["failures"] == []
    assert seen["modules"] == []
    assert seen["mapped"] == ["engine_0.kiln", "kiln.wrapper.so"]
    assert seen["errors"] == [
        'input "x" dim 0: got 33, expected 1..32',
        'input "x" dim 1: got 15, expected 16',
        'input "x": got rank 1, expected 2',
        'input "x": got dtype f64, expected f32',
    ]


def test_static_shapes_and_nested_results(python, tmp_path) -> None:
    model = NestedResults().eval()
    package = tmp_path / "model.pt2"
    x = torch.randn(3, 4)
    torch_tensorrt.save(
        compile_all(model, x), package, arg_inputs=[x], output_format="aot_inductor"
    )
    seen = run_in_fresh_process(
        python, package, cases_of(model, [(3, 4), (3, 4)]), [[torch.zeros(4, 4)]]
    )
    assert seen["failures"] == [] and seen["modules"] == []
    assert seen["errors"] == ['input "x" dim 0: got 4, expected 3']


@pytest.mark.parametrize("compiler", [True, False])
def test_operators_outside_engines(python, tmp_path, monkeypatch, compiler) -> None:
    if not compiler:
        monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    elif not aoti.package.has_compiler({}):
        pytest.skip("there is no C++ compiler")
    model = SortInTheMiddle().eval()
    package = tmp_path / "model.pt2"
    torch_tensorrt.save(
        compile_all(model, batch_input()),
        package,
        arg_inputs=[batch_input()],
        output_format="aot_inductor",
    )
    seen = run_in_fresh_process(
        python, package, cases_of(model, [(1, 16), (5, 16)]), [[torch.zeros(33, 16)]]
    )
    assert seen["failures"] == [] and seen["modules"] == []
    expected = ["engine_0.kiln", "engine_1.kiln", "kiln.wrapper.so"]
    assert seen["mapped"] == expected + ["model.so.1"] * compiler
    assert seen["errors"] == ['input "x" dim 0: got 33, expected 1..32']
