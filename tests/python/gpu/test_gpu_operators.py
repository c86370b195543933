"""Operators that sort, search, scan and write by index, products of integers and recurrent networks, whole in engines
on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as fn
from torch import nn
from torch.export import Dim

import torch_tensorrt

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def compiled(model: nn.Module, args: Sequence[torch.Tensor], dynamic_shapes: Any = None) -> Any:
    program = torch.export.export(
        model.eval(), tuple(args), dynamic_shapes=dynamic_shapes, strict=False
    )
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=tuple(args), require_full_compilation=True
    )


class Experts(nn.Module):
    """Each row takes the two experts that its gate ranks first."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(8, 16) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = x.topk(2, dim=-1)
        return (self.experts[chosen] * weights.softmax(-1).unsqueeze(-1)).sum(1)


class Ranks(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ordered = x.sort(dim=1, descending=True).values
        return ordered, x.kthvalue(3, dim=1).values, x.median(dim=1).values, x.msort()[:1]


class Buckets(nn.Module):
    """Numbers become rows of an embedding by the interval that they lie in."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.linspace(-2, 2, 33))
        self.rows = nn.Embedding(34, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rows(torch.bucketize(x, self.edges)) + self.rows(
            torch.searchsorted(self.edges, x, right=True)
        )


class Scans(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.cumsum(1), (x / 4).cumprod(1), x.cummax(1).values, x.cummin(0).values


class Graph(nn.Module):
    """Messages along edges, added up and maximised at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("source", torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 2]))
        self.register_buffer("target", torch.tensor([1, 1, 1, 0, 7, 7, 3, 3, 3, 5]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        messages = x[:, self.source]
        index = self.target[None, :].expand(x.shape[0], -1)
        return (
            torch.zeros_like(x).index_add(1, self.target, messages),
            x.scatter_reduce(1, index, messages, "amax"),
            x.scatter_add(1, index, messages),
        )


class Writes(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        put, rows = x.clone(), torch.arange(3, device=x.device) * 2
        put[:, rows] = x[:, rows + 1] * 2
        put[put > 2] = 0.5
        return put, x.index_fill(1, rows, 3.0), x.index_copy(1, rows, x[:, rows + 1])


class Patches(nn.Module):
    """Overlapping patches, and what they add up to."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(9, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.reshape(-1, 1, 2, 4)
        patches = fn.unfold(image, 3, padding=1)
        return fn.fold(self.mix(patches.mT).mT, (2, 4), 3, padding=1)


class Network(nn.Module):
    """A recurrent network over the eight numbers of a row: what it gives for each, and a head on its last state."""

    def __init__(self, make: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.cells = make(1, 12, 2, batch_first=True, **options)
        self.head = nn.Linear(options.get("proj_size", 12), 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        each, last = self.cells(x.unsqueeze(-1))
        return each, self.head(last[0][-1] if isinstance(last, tuple) else last[-1])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "experts": Experts,
    "ranks": Ranks,
    "buckets": Buckets,
    "scans": Scans,
    "graph": Graph,
    "writes": Writes,
    "patches": Patches,
    "lstm": lambda: Network(nn.LSTM),
    "lstm-both-ways": lambda: Network(nn.LSTM, bidirectional=True),
    "lstm-projected": lambda: Network(nn.LSTM, proj_size=5),
    "gru": lambda: Network(nn.GRU),
    "gru-both-ways": lambda: Network(nn.GRU, bidirectional=True),
    "rnn": lambda: Network(nn.RNN),
    "rnn-relu": lambda: Network(nn.RNN, nonlinearity="relu"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, dtype: torch.dtype, assert_near: Any) -> None:
    """Against eager PyTorch on the GPU, of any batch."""
    model = MODELS[name]().eval().cuda().to(dtype)
    rows = Dim("rows", min=1, max=64)
    x = torch.randn(4, 8, device="cuda", dtype=dtype)
    with torch.no_grad():
        module = compiled(model, [x], ({0: rows},))
        for size in (4, 1, 3, 64, 4):
            x = torch.randn(size, 8, device="cuda", dtype=dtype)
            assert_near(module(x), model(x))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8])
def test_integers(dtype: torch.dtype) -> None:
    """Eager PyTorch multiplies integers on CPUs alone: its results there are those of the GPU here."""

    class Integers(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
            product = a @ b
            return product, product.sort(dim=-1, stable=True), a.cummax(1), b.cumprod(0)

    model, rows = Integers(), Dim("rows", min=1, max=64)
    a, b = (torch.randint(0, 9, shape).to(dtype) for shape in ((4, 24), (24, 10)))
    module = compiled(model, [a.cuda(), b.cuda()], ({0: rows}, {}))
    for size in (4, 1, 33):
        a = torch.randint(0, 9, (size, 24)).to(dtype)
        got = torch.utils._pytree.tree_leaves(module(a.cuda(), b.cuda()))
        expected = torch.utils._pytree.tree_leaves(model(a, b))
        for ours, theirs in zip(got, expected, strict=True):
            assert torch.equal(ours.cpu(), theirs)


@pytest.mark.parametrize("bad", [4, -5])
def test_a_place_outside_is_told_later(bad: int) -> None:
    class Put(nn.Module):
        def forward(self, x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return torch.index_put(x, (i,), v)

    x, value = torch.randn(4, 2, device="cuda"), torch.randn(1, 2, device="cuda")
    good, wrong = (torch.tensor([i], device="cuda") for i in (3, bad))
    module = compiled(Put(), [x, good, value])
    for _ in range(2):
        module(x, wrong, value)
        torch.cuda.synchronize()
        with pytest.raises(IndexError, match="index_put"):
            module(x, good, value)
        assert torch.equal(module(x, good, value), Put()(x, good, value))


class MadeOnTheCpu(nn.Module):
    """Numbers and indices that a script makes without a device, which eager PyTorch takes beside tensors on a GPU."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = torch.full((), -float("inf"))
        columns = torch.arange(x.shape[1] - 1, -1, -1).unsqueeze(0).view(-1) * 1
        y = torch.where(x > 0, x, low)[:, columns]
        return torch.where(y < 0, 0.5, y), torch.ones(2) * 2


@pytest.mark.parametrize("decompose", [False, True])
def test_what_is_made_on_the_cpu(decompose: bool) -> None:
    x = torch.randn(4, 3, device="cuda")
    program = torch.export.export(
        MadeOnTheCpu(), (x,), dynamic_shapes=({i: Dim(f"s{i}", max=9) for i in range(2)},)
    )
    if decompose:
        program = program.run_decompositions()
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=[x], min_block_size=1)
    for shape in ((4, 3), (2, 9), (1, 1)):
        x = torch.randn(shape, device="cuda")
        got, expected = compiled(x), MadeOnTheCpu()(x)
        assert [y.device.type for y in got] == ["cuda", "cpu"]
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    left = {
        str(node.target)
        for node in compiled.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"
    }
    assert not left & {"aten.where.self", "aten.index.Tensor", "aten.arange.start_step"}, left
