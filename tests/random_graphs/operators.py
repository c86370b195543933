"""What random models are made of: functions that write one step each, chosen by weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from graph import Step

if TYPE_CHECKING:
    from generate import Builder


class Unfit(Exception):
    """No operands for this operator."""


Maker = Callable[["Builder", str], Step]
MAKERS: list[Maker] = []
WEIGHTS: list[float] = []


def makes(weight: float) -> Callable[[Maker], Maker]:
    def add(maker: Maker) -> Maker:
        MAKERS.append(maker)
        WEIGHTS.append(weight)
        return maker

    return add


def step(result: str, expression: str, *operands: str, rounding: str = "rounds") -> Step:
    return Step(result, f"{result} = {expression}", operands, rounding)


# Pointwise

UNARY = [
    "torch.exp",
    "torch.log",
    "torch.sqrt",
    "torch.rsqrt",
    "torch.sin",
    "torch.cos",
    "torch.tan",
    "torch.tanh",
    "torch.sigmoid",
    "torch.erf",
    "torch.erfc",
    "torch.reciprocal",
    "torch.expm1",
    "torch.log1p",
    "torch.log2",
    "torch.log10",
    "torch.exp2",
    "torch.asin",
    "torch.acos",
    "torch.atan",
    "torch.sinh",
    "torch.cosh",
    "torch.asinh",
    "torch.acosh",
    "torch.atanh",
    "torch.square",
    "torch.frac",
    "torch.sinc",
    "torch.deg2rad",
    "functional.gelu",
    "functional.silu",
    "functional.mish",
    "functional.softplus",
    "functional.elu",
    "functional.selu",
    "functional.hardswish",
    "functional.hardsigmoid",
    "functional.celu",
    "functional.logsigmoid",
    "functional.softsign",
]
UNARY_CALLS = [
    "functional.gelu({}, approximate='tanh')",
    "functional.leaky_relu({}, 0.2)",
    "functional.elu({}, 0.7)",
    "functional.softplus({}, 2, 5)",
    "torch.logit({})",
    "{} ** 3",
    "{} ** 0.5",
    "{} ** -1",
    "2 ** {}",
    "{} * 0.3 + 1",
    "1.5 - {}",
    "{} / 3",
    "1 / {}",
    "torch.rsub({}, 2, alpha=3)",
]
EXACT_UNARY = [
    "torch.abs",
    "torch.neg",
    "torch.sign",
    "torch.floor",
    "torch.ceil",
    "torch.round",
    "torch.trunc",
    "torch.relu",
    "torch.isnan",
    "torch.isinf",
    "torch.isfinite",
    "torch.logical_not",
    "torch.nan_to_num",
    "functional.relu6",
    "functional.hardtanh",
    "torch.isposinf",
    "torch.isneginf",
    "torch.positive",
    "torch.clone",
]
EXACT_CALLS = [
    "torch.clamp({}, -0.5, 0.75)",
    "torch.clamp({}, min=0.1)",
    "functional.threshold({}, 0.1, 2.0)",
    "functional.hardshrink({}, 0.3)",
    "{} > 0",
    "{} == {0}.floor()",
    "torch.nan_to_num({}, 1.0, 2.0, -2.0)",
    "torch.clamp_max({}, 0.5)",
    "torch.signbit(torch.nan_to_num({}))",  # engines do not keep the sign of a NaN
]
BINARY = [
    "{} + {}",
    "{} - {}",
    "{} * {}",
    "{} / {}",
    "torch.add({}, {}, alpha=2)",
    "torch.sub({}, {}, alpha=0.5)",
    "torch.atan2({}, {})",
    "torch.hypot({}, {})",
    "torch.pow({}.abs(), {})",
    "torch.logaddexp({}, {})",
    "torch.xlogy({}, {})",
    "torch.remainder({}, {})",
    "torch.fmod({}, {})",
    "torch.floor_divide({}, {})",
    "torch.div({}, {}, rounding_mode='trunc')",
    "torch.div({}, {}, rounding_mode='floor')",
]
EXACT_BINARY = [
    "torch.maximum({}, {})",
    "torch.minimum({}, {})",
    "torch.fmax({}, {})",
    "torch.fmin({}, {})",
    "{} < {}",
    "{} >= {}",
    "{} != {}",
    "torch.eq({}, {})",
    "torch.logical_and({}, {})",
    "torch.logical_xor({}, {})",
    "torch.copysign({}, torch.nan_to_num({}))",
    "torch.heaviside({}, {})",
]


def fill(template: str, *operands: str) -> str:
    return template.format(*operands) if "{}" in template else f"{template}({', '.join(operands)})"


@makes(10)
def unary(b: Builder, result: str) -> Step:
    x = b.floating()
    template = b.random.choice(UNARY + UNARY_CALLS)
    if "gelu" in template and not b.is_finite(x):
        raise Unfit  # of infinity PyTorch's kernels for CPUs give NaN
    # Of terms that cancel some keep more digits, by one rounding where there are two.
    cancels = any(name in template for name in ("logit", "rsub", "0.3"))
    rounding = "as operand" if "gelu" in template else "accumulates" if cancels else "rounds"
    return step(result, fill(template.replace("{0}", x), x), x, rounding=rounding)


@makes(4)
def exact_unary(b: Builder, result: str) -> Step:
    x = b.floating()
    template = b.random.choice(EXACT_UNARY + EXACT_CALLS)
    return step(result, fill(template.replace("{0}", x), x), x, rounding="exact")


@makes(10)
def binary(b: Builder, result: str) -> Step:
    x = b.floating()
    y = b.partner(x, mixed=b.random.random() < 0.15)
    if b.random.random() < 0.3:
        x, y = y, x
    template = b.random.choice(BINARY)
    is_whole = "rounding_mode" in template or "floor_divide" in template
    rounding = "whole" if is_whole else "accumulates" if "logaddexp" in template else "rounds"
    return step(result, fill(template, x, y), x, y, rounding=rounding)


@makes(4)
def exact_binary(b: Builder, result: str) -> Step:
    x = b.floating()
    y = b.partner(x, mixed=b.random.random() < 0.15)
    template = b.random.choice(EXACT_BINARY)
    rounding = "picks" if template in EXACT_BINARY[:4] else "exact"
    return step(result, fill(template, x, y), x, y, rounding=rounding)


@makes(3)
def integers(b: Builder, result: str) -> Step:
    x = b.integer()
    y = b.partner(x, mixed=b.random.random() < 0.3)
    template = b.random.choice(
        [
            "{} + {}",
            "{} - {}",
            "{} * {}",
            "{} & {}",
            "{} | {}",
            "{} ^ {}",
            "{} < {}",
            "{} == {}",
            "torch.maximum({}, {})",
            "{} // ({} * 2 + 1)",
            "{} % ({} * 2 + 1)",
            "torch.fmod({}, {} * 2 + 1)",
            "torch.div({}, {} * 2 + 1, rounding_mode='trunc')",
            "{} << ({} & 7)",
            "{} >> ({} & 7)",
            "torch.add({}, {}, alpha=3)",
            "torch.bitwise_or({}, {})",
            "torch.abs({}) + 0 * {}",
            "~{} - {}",
            "torch.clamp({}, -2, 3) * {}",
            "torch.sign({}) * {}",
            "torch.square({}) + {}",
        ]
    )
    rounding = "accumulates" if b.of(y).is_floating_point() else "exact"
    return step(result, fill(template, x, y), x, y, rounding=rounding)


@makes(1)
def integers_divided(b: Builder, result: str) -> Step:
    x = b.integer()
    y = b.partner(x)
    template = b.random.choice(
        ["{} / {}", "torch.sqrt({0}.abs())", "torch.exp({0})", "{0}.sum(-1) / 3", "{0} * 0.5"]
    )
    return step(result, template.replace("{}", "{0}", 1).replace("{}", "{1}").format(x, y), x, y)


@makes(1)
def booleans(b: Builder, result: str) -> Step:
    x = b.bool()
    y = b.partner(x, mixed=b.random.random() < 0.5)
    template = b.random.choice(
        ["{} & {}", "{} | {}", "{} ^ {}", "{} + {}", "{} * {}", "{} == {}", "~{} | {}", "{} < {}"]
    )
    return step(result, fill(template, x, y), x, y, rounding="exact")


@makes(3)
def cast(b: Builder, result: str) -> Step:
    x = b.pick()
    dtype = b.random.choice(
        ["float32", b.float_dtype, "float16", "float64", "int64", "int32", "bool"]
    )
    if b.of(x).is_floating_point() and dtype.startswith("int"):
        return step(
            result, f"torch.nan_to_num({x}).clamp(-50, 50).to(torch.{dtype})", x, rounding="exact"
        )
    return step(result, f"{x}.to(torch.{dtype})", x, rounding="exact")


@makes(3)
def ternary(b: Builder, result: str) -> Step:
    x = b.floating()
    y, z = b.partner(x), b.partner(x)
    template, rounding = b.random.choice(
        [
            ("torch.where({0} > 0, {1}, {2})", "exact"),
            ("torch.where({0} < {1}, {2}, 0.5)", "exact"),
            ("torch.lerp({0}, {1}, {2})", "accumulates"),
            ("functional.tanhshrink({0}) * {1} - {2}", "accumulates"),
            ("torch.lerp({0}, {1}, 0.3)", "accumulates"),
            ("torch.addcmul({0}, {1}, {2}, value=0.5)", "accumulates"),
            ("torch.addcdiv({0}, {1}, {2})", "accumulates"),
            ("torch.clamp({0}, {1}, {2})", "picks"),
            ("{0}.masked_fill({1} > 0, -1)", "exact"),
            ("{0}.masked_fill({1} > 0, float('-inf'))", "exact"),
        ]
    )
    return step(result, template.format(x, y, z), x, y, z, rounding=rounding)


# Reductions, scans, normalisations


def _some_dims(b: Builder, x: str) -> str:
    rank = b.of(x).dim()
    if b.random.random() < 0.6 or rank < 2:
        return str(b.dim(x))
    count = b.random.randint(1, rank)
    return str(tuple(b.random.sample(range(rank), count)))


@makes(6)
def reduce(b: Builder, result: str) -> Step:
    x = b.floating(1)
    keep = b.random.choice((True, False))
    template, rounding = b.random.choice(
        [
            ("{x}.sum({d}, keepdim={k})", "accumulates"),
            ("{x}.mean({d}, keepdim={k})", "accumulates"),
            ("{x}.amax({d}, keepdim={k})", "picks"),
            ("{x}.amin({d}, keepdim={k})", "picks"),
            ("{x}.var({d}, keepdim={k})", "accumulates"),
            ("{x}.std({d}, correction=0, keepdim={k})", "accumulates"),
            ("torch.logsumexp({x}, {d}, keepdim={k})", "accumulates"),
            ("torch.linalg.vector_norm({x}, 2, {d}, keepdim={k})", "accumulates"),
            ("torch.linalg.vector_norm({x}, 1, {d}, keepdim={k})", "accumulates"),
            ("torch.linalg.vector_norm({x}, float('inf'), {d}, keepdim={k})", "exact"),
            ("torch.nansum({x}, {d}, keepdim={k})", "accumulates"),
            ("torch.count_nonzero({x}, {d})", "exact"),
            ("{x}.sum()", "accumulates"),
            ("{x}.mean()", "accumulates"),
            ("{x}.max()", "picks"),
            ("{x}.sum({d}, dtype=torch.float32)", "accumulates"),
        ]
    )
    return step(result, template.format(x=x, d=_some_dims(b, x), k=keep), x, rounding=rounding)


@makes(3)
def reduce_one(b: Builder, result: str) -> Step:
    x = b.floating(1)
    template, rounding = b.random.choice(
        [
            ("{x}.prod({d}, keepdim={k})", "accumulates"),
            ("{x}.max({d}, keepdim={k}).values", "picks"),
            ("{x}.min({d}, keepdim={k}).indices", "exact"),
            ("{x}.argmax({d}, keepdim={k})", "exact"),
            ("{x}.argmin({d}, keepdim={k})", "exact"),
            ("torch.any({x} > 0, {d}, keepdim={k})", "exact"),
            ("torch.all({x} > 0, {d}, keepdim={k})", "exact"),
            ("{x}.cumsum({d})", "accumulates"),
            ("{x}.cumprod({d})", "accumulates"),
            ("{x}.cummax({d}).values", "picks"),
            ("{x}.cummin({d}).indices", "exact"),
            ("{x}.softmax({d})", "accumulates"),
            ("{x}.log_softmax({d})", "accumulates"),
            ("functional.softmin({x}, {d})", "accumulates"),
            ("functional.normalize({x}, dim={d})", "accumulates"),
            ("functional.glu({x}, {d})", "rounds"),
            ("torch.sort({x}, {d}, stable=True).values", "exact"),
            ("torch.sort({x}, {d}, descending=True, stable=True).indices", "exact"),
            ("torch.topk({x}, 1, {d}).values", "picks"),
            ("torch.diff({x}, dim={d})", "rounds"),
            ("torch.logcumsumexp({x}, {d})", "accumulates"),
            ("{x}.contiguous().median({d}, keepdim={k}).values", "exact"),
        ]
    )
    keep = b.random.choice((True, False))
    return step(result, template.format(x=x, d=b.dim(x), k=keep), x, rounding=rounding)


@makes(2)
def reduce_integers(b: Builder, result: str) -> Step:
    x = b.pick(lambda x: not x.is_floating_point() and x.dim() > 0)
    template = b.random.choice(
        [
            "{x}.sum({d})",
            "{x}.amax({d})",
            "{x}.prod({d})",
            "{x}.cumsum({d})",
            "torch.any({x}, {d})",
            "torch.all({x}, {d})",
            "{x}.argmax({d})",
            "{x}.to(torch.int32).sum({d}, dtype=torch.int32)",
            "torch.sort({x}, {d}, stable=True).indices",
        ]
    )
    return step(result, template.format(x=x, d=b.dim(x)), x, rounding="exact")


@makes(4)
def normalise(b: Builder, result: str) -> Step:
    x = b.floating(1)
    tensor = b.of(x)
    kind = b.random.choice(("layer", "layer", "rms", "group", "instance", "batch"))
    if kind in ("layer", "rms"):
        if not b.is_fixed(x, -1):
            raise Unfit
        w = b.weights(tensor.shape[-1:], tensor.dtype)
        shape = f"({tensor.shape[-1]},)"
        if kind == "rms":
            return step(
                result, f"functional.rms_norm({x}, {shape}, {w})", x, w, rounding="accumulates"
            )
        bias = b.weights(tensor.shape[-1:], tensor.dtype)
        call = f"functional.layer_norm({x}, {shape}, {w}, {bias})"
        return step(result, call, x, w, bias, rounding="accumulates")
    if tensor.dim() < 2 or not b.is_fixed(x, 1):
        raise Unfit
    channels = tensor.shape[1]
    if kind == "instance":
        return step(result, f"functional.instance_norm({x})", x, rounding="accumulates")
    w, bias = (b.weights((channels,), tensor.dtype) for _ in range(2))
    if kind == "group":
        groups = b.random.choice([n for n in range(1, channels + 1) if channels % n == 0])
        call = f"functional.group_norm({x}, {groups}, {w}, {bias})"
        return step(result, call, x, w, bias, rounding="accumulates")
    mean, variance = (b.weights((channels,), tensor.dtype) for _ in range(2))
    call = f"functional.batch_norm({x}, {mean}, {variance}.abs() + 0.1, {w}, {bias})"
    return step(result, call, x, w, bias, mean, variance, rounding="accumulates")


# Contractions


@makes(4)
def linear(b: Builder, result: str) -> Step:
    x = b.floating(1)
    tensor = b.of(x)
    if not b.is_fixed(x, -1):
        raise Unfit
    inner, outer = tensor.shape[-1], b.random.choice((1, 2, 3, 5, 8, 16, 33))
    bias = b.random.random() < 0.5
    if b.random.random() < 0.5:
        w = b.weights((outer, inner), tensor.dtype)
        names = [w, b.weights((outer,), tensor.dtype)] if bias else [w]
        call = f"functional.linear({', '.join([x, *names])})"
        return step(result, call, x, *names, rounding="accumulates")
    w = b.weights((inner, outer), tensor.dtype)
    return step(result, f"{x} @ {w}", x, w, rounding="accumulates")


@makes(4)
def matmul(b: Builder, result: str) -> Step:
    x = b.floating(2)
    dtype = b.of(x).dtype
    y = b.pick(lambda y: y.dtype == dtype and y.dim() >= 1)
    template = b.random.choice(
        [
            "{0} @ {1}",
            "{0} @ {1}.transpose(-1, -2)",
            "{0}.transpose(-1, -2) @ {1}",
            "{0} @ {0}.mT",
            "{0}.mT @ {0}",
            "torch.einsum('...ij,...kj->...ik', {0}, {1})",
            "torch.einsum('...ij,...ij->...i', {0}, {1})",
            "torch.einsum('ij,kl->ijkl', {0}, {1})",
            "torch.outer({0}[0], {1}.flatten())",
            "torch.matmul({0}, {1}.flatten()[:{0}.shape[-1]])",
            "functional.scaled_dot_product_attention({0}, {0}, {0})",
            "functional.scaled_dot_product_attention({0}, {1}, {1})",
            "functional.scaled_dot_product_attention({0}, {1}, {1}, is_causal=True)",
            "torch.addmm({1}, {0}, {0}.mT, alpha=0.5, beta=2)",
            "torch.baddbmm({1}, {0}, {0}.mT)",
            "torch.cdist({0}, {1})",
            "functional.cosine_similarity({0}, {1}, -1)",
        ]
    )
    if "causal" in template and not (b.is_finite(x) and b.is_finite(y)):
        raise Unfit  # of masked NaN one of PyTorch's kernels makes NaN, and another does not
    return step(result, template.format(x, y), x, y, rounding="accumulates")


@makes(4)
def convolution(b: Builder, result: str) -> Step:
    x = b.floating(3, 5)
    tensor, rank = b.of(x), b.of(x).dim() - 2
    # PyTorch's kernels multiply what is outside of a window by zero, which makes NaN of infinity.
    if not b.is_finite(x) or not b.is_fixed(x, 1) or not b.of(x).shape[1]:
        raise Unfit
    channels = tensor.shape[1]
    groups = b.random.choice([1, 1, channels] + [n for n in (2, 4) if channels % n == 0])
    out = groups * b.random.choice((1, 2, 3, 8))
    kernel = [b.random.choice((1, 2, 3, 3)) for _ in range(rank)]
    options = f"groups={groups}"
    transposed = b.random.random() < 0.25
    for name, low, high in (("stride", 1, 2), ("padding", 0, 2), ("dilation", 1, 2)):
        chosen = tuple(b.random.randint(low, high) for _ in range(rank))
        if b.random.random() < 0.4:
            options += f", {name}={chosen}"
    shape = (channels, out // groups, *kernel) if transposed else (out, channels // groups, *kernel)
    names = [b.weights(shape, tensor.dtype)]
    if b.random.random() < 0.6:
        names.append(b.weights((out,), tensor.dtype))
    function = f"functional.conv{'_transpose' if transposed else ''}{rank}d"
    call = f"{function}({', '.join([x, *names])}, {options})"
    return step(result, call, x, *names, rounding="accumulates")


@makes(3)
def pool(b: Builder, result: str) -> Step:
    x = b.floating(2, 5)
    rank = b.random.choice([n for n in (1, 2, 3) if b.of(x).dim() in (n + 1, n + 2)] or [2])
    kernel = tuple(b.random.randint(1, 3) for _ in range(rank))
    stride = tuple(b.random.randint(1, 3) for _ in range(rank))
    half = tuple(size // 2 for size in kernel)
    ceil = b.random.choice((True, False))
    template, rounding = b.random.choice(
        [
            ("functional.max_pool{n}d({x}, {k}, {s}, {p}, ceil_mode={c})", "picks"),
            ("functional.avg_pool{n}d({x}, {k}, {s}, {p}, ceil_mode={c})", "accumulates"),
            (
                "functional.avg_pool{n}d({x}, {k}, {s}, {p}, {c}, count_include_pad=False)",
                "accumulates",
            ),
            ("functional.adaptive_avg_pool{n}d({x}, {s})", "accumulates"),
            ("functional.adaptive_max_pool{n}d({x}, {s})", "picks"),
            ("functional.interpolate({x}, scale_factor=2, mode='nearest')", "exact"),
            (
                "functional.interpolate({x}, scale_factor=1.5, mode='bilinear', align_corners={c})",
                "accumulates",
            ),
            ("functional.interpolate({x}, size={k}, mode='bicubic')", "accumulates"),
            ("functional.interpolate({x}, size={k}, mode='linear')", "accumulates"),
            ("functional.pixel_shuffle({x}, 2)", "exact"),
            ("functional.pixel_unshuffle({x}, 2)", "exact"),
            ("functional.unfold({x}, 2)", "exact"),
            ("functional.local_response_norm({x}, 2)", "accumulates"),
            ("functional.grid_sample({x}, {x}.flatten(2)[..., :2].unsqueeze(1))", "accumulates"),
        ]
    )
    call = template.format(n=rank, x=x, k=kernel, s=stride, p=half, c=ceil)
    return step(result, call, x, rounding=rounding)


# Movement

MOVES = [
    "{x}.flatten()",
    "{x}.flatten({d})",
    "{x}.flatten(0, {d})",
    "{x}.reshape(-1)",
    "{x}.reshape({x}.shape[0], -1)",
    "{x}.reshape(-1, {x}.shape[-1])",
    "{x}.unsqueeze({d})",
    "{x}.squeeze({d})",
    "{x}.squeeze()",
    "{x}.transpose({d}, {e})",
    "{x}.transpose({d}, {e}).contiguous()",
    "{x}.transpose({d}, {e}).flatten(0, 1)",
    "{x}.movedim({d}, {e})",
    "{x}.flip({d})",
    "{x}.flip({d}, {e})",
    "{x}.roll({i}, {d})",
    "{x}.roll(({i}, 1), ({d}, {e}))",
    "torch.narrow({x}, {d}, 0, 1)",
    "{x}.select({d}, 0)",
    "{x}.select({d}, -1)",
    "{x}[..., {i}:]",
    "{x}[..., :-{i}]",
    "{x}[..., ::2]",
    "{x}[{i}:]",
    "{x}[:, {i}:]",
    "{x}[-{i}:]",
    "{x}[..., None, :]",
    "{x}[None]",
    "{x}.chunk(2, {d})[{b}]",
    "{x}.split({i}, {d})[0]",
    "{x}.split({i}, {d})[-1]",
    "torch.tensor_split({x}, 3, {d})[{b}]",
    "{x}.unbind({d})[-1]",
    "{x}.repeat({i}, *[1] * ({x}.dim() - 1))",
    "{x}.tile({i})",
    "{x}.repeat_interleave({i}, {d})",
    "{x}.expand({i}, *{x}.shape)",
    "{x}.unsqueeze(0).expand({i}, *{x}.shape)",
    "{x}.unsqueeze(-1).expand(*{x}.shape, {i})",
    "{x}.tril({b})",
    "{x}.triu({i})",
    "{x}.diagonal(0, {d}, {e})",
    "torch.diag_embed({x})",
    "{x}.unfold({d}, {i}, 1)",
    "{x}.unfold({d}, 2, 2)",
    "functional.pad({x}, (1, {i}))",
    "functional.pad({x}, ({i}, 0, 0, 1), value=2)",
    "functional.pad({x}, (-1, {i}))",
    "functional.pad({x}, (1, 1), mode='reflect')",
    "functional.pad({x}, (1, {i}), mode='replicate')",
    "functional.pad({x}, ({i}, 1), mode='circular')",
    "functional.pad({x}, ({i}, 1, 1, 1), mode='replicate')",
    "torch.zeros_like({x})",
    "torch.full_like({x}, 0.5)",
    "torch.ones({x}.shape[{d}], {x}.shape[{e}])",
    "torch.arange({x}.shape[{d}])",
    "torch.arange({x}.shape[{d}], dtype=torch.float32)",
    "{x}.rot90(1, ({d}, {e}))",
    "{x}.permute(*range({x}.dim() - 1, -1, -1))",
    "torch.atleast_3d({x})",
    "{x}.swapaxes({d}, {e}).reshape(-1)",
    "torch.stack(torch.meshgrid({x}.flatten(), {x}.flatten()[:2], indexing='ij'))",
]


@makes(16)
def move(b: Builder, result: str) -> Step:
    x = b.pick(lambda x: x.dim() > 0)
    template = b.random.choice(MOVES)
    call = template.format(
        x=x, d=b.dim(x), e=b.dim(x), i=b.random.randint(1, 3), b=b.random.randint(0, 1)
    )
    return step(result, call, x, rounding="exact")


@makes(0.3)
def linspace(b: Builder, result: str) -> Step:
    x = b.pick(lambda x: x.dim() > 0)
    # Not around zero, where what is left of terms that cancel is rounding alone.
    return step(result, f"torch.linspace(1, 3, {x}.shape[{b.dim(x)}])", x)


@makes(2)
def unflatten(b: Builder, result: str) -> Step:
    x = b.pick(lambda x: x.dim() > 0)
    dim = b.dim(x)
    if not b.is_fixed(x, dim):
        return step(result, f"{x}.unflatten({dim}, (-1, 1))", x, rounding="exact")
    size = b.of(x).shape[dim]
    factors = [n for n in range(1, size + 1) if size % n == 0]
    if not factors:
        raise Unfit
    shape = b.random.choice((f"({b.random.choice(factors)}, -1)", f"(-1, {factors[-1]})"))
    return step(result, f"{x}.unflatten({dim}, {shape})", x, rounding="exact")


@makes(6)
def join(b: Builder, result: str) -> Step:
    x = b.pick(lambda x: x.dim() > 0)
    dtype, rank = b.of(x).dtype, b.of(x).dim()
    others = [b.pick(lambda y: y.dtype == dtype and y.dim() == rank) for _ in range(2)]
    template = b.random.choice(
        [
            "torch.cat([{0}, {1}], {d})",
            "torch.cat([{1}, {0}, {2}], {d})",
            "torch.stack([{0}, {1}], {d})",
            "torch.cat([{0}, {0}.flip({d})], {d})",
            "torch.cat([{0}[..., :1], {0}, {0}[..., -1:]], -1)",
            "torch.stack([{0}, {0} * 2, {0}], {d})",
            "torch.cat([{0}.flatten(), {1}.flatten()])",
        ]
    )
    call = template.format(x, *others, d=b.dim(x))
    return step(result, call, x, *others, rounding="exact")


@makes(5)
def index(b: Builder, result: str) -> Step:
    x = b.pick(lambda x: x.dim() > 0)
    i = b.pick(lambda i: i.dtype in (torch.int64, torch.int32))
    at = f"({i}.long() % max({x}.shape[{{d}}], 1))"
    template = b.random.choice(
        [
            "{x}[{a0}]",
            "{x}.index_select({d}, {a}.flatten())",
            "torch.take_along_dim({x}, {a}, {d})",
            "torch.gather({x}, {d}, {a})",
            "{x}[..., {a1}]",
            "functional.embedding({a0}, {x})",
            "functional.one_hot({a}, {x}.shape[{d}])",
            "{x}.index_fill({d}, {a}.flatten(), 2)",
            "{x}.scatter({d}, {a}, 1)",
            "{x}.scatter({d}, {a}, {x})",
            "{x}.scatter_add({d}, {a}, {x})",
            "{x}.index_add({d}, {a}.flatten()[:{x}.shape[{d}]], {x})",
            "{x}[:, {a1}]",
            "torch.isin({i}, {i}.flatten()[:3])",
            "torch.bucketize({x}, torch.nan_to_num({x}).flatten().sort().values)",
            "{x}.index_put(({a0},), {x}[0])",
        ]
    )
    dim = b.dim(x)
    call = template.format(
        x=x, d=dim, a=at.format(d=dim), a0=at.format(d=0), a1=at.format(d=-1), i=i
    )
    rounding = "accumulates" if "add" in template else "exact"
    return step(result, call, x, i, rounding=rounding)


# Writes to a copy

WRITES = [
    "{r}[..., 0] = 1",
    "{r}[..., 1:] += 1",
    "{r}[:1] *= 2",
    "{r}[0] = {r}[-1]",
    "{r}.transpose({d}, {e})[0] = 0",
    "{r}.add_(1)",
    "{r}.flatten()[0] = 3",
    "{r}.select({d}, 0).zero_()",
    "{r}.narrow({d}, 0, 1).fill_(2)",
    "{r}.clamp_(-0.5, 0.5)",
    "{r}[..., ::2] = {r}[..., :1]",
    "{r}.masked_fill_({r} > 0, 0)",
    "{r}.diagonal(0, {d}, {e}).add_(1)",
    "{r}[{r} > 0.5] = 0",
    "{r}.unsqueeze(0)[..., -1:].copy_({r}[..., :1].unsqueeze(0))",
]


@makes(3)
def write(b: Builder, result: str) -> Step:
    x = b.pick(lambda x: x.dim() > 0)
    line = b.random.choice(WRITES).format(r=result, d=b.dim(x), e=b.dim(x))
    return Step(result, f"{result} = {x}.clone()\n{line}", (x,), "rounds")


# Complex numbers, transforms and small matrices


FOURIER = [
    "torch.fft.rfft({x}).abs()",
    "torch.view_as_real(torch.fft.fft({x}))",
    "torch.fft.irfft(torch.complex({x}, -{x}))",
    "torch.fft.fft(torch.complex({x}, {x} * 2), norm='ortho').imag",
    "torch.fft.rfft({x}, n=9).real",
    "torch.fft.ifft({x}).real",
]
COMPLEX = [
    "torch.view_as_real(torch.complex({x}, {y}) * torch.complex({x}, {y}))",
    "torch.view_as_real(torch.complex({x}, {y}).conj() + {x})",
    "(torch.complex({x}, {y}) / torch.complex({y}.abs() + 1, {x})).real",
    "torch.complex({x}, {y}).abs()",
    "torch.polar({x}.abs(), {y}).imag",
    "torch.view_as_real(torch.complex({x}, {y}).transpose(-1, 0)).sum(-1)",
]


def _single(b: Builder, x: str) -> str:
    """A value that transforms take, by a step of its own: of 32 or 64 bits, and finite."""
    wide = x if b.of(x).dtype == torch.float64 else f"{x}.float()"
    return b.before(f"torch.nan_to_num({wide}).clamp(-50, 50)", x)


@makes(1)
def fourier(b: Builder, result: str) -> Step:
    x = b.floating(1)
    if not b.is_fixed(x, -1) or b.of(x).shape[-1] < 2:
        raise Unfit
    x = _single(b, x)
    call = b.random.choice(FOURIER).format(x=x)
    return step(result, call, x, rounding="accumulates")


@makes(1)
def complex_numbers(b: Builder, result: str) -> Step:
    x = b.floating(1)
    y = b.partner(x)
    if x == y:
        raise Unfit  # terms that cancel to nothing but rounding
    x, y = _single(b, x), _single(b, y)
    call = b.random.choice(COMPLEX).format(x=x, y=y)
    return step(result, call, x, y, rounding="accumulates")


@makes(0.5)
def small_matrices(b: Builder, result: str) -> Step:
    x = b.floating(2)
    if not b.is_fixed(x, -1) or not 1 <= (size := b.of(x).shape[-1]) <= 8:
        raise Unfit
    # Well conditioned whatever the values are.
    x = _single(b, x)
    rows = f"torch.tanh({x})"
    square = f"({rows}.mT @ {rows} + {rows}.shape[-2] * torch.eye({size}, dtype={rows}.dtype) + torch.eye({size}))"
    call = b.random.choice(
        [
            f"torch.linalg.inv({square})",
            f"torch.linalg.cholesky({square}) + 0.0",  # LAPACK's zeros have either sign
            f"torch.linalg.solve({square}, {rows}.mT)",
            f"torch.linalg.solve_triangular({square}, {rows}.mT, upper=False)",
        ]
    )
    return step(result, call, x, rounding="accumulates")


@makes(0.5)
def antialiased(b: Builder, result: str) -> Step:
    x = b.floating(4, 4)
    if not all(b.is_fixed(x, dim) for dim in (2, 3)):
        raise Unfit
    # One column of bicubic: PyTorch reads rows of images in another order than they have.
    size = (b.random.randint(1, 9), b.random.randint(2, 9))
    mode = b.random.choice(("bilinear", "bicubic"))
    x = _single(b, x)
    call = f"functional.interpolate({x}, {size}, mode='{mode}', antialias=True)"
    return step(result, call, x, rounding="accumulates")


@makes(0.5)
def histogram(b: Builder, result: str) -> Step:
    x = b.floating(1)
    return step(result, f"torch.histc({x}.round().float(), 5, -2, 2)", x, rounding="exact")
