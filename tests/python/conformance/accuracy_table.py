"""Every element-wise function of the importer, with its exact value. A new one needs a row here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accuracy import (
    LONG,
    Exact,
    Function,
    elu,
    erf,
    erfc,
    gelu,
    gelu_tanh,
    hypot,
    log_sigmoid,
    logaddexp,
    logit,
    mish,
    remainder,
    sigmoid,
    softplus,
    xlogy,
)

aten = torch.ops.aten


def _unary(name: str, exact: Exact | None = None) -> Function:
    return Function(name, getattr(aten, name).default, exact)


def _binary(name: str, exact: Exact | None = None, overload: str = "default") -> Function:
    return Function(name, getattr(getattr(aten, name), overload), exact, 2)


def _form(name: str, call: Callable[..., torch.Tensor], exact: Exact | None = None) -> Function:
    return Function(name, call, exact)


# Results that are a number of the dtype for any operand: PyTorch's to the bit.
_SAME_AS_PYTORCH = [
    "abs",
    "absolute",
    "ceil",
    "floor",
    "trunc",
    "fix",
    "round",
    "frac",
    "neg",
    "negative",
    "positive",
    "relu",
    "relu6",
    "sign",
    "sgn",
    "square",
    "clone",
    "hardshrink",
    "hardtanh",
    "softshrink",
    "isnan",
    "isinf",
    "isfinite",
    "isposinf",
    "isneginf",
    "logical_not",
    "nan_to_num",
]

_EXACT: dict[str, Exact] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": erf,
    "special_erf": erf,
    "erfc": erfc,
    "sigmoid": sigmoid,
    "special_expit": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "mish": mish,
    "softplus": softplus(1, 20),
    "elu": elu(1),
    "celu": elu(1),
    "selu": elu(1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
    "log_sigmoid": log_sigmoid,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "rrelu": lambda x: np.where(x > 0, x, x * LONG((0.125 + 1.0 / 3) / 2)),
    "leaky_relu": lambda x: np.where(x > 0, x, x * LONG(0.01)),
    "logit": logit,
}

UNARY = [_unary(name) for name in _SAME_AS_PYTORCH]
UNARY += [_unary(name, exact) for name, exact in _EXACT.items()]
UNARY += [
    _form("gelu-tanh", lambda x: aten.gelu.default(x, approximate="tanh"), gelu_tanh),
    Function(
        "softplus-beta", lambda x: aten.softplus.default(x, 2.5, 7), softplus(2.5, 7), inherent=True
    ),
    _form("softplus-threshold", lambda x: aten.softplus.default(x, 1, 0.5), softplus(1, 0.5)),
    _form("elu-alpha", lambda x: aten.elu.default(x, 0.5), elu(0.5)),
    _form(
        "celu-alpha",
        lambda x: aten.celu.default(x, 2.0),
        lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2)),
    ),
    _form(
        "logit-eps",
        lambda x: aten.logit.default(x, 0.25),
        lambda x: logit(np.clip(x, LONG(0.25), LONG(0.75))),
    ),
    _form("round-decimals", lambda x: aten.round.decimals(x, decimals=2)),
    _form("threshold", lambda x: aten.threshold.default(x, 0.5, -3.0)),
    _form("rsub", lambda x: aten.rsub.Scalar(x, 3.0)),
    _form("add-scalar", lambda x: aten.add.Tensor(x, 2.5)),
    _form("sub-scalar", lambda x: aten.sub.Tensor(x, 2.5)),
    _form("mul-scalar", lambda x: aten.mul.Tensor(x, 2.5)),
    _form("div-scalar", lambda x: aten.div.Tensor(x, 2.5), lambda x: x / LONG(2.5)),
    _form("clamp", lambda x: aten.clamp.default(x, -0.5, 3)),
    _form("clamp_min", lambda x: aten.clamp_min.default(x, 0.5)),
    _form("clamp_max", lambda x: aten.clamp_max.default(x, 0.5)),
    _form("masked_fill", lambda x: aten.masked_fill.Scalar(x, x > 1, 2.0)),
    _form("eq-scalar", lambda x: aten.eq.Scalar(x, 1.0)),
    _form("fmod-scalar", lambda x: aten.fmod.Scalar(x, 2.5), lambda x: np.fmod(x, LONG(2.5))),
    _form(
        "remainder-scalar",
        lambda x: aten.remainder.Scalar(x, -2.5),
        lambda x: remainder(x, LONG(-2.5)),
    ),
    _form(
        "floor_divide-scalar",
        lambda x: aten.floor_divide.default(x, 2.5),
        lambda x: np.floor(x / LONG(2.5)),
    ),
    _form(
        "div-trunc",
        lambda x: aten.div.Tensor_mode(x, -2.5, rounding_mode="trunc"),
        lambda x: np.trunc(x / LONG(-2.5)),
    ),
    _form("xlogy-scalar", lambda x: aten.xlogy.Scalar_Self(3, x), lambda x: 3 * np.log(x)),
    _form("pow-scalar", lambda x: aten.pow.Scalar(2.5, x), lambda x: LONG(2.5) ** x),
]
UNARY += [
    _form(f"pow{n}", lambda x, n=n: aten.pow.Tensor_Scalar(x, n), lambda x, n=n: x ** LONG(n))
    for n in (0, 0.5, -0.5, 1, -1, 2, -2, 3, 4, -3, 2.5, 7)
]

BINARY = [
    _binary(name, overload="Tensor")
    for name in ("add", "sub", "mul", "div", "true_divide", "eq", "ne", "lt", "le", "gt", "ge")
]
BINARY += [
    _binary(name) for name in ("maximum", "minimum", "logical_and", "logical_or", "logical_xor")
]
BINARY += [
    _binary("max", overload="other"),
    _binary("min", overload="other"),
    _binary("fmax", np.fmax),  # where PyTorch gives NaN for a number and a signalling NaN
    _binary("fmin", np.fmin),
    _binary("fmod", np.fmod, "Tensor"),
    _binary("remainder", remainder, "Tensor"),
    _binary("pow", np.power, "Tensor_Tensor"),
    _binary("atan2", np.arctan2),
    _binary("hypot", hypot),
    _binary("xlogy", xlogy, "Tensor"),
    Function(
        "logaddexp",
        aten.logaddexp.default,
        logaddexp,
        2,
        scale=lambda a, b: np.maximum(np.abs(a), np.abs(b)),
    ),
    Function("floor_divide", aten.floor_divide.default, lambda a, b: np.floor(a / b), 2),
    Function(
        "div-floor",
        lambda a, b: aten.div.Tensor_mode(a, b, rounding_mode="floor"),
        lambda a, b: np.floor(a / b),
        2,
    ),
    Function(
        "div-trunc",
        lambda a, b: aten.div.Tensor_mode(a, b, rounding_mode="trunc"),
        lambda a, b: np.trunc(a / b),
        2,
    ),
    Function("clip", lambda a, b: aten.clip.Tensor(a, b), None, 2),
    Function("clamp-tensor", lambda a, b: aten.clamp.Tensor(a, None, b), None, 2),
    Function("where", lambda a, b: aten.where.self(a > b, a, b), None, 2),
]


def _sum_scale(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a) + np.abs(b) + np.abs(b - a)


# Three operands, two of them drawn; errors count in units of the terms, which may cancel.
BINARY += [
    Function(
        f"lerp{weight}",
        lambda a, b, w=weight: aten.lerp.Scalar(a, b, w),
        lambda a, b, w=weight: a + LONG(w) * (b - a) if abs(w) < 0.5 else b - (b - a) * LONG(1 - w),
        2,
        scale=_sum_scale,
    )
    for weight in (0.0, 0.4, 0.5, 0.999, 1.0, -0.75)
]
BINARY += [
    Function(
        "lerp-tensor",
        lambda a, b: aten.lerp.Tensor(a, b, a),
        lambda a, b: np.where(np.abs(a) < 0.5, a + a * (b - a), b - (b - a) * (1 - a)),
        2,
        scale=lambda a, b: (np.abs(a) + np.abs(b)) * (1 + np.abs(a)),
    ),
    Function(
        "addcmul",
        lambda a, b: aten.addcmul.default(a, b, b, value=0.5),
        lambda a, b: a + b * b / 2,
        2,
        scale=lambda a, b: np.abs(a) + b * b / 2,
    ),
    Function(
        "addcdiv",
        lambda a, b: aten.addcdiv.default(a, a, b, value=0.5),
        lambda a, b: a + a / b / 2,
        2,
        scale=lambda a, b: np.abs(a) + np.abs(a / b / 2),
    ),
]

# Element-wise, with tests of their own: not functions of floating numbers, or without a formula for exact values here.
ELSEWHERE = {
    "__lshift__": "bits",
    "__rshift__": "bits",
    "__xor__": "bits",
    "_conj_physical": "a number that is not complex is its own conjugate",
    "angle": "signs",
    "bitwise_and": "bits",
    "bitwise_left_shift": "bits",
    "bitwise_not": "bits",
    "bitwise_or": "bits",
    "bitwise_right_shift": "bits",
    "bitwise_xor": "bits",
    "conj_physical": "a number that is not complex is its own conjugate",
    "convert_element_type": "casts",
    "copysign": "signs, that of a NaN being positive",
    "digamma": "test_special.py",
    "erfinv": "test_special.py",
    "frexp": "number_cases.py, to the bit",
    "gcd": "number_cases.py, integers",
    "i0": "test_special.py",
    "igamma": "test_special.py",
    "igammac": "test_special.py",
    "lcm": "number_cases.py, integers",
    "lgamma": "test_special.py",
    "mvlgamma": "test_special.py",
    "nextafter": "number_cases.py, to the bit",
    "polygamma": "test_special.py",
    "signbit": "signs, that of a NaN being positive",
    "special_airy_ai": "test_special.py",
    "special_bessel_j0": "test_special.py",
    "special_bessel_j1": "test_special.py",
    "special_bessel_y0": "test_special.py",
    "special_bessel_y1": "test_special.py",
    "special_chebyshev_polynomial_t": "test_special.py",
    "special_chebyshev_polynomial_u": "test_special.py",
    "special_chebyshev_polynomial_v": "test_special.py",
    "special_chebyshev_polynomial_w": "test_special.py",
    "special_erfcx": "test_special.py",
    "special_hermite_polynomial_h": "test_special.py",
    "special_hermite_polynomial_he": "test_special.py",
    "special_i0e": "test_special.py",
    "special_i1": "test_special.py",
    "special_i1e": "test_special.py",
    "special_laguerre_polynomial_l": "test_special.py",
    "special_legendre_polynomial_p": "test_special.py",
    "special_log_ndtr": "test_special.py",
    "special_modified_bessel_i0": "test_special.py",
    "special_modified_bessel_i1": "test_special.py",
    "special_modified_bessel_k0": "test_special.py",
    "special_modified_bessel_k1": "test_special.py",
    "special_ndtri": "test_special.py",
    "special_scaled_modified_bessel_k0": "test_special.py",
    "special_scaled_modified_bessel_k1": "test_special.py",
    "special_shifted_chebyshev_polynomial_t": "test_special.py",
    "special_shifted_chebyshev_polynomial_u": "test_special.py",
    "special_shifted_chebyshev_polynomial_v": "test_special.py",
    "special_shifted_chebyshev_polynomial_w": "test_special.py",
    "special_spherical_bessel_j0": "test_special.py",
    "special_zeta": "test_special.py",
}
