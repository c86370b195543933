"""Values at the edges of every dtype, against eager PyTorch element by element: zeros, infinities, NaN, the largest and
smallest numbers, integer limits, ties, empty and all-masked rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from eager import Table, assert_as_eager, compile_functions, difference
from torch.nn import functional

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]
ALL = [*FLOATS, *INTEGERS, torch.bool]
INF, NAN = math.inf, math.nan


def edges(dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.tensor([True, False, True, True, False])
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        values = [0, 1, 2, 3, 7, 100, info.max, info.min, info.max - 1, info.min + 1]
        values += [info.max // 2, info.max // 2 + 1]
        values += [-1, -2, -7, -100] if info.min else [200]
        if dtype == torch.int64:
            values += [
                2**31,
                2**31 - 1,
                2**53,
                2**53 + 1,
                2**62,
                -(2**53) - 1,
                2**24 + 1,
                2**32 + 5,
            ]
        return torch.tensor(values, dtype=dtype)
    info = torch.finfo(dtype)
    values = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, -0.9, 3.0, 7.0, 1e-3]
    values += [INF, -INF, NAN, info.max, -info.max, info.tiny, -info.tiny, info.eps]
    values += [info.smallest_normal * info.eps]
    for limit in (7, 8, 15, 16, 31, 32, 63, 64):  # around the limits of the integers
        values += [s * (2.0**limit + d) for s in (1, -1) for d in (-1, 0, 1)]
    values += [126.5, 300.7, -300.7, 70000.0, 1e10, -1e10, 1e30, 1e38]
    return torch.tensor(
        [v if abs(v) <= info.max or v != v else math.copysign(INF, v) for v in values], dtype=dtype
    )


def pairs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    x = edges(dtype)
    return x.repeat_interleave(len(x)), x.repeat(len(x))


def divisor(x: torch.Tensor) -> torch.Tensor:
    """Without 0, and without -1, by which eager PyTorch ends the process for the least integers."""
    return x.masked_fill((x == 0) | (x == -1), 1)


PAIRS: Table = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "maximum": lambda a, b: torch.maximum(a, b),
    "minimum": lambda a, b: torch.minimum(a, b),
    "where": lambda a, b: torch.where(a > b, a, b),
    "logical_and": lambda a, b: torch.logical_and(a, b),
    "logical_or": lambda a, b: torch.logical_or(a, b),
    "logical_xor": lambda a, b: torch.logical_xor(a, b),
    "logical_not": lambda a, b: a.logical_not(),
    "isnan": lambda a, b: torch.isnan(a),
    "isinf": lambda a, b: torch.isinf(a),
    "isfinite": lambda a, b: torch.isfinite(a),
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "square": lambda a, b: a * a,
    "plus one": lambda a, b: a + 1,
    "plus a float": lambda a, b: a + 1.5,
    "times a float": lambda a, b: a * 0.5,
    "equals one": lambda a, b: a == 1,
    "above a half": lambda a, b: a > 0.5,
    "masked_fill": lambda a, b: a.masked_fill(a > b, 1),
    "sign": lambda a, b: torch.sign(a),
}

NUMBERS: Table = {
    "sub": lambda a, b: a - b,
    "neg": lambda a, b: -a,
    "abs": lambda a, b: a.abs(),
    "rsub": lambda a, b: 1 - a,
    "clamp": lambda a, b: a.clamp(1, 5),
    "clamp to an empty range": lambda a, b: a.clamp(5, 2),
    "clamp by tensors": lambda a, b: a.clamp(b, a),
    "clamp_min": lambda a, b: a.clamp_min(1),
    "clamp_max": lambda a, b: a.clamp_max(1),
    "relu": lambda a, b: functional.relu(a),
    "power 2": lambda a, b: a**2,
    "power 3": lambda a, b: a**3,
}

REALS: Table = {
    "floor": lambda a, b: a.floor(),
    "ceil": lambda a, b: a.ceil(),
    "round": lambda a, b: a.round(),
    "trunc": lambda a, b: a.trunc(),
    "frac": lambda a, b: a.frac(),
    "nan_to_num": lambda a, b: a.nan_to_num(),
    "nan_to_num with numbers": lambda a, b: a.nan_to_num(1.0, 2.0, 3.0),
    "clamp by NaN": lambda a, b: a.clamp(NAN, 1),
    "hardtanh": lambda a, b: functional.hardtanh(a),
    "relu6": lambda a, b: functional.relu6(a),
    "leaky_relu": lambda a, b: functional.leaky_relu(a, 0.1),
    "threshold": lambda a, b: functional.threshold(a, 0.1, 20.0),
    "hardshrink": lambda a, b: functional.hardshrink(a),
    "softshrink": lambda a, b: functional.softshrink(a),
    "hardswish": lambda a, b: functional.hardswish(a),
    "hardsigmoid": lambda a, b: functional.hardsigmoid(a),
    "softsign": lambda a, b: functional.softsign(a),
    "prelu": lambda a, b: functional.prelu(a, b[:1]),
    "reciprocal": lambda a, b: a.reciprocal(),
    "plus zero": lambda a, b: 1 / (a + 0.0),
    "minus zero": lambda a, b: 1 / (a - 0.0),
    "times zero": lambda a, b: a * 0.0,
    "div trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "addcdiv": lambda a, b: torch.addcdiv(a, a, b),
}

WHOLES: Table = {
    "sub alpha": lambda a, b: torch.sub(a, b, alpha=2),
    "addcmul": lambda a, b: torch.addcmul(a, a, b),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a, b: ~a,
    "mixed": lambda a, b: a * 2 + b - 1,
    "two products": lambda a, b: a * a * b,
    "div trunc": lambda a, b: torch.div(a, divisor(b), rounding_mode="trunc"),
    "div floor": lambda a, b: torch.div(a, divisor(b), rounding_mode="floor"),
    "remainder": lambda a, b: torch.remainder(a, divisor(b)),
    "fmod": lambda a, b: torch.fmod(a, divisor(b)),
    "sqrt": (lambda a, b: a.sqrt(), 1),
}

BOOLS: Table = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a, b: ~a,
    "plus an int": lambda a, b: a + 3,
    "times an int": lambda a, b: a * 3,
    "sum": lambda a, b: a.sum(),
}


def _casts() -> Table:
    def to(dtype: torch.dtype) -> Callable[..., torch.Tensor]:
        return lambda a, b: a.to(dtype)

    return {f"to {dtype}": to(dtype) for dtype in ALL}


def _of_dtype(dtype: torch.dtype) -> Table:
    if dtype == torch.bool:
        return PAIRS | BOOLS
    return PAIRS | NUMBERS | (REALS if dtype.is_floating_point else WHOLES)


@pytest.mark.parametrize("dtype", ALL)
def test_pointwise(dtype: torch.dtype) -> None:
    assert_as_eager(_casts() | _of_dtype(dtype), pairs(dtype), emulate_precision_casts=True)


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype.is_floating_point])
def test_square_roots_are_correctly_rounded(dtype: torch.dtype) -> None:
    """Eager's need not be: it takes f64's from MKL on Intel's processors, which gives some of them one ulp off."""
    a, _ = pairs(dtype)
    module = compile_functions([torch.sqrt], (a,), emulate_precision_casts=True)
    with np.errstate(invalid="ignore"):
        expected = torch.from_numpy(np.sqrt(a.double().numpy())).to(dtype)
    problem = difference(module(a)[0], expected)
    assert problem is None, problem


