"""Engines of bf16 models on CPUs with AMX: a whole model, in several threads at once, and where the system says no."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import kiln

TILES = "cpu:x86-64-v4-amx"


def has_amx() -> bool:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return all(f" {flag} " in text for flag in ("amx_tile", "amx_bf16", "amx_int8"))


pytestmark = pytest.mark.skipif(not has_amx(), reason="this CPU has no AMX")


class Encoder(torch.nn.Module):
    """A convolution to patches, attention with heads, and an MLP, none of whose sizes fills its tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(16, 96, 3, padding=1)
        self.qkv = torch.nn.Linear(96, 288)
        self.up = torch.nn.Linear(96, 200)
        self.down = torch.nn.Linear(200, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (
            part.unflatten(2, (2, 48)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2)
        )
        heads = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + heads.transpose(1, 2).flatten(2)
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """The engine's file, an input in bf16, and what the model gives for it in f32."""
    torch.manual_seed(3)
    model = Encoder().eval()
    x = torch.randn(1, 16, 9, 11)
    expected = model(x).detach()
    archive = io.BytesIO()
    torch.export.save(torch.export.export(model.bfloat16(), (x.bfloat16(),)), archive)
    folder = tmp_path_factory.mktemp("amx")
    (folder / "model.pt2").write_bytes(archive.getvalue())
    kiln.compile(folder / "model.pt2", output=folder / "model.kiln")
    return folder / "model.kiln", x.bfloat16(), expected


def error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result.float() - expected).norm() / expected.norm())


def test_the_program_for_amx_is_the_first(
    encoder: tuple[Path, torch.Tensor, torch.Tensor],
) -> None:
    path, x, expected = encoder
    engine = kiln.Engine(path)
    assert engine.variant == "x86-64-v4-amx"
    (result,) = engine.session(1).run(x)
    assert error(torch.from_dlpack(result), expected) < 1e-2


def test_sessions_at_once_and_more_threads_than_cores(
    encoder: tuple[Path, torch.Tensor, torch.Tensor],
) -> None:
    path, x, _ = encoder
    engine = kiln.Engine(path, target=TILES)
    expected = torch.from_dlpack(engine.session(1).run(x)[0])
    results: list[torch.Tensor] = []

    def work() -> None:
        session = engine.session(9)
        for _ in range(20):
            results.append(torch.from_dlpack(session.run(x)[0]))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert all(torch.equal(result, expected) for result in results)


# The process has an alternate signal stack of 4 KiB, which a frame with tiles does not fit.
REFUSED = """
import ctypes, sys
import kiln
stack = ctypes.create_string_buffer(4096)
class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(stack), 0, 4096)), None) == 0
print(kiln.Engine(sys.argv[1]).variant)
"""


def test_a_process_that_may_not_use_tiles_takes_the_next_program(
    encoder: tuple[Path, torch.Tensor, torch.Tensor],
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", REFUSED, str(encoder[0])], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    # Intel's cores, which alone have tiles, are slow with pairs of bf16 by vectors.
    assert process.stdout.strip() == "x86-64-v4"
