"""The table of cases, by family. Inputs are drawn once, with a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as fn
from case import Case

_generator = torch.Generator().manual_seed(0)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def rand(
    *shape: int, dtype: torch.dtype = torch.float32, low: float = -3, high: float = 3
) -> torch.Tensor:
    values = torch.rand(shape, generator=_generator, dtype=torch.float64) * (high - low) + low
    return values.to(dtype)


def ints(
    *shape: int, low: int = -9, high: int = 10, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    low = max(low, 0) if dtype == torch.uint8 else low
    return torch.randint(low, high, shape, generator=_generator).to(dtype)


def bools(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=_generator).bool()


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Family:
    """Collects cases under distinct names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Case] = []

    def add(self, name: str, function: Callable[..., Any], *inputs: torch.Tensor) -> None:
        label = f"{self.name}-{name}"
        count = sum(case.name.split("#")[0] == label for case in self.cases)
        self.cases.append(Case(f"{label}#{count}" if count else label, function, inputs))


SPECIAL = torch.tensor(
    [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, float("inf"), -float("inf"), float("nan")]
)


def unary() -> Family:
    family = Family("unary")
    names = [
        "neg",
        "abs",
        "sign",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "tanh",
        "erf",
        "erfc",
        "sigmoid",
        "relu",
        "square",
        "floor",
        "ceil",
        "round",
        "trunc",
        "frac",
        "isnan",
        "isinf",
        "isfinite",
        "logical_not",
        "nan_to_num",
        "logit",
        "isposinf",
        "isneginf",
        "sgn",
    ]
    positive = {"log", "log2", "log10", "sqrt", "rsqrt", "acosh"}
    for name in names:
        function = getattr(torch, name)
        low = 1.01 if name == "acosh" else 0.01 if name in positive else -0.95
        high = 0.95 if name in {"asin", "acos", "atanh"} else 3
        low = -3 if name not in positive | {"asin", "acos", "atanh", "log1p"} else low
        low, high = (0.05, 0.95) if name == "logit" else (low, high)
        for dtype in FLOATS:
            family.add(
                f"{name}-{short(dtype)}", function, rand(3, 5, dtype=dtype, low=low, high=high)
            )
        family.add(f"{name}-special", function, SPECIAL)
        if name not in {"frac", "nan_to_num", "logit", "isposinf", "isneginf"}:
            family.add(f"{name}-int", function, ints(4, 3, low=1))
    for dtype in INTEGERS:
        family.add(f"bitwise_not-{short(dtype)}", torch.bitwise_not, ints(7, dtype=dtype))
        family.add(f"abs-{short(dtype)}", torch.abs, ints(7, dtype=dtype))
        family.add(f"neg-{short(dtype)}", torch.neg, ints(7, dtype=dtype))
    family.add("bitwise_not-bool", torch.bitwise_not, bools(6))
    family.add("logical_not-bool", torch.logical_not, bools(6))
    family.add("round-decimals", lambda x: torch.round(x, decimals=2), rand(9))
    return family


