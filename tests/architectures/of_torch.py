"""Modules of torch.nn, and models that people write with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from architecture import Architecture, Input
from torch import nn
from torch.nn import functional

SEQUENCE = (Input("x", ("batch", "length", 16)),)
STEPS = (Input("x", ("batch", 7, 16)),)
IMAGE = (Input("x", ("batch", 3, 32, 32)),)
SIGNAL = (Input("x", ("batch", 4, 64)),)
VOLUME = (Input("x", ("batch", 2, 8, 8, 8)),)
IDS = (Input("ids", ("batch", "length"), 50),)


class Function(nn.Module):
    """Modules by name, and a function of them and the inputs."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(modules)
        self._function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self._function(self.parts, *args)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(3, 8), _block(8, 16), _block(16, 32)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.join = nn.ModuleList([_block(32, 16), _block(16, 8)])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for i, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, (kept[1], kept[0]), strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return self.head(x)


def _block(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU())


class Tcn(nn.Module):
    """Dilated causal convolutions with residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3, dilation=2**i))
                for i in range(3)
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            x = functional.relu(x + layer(functional.pad(x, (2 * 2**i, 0))))
        return x


class Cells(nn.Module):
    """A loop over steps, unrolled by the tracer."""

    def __init__(self, cell: nn.Module, has_cell_state: bool) -> None:
        super().__init__()
        self.cell, self._has_cell_state = cell, has_cell_state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state: Any = x.new_zeros(x.shape[0], 24)
        state = (state, state) if self._has_cell_state else state
        results = []
        for step in x.unbind(1):
            state = self.cell(step, state)
            results.append(state[0] if self._has_cell_state else state)
        return torch.stack(results, 1)


class SpatialTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 6))
        # Near the identity, as it is initialised everywhere: where places are as random as the image is, a rounding of
        # one in the sum behind them is a hundred of the result, in PyTorch too.
        nn.init.normal_(self.locate[1].weight, std=1e-3)
        self.locate[1].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.locate(x).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.gate = nn.Sequential(nn.Conv2d(16, 4, 1), nn.SiLU(), nn.Conv2d(4, 16, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x * self.gate(functional.adaptive_avg_pool2d(x, 1))


class Autoencoder(nn.Module):
    """A variational one, its sample the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))
        self.decode = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 16))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, log_variance = self.encode(x).chunk(2, -1)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)
        return self.decode(mean), divergence


