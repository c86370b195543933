"""Cases of complex tensors, Fourier transforms and small matrices. Inputs and results are real: engines have a complex
tensor as its parts at their boundary, which tests/python/frontend/test_complex.py looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as fn
from op_cases import SPECIAL, Family, ints, rand

PARTS = (torch.float32, torch.float64)


def real(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of operands that are pairs: the function of the complex numbers, and its results as pairs."""

    def apply(*tensors: torch.Tensor) -> Any:
        result = function(*(torch.view_as_complex(tensor) for tensor in tensors))
        many = result if isinstance(result, (tuple, list)) else (result,)
        return [
            torch.view_as_real(each.resolve_conj()) if each.is_complex() else each for each in many
        ]

    return apply


INVERSES = ("asin", "acos", "atan", "asinh", "acosh", "atanh", "log1p", "expm1")


def functions() -> Family:
    """Numbers of every size, on and beside the branch cuts."""
    family = Family("complex-function")
    for dtype in (torch.complex64, torch.complex128):
        edges = torch.tensor(
            [0, 1, -1, 1j, -1j, 0.5, -0.5, 2, -2, 2j, -2j, 1 + 1e-3j, 1 - 1e-3j, -1 + 1e-3j,
             complex(2, -0.0), complex(-2, -0.0), complex(-0.0, 2), complex(-0.0, 0.5)], dtype=dtype
        )  # fmt: skip
        edges = torch.view_as_real(edges)
        for name in INVERSES:
            function = getattr(torch, name)
            label = f"{name}-{str(dtype).removeprefix('torch.')}"
            # A test of the norm alone would not see the digits of small numbers: one case for each size.
            family.add(f"{label}-edges", real(function), edges)
            for scale in (1, 1e-3, 1e3):
                x = rand(30, 2, dtype=edges.dtype) * scale
                family.add(f"{label}-{scale}", real(function), x)
    return family