def binary() -> Family:
    family = Family("binary")
    arithmetic = [
        torch.add,
        torch.sub,
        torch.mul,
        torch.div,
        torch.maximum,
        torch.minimum,
        torch.fmod,
        torch.remainder,
    ]
    for function in arithmetic:
        name = function.__name__
        for dtype in FLOATS:
            family.add(
                f"{name}-{short(dtype)}",
                function,
                rand(3, 1, 4, dtype=dtype),
                rand(2, 4, dtype=dtype),
            )
        for dtype in INTEGERS:
            family.add(
                f"{name}-{short(dtype)}",
                function,
                ints(5, 3, dtype=dtype),
                ints(3, low=1, dtype=dtype),
            )
        family.add(f"{name}-negative-divisor", function, ints(6, 4), -ints(4, low=1))
        if name not in {"maximum", "minimum"}:
            family.add(f"{name}-float-scalar", lambda x, f=function: f(x, 2.5), rand(4))
            family.add(f"{name}-int-tensor-float-scalar", lambda x, f=function: f(x, 2.5), ints(4))
            family.add(
                f"{name}-half-scalar", lambda x, f=function: f(x, 2), rand(4, dtype=torch.float16)
            )
        family.add(f"{name}-mixed", function, ints(4), rand(3, 4))
        family.add(f"{name}-zero-dim", function, rand(4, dtype=torch.float16), torch.tensor(2.0))
        family.add(
            f"{name}-zero-dim-double", function, rand(4), torch.tensor(2.0, dtype=torch.float64)
        )
        family.add(f"{name}-zero-dim-int", function, ints(4, dtype=torch.int32), torch.tensor(3))
        family.add(
            f"{name}-half-types",
            function,
            rand(4, dtype=torch.float16),
            rand(4, dtype=torch.bfloat16),
        )
        family.add(
            f"{name}-u8-i8", function, ints(4, dtype=torch.uint8), ints(4, low=1, dtype=torch.int8)
        )
    for mode in ("floor", "trunc"):
        for x, y in (
            (rand(20), rand(20)),
            (ints(20), ints(20, low=1)),
            (ints(20), -ints(20, low=1)),
        ):
            family.add(f"div-{mode}", lambda a, b, m=mode: torch.div(a, b, rounding_mode=m), x, y)
    family.add("floor_divide", torch.floor_divide, ints(9), torch.tensor(-4))
    family.add("floor_divide-scalar", lambda x: x // 3, ints(9))
    family.add("add-alpha", lambda x, y: torch.add(x, y, alpha=3), rand(4), rand(4))
    family.add("sub-alpha", lambda x, y: torch.sub(x, y, alpha=2), ints(4), ints(4))
    family.add("rsub", lambda x: 3 - x, rand(4))
    family.add("rsub-int", lambda x: 3 - x, ints(4))
    family.add("rdiv", lambda x: 2 / x, ints(4, low=1))
    family.add("add-bool", torch.add, bools(5), bools(5))
    family.add("mul-bool", torch.mul, bools(5), bools(5))
    family.add("add-bool-int", lambda x: x + 1, bools(5))
    for exponent in (0, 1, 2, 3, 4, 0.5, -0.5, -1, -2, 2.5):
        family.add(f"pow-{exponent}", lambda x, e=exponent: x**e, rand(6, low=0.1))
    family.add("pow-int", lambda x: x**3, ints(6))
    family.add("square-bool", torch.square, bools(5))
    family.add("pow-int-float", lambda x: x**2.5, ints(6, low=1))
    family.add("pow-tensor", torch.pow, rand(6, low=0.1), rand(6))
    family.add("pow-base", lambda x: 2**x, rand(6))
    family.add("pow-base-int", lambda x: 2**x, ints(6, low=0))
    signs = SPECIAL[:-1]  # a NaN has a sign, which engines do not keep
    for dtype in FLOATS:
        family.add(f"signbit-{short(dtype)}", torch.signbit, signs.to(dtype))
        pair = (SPECIAL[:, None].to(dtype), signs.to(dtype))
        family.add(f"copysign-{short(dtype)}", torch.copysign, *pair)
    family.add("signbit-int64", torch.signbit, ints(10))
    family.add("signbit-bool", torch.signbit, bools(10))
    family.add("copysign-ints", torch.copysign, ints(10), ints(10))
    family.add("copysign-number", lambda t: torch.copysign(t, -0.0), rand(10))
    for name in ("atan2", "hypot", "logaddexp", "xlogy"):
        family.add(name, getattr(torch, name), rand(5, low=0.1), rand(5, low=0.1))
    family.add("atan2-quadrants", torch.atan2, rand(20), rand(20))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        function = getattr(torch, name)
        family.add(name, function, ints(3, 5), ints(5))
        family.add(f"{name}-mixed", function, ints(5), rand(5))
        family.add(f"{name}-scalar", lambda x, f=function: f(x, 0.5), ints(5))
        family.add(f"{name}-bool", function, bools(5), bools(5))
        family.add(f"{name}-nan", function, SPECIAL, SPECIAL.flip(0))
    for function in (torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor):
        name = function.__name__
        for dtype in INTEGERS:
            family.add(
                f"{name}-{short(dtype)}", function, ints(5, dtype=dtype), ints(5, dtype=dtype)
            )
        family.add(f"{name}-bool", function, bools(5), bools(5))
        family.add(f"{name}-scalar", lambda x, f=function: f(x, 6), ints(5))
    for dtype in INTEGERS:
        limits = torch.iinfo(dtype)
        x = torch.tensor([0, 1, 3, 100, limits.max, limits.min], dtype=dtype)
        # As many places as there are, more of them, and less than none.
        places = torch.tensor([0, 1, 3, limits.bits - 1, limits.bits, 127, limits.min], dtype=dtype)
        family.add(f"shifts-{short(dtype)}", lambda a, b: (a << b, a >> b), x[:, None], places)
    family.add(
        "shifts-mixed", lambda a, b: (a << b, a >> 2, 9 << b), ints(5), ints(5, dtype=torch.int8)
    )
    for name in ("logical_and", "logical_or", "logical_xor"):
        family.add(name, getattr(torch, name), ints(5), rand(5))
    family.add("operators", lambda x, y: ((x & y) | ~x) ^ y, bools(5), bools(5))
    family.add("maximum-nan", torch.maximum, SPECIAL, SPECIAL.flip(0))
    family.add("minimum-nan", torch.minimum, SPECIAL, SPECIAL.flip(0))
    return family


def ternary() -> Family:
    family = Family("ternary")
    family.add("where", torch.where, bools(3, 1), rand(4), rand(3, 4))
    family.add("where-mixed", torch.where, bools(4), ints(4), rand(4))
    family.add("where-scalar", lambda c, x: torch.where(c, x, 0.0), bools(4), ints(4))
    family.add("where-scalars", lambda c: torch.where(c, 1.0, 0.0), bools(4))
    family.add("clamp", lambda x: x.clamp(-1, 1), rand(9))
    family.add("clamp-int-by-float", lambda x: x.clamp(-1.5, 2.5), ints(9))
    family.add("clamp-min", lambda x: x.clamp(min=0.5), rand(9))
    family.add("clamp-max", lambda x: x.clamp_max(0.5), rand(9))
    family.add("clamp-tensor", torch.clamp, rand(3, 4), rand(4, high=-1), rand(4, low=1))
    family.add("clamp-nan", lambda x: x.clamp(-1, 1), SPECIAL)
    family.add(
        "addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.5), rand(4), rand(4), rand(4)
    )
    family.add(
        "addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=2), rand(4), rand(4), rand(4, low=1)
    )
    family.add("lerp", lambda x, y: torch.lerp(x, y, 0.3), rand(4), rand(4))
    family.add("lerp-tensor", torch.lerp, rand(4), rand(4), rand(4))
    family.add("masked_fill", lambda x, m: x.masked_fill(m, -1e9), rand(3, 4), bools(4))
    family.add("masked_fill-int", lambda x, m: x.masked_fill(m, 7), ints(3, 4), bools(3, 4))
    family.add("masked_fill-tensor", torch.masked_fill, rand(3, 4), bools(3, 4), torch.tensor(5.0))
    return family


def activation() -> Family:
    family = Family("activation")
    functions: dict[str, Callable[..., Any]] = {
        "relu": fn.relu,
        "relu6": fn.relu6,
        "gelu": fn.gelu,
        "gelu-tanh": lambda x: fn.gelu(x, approximate="tanh"),
        "silu": fn.silu,
        "mish": fn.mish,
        "elu": fn.elu,
        "elu-alpha": lambda x: fn.elu(x, 0.3),
        "celu": lambda x: fn.celu(x, 1.7),
        "selu": fn.selu,
        "leaky_relu": fn.leaky_relu,
        "hardtanh": fn.hardtanh,
        "hardswish": fn.hardswish,
        "hardsigmoid": fn.hardsigmoid,
        "softplus": fn.softplus,
        "softplus-beta": lambda x: fn.softplus(x, 2, 4),
        "logsigmoid": fn.logsigmoid,
        "softsign": fn.softsign,
        "tanhshrink": fn.tanhshrink,
        "hardshrink": fn.hardshrink,
        "softshrink": fn.softshrink,
        "threshold": lambda x: fn.threshold(x, 0.3, 9),
        "glu": fn.glu,
        "dropout": lambda x: fn.dropout(x, training=False),
        "native_dropout": lambda x: torch.native_dropout(x, 0.5, False),
        "native_dropout-none": lambda x: torch.native_dropout(x, 0.0, True),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }
    for name, function in functions.items():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            family.add(f"{name}-{short(dtype)}", function, rand(3, 10, dtype=dtype, low=-6, high=6))
        if name not in {"glu"}:
            # PyTorch's own vectorised gelu gives NaN for infinity.
            family.add(f"{name}-special", function, SPECIAL[:7] if name == "gelu" else SPECIAL)
    family.add("softplus-large", fn.softplus, torch.tensor([-100.0, 19.9, 20.1, 100.0]))
    family.add("prelu", fn.prelu, rand(2, 3, 4), rand(3))
    family.add("prelu-one", fn.prelu, rand(2, 3, 4), rand(1))
    family.add("prelu-vector", fn.prelu, rand(3), rand(1))
    family.add("prelu-scalar", fn.prelu, rand(), rand(1))
    return family


def reduce() -> Family:
    family = Family("reduce")
    for dtype in (*FLOATS, torch.int64, torch.int32, torch.uint8):
        make = rand if dtype.is_floating_point else ints
        name = short(dtype)
        x = make(2, 3, 4, dtype=dtype)
        family.add(f"sum-{name}", torch.sum, x)
        family.add(f"sum-dim-{name}", lambda t: t.sum(dim=(0, -1), keepdim=True), x)
        family.add(f"amax-{name}", lambda t: t.amax(dim=1), x)
        family.add(f"amin-{name}", lambda t: t.amin(dim=(0, 2)), x)
        family.add(f"max-dim-{name}", lambda t: torch.max(t, dim=1), x)
        family.add(f"min-dim-{name}", lambda t: torch.min(t, dim=-1, keepdim=True).values, x)
        family.add(f"argmax-{name}", lambda t: t.argmax(dim=2), x)
        family.add(f"argmin-{name}", lambda t: t.argmin(), x)
        family.add(f"cumsum-{name}", lambda t: t.cumsum(dim=1), x)
        family.add(f"prod-{name}", lambda t: t.prod(dim=1), make(2, 3, 4, low=1, dtype=dtype))
        if dtype.is_floating_point:
            family.add(f"mean-{name}", lambda t: t.mean(dim=(1, 2)), x)
            family.add(f"var-{name}", lambda t: t.var(dim=1), x)
            family.add(f"std-{name}", lambda t: t.std(dim=(0, 1), correction=0, keepdim=True), x)
            family.add(f"norm-{name}", lambda t: torch.linalg.vector_norm(t, dim=1), x)
            family.add(f"logsumexp-{name}", lambda t: t.logsumexp(dim=1), x)
    x = rand(2, 3, 4)
    family.add("sum-dtype", lambda t: t.sum(dtype=torch.float64), x)
    family.add("mean-all", torch.mean, x)
    family.add("mean-int-dtype", lambda t: t.mean(dim=0, dtype=torch.float32), ints(3, 4))
    family.add("sum-bool", torch.sum, bools(7))
    family.add("cumsum-bool", lambda t: t.cumsum(0), bools(7))
    family.add("max-all", torch.max, x)
    family.add("aminmax", lambda t: torch.aminmax(t, dim=1), x)
    family.add("var_mean", lambda t: torch.var_mean(t, dim=2), x)
    family.add("std_mean", lambda t: torch.std_mean(t), x)
    family.add("any", torch.any, bools(3, 4))
    family.add("any-dim", lambda t: t.any(dim=1), ints(3, 4, low=0, high=2))
    family.add("all-dim", lambda t: t.all(dim=0, keepdim=True), bools(3, 4))
    family.add("all-float", torch.all, rand(3))
    family.add("any-u8", torch.any, ints(4, dtype=torch.uint8))
    family.add("argmax-keepdim", lambda t: t.argmax(keepdim=True), x)
    family.add("argmax-ties", lambda t: t.argmax(dim=0), torch.tensor([1, 3, 3, 2]))
    family.add(
        "argmax-nan", lambda t: t.argmax(dim=0), torch.tensor([1, float("nan"), 3, float("nan")])
    )
    family.add("max-nan", lambda t: t.max(), torch.tensor([1, float("nan"), 3]))
    for order in (1, 2, 3, 0, float("inf"), -float("inf")):
        family.add(
            f"vector_norm-{order}", lambda t, o=order: torch.linalg.vector_norm(t, o, dim=(0, 1)), x
        )
    family.add("norm", lambda t: t.norm(dim=1), x)
    family.add("normalize", lambda t: fn.normalize(t, dim=1), x)
    family.add("logsumexp-all", lambda t: t.logsumexp(dim=(0, 1, 2), keepdim=True), x)
    family.add("count_nonzero", torch.count_nonzero, ints(3, 4, low=0, high=2))
    family.add("diff", lambda t: t.diff(dim=1), rand(3, 5))
    family.add("diff-twice", lambda t: t.diff(n=2), ints(3, 5))
    family.add("diff-prepend", lambda t, p: t.diff(dim=-1, prepend=p), ints(3, 5), ints(3, 1))
    family.add("diff-bool", lambda t: t.diff(), bools(6))
    family.add(
        "scalar",
        lambda t: (t.sum(), t.amax(), t.argmax(), t.cumsum(0), t.max(0)),
        torch.tensor(3.0),
    )
    return family


def normalise() -> Family:
    family = Family("normalise")
    for dtype in FLOATS:
        name = short(dtype)
        x = rand(2, 6, 4, 5, dtype=dtype)
        family.add(f"softmax-{name}", lambda t: t.softmax(dim=-1), x)
        family.add(f"softmax-axis-{name}", lambda t: t.softmax(dim=1), x)
        family.add(f"log_softmax-{name}", lambda t: t.log_softmax(dim=2), x)
        weights = rand(5, dtype=dtype), rand(5, dtype=dtype)
        family.add(f"layer_norm-{name}", lambda t, w, b: fn.layer_norm(t, (5,), w, b), x, *weights)
        family.add(f"layer_norm-plain-{name}", lambda t: fn.layer_norm(t, (4, 5), eps=1e-3), x)
        family.add(f"rms_norm-{name}", lambda t, w: fn.rms_norm(t, (5,), w, 1e-6), x, weights[0])
        family.add(f"rms_norm-default-{name}", lambda t: fn.rms_norm(t, (5,)), x)
        family.add(f"rms_norm-infinite-{name}", lambda t: fn.rms_norm(t / 0, (5,)), x)
        row = torch.tensor([[1.0, -torch.inf, 0.0, -2.0, 3.0]], dtype=x.dtype)
        family.add(f"rms_norm-of-an-infinity-{name}", lambda t: fn.rms_norm(t, (5,)), row)
        channels = [rand(6, dtype=dtype) for _ in range(3)] + [rand(6, dtype=dtype, low=0.5)]
        family.add(
            f"group_norm-{name}", lambda t, w, b: fn.group_norm(t, 3, w, b), x, *channels[:2]
        )
        family.add(f"instance_norm-{name}", lambda t: fn.instance_norm(t), x)
        family.add(
            f"batch_norm-{name}", lambda t, w, b, m, v: fn.batch_norm(t, m, v, w, b), x, *channels
        )
    family.add(
        "batch_norm-plain",
        lambda t, m, v: fn.batch_norm(t, m, v),
        rand(3, 4),
        rand(4),
        rand(4, low=0.5),
    )
    family.add(
        "softmax-dtype",
        lambda t: t.softmax(-1, dtype=torch.float32),
        rand(3, 4, dtype=torch.float16),
    )
    family.add("softmax-int", lambda t: t.softmax(-1, dtype=torch.float32), ints(3, 4))
    family.add(
        "softmax-masked",
        lambda t: t.softmax(-1),
        torch.tensor([[0.0, -float("inf"), 2.0], [1.0, 2.0, 3.0]]),
    )
    masked = torch.tensor([[-float("inf")] * 3, [1.0, -float("inf"), 2.0]])
    family.add("safe_softmax", lambda t: torch.ops.aten._safe_softmax(t, 1), masked)
    family.add("softmax-large", lambda t: t.softmax(-1), torch.tensor([1000.0, 1001.0, -1000.0]))
    norms_with_statistics(family)
    return family


def norms_with_statistics(family: Family) -> None:
    """Norms that give what they took off and multiplied by, and those over the batch."""
    aten = torch.ops.aten
    for dtype in (torch.float32, torch.float64):
        x, w, mean = rand(3, 4, 5, dtype=dtype), rand(4, dtype=dtype), rand(4, dtype=dtype)
        family.add(
            f"layer_norm-statistics-{short(dtype)}",
            lambda t: aten.native_layer_norm(t, (4, 5), None, None, 1e-5),
            x,
        )
        family.add(
            f"group_norm-statistics-{short(dtype)}",
            lambda t, w: aten.native_group_norm(t, w, None, 3, 4, 5, 2, 1e-5),
            x,
            w,
        )
        family.add(
            f"batch_norm-of-batch-{short(dtype)}",
            lambda t, w: aten._native_batch_norm_legit.no_stats(t, w, w, True, 0.1, 1e-5),
            x,
            w,
        )
        for training in (True, False):
            family.add(
                f"batch_norm-functional-{training}-{short(dtype)}",
                lambda t, w, m, k=training: aten._native_batch_norm_legit_functional(
                    t, w, None, m, m.abs() + 1, k, 0.3, 1e-5
                ),
                x,
                w,
                mean,
            )
    for shape in ((4, 3), (2, 3, 1), (2, 3, 4, 5, 2)):
        family.add(
            "batch_norm", lambda t: fn.batch_norm(t, None, None, training=True), rand(*shape)
        )


def contract() -> Family:
    family = Family("contract")
    for dtype in FLOATS:
        name = short(dtype)
        shapes = [
            ((3, 4), (4, 5)),
            ((2, 3, 4), (4, 5)),
            ((2, 3, 4), (2, 4, 5)),
            ((2, 1, 3, 4), (5, 4, 2)),
            ((4,), (4,)),
            ((3, 4), (4,)),
            ((4,), (4, 5)),
            ((2, 3, 4), (4,)),
            ((4,), (2, 4, 3)),
        ]
        for a, b in shapes:
            family.add(f"matmul-{name}", torch.matmul, rand(*a, dtype=dtype), rand(*b, dtype=dtype))
        family.add(f"bmm-{name}", torch.bmm, rand(2, 3, 4, dtype=dtype), rand(2, 4, 5, dtype=dtype))
        bias = rand(5, dtype=dtype)
        family.add(
            f"linear-{name}", fn.linear, rand(2, 3, 4, dtype=dtype), rand(5, 4, dtype=dtype), bias
        )
        family.add(f"linear-plain-{name}", fn.linear, rand(4, dtype=dtype), rand(5, 4, dtype=dtype))
        family.add(
            f"addmm-{name}", torch.addmm, bias, rand(3, 4, dtype=dtype), rand(4, 5, dtype=dtype)
        )
    a, b = rand(3, 4), rand(4, 5)
    family.add(
        "addmm-scaled", lambda c, x, y: torch.addmm(c, x, y, beta=0.5, alpha=2), rand(3, 5), a, b
    )
    family.add(
        "baddbmm",
        lambda c, x, y: torch.baddbmm(c, x, y, beta=2),
        rand(2, 3, 5),
        rand(2, 3, 4),
        rand(2, 4, 5),
    )
    family.add("addmv", torch.addmv, rand(3), a, rand(4))
    family.add("mv", torch.mv, a, rand(4))
    family.add("dot", torch.dot, rand(6), rand(6))
    family.add("outer", torch.outer, rand(3), rand(4))
    family.add("outer of two dtypes", torch.outer, rand(3), rand(4).double())
    family.add(
        "bilinear",
        lambda x, y, w: torch.einsum("bi,oij,bj->bo", x, w, y),
        rand(2, 3),
        rand(2, 4),
        rand(5, 3, 4),
    )
    for dtype in FLOATS:
        operands = (rand(2, 6, 3), rand(2, 6, 4), rand(5, 3, 4), rand(5))
        family.add(f"bilinear-layer-{short(dtype)}", fn.bilinear, *(t.to(dtype) for t in operands))
    family.add("bilinear-layer-vectors", fn.bilinear, rand(3), rand(4), rand(5, 3, 4))
    for equation, shapes in {
        "ij,jk->ik": ((3, 4), (4, 5)),
        "bhid,bhjd->bhij": ((2, 3, 4, 5), (2, 3, 6, 5)),
        "ij->ji": ((3, 4),),
        "ij,j": ((3, 4), (4,)),
        "bij,bjk,bkl->bil": ((2, 3, 4), (2, 4, 5), (2, 5, 6)),
        "i,j->ij": ((3,), (4,)),
        "ij->i": ((3, 4),),
        "bnd,hdk->bhnk": ((2, 3, 4), (5, 4, 6)),
        "...ij,...jk->...ik": ((2, 3, 4), (5, 1, 4, 6)),
        "...ij,jk": ((2, 5, 3, 4), (4, 6)),
        "b...i,...i->b...": ((2, 3, 4), (3, 4)),
        "...i,...i->i...": ((1, 3, 4), (2, 1, 4)),
        "...i->...": ((4,),),
        "bij,bkj->bik": ((2, 3, 1), (1, 4, 5)),
        "iji->j": ((3, 4, 3),),
        "iijj,jk->ik": ((3, 3, 2, 2), (2, 4)),
        "iii->i": ((3, 3, 3),),
    }.items():
        family.add(
            f"einsum-{equation}",
            lambda *t, e=equation: torch.einsum(e, *t),
            *(rand(*s) for s in shapes),
        )
    return family


def attention() -> Family:
    family = Family("attention")
    sdpa = fn.scaled_dot_product_attention
    q, k, v = rand(2, 4, 5, 8), rand(2, 4, 7, 8), rand(2, 4, 7, 6)
    family.add("plain", sdpa, q, k, v)
    family.add("causal", lambda *t: sdpa(*t, is_causal=True), q, rand(2, 4, 5, 8), rand(2, 4, 5, 8))
    family.add("causal-rectangular", lambda *t: sdpa(*t, is_causal=True), q, k, v)
    family.add("scale", lambda *t: sdpa(*t, scale=0.3), q, k, v)
    family.add("bool-mask", sdpa, q, k, v, torch.ones(5, 7).tril(2).bool())
    family.add("bool-mask-broadcast", sdpa, q, k, v, torch.ones(2, 1, 1, 7).bool())
    family.add("float-mask", sdpa, q, k, v, rand(2, 1, 5, 7))
    masked = torch.ones(5, 7).bool()
    masked[2] = False
    family.add("masked-row", sdpa, q, k, v, masked)
    family.add(
        "grouped", lambda *t: sdpa(*t, enable_gqa=True), q, rand(2, 2, 7, 8), rand(2, 2, 7, 6)
    )
    family.add("rank-3", sdpa, rand(2, 5, 8), rand(2, 7, 8), rand(2, 7, 6))
    family.add("rank-2", sdpa, rand(5, 8), rand(7, 8), rand(7, 6))
    family.add("one-query", sdpa, q[:1], k, v[:, :1])
    family.add("ranks", sdpa, q[0, 0], k, v[0])
    padding = rand(2, 1, 5, 7)
    padding[0, 0, 2], padding[1, 0, :, 3:] = -1e30, -1e30  # a row of nothing else is a mean
    for dtype in (torch.bfloat16, torch.float16):
        operands = (rand(2, 4, n, 8, dtype=dtype) for n in (5, 7, 7))
        family.add(f"float32-mask-{short(dtype)}", sdpa, *operands, padding)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        family.add(
            f"plain-{short(dtype)}", sdpa, *(rand(2, 4, 5, 8, dtype=dtype) for _ in range(3))
        )
    return family


def convolution() -> Family:
    family = Family("convolution")
    x, w, b = rand(2, 4, 9, 8), rand(6, 4, 3, 3), rand(6)
    family.add("plain", fn.conv2d, x, w, b)
    family.add("no-bias", fn.conv2d, x, w)
    family.add("stride", lambda *t: fn.conv2d(*t, stride=2, padding=1), x, w, b)
    family.add(
        "uneven", lambda *t: fn.conv2d(*t, stride=(2, 1), padding=(0, 2), dilation=(1, 2)), x, w, b
    )
    family.add("same", lambda *t: fn.conv2d(*t, padding="same"), x, rand(6, 4, 3, 2), b)
    family.add("valid", lambda *t: fn.conv2d(*t, padding="valid"), x, w, b)
    family.add("groups", lambda *t: fn.conv2d(*t, groups=2), x, rand(6, 2, 3, 3), b)
    family.add(
        "depthwise", lambda *t: fn.conv2d(*t, groups=4, padding=1), x, rand(4, 1, 3, 3), rand(4)
    )
    family.add("pointwise", fn.conv2d, x, rand(6, 4, 1, 1), b)
    family.add("unbatched", fn.conv2d, rand(4, 9, 8), w, b)
    family.add(
        "conv1d",
        lambda *t: fn.conv1d(*t, padding=2, dilation=2),
        rand(2, 3, 10),
        rand(5, 3, 3),
        rand(5),
    )
    family.add(
        "conv3d",
        lambda *t: fn.conv3d(*t, stride=2, padding=1),
        rand(1, 2, 5, 6, 4),
        rand(3, 2, 3, 3, 3),
    )
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        family.add(f"plain-{short(dtype)}", fn.conv2d, *(t.to(dtype) for t in (x, w, b)))
    wt = rand(4, 6, 3, 3)
    family.add("transpose", fn.conv_transpose2d, x, wt, b)
    family.add(
        "transpose-stride",
        lambda *t: fn.conv_transpose2d(*t, stride=2, padding=1, output_padding=1),
        x,
        wt,
        b,
    )
    family.add(
        "transpose-dilation",
        lambda *t: fn.conv_transpose2d(*t, stride=3, dilation=2, padding=4),
        x,
        wt,
        b,
    )
    family.add(
        "transpose-groups",
        lambda *t: fn.conv_transpose2d(*t, groups=2, stride=2),
        x,
        rand(4, 3, 2, 2),
        b,
    )
    family.add(
        "transpose-infinite",
        lambda *t: fn.conv_transpose2d(*t, stride=2, padding=1),
        rand(1, 1, 4, 3),
        torch.tensor([[[[float("inf"), 1.0, 2.0], [1.0, float("nan"), 1.0], [0.5, 1.0, 2.0]]]]),
    )
    for stride, taps, dilation in ((2, 5, 1), (3, 2, 1), (2, 3, 2), (1, 3, 1)):
        family.add(
            f"transpose-{stride}-{taps}-{dilation}",
            lambda x, w, s=stride, d=dilation: fn.conv_transpose1d(x, w, stride=s, dilation=d),
            rand(2, 3, 7),
            rand(3, 5, taps),
        )
    family.add(
        "transpose-1d", lambda *t: fn.conv_transpose1d(*t, stride=2), rand(2, 3, 7), rand(3, 5, 4)
    )
    family.add("transpose-3d", fn.conv_transpose3d, rand(1, 2, 3, 3, 3), rand(2, 3, 2, 2, 2))
    return family


def pool() -> Family:
    family = Family("pool")
    x = rand(2, 3, 9, 8)
    family.add("max", lambda t: fn.max_pool2d(t, 2), x)
    family.add("max-overlapping", lambda t: fn.max_pool2d(t, 3, stride=2, padding=1), x)
    family.add("max-dilation", lambda t: fn.max_pool2d(t, (3, 2), stride=1, dilation=2), x)
    family.add("max-ceil", lambda t: fn.max_pool2d(t, 3, stride=2, ceil_mode=True), x)
    family.add(
        "max-ceil-padding", lambda t: fn.max_pool2d(t, 2, stride=3, padding=1, ceil_mode=True), x
    )
    family.add("max-nan", lambda t: fn.max_pool1d(t, 2), SPECIAL.reshape(1, 1, 10))
    family.add("max-1d", lambda t: fn.max_pool1d(t, 3), rand(2, 3, 10))
    family.add("max-3d", lambda t: fn.max_pool3d(t, 2), rand(1, 2, 4, 5, 6))
    family.add("max-unbatched", lambda t: fn.max_pool2d(t, 2), rand(3, 8, 8))
    least = torch.full((1, 1, 6, 6), -torch.inf)
    for dtype in FLOATS:
        # Few values, so that the first of equal ones counts.
        few = ints(2, 3, 9, 10, low=-2, high=3).to(dtype)
        places = lambda t: fn.max_pool2d(t, 3, 2, 1, return_indices=True)  # noqa: E731
        family.add(f"max-places-{short(dtype)}", places, few)
        family.add(f"max-places-nan-{short(dtype)}", places, few.masked_fill(few == 1, torch.nan))
    for dtype in INTEGERS:
        # The least number is what padding has, too.
        few = ints(2, 3, 9, 10, low=-2, high=3, dtype=dtype)
        bottom = torch.full((1, 1, 6, 6), torch.iinfo(dtype).min, dtype=dtype)
        family.add(f"max-places-{short(dtype)}", places, few)
        family.add(f"max-places-{short(dtype)}-least", places, bottom)
    for name, pool in {
        "ceil": lambda t: fn.max_pool2d(t, 3, 2, ceil_mode=True, return_indices=True),
        "dilated": lambda t: fn.max_pool2d(t, 2, 2, 1, 3, return_indices=True),
        "unbatched": lambda t: fn.max_pool2d(t[0], 2, return_indices=True),
    }.items():
        family.add(f"max-places-{name}", pool, x)
        family.add(f"max-places-{name}-least", pool, least)
    family.add(
        "max-places-1d", lambda t: fn.max_pool1d(t, 3, 2, 1, return_indices=True), rand(2, 3, 10)
    )
    family.add(
        "max-places-3d",
        lambda t: fn.max_pool3d(t, 2, 2, 1, return_indices=True),
        rand(1, 2, 4, 5, 6),
    )
    family.add("avg", lambda t: fn.avg_pool2d(t, 2), x)
    family.add("avg-padding", lambda t: fn.avg_pool2d(t, 3, stride=2, padding=1), x)
    family.add(
        "avg-exclude",
        lambda t: fn.avg_pool2d(t, 3, stride=2, padding=1, count_include_pad=False),
        x,
    )
    family.add("avg-divisor", lambda t: fn.avg_pool2d(t, 3, divisor_override=5), x)
    family.add("avg-ceil", lambda t: fn.avg_pool2d(t, 3, stride=2, ceil_mode=True), x)
    # Larger than the image, as transformers' EfficientNet has them.
    family.add("avg-beyond", lambda t: fn.avg_pool2d(t, (1280, 7), ceil_mode=True), x)
    family.add("max-beyond", lambda t: fn.max_pool2d(t, (3, 1280), ceil_mode=True), x)
    family.add(
        "avg-beyond-divisor",
        lambda t: fn.avg_pool2d(t, 64, ceil_mode=True, divisor_override=3),
        x,
    )
    family.add("avg-1d", lambda t: fn.avg_pool1d(t, 3, stride=2), rand(2, 3, 10))
    family.add("avg-3d", lambda t: fn.avg_pool3d(t, 2), rand(1, 2, 4, 5, 6))
    family.add("avg-bf16", lambda t: fn.avg_pool2d(t, 2), rand(2, 3, 8, 8, dtype=torch.bfloat16))
    family.add("adaptive-1", lambda t: fn.adaptive_avg_pool2d(t, 1), x)
    family.add("adaptive-divides", lambda t: fn.adaptive_avg_pool2d(t, (3, 4)), x)
    family.add("adaptive-none", lambda t: fn.adaptive_avg_pool2d(t, (None, 2)), x)
    family.add("adaptive-uneven", lambda t: fn.adaptive_avg_pool2d(t, (4, 3)), x)
    family.add("adaptive-1d", lambda t: fn.adaptive_avg_pool1d(t, 5), rand(2, 3, 10))
    family.add("adaptive-max", lambda t: fn.adaptive_max_pool2d(t, (3, 2)), x)
    family.add("adaptive-max-uneven", lambda t: fn.adaptive_max_pool2d(t, (4, 3)), x)
    # Equal elements and several NaN: the places say which was taken.
    equal = torch.tensor([1.0, 1, 0, 1, float("nan"), float("nan"), 0, -float("inf"), 1, 1, 1, 1])
    for sizes, places in (((3, 4), (2, 3)), ((2, 6), (1, 4)), ((12, 1), (5, 1)), ((2, 6), (3, 7))):
        family.add(
            "adaptive-max-places",
            lambda t, o=places: fn.adaptive_max_pool2d(t, o, return_indices=True),
            torch.stack([equal, equal.flip(0), rand(12)]).reshape(1, 3, *sizes),
        )
    family.add(
        "adaptive-max-places-1d", lambda t: torch.adaptive_max_pool1d(t, 3), rand(2, 7).round()
    )
    family.add(
        "adaptive-max-places-3d",
        lambda t: fn.adaptive_max_pool3d(t, (2, 3, 1), return_indices=True),
        rand(2, 5, 4, 3, dtype=torch.float64).round(),
    )
    for size, kernel, stride, padding in ((7, 3, 2, 1), (8, 3, 2, 1), (5, 4, 3, 2), (1, 2, 2, 1)):
        for dtype in FLOATS:
            family.add(
                f"avg-counted-ceil-{short(dtype)}",
                lambda t, a=(kernel, stride, padding): fn.avg_pool2d(t, *a, ceil_mode=True),
                rand(2, 3, size, size, dtype=dtype),
            )
    return family


def recurrent() -> Family:
    family = Family("recurrent")
    x, state = rand(3, 5), rand(3, 4)
    for gates, cells in {1: ("rnn_tanh", "rnn_relu"), 3: ("gru",), 4: ("lstm",)}.items():
        weights = (rand(4 * gates, 5), rand(4 * gates, 4), rand(4 * gates), rand(4 * gates))
        for cell in cells:
            step = getattr(torch.ops.aten, f"{cell}_cell").default
            if cell == "lstm":
                step = lambda x, h, c, *w, f=step: f(x, (h, c), *w)  # noqa: E731
            states = (state, rand(3, 4)) if cell == "lstm" else (state,)
            family.add(cell, step, x, *states, *weights)
            family.add(f"{cell}-float64", step, *(t.double() for t in (x, *states, *weights)))
            family.add(f"{cell}-unbiased", step, x, *states, *weights[:2])
    return family


def shape() -> Family:
    family = Family("shape")
    x = rand(2, 3, 4)
    functions: dict[str, Callable[..., Any]] = {
        "view": lambda t: t.view(6, -1),
        "reshape": lambda t: t.permute(2, 0, 1).reshape(-1),
        "flatten": lambda t: t.flatten(1),
        "unflatten": lambda t: t.unflatten(2, (2, -1)),
        "unsqueeze": lambda t: t.unsqueeze(-2),
        "squeeze": lambda t: t.unsqueeze(1).unsqueeze(0).squeeze(),
        "squeeze-dim": lambda t: t.unsqueeze(1).squeeze(1),
        "squeeze-dims": lambda t: t[:, None, :, None].squeeze((1, 3)),
        "squeeze-no": lambda t: t.squeeze(0),
        "expand": lambda t: t.unsqueeze(1).expand(-1, 5, -1, 4),
        "expand-new": lambda t: t.expand(5, 2, 3, 4),
        "permute": lambda t: t.permute(-1, 0, 1),
        "transpose": lambda t: t.transpose(0, -1),
        "t": lambda t: t[0].t(),
        "mT": lambda t: t.mT,
        "movedim": lambda t: t.movedim((0, 1), (2, 0)),
        "swapaxes": lambda t: t.swapaxes(0, 2),
        "repeat": lambda t: t.repeat(2, 1, 3, 2),
        "tile": lambda t: t.tile((2, 2)),
        "flip": lambda t: t.flip(0, -1),
        "repeat_interleave": lambda t: t.repeat_interleave(3, dim=1),
        "repeat_interleave-flat": lambda t: t.repeat_interleave(2),
        "roll": lambda t: t.roll(2, 1),
        "roll-negative": lambda t: t.roll((-1, 5), (0, 2)),
        "roll-flat": lambda t: t.roll(5),
        "slice": lambda t: t[:, 1:],
        "slice-negative": lambda t: t[..., -3:-1],
        "slice-step": lambda t: t[:, :, ::2],
        "slice-beyond": lambda t: t[:, 1:100],
        "slice-empty": lambda t: t[:, 2:1],
        "select": lambda t: t[:, -1],
        "narrow": lambda t: t.narrow(1, 1, 2),
        "split": lambda t: t.split(2, dim=1),
        "split-sizes": lambda t: t.split([1, 2], 1),
        "chunk": lambda t: t.chunk(3, dim=2),
        "tensor_split": lambda t: t.tensor_split(3, dim=2),
        "unbind": lambda t: t.unbind(1),
        "cat": lambda t: torch.cat([t, t * 2, t[:, :1]], dim=1),
        "cat-mixed": lambda t: torch.cat([t, t.to(torch.int64)], -1),
        "cat-one": lambda t: torch.cat([t], 1),
        "stack": lambda t: torch.stack([t, -t], dim=1),
        "hstack": lambda t: torch.hstack([t, t]),
        "hstack-vectors": lambda t: torch.hstack([t[0, 0], t[1, 1]]),
        "vstack": lambda t: torch.vstack([t[0, 0], t[1, 1]]),
        "dstack": lambda t: torch.dstack([t[0], t[1]]),
        "column_stack": lambda t: torch.column_stack([t[0, 0], t[1].mT]),
        "diagonal": lambda t: t.diagonal(1, 1, 2),
        "diagonal-below": lambda t: t.diagonal(-1),
        "diagonal_scatter": lambda t: t.diagonal_scatter(t[:, 2, :3] * 2, 1, 1, 2),
        "diagonal_scatter-below": lambda t: t.diagonal_scatter(t[0, :2].mT, -1, 1, 0),
        "diagonal_scatter-nothing": lambda t: t.diagonal_scatter(t[:, :0, 0], 4, 1, 2),
        "unfold": lambda t: t.unfold(2, 3, 1),
        "tril": torch.tril,
        "triu": lambda t: t.triu(1),
        "tril-below": lambda t: t.tril(-1),
        "clone": torch.clone,
        "to": lambda t: t.to(torch.float16),
        "to-int": lambda t: t.to(torch.int32),
        "to-bool": lambda t: t.bool(),
        "type_as": lambda t: t.type_as(t.long()),
        "contiguous": lambda t: t.transpose(0, 1).contiguous(),
        "view_as": lambda t: t.view_as(t.reshape(2, 3, 4)),
        "rot90": lambda t: t.rot90(1, (0, 1)),
        "broadcast_to": lambda t: t.broadcast_to(2, 2, 3, 4),
        "select_scatter": lambda t: t.select_scatter(t[:, 0], 1, -1),
        "slice_scatter": lambda t: t.slice_scatter(t[:, :2], 1, 1, 3),
        "slice_scatter-steps": lambda t: t.slice_scatter(t[:, :, 1:3], 2, 0, 4, 2),
        "slice_scatter-steps-3": lambda t: t.slice_scatter(t[:, 1:], 1, 0, 3, 2),
        "atleast": lambda t: torch.atleast_3d(t[0]),
    }
    for name, function in functions.items():
        family.add(name, function, x)
        if name not in {"to", "to-int", "to-bool", "type_as", "cat-mixed"}:
            family.add(f"{name}-i64", function, ints(2, 3, 4))
    family.add("pixel_shuffle", lambda t: fn.pixel_shuffle(t, 2), rand(1, 8, 3, 2))
    family.add("pixel_unshuffle", lambda t: fn.pixel_unshuffle(t, 2), rand(1, 2, 6, 4))
    family.add("channel_shuffle", lambda t: fn.channel_shuffle(t, 2), rand(1, 6, 3, 2))
    for dtype in (*FLOATS, *INTEGERS, torch.bool):
        source = rand(9, low=-200, high=200) if dtype != torch.uint8 else rand(9, low=0, high=200)
        if dtype == torch.int8:
            source = source / 2
        family.add(f"cast-{short(dtype)}", lambda t, d=dtype: t.to(d), source)
        family.add(f"cast-from-{short(dtype)}", lambda t: t.to(torch.float32), source.to(dtype))
        family.add(f"cast-from-{short(dtype)}-int", lambda t: t.to(torch.int64), source.to(dtype))
    return family


def strided() -> Family:
    family = Family("strided")
    family.add("squeeze-none", lambda t: torch.ops.aten.squeeze.dims(t, []), rand(1, 2, 1))
    family.add("unfold-scalar", lambda t: (t.unfold(0, 1, 1), t.unfold(0, 0, 2)), torch.tensor(3.0))
    family.add("unfold-nothing", lambda t: t.unfold(1, 0, 2), rand(2, 5))
    family.add("diff-nothing", lambda t: (t.diff(), t.diff(n=2, dim=0)), rand(2, 0))
    for dtype in (torch.uint8, torch.int8, torch.int64):
        family.add(
            f"einsum-sums-{short(dtype)}",
            lambda t, u: (torch.einsum("ij->i", t), torch.einsum("ij,jk->ik", t, u)),
            ints(3, 4, low=100, high=127, dtype=dtype),
            ints(4, 2, low=100, high=127, dtype=dtype),
        )
    x = rand(4, 5)
    for size, stride, offset in (
        ((3, 4), (5, 1), 0), ((2, 3, 2), (4, 2, 1), 3), ((3,), (0,), 7), ((0, 3), (9, 9), 0),
        ((), (), 19), ((6, 3), (3, 1), None),
    ):  # fmt: skip
        arguments = (size, stride, offset)
        family.add("view", lambda t, a=arguments: t.as_strided(*a), x)
        family.add("copy", lambda t, a=arguments: torch.as_strided_copy(t, *a), ints(4, 5))
    family.add(
        "of-transposed", lambda t: t.permute(2, 0, 1).as_strided((3, 2), (2, 9), 1), rand(2, 3, 4)
    )
    family.add(
        "scatter", lambda t, u: torch.as_strided_scatter(t, u, (2, 3), (6, 2), 1), x, rand(2, 3)
    )
    family.add(
        "scatter-transposed",
        lambda t, u: torch.as_strided_scatter(t.t(), u, (2, 3), (6, 2), 1),
        ints(4, 5),
        ints(2, 3),
    )
    return family


def special() -> Family:
    """Gamma, Bessel and error functions: each where its formulas meet, and at its poles."""
    family = Family("special")
    edges = [0.0, -0.0, 0.5, 1, 1.5, 2, 3, 8, 10, 30, 1e30, float("inf"), float("nan"), -0.25, -1.5]
    edges += [-2.5, -7.5, 0.999, 1.001, 2.001, 7.999, 8.001, 1e-30]
    share = torch.tensor([0.0, 1, 0.5, 0.499, 0.501, 0.25, 1e-30, 1e-6, 0.999, -0.1, 1.1])
    share = torch.cat([share, -share, torch.tensor([float("nan")])])
    functions = {
        "lgamma": torch.lgamma,
        "digamma": torch.digamma,
        "mvlgamma": lambda x: torch.mvlgamma(x.abs() + 1.1, 3),
        "i0": lambda x: torch.i0(x.clamp(-80, 80)),
        "i0e": torch.special.i0e,
        "i1": lambda x: torch.special.i1(x.clamp(-80, 80)),
        "i1e": torch.special.i1e,
        "erfcx": lambda x: torch.special.erfcx(x.clamp_min(-5)),
        "log_ndtr": lambda x: torch.special.log_ndtr(x.clamp_max(4)),
        "ndtr": torch.special.ndtr,
    }
    # PyTorch's second derivative and those after it are NaN at infinity; engines have 0, the limit.
    functions |= {
        f"polygamma{n}": lambda x, n=n: torch.polygamma(n, x.clamp_max(1e30))
        for n in (0, 1, 2, 3, 6)
    }
    for dtype in (torch.float32, torch.float64):
        x = torch.cat([torch.tensor(edges), rand(20, high=14)]).to(dtype)
        for name, function in functions.items():
            family.add(f"{name}-{short(dtype)}", function, x)
        family.add(f"erfinv-{short(dtype)}", torch.erfinv, share.to(dtype))
        family.add(f"ndtri-{short(dtype)}", torch.special.ndtri, share.to(dtype))
    poles = torch.tensor([0.0, -1.0, -5.0, -float("inf")])
    family.add("poles", lambda x: (x.lgamma(), x.polygamma(2), x.polygamma(3)), poles[:3])
    family.add("digamma-poles", torch.digamma, poles)
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8):
        name = short(dtype)
        family.add(f"lgamma-{name}", torch.lgamma, rand(9, low=0.1).to(dtype))
        family.add(f"i0-{name}", torch.i0, rand(9, low=0.1).to(dtype))
    return family