def rows(dtype: torch.dtype) -> torch.Tensor:
    """Rows of 13: ties, limits, NaN at different places, both infinities."""
    n = 13
    if dtype == torch.bool:
        return torch.tensor([[True] * n, [False] * n, [False] * 12 + [True], [True] + [False] * 12])
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        values = [[0] * n, [info.max] * n, [info.min] * n, [info.max, info.min] * 6 + [1]]
        values += [[3] * n, list(range(n)), [1] * 6 + [2, 2] + [1] * 5, [100] * n]
        return torch.tensor(values, dtype=dtype)
    info = torch.finfo(dtype)
    values = [
        [x] * n for x in (0.0, -0.0, INF, -INF, NAN, 3.0, info.max, -info.max, info.tiny, 1e4)
    ]
    values += [[1.0, NAN] + [2.0] * 11, [INF, -INF] + [0.0] * 11, [-INF] * 12 + [1.0]]
    values += [[1.0] * 6 + [2.0, 2.0] + [1.0] * 5, [2.0, 1.0] * 6 + [2.0], [0.0, -0.0] * 6 + [0.0]]
    values += [[5.0] * 5 + [NAN, NAN] + [9.0] * 6, [INF, NAN] + [1.0] * 11, [NAN, INF] + [1.0] * 11]
    values += [list(map(float, range(n))), [-5.0, INF] + [2.0] * 11, [-5.0, -INF] + [2.0] * 11]
    return torch.tensor(values, dtype=dtype)