def sums() -> Family:
    """Products, moments, sums of products, writes by index, and constants."""
    family = Family("complex-sums")
    index, rows = torch.tensor([[0, 1, 2, 0]]), torch.tensor([0, 2])
    mask = torch.tensor([True, False, True])
    c = torch.complex64
    cases: dict[str, Callable[..., Any]] = {
        "products": lambda a, b: (
            a.prod(), a.prod(1), a.prod(0, keepdim=True), a[:0].prod(0), a.cumprod(0), a.cumprod(1), a[0, 0].prod(),
        ),
        "moments": lambda a, b: (
            a.var(), a.std(1), a.var(0, correction=0, keepdim=True), *torch.var_mean(a, 1), *torch.std_mean(a),
        ),
        "added": lambda a, b: (
            torch.addcmul(a, b, a), torch.addcmul(a, b, a, value=2 - 1j), torch.addcdiv(a, b, a, value=0.5),
        ),
        "lerp": lambda a, b: (
            torch.lerp(a, b, 0.3), torch.lerp(a, b, 0.8), torch.lerp(a, b, a), torch.lerp(a, b, 0.3 - 0.7j),
        ),
        "addmv": lambda a, b: (torch.addmv(a[:, 0], a, b[0]), torch.addmv(a[:, 0], a, b[0], alpha=2j, beta=0.5)),
        "addbmm": lambda a, b: torch.addbmm(a @ b.mT, a.expand(2, 3, 4), b.mT.expand(2, 4, 3), alpha=2, beta=1j),
        "rsub": lambda a, b: (torch.rsub(a, b, alpha=2), torch.rsub(a, b, alpha=2 - 1j)),
        "cross": lambda a, b: torch.linalg.cross(a, b, dim=0),
        "logsumexp": lambda a, b: (torch.logsumexp(a, 0), torch.logsumexp(a * 50, (0, 1), keepdim=True)),
        "convolution": lambda a, b: (
            fn.conv1d(a[None], b[None, :, :2], b[:1, 0]), fn.conv1d(a[None], b[None, :, :3], padding="same"),
            fn.conv2d(a[None, None], b[None, None, :2, :2], b[0, :1]),
            fn.conv_transpose2d(a[None, None], b[None, None, :2, :2], b[0, :1], stride=2),
        ),
        "constants": lambda a, b: (
            torch.zeros_like(a), torch.zeros_like(a, dtype=torch.float32), torch.ones_like(a, dtype=torch.float64),
            a.new_zeros(3), a.new_zeros(2, dtype=torch.int64), torch.full_like(a, 2), a.new_full((2,), 3j),
            torch.scalar_tensor(2 - 1j, dtype=c), torch.fill(a, 2j), torch.fill(a, torch.tensor(3 - 1j)),
            torch.linspace(1 - 1j, 2 + 3j, 5, dtype=c), torch.linspace(0, 1j, 1, dtype=c), torch.eye(2, 4, dtype=c),
        ),
        "values": lambda a, b: (
            fn.pad(a, (1, 2), value=2.0), torch.ops.aten.constant_pad_nd(a, [1, -1], 2 - 3j),
            a.index_fill(0, rows, 2 - 1j), a.index_fill(1, rows, 3.0), a.masked_fill(a.real > 0, 1 - 1j),
        ),
        "writes": lambda a, b: (
            a.index_put((rows,), b[:2]), a.index_put((rows * 0,), b[:2], accumulate=True), a.index_put((mask,), b[:2]),
            a.scatter(0, index, b), a.scatter(0, index, 2 - 1j), a.scatter(0, index, 2.0), a.scatter_add(0, index, b),
            torch.put(a, rows, b[0, :2]),
        ),
        "mixed": lambda a, b: (torch.cat([a, b.real]), torch.stack([a.real, b])),
        "copies": lambda a, b: (
            *torch.unbind_copy(a), *torch.split_with_sizes_copy(a, [1, 2]), *torch.split_copy(a, 2),
        ),
        "norm": lambda a, b: torch.linalg.vector_norm(a, dtype=torch.complex128),
    }  # fmt: skip
    for name, function in cases.items():
        family.add(name, real(function), rand(3, 4, 2), rand(3, 4, 2))
    turns = torch.view_as_real(torch.polar(torch.ones(37, 2), rand(37, 2)))
    family.add("many", real(lambda a: (a.prod(0), a.cumprod(0))), turns)
    return family


