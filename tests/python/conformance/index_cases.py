"""Cases of operators that sort, search, scan and write by index, and of recurrent networks."""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from op_cases import FLOATS, INTEGERS, SPECIAL, Family, bools, ints, rand, short


def scan() -> Family:
    family = Family("scan")
    for dtype in (*FLOATS, *INTEGERS):
        x = rand(3, 9, dtype=dtype) if dtype.is_floating_point else ints(3, 9, dtype=dtype)
        name = short(dtype)
        family.add(f"cumprod-{name}", lambda t: t.cumprod(1), x)
        family.add(f"cummax-{name}", lambda t: t.cummax(0), x)
        family.add(f"cummin-{name}", lambda t: t.cummin(-1), x)
    for function in (torch.cummax, torch.cummin):
        family.add(f"{function.__name__}-special", lambda t, f=function: f(t, 0), SPECIAL)
        family.add(f"{function.__name__}-bool", lambda t, f=function: f(t, 0), bools(9))
        family.add(f"{function.__name__}-scalar", lambda t, f=function: f(t, 0), torch.tensor(2.0))
    family.add("cumprod-dtype", lambda t: t.cumprod(0, dtype=torch.float64), rand(5))
    family.add("cumprod-bool", lambda t: t.cumprod(0), bools(5))
    family.add("logcumsumexp", lambda t: t.logcumsumexp(1), rand(2, 30, 3, low=-90, high=90))
    family.add("logcumsumexp-f16", lambda t: t.logcumsumexp(0), rand(9, dtype=torch.float16))
    return family


def sort() -> Family:
    family = Family("sort")
    for dtype in (*FLOATS, *INTEGERS):
        x = rand(3, 9, dtype=dtype) if dtype.is_floating_point else ints(3, 9, dtype=dtype)
        name = short(dtype)
        family.add(f"sort-{name}", lambda t: t.sort(dim=1, stable=True), x)
        family.add(f"descending-{name}", lambda t: t.sort(dim=0, stable=True, descending=True), x)
        family.add(f"topk-{name}", lambda t: t.topk(4)[0], x)
        family.add(f"median-{name}", lambda t: t.median(dim=1).values, x)
    for descending in (False, True):
        family.add(
            f"special-{descending}",
            lambda t, d=descending: torch.sort(t, stable=True, descending=d),
            SPECIAL.repeat(2),
        )
    x = rand(4, 7, 4)
    family.add("argsort", lambda t: t.argsort(dim=1), x)
    family.add("msort", torch.msort, x)
    family.add("topk-smallest", lambda t: t.topk(3, dim=1, largest=False), x)
    family.add("topk-scalar", lambda t: t.topk(1), torch.tensor(2.0))
    family.add("kthvalue", lambda t: t.kthvalue(3, dim=1), x)
    family.add("kthvalue-keepdim", lambda t: t.kthvalue(7, dim=1, keepdim=True), x)
    family.add("median-even", lambda t: t.median(dim=0, keepdim=True), x)
    family.add("median-all", torch.median, x)
    family.add(
        "median-nan", lambda t: (t.median(), t.nanmedian(), t.median(0), t.nanmedian(0)), SPECIAL
    )
    family.add("nanmedian-none", torch.nanmedian, torch.full((3,), float("nan")))
    family.add("sort-bool", lambda t: t.sort(stable=True), bools(9))
    edges = torch.tensor([-2.0, 0.0, 0.0, 1.0, 2.5])
    for right in (False, True):
        family.add(
            f"bucketize-{right}",
            lambda t, b, r=right: torch.bucketize(t, b, right=r),
            SPECIAL,
            edges,
        )
        family.add(
            f"searchsorted-{right}",
            lambda b, t, r=right: torch.searchsorted(b, t, right=r, out_int32=True),
            rand(3, 8).sort().values,
            rand(3, 5),
        )
    family.add("searchsorted-scalar", lambda b: torch.searchsorted(b, 0.5), edges)
    family.add(
        "searchsorted-side", lambda b, t: torch.searchsorted(b, t, side="right"), edges, edges
    )
    family.add(
        "searchsorted-sorter",
        lambda b, t: torch.searchsorted(b, t, sorter=b.argsort()),
        rand(6),
        rand(2, 3),
    )
    return family


