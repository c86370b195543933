"""What every element-wise function of the importer is measured against: exact values in long double, inputs over the
whole range of each dtype, and errors in units in the last place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import kiln

LONG = np.longdouble
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BOUND = 4.0
Exact = Callable[..., np.ndarray]


def pointwise_targets() -> set[str]:
    """The importer's targets that PyTorch tags as element-wise, without namespace and overload."""
    names: set[str] = set()
    for target in supported_targets():
        namespace, name, overload = target.split(".")
        packet = getattr(getattr(torch.ops, namespace), name, None)
        if packet is not None and torch.Tag.pointwise in getattr(packet, overload).tags:
            names.add(name)
    return names


def supported_targets() -> list[str]:
    """All targets of the importer."""
    return kiln.supported_ops()["aten"]


# --- Exact values ---


def _erf_series(x: np.ndarray) -> np.ndarray:
    # 2 / sqrt(pi) e^(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!: every term has one sign.
    term = x.copy()
    total = x.copy()
    for n in range(1, 120):
        term = term * (2 * x * x) / (2 * n + 1)
        total = total + term
    return total * _exp_of_square(x) * 2 / np.sqrt(_PI)


def _exp_of_square(x: np.ndarray) -> np.ndarray:
    """e^(-x^2), with the digits that rounding the square would lose."""
    high = x.astype(np.float32).astype(LONG)
    return np.exp(-high * high) * np.exp(-(x - high) * (x + high))


def _erfc_fraction(x: np.ndarray) -> np.ndarray:
    # Continued fraction from its end; x >= 1.5.
    value = x.copy()
    for n in range(150, 0, -1):
        value = x + LONG(n) / 2 / value
    return _exp_of_square(x) / np.sqrt(_PI) / value


_PI = LONG("3.14159265358979323846264338327950288")
_LN2 = np.log(LONG(2))


# Up to here 1 - erf(x) has more digits than f64.
_SEAM = LONG(1.5)


