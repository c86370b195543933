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
