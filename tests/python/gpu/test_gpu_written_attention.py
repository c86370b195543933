"""Attention that models write out, and flex_attention, on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_small import compile_all, engines_of
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

HEADS, LENGTH, SIZE = 4, 128, 32
MASKS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "-inf": lambda s, keep: s.masked_fill(~keep, -math.inf),
    "lowest": lambda s, keep: s.masked_fill(~keep, torch.finfo(s.dtype).min),
    "added": lambda s, keep: s + (~keep).to(s.dtype) * torch.finfo(s.dtype).min,
    "none": lambda s, keep: s,
}


class Written(torch.nn.Module):
    def __init__(self, mask: str, precise: bool) -> None:
        super().__init__()
        self.mask, self.precise = MASKS[mask], precise

    def forward(self, q: Any, k: Any, v: Any, keep: Any) -> torch.Tensor:
        scores = self.mask(torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(SIZE), keep)
        dtype = torch.float32 if self.precise else None
        return torch.matmul(torch.softmax(scores, dim=-1, dtype=dtype).to(q.dtype), v)


def check(got: torch.Tensor, expected: torch.Tensor) -> None:
    bound = 1e-4 if expected.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got, expected, rtol=bound, atol=bound, equal_nan=True)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_written_attention(mask: str, precise: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(2, HEADS, LENGTH, SIZE, dtype=dtype, device="cuda") for _ in range(3))
    keep = torch.rand(2, 1, LENGTH, LENGTH, device="cuda") < 0.6
    keep[..., 4, :] = False
    model = Written(mask, precise).eval()
    compiled = compile_all(model, q, k, v, keep, require_full_compilation=True)
    check(compiled(q, k, v, keep), model(q, k, v, keep))


class Flex(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.slopes = torch.nn.Parameter(torch.rand(HEADS), requires_grad=False)
        self.kind = kind
        self.block_mask = None
        if kind == "window":
            self.block_mask = create_block_mask(
                lambda b, h, q, kv: (q >= kv) & (q - kv < 20), None, None, LENGTH, LENGTH
            )

    def score(self, score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        if self.kind == "softcap":
            return 5 * torch.tanh(score / 5)
        return score + self.slopes[h] * (kv - q)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if self.kind == "window":
            return flex_attention(q, k, v, block_mask=self.block_mask)
        return flex_attention(q, k, v, score_mod=self.score)


@pytest.mark.parametrize("kind", ["alibi", "softcap", "window"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_flex_attention(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    torch._dynamo.reset()  # eager flex_attention of PyTorch 2.11 takes what it compiled for another score_mod
    q, k, v = (torch.randn(2, HEADS, LENGTH, SIZE, dtype=dtype, device="cuda") for _ in range(3))
    model = Flex(kind).eval().to("cuda", dtype)
    compiled = compile_all(model, q, k, v, require_full_compilation=True)
    assert len(engines_of(compiled)) == 1
    check(compiled(q, k, v), model(q, k, v))


class WideMask(torch.nn.Module):
    """Scores and a mask in f32, of operands of 16 bits."""

    def forward(self, q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
        scores = torch.matmul(q.float(), k.float().transpose(-2, -1)) / math.sqrt(SIZE) + mask
        return torch.matmul(torch.softmax(scores, dim=-1).to(q.dtype), v)


@pytest.mark.parametrize("rows", [1, LENGTH])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mask_in_more_digits_than_its_operands(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(2, HEADS, n, SIZE, dtype=dtype, device="cuda") for n in (rows, 90, 90))
    mask = torch.randn(2, 1, rows, 90, device="cuda")
    mask[0, :, 0], mask[1, ..., 40:] = -1e30, -1e30  # a row that sees nothing is the mean of all
    compiled = compile_all(WideMask(), q, k, v, mask, require_full_compilation=True)
    check(compiled(q, k, v, mask), WideMask()(q, k, v, mask))
