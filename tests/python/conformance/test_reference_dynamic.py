"""Programs with dynamic sizes: exported once, run at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import reference
import torch
from case import assert_same, leaves
from torch.export import Dim

if not reference.find_runner().exists():
    pytest.skip(f"{reference.find_runner()} is not built", allow_module_level=True)

BATCH, LENGTH = Dim("batch", min=1, max=8), Dim("length", min=4, max=16)
fn = torch.nn.functional


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer(
            "table", torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
        )

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(self, *tensors)


def heads(m: Function, x: torch.Tensor) -> torch.Tensor:
    q = x.view(x.shape[0], -1, 2, 3).transpose(1, 2)
    return fn.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).reshape(x.shape)


def causal_mask(m: Function, x: torch.Tensor) -> torch.Tensor:
    length = x.shape[1]
    position = torch.arange(length)
    mask = position[None, :] <= position[:, None]
    scores = (x @ x.mT).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ x


def windows(m: Function, x: torch.Tensor) -> torch.Tensor:
    padded = fn.pad(x, (0, 0, 0, x.shape[1] % 2))
    return padded.unfold(1, 2, 1).flatten(2)


def resized(mode: str, **options: Any) -> Callable[..., Any]:
    def resize(m: Function, x: torch.Tensor) -> Any:
        image = x[:, None]
        given = [{"scale_factor": (2.5, 1.5)}, {"scale_factor": 0.5}, {"size": (7, 9)}]
        given.append({"size": (x.shape[1] * 2 + 3, x.shape[0] + 6)})
        return [fn.interpolate(image, mode=mode, **each, **options) for each in given]

    return resize


# x: [batch, length, 6]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda m, x: (x * 2 + 1).relu(),
    "sizes": lambda m, x: x * x.shape[1] + x.shape[0] // 2,
    "flatten": lambda m, x: x.flatten(0, 1),
    "view": lambda m, x: x.view(x.shape[0], -1, 3),
    "mean": lambda m, x: (x.mean(1), x.sum((0, 1)), x.var(1), x.amax(1)),
    "slice-table": lambda m, x: x + m.table[: x.shape[1]],
    "slice-last": lambda m, x: x[:, -1],
    "slice-ends": lambda m, x: (x[:, 2:], x[:, :-2], x[:, -3:-1]),
    "slice-step": lambda m, x: x[:, ::2],
    "shift": lambda m, x: torch.cat([x[:, :1], x[:, :-1]], 1),
    "arange": lambda m, x: torch.arange(x.shape[1]) + torch.arange(x.shape[0])[:, None],
    "arange-float": lambda m, x: torch.arange(x.shape[1], dtype=torch.float32) / x.shape[1],
    "arange-steps": lambda m, x: torch.arange(0, x.shape[0] * x.shape[1], x.shape[1]),
    "repeat-nothing": lambda m, x: torch.cat([x[:, :, :0]] * 3, -1),
    "max-places": lambda m, x: fn.max_pool1d(x.mT, 3, 2, 1, return_indices=True),
    "einsum-ellipsis": lambda m, x: torch.einsum("...ij,...kj->...ik", x, x),
    "expand": lambda m, x: m.table[0].expand(x.shape[0], x.shape[1], -1),
    "repeat": lambda m, x: x.repeat(1, 2, 1),
    "zeros": lambda m, x: torch.zeros(x.shape[0], x.shape[1] * 2, dtype=torch.int64),
    "new_ones": lambda m, x: x.new_ones(x.shape[:2]),
    "tril": lambda m, x: torch.ones(x.shape[1], x.shape[1]).tril(),
    "heads": heads,
    "causal_mask": causal_mask,
    "windows": windows,
    "adaptive": lambda m, x: (fn.adaptive_avg_pool1d(x.mT, 5), fn.adaptive_max_pool2d(x, (3, 4))),
    "adaptive-places": lambda m, x: fn.adaptive_max_pool2d(x, (3, 4), return_indices=True),
    "batch_norm-of-batch": lambda m, x: fn.batch_norm(x.mT, None, None, training=True),
    "group_norm-statistics": lambda m, x: torch.ops.aten.native_layer_norm(x, (6,), None, None, 1e-5),
    "gamma": lambda m, x: (x.lgamma(), torch.special.erfcx(x)),
    "einsum-diagonal": lambda m, x: torch.einsum("bii->bi", x @ x.mT),
    "grid_sample": lambda m, x: fn.grid_sample(
        m.table[None, None].expand(x.shape[0], 1, -1, -1), x[:, :, None, :2], "bicubic", "reflection"
    ),
    "attention-head": lambda m, x: fn.scaled_dot_product_attention(x.mT, x.mT, x.mT),
    "diagonal_scatter": lambda m, x: x.diagonal_scatter(x[:, 0, :1] * 2, 5, 1, 2),
    "pad": lambda m, x: fn.pad(x, (0, 0, 1, 2)),
    "resize-nearest": resized("nearest"),
    "resize-bilinear": resized("bilinear"),
    "resize-corners": resized("bilinear", align_corners=True),
    "resize-bicubic": resized("bicubic"),
    "roll": lambda m, x: x.roll(1, 1),
    "fourier": lambda m, x: (torch.fft.fftn(x, dim=(1, 2)).real, torch.fft.ifft(x, norm="forward").imag),
    "spectrum": lambda m, x: torch.fft.irfft(torch.fft.rfft(x) * 2),
    "inverse": lambda m, x: torch.linalg.inv_ex(x.mT @ x + torch.eye(6))[0],
    "transposed": lambda m, x: fn.conv_transpose1d(x.mT, m.table.t()[:, :4, None].repeat(1, 1, 3), stride=2),
    "histogram": lambda m, x: torch.histc(x, 5, -1, 1),
    "flip": lambda m, x: x.flip(1),
    "cumsum": lambda m, x: x.cumsum(1),
    "softmax": lambda m, x: x.softmax(1),
    "layer_norm": lambda m, x: fn.layer_norm(x, (6,)),
    "linear": lambda m, x: fn.linear(x, m.table),
    "matmul": lambda m, x: x @ x.mT,
    "conv": lambda m, x: fn.conv1d(x.mT, m.table[:4, :, None].expand(-1, -1, 2)),
    "pool": lambda m, x: fn.max_pool2d(x[:, None], (2, 1)),
    "split": lambda m, x: x.split([2, 4], -1),
    "stack": lambda m, x: torch.stack([x, -x], 1),
    "embedding": lambda m, x: fn.embedding(x[..., 0].abs().long().clamp(max=15), m.table),
    "index": lambda m, x: x[torch.arange(x.shape[0]), x[:, :, 0].argmax(1)],
    "gather": lambda m, x: x.gather(1, x.argmax(1, keepdim=True)),
    "diagonal": lambda m, x: (x @ x.mT).diagonal(0, 1, 2),
    "min-max": lambda m, x: m.table[: min(x.shape[1], 4)] * max(x.shape[0], 2),
    "std": lambda m, x: x.std(1),
    "interleave": lambda m, x: x.repeat_interleave(2, dim=1),
}  # fmt: skip


def example(batch: int, length: int) -> torch.Tensor:
    return torch.randn(batch, length, 6, generator=torch.Generator().manual_seed(batch + length))


def check(
    function: Callable[..., Any], shapes: Sequence[tuple[int, int]], decompose: bool, passes: bool
) -> None:
    module = Function(function).eval()
    with torch.no_grad():
        program = torch.export.export(
            module, (example(4, 7),), dynamic_shapes=(({0: BATCH, 1: LENGTH},),), strict=False
        )
        if decompose:
            program = program.run_decompositions()
        for shape in shapes:
            x = example(*shape)
            actual = reference.run(program, [x], passes)
            for got, expected in zip(actual, leaves(module(x)), strict=True):
                assert_same(got, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dynamic(name: str) -> None:
    check(FUNCTIONS[name], [(4, 7), (1, 4), (8, 15)], decompose=False, passes=False)


# Decomposed, their scales are numbers that no node computes.
WHOLE = {"attention-head", "resize-bicubic"}


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in WHOLE])
def test_dynamic_decomposed(name: str) -> None:
    check(FUNCTIONS[name], [(3, 5)], decompose=True, passes=True)


def test_sizes_outside_the_range_are_refused() -> None:
    with torch.no_grad():
        program = torch.export.export(
            Function(lambda m, x: x + 1),
            (example(4, 7),),
            dynamic_shapes=(({0: BATCH, 1: LENGTH},),),
        )
    with pytest.raises(reference.ReferenceError, match="dimension 0, expected 1 to 8"):
        reference.run(program, [example(9, 6)])