def erf(x: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    far = 1 - _erfc_fraction(np.clip(a, _SEAM, LONG(150)))
    result = np.where(a < _SEAM, _erf_series(np.minimum(a, _SEAM)), far)
    return np.copysign(np.where(np.isnan(x), x, result), x)


def erfc(x: np.ndarray) -> np.ndarray:
    far = _erfc_fraction(np.clip(np.abs(x), _SEAM, LONG(150)))
    near = 1 - np.copysign(_erf_series(np.minimum(np.abs(x), _SEAM)), x)
    result = np.where(x > _SEAM, far, np.where(x < -_SEAM, 2 - far, near))
    return np.where(np.isnan(x), x, result)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * erfc(-x / np.sqrt(LONG(2)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    inner = np.sqrt(2 / _PI) * x * (1 + LONG("0.044715") * x * x)
    return x / (1 + np.exp(-2 * inner))


def softplus(beta: float, threshold: float) -> Exact:
    b = LONG(beta)
    return lambda x: np.where(x * b > threshold, x, np.log1p(np.exp(x * b)) / b)


def mish(x: np.ndarray) -> np.ndarray:
    n = np.exp(np.minimum(x, 100)) * (np.exp(np.minimum(x, 100)) + 2)
    return x * (n / (n + 2))


def elu(alpha: float, scale: float = 1) -> Exact:
    return lambda x: np.where(x > 0, x, LONG(alpha) * np.expm1(x)) * LONG(scale)


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def logit(x: np.ndarray) -> np.ndarray:
    middle = 2 * np.arctanh(2 * x - 1)
    return np.where(np.abs(2 * x - 1) < 0.5, middle, np.log(x) - np.log1p(-x))


def logaddexp(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    larger = np.maximum(a, b)
    sum_ = larger + np.log1p(np.exp(-np.abs(a - b)))
    return np.where(a == b, larger + _LN2, sum_)


def xlogy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == 0) & ~np.isnan(b), 0, a * np.log(b))


def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def hypot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(a) | np.isinf(b), LONG(np.inf), np.sqrt(a * a + b * b))


# --- Inputs ---

_BITS = {
    torch.float32: torch.int32,
    torch.float64: torch.int64,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def limits(dtype: torch.dtype) -> torch.Tensor:
    """Zeros, ones, infinities, NaN, the largest and the smallest, and where functions have their seams."""
    info = torch.finfo(dtype)
    smallest = torch.tensor(1).to(_BITS[dtype]).view(dtype).item()
    values = [
        0.0,
        smallest,
        3 * smallest,
        info.tiny,
        info.tiny * 1.5,
        info.eps,
        0.25,
        0.5,
        0.75,
        1 - info.eps / 2,
        1.0,
    ]
    values += [
        1 + info.eps,
        1.5,
        2.0,
        2.5,
        3.0,
        4.0,
        5.0,
        6.0,
        9.0,
        10.0,
        20.0,
        100.0,
        1000.0,
        8192.0,
        1e4,
        6e4,
    ]
    values += [1e10, 1e20, 3e19, 1e30, 1e200, info.max / 2, info.max, float("inf")]
    values += [float(np.pi) * k / 4 for k in range(1, 9)]
    kept = torch.tensor(values, dtype=torch.float64).to(dtype)
    return torch.cat([kept, -kept, torch.tensor([float("nan")]).to(dtype)])


def sweep(dtype: torch.dtype, count: int = 40_000) -> torch.Tensor:
    """Every value of a 16-bit dtype; of the others every exponent, and the places where results change their nature."""
    if dtype in (torch.float16, torch.bfloat16):
        return torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    generator = torch.Generator().manual_seed(1)
    width = 2 ** (32 if dtype == torch.float32 else 64)
    bits = [int(width * (i + 0.37) / count) - width // 2 for i in range(count)]
    parts = [torch.tensor(bits).to(_BITS[dtype]).view(dtype), limits(dtype)]
    for low, high in ((-1.0, 1.0), (-10, 10), (-110, 110), (-760, 760), (0, 2), (0.9, 1.1)):
        parts.append(
            (torch.rand(3000, generator=generator, dtype=torch.float64) * (high - low) + low).to(
                dtype
            )
        )
    powers = torch.arange(-1074, 1024, dtype=torch.float64)
    parts.append(torch.exp2(powers).to(dtype))
    parts.append(torch.tensor([10.0**k for k in range(-300, 300)], dtype=torch.float64).to(dtype))
    return torch.cat(parts)


def pairs(dtype: torch.dtype, count: int = 30_000) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of the limits, and random ones: of any bits, of near sizes, of ordinary numbers."""
    generator = torch.Generator().manual_seed(2)
    edge = limits(dtype)
    a, b = [edge.repeat_interleave(len(edge))], [edge.repeat(len(edge))]
    every = sweep(dtype)
    for part in (a, b):
        part.append(every[torch.randint(len(every), (count,), generator=generator)])
    near = every[torch.randint(len(every), (count // 2,), generator=generator)]
    a.append(near)
    b.append(
        (near.double() * (1 + torch.rand(len(near), generator=generator, dtype=torch.float64))).to(
            dtype
        )
    )
    for part in (a, b):
        ordinary = torch.rand(count // 2, generator=generator, dtype=torch.float64) * 20 - 10
        part.append(ordinary.to(dtype))
    return torch.cat(a), torch.cat(b)


# --- Errors ---


def to_long(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy().astype(LONG)


def ulp(dtype: torch.dtype, exact: np.ndarray) -> np.ndarray:
    """The distance of neighbouring numbers of the dtype at a value."""
    info = torch.finfo(dtype)
    lowest = int(np.log2(info.tiny))
    _, exponent = np.frexp(np.where(np.isfinite(exact), exact, 1))
    exponent = np.where(exact == 0, lowest, np.maximum(exponent - 1, lowest))
    return np.ldexp(LONG(1), exponent + int(np.log2(info.eps)))


def errors(got: torch.Tensor, exact: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """In units in the last place of the exact value, or of `scale`. Infinity counts as what follows the largest."""
    info = torch.finfo(got.dtype)
    beyond = LONG(2) ** int(np.ceil(np.log2(LONG(info.max))))
    value, true = np.clip(to_long(got), -beyond, beyond), np.clip(exact, -beyond, beyond)
    size = np.abs(true) if scale is None else np.maximum(scale, np.abs(true))
    error = np.abs(value - true) / ulp(got.dtype, np.minimum(size, LONG(info.max)))
    # Where a term overflows, what infinities make of each other depends on the order of steps.
    skipped = np.isnan(to_long(got)) & np.isnan(exact) | (
        False if scale is None else scale > info.max
    )
    return np.where(skipped, 0, np.where(np.isnan(error), np.inf, error))


@dataclass(frozen=True, eq=False)
class Function:
    """One form of an operator. Without `exact` its result is PyTorch's to the bit, but for the payloads of NaN."""

    name: str
    call: Callable[..., torch.Tensor]
    exact: Exact | None = None
    operands: int = 1
    # The exact value may cancel: errors count in units of this.
    scale: Exact | None = None
    # A rounding in the formula dominates the error, PyTorch's as well: the bound is added to it.
    inherent: bool = False
