"""Matrices that operators have no ordinary result for: with NaN, with infinities, without an inverse or a factor,
and empty ones. Where PyTorch raises the run ends, with an error that says so; otherwise the results are PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import assert_as_eager, compile_functions
from torch.utils import _pytree as pytree

linear = torch.linalg
NAN, INF = math.nan, math.inf
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
GOOD = ((4.0, 1, 0.5), (1, 3, 0.2), (0.5, 0.2, 2))


def matrices(place: tuple[int, int], value: float, dtype: torch.dtype) -> torch.Tensor:
    """Two, of which the second has the value."""
    both = torch.tensor([GOOD, GOOD], dtype=dtype)
    both[1, place[0], place[1]] = value
    return both


Function = Callable[[torch.Tensor], Any]
RAISE_FOR_NAN: dict[str, Function] = {
    "svdvals": linear.svdvals,
    "svd": lambda t: linear.svd(t)[0],
    "torch_svd": lambda t: torch.svd(t)[1],
    "eigvalsh": linear.eigvalsh,
    "eigh": lambda t: linear.eigh(t)[1],
    "pinv": linear.pinv,
    "pinv_hermitian": lambda t: linear.pinv(t, hermitian=True),
    "matrix_rank": linear.matrix_rank,
    "cond": linear.cond,
    "nuclear": lambda t: linear.matrix_norm(t, "nuc"),
    "spectral": lambda t: linear.matrix_norm(t, 2),
    "least": lambda t: linear.matrix_norm(t, -2),
}


@pytest.mark.parametrize("name", RAISE_FOR_NAN)
@DTYPES
def test_nan_has_no_singular_values(name: str, dtype: torch.dtype) -> None:
    function, bad = RAISE_FOR_NAN[name], matrices((0, 0), NAN, dtype)
    with pytest.raises(torch.linalg.LinAlgError):
        function(bad)
    compiled = compile_functions([function], (bad,))
    with pytest.raises(RuntimeError, match=r"got a matrix with NaN.*expected numbers"):
        compiled(bad)
    good = matrices((0, 0), 4, dtype)
    torch.testing.assert_close(compiled(good)[0].abs(), function(good).abs(), rtol=1e-5, atol=1e-5)


@DTYPES
def test_infinities_make_nan(dtype: torch.dtype) -> None:
    functions = [
        linear.svdvals,
        lambda t: linear.svd(t)[1],
        linear.matrix_rank,
        linear.cond,
        lambda t: linear.cond(t, -2),
        lambda t: linear.matrix_norm(t, "nuc"),
        lambda t: linear.matrix_norm(t, 2),
        lambda t: linear.matrix_norm(t, -2),
    ]
    of_symmetric = [
        linear.eigvalsh,
        lambda t: linear.eigh(t)[0],
        lambda t: linear.matrix_rank(t, hermitian=True),
        lambda t: linear.pinv(t, hermitian=True),
    ]
    bad = matrices((1, 1), INF, dtype)
    compiled = compile_functions(functions + of_symmetric, (bad,))
    for place in ((1, 1), (2, 0)):
        for value in (INF, -INF):
            bad = matrices(place, value, dtype)
            results = compiled(bad)
            for function, result in zip(functions, results, strict=False):
                torch.testing.assert_close(result, function(bad), equal_nan=True)
            # For some of these LAPACK's steps for symmetric matrices do not end, and PyTorch raises.
            values, same_values, rank, inverse = results[len(functions) :]
            assert values[1].isnan().all() and same_values[1].isnan().all()
            assert rank[1] == 0 and not inverse[1].any()
            assert values[0].isfinite().all() and rank[0] == 3 and inverse[0].all()


@DTYPES
def test_only_the_triangle_that_counts_is_looked_at(dtype: torch.dtype) -> None:
    bad = matrices((0, 2), NAN, dtype)
    table: dict[str, Any] = {
        "lower": (linear.eigvalsh, 50),
        "cholesky": (linear.cholesky, 4),
        "cholesky_ex": (lambda t: linear.cholesky_ex(t)[0], 4),
    }
    assert_as_eager(table, (bad,))
    with pytest.raises(RuntimeError, match="NaN"):
        compile_functions([lambda t: linear.eigvalsh(t, UPLO="U")], (bad,))(bad)


def without_inverse(dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([GOOD, ((1, 2, 3), (2, 4, 6), (1, 0, 1))], dtype=dtype)


SINGULAR: dict[str, tuple[Function, str]] = {
    "inv": (linear.inv, "a singular matrix, expected one that has an inverse"),
    "inv_ex": (lambda t: linear.inv_ex(t, check_errors=True)[0], "a singular matrix"),
    "solve": (lambda t: linear.solve(t, t[..., 0]), "a singular matrix"),
    "tensorinv": (lambda t: linear.tensorinv(t[1], ind=1), "a singular matrix"),
    "matrix_power": (lambda t: linear.matrix_power(t, -2), "a singular matrix"),
    "lu_factor": (lambda t: linear.lu_factor(t)[0], "a singular matrix, expected one whose"),
    "cholesky": (linear.cholesky, "a matrix that is not positive-definite"),
    "cholesky_ex": (lambda t: linear.cholesky_ex(t, check_errors=True)[0], "not positive-definite"),
}


@pytest.mark.parametrize("name", SINGULAR)
@DTYPES
def test_without_inverse_or_factor_the_run_says_so(name: str, dtype: torch.dtype) -> None:
    function, text = SINGULAR[name]
    bad = without_inverse(dtype)
    with pytest.raises(RuntimeError):
        function(bad)
    compiled = compile_functions([function], (bad,))
    with pytest.raises(RuntimeError, match=rf"^\[\w+\] got {text}|got .*{text}") as caught:
        compiled(bad)
    assert "integers" not in str(caught.value)


@DTYPES
def test_cholesky_ex_leaves_what_lapack_does(dtype: torch.dtype) -> None:
    bad = torch.tensor(
        [
            [[4.0, 2, 2, 7], [2, 5, 5, 8], [2, 5, 9, 3], [1, 2, 3, 4]],
            [[4.0, 2, 2, 7], [2, -1, 5, 8], [2, 5, 9, 3], [1, 2, 3, 4]],
            [[-4.0, 2, 2, 7], [2, -1, 5, 8], [2, 5, 9, 3], [1, 2, 3, 4]],
            [[4.0, 2, 2, 7], [2, 5, 5, 8], [2, 5, 9, 3], [1, 2, 3, 0]],
            [[0.0, 0, 0, 0], [0, 5, 5, 8], [0, 5, 9, 3], [0, 2, 3, 0]],
            [[NAN, 0, 0, 0], [0, 5, 5, 8], [0, 5, 9, 3], [0, 2, 3, 0]],
        ],
        dtype=dtype,
    )
    table: dict[str, Any] = {
        "lower": (lambda t: linear.cholesky_ex(t)[0], 8),
        "upper": (lambda t: linear.cholesky_ex(t, upper=True)[0], 8),
        "info": lambda t: linear.cholesky_ex(t)[1],
        "upper_info": lambda t: linear.cholesky_ex(t, upper=True)[1],
    }
    assert_as_eager(table, (bad,))


def reconstructed(t: torch.Tensor) -> list[torch.Tensor]:
    """What vectors make up, which does not depend on their signs."""
    u, s, vh = linear.svd(t)
    k = s.shape[-1]
    thin = linear.svd(t, full_matrices=False)
    some = torch.svd(t)
    all_of = torch.svd(t, some=False)
    none = torch.svd(t, compute_uv=False)
    return [
        *(s, (u[..., :k] * s.unsqueeze(-2)) @ vh[..., :k, :], u.mT @ u, vh @ vh.mT),
        *((thin[0] * thin[1].unsqueeze(-2)) @ thin[2], thin[0].mT @ thin[0]),
        *((some[0] * some[1].unsqueeze(-2)) @ some[2].mT, some[2].mT @ some[2]),
        *(all_of[0].mT @ all_of[0], all_of[2].mT @ all_of[2], none[0], none[1], none[2]),
    ]


def of_symmetric(t: torch.Tensor) -> list[torch.Tensor]:
    results = []
    for side in ("L", "U"):
        w, v = linear.eigh(t, UPLO=side)
        results += [w, (v * w.unsqueeze(-2)) @ v.mT, v.mT @ v]
    return results


SHAPES = ((4, 4), (2, 5, 3), (2, 3, 5), (1, 4), (4, 1), (1, 1), (0, 3), (3, 0), (2, 0, 0), (40, 7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_vectors_make_up_the_matrix(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    given = [torch.randn(*shape, dtype=dtype) for shape in SHAPES]
    given += [
        torch.zeros(3, 4, dtype=dtype),
        torch.ones(4, 3, dtype=dtype),
        torch.eye(5, dtype=dtype),
        torch.diag(torch.tensor([3.0, 0, 2, -1, 0], dtype=dtype)),
        torch.randn(6, 2, dtype=dtype) @ torch.randn(2, 5, dtype=dtype),
    ]
    square = [t + t.mT for t in given if t.shape[-1] == t.shape[-2]]

    def all_of(tall: list[torch.Tensor], symmetric: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            *(x for t in tall for x in reconstructed(t)),
            *(x for t in symmetric for x in of_symmetric(t)),
        ]

    compiled = compile_functions([all_of], (given, square))
    results = pytree.tree_leaves(compiled(given, square))
    again = pytree.tree_leaves(compiled(given, square))
    rtol = 1e-5 if dtype == torch.float32 else 1e-13
    for result, repeated, expected in zip(results, again, all_of(given, square), strict=True):
        assert torch.equal(result, repeated)
        scale = float(expected.abs().max()) if expected.numel() else 1.0
        torch.testing.assert_close(result, expected, rtol=rtol, atol=rtol * max(scale, 1))


@DTYPES
def test_conditions_of_empty_matrices_are_zero(dtype: torch.dtype) -> None:
    for shape in ((0, 0), (2, 0, 0), (3, 0)):
        empty = torch.zeros(*shape, dtype=dtype)
        assert_as_eager({"cond": linear.cond, "rank": linear.matrix_rank}, (empty,))


@DTYPES
def test_conditions_by_other_norms(dtype: torch.dtype) -> None:
    both = torch.stack([torch.tensor(GOOD, dtype=dtype), torch.randn(3, 3, dtype=dtype)])
    table: dict[str, Any] = {
        str(p): (lambda t, p=p: linear.cond(t, p), 200) for p in (1, -1, INF, -INF, "fro")
    }
    assert_as_eager(table, (both,))
    assert_as_eager(table, (torch.zeros(2, 3, 3, dtype=dtype),))
    assert_as_eager(table, (matrices((0, 0), NAN, dtype),))
    assert_as_eager(table, (torch.zeros(0, 0, dtype=dtype),))


@DTYPES
def test_signs_of_nan_and_exponentials_of_infinities(dtype: torch.dtype) -> None:
    table: dict[str, Any] = {
        "sign": lambda t: linear.slogdet(t)[0],
        "logarithm": (lambda t: linear.slogdet(t)[1], 8),
    }
    assert_as_eager(table, (matrices((2, 2), NAN, dtype),))
    for value in (INF, -INF, NAN):
        for place in ((0, 0), (1, 2)):
            assert_as_eager({"exp": (torch.matrix_exp, 64)}, (matrices(place, value, dtype),))
        assert_as_eager({"exp": torch.matrix_exp}, (torch.full((2, 1, 1), value, dtype=dtype),))