def arithmetic() -> Family:
    family = Family("complex")
    functions: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "add-alpha": lambda a, b: torch.add(a, b, alpha=3),
        "add-real": lambda a, b: a + b.real,
        "sub": lambda a, b: a - b,
        "rsub": lambda a, b: (1 - a, (2 - 1j) - b),
        "mul": lambda a, b: a * b,
        "mul-number": lambda a, b: (a * 2, a * 1j, b * (0.5 - 2j)),
        "mul-real": lambda a, b: (a * b.imag, b.real * a),
        "div": lambda a, b: a / b,
        "div-number": lambda a, b: (a / 3, 1 / a, a / 2j),
        "abs": lambda a, b: (a.abs(), b.abs()),
        "angle": lambda a, b: (a.angle(), b.real.angle()),
        "conj": lambda a, b: (a.conj(), a * b.conj()),
        "parts": lambda a, b: (a.real, b.imag, torch.complex(a.imag, b.real)),
        "polar": lambda a, b: torch.polar(a.real.abs(), b.imag),
        "exp": lambda a, b: (a.exp(), torch.exp(b.imag * 1j)),
        "log": lambda a, b: a.log(),
        "powers": lambda a, b: (a**2, a.square(), b**3, a**0.5, a.sgn()),
        "comparisons": lambda a, b: (a == a, a != b, a.isnan(), a.isfinite(), a.isinf()),
        "convert": lambda a, b: (a.to(torch.complex128), a.real.to(b.dtype), a.clone()),
        "sums": lambda a, b: (a.sum(), a.mean(1), b.cumsum(0), a.sum(1, keepdim=True)),
        "matmul": lambda a, b: (a @ b.mT, a[0] @ b[0], a @ b[0]),
        "einsum": lambda a, b: torch.einsum("ij,kj->ik", a, b),
        "einsum-one": lambda a, b: (torch.einsum("ij->j", a), torch.einsum("ij->ji", b)),
        "einsum-three": lambda a, b: torch.einsum("ij,kj,ki->j", a, b, a[:, :1].expand(-1, a.shape[0])),
        "roots": lambda a, b: (a.sqrt(), b.rsqrt(), (a.real * a.abs()).to(a.dtype).sqrt()),
        "sines": lambda a, b: (a.sin(), a.cos(), b.tan(), a.sinh(), a.cosh(), b.tanh()),
        "exponents": lambda a, b: (a.exp2(), b.log2(), a.log10(), a.sigmoid(), fn.silu(b)),
        "power": lambda a, b: (a**b, 2**a, (a * 0) ** (b.abs() + b * 1j)),
        "truth": lambda a, b: (
            a.logical_not(), a.logical_and(b * 0), (a * 0).logical_or(b), a.logical_xor(b),
            (a * 0).any(), a.any(1), a.all(0, keepdim=True), a.count_nonzero(1),
        ),
        "norms": lambda a, b: (
            a.norm(), *(torch.linalg.vector_norm(b, p, 1) for p in (2, 1, 0, 3, float("inf"), -float("inf"))),
        ),
        "added-products": lambda a, b: (
            torch.addmm(a @ b.mT, a, b.mT, beta=2, alpha=0.5), fn.linear(a, b), fn.linear(a, b, b[:, 0]),
        ),
        "places": lambda a, b: (
            a.as_strided((2, 2), (3, 1), 1), torch.as_strided_scatter(a, b[:1, :2], (1, 2), (1, 2)),
            a.diff(), torch.full_like(a, 2 - 1j), a.new_ones(3), torch.where(a.real > 0, a, 2.0),
        ),
        "shapes": lambda a, b: (
            a.reshape(-1), a.t(), a[:, 1:3], a[1], a.unsqueeze(1), a.flip(0), a.roll(1, 1),
            a.permute(1, 0), a.expand(2, *a.shape), *a.split(2), *b.chunk(2, 1), a.repeat(1, 2),
        ),
        "join": lambda a, b: (torch.cat([a, b], 1), torch.stack([a, b]), *a.unbind(0)),
        "choose": lambda a, b: (
            torch.where(a.real > 0, a, b), a.masked_fill(b.real > 0, 2), a.tril(),
            a[torch.tensor([1, 0, 1])], torch.zeros_like(a), torch.ones_like(b) * a,
        ),
        "pad": lambda a, b: fn.pad(a, (1, 2)),
    }  # fmt: skip
    for name, function in functions.items():
        family.add(name, real(function), rand(3, 4, 2), rand(3, 4, 2))
    for name in ("add", "mul", "div", "abs", "matmul", "conj"):
        family.add(
            f"{name}-f64", real(functions[name]), *(rand(3, 4, 2, dtype=PARTS[1]) for _ in "ab")
        )
    for name in ("mul", "div", "exp", "abs"):
        family.add(f"{name}-nothing", real(functions[name]), rand(0, 4, 2), rand(0, 4, 2))
    special = torch.cartesian_prod(SPECIAL[:8], SPECIAL[:8])
    family.add("special-mul", real(lambda a: (a * a, a.abs(), a + 1)), special)
    family.add("broadcast", real(lambda a, b: (a * b, a + b)), rand(3, 1, 2), rand(4, 2))
    table = torch.polar(rand(5, 4), rand(5, 4))
    family.add(
        "rotary", lambda x: torch.view_as_real(torch.view_as_complex(x) * table), rand(2, 5, 4, 2)
    )
    family.add("weight-view", real(lambda a: a * table.t()[:, ::2]), rand(4, 3, 2))
    return family


# One product, two factors, factors of factors, primes by one product and by a convolution.
LENGTHS = (1, 2, 7, 8, 64, 65, 97, 128, 131, 400, 1000, 1046)


