"""Cases of quantised models: PT2E's operators, and torchao's where it is installed."""

from __future__ import annotations

import importlib.util

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401 - defines quantized_decomposed
from op_cases import SPECIAL, Family, ints, rand, short

q = torch.ops.quantized_decomposed
I8, U8, I16, I32 = torch.int8, torch.uint8, torch.int16, torch.int32
RANGES = [(I8, -128, 127), (I8, -8, 7), (U8, 0, 255), (I16, -32768, 32767), (I32, -1000, 1000)]
# Ties, and the numbers around them.
HALVES = torch.arange(-12, 12) / 4


def quantize_per_tensor() -> Family:
    family = Family("quantize-per-tensor")
    for dtype, low, high in RANGES:
        for scale, zero in [(0.1, 0), (0.037, 3), (2.0, -1)]:
            name = f"{short(dtype)}-{low}-{scale}-{zero}"
            zero = max(zero, low)

            def one(x, s=scale, z=zero, a=low, b=high, d=dtype):
                return q.quantize_per_tensor(x, s, z, a, b, d)

            family.add(name, one, rand(5, 7, low=-40, high=40))
            family.add(name + "-ties", one, HALVES * scale)
            if dtype != I32:  # PyTorch's integers of NaN do not keep to a range
                family.add(name + "-special", one, SPECIAL)

            def many(x, s, z, a=low, b=high, d=dtype):
                return q.quantize_per_tensor.tensor(x, s, z, a, b, d)

            family.add(
                name + "-tensor",
                many,
                rand(5, 7, low=-40, high=40),
                torch.tensor([scale], dtype=torch.float64),
                torch.tensor([zero]),
            )
    for dtype in (torch.float16, torch.bfloat16):
        family.add(
            short(dtype),
            lambda x: q.quantize_per_tensor(x, 0.1, 3, -128, 127, I8),
            rand(5, 7, dtype=dtype, low=-20, high=20),
        )
    family.add(
        "tensor2",
        lambda x, s, z, a, b: q.quantize_per_tensor.tensor2(x, s, z, a, b, I8),
        *(rand(5, 7, low=-40, high=40), torch.tensor(0.1), torch.tensor(3)),
        *(torch.tensor(-100), torch.tensor(90)),
    )
    return family


def dequantize_per_tensor() -> Family:
    family = Family("dequantize-per-tensor")
    for dtype, low, high in RANGES:
        x = ints(5, 7, low=low, high=high, dtype=dtype)

        def one(x, a=low, b=high, d=dtype, o=None):
            return q.dequantize_per_tensor(x, 0.037, 3, a, b, d, out_dtype=o)

        family.add(short(dtype), one, x)
        family.add(
            f"{short(dtype)}-tensor",
            lambda x, s, z, a=low, b=high, d=dtype: q.dequantize_per_tensor.tensor(
                x, s, z, a, b, d
            ),
            *(x, torch.tensor([0.037], dtype=torch.float64), torch.tensor([3])),
        )
    for out in (torch.float16, torch.bfloat16, torch.float64):
        family.add(
            f"to-{short(out)}",
            lambda x, o=out: q.dequantize_per_tensor(x, 0.037, 3, -128, 127, I8, out_dtype=o),
            ints(5, 7, low=-128, high=128, dtype=I8),
        )
    family.add(
        "tensor2",
        lambda x, s, z, a, b: q.dequantize_per_tensor.tensor2(x, s, z, a, b, U8),
        *(ints(5, 7, high=255, dtype=U8), torch.tensor(0.1), torch.tensor(3)),
        *(torch.tensor(0), torch.tensor(255)),
    )
    return family