class MixtureOfExperts(nn.Module):
    """Every expert on every token, weighted by the two best gates."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 4)
        self.experts = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        gates = torch.zeros_like(self.gate(x)).scatter(-1, chosen, weights)
        return sum(gates[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class DeepFm(nn.Module):
    """Recommendation: bags of embeddings, products of pairs, a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.dense = nn.Sequential(nn.Linear(6 * 8, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        pairs = 0.5 * (x.sum(1).square() - x.square().sum(1)).sum(-1, keepdim=True)
        return torch.sigmoid(pairs + self.dense(x.flatten(1)))


class GraphConvolution(nn.Module):
    """Messages along edges, summed at their targets."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 8)])

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            messages = layer(x)[edges[0]]
            x = torch.zeros_like(layer(x)).index_add(0, edges[1], messages).relu()
        return x


class FourierMixing(nn.Module):
    """FNet's mixing: the real part of a transform of two axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real


class Spectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, 32, 16, window=self.window, return_complex=True).abs().log1p()


class RotaryAttention(nn.Module):
    """Rotary positions written with complex numbers, as Llama's first code has them."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 8)).unbind(2)
        angles = torch.outer(torch.arange(x.shape[1]).float(), 10000 ** (-torch.arange(4) / 4))
        turn = torch.polar(torch.ones_like(angles), angles)[:, None]

        def turned(y: torch.Tensor) -> torch.Tensor:
            pairs = torch.view_as_complex(y.unflatten(-1, (4, 2)).contiguous())
            return torch.view_as_real(pairs * turn).flatten(-2)

        q, k, v = (y.transpose(1, 2) for y in (turned(q), turned(k), v))
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class Pair(nn.Module):
    """A layer of two sequences."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.module(x, y)


def _attention(parts: nn.ModuleDict, x: torch.Tensor) -> Any:
    return parts["attention"](x, x, x)


def _bag(parts: nn.ModuleDict, ids: torch.Tensor) -> torch.Tensor:
    return parts["bag"](ids)


def _unpool(parts: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
    pooled, places = parts["pool"](parts["conv"](x))
    return parts["unpool"](pooled * 2, places)


def _adaptive_softmax(parts: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
    return parts["head"].log_prob(x)


def _layers() -> dict[str, tuple[Callable[[], nn.Module], tuple[Input, ...]]]:
    pair = (Input("x", ("batch", "length", 16)), Input("y", ("batch", 5, 16)))
    return {
        "Transformer": (
            lambda: Pair(nn.Transformer(16, 4, 2, 2, 32, batch_first=True)),
            pair,
        ),
        "TransformerEncoder": (
            lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2
            ),
            SEQUENCE,
        ),
        "TransformerEncoder norm_first, gelu": (
            lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(
                    16, 4, 32, activation="gelu", norm_first=True, batch_first=True
                ),
                2,
            ),
            SEQUENCE,
        ),
        "TransformerDecoder": (
            lambda: Pair(
                nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 32, batch_first=True), 2)
            ),
            pair,
        ),
        "MultiheadAttention": (
            lambda: Function(_attention, attention=nn.MultiheadAttention(16, 4, batch_first=True)),
            SEQUENCE,
        ),
        "MultiheadAttention add_bias_kv, add_zero_attn": (
            lambda: Function(
                _attention,
                attention=nn.MultiheadAttention(
                    16, 4, add_bias_kv=True, add_zero_attn=True, batch_first=True
                ),
            ),
            SEQUENCE,
        ),
        "LSTM": (lambda: nn.LSTM(16, 24, batch_first=True), STEPS),
        "LSTM of varying length": (lambda: nn.LSTM(16, 24, batch_first=True), SEQUENCE),
        "LSTM bidirectional, 2 layers": (
            lambda: nn.LSTM(16, 24, 2, bidirectional=True, batch_first=True),
            STEPS,
        ),
        "LSTM with projections": (lambda: nn.LSTM(16, 24, proj_size=8, batch_first=True), STEPS),
        "GRU": (lambda: nn.GRU(16, 24, 2, batch_first=True), STEPS),
        "GRU bidirectional": (lambda: nn.GRU(16, 24, bidirectional=True, batch_first=True), STEPS),
        "RNN": (lambda: nn.RNN(16, 24, batch_first=True), STEPS),
        "RNN relu": (lambda: nn.RNN(16, 24, nonlinearity="relu", batch_first=True), STEPS),
        "LSTMCell loop": (lambda: Cells(nn.LSTMCell(16, 24), True), STEPS),
        "GRUCell loop": (lambda: Cells(nn.GRUCell(16, 24), False), STEPS),
        "RNNCell loop": (lambda: Cells(nn.RNNCell(16, 24), False), STEPS),
        "Embedding": (lambda: nn.Embedding(50, 16, padding_idx=0), IDS),
        "EmbeddingBag": (lambda: Function(_bag, bag=nn.EmbeddingBag(50, 16)), IDS),
        "EmbeddingBag max": (lambda: Function(_bag, bag=nn.EmbeddingBag(50, 16, mode="max")), IDS),
        "Bilinear": (
            lambda: Pair(nn.Bilinear(16, 16, 8)),
            (Input("x", ("batch", 16)), Input("y", ("batch", 16))),
        ),
        "CosineSimilarity": (
            lambda: Pair(nn.CosineSimilarity(-1)),
            (Input("x", ("batch", 16)), Input("y", ("batch", 16))),
        ),
        "PairwiseDistance": (
            lambda: Pair(nn.PairwiseDistance()),
            (Input("x", ("batch", 16)), Input("y", ("batch", 16))),
        ),
        "MaxUnpool2d": (
            lambda: Function(
                _unpool,
                conv=nn.Conv2d(3, 4, 3),
                pool=nn.MaxPool2d(2, return_indices=True),
                unpool=nn.MaxUnpool2d(2),
            ),
            IMAGE,
        ),
        "AdaptiveLogSoftmax": (
            lambda: Function(
                _adaptive_softmax, head=nn.AdaptiveLogSoftmaxWithLoss(16, 60, [10, 30])
            ),
            (Input("x", ("batch", 16)),),
        ),
    }


