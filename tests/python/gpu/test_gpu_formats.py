"""What was compiled for a GPU comes back in every format, in other processes too, and says so where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.models import ConvNet, Mixer, Recurrent

import kiln
import torch_tensorrt

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}


def save(model: torch.nn.Module, x: torch.Tensor, path: Path, kind: str) -> None:
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[x], min_block_size=1)
    torch_tensorrt.save(compiled, str(path), arg_inputs=[x], output_format=FORMATS[kind])


def load(path: Path) -> Any:
    loaded = torch_tensorrt.load(str(path))
    return loaded.module() if hasattr(loaded, "module") else loaded


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("make", [Mixer, ConvNet, Recurrent])
def test_saved_and_loaded(make: Any, kind: str, tmp_path: Path, assert_near: Any) -> None:
    shape = {Mixer: (2, 10, 64), ConvNet: (2, 3, 32, 32), Recurrent: (2, 5, 16)}[make]
    model, x = make().eval().cuda(), torch.randn(shape, device="cuda")
    path = tmp_path / f"model.{kind}"
    save(model, x, path, kind)
    with torch.no_grad():
        assert_near(load(path)(x), model(x))


_FRESH = """
import sys, torch
kind, path, data = sys.argv[1:]
if kind == "ep":
    import torch_tensorrt
    module = torch.export.load(path).module()
elif kind == "ts":
    import torch_tensorrt
    module = torch.jit.load(path).cuda()
else:
    module = torch._inductor.aoti_load_package(path)
    assert "torch_tensorrt" not in sys.modules
x, expected = torch.load(data)
stream = torch.cuda.Stream()
with torch.no_grad(), torch.cuda.stream(stream):
    for _ in range(3):
        y = module(x)
stream.synchronize()
assert y.device == x.device
print(((y - expected).norm() / expected.norm()).item())
"""


@pytest.mark.parametrize("kind", FORMATS)
def test_a_fresh_process(kind: str, tmp_path: Path) -> None:
    model, x = Mixer().eval().cuda(), torch.randn(2, 10, 64, device="cuda")
    path, data = tmp_path / f"model.{kind}", tmp_path / "data.pt"
    save(model, x, path, kind)
    with torch.no_grad():
        torch.save((x, model(x)), data)
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, kind, path, data], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1e-5


_WITHOUT_GPU = """
import sys, torch, torch_tensorrt
module = torch.export.load(sys.argv[1]).module()
try:
    module(torch.randn(2, 10, 64))
except RuntimeError as error:
    print(error)
"""


def test_without_a_gpu(tmp_path: Path) -> None:
    """Loading works; the first call says in one sentence what is missing."""
    model, x = Mixer().eval().cuda(), torch.randn(2, 10, 64, device="cuda")
    save(model, x, tmp_path / "model.ep", "ep")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_GPU, tmp_path / "model.ep"],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "GPU" in done.stdout, done.stdout


def test_moved_by_cuda(tmp_path: Path, assert_near: Any) -> None:
    """`.cuda()` moves the bytes of engines too."""
    model, x = Mixer().eval().cuda(), torch.randn(2, 10, 64, device="cuda")
    path = tmp_path / "model.ts"
    save(model, x, path, "ts")
    with torch.no_grad():
        moved = torch.jit.load(str(path)).cuda()
        assert all(buffer.device.type == "cuda" for buffer in moved.buffers())
        assert_near(moved(x), model(x))


def test_tensors_on_the_other_device(assert_near: Any) -> None:
    model, x = Mixer().eval().cuda(), torch.randn(2, 10, 64, device="cuda")
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[x])
    with pytest.raises(RuntimeError, match="(?i)cpu"):
        compiled(x.cpu())
    with torch.no_grad():
        assert_near(compiled(x), model(x))
    on_cpu = torch_tensorrt.compile(Mixer().eval(), ir="dynamo", inputs=[x.cpu()])
    with pytest.raises(RuntimeError, match="cuda"):
        on_cpu(x)


_BOTH = """
import sys, torch
kind, path, data = sys.argv[1:]
import kiln
import torch_tensorrt
load = torch.jit.load if kind == "ts" else lambda path: torch.export.load(path).module()
x, expected = torch.load(data, map_location="cpu")
with torch.no_grad():
    on_cpu, moved = load(path)(x), load(path).cuda()(x.cuda())
    module = load(path)
    again = [module(x), module(x.cuda()).cpu(), module(x)]
assert on_cpu.device.type == "cpu" and moved.device.type == "cuda"
for y in (on_cpu, moved.cpu(), *again):
    print(((y - expected).norm() / expected.norm()).item())