def per_channel() -> Family:
    family = Family("per-channel")
    for axis, shape in [(0, (4, 3, 2, 5)), (1, (3, 4)), (-1, (2, 3, 4)), (0, (4,))]:
        positive = axis % len(shape)
        for scales in (rand(4, low=0.05, high=0.3), rand(4, low=0.05, high=0.3).double()):
            for zero in (torch.zeros(4, dtype=torch.int64), ints(4), ints(4, dtype=I32)):
                name = f"{len(shape)}d-{axis}-{short(scales.dtype)}-{short(zero.dtype)}"
                family.add(
                    f"quantize-{name}",
                    lambda x, s, z, a=positive: q.quantize_per_channel(x, s, z, a, -128, 127, I8),
                    *(rand(*shape, low=-40, high=40), scales, zero),
                )
                family.add(
                    f"dequantize-{name}",
                    lambda x, s, z, a=positive: q.dequantize_per_channel(x, s, z, a, -128, 127, I8),
                    *(ints(*shape, low=-128, high=128, dtype=I8), scales, zero),
                )
    weight, scales = ints(4, 5, low=-128, high=128, dtype=I8), rand(4, low=0.05, high=0.3)
    family.add(
        "no-zero-points",
        lambda x, s: q.dequantize_per_channel(x, s, None, 0, -128, 127, I8),
        *(weight, scales),
    )
    family.add(
        "zero-points-wrap",
        lambda x, s, z: q.dequantize_per_channel(x, s, z, 0, -128, 127, I8),
        *(weight, scales, torch.tensor([-128, 127, 1, 0], dtype=I8)),
    )
    family.add(
        "wide",
        lambda x, s, z: q.dequantize_per_channel(x, s, z, 0, -(2**31), 2**31 - 1, I32),
        *(ints(4, 5, low=-(2**31), high=2**31, dtype=I32), scales, ints(4)),
    )
    for out in (torch.float16, torch.bfloat16):
        family.add(
            f"to-{short(out)}",
            lambda x, s, z, o=out: q.dequantize_per_channel(x, s, z, 0, -128, 127, I8, out_dtype=o),
            *(weight, scales, ints(4)),
        )
    return family


def per_group() -> Family:
    family = Family("per-group")
    for groups, shape in [(4, (3, 4)), (1, (3, 1)), (16, (3, 16))]:
        size = 32 // groups
        scales, zero = rand(*shape, low=0.1, high=0.5), ints(*shape, low=-3, high=4, dtype=I32)
        family.add(
            f"quantize-{groups}",
            lambda x, s, z, g=size: q.quantize_per_channel_group(x, s, z, -8, 7, I8, g),
            *(rand(3, 32), scales, zero),
        )
        family.add(
            f"dequantize-{groups}",
            lambda x, s, z, g=size: q.dequantize_per_channel_group(
                x, s, z, -8, 7, I8, g, torch.float32
            ),
            *(ints(3, 32, low=-8, high=8, dtype=I8), scales, zero),
        )
    family.add(
        "larger-than-the-row",
        lambda x, s, z: q.dequantize_per_channel_group(x, s, z, -8, 7, I8, 128, torch.float32),
        *(ints(3, 32, low=-8, high=8, dtype=I8), rand(3, 1, low=0.1, high=0.5), ints(3, 1)),
    )
    family.add(
        "no-zero-points",
        lambda x, s: q.dequantize_per_channel_group(x, s, None, -8, 7, I8, 8, torch.bfloat16),
        *(ints(3, 32, low=-8, high=8, dtype=I8), rand(3, 4, low=0.1, high=0.5)),
    )
    return family


def per_token() -> Family:
    family = Family("per-token")
    for scales in (rand(2, 3, 1, low=0.1, high=0.5), rand(2, 3, 1, low=0.1, high=0.5).double()):
        for zero in (ints(2, 3, 1), torch.zeros(2, 3, 1)):
            name = f"{short(scales.dtype)}-{short(zero.dtype)}"
            family.add(
                f"quantize-{name}",
                lambda x, s, z: q.quantize_per_token(x, s, z, -128, 127, I8),
                *(rand(2, 3, 16, low=-40, high=40), scales, zero),
            )
            family.add(
                f"dequantize-{name}",
                lambda x, s, z: q.dequantize_per_token(x, s, z, -128, 127, I8, torch.float32),
                *(ints(2, 3, 16, low=-128, high=128, dtype=I8), scales, zero),
            )
    return family


