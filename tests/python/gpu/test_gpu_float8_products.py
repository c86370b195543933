"""Linear layers of float8 and of integers on a GPU, as quantisers write them: beside the same in f64."""

from __future__ import annotations

import pytest
import torch
from frontend.test_float8 import (
    F8,
    ScaledProduct,
    check_edges,
    compile_whole,
    scaled_product,
)
from numerics.test_quantised import layers

H = torch.float16


class Layer(torch.nn.Module):
    """Scaled codes of the weight, and of the input unless that is left as it is; in the dtype of the input."""

    def __init__(self, rows: int, columns: int, weight_only: bool) -> None:
        super().__init__()
        weight = torch.randn(columns, rows)
        scale = weight.abs().amax(1, keepdim=True) / 448
        self.register_buffer("weight", (weight / scale).to(F8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", torch.randn(columns))
        self.weight_only = weight_only

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = x.dtype
        weight = (self.weight.to(torch.float32) * self.scale).to(dtype)
        if not self.weight_only:
            scale = x.float().abs().amax(-1, keepdim=True) / 448
            x = ((x / scale).clamp(-448, 448).to(F8).to(torch.float32) * scale).to(dtype)
        return torch.nn.functional.linear(x, weight, self.bias.to(dtype))

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        """In f64, without rounding what is dequantized; on a CPU, since PyTorch on GPUs multiplies by 1 / 448."""
        weight = self.weight.cpu().double() * self.scale.cpu().double()
        x = x.cpu().double()
        if not self.weight_only:
            scale = x.float().abs().amax(-1, keepdim=True) / 448
            x = (x.float() / scale).clamp(-448, 448).to(F8).double() * scale.double()
        return x @ weight.T + self.bias.cpu().double()


def error_of(got: torch.Tensor, expected: torch.Tensor) -> float:
    expected = expected.to(got.device)
    return float((got.double() - expected).norm() / expected.norm())


# By the copy engine, few rows, rows that are no whole vectors, one row.
SHAPES = [(256, 512, 640), (16, 768, 256), (70, 520, 264), (1, 1024, 512), (1, 300, 200)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, H, torch.bfloat16], ids=str)
@torch.no_grad()
def test_linear_layers(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, k, n = shape
    torch.manual_seed(0)
    model, x = Layer(k, n, False).cuda(), torch.randn(m, k).cuda().to(dtype)
    got = compile_whole(model, x)(x)
    assert got.dtype == dtype
    # A number that a quantiser rounds the other way is most of the error of results of f32.
    bound = {torch.float32: 2e-4, H: 1e-3, torch.bfloat16: 4e-3}[dtype]
    assert error_of(got, model.exact(x)) <= bound


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_codes_at_the_edges(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """NaN, 448, denormals and zeros by each kind of kernel; also where sums of FP8 are added apart."""
    check_edges(*shape, dtype, "cuda")


@torch.no_grad()
def test_sums_of_many_equal_signs() -> None:
    """Instructions for FP8 lose bits where all products are positive."""
    model = ScaledProduct(False, False, H).cuda()
    model.weight = torch.rand(512, 4096).to(F8).cuda()
    x = torch.rand(256, 4096).to(F8).cuda()
    assert error_of(compile_whole(model, x)(x), scaled_product(model, x)) <= 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, H, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_row_and_weights_of_8_bits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = Layer(1024, 768, True).cuda(), torch.randn(1, 1, 1024).cuda().to(dtype)
    bound = {torch.float32: 1e-5, H: 1e-3, torch.bfloat16: 4e-3}[dtype]
    assert error_of(compile_whole(model, x)(x), model.exact(x)) <= bound


@pytest.mark.parametrize("kind", ["tensor", "rows", "weights"])
@torch.no_grad()
def test_models_that_torchao_quantises_to_float8(kind: str) -> None:
    q = pytest.importorskip("torchao.quantization")
    if kind == "weights":
        config = q.Float8WeightOnlyConfig()
    else:
        granularity = q.PerRow() if kind == "rows" else q.PerTensor()
        config = q.Float8DynamicActivationFloat8WeightConfig(granularity=granularity)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 128))
    model, x = model.eval().bfloat16().cuda(), torch.randn(64, 256).bfloat16().cuda()
    q.quantize_(model, config)
    assert error_of(compile_whole(model, x)(x), model(x).double()) <= 1e-2


@pytest.mark.parametrize("rows", [20, 300])
@torch.no_grad()
def test_integers_are_exact(rows: int) -> None:
    weight = torch.randint(-128, 128, (272, 96), dtype=torch.int8)
    weight[:, 0], weight[:, 1] = 127, -128

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch._int_mm(x, self.weight)

    x = torch.randint(-128, 128, (rows, 272)).to(torch.int8)
    x[0] = -128
    got = compile_whole(Model().cuda(), x.cuda())(x.cuda())
    assert torch.equal(got.cpu(), (x.long() @ weight.long()).int())


@torch.no_grad()
def test_integers_that_torchao_writes() -> None:
    q = pytest.importorskip("torchao.quantization")
    model, x = layers(), torch.randn(40, 264)
    q.quantize_(model, q.Int8DynamicActivationInt8WeightConfig())
    expected = model(x)
    model.cuda()  # before an export, which keeps references to weights that torchao's cannot be moved with
    if "out_dtype" in str(torch.export.export(model, (x.cuda(),)).graph):
        pytest.skip("this PyTorch writes such products as another graph, which stays in PyTorch")
    got = compile_whole(model, x.cuda())(x.cuda())
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-4)
