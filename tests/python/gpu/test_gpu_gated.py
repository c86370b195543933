"""Gated units, which are one product with two right operands: every kind of kernel, sizes around its tiles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import torch_tensorrt

TOLERANCE = {torch.float16: 3e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-12}
# rows, columns, depth
SIZES = [
    (512, 8192, 2048),
    (500, 1000, 264),
    (6000, 3072, 768),
    (128, 200, 3072),
    (197, 768, 3072),
    (33, 264, 72),
    (16, 4096, 1024),
    (5, 70, 33),
    (1, 8192, 2048),
    (1, 200, 72),
    (1, 33, 31),
]


class Gated(torch.nn.Module):
    def __init__(self, columns: int, depth: int, bias: bool) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(depth, columns, bias=bias)
        self.up = torch.nn.Linear(depth, columns, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)  # the copy engine reads what kernels wrote
        return F.silu(self.gate(x)) * self.up(x)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_both_sums_reach_the_result(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    rows, columns, depth = size
    torch.manual_seed(0)
    model = Gated(columns, depth, bias=rows % 2 == 0).eval().cuda().to(dtype)
    x = torch.randn(rows, depth, device="cuda", dtype=dtype)
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[x], min_block_size=1)
    with torch.no_grad():
        expected = model.double()(x.double())
        got = compiled(x)
    assert (got.double() - expected).norm() < TOLERANCE[dtype] * expected.norm()