def choose_qparams() -> Family:
    family = Family("choose-qparams")
    inputs = {
        "mixed": rand(4, 9, low=-2, high=5),
        "positive": rand(4, 9, low=1, high=5),
        "negative": rand(4, 9, low=-5, high=-1),
        "zeros": torch.zeros(4, 9),
    }
    for name, x in inputs.items():
        for dtype, low, high in [(U8, 0, 255), (I8, -128, 127)]:
            label = f"{name}-{short(dtype)}"

            def affine(x, a=low, b=high, d=dtype):
                return q.choose_qparams.tensor(x, a, b, 2**-12, d)

            def symmetric(x, a=low, b=high, d=dtype):
                return q.choose_qparams_symmetric.tensor(x, a, b, 1e-5, d)

            family.add(f"affine-{label}", affine, x)
            family.add(f"symmetric-{label}", symmetric, x)
        family.add(
            f"per-token-asymmetric-{name}",
            lambda x: q.choose_qparams_per_token_asymmetric(x, I8),
            x,
        )
    return family


def dynamic() -> Family:
    """What a dynamically quantised layer does around its product."""
    family = Family("dynamic")

    def per_tensor(x: torch.Tensor) -> torch.Tensor:
        scale, zero = q.choose_qparams.tensor(x, 0, 255, 2**-12, U8)
        y = q.quantize_per_tensor.tensor(x, scale, zero, 0, 255, U8)
        return q.dequantize_per_tensor.tensor(y, scale, zero, 0, 255, U8)

    def per_token(x: torch.Tensor) -> torch.Tensor:
        scale, zero = q.choose_qparams_per_token_asymmetric(x, I8)
        y = q.quantize_per_token(x, scale, zero, -128, 127, I8)
        return q.dequantize_per_token(y, scale, zero, -128, 127, I8, torch.float32)

    def per_token_symmetric(x: torch.Tensor) -> torch.Tensor:
        scale, zero = q.choose_qparams_per_token(x, I8)
        y = q.quantize_per_token(x, scale, zero, -128, 127, I8)
        return q.dequantize_per_token(y, scale, zero, -128, 127, I8, torch.float32)

    for function in (per_tensor, per_token, per_token_symmetric):
        family.add(function.__name__, function, rand(4, 9))
    return family


BLOCKS = [(4, 32), (1, 32), (1, 8), (4, 1), (2, 16)]


def torchao_affine() -> Family:
    import torchao.quantization.quant_primitives  # noqa: F401, PLC0415 - defines the operators

    ao = torch.ops.torchao
    family = Family("torchao")
    for block in BLOCKS:
        counts = (4 // block[0], 32 // block[1])
        scales, zero = rand(*counts, low=0.1, high=0.5), ints(*counts, low=-3, high=4, dtype=I32)
        name = "x".join(map(str, block))
        family.add(
            f"quantize-{name}",
            lambda x, s, z, b=block: ao.quantize_affine(x, b, s, z, I8, -8, 7),
            *(rand(4, 32), scales, zero),
        )
        family.add(
            f"dequantize-{name}",
            lambda x, s, z, b=block: ao.dequantize_affine(
                x, b, s, z, I8, -8, 7, output_dtype=torch.float32
            ),
            *(ints(4, 32, low=-8, high=8, dtype=I8), scales, zero),
        )
        for mapping in ("SYMMETRIC", "SYMMETRIC_NO_CLIPPING_ERR", "ASYMMETRIC"):
            for keepdim in (False, True):
                family.add(
                    f"choose-{mapping}-{name}-{keepdim}",
                    lambda x, b=block, m=mapping, k=keepdim: ao.choose_qparams_affine(
                        x, m, b, I8, -8, 7, 1e-6, torch.float32, torch.int32, k
                    ),
                    rand(4, 32),
                )
    family.add(
        "whole-range",
        lambda x, s, z: ao.quantize_affine(x, (1, 32), s, z, U8),
        *(rand(4, 32, low=-40, high=40), rand(4, low=0.1, high=0.5), ints(4, low=90, high=110)),
    )
    return family


FAMILIES = [
    quantize_per_tensor(),
    dequantize_per_tensor(),
    per_channel(),
    per_group(),
    per_token(),
    choose_qparams(),
    dynamic(),
]
if importlib.util.find_spec("torchao") is not None:
    FAMILIES.append(torchao_affine())
