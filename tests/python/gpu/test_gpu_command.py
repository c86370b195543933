"""`kiln run` and `kiln bench` on a GPU: files in, files out, times."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu.models import Mixer

import kiln

KILN = Path(kiln.__file__).parent / "bin" / "kiln"


def command(*arguments: object, code: int = 0) -> str:
    done = subprocess.run([KILN, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    model, x = Mixer().eval(), torch.randn(2, 10, 64)
    program = torch.export.export(
        model, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},)
    )
    torch.export.save(program, folder / "model.pt2")
    with torch.no_grad():
        np.save(folder / "expected.npy", model(x).numpy())
    np.save(folder / "x.npy", x.numpy())
    np.save(folder / "columns.npy", np.asfortranarray(x.numpy()))
    major, minor = torch.cuda.get_device_capability()
    gpu = f"cuda:sm_{major}{minor}"
    for name, targets in (("gpu", gpu), ("both", f"cpu,{gpu}"), ("reverse", f"{gpu},cpu")):
        kiln.compile(folder / "model.pt2", output=folder / f"{name}.kiln", targets=targets)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("gpu.kiln",),  # it has nothing else
        ("gpu.kiln", "--device", "cuda:0"),
        ("both.kiln", "--device", "cuda"),
        ("both.kiln", "--device", "cpu"),
        ("both.kiln", "--target", "cuda"),
        ("both.kiln",),
        ("reverse.kiln",),
    ],
)
@pytest.mark.parametrize("file", ["x.npy", "columns.npy"])
def test_run(folder: Path, arguments: tuple[str, ...], file: str, tmp_path: Path) -> None:
    engine, *options = arguments
    y = tmp_path / "y.npy"
    output = command("run", folder / engine, "-i", folder / file, "-o", y, "--repeat", 5, *options)
    assert "median" in output
    np.testing.assert_allclose(np.load(y), np.load(folder / "expected.npy"), rtol=1e-4, atol=1e-5)


def test_bench(folder: Path) -> None:
    output = command("bench", folder / "gpu.kiln", "--shape", "x=1,10,64", "--shape", "x=64,10,64")
    print(output)
    assert "program cuda:sm_" in output and "waited us" in output
    assert torch.cuda.get_device_name() in output
    rows = re.findall(r"^(?:1|64)x10x64 +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)", output, re.M)
    assert len(rows) == 2
    for median, p10, p90, least in ([float(each) for each in row] for row in rows):
        assert 0 < least <= p10 <= median <= p90
    assert re.search(r"\d+ MHz, memory \d+ MHz, \d+ of \d+ W, \d+ C", output)
    assert "program cpu:" in command("bench", folder / "both.kiln", "--runs", 3)


def test_a_gpu_that_is_not_there(folder: Path) -> None:
    error = command("run", folder / "gpu.kiln", "--random", "--device", "cuda:99", code=1)
    assert "99" in error and "expected 0.." in error


def test_profile_of_the_other_program(folder: Path) -> None:
    """What is described is what was asked for, where both run."""
    both = folder / "both.kiln"
    assert kiln.Engine(both, target="cuda", describe_only=True).describe()["target"] == "cuda"
    assert kiln.Engine(both, describe_only=True).describe()["target"] == "cpu"