"""


@pytest.mark.parametrize(("kind", "saved_on"), [("ts", "cpu"), ("ts", "cuda"), ("ep", "cpu")])
def test_one_file_runs_on_both(kind: str, saved_on: str, tmp_path: Path, assert_near: Any) -> None:
    """One module, saved on either device, in a process of its own: inputs decide which program runs."""
    model, x = Mixer().eval().to(saved_on), torch.randn(2, 10, 64, device=saved_on)
    major, minor = torch.cuda.get_device_capability()
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[x], min_block_size=1, targets=f"cpu,cuda:sm_{major}{minor}"
    )
    with torch.no_grad():
        assert_near(compiled(x.cpu()), model.cpu()(x.cpu()))
        assert_near(compiled(x.cuda()), model.cuda()(x.cuda()))
        model.to(saved_on)
    path, data = tmp_path / f"model.{kind}", tmp_path / "data.pt"
    torch_tensorrt.save(compiled, str(path), arg_inputs=[x], output_format=FORMATS[kind])
    with torch.no_grad():
        torch.save((x, model(x)), data)
    done = subprocess.run(
        [sys.executable, "-c", _BOTH, kind, path, data], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    errors = [float(line) for line in done.stdout.splitlines()[-5:]]
    assert max(errors) < 1e-5, errors
    hidden = subprocess.run(  # the same file where there is no GPU
        [
            sys.executable,
            "-c",
            _BOTH.replace(".cuda()", "").replace('"cuda"', '"cpu"'),
            kind,
            path,
            data,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert hidden.returncode == 0, hidden.stderr


def test_a_package_of_engines_for_both(tmp_path: Path, assert_near: Any) -> None:
    """It runs on the device of the model, whichever program comes first."""
    model, x = Mixer().eval().cuda(), torch.randn(2, 10, 64, device="cuda")
    major, minor = torch.cuda.get_device_capability()
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[x], min_block_size=1, targets=f"cpu,cuda:sm_{major}{minor}"
    )
    path = tmp_path / "model.pt2"
    torch_tensorrt.save(compiled, str(path), arg_inputs=[x], output_format="aot_inductor")
    with torch.no_grad():
        assert_near(torch._inductor.aoti_load_package(str(path))(x), model(x))


def test_an_engine_file_for_both(tmp_path: Path, assert_near: Any) -> None:
    model, x = Mixer().eval(), torch.randn(2, 10, 64)
    path, engine = tmp_path / "model.pt2", tmp_path / "model.kiln"
    torch.export.save(torch.export.export(model, (x,)), path)
    major, minor = torch.cuda.get_device_capability()
    kiln.compile(path, output=engine, targets=["cpu", f"cuda:sm_{major}{minor}"])
    with torch.no_grad():
        expected = model(x)
        for target in (None, "cpu", "cuda"):
            loaded = kiln.Engine(engine, target=target)
            assert loaded.target == (target or "cpu")
            y = torch.empty_like(expected, device=loaded.target)
            loaded.session().run(x.to(loaded.target), out=[y])
            if loaded.target == "cuda":
                torch.cuda.synchronize()
            assert_near(y.cpu(), expected)


def test_a_refit_changes_both_programs(assert_near: Any) -> None:
    first, second, x = Mixer().eval(), Mixer().eval(), torch.randn(2, 10, 64)
    major, minor = torch.cuda.get_device_capability()
    compiled = torch_tensorrt.compile(
        first, ir="dynamo", inputs=[x], min_block_size=1, immutable_weights=False,
        targets=f"cpu,cuda:sm_{major}{minor}",
    )  # fmt: skip
    refitted = torch_tensorrt.dynamo.refit_module_weights(
        compiled, torch.export.export(second, (x,))
    )
    with torch.no_grad():
        expected = second(x)
        assert_near(refitted(x), expected)
        assert_near(refitted(x.cuda()), expected.cuda())


class TimeStep(torch.nn.Module):
    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return x * torch.cos(time.reshape(-1, 1)) + time.sum()


@pytest.mark.parametrize("kind", ["compiled", "ep", "ts"])
def test_small_inputs_on_the_cpu_are_copied(kind: str, tmp_path: Path) -> None:
    """As pipelines of diffusion models call theirs: what was on the GPU when it was compiled may be on the CPU."""
    x, time = torch.randn(4, 8, device="cuda"), torch.rand(4, device="cuda")
    compiled = torch_tensorrt.compile(
        TimeStep().eval(), ir="dynamo", inputs=[x, time], min_block_size=1
    )
    module: Any = compiled
    if kind != "compiled":
        path = tmp_path / f"model.{kind}"
        formats = {"ep": "exported_program", "ts": "torchscript"}
        torch_tensorrt.save(compiled, str(path), output_format=formats[kind], arg_inputs=[x, time])
        loaded = torch_tensorrt.load(str(path))
        module = loaded.module() if kind == "ep" else loaded
    for other in (time, time.cpu(), torch.rand(8)[::2]):
        got = module(x, other)
        assert got.device == x.device
        torch.testing.assert_close(got, TimeStep()(x, other.cuda()), rtol=1e-5, atol=1e-5)
    first = module(x.cpu(), time)  # the GPU is that of any input
    assert first.device == x.device
    with pytest.raises(RuntimeError, match="(?i)cpu"):
        module(x.cpu(), time.cpu())