def pad() -> Family:
    family = Family("pad")
    x = rand(2, 3, 5, 6)
    family.add("constant", lambda t: fn.pad(t, (1, 2, 3, 0), value=1.5), x)
    family.add("constant-crop", lambda t: fn.pad(t, (-1, 2, 0, -2)), x)
    family.add("constant-int", lambda t: fn.pad(t, (1, 1), value=7), ints(3, 4))
    family.add("constant-f16", lambda t: fn.pad(t, (1, 1), value=0.1).float(), x.half())
    family.add("constant-bool", lambda t: fn.pad(t, (1, 1), value=True), bools(3, 4))
    for mode in ("reflect", "replicate", "circular"):
        family.add(mode, lambda t, m=mode: fn.pad(t, (1, 2, 2, 1), mode=m), x)
        family.add(f"{mode}-1d", lambda t, m=mode: fn.pad(t, (2, 3), mode=m), rand(2, 3, 5))
        family.add(
            f"{mode}-3d",
            lambda t, m=mode: fn.pad(t, (1, 1, 1, 0, 0, 1), mode=m),
            rand(1, 2, 3, 4, 5),
        )
    return family


def index() -> Family:
    family = Family("index")
    x = rand(4, 5, 6)
    i, j = ints(3, low=0, high=4), ints(3, low=-5, high=5)
    family.add("embedding", fn.embedding, ints(2, 3, low=0, high=7), rand(7, 4))
    family.add(
        "embedding-i32", fn.embedding, ints(2, 3, low=0, high=7, dtype=torch.int32), rand(7, 4)
    )
    family.add("index_select", lambda t, k: t.index_select(1, k), x, ints(4, low=0, high=5))
    family.add("index-first", lambda t, a: t[a], x, i)
    family.add("index-negative", lambda t, a: t[:, a], x, j)
    family.add("index-two", lambda t, a, b: t[a, b], x, i, j)
    family.add("index-apart", lambda t, a, b: t[a, :, b], x, i, j)
    family.add("index-middle", lambda t, a, b: t[:, a, b], x, j, ints(2, 1, low=0, high=6))
    family.add("index-broadcast", lambda t, a, b: t[a[:, None], b[None, :]], x, i, j)
    family.add("gather", lambda t, a: t.gather(1, a), x, ints(4, 3, 6, low=0, high=5))
    family.add("gather-smaller", lambda t, a: t.gather(2, a), x, ints(2, 3, 2, low=0, high=6))
    family.add(
        "take_along_dim", lambda t, a: t.take_along_dim(a, 1), x, ints(4, 1, 6, low=0, high=5)
    )
    family.add("one_hot", lambda a: fn.one_hot(a, 5), i)
    family.add("gather-i64", lambda t, a: t.gather(0, a), ints(4, 3), ints(2, 3, low=0, high=4))
    return family