def reductions(dtype: torch.dtype, dim: int, *, some: bool = True) -> Table:
    """Reductions along an axis; those that need an element only with `some`."""
    table: Table = {
        "any": lambda x: x.any(dim),
        "all": lambda x: x.all(dim),
        "any of all axes": lambda x: x.any(),
        "all of all axes": lambda x: x.all(),
        "sum": (lambda x: x.sum(dim), 2),
        "sum of all axes": (lambda x: x.sum(), 4),
        "sum in f32": (lambda x: (x != 0).sum(dim, dtype=torch.float32), 0),
        "prod": (lambda x: x.prod(dim), 3),
        "cumsum": (lambda x: x.cumsum(dim), 2),
        "count_nonzero": lambda x: x.count_nonzero(dim),
    }
    if some:
        table |= {
            "amax": lambda x: x.amax(dim),
            "amin": lambda x: x.amin(dim),
            "max": lambda x: x.max(dim)[0],
            "min": lambda x: x.min(dim)[0],
            "argmax": lambda x: x.argmax(dim),
            "argmin": lambda x: x.argmin(dim),
            "max of all axes": lambda x: x.max(),
            "argmax of all axes": lambda x: x.argmax(),
            "argmin of all axes": lambda x: x.argmin(),
        }
        if dtype == torch.bool:
            table = {k: v for k, v in table.items() if not k.startswith("arg")}
    if dtype.is_floating_point:
        table |= {
            "mean": (lambda x: x.mean(dim), 2),
            "var": (lambda x: (x / 64).var(dim), 8),
            "std without correction": (lambda x: (x / 64).std(dim, correction=0), 8),
            "logsumexp": (lambda x: torch.logsumexp(x, dim), 4),
            "softmax": (lambda x: x.softmax(dim), 4),
            "log_softmax": (lambda x: x.log_softmax(dim), 4),
            "norm": (lambda x: x.norm(dim=dim), 4),
            "norm 1": (lambda x: x.norm(1, dim=dim), 4),
            "norm 0": lambda x: x.norm(0, dim=dim),
        }
        if some:
            table |= {
                "norm inf": lambda x: x.norm(INF, dim=dim),
                "norm -inf": lambda x: x.norm(-INF, dim=dim),
                "share": (lambda x: x / x.sum(dim, keepdim=True), 4),
            }
    return table


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", ALL)
def test_reductions(dtype: torch.dtype, dim: int) -> None:
    assert_as_eager(reductions(dtype, dim), (rows(dtype),), emulate_precision_casts=True)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0, 0)])
