"""Packages of AOTInductor with operators outside engines: compiled for the GPU, run where this project is not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_tensorrt
from torch_tensorrt.formats.aoti import gpu
from torch_tensorrt.formats.aoti.compile import StaticRuntimeError, check_runtime
from torch_tensorrt.formats.aoti.package import has_compiler

OUTSIDE = {"torch.ops.aten.sin.default", "torch.ops.aten.sort.default"}
MISSING = "no C++ compiler" if not has_compiler({}) else gpu.missing_for_gpu()


class SortInTheMiddle(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(16, 32)
        self.last = torch.nn.Linear(32, 8)
        self.register_buffer("shift", torch.randn(32))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, places = torch.sort(torch.tanh(self.first(x)), dim=1)  # no two are equal
        return self.last(torch.sin(values) + self.shift), places


class Counter(torch.nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.linear = torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return torch.sin(self.linear(x)) + self.calls


class ValuesDecide(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x[x > 0])


@pytest.fixture(autouse=True)
def shared_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system whose compiler links the C++ library statically: one that finds the shared one first."""
    from torch._inductor import config, cpp_builder

    if MISSING is not None:
        return
    source, library = tmp_path / "t.cpp", tmp_path / "t.so"
    source.write_text("#include <string>\nstd::string f(int x) { return std::to_string(x); }\n")
    compiler = cpp_builder.get_cpp_compiler()
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True)
    try:
        check_runtime(library)
    except StaticRuntimeError:
        maps = Path("/proc/self/maps").read_text()
        shared = next(word for word in maps.split() if "/libstdc++.so" in word)
        (tmp_path / "libstdc++.so").symlink_to(shared)
        wrapper = tmp_path / "g++"
        wrapper.write_text(f'#!/bin/sh\nexec {compiler} -L{tmp_path} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setattr(config.cpp, "cxx", (None, str(wrapper)))


def save(model: torch.nn.Module, path: Path, inputs: list[Any], **options: Any) -> None:
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", arg_inputs=inputs, min_block_size=1, torch_executed_ops=OUTSIDE
    )
    torch_tensorrt.save(
        compiled, str(path), arg_inputs=inputs, output_format="aot_inductor", **options
    )


def has_code(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/model.so.1") for name in archive.namelist())


_FRESH = """
import sys, torch
path, data = sys.argv[1:]
module = torch._inductor.aoti_load_package(path)
assert "torch_tensorrt" not in sys.modules and "kiln" not in sys.modules
calls = torch.load(data)
streams = [torch.cuda.Stream() for _ in calls]
results = []
for stream, (x, _) in zip(streams, calls):
    with torch.no_grad(), torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(200_000_000)  # 0.1 s: whoever does not wait for the stream reads zeros
        late.copy_(x)
        results.append(module(late))
torch.cuda.synchronize()
for got, (_, expected) in zip(results, calls):
    got = got if isinstance(got, (list, tuple)) else [got]
    for a, b in zip(got, expected, strict=True):
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
print("as expected")
"""


def run_fresh(path: Path, calls: list[Any]) -> None:
    """Calls a package in a process that cannot import this project, each input on a stream of its own."""
    data = path.with_suffix(".data")
    torch.save(calls, data)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FRESH, path, data],
        capture_output=True,
        text=True,
        env=environment,
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "as expected"


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_compiled_and_run_where_this_project_is_not(tmp_path: Path) -> None:
    model, path = SortInTheMiddle().eval().cuda(), tmp_path / "m.pt2"
    sizes = torch_tensorrt.Input(min_shape=(1, 16), opt_shape=(4, 16), max_shape=(9, 16))
    save(model, path, [sizes])
    assert has_code(path)
    inputs = [torch.randn(batch, 16, device="cuda") for batch in (1, 4, 9)]
    inputs.append(torch.randn(16, 5, device="cuda").t())  # others than the strides of the export
    with torch.no_grad():
        run_fresh(path, [(x, model(x)) for x in inputs])


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_state_is_kept_between_calls(tmp_path: Path) -> None:
    model, path, x = Counter().eval().cuda(), tmp_path / "m.pt2", torch.randn(3, 16, device="cuda")
    with torch.no_grad():
        plain = torch.sin(model.linear(x))
    save(model, path, [x])
    assert has_code(path)
    module = torch._inductor.aoti_load_package(str(path))
    with torch.no_grad():
        for calls in (1, 2, 3):
            torch.testing.assert_close(module(x), plain + calls, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_sizes_that_depend_on_values(tmp_path: Path) -> None:
    path, x = tmp_path / "m.pt2", torch.randn(50, device="cuda")
    save(ValuesDecide().eval().cuda(), path, [x])
    assert has_code(path)
    module = torch._inductor.aoti_load_package(str(path))
    for each in (x, -x):
        torch.testing.assert_close(module(each), torch.sin(each[each > 0]))


def test_without_what_compiling_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Operators are called one by one, with a warning; what cannot be called so is an error that names it."""
    monkeypatch.setattr(
        "torch_tensorrt.formats.aoti.compile.missing_for_gpu", lambda: "no headers: install them"
    )
    monkeypatch.setattr("torch_tensorrt.formats.aoti.package.has_compiler", lambda configs: True)
    model, path = SortInTheMiddle().eval().cuda(), tmp_path / "m.pt2"
    x = torch.randn(4, 16, device="cuda")
    with caplog.at_level(logging.WARNING):
        save(model, path, [x])
    assert "are not compiled: no headers" in caplog.text
    assert not has_code(path)
    with torch.no_grad():
        torch.testing.assert_close(
            torch._inductor.aoti_load_package(str(path))(x), model(x), rtol=1e-5, atol=1e-5
        )
    with pytest.raises(RuntimeError, match=r"(?s)no headers, and what lies outside.*install them"):
        save(ValuesDecide().eval().cuda(), tmp_path / "n.pt2", [torch.randn(9, device="cuda")])