def create() -> Family:
    family = Family("create")
    x = rand(2, 3)
    functions: dict[str, Callable[..., Any]] = {
        "full": lambda t: torch.full((2, 3), 1.5) + t,
        "full-int": lambda t: torch.full((2, 3), 7),
        "zeros": lambda t: torch.zeros(2, 3) + t,
        "full-bool": lambda t: torch.full((2,), True),
        "ones": lambda t: torch.ones(3, dtype=torch.int32),
        "zeros_like": torch.zeros_like,
        "ones_like": lambda t: torch.ones_like(t, dtype=torch.bool),
        "full_like": lambda t: torch.full_like(t, 3),
        "full_like-bool-of-a-half": lambda t: torch.full_like(t, 0.5, dtype=torch.bool) * 2,
        "new_zeros": lambda t: t.new_zeros(2),
        "new_ones": lambda t: t.new_ones(2, dtype=torch.int64),
        "new_full": lambda t: t.new_full((2,), 4),
        "arange": lambda t: torch.arange(5),
        "arange-start": lambda t: torch.arange(2, 9, 3),
        "arange-down": lambda t: torch.arange(9, 2, -2),
        "arange-float": lambda t: torch.arange(0, 1, 0.1),
        "arange-dtype": lambda t: torch.arange(5, dtype=torch.float32),
        "arange-empty": lambda t: torch.arange(0),
        "arange-truncated": lambda t: torch.arange(0.9, -7.9, -4.0, dtype=torch.int64),
        "arange-truncated-up": lambda t: torch.arange(-2.5, 7.9, 1.7, dtype=torch.int64),
        "arange-truncated-i32": lambda t: torch.arange(-2.5, 7.9, 1.7, dtype=torch.int32),
        "arange-truncated-u8": lambda t: torch.arange(0.5, 9.9, 2.9, dtype=torch.uint8),
        "linspace": lambda t: torch.linspace(-1, 2, 7),
        "linspace-one": lambda t: torch.linspace(3, 4, 1),
        "eye": lambda t: torch.eye(3),
        "eye-m": lambda t: torch.eye(2, 4),
        "scalar_tensor": lambda t: torch.scalar_tensor(2.5),
        "tensor": lambda t: torch.tensor([1, 2]),
        "meshgrid": lambda t: torch.meshgrid(t[0], t[1], indexing="ij"),
        "meshgrid-xy": lambda t: torch.meshgrid(t[0], t[:, 0], indexing="xy"),
        "fill": lambda t: torch.fill(t, 2),
        "large": lambda t: torch.full((2,), 2**60 + 1),
        "tril-mask": lambda t: torch.ones(4, 4).tril(),
    }
    for name, function in functions.items():
        family.add(name, function, x)
    return family


