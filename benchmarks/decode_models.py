"""Decoders with caches of fixed length, for `decode.py`: GPT-2, and Llama with shared key and value heads.

forward(tokens [1, n], positions [n], caches=None) gives the logits [1, vocabulary] of the last token. Without caches
the model's own are changed in place; with them, two of [1, heads, length, size] for each layer, new ones are given back
too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    layers: int
    size: int
    heads: int
    shared: int  # heads of keys and values
    hidden: int
    vocabulary: int
    gated: bool  # Llama: gated units, RMSNorm, rotated positions, no biases
    length: int = 256

    @property
    def each(self) -> int:
        return self.size // self.heads


MODELS = {
    "gpt2": Sizes(12, 768, 12, 12, 3072, 50257, gated=False),
    "llama-1b": Sizes(16, 2048, 32, 8, 8192, 128256, gated=True),
    "llama-4-layers": Sizes(4, 2048, 32, 8, 8192, 32000, gated=True),
}


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class Layer(nn.Module):
    repeats = False  # shared heads are copied for those that have not heard of them

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        bias, kept = not sizes.gated, sizes.shared * sizes.each
        norm = nn.RMSNorm if sizes.gated else nn.LayerNorm
        self.attention_norm, self.mlp_norm = norm(sizes.size), norm(sizes.size)
        self.q = nn.Linear(sizes.size, sizes.size, bias=bias)
        self.k = nn.Linear(sizes.size, kept, bias=bias)
        self.v = nn.Linear(sizes.size, kept, bias=bias)
        self.o = nn.Linear(sizes.size, sizes.size, bias=bias)
        self.up = nn.Linear(sizes.size, sizes.hidden, bias=bias)
        self.down = nn.Linear(sizes.hidden, sizes.size, bias=bias)
        if sizes.gated:
            self.gate = nn.Linear(sizes.size, sizes.hidden, bias=False)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, sizes.shared, sizes.length, sizes.each))

    def update(self, name: str, positions: Tensor, new: Tensor, cache: Tensor | None) -> Tensor:
        if cache is not None:
            return cache.index_copy(2, positions, new)
        own = getattr(self, name)
        own.index_copy_(2, positions, new)
        return own

    def mlp(self, x: Tensor) -> Tensor:
        if self.sizes.gated:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.gelu(self.up(x), approximate="tanh"))

    def forward(
        self, x: Tensor, positions: Tensor, turn: tuple[Tensor, Tensor] | None, keep: Tensor, caches
    ) -> tuple[Tensor, Tensor, Tensor]:
        sizes, normed = self.sizes, self.attention_norm(x)

        def heads(linear: nn.Linear, count: int, turns: bool) -> Tensor:
            y = linear(normed).view(1, -1, count, sizes.each).transpose(1, 2)
            return rotated(y, *turn) if turns and turn is not None else y

        q, k = heads(self.q, sizes.heads, True), heads(self.k, sizes.shared, True)
        keys = self.update("keys", positions, k, caches and caches[0])
        values = self.update(
            "values", positions, heads(self.v, sizes.shared, False), caches and caches[1]
        )
        groups = sizes.heads // sizes.shared
        if groups > 1 and self.repeats:
            keys_of_all, values_of_all = (x.repeat_interleave(groups, 1) for x in (keys, values))
            y = F.scaled_dot_product_attention(q, keys_of_all, values_of_all, attn_mask=keep)
        else:
            shared = {"enable_gqa": True} if groups > 1 else {}
            y = F.scaled_dot_product_attention(q, keys, values, attn_mask=keep, **shared)
        x = x + self.o(y.transpose(1, 2).reshape(1, -1, sizes.size))
        return x + self.mlp(self.mlp_norm(x)), keys, values


class Decoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.vocabulary, sizes.size)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = (nn.RMSNorm if sizes.gated else nn.LayerNorm)(sizes.size)
        self.head = nn.Linear(sizes.size, sizes.vocabulary, bias=False)
        self.register_buffer("slots", torch.arange(sizes.length))
        if sizes.gated:
            frequency = 10000.0 ** (-torch.arange(0, sizes.each, 2) / sizes.each)
            angles = torch.outer(torch.arange(sizes.length), torch.cat((frequency, frequency)))
            self.register_buffer("cosine", angles.cos())
            self.register_buffer("sine", angles.sin())
        else:
            self.places = nn.Embedding(sizes.length, sizes.size)

    def forward(self, tokens: Tensor, positions: Tensor, caches: list[Tensor] | None = None):
        x, turn = self.embedding(tokens), None
        if self.sizes.gated:
            turn = (self.cosine[positions], self.sine[positions])
        else:
            x = x + self.places(positions)
        keep, updated = self.slots <= positions[:, None], []
        for i, layer in enumerate(self.layers):
            x, keys, values = layer(
                x, positions, turn, keep, None if caches is None else caches[2 * i : 2 * i + 2]
            )
            updated += [keys, values]
        logits = self.head(self.norm(x[:, -1]))
        return logits if caches is None else (logits, updated)


def decoder(name: str) -> Decoder:
    """With random weights."""
    torch.manual_seed(0)
    with torch.no_grad():
        return Decoder(MODELS[name]).eval()
