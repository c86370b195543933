"""Convolutions by Winograd's algorithm: close to PyTorch, refitted, and left out where that is asked for."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import kiln
import torch_tensorrt


def network(channels: int = 24) -> nn.Module:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for inputs in (3, channels, channels, channels):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return model.eval()


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("disable_winograd", [False, True])
def test_whole_networks_keep_their_accuracy(disable_winograd: bool) -> None:
    model, x = network(), torch.randn(2, 3, 33, 30)
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[x], min_block_size=1, disable_winograd=disable_winograd
    )
    with torch.no_grad():
        expected = network().double()(x.double())
    assert relative_error(compiled(x), expected) < 1e-5


RUN_TWICE = """
import sys
import numpy as np
import kiln

engine = kiln.Engine(sys.argv[1])
x = np.load(sys.argv[2])
first, second = engine.session(), engine.session()
results = [np.array(session.run(x)[0]) for session in (first, second, first)]
assert "torch" not in sys.modules
assert all(np.array_equal(results[0], result) for result in results)
np.save(sys.argv[3], results[0])
"""


def test_files_and_bytes_give_the_same_in_every_process(tmp_path) -> None:
    model, x = network(), torch.randn(2, 3, 24, 24)
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(model, (x,)), path)
    engine = kiln.compile(path)
    assert bytes(engine) == bytes(kiln.compile(path))
    (tmp_path / "model.kiln").write_bytes(engine)
    np.save(tmp_path / "x.npy", x.numpy())
    for name in ("one.npy", "two.npy"):
        files = [str(tmp_path / file) for file in ("model.kiln", "x.npy", name)]
        subprocess.run([sys.executable, "-c", RUN_TWICE, *files], check=True, timeout=120)
    one, two = np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy")
    result = np.array(kiln.Engine(engine).session().run(x.numpy())[0])
    assert np.array_equal(one, two)
    assert np.array_equal(one, result)
    with torch.no_grad():
        expected = network().double()(x.double())
    assert relative_error(torch.from_numpy(one), expected) < 1e-5


def test_engines_are_as_small_as_without_it_and_refit_as_they_were_made(tmp_path) -> None:
    x = torch.randn(1, 3, 24, 24)
    path, other_path = tmp_path / "model.pt2", tmp_path / "other.pt2"
    other = network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.75)
    torch.export.save(torch.export.export(network(), (x,)), path)
    torch.export.save(torch.export.export(other, (x,)), other_path)
    fast = kiln.compile(path, refittable=True)
    direct = kiln.compile(path, refittable=True, disabled_passes=["choose_winograd"])
    # Filters are transformed when an engine is loaded: code alone differs.
    assert abs(len(fast) - len(direct)) < 0.2 * len(direct) + 200_000
    for engine in (fast, direct):
        refitted = kiln.refit(engine, other_path)
        result = kiln.Engine(refitted).session().run(x.numpy())[0]
        with torch.no_grad():
            expected = other.double()(x.double())
        other.float()
        assert relative_error(torch.from_numpy(np.array(result)), expected) < 1e-5
    assert bytes(kiln.refit(fast, path)) == bytes(fast)
    assert kiln.compile_key(path) != kiln.compile_key(path, disabled_passes=["choose_winograd"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "x86-64-v4-bf16"])
def test_networks_of_16_bits_are_as_accurate_as_eager(
    tmp_path, target: str, dtype: torch.dtype
) -> None:
    model, x = network(40).to(dtype), torch.randn(2, 3, 50, 47).to(dtype)
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(model, (x,)), path)
    if dtype == torch.float16 and target.endswith("bf16"):
        pytest.skip("no program of f16 has bf16")
    engine = kiln.compile(path)
    direct = kiln.compile(path, disabled_passes=["choose_winograd"])
    assert bytes(direct) != bytes(engine)
    try:
        session = kiln.Engine(engine, target=f"cpu:{target}").session()
    except kiln.KilnError as error:
        pytest.skip(str(error))
    result = session.run(x)[0]
    with torch.no_grad():
        eager, expected = model(x), model.double()(x.double())
    result = torch.from_numpy(np.array(result)).view(dtype)
    assert relative_error(result, expected) < max(1.5 * relative_error(eager, expected), 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("channels", "size"), [(24, 33), (64, 14), (256, 7), (3, 40), (128, 28)])
def test_pixels_that_are_not_finite_stay_where_they_are(
    channels: int, size: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(5)
    model = nn.Conv2d(channels, 70, 3, padding=1).eval().to(dtype)
    with torch.no_grad():
        model.weight[3] = 0
    x = torch.randn(2, channels, size, size)
    last = size - 1
    x[0, 0, 2, 3], x[0, 1, last, last] = float("nan"), float("inf")
    x[1, 2, 0, 0], x[1, 0, size // 2, 1] = float("-inf"), 3e38
    x = x.to(dtype)
    options = {"ir": "dynamo", "inputs": [x], "min_block_size": 1}
    compiled = torch_tensorrt.compile(model, **options)
    with torch.no_grad():
        actual, expected = compiled(x), model(x)
    assert torch.equal(actual.isnan(), expected.isnan())
    infinite = expected.isinf()
    assert torch.equal(actual[infinite], expected[infinite])
    assert torch.equal(actual.isfinite(), expected.isfinite())
    finite = expected.isfinite()
    close = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(actual[finite], expected[finite], rtol=close, atol=close)