def resize() -> Family:
    family = Family("resize")
    x = rand(1, 2, 5, 6)
    for mode in ("nearest", "nearest-exact", "bilinear", "bicubic"):
        for size in ((10, 12), (3, 4), (7, 6)):
            family.add(f"{mode}-size", lambda t, m=mode, s=size: fn.interpolate(t, s, mode=m), x)
        family.add(
            f"{mode}-scale", lambda t, m=mode: fn.interpolate(t, scale_factor=2.5, mode=m), x
        )
        if not mode.startswith("nearest"):
            family.add(
                f"{mode}-corners",
                lambda t, m=mode: fn.interpolate(t, (9, 4), mode=m, align_corners=True),
                x,
            )
            bf16 = x.to(torch.bfloat16)
            family.add(f"{mode}-bf16", lambda t, m=mode: fn.interpolate(t, (9, 4), mode=m), bf16)
    family.add("linear", lambda t: fn.interpolate(t, 9, mode="linear"), rand(1, 2, 5))
    family.add("nearest-1d", lambda t: fn.interpolate(t, 9), rand(1, 2, 5))
    family.add(
        "trilinear", lambda t: fn.interpolate(t, (4, 5, 6), mode="trilinear"), rand(1, 2, 3, 4, 5)
    )
    return family