@pytest.mark.parametrize("dtype", ALL)
def test_reductions_of_nothing(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    table = reductions(dtype, 1, some=False)
    assert_as_eager(table, (torch.zeros(shape, dtype=dtype),), emulate_precision_casts=True)


def test_any_of_a_dynamic_size() -> None:
    size = torch.export.Dim("size", min=1, max=40)
    table: Table = {"any": lambda x: x.any(1), "all": lambda x: x.all(1), "sum": lambda x: x.sum(1)}
    calls = [(torch.zeros(3, n, dtype=torch.bool),) for n in (7, 1, 2, 40)]
    calls += [(torch.ones(3, n, dtype=torch.bool),) for n in (7, 1, 2, 40)]
    assert_as_eager(
        table, (torch.zeros(3, 7, dtype=torch.bool),), calls=calls, dynamic_shapes=(({1: size},),)
    )


MOVES: Table = {
    "flip": lambda x: x.flip(0, 1),
    "roll": lambda x: x.roll((1, -2), (0, 1)),
    "roll of all axes": lambda x: x.roll(5),
    "rot90": lambda x: x.rot90(),
    "join with nothing": lambda x: torch.cat([x[:, :0], x, x[:, :0], x], 1),
    "join with the old empty tensor": lambda x: torch.cat([torch.zeros(0, dtype=x.dtype), x], 1),
    "stack": lambda x: torch.stack([x, x], 1),
    "pad": lambda x: functional.pad(x, (2, 1, 1, 2), value=1),
    "crop": lambda x: functional.pad(x, (-2, 1, 1, -2), value=1),
    "tril": lambda x: x.tril(1),
    "triu": lambda x: x.triu(-1),
    "repeat": lambda x: x.repeat(2, 1),
    "index": lambda x: x[:, [0, -1, 3]],
    "steps": lambda x: x[1:, ::3],
}

REAL_MOVES: Table = {
    "pad with -inf": lambda x: functional.pad(x, (1, 1), value=-INF),
    "pad with NaN": lambda x: functional.pad(x, (1, 1), value=NAN),
    "pad reflect": lambda x: functional.pad(x[None], (2, 1), mode="reflect"),
    "pad replicate": lambda x: functional.pad(x[None], (2, 1), mode="replicate"),
    "pad circular": lambda x: functional.pad(x[None], (2, 1), mode="circular"),
    "avg_pool": (lambda x: functional.avg_pool1d(x[None], 3, 2, 1), 4),
    "avg_pool without padding": (
        lambda x: functional.avg_pool1d(x[None], 3, 2, 1, count_include_pad=False),
        4,
    ),
    "max_pool": lambda x: functional.max_pool1d(x[None], 3, 2, 1),
    "dilated max_pool": lambda x: functional.max_pool1d(x[None], 2, 1, 1, 2),
    "max_pool of two axes": lambda x: functional.max_pool2d(x[None], 3, 2, 1),
    "adaptive_max_pool": lambda x: functional.adaptive_max_pool1d(x[None], 5),
    "adaptive_avg_pool": (lambda x: functional.adaptive_avg_pool1d(x[None], 5), 4),
    "softmax of a mask": (lambda x: x.masked_fill(x >= 0, -INF).softmax(1), 4),
    "softmax of nothing": lambda x: x.masked_fill(x == x, -INF).softmax(1),
    "safe softmax": (lambda x: torch.ops.aten._safe_softmax(x.masked_fill(x > 0, -INF), 1), 4),
}


@pytest.mark.parametrize("dtype", ALL)
def test_movement(dtype: torch.dtype) -> None:
    table = MOVES | REAL_MOVES if dtype.is_floating_point else MOVES
    assert_as_eager(table, (rows(dtype),), emulate_precision_casts=True)


FILLS = [0.0, -0.0, 0.1, -1.5, 300.0, 3e9, 1e39, 5e-8, 2.0**24 + 1, 2.0**53 - 1, INF, NAN]


def filled(to: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Tensors filled with numbers, as each dtype rounds them, rounded once more to another one."""
    least, most = (-INF, INF) if to.is_floating_point or to == torch.bool else (-129, 256)

    def fill(x: torch.Tensor) -> torch.Tensor:
        parts = []
        for dtype in FLOATS:
            for number in FILLS:
                number = torch.tensor(number, dtype=dtype).item()
                if not (least < number < most) and least == -129:
                    continue
                parts.append(torch.full((1, 2), number, dtype=dtype).to(to).flatten())
        parts += [torch.full((2,), n, dtype=torch.int64).to(to) for n in (0, 7, 100, 2**24 + 1)]
        return torch.cat([*parts, x.to(to)])

    return fill


def test_filled_tensors_are_rounded_to_their_dtype() -> None:
    table: Table = {str(dtype): filled(dtype) for dtype in ALL}
    assert_as_eager(table, (torch.ones(2),))


@pytest.mark.parametrize("dtype", FLOATS)
def test_variances_of_what_is_far_from_zero_large_or_small(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    rows = [
        [1, 2, 3, 4],
        [0, 0, 0, 0],
        [INF, 1, 2, 3],
        [NAN, 1, 2, 3],
        [-INF, INF, 0, 1],
        [most, most, most, most],
        [most / 8, most / 4, 0, 1],
        [1e-30, 2e-30, 3e-30, 1e-30],
    ]
    x = torch.tensor(rows).to(dtype)
    far = (torch.randn(8, 500) + (1e6 if dtype.itemsize > 2 else 100)).to(dtype)
    table: Table = {
        "var": (lambda x, far: x.var(-1), 2),
        "std": (lambda x, far: x.std(-1, correction=0), 2),
        "var_mean": (lambda x, far: torch.var_mean(x, 0)[0], 2),
    }
    if dtype == torch.float64:  # sums overflow there in eager PyTorch as well, at other places
        x = x.nan_to_num(0, 1, 1).clamp(-1e100, 1e100)
    assert_as_eager(table, (x, far))
    functions = [lambda far: far.var(-1), lambda far: far.std()]
    for got, function in zip(compile_functions(functions, (far,))(far), functions, strict=True):
        rtol = 1e-6 if dtype.itemsize > 2 else torch.finfo(dtype).eps
        torch.testing.assert_close(got.double(), function(far.double()), rtol=rtol, atol=0)


def attention_masks() -> tuple[torch.Tensor, ...]:
    keep = torch.rand(2, 1, 6, 9) > 0.4
    keep[0, 0, 2], keep[1, 0, 0], keep[1, 0, 5] = False, False, True
    bias = torch.zeros(2, 1, 6, 9).masked_fill(~keep, -INF)
    return keep, bias


def composed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-1, -2) / 4 + bias).softmax(-1) @ v


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_rows_that_keep_nothing(dtype: torch.dtype) -> None:
    keep, bias = attention_masks()
    q, k, v = (torch.randn(2, 3, n, 16, dtype=dtype) for n in (6, 9, 9))
    attention = functional.scaled_dot_product_attention
    functions = {
        "bool mask": lambda q, k, v, keep, bias: attention(q, k, v, keep),
        "added mask": lambda q, k, v, keep, bias: attention(q, k, v, bias),
        "composed": lambda q, k, v, keep, bias: composed(q, k, v, bias),
        "composed, filled": lambda q, k, v, keep, bias: (q @ k.transpose(-1, -2))
        .masked_fill(~keep, -INF)
        .softmax(-1)
        @ v,
        "composed, finite": lambda q, k, v, keep, bias: composed(q, k, v, bias.clamp_min(-1e9)),
    }

    # Sums in another order: values to a tolerance, NaN and zero rows at the very places.
    def rounded(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *args: (f(*args) * 256 + 0.01).round()

    table: Table = {name: rounded(function) for name, function in functions.items()}
    assert_as_eager(table, (q, k, v, keep, bias.to(dtype)))


@pytest.mark.parametrize("queries", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_attention_of_scores_that_are_far_apart(dtype: torch.dtype, queries: int) -> None:
    # Each row has one key, 1e4 to 1e15 above the others, whose value is the result.
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, queries, 16, generator=generator).to(dtype)
    k, v = (torch.randn(1, 4, 40, 16, generator=generator).to(dtype) for _ in range(2))
    q, k = (x * torch.tensor([1e2, 1e4, 3e5, 3e7]).view(4, 1, 1).to(dtype) for x in (q, k))
    attention = functional.scaled_dot_product_attention
    table: Table = {
        "fused": lambda q, k, v: attention(q, k, v),
        "scaled": lambda q, k, v: attention(q, k, v, scale=0.7),
        "masked": lambda q, k, v: attention(q, k, v, torch.ones(1, 40, dtype=torch.bool)),
        "composed": lambda q, k, v: (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v,
    }
    best = (q.double() @ k.double().transpose(-1, -2)).argmax(-1, keepdim=True)
    expected = v.gather(2, best.expand(-1, -1, -1, 16))
    for got in compile_functions(list(table.values()), (q, k, v))(q, k, v):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("keys", [16, 33])  # of one key alone PyTorch loses a NaN
@pytest.mark.parametrize("value", [float("nan"), INF])
def test_attention_of_one_query_that_meets_no_number(keys: int, value: float) -> None:
    q, k, v = (torch.randn(1, 3, n, 64) for n in (1, keys, keys))
    k[0, 1, keys - 1, 63] = value
    attention = functional.scaled_dot_product_attention
    (got,) = compile_functions([attention], (q, k, v))(q, k, v)
    torch.testing.assert_close(got, attention(q, k, v), equal_nan=True)


@pytest.mark.parametrize("shape", [(2, 4, 3), (1, 4, 1), (0, 4, 3), (2, 4, 0)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_norms_of_little(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.full(shape, 3.0, dtype=dtype)
    weight = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=dtype)
    table: Table = {
        "batch_norm": (lambda x, w: functional.batch_norm(x, w, w * w, w, w), 4),
        "layer_norm": (lambda x, w: functional.layer_norm(x, x.shape[1:]), 4),
        "layer_norm of columns": (
            lambda x, w: functional.layer_norm(x.transpose(1, 2), (4,), w, w),
            4,
        ),
        "rms_norm": (lambda x, w: functional.rms_norm(x.transpose(1, 2), (4,), w), 4),
        "group_norm": (lambda x, w: functional.group_norm(x, 2, w, w).half(), 4),
        "softmax": (lambda x, w: x.softmax(1), 4),
    }
    if x.numel() == 0 and shape[2] == 0:
        table = {
            k: v
            for k, v in table.items()
            if k in ("batch_norm", "layer_norm of columns", "softmax")
        }
    assert_as_eager(table, (x, weight), emulate_precision_casts=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_to_nan(dtype: torch.dtype) -> None:
    a = torch.tensor([[0.0, NAN], [INF, 1.0], [-0.0, 2.0], [1e-40, 0.3]], dtype=dtype)
    b = torch.tensor([[INF, 1.0], [0.0, 2.0], [NAN, NAN]], dtype=dtype)
    table: Table = {
        f"{name} {p}": (lambda a, b, f=f, p=p: f(a, b, p))
        for name, f in {
            "cdist": torch.cdist,
            "pdist": lambda a, b, p: functional.pdist(a, p),
        }.items()
        for p in (0.0, 1.0, 2.0, INF)
    }
    assert_as_eager(table, (a, b))


@pytest.mark.parametrize("value", [INF, -INF, NAN, 1e9, -0.0])
@pytest.mark.parametrize("sizes", [(5, 6), (4, 5, 3)])
def test_grids_of_no_place(sizes: tuple[int, ...], value: float) -> None:
    """Every mode and padding, of images and of volumes, at coordinates that are no place in them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *sizes, generator=generator)
    grid = torch.rand(2, 3, *sizes[1:], len(sizes), generator=generator) * 3 - 1.5
    grid[torch.rand(grid.shape, generator=generator) < 0.2] = value
    modes = ["bilinear", "nearest"] + (["bicubic"] if len(sizes) == 2 else [])
    table: Table = {
        f"{mode} {padding} {corners}": lambda x, g, m=mode, p=padding, c=corners: (
            (functional.grid_sample(x, g, m, p, c) * 256 + 0.01).round()
        )
        for mode in modes
        for padding in ("zeros", "border", "reflection")
        for corners in (False, True)
        if padding != "reflection" or abs(value) != 1e9  # PyTorch's remainders lose digits there
    }
    assert_as_eager(table, (x, grid))


@pytest.mark.parametrize("dtype", FLOATS)
def test_norms_of_one_element(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    x = torch.tensor([[info.max], [info.tiny], [-INF], [NAN], [-0.0], [1.5]], dtype=dtype)
    table: Table = {}
    for order in (0.0, 0.5, 1.0, 2.0, 3.0, -1.0, INF, -INF):
        table |= {
            f"{order}": lambda x, p=order: torch.linalg.vector_norm(x, p, dim=-1),
            f"{order} kept": lambda x, p=order: torch.linalg.vector_norm(x, p, dim=1, keepdim=True),
            f"{order} of one": lambda x, p=order: torch.linalg.vector_norm(x[0], p),
            f"{order} of a scalar": lambda x, p=order: torch.linalg.vector_norm(x[1, 0], p),
        }
    assert_as_eager(table, (x,))


@pytest.mark.parametrize("value", [INF, -INF, NAN])
@pytest.mark.parametrize("size", [(7, 9), (20, 5), (5, 24)])
def test_pixels_that_are_no_numbers_spread_as_far_as_the_filter(
    size: tuple[int, int], value: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 2, 11, 14, generator=generator)
    x[torch.rand(x.shape, generator=generator) < 0.02] = value
    table: Table = {
        f"{mode} {smooth}": lambda x, m=mode, a=smooth: (
            (functional.interpolate(x, size, mode=m, antialias=a) * 256 + 0.01).round()
        )
        for mode in ("bilinear", "bicubic")
        for smooth in (False, True)
    }
    assert_as_eager(table, (x,))
