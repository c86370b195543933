"""Models that the tests on a GPU share."""

from __future__ import annotations

import torch
from torch import nn


class Mixer(nn.Module):
    """Products, normalisations, an attention and pointwise work. Not torch.nn.TransformerEncoderLayer: PyTorch computes
    its GELU by another formula on a GPU than elsewhere."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.head = nn.Linear(width, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        x = x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))
        return self.head(x).softmax(-1)


class ConvNet(nn.Module):
    """Convolutions of several kinds, pooling and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1, groups=16),
            nn.Conv2d(16, 32, 1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Recurrent(nn.Module):
    """An LSTM that starts from zeros that no input has a part in, behind an operator that stays in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.last = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.lstm((self.first(x).tanh() / 2).erfinv())[0]).tanh()


class Lookup(nn.Module):
    """Reads rows by number: a number that is out of range is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(10, 8)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        return self.rows(i) * 2