def scatter() -> Family:
    family = Family("scatter")
    index = torch.tensor([[0, 7, 2], [2, 2, 5]])
    for dtype in (*FLOATS, torch.int64, torch.int32, torch.uint8):
        make = rand if dtype.is_floating_point else ints
        x, source, name = make(4, 8, dtype=dtype), make(3, 6, dtype=dtype), short(dtype)
        family.add(f"src-{name}", lambda t, i, s: t.scatter(1, i, s), x, index, source)
        family.add(f"value-{name}", lambda t, i: t.scatter(1, i, 3), x, index)
        family.add(f"add-{name}", lambda t, i, s: t.scatter_add(1, i, s), x, index, source)
        for how in ("sum", "prod", "mean", "amax", "amin"):
            for include in (True, False):
                family.add(
                    f"{how}-{include}-{name}",
                    lambda t, i, s, h=how, k=include: t.scatter_reduce(1, i, s, h, include_self=k),
                    x,
                    index,
                    source,
                )
    family.add(
        "scalar",
        lambda t, i, s: t.scatter(0, i, s),
        torch.tensor(1.0),
        torch.tensor(0),
        torch.tensor(2.0),
    )
    x = rand(4, 6, 5)
    family.add(
        "index_copy", lambda t, i, s: t.index_copy(1, i, s), x, torch.tensor([5, 0]), rand(4, 2, 5)
    )
    family.add(
        "index_add",
        lambda t, i, s: t.index_add(2, i, s, alpha=2),
        x,
        torch.tensor([1, 1, 4]),
        rand(4, 6, 3),
    )
    family.add("index_fill", lambda t, i: t.index_fill(0, i, 2.5), x, torch.tensor([-1, 0]))
    family.add(
        "index_reduce",
        lambda t, i, s: t.index_reduce(0, i, s, "amin"),
        x,
        torch.tensor([3, 3]),
        rand(2, 6, 5),
    )
    one, two = torch.tensor([0, -1, 2]), torch.tensor([[1], [4]])
    for accumulate in (False, True):
        family.add(
            f"index_put-{accumulate}",
            lambda t, i, j, v, a=accumulate: torch.index_put(t, (i, j), v, accumulate=a),
            x,
            one,
            two,
            rand(2, 3, 5),
        )
    family.add("index_put-one", lambda t, i, v: torch.index_put(t, (i,), v), x, one, rand(5))
    family.add("mask", lambda t, m: torch.index_put(t, (m,), torch.tensor(0.5)), x, bools(4, 6))
    family.add(
        "masked_scatter", lambda t, m, s: t.masked_scatter(m, s), x, bools(4, 6, 5), rand(120)
    )
    return family


def blocks() -> Family:
    family = Family("blocks")
    x = rand(2, 3, 9, 10)
    for name, kernel, dilation, padding, stride in (
        ("plain", 3, 1, 1, 1),
        ("apart", 2, 1, 0, 3),
        ("each", (3, 2), (1, 2), (1, 0), (2, 1)),
    ):
        options = (kernel, dilation, padding, stride)
        family.add(f"unfold-{name}", lambda t, o=options: fn.unfold(t, *o), x)
        family.add(f"unfold-unbatched-{name}", lambda t, o=options: fn.unfold(t, *o), x[0])
        folded = fn.unfold(x, *options)
        family.add(f"fold-{name}", lambda t, o=options: fn.fold(t, (9, 10), *o), folded)
        family.add(
            f"fold-unbatched-{name}", lambda t, o=options: fn.fold(t, (9, 10), *o), folded[0]
        )
    return family


def integer_matmul() -> Family:
    family = Family("integer_matmul")
    for dtype in INTEGERS:
        name = short(dtype)
        family.add(
            f"matmul-{name}",
            torch.matmul,
            ints(2, 1, 3, 40, dtype=dtype),
            ints(5, 40, 4, dtype=dtype),
        )
        family.add(f"mv-{name}", torch.matmul, ints(3, 4, dtype=dtype), ints(4, dtype=dtype))
    family.add(
        "addmm",
        lambda c, a, b: torch.addmm(c, a, b, alpha=2, beta=3),
        ints(5),
        ints(3, 4),
        ints(4, 5),
    )
    family.add("linear", fn.linear, ints(3, 4), ints(5, 4), ints(5))
    return family


FAMILIES = [scan(), sort(), scatter(), blocks(), integer_matmul()]
