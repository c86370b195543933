"""Models of `gpu.py` that are written here: they change a cache in place, or need a package that is seldom there."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class LlamaLayer(nn.Module):
    """One layer that decodes: `heads` of 64, a quarter of them for keys and values."""

    def __init__(self, batch: int, size: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, self.shared = heads, heads // 4
        self.attention_norm, self.mlp_norm = nn.RMSNorm(size), nn.RMSNorm(size)
        self.q = nn.Linear(size, heads * 64, bias=False)
        self.k = nn.Linear(size, self.shared * 64, bias=False)
        self.v = nn.Linear(size, self.shared * 64, bias=False)
        self.o = nn.Linear(heads * 64, size, bias=False)
        self.gate = nn.Linear(size, 4 * size, bias=False)
        self.up = nn.Linear(size, 4 * size, bias=False)
        self.down = nn.Linear(4 * size, size, bias=False)
        cache = (batch, self.shared, length, 64)
        self.register_buffer("keys", torch.randn(cache))
        self.register_buffer("values", torch.randn(cache))

    def forward(
        self, x: Tensor, position: Tensor, turn: tuple[Tensor, Tensor], keep: Tensor
    ) -> Tensor:
        batch, length, _ = x.shape
        normed = self.attention_norm(x)

        def heads(linear: nn.Linear, count: int) -> Tensor:
            return linear(normed).view(batch, length, count, 64).transpose(1, 2)

        q = rotated(heads(self.q, self.heads), *turn)
        self.keys.index_copy_(2, position, rotated(heads(self.k, self.shared), *turn))
        self.values.index_copy_(2, position, heads(self.v, self.shared))
        y = F.scaled_dot_product_attention(
            q, self.keys, self.values, attn_mask=keep, enable_gqa=True
        )
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, -1))
        normed = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class LlamaDecode(nn.Module):
    """forward(token [batch, 1], position [1]) -> logits; each layer's cache is a buffer of its own."""

    def __init__(self, batch: int, layers: int, vocabulary: int, length: int) -> None:
        super().__init__()
        size, heads = 2048, 32
        self.embedding = nn.Embedding(vocabulary, size)
        self.layers = nn.ModuleList(LlamaLayer(batch, size, heads, length) for _ in range(layers))
        self.norm = nn.RMSNorm(size)
        self.head = nn.Linear(size, vocabulary, bias=False)
        self.register_buffer("slots", torch.arange(length))
        frequency = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
        angles = torch.outer(torch.arange(length), torch.cat((frequency, frequency)))
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        x = self.embedding(token)
        turn = (self.cosine[position], self.sine[position])
        keep = self.slots <= position[:, None]
        for layer in self.layers:
            x = layer(x, position, turn, keep)
        return self.head(self.norm(x))


# --- Stable Diffusion 1.5 ---


class ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, times: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, before, 1e-5), nn.GroupNorm(32, after, 1e-5)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.time = nn.Linear(times, after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class Attention(nn.Module):
    def __init__(self, size: int, context: int) -> None:
        super().__init__()
        self.q = nn.Linear(size, size, bias=False)
        self.k = nn.Linear(context, size, bias=False)
        self.v = nn.Linear(context, size, bias=False)
        self.o = nn.Linear(size, size)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.view(y.shape[0], y.shape[1], 8, -1).transpose(1, 2)

        y = F.scaled_dot_product_attention(
            heads(self.q(x)), heads(self.k(context)), heads(self.v(context))
        )
        return self.o(y.transpose(1, 2).reshape(x.shape))


class TextBlock(nn.Module):
    """Attention among pixels, to the text, and a gated product, around which the picture is a residual."""

    def __init__(self, size: int, text: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, size, 1e-6)
        self.enter, self.leave = nn.Conv2d(size, size, 1), nn.Conv2d(size, size, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))
        self.own, self.other = Attention(size, size), Attention(size, text)
        self.gated, self.down = nn.Linear(size, 8 * size), nn.Linear(4 * size, size)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        batch, size, height, width = x.shape
        y = self.enter(self.norm(x)).permute(0, 2, 3, 1).reshape(batch, height * width, size)
        normed = self.norms[0](y)
        y = y + self.own(normed, normed)
        y = y + self.other(self.norms[1](y), text)
        value, gate = self.gated(self.norms[2](y)).chunk(2, dim=-1)
        y = y + self.down(value * F.gelu(gate))
        return x + self.leave(y.reshape(batch, height, width, size).permute(0, 3, 1, 2))


class Level(nn.Module):
    """Residual blocks, each with a block for the text where there is one."""

    def __init__(self, sizes: list[tuple[int, int]], times: int, text: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(before, after, times) for before, after in sizes)
        self.texts = nn.ModuleList(TextBlock(after, text) for _, after in sizes if text)


class UNet(nn.Module):
    """forward(x [b, 4, h, w], time [b], text [b, 77, 768]) -> noise [b, 4, h, w]; 860 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        sizes, times, text = [320, 640, 1280, 1280], 1280, 768
        self.time1, self.time2 = nn.Linear(320, times), nn.Linear(times, times)
        self.enter = nn.Conv2d(4, 320, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        kept, size = [320], 320
        for i, after in enumerate(sizes):
            self.down.append(Level([(size, after), (after, after)], times, text if i < 3 else 0))
            kept += [after, after]
            size = after
            if i < 3:
                self.shrink.append(nn.Conv2d(size, size, 3, stride=2, padding=1))
                kept.append(size)
        self.middle = Level([(size, size)], times, text)
        self.last = ResidualBlock(size, size, times)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, after in enumerate(reversed(sizes)):
            pairs = []
            for _ in range(3):
                pairs.append((size + kept.pop(), after))
                size = after
            self.up.append(Level(pairs, times, text if i > 0 else 0))
            if i < 3:
                self.grow.append(nn.Conv2d(size, size, 3, padding=1))
        self.norm, self.leave = nn.GroupNorm(32, 320), nn.Conv2d(320, 4, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        angles = time[:, None].float() * torch.exp(
            torch.arange(160, device=x.device) * (-math.log(10000) / 160)
        )
        embedding = torch.cat((angles.cos(), angles.sin()), dim=-1).to(x.dtype)
        time = self.time2(F.silu(self.time1(embedding)))
        x = self.enter(x)
        kept = [x]
        for i, level in enumerate(self.down):
            for j, block in enumerate(level.blocks):
                x = block(x, time)
                x = level.texts[j](x, text) if i < 3 else x
                kept.append(x)
            if i < 3:
                x = self.shrink[i](x)
                kept.append(x)
        x = self.last(self.middle.texts[0](self.middle.blocks[0](x, time), text), time)
        for i, level in enumerate(self.up):
            for j, block in enumerate(level.blocks):
                x = block(torch.cat((x, kept.pop()), dim=1), time)
                x = level.texts[j](x, text) if i > 0 else x
            if i < 3:
                x = self.grow[i](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.leave(F.silu(self.norm(x)))
