"""Decoders of images: 1x1 convolutions of enlarged and joined images, and results that are channels-first."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import kiln

TARGETS = ["cpu", "cpu:x86-64-v3"]
MODES = [
    {"mode": "nearest"},
    {"mode": "bilinear", "align_corners": False},
    {"mode": "bilinear", "align_corners": True},
    {"mode": "bicubic", "align_corners": False},  # its weights are not all positive
]


class Decoder(nn.Module):
    """Patches of three sizes become one image, as SegFormer's do."""

    def __init__(self, resize: dict, channels: int = 20) -> None:
        super().__init__()
        self.resize = resize
        self.linear = nn.ModuleList(nn.Linear(width, channels) for width in (5, 7, 12))
        self.fuse = nn.Conv2d(3 * channels, channels - 1, 1)
        self.norm = nn.BatchNorm2d(channels - 1)
        self.classify = nn.Conv2d(channels - 1, 11, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        images = []
        for linear, x, (height, width) in zip(
            self.linear, (a, b, c), ((9, 10), (5, 5), (3, 2)), strict=True
        ):
            image = linear(x).transpose(1, 2).reshape(x.shape[0], -1, height, width)
            images.append(functional.interpolate(image, size=(9, 10), **self.resize))
        return self.classify(self.norm(self.fuse(torch.cat(images, dim=1))).relu())


def inputs(batch: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    sizes = ((90, 5), (25, 7), (6, 12))
    return tuple(torch.randn(batch, *size).to(dtype) for size in sizes)


def engine_of(model: nn.Module, dtype: torch.dtype, tmp_path) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(
        model, inputs(2, dtype), dynamic_shapes=({0: batch},) * 3, strict=False
    )
    torch.export.save(program, tmp_path / "model.pt2")
    return kiln.compile(tmp_path / "model.pt2")


def run(engine: bytes, target: str, x: tuple[torch.Tensor, ...]) -> torch.Tensor:
    outputs = kiln.Engine(engine, target=target).session().run(*x)
    return torch.from_dlpack(outputs[0])


@pytest.mark.parametrize("resize", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_decoders_keep_their_accuracy(resize: dict, dtype: torch.dtype, tmp_path) -> None:
    model = Decoder(resize).eval().to(dtype)
    engine = engine_of(model, dtype, tmp_path)
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    for batch in (1, 3, 8):
        x = inputs(batch, dtype)
        with torch.no_grad():
            expected = model.double()(*(each.double() for each in x))
        model.to(dtype)
        for target in TARGETS:
            error = (run(engine, target, x).double() - expected).norm() / expected.norm()
            assert error < tolerance, (batch, target)


@pytest.mark.parametrize("resize", MODES[:3], ids=lambda mode: "-".join(map(str, mode.values())))
def test_pixels_that_are_not_finite_stay_where_they_are(resize: dict, tmp_path) -> None:
    model = Decoder(resize).eval()
    model.classify = nn.Identity()
    engine = engine_of(model, torch.float32, tmp_path)
    x = inputs(2)
    x[0][0, 3, 1], x[1][0, 7, 2], x[2][1, 4, 0] = float("nan"), float("inf"), float("-inf")
    with torch.no_grad():
        expected = model(*x)
    assert not expected.isfinite().all()
    for target in TARGETS:
        torch.testing.assert_close(
            run(engine, target, x), expected, equal_nan=True, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("rows", "columns"), [(64, 8), (63, 9), (97, 21), (512, 150), (70, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_results_whose_rows_are_neighbours(
    rows: int, columns: int, dtype: torch.dtype, tmp_path
) -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(33, columns)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).transpose(1, 2)

    model, x = Transposed().eval().to(dtype), torch.randn(3, rows, 33).to(dtype)
    torch.export.save(torch.export.export(model, (x,), strict=False), tmp_path / "model.pt2")
    engine = kiln.compile(tmp_path / "model.pt2")
    with torch.no_grad():
        expected = model.double()(x.double())
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2}[dtype]
    for target in TARGETS:
        error = (run(engine, target, (x,)).double() - expected).norm() / expected.norm()
        assert error < tolerance, target