def geometry() -> Family:
    family = Family("geometry")
    for p in (1.0, 2.0, 3.0, float("inf")):
        family.add(
            f"cdist-{p}", lambda x, y, p=p: torch.cdist(x, y, p), rand(2, 3, 4), rand(2, 5, 4)
        )
    # PyTorch takes products of more than 25 rows, which make NaN of infinities.
    many = (rand(2, 26, 4) * 4).round()  # whose squares are exact
    many[:, 3, 1] = torch.inf
    family.add("cdist-products", torch.cdist, many, many[0, 9:14])
    family.add("cdist-few", torch.cdist, many[:, :25], rand(5, 4))
    modes = ("use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")
    family.add(
        "cdist-modes",
        lambda x, y: tuple(torch.cdist(x, y, compute_mode=mode) for mode in modes),
        many[:, :5],
        many,
    )
    family.add("cross", torch.linalg.cross, rand(4, 3), rand(4, 3))
    family.add("cross-axis", lambda x, y: torch.linalg.cross(x, y, dim=0), rand(3, 4), rand(3, 1))
    image, grid = rand(2, 3, 5, 6), rand(2, 4, 7, 2, low=-1.4, high=1.4)
    for mode in ("bilinear", "nearest"):
        for padding in ("zeros", "border"):
            for corners in (False, True):
                family.add(
                    f"grid_sample-{mode}-{padding}-{corners}",
                    lambda x, g, m=mode, p=padding, c=corners: fn.grid_sample(x, g, m, p, c),
                    image,
                    grid,
                )
    volume, places = rand(2, 2, 3, 4, 5), rand(2, 2, 3, 2, 3, low=-1.4, high=1.4)
    far = rand(2, 3, 3, 2, low=-7, high=7)
    for corners in (False, True):
        for mode, padding in (("bicubic", "zeros"), ("bicubic", "border"), ("bicubic", "reflection"),
                              ("bilinear", "reflection"), ("nearest", "reflection")):  # fmt: skip
            family.add(
                f"grid_sample-{mode}-{padding}-{corners}",
                lambda x, g, h, a=(mode, padding, corners): (
                    fn.grid_sample(x, g, *a), fn.grid_sample(x[:, :, :1], h, *a)
                ),
                image,
                grid,
                far,
            )  # fmt: skip
        for mode in ("bilinear", "nearest"):
            for padding in ("zeros", "border", "reflection"):
                family.add(
                    f"grid_sample-volume-{mode}-{padding}-{corners}",
                    lambda x, g, a=(mode, padding, corners): fn.grid_sample(x, g, *a),
                    volume,
                    places,
                )
    return family


