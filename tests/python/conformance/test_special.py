"""Gamma, Bessel and error functions in compiled code: no further from the exact values than PyTorch's, or by a few
units in the last place. The exact values are PyTorch's in f64; of some gamma functions they are mpmath's."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import torch
from eager import compile_functions
from test_accuracy import VARIANTS, compiled

Function = Callable[[torch.Tensor], torch.Tensor]
# Of the real line, and where it is of interest.
FUNCTIONS: dict[str, tuple[Function, float, float]] = {
    "lgamma": (torch.lgamma, -10, 40),
    "digamma": (torch.digamma, -10, 40),
    "trigamma": (lambda x: torch.polygamma(1, x), -10, 40),
    "polygamma4": (lambda x: torch.polygamma(4, x), -10, 40),
    "mvlgamma": (lambda x: torch.mvlgamma(x, 4), 1.51, 40),
    "i0": (torch.i0, -80, 80),
    "i0e": (torch.special.i0e, -200, 200),
    "i1": (torch.special.i1, -80, 80),
    "i1e": (torch.special.i1e, -200, 200),
    "erfcx": (torch.special.erfcx, -9, 100),
    "erfinv": (torch.erfinv, -1, 1),
    "ndtr": (torch.special.ndtr, -5, 8),
    "ndtri": (torch.special.ndtri, 0, 1),
    "log_ndtr": (torch.special.log_ndtr, -100, 8),
}
ORDERS = {"digamma": 0, "trigamma": 1, "polygamma4": 4}


def exact_values(name: str, x: torch.Tensor) -> torch.Tensor:
    if name not in ORDERS:
        return FUNCTIONS[name][0](x)
    values = [float(mpmath.psi(ORDERS[name], mpmath.mpf(each))) for each in x.tolist()]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_special_functions_are_near(dtype: torch.dtype, variant: str) -> None:
    inputs = []
    for name, (_, low, high) in FUNCTIONS.items():
        count = 300 if name in ORDERS or variant == "reference" else 4000
        last = high - (high - low) / count / 3  # off the poles
        inputs.append(torch.linspace(low + 0.0123, last, count, dtype=torch.float64).to(dtype))
    functions = [function for function, _, _ in FUNCTIONS.values()]

    def all_of(*x: torch.Tensor) -> list[torch.Tensor]:
        return [function(each) for function, each in zip(functions, x, strict=True)]

    results = compiled(all_of, *inputs, variant=variant)
    faults = []
    for name, function, x, got in zip(FUNCTIONS, functions, inputs, results, strict=True):
        eager, exact = function(x).double(), exact_values(name, x.double())
        scale = exact.abs()
        # PyTorch's ndtr is 1 + erf, log_ndtr the logarithm of that: units of 1.
        if name in ("lgamma", "digamma", "polygamma4", "ndtr", "log_ndtr"):
            scale = scale.clamp_min(1)  # around their zeros, too
        allowed = (eager - exact).abs() + scale * torch.finfo(dtype).eps * 64
        same = (got.double() == exact) | (got.isnan() & exact.isnan()) | (got == eager.to(dtype))
        wrong = ~(same | ((got.double() - exact).abs() <= allowed))
        if wrong.any():
            at = int(wrong.nonzero()[0])
            faults.append(
                f"{name}({x[at]}): got {got[at]}, expected {exact[at]}: {wrong.sum()} wrong"
            )
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_left_tail_of_the_normal_distribution_has_its_digits(dtype: torch.dtype) -> None:
    """PyTorch's own ndtr is 1 + erf there, of which none are left."""
    x = torch.linspace(-13, -0.5, 200, dtype=torch.float64).to(dtype)
    [got] = compile_functions([torch.special.ndtr], (x,))(x)
    expected = torch.special.erfc(x.double() * -(0.5**0.5)) / 2
    rtol = 1e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=2e-38)
