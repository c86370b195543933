"""Sorting, searching, scans, writes by index and recurrent networks in engines, against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import assert_as_eager, compile_functions, difference
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import torch_tensorrt

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
SPECIAL = [1.0, float("nan"), -float("inf"), 2, float("nan"), float("inf"), -0.0, 0.0, 3, 1]


def check_all(
    functions: dict[str, Callable[..., Any]], *args: torch.Tensor, **options: Any
) -> None:
    """Every result of every function, as a table of functions with one result."""
    table = {}
    for name, function in functions.items():
        results = function(*args)
        count = len(results) if isinstance(results, tuple) else 1
        for i in range(count):
            pick = (
                (lambda *a, f=function, k=i: f(*a)[k]) if isinstance(results, tuple) else function
            )
            table[f"{name}[{i}]"] = pick
    assert_as_eager(table, args, **options)


def sorts(x: torch.Tensor) -> dict[str, Callable[..., Any]]:
    return {
        "sort": lambda t: torch.sort(t, dim=0, stable=True),
        "descending": lambda t: torch.sort(t, dim=0, stable=True, descending=True),
        "topk": lambda t: t.topk(2, dim=0)[0] if t.dtype != torch.bool else t,
        "cummax": lambda t: t.cummax(0),
        "cummin": lambda t: t.cummin(0),
    }


@pytest.mark.parametrize("dtype", FLOATS)
def test_special_values_are_sorted_as_in_pytorch(dtype) -> None:
    x = torch.tensor(SPECIAL, dtype=dtype)
    medians = {
        "median": torch.median,
        "nanmedian": torch.nanmedian,
        "dim": lambda t: torch.median(t, 0),
    }
    check_all(sorts(x) | medians, x)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_keep_their_order_among_equals(dtype) -> None:
    x = torch.randint(0, 5, (17, 3)).to(dtype)
    check_all(sorts(x), x)


def test_the_axis_may_vary() -> None:
    n = Dim("n", min=4, max=128)
    functions = {
        "sort": lambda t: t.sort(dim=1, stable=True),
        "topk": lambda t: t.topk(4, dim=1),
        "kthvalue": lambda t: t.kthvalue(2, dim=1),
        "median": lambda t: t.median(dim=1),
        "cummax": lambda t: t.cummax(1),
        "searchsorted": lambda t: torch.searchsorted(t.sort(dim=1).values, t),
    }
    calls = [(torch.randn(3, size),) for size in (4, 5, 64, 127, 128)]
    check_all(functions, torch.randn(3, 20), calls=calls, dynamic_shapes=(({1: n},),))


@pytest.mark.parametrize("dtype", (*FLOATS, *INTEGERS))
def test_long_axes_are_sorted(dtype) -> None:
    x = (torch.randn(1000, 3) * 20).abs().to(dtype)
    if dtype.is_floating_point:
        x[:10, 0] = torch.tensor(SPECIAL)
    functions = sorts(x) | {
        "inner": lambda t: t.t().sort(dim=1, stable=True),
        "many": lambda t: t.topk(300, dim=0, largest=False)[0] if t.dtype != torch.bool else t,
    }
    if dtype != torch.bool:
        functions |= {
            "kthvalue": lambda t: t.kthvalue(777, dim=0)[0],
            "median": lambda t: t.median(dim=0)[0],
            "nanmedian": torch.nanmedian,
        }
    check_all(functions, x)


def test_a_long_axis_may_vary() -> None:
    n = Dim("n", min=4, max=5000)
    functions = {
        "sort": lambda t: t.sort(dim=1, stable=True),
        "topk": lambda t: t.topk(4, dim=1),
        "median": lambda t: t.median(dim=1).values,
        "searchsorted": lambda t: torch.searchsorted(t.sort(dim=1).values, t, right=True),
        "bucketize": lambda t: torch.bucketize(t, t[0].sort().values, out_int32=True),
    }
    calls = [(torch.randn(3, size),) for size in (4, 5, 129, 1000, 5000)]
    check_all(functions, torch.randn(3, 200), calls=calls, dynamic_shapes=(({1: n},),))


def write_many(how: str) -> dict[str, Callable[..., Any]]:
    return {
        "rows": lambda x, i, s: x.index_reduce(0, i[:, 0], s, how),
        "without": lambda x, i, s: x.scatter_reduce(0, i, s, how, include_self=False),
        "inner": lambda x, i, s: x.t().scatter_reduce(1, i.t(), s.t(), how),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8])
def test_many_writes_by_index(dtype) -> None:
    x, source = ((torch.rand(size, 33) * 9).to(dtype) for size in (50, 700))
    index = torch.randint(0, 50, (700, 33))
    functions: dict[str, Callable[..., Any]] = {
        "add": lambda x, i, s: x.index_add(0, i[:, 0], s),
        "accumulate": lambda x, i, s: torch.index_put(
            x, (i[:, 0], i[:, 1].clamp_max(32)), s[:, 0], accumulate=True
        ),
        "fill": lambda x, i, _: x.index_fill(0, i[:, 0], 3),
        "scatter_add": lambda x, i, s: x.scatter_add(0, i, s),
    }
    for how in ("amax", "amin", "mean"):
        functions |= {f"{how} {name}": each for name, each in write_many(how).items()}
    check_all(functions, x, index, source)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_embeddings(mode) -> None:
    bag = torch.nn.functional.embedding_bag
    table, index = torch.randn(30, 8), torch.randint(0, 30, (40,))
    functions = {
        "offsets": lambda i, o, t: bag(i, t, o, mode=mode),
        "padding": lambda i, o, t: bag(i, t, o, mode=mode, padding_idx=3),
        "end": lambda i, o, t: bag(i, t, o, mode=mode, include_last_offset=True, padding_idx=-2),
        "rows": lambda i, o, t: bag(i.view(5, 8), t, mode=mode),
        "f16": lambda i, o, t: bag(i, t.half(), o, mode=mode),
    }
    if mode == "sum":
        functions["weighted"] = lambda i, o, t: bag(
            i, t, o, mode=mode, per_sample_weights=t.view(-1)[:40]
        )
    args = index, torch.tensor([0, 3, 3, 10, 40]), table
    # Sums of up to 30 rows, added up in another order than PyTorch's.
    assert_as_eager({name: (function, 64) for name, function in functions.items()}, args)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("offsets", [[0, 8], [0, 2, 8], [0, 2], [0, 5, 5], [0, 0, 2, 4], [0, 0]])
def test_bags_with_a_last_offset(offsets: list[int], mode: str, dtype: torch.dtype) -> None:
    # A last offset that is not the number of indices: which rows count depends on PyTorch's kernel.
    table = torch.randn(10, 4).to(dtype)
    table[9] = float("inf")
    args = (torch.tensor([1, 2, 4, 5, 4, 3, 2, 9]), torch.tensor(offsets), table)

    def bags(indices: torch.Tensor, offsets: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding_bag(
            indices, table, offsets, mode=mode, include_last_offset=True
        )

    (result,) = compile_functions([bags], args)(*args)
    bound = 2e-3 if dtype == torch.float16 else 1e-6
    torch.testing.assert_close(result, bags(*args), rtol=bound, atol=bound, equal_nan=True)


def test_a_last_offset_beyond_the_indices_is_an_error() -> None:
    args = (torch.arange(4), torch.tensor([0, 4]), torch.randn(10, 4))
    bags = compile_functions(
        [lambda i, o, t: torch.nn.functional.embedding_bag(i, t, o, include_last_offset=True)], args
    )
    with pytest.raises(RuntimeError, match="last offset beyond the indices"):
        bags(args[0], torch.tensor([0, 5]), args[2])


def test_bags_begin_in_order() -> None:
    args = torch.randint(0, 30, (40,)), torch.tensor([0, 3]), torch.randn(30, 8)
    module = compile_functions([lambda i, o, t: torch.nn.functional.embedding_bag(i, t, o)], args)
    for offsets in ([1, 3], [0, 41], [0, -1]):
        with pytest.raises(Exception, match="embedding_bag"):
            module(args[0], torch.tensor(offsets), args[2])


def test_fmax_takes_the_number() -> None:
    a, b = torch.tensor(SPECIAL), torch.tensor(SPECIAL[::-1])
    functions = {"fmax": torch.fmax, "fmin": torch.fmin}
    check_all(functions, a, b)
    check_all(functions, torch.arange(-5, 5), b)
    check_all(functions, torch.arange(-5, 5), torch.arange(5, -5, -1))


def test_many_writes_of_varying_number() -> None:
    m = Dim("m", min=1, max=4000)
    functions = {
        "copy": lambda x, i, s: x.index_copy(0, i % x.shape[0], s),
        "add": lambda x, i, s: x.index_add(0, i % x.shape[0], s),
    }
    x = torch.randn(4000, 5)
    calls = [(x, torch.randperm(4000)[:size], torch.randn(size, 5)) for size in (1, 33, 4000)]
    args = (x, torch.randperm(100), torch.randn(100, 5))
    check_all(functions, *args, calls=calls, dynamic_shapes=(({}, {0: m}, {0: m}),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_nothing_is_written(dtype) -> None:
    x, none = torch.randn(5, 7).to(dtype), torch.zeros((0, 7), dtype=dtype)
    index = torch.zeros((0, 7), dtype=torch.int64)
    check_all(
        {
            "scatter": lambda x, i, v: x.scatter(0, i, v),
            "amax": lambda x, i, v: x.scatter_reduce(0, i, v, "amax", include_self=False),
            "index_copy": lambda x, i, v: x.index_copy(0, i[:, 0], v),
            "index_put": lambda x, i, v: torch.index_put(x, (i[:, 0],), v),
        },
        x,
        index,
        none,
        require_full_compilation=True,
    )


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 3)])
def test_empty_indices_of_any_rank(shape) -> None:
    check_all(
        {
            "scatter": lambda x, i, v: x.scatter(2, i, v),
            "value": lambda x, i, v: x.scatter(0, i, 1.5),
            "add": lambda x, i, v: x.scatter_add(1, i, v),
            "amax": lambda x, i, v: x.scatter_reduce(0, i, v, "amax", include_self=False),
            "gather": lambda x, i, v: x.gather(1, i),
        },
        torch.randn(3, 1, 4),
        torch.zeros(shape, dtype=torch.int64),
        torch.zeros(shape),
        require_full_compilation=True,
    )


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_writes_of_varying_number(count) -> None:
    class Scatter(torch.nn.Module):
        def forward(self, x: torch.Tensor, index: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
            return x.scatter(0, index, new)

    def arguments(count: int) -> tuple[torch.Tensor, ...]:
        index = torch.argsort(torch.rand(5, 7), 0)[:count].clone()
        return torch.randn(5, 7), index, torch.randn(count, 7)

    number = Dim("number", min=0, max=5)
    program = torch.export.export(
        Scatter(), arguments(3), dynamic_shapes=({}, {0: number}, {0: number})
    )
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=arguments(3), min_block_size=1, require_full_compilation=True
    )
    args = arguments(count)
    assert torch.equal(compiled(*args), Scatter()(*args))


def put(cache: torch.Tensor, place: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    cache = cache.clone()
    cache[:, place] = new
    return cache


def test_steps_are_written_to_a_cache() -> None:
    cache, m = torch.randn(2, 128, 4, 8), Dim("m", min=1, max=30)
    functions = {"put": put, "index_copy": lambda c, p, n: c.index_copy(1, p, n)}
    calls = [(cache, torch.randperm(128)[:size], torch.randn(2, size, 4, 8)) for size in (1, 2, 30)]
    args = (cache, torch.tensor([7, 9, 127]), torch.randn(2, 3, 4, 8))
    check_all(functions, *args, calls=calls, dynamic_shapes=(({}, {0: m}, {1: m}),))


@pytest.mark.parametrize("how", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_scatter_reduce(how, include_self, dtype) -> None:
    x, source = (torch.randint(0, 9, shape).to(dtype) for shape in ((8, 3), (9, 3)))
    index = torch.tensor([[0, 0], [0, 1], [7, 3], [0, 3], [2, 2], [7, 0], [4, 3]])
    function = lambda t, i, s: t.scatter_reduce(0, i, s, how, include_self=include_self)  # noqa: E731
    assert_as_eager({"": (function, 1)}, (x, index, source))


def test_masks_select_where_one_value_goes() -> None:
    def assign(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[mask] = 0.5
        return x

    check_all({"": assign}, torch.randn(4, 5, 6), torch.rand(4, 5) > 0.5)


def test_bytes_as_an_index_are_a_mask_and_stay_in_pytorch() -> None:
    def put(x: torch.Tensor, mask: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.index_put(x, (mask,), value, accumulate=True)

    args = torch.zeros(4, 3), torch.tensor([1, 0, 1, 1], dtype=torch.uint8), torch.ones(1, 1)
    with pytest.raises(RuntimeError, match="index of u8, which PyTorch takes as a mask"):
        compile_functions([put], args)
    module = compile_functions([put], args, require_full_compilation=False)
    assert difference(module(*args)[0], put(*args)) is None


@pytest.mark.parametrize("bad", [4, -5])
@pytest.mark.parametrize(
    "function",
    [
        lambda t, i, s: t.index_copy(0, i, s),
        lambda t, i, s: t.index_add(0, i, s),
        lambda t, i, s: torch.index_put(t, (i,), s),
        lambda t, i, s: t.scatter(0, i.unsqueeze(1), s),
    ],
)
def test_an_index_outside_is_an_error(function, bad) -> None:
    args = torch.randn(4, 2), torch.tensor([1]), torch.randn(1, 2)
    module = compile_functions([function], args)
    assert difference(module(*args)[0], function(*args)) is None
    with pytest.raises(Exception, match=f"got the index {bad}"):
        module(args[0], torch.tensor([bad]), args[2])


@pytest.mark.parametrize(
    "bias, batch_first, bidirectional",
    [(True, False, False), (False, True, True)],
)
@pytest.mark.parametrize("kind", ["LSTM", "LSTM projected", "GRU", "RNN", "RNN relu"])
def test_recurrent_networks(kind, bias, batch_first, bidirectional) -> None:
    name, _, how = kind.partition(" ")
    extra = {"projected": {"proj_size": 3}, "relu": {"nonlinearity": "relu"}}.get(how, {})
    model = getattr(torch.nn, name)(
        4, 5, 2, bias=bias, batch_first=batch_first, bidirectional=bidirectional, **extra
    ).eval()
    x = torch.randn((3, 7, 4) if batch_first else (7, 3, 4))
    batch = Dim("batch", min=1, max=9)
    program = torch.export.export(model, (x,), dynamic_shapes=({0 if batch_first else 1: batch},))
    module = torch_tensorrt.dynamo.compile(program, arg_inputs=(x,), require_full_compilation=True)
    sizes = [(6, 7, 4), (1, 7, 4)] if batch_first else [(7, 6, 4), (7, 1, 4)]
    for size in (x.shape, *sizes):
        x = torch.randn(size)
        results = zip(tree_leaves(module(x)), tree_leaves(model(x)), strict=True)
        for got, expected in results:
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
