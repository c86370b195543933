"""Attention as models write it out, which engines compute as one kernel: all masks, and rows that see nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_small import compile_all

import kiln
import torch_tensorrt

BATCH, HEADS, LENGTH, SIZE = 2, 3, 21, 8
Fill = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def low(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).min


# What hides scores, given where they are to be seen.
MASKS: dict[str, Fill] = {
    "filled with -inf": lambda s, keep: s.masked_fill(~keep, -math.inf),
    "filled with -inf where == 0": lambda s, keep: s.masked_fill(keep.int() == 0, -math.inf),
    "filled with the lowest number": lambda s, keep: s.masked_fill(~keep, low(s.dtype)),
    "filled with -1e9": lambda s, keep: s.masked_fill(~keep, -1e9),
    "filled with -1e4": lambda s, keep: s.masked_fill(~keep, -1e4),
    "where with -inf": lambda s, keep: torch.where(keep, s, -math.inf),
    "where with the lowest number": lambda s, keep: torch.where(
        keep, s, torch.tensor(low(s.dtype), dtype=s.dtype)
    ),
    "added -inf": lambda s, keep: s + torch.zeros_like(s).masked_fill(~keep, -math.inf),
    "added lowest number": lambda s, keep: s + (~keep).to(s.dtype) * low(s.dtype),
    "none": lambda s, keep: s,
}


class Written(torch.nn.Module):
    def __init__(self, mask: str, precise: bool) -> None:
        super().__init__()
        self.mask, self.precise = MASKS[mask], precise

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor
    ) -> torch.Tensor:
        scores = self.mask(torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(SIZE), keep)
        if self.precise:
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        else:
            weights = torch.softmax(scores, dim=-1)
        return torch.matmul(weights, v)


def inputs(dtype: torch.dtype, lead: tuple[int, ...], shape: Any = None) -> list[torch.Tensor]:
    torch.manual_seed(3)
    q, k, v = (torch.randn(*lead, LENGTH, SIZE, dtype=dtype) for _ in range(3))
    keep = torch.rand(shape or (*lead, LENGTH, LENGTH)) < 0.6
    keep[..., 4, :] = False  # a row that sees nothing
    keep[..., 5, 1:] = False
    return [q, k, v, keep]


@pytest.mark.parametrize("mask", [name for name in MASKS if name != "filled with -1e9"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("lead", [(BATCH, HEADS), (BATCH,)])
def test_gives_what_pytorch_gives(
    mask: str, dtype: torch.dtype, precise: bool, lead: tuple[int, ...]
) -> None:
    if dtype == torch.float64 and precise:
        pytest.skip("nothing is precise about f32 then")
    model, args = Written(mask, precise).eval(), inputs(dtype, lead)
    check(compile_all(model, *args, require_full_compilation=True)(*args), model(*args))


def check(got: torch.Tensor, expected: torch.Tensor) -> None:
    bound = {torch.float32: 1e-5, torch.float64: 1e-12}.get(expected.dtype, 1e-2)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=2 * bound, atol=2 * bound, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [
        (LENGTH, LENGTH),
        (1, 1, LENGTH, LENGTH),
        (BATCH, 1, 1, LENGTH),
        (LENGTH, 1),
        (LENGTH,),
        (1,),
        (),
    ],
)
def test_filled_with_a_billion(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    model, args = Written("filled with -1e9", precise=False).eval(), inputs(dtype, (BATCH, HEADS))
    args[3] = torch.rand(shape) < 0.5
    compiled = compile_all(model, *args, require_full_compilation=True)
    for keep in (args[3], torch.zeros(shape, dtype=torch.bool), torch.ones(shape).bool()):
        args[3] = keep
        check(compiled(*args), model(*args))


@pytest.mark.parametrize("mask", ["filled with -inf", "filled with the lowest number", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precise", [False, True])
def test_is_one_kernel(mask: str, dtype: torch.dtype, precise: bool) -> None:
    program = torch.export.export(Written(mask, precise).eval(), tuple(inputs(dtype, (2, 3))))
    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=inputs(dtype, (2, 3))
    )
    kinds = [kernel["kind"] for kernel in kiln.inspect(bytes(engine))["kernels"]]
    assert kinds.count("attention") == 1 and "matmul" not in kinds, kinds


class Causal(torch.nn.Module):
    """With the mask as a buffer, of which a part is taken, and groups of heads that share keys and values."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.qkv = torch.nn.Linear(32, 32 + 2 * 16)
        self.register_buffer("bias", torch.tril(torch.ones(40, 40)).view(1, 1, 40, 40))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).split([32, 16, 16], dim=2)
        q = q.view(batch, length, 4, 8).transpose(1, 2)
        k, v = (
            y.view(batch, length, 2, 8).transpose(1, 2).repeat_interleave(2, dim=1) for y in (k, v)
        )
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(8))
        scores = scores.masked_fill(self.bias[:, :, :length, :length] == 0, self.value)
        return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("value", [-math.inf, -1e9, low(torch.float32)])
def test_causal_masks_of_sizes_that_vary(value: float) -> None:
    model, x = Causal(value).eval(), torch.randn(2, 17, 32)
    batch, length = torch.export.Dim("batch", max=4), torch.export.Dim("length", max=39)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch, 1: length},))
    compiled = torch_tensorrt.dynamo.compile(program, require_full_compilation=True)
    for sizes in ((2, 17), (1, 1), (4, 39), (3, 2)):
        x = torch.randn(*sizes, 32)
        check(compiled(x), model(x))


@pytest.mark.parametrize("mask", ["filled with -inf", "filled with the lowest number", "none"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("which", [0, 2])
def test_values_that_are_not_finite(mask: str, value: float, which: int) -> None:
    model, args = Written(mask, precise=True).eval(), inputs(torch.float32, (BATCH, HEADS))
    compiled = compile_all(model, *args, require_full_compilation=True)
    args[which][0, 0, 7, 3] = value
    check(compiled(*args), model(*args))
