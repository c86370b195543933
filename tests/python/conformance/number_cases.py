"""Cases of operators that are exact: parts of numbers, divisors, counts, places, and images of bytes."""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from op_cases import FLOATS, INTEGERS, SPECIAL, Family, bools, ints, rand, short


def edges_of(dtype: torch.dtype) -> torch.Tensor:
    """Zeros, powers of two, the ends of the range, numbers below the normal ones, infinities and NaN."""
    info = torch.finfo(dtype)
    ends = [info.max, info.min, info.tiny, -info.tiny, info.tiny / 2, info.tiny / 4 * 3]
    least = [info.tiny * info.eps, info.tiny * info.eps * 3]
    few = torch.tensor([*SPECIAL.tolist(), *ends, *least], dtype=torch.float64)
    powers = torch.exp2(torch.arange(-12, 12, dtype=torch.float64))
    return torch.cat([few, powers, -powers, rand(40, dtype=torch.float64)]).to(dtype)


def parts() -> Family:
    family = Family("parts")
    for dtype in FLOATS:
        x, name = edges_of(dtype), short(dtype)
        family.add(f"frexp-{name}", torch.frexp, x)
        if dtype != torch.float16:  # of which PyTorch has none
            for other in ("flip", "zeros_like", "neg", "clone"):
                family.add(f"nextafter-{other}-{name}", torch.nextafter, x, towards(other, x))
    return family


def towards(name: str, x: torch.Tensor) -> torch.Tensor:
    return x.flip(0) if name == "flip" else getattr(torch, name)(x)


def divisors() -> Family:
    family = Family("divisors")
    for dtype in INTEGERS:
        info = torch.iinfo(dtype)
        a = torch.cat(
            [ints(40, low=max(-100, info.min), high=100, dtype=dtype),
             torch.tensor([0, 0, info.min, info.max, info.min, info.max, info.min], dtype=dtype)]
        )  # fmt: skip
        b = torch.cat(
            [ints(40, low=max(-100, info.min), high=100, dtype=dtype),
             torch.tensor([0, 5, 0, info.min, info.min, 0, 3], dtype=dtype)]
        )  # fmt: skip
        family.add(f"gcd-{short(dtype)}", torch.gcd, a, b)
        family.add(f"lcm-{short(dtype)}", torch.lcm, a, b)
    family.add("broadcast", torch.gcd, ints(3, 4), torch.tensor(6, dtype=torch.int32))
    family.add("nothing", torch.gcd, ints(0, 3), ints(3))
    return family


def counts() -> Family:
    family = Family("counts")
    nan = float("nan")
    for dtype in (torch.float32, torch.int64, torch.uint8, torch.float16):
        x = ints(4, 33, 3, low=0, high=5).to(dtype)
        family.add(f"mode-{short(dtype)}", lambda t: torch.mode(t, 1)[0], x)
        family.add(
            f"mode-place-{short(dtype)}", lambda t: t.gather(1, torch.mode(t, 1, True)[1]), x
        )
    family.add("mode-bool", lambda t: torch.mode(t)[0], bools(5, 7))
    family.add("mode-one", torch.mode, rand(3, 1))
    family.add("mode-scalar", torch.mode, torch.tensor(2.0))
    family.add(
        "mode-nan",
        lambda t: torch.mode(t)[0],
        torch.tensor([[1, nan, nan, 2, 2], [nan] * 5, [3, nan, nan, 2, 1]]),
    )
    return family


