"""Cases of factors of small matrices, of their singular values and eigenvalues, and of what follows from these."""

from __future__ import annotations

import torch
from op_cases import Family, rand, short

linear = torch.linalg
PARTS = (torch.float32, torch.float64)
SHAPES = (
    (4, 4),
    (2, 3, 3),
    (5, 3),
    (3, 5),
    (2, 2, 1, 1),
    (1, 4),
    (4, 1),
    (2, 0, 0),
    (0, 3),
    (3, 0),
    (40, 6),
)
EDGES = {
    "zeros": torch.zeros(3, 3),
    "diagonal": torch.diag(torch.tensor([3.0, 0, 2, -1])),
    "upper": torch.triu(rand(4, 4)),
    "eye": torch.eye(3),
    "large": rand(4, 4, dtype=torch.float64) * 1e200,
    "small": rand(4, 4, dtype=torch.float64) * 1e-200,
}  # fmt: skip


def solutions(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    factors = linear.lu_factor(a)
    return [
        linear.lu_solve(*factors, b),
        linear.lu_solve(*factors, b, adjoint=True),
        linear.lu_solve(*factors, b.mT, left=False),
        linear.lu_solve(*factors, b.mT, left=False, adjoint=True),
        torch.lu_solve(b, *factors),
    ]


def reflections(a: torch.Tensor) -> list[torch.Tensor]:
    packed = torch.geqrf(a)
    return [
        *packed,
        linear.householder_product(*packed),
        torch.ormqr(*packed, a),
        torch.ormqr(*packed, a, transpose=True),
        torch.ormqr(*packed, a.mT, left=False),
        torch.ormqr(*packed, a.mT, left=False, transpose=True),
    ]


def factors() -> Family:
    family = Family("factors")
    for shape in SHAPES:
        for dtype in PARTS:
            a, name = rand(*shape, dtype=dtype), f"{shape}-{short(dtype)}"
            family.add(
                f"qr-{name}",
                lambda t: (
                    *linear.qr(t), *linear.qr(t, mode="complete"), linear.qr(t, mode="r")[1], *torch.qr(t),
                ),
                a,
            )  # fmt: skip
            family.add(f"lu-{name}", lambda t: (*linear.lu(t), *linear.lu_factor_ex(t)), a)
            if a.numel() == 0:
                continue
            family.add(
                f"unpack-{name}",
                lambda t: (
                    *torch.lu_unpack(*linear.lu_factor(t)),
                    torch.lu_unpack(*linear.lu_factor(t), unpack_data=False)[0],
                ),
                a,
            )
            if shape[-1] == shape[-2]:
                family.add(f"solve-{name}", solutions, a, rand(*shape[:-1], 3, dtype=dtype))
            if shape[-2] >= shape[-1]:
                family.add(f"reflections-{name}", reflections, a)
    for name, a in EDGES.items():
        family.add(f"qr-{name}", lambda t: linear.qr(t), a)
        family.add(f"lu-{name}", lambda t: (*linear.lu(t), *linear.lu_factor_ex(t)), a)
    return family


def values() -> Family:
    family = Family("singular")
    for shape in SHAPES:
        for dtype in PARTS:
            a, name = rand(*shape, dtype=dtype), f"{shape}-{short(dtype)}"
            family.add(
                f"values-{name}",
                lambda t: (linear.svdvals(t), linear.svd(t)[1]),
                a,
            )
            family.add(
                f"pinv-{name}",
                lambda t: (
                    linear.pinv(t), torch.pinverse(t), linear.pinv(t, rtol=0.3), linear.pinv(t, atol=0.5),
                    linear.pinv(t, rcond=0.2),
                ),
                a,
            )  # fmt: skip
            if shape[-1] == shape[-2]:
                family.add(
                    f"eigenvalues-{name}",
                    lambda t: (
                        linear.eigvalsh(t),
                        linear.eigvalsh(t, UPLO="U"),
                        linear.eigh(t)[0],
                    ),
                    a,
                )
                family.add(
                    f"exp-{name}",
                    lambda t: [torch.matrix_exp(t * s) for s in (1, 4, 1e-3, 0)],
                    a,
                )
            if a.numel() == 0:
                continue
            family.add(
                f"rank-{name}",
                lambda t: (
                    linear.matrix_rank(t), linear.matrix_rank(t, atol=0.5), linear.matrix_rank(t, rtol=0.5),
                    linear.matrix_rank(t, tol=torch.tensor(1.0, dtype=t.dtype)),
                ),
                a,
            )  # fmt: skip
            family.add(
                f"condition-{name}", lambda t: (linear.cond(t), linear.cond(t, -2)), a.double()
            )
    for name, a in EDGES.items():
        family.add(
            f"values-{name}", lambda t: (linear.svdvals(t), linear.eigvalsh(t), linear.matrix_rank(t)), a
        )  # fmt: skip
    twice = torch.ones(4, 3) @ torch.diag(torch.tensor([1.0, 2, 3]))
    family.add("pinv-deficient", lambda t: (linear.pinv(t), linear.matrix_rank(t)), twice)
    family.add(
        "hermitian",
        lambda t: (
            linear.pinv(t + t.mT, hermitian=True),
            linear.matrix_rank(t + t.mT, hermitian=True),
        ),
        rand(2, 4, 4),
    )
    family.add("exp-far", torch.matrix_exp, rand(3, 3, dtype=torch.float64) * 100)
    return family


FAMILIES = [factors(), values()]