def _stacks() -> dict[str, tuple[Callable[[], nn.Module], tuple[Input, ...]]]:
    return {
        "Conv1d stack": (
            lambda: nn.Sequential(
                nn.Conv1d(4, 8, 5, 2),
                nn.BatchNorm1d(8),
                nn.PReLU(8),
                nn.MaxPool1d(3, 2, ceil_mode=True),
            ),
            SIGNAL,
        ),
        "Conv1d of varying length": (
            lambda: nn.Sequential(
                nn.Conv1d(4, 8, 3, padding="same"), nn.GELU(), nn.AdaptiveAvgPool1d(1)
            ),
            (Input("x", ("batch", 4, "length")),),
        ),
        "Conv3d stack": (
            lambda: nn.Sequential(
                nn.Conv3d(2, 4, 3, padding=1),
                nn.InstanceNorm3d(4, affine=True),
                nn.ELU(),
                nn.AvgPool3d(2),
            ),
            VOLUME,
        ),
        "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 4, 2, 1, output_padding=1), SIGNAL),
        "ConvTranspose2d groups, dilation": (
            lambda: nn.ConvTranspose2d(3, 6, 3, 2, 1, 1, groups=3, dilation=2),
            IMAGE,
        ),
        "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2), VOLUME),
        "Conv2d circular, reflect": (
            lambda: nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
                nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            ),
            IMAGE,
        ),
        "Depthwise separable": (
            lambda: nn.Sequential(
                nn.Conv2d(3, 12, 3, groups=3, padding=1),
                nn.Hardswish(),
                nn.Conv2d(12, 8, 1),
                nn.ReLU6(),
            ),
            IMAGE,
        ),
        "Upsample all modes": (
            lambda: nn.Sequential(
                nn.Upsample(scale_factor=2),
                nn.Upsample(size=(40, 50), mode="bilinear"),
                nn.Upsample(size=(33, 31), mode="bicubic", align_corners=True),
                nn.Upsample(scale_factor=0.5, mode="area"),
                nn.Upsample(scale_factor=1.7, mode="nearest-exact"),
            ),
            IMAGE,
        ),
        "Upsample trilinear": (lambda: nn.Upsample(scale_factor=2, mode="trilinear"), VOLUME),
        "Upsample antialiased": (
            lambda: Function(
                lambda _, x: functional.interpolate(
                    x, size=(20, 13), mode="bilinear", antialias=True
                )
            ),
            IMAGE,
        ),
        "Fold and Unfold": (
            lambda: nn.Sequential(
                nn.Unfold(4, stride=4), nn.Tanh(), nn.Fold((32, 32), 4, stride=4)
            ),
            IMAGE,
        ),
        "Overlapping Unfold": (lambda: nn.Unfold(3, padding=1, dilation=2), IMAGE),
        "PixelShuffle": (
            lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.PixelUnshuffle(3)),
            IMAGE,
        ),
        "Norms": (
            lambda: nn.Sequential(
                nn.Conv2d(3, 8, 1),
                nn.GroupNorm(2, 8),
                nn.InstanceNorm2d(8),
                nn.LocalResponseNorm(3),
                nn.LayerNorm([32, 32]),
            ),
            IMAGE,
        ),
        "Activations": (
            lambda: nn.Sequential(
                *(
                    getattr(nn, name)()
                    for name in [
                        "CELU",
                        "ELU",
                        "GELU",
                        "Hardshrink",
                        "Hardsigmoid",
                        "Hardswish",
                        "Hardtanh",
                        "LeakyReLU",
                        "LogSigmoid",
                        "Mish",
                        "PReLU",
                        "ReLU6",
                        "RReLU",
                        "SELU",
                        "SiLU",
                        "Sigmoid",
                        "Softplus",
                        "Softshrink",
                        "Softsign",
                        "Tanh",
                        "Tanhshrink",
                    ]
                ),
                nn.Softmax(-1),
            ),
            SEQUENCE,
        ),
        "Pools": (
            lambda: nn.Sequential(
                nn.LPPool2d(2, 2, 1),
                nn.AvgPool2d(3, 2, 1, ceil_mode=True),
                nn.AdaptiveMaxPool2d((7, 5)),
                nn.MaxPool2d(2, 2, 1, 2),
            ),
            IMAGE,
        ),
        "Paddings": (
            lambda: nn.Sequential(
                nn.ReflectionPad2d(2),
                nn.ReplicationPad2d((1, 2, 3, 4)),
                nn.ZeroPad2d(1),
                nn.ConstantPad2d(1, 0.5),
                nn.CircularPad2d(3),
            ),
            IMAGE,
        ),
        "SpectralNorm": (
            lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(16, 8)),
            SEQUENCE,
        ),
        "ChannelShuffle, GLU": (
            lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ChannelShuffle(4), nn.GLU(1)),
            IMAGE,
        ),
    }


def _models() -> dict[str, tuple[Callable[[], nn.Module], tuple[Input, ...]]]:
    edges = (Input("x", (12, 16)), Input("edges", (2, 30), 12))
    return {
        "U-Net": (UNet, IMAGE),
        "Temporal convolutions": (Tcn, (Input("x", ("batch", 4, "length")),)),
        "Spatial transformer": (SpatialTransformer, IMAGE),
        "Squeeze and excite": (SqueezeExcite, IMAGE),
        "Variational autoencoder": (Autoencoder, (Input("x", ("batch", 16)),)),
        "Mixture of experts": (MixtureOfExperts, SEQUENCE),
        "DeepFM": (DeepFm, (Input("ids", ("batch", 6), 50),)),
        "Graph convolution": (GraphConvolution, edges),
        "FNet mixing": (FourierMixing, SEQUENCE),
        "Spectrogram": (Spectrogram, (Input("x", ("batch", 128)),)),
        "Rotary attention, complex": (RotaryAttention, SEQUENCE),
    }


def architectures() -> list[Architecture]:
    named = {**_layers(), **_stacks(), **_models()}
    return [Architecture(name, "torch", make, inputs) for name, (make, inputs) in named.items()]