def places() -> Family:
    family = Family("places")
    for name, arguments in {
        "square": (4, 4, 0), "right": (5, 7, 1), "below": (5, 7, -2), "beyond": (3, 4, 9), "under": (5, 3, -9),
        "none": (0, 3, 0),
    }.items():  # fmt: skip
        family.add(
            f"triangle-{name}",
            lambda t, a=arguments: (
                torch.triu_indices(*a), torch.tril_indices(*a, dtype=torch.int32), t,
            ),
            rand(1),
        )  # fmt: skip
    a, b = rand(2, 5, 3), rand(2, 4, 3)
    b[0, 0] = a[0, 0]
    for p in (0, 1, 2, 0.5, 3, float("inf")):
        family.add(f"cdist-{p}", lambda t, u, p=p: torch.cdist(t, u, p), a, b)
        family.add(f"pdist-{p}", lambda t, p=p: torch.pdist(t, p), a[0])
    family.add("pdist-one", torch.pdist, rand(1, 3))
    for pad in ((-1, 2), (2, -1), (-1, -2), (1, 2)):
        family.add(f"circular-{pad}", lambda t, p=pad: fn.pad(t, p, mode="circular"), rand(2, 5, 6))
    family.add(
        "circular-2d", lambda t: fn.pad(t, (-2, 3, 1, -1), mode="circular"), rand(1, 2, 5, 6)
    )
    for accumulate in (False, True):
        family.add(
            f"put-{accumulate}",
            lambda t, i, s, a=accumulate: torch.put(t, i, s, accumulate=a),
            rand(4, 50), torch.randperm(200)[:80] - 100, rand(80),
        )  # fmt: skip
    family.add("put-few", torch.put, rand(4, 5), torch.tensor([[0, -1], [7, 3]]), rand(2, 2))
    return family


def masks() -> Family:
    family = Family("masks")
    x, mask = rand(4, 6, 5), bools(4, 6)
    count = int(mask.sum())
    wide = rand(3, 4, 6, 2)
    put = torch.ops.aten.index_put
    for accumulate in (False, True):
        family.add(
            f"rows-{accumulate}", lambda t, m, v, a=accumulate: put(t, [m], v, a), x, mask, rand(count, 5)
        )  # fmt: skip
    family.add("middle", lambda t, m, v: put(t, [None, m], v), wide, mask, rand(3, count, 2))
    family.add("column", lambda t, m, v: put(t, [None, m], v), wide, mask, rand(count, 1))
    family.add("one-row", lambda t, m, v: put(t, [m], v), x, mask, rand(5))
    family.add("one-of-each", lambda t, m, v: put(t, [m], v), x, mask, rand(1, 5))
    family.add("one", lambda t, m, v: put(t, [m], v), x, mask, torch.tensor(3.0))
    family.add("integers", lambda t, m, v: put(t, [m], v), ints(4, 6), mask, ints(count))
    row = bools(6)
    number, minus = int(row.sum()), torch.tensor(-1)
    for accumulate in (False, True):
        family.add(
            f"beside-{accumulate}", lambda t, m, i, v, a=accumulate: put(t, [m, i], v, a),
            x, mask, minus, rand(count),
        )  # fmt: skip
    family.add("before", lambda t, i, m, v: put(t, [i, m], v), x, minus, row, rand(number, 5))
    family.add(
        "apart",
        lambda t, m, i, v: put(t, [m, None, i], v),
        rand(6, 4, 3),
        row,
        minus,
        rand(number, 4),
    )
    family.add(
        "beside-one", lambda t, m, i, v: put(t, [m, i], v), x, mask, minus, torch.tensor(2.0)
    )
    family.add("selected", lambda t, m: put(t, [m], t[m] * 2), x, mask)
    family.add("none", lambda t, m, v: put(t, [m], v), x, mask & False, rand(0, 5))
    return family


def bytes_resized() -> Family:
    family = Family("bytes")
    sizes = (((7, 9), (14, 18)), ((32, 40), (13, 17)), ((13, 50), (37, 20)), ((16, 16), (16, 31)), ((5, 5), (5, 5)),
             ((1, 3), (4, 7)), ((300, 20), (10, 25)))  # fmt: skip
    for channels in (1, 3, 5):
        for given, wanted in sizes:
            x = torch.randint(0, 256, (2, channels, *given), dtype=torch.uint8)
            for mode in ("bilinear", "bicubic"):
                for aligned, smooth in ((False, False), (True, False), (False, True)):
                    family.add(
                        f"{mode}-{channels}-{given}-{wanted}-{aligned}-{smooth}",
                        lambda t, w=wanted, m=mode, c=aligned, s=smooth: fn.interpolate(
                            t, size=w, mode=m, align_corners=c, antialias=s
                        ),
                        x,
                    )
    x = torch.randint(0, 256, (1, 3, 20, 21), dtype=torch.uint8)
    family.add("scale", lambda t: fn.interpolate(t, scale_factor=2.5, mode="bilinear"), x)
    family.add("scales", lambda t: fn.interpolate(t, scale_factor=(0.4, 1.7), mode="bicubic"), x)
    return family


FAMILIES = [parts(), divisors(), counts(), places(), masks(), bytes_resized()]