def in_place() -> Family:
    family = Family("in_place")
    x, y = rand(2, 3, 4), rand(2, 3, 4)

    def residual(t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        out = fn.conv1d(t, torch.ones(3, 3, 1))
        out += u
        return fn.relu_(out)

    def chain(t: torch.Tensor) -> torch.Tensor:
        out = t * 2
        out.add_(1).mul_(3)
        out.clamp_(-1, 5)
        return out.sigmoid_()

    def through_view(t: torch.Tensor) -> torch.Tensor:
        out = t + 1
        flat = out.view(-1)
        return flat.mul_(2)

    family.add("residual", residual, x, y)
    family.add("chain", chain, x)
    family.add("through-view", through_view, x)
    family.add("zero", lambda t: (t + 1).zero_(), x)
    family.add("fill", lambda t: (t + 1).fill_(3), x)
    family.add("copy", lambda t, u: (t + 1).copy_(u[0]), x, y)
    family.add("masked_fill", lambda t: (t + 1).masked_fill_(t > 0, 0), x)
    family.add("add-int-scalar", lambda t: (t + 1).add_(2), ints(3))
    return family


FAMILIES = [
    unary(),
    binary(),
    ternary(),
    activation(),
    reduce(),
    normalise(),
    contract(),
    attention(),
    convolution(),
    pool(),
    recurrent(),
    shape(),
    strided(),
    special(),
    pad(),
    index(),
    create(),
    resize(),
    geometry(),
    in_place(),
]