def fourier() -> Family:
    family = Family("fourier")
    for n in LENGTHS:
        family.add(f"fft-{n}", real(torch.fft.fft), rand(2, n, 2))
        family.add(f"ifft-{n}", real(torch.fft.ifft), rand(2, n, 2))
        family.add(f"rfft-{n}", lambda x: torch.view_as_real(torch.fft.rfft(x)), rand(2, n))
        family.add(
            f"irfft-{n}", real(lambda x, n=n: torch.fft.irfft(x, n=n)), rand(2, n // 2 + 1, 2)
        )
    for norm in ("backward", "forward", "ortho"):
        for name in ("fft", "ifft", "irfft", "hfft", "fft2", "ifft2", "irfft2", "fftn", "irfftn"):
            function = getattr(torch.fft, name)
            family.add(
                f"{name}-{norm}", real(lambda x, f=function, m=norm: f(x, norm=m)), rand(3, 6, 5, 2)
            )
        for name in ("rfft", "ihfft", "rfft2", "rfftn", "fft", "fftn"):
            function = getattr(torch.fft, name)
            family.add(
                f"{name}-of-real-{norm}",
                lambda x, f=function, m=norm: torch.view_as_real(f(x, norm=m).resolve_conj()),
                rand(3, 6, 5),
            )
    family.add(
        "f64",
        real(lambda x: (torch.fft.fft(x), torch.fft.irfft(x))),
        rand(2, 90, 2, dtype=PARTS[1]),
    )
    family.add("integers", lambda x: torch.view_as_real(torch.fft.fft(x)), ints(9))
    family.add(
        "first-axis",
        real(lambda x: (torch.fft.fft(x, dim=0), torch.fft.ifft(x, 5, dim=-2))),
        rand(6, 4, 2),
    )
    family.add(
        "resized",
        real(lambda x: (torch.fft.fft(x, 9), torch.fft.fft(x, 3), torch.fft.irfft(x, 20))),
        rand(2, 6, 2),
    )
    family.add(
        "resized-2d",
        real(lambda x: (torch.fft.fft2(x, s=(4, 9)), torch.fft.irfft2(x, s=(3, 8)))),
        rand(6, 4, 2),
    )
    family.add("axes", real(lambda x: torch.fft.fftn(x, dim=(0, 2))), rand(3, 4, 5, 2))
    family.add("mixing", lambda x: torch.fft.fftn(x, dim=(1, 2)).real, rand(2, 5, 8))
    family.add(
        "shift",
        real(lambda x: (torch.fft.fftshift(x), torch.fft.ifftshift(x, dim=1))),
        rand(3, 4, 2),
    )
    return family


def spectrogram() -> Family:
    family = Family("spectrogram")
    window, short = torch.hann_window(16), torch.hamming_window(12)
    options: dict[str, dict[str, Any]] = {
        "hann": {"n_fft": 16, "window": window},
        "step": {"n_fft": 16, "hop_length": 5, "window": window},
        "short-window": {"n_fft": 16, "win_length": 12, "window": short},
        "no-window": {"n_fft": 16, "hop_length": 4, "window": torch.ones(16)},
        "normalized": {"n_fft": 16, "window": window, "normalized": True},
        "two-sided": {"n_fft": 16, "window": window, "onesided": False},
        "odd": {"n_fft": 15, "hop_length": 4, "window": torch.ones(15)},
    }
    for name, given in options.items():
        family.add(
            f"stft-{name}",
            lambda x, o=given: torch.view_as_real(torch.stft(x, **o, return_complex=True)),
            rand(2, 64),
        )
        with_sides = {"onesided": True} | given
        bins = given["n_fft"] if not with_sides["onesided"] else given["n_fft"] // 2 + 1
        spectrum = torch.view_as_real(
            torch.stft(rand(2, 64), **given, return_complex=True)
        ).contiguous()
        assert spectrum.shape[1] == bins
        if name != "odd":  # which torch.export does not trace
            family.add(f"istft-{name}", real(lambda x, o=given: torch.istft(x, **o)), spectrum)
    family.add(
        "stft-inside",
        lambda x: torch.stft(x, 16, 4, window=window, center=False, return_complex=True).abs(),
        rand(64),
    )
    family.add(
        "stft-400",
        lambda x: torch.stft(x, 400, 160, window=torch.hann_window(400), return_complex=True).abs()
        ** 2,
        rand(1, 1600),
    )
    spectrum = torch.view_as_real(
        torch.stft(rand(64), 16, 4, window=window, return_complex=True)
    ).contiguous()
    for length in (40, 70):
        family.add(
            f"istft-length-{length}",
            real(lambda x, n=length: torch.istft(x, 16, 4, window=window, length=n)),
            spectrum,
        )
    return family


def finite_or_0(x: torch.Tensor) -> torch.Tensor:
    """Matrices, [.., m, n], with zeros for those that have infinities or NaN."""
    finite = torch.isfinite(x).flatten(-2).all(-1)
    return torch.where(finite[..., None, None], x, torch.zeros_like(x))


def linalg() -> Family:
    family = Family("linalg")
    linear = torch.linalg
    for dtype in PARTS:
        for n in (1, 2, 5, 32):
            name = f"{n}-{str(dtype).removeprefix('torch.')}"
            a = rand(2, n, n, dtype=dtype) + torch.eye(n, dtype=dtype) * 4
            positive = a @ a.mT + torch.eye(n, dtype=dtype)
            b, lower = rand(2, n, 3, dtype=dtype), positive.cholesky()
            family.add(f"inverse-{name}", linear.inv, a)
            family.add(
                f"solve-{name}",
                lambda t, u: (linear.solve(t, u), linear.solve(t, u.mT, left=False)),
                a,
                b,
            )
            family.add(
                f"det-{name}", lambda t: (linear.det(t), *linear.slogdet(t), t.logdet()), positive
            )
            family.add(
                f"cholesky-{name}",
                lambda t: (linear.cholesky(t), linear.cholesky(t, upper=True)),
                positive,
            )
            family.add(
                f"triangular-{name}",
                lambda t, u: (
                    linear.solve_triangular(t, u, upper=False),
                    linear.solve_triangular(t.mT, u, upper=True),
                    linear.solve_triangular(t, u.mT, upper=False, left=False),
                    linear.solve_triangular(t, u, upper=False, unitriangular=True),
                    torch.triangular_solve(u, t, upper=False, transpose=True)[0],
                ),
                lower, b,
            )  # fmt: skip
            family.add(
                f"by-factor-{name}",
                lambda t, u: (torch.cholesky_solve(u, t), torch.cholesky_inverse(t[0])),
                lower,
                b,
            )
    permuted = torch.tensor([[0.0, 2, 1], [1, 0, 0], [0, 0, 3]])
    family.add("zero-diagonal", lambda t: (linear.inv(t), linear.det(t)), permuted)
    family.add("singular-det", lambda t: (linear.det(t), *linear.slogdet(t)), torch.ones(3, 3))
    family.add("singular-info", lambda t: linear.inv_ex(t)[1], torch.ones(3, 3))
    # Infinities or NaN, which PyTorch's libraries differ in, wherever there is no inverse.
    mixed = torch.stack([torch.ones(3, 3), permuted, torch.zeros(3, 3), permuted * 2])
    family.add("singular-inverse", lambda t: finite_or_0(linear.inv_ex(t)[0]), mixed)
    for name, left in {"left": True, "right": False}.items():
        family.add(
            f"singular-solution-{name}",
            lambda t, b, left=left: finite_or_0(linear.solve_ex(t, b, left=left)[0]),
            mixed,
            rand(4, 3, 3),
        )
    family.add(
        "cholesky-info", lambda t: linear.cholesky_ex(t)[1], torch.diag(torch.tensor([1.0, -1, 2]))
    )
    family.add("vector", lambda t, u: linear.solve(t, u), rand(3, 3) + 4 * torch.eye(3), rand(3))
    family.add(
        "broadcast",
        lambda t, u: linear.solve(t, u),
        rand(2, 1, 3, 3) + 4 * torch.eye(3),
        rand(5, 3, 2),
    )
    family.add(
        "power",
        lambda t: [linear.matrix_power(t, n) for n in (0, 1, 5, -2)],
        rand(2, 3, 3) + 4 * torch.eye(3),
    )
    family.add(
        "tensorinv",
        lambda t: linear.tensorinv(t),
        rand(2, 3, 6) + torch.eye(6).reshape(2, 3, 6) * 4,
    )
    family.add(
        "tensorinv-one",
        lambda t: linear.tensorinv(t, ind=1),
        rand(6, 3, 2) + torch.eye(6).reshape(6, 3, 2) * 4,
    )
    return family


def experts() -> Family:
    family = Family("experts")
    ends = torch.tensor([2, 2, 5, 7], dtype=torch.int32)
    for name, rows in (("few", 1), ("many", 7), ("behind", 9)):
        family.add(
            f"grouped-{name}",
            lambda x, w: torch._grouped_mm(x, w, ends.clamp(max=len(x)))[:7],
            rand(rows, 16, dtype=torch.bfloat16),
            rand(4, 16, 8, dtype=torch.bfloat16),
        )
    pair = (rand(4, 8, 16, dtype=torch.bfloat16), rand(4, 16, 8, dtype=torch.bfloat16))
    family.add("batched", torch._grouped_mm, *pair)
    for bins in (1, 4, 50):
        family.add(
            f"histc-{bins}",
            lambda x, n=bins: (torch.histc(x, n, -1, 2), torch.histc(x, n)),
            rand(60),
        )
    family.add(
        "histc-edges",
        lambda x: torch.histc(x, 4, 0, 4),
        torch.tensor([0.0, 1, 2, 3, 4, 5, -1, 3.999]),
    )
    family.add("histc-nan", lambda x: torch.histc(x, 4, -3, 3), SPECIAL)
    family.add("histc-one", lambda x: torch.histc(x, 3), torch.full((4,), 2.0))
    return family


def resize() -> Family:
    family = Family("antialias")
    for mode in ("bilinear", "bicubic"):
        for size in ((3, 5), (7, 9), (20, 4), (1, 1)):
            for aligned in (False, True):
                name = f"{mode}-{size[0]}x{size[1]}-{aligned}"
                family.add(
                    name,
                    lambda x, m=mode, s=size, a=aligned: fn.interpolate(
                        x, s, mode=m, antialias=True, align_corners=a
                    ),
                    rand(2, 3, 7, 9),
                )
        family.add(
            f"{mode}-scale",
            lambda x, m=mode: fn.interpolate(x, scale_factor=0.3, mode=m, antialias=True),
            rand(1, 2, 40, 30),
        )
        family.add(
            f"{mode}-wide",
            lambda x, m=mode: fn.interpolate(x, 4, mode=m, antialias=True),
            rand(1, 1, 200, 90),
        )
        for dtype in (torch.float64,):
            family.add(
                f"{mode}-{dtype}",
                lambda x, m=mode: fn.interpolate(x, 5, mode=m, antialias=True),
                rand(1, 2, 8, 9, dtype=dtype),
            )
    for aligned in (False, True):
        family.add(
            f"affine-grid-{aligned}",
            lambda t, a=aligned: fn.affine_grid(t, [2, 3, 5, 1], align_corners=a),
            rand(2, 2, 3),
        )
        family.add(
            f"affine-grid-3d-{aligned}",
            lambda t, a=aligned: fn.affine_grid(t, [2, 3, 4, 5, 6], align_corners=a),
            rand(2, 3, 4),
        )
    return family


FAMILIES = [
    arithmetic(),
    fourier(),
    spectrogram(),
    linalg(),
    experts(),
    resize(),
    functions(),
    sums(),
]
