"""Convolutions and average pools of integers, exact as PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as fn
from eager import assert_as_eager

MAX = torch.export.Dim("n", min=2, max=40)


def integers(*shape: int, most: int = 50) -> torch.Tensor:
    return torch.randint(-most, most, shape, generator=torch.Generator().manual_seed(len(shape)))


def test_convolutions() -> None:
    x, w, b = integers(2, 4, 7, 9), integers(6, 2, 3, 2), integers(6)
    big = integers(2, 4, 7, 9) * (1 << 58) + 3
    table = {
        "plain": lambda x, w, b, g: fn.conv2d(x[:, :2], w, b),
        "strides": lambda x, w, b, g: fn.conv2d(x, w, b, stride=(2, 3), padding=(1, 2), groups=2),
        "dilated": lambda x, w, b, g: fn.conv2d(x, w, dilation=(2, 3), groups=2),
        "same": lambda x, w, b, g: fn.conv2d(x, w, b, padding="same", groups=2),
        "wraps": lambda x, w, b, g: fn.conv2d(g, w, b, groups=2),
        "line": lambda x, w, b, g: fn.conv1d(x[0, :2, 0], w[..., 0], b, padding=1),
        "cube": lambda x, w, b, g: fn.conv3d(x.unsqueeze(1)[:, :, :2], w[:, :1].unsqueeze(2), b),
        "transposed": lambda x, w, b, g: fn.conv_transpose2d(
            x[:, :2], w.transpose(0, 1), b, stride=2, padding=1, output_padding=1
        ),
        "transposed line": lambda x, w, b, g: fn.conv_transpose1d(
            x[:, :, 0], w[:4, :, :, 0], stride=3
        ),
        "bilinear": lambda x, w, b, g: fn.bilinear(x[0, 0, :, :3], x[0, 1, :, :2], w[:, 0], b),
    }
    assert_as_eager(table, (x, w, b, big))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_average_pools(ceil_mode: bool, count_include_pad: bool) -> None:
    options = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    x = integers(2, 3, 8, 11)
    table = {
        "plain": lambda x: fn.avg_pool2d(x, 2, **options),
        "padded": lambda x: fn.avg_pool2d(x, (3, 4), stride=(2, 3), padding=(1, 2), **options),
        "divisor": lambda x: fn.avg_pool2d(x, 3, padding=1, divisor_override=-7, **options),
        "line": lambda x: fn.avg_pool1d(x[0], 4, 3, 2, **options),
        "cube": lambda x: fn.avg_pool3d(x, (2, 3, 3), (1, 2, 3), 1, **options),
    }
    assert_as_eager(table, (x,))


def test_sizes_may_vary() -> None:
    table = {
        "pool": lambda x: fn.avg_pool2d(x, 2, padding=1, count_include_pad=False),
        "convolution": lambda x: fn.conv2d(x, torch.ones(2, 3, 2, 2, dtype=torch.int64), padding=1),
    }
    calls = [(integers(2, 3, 5, n),) for n in (2, 3, 40)]
    assert_as_eager(table, (integers(2, 3, 5, 9),), calls=calls, dynamic_shapes=(({3: MAX},),))


def test_sequences_of_integers_begin_and_end_with_integers() -> None:
    table = {
        "numbers": lambda s: torch.linspace(4.7, 0.6, 50, dtype=torch.int32),
        "negative": lambda s: torch.linspace(-4.7, 4.7, 50, dtype=torch.int8),
        "a tensor": lambda s: torch.linspace(s, 0, 50, dtype=torch.uint8),
        "tensors": lambda s: torch.linspace(s - 9, s, 50, dtype=torch.int64),
    }
    assert_as_eager(table, (torch.tensor(4.3),))


def test_elements_at_the_edges_of_bins_of_16_bits() -> None:
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 5
    table = {
        "range": lambda t: torch.histc(t, 100, -10, 0),
        "all": lambda t: torch.histc(t, 37),
    }
    assert_as_eager(table, (x.to(torch.bfloat16),))
