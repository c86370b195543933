"""Ranges whose products have no 64-bit value: small sizes are right, what overflows is an error."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.export import Dim

import kiln
import torch_tensorrt

MAXIMA = [None, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**60, 2**62]


def dims(names: str, maximum: int | None) -> list[Dim]:
    return [Dim(name) if maximum is None else Dim(name, max=maximum) for name in names]


def compile_exported(model, inputs, dynamic_shapes):
    program = torch.export.export(model, inputs, dynamic_shapes=dynamic_shapes)
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=list(inputs), min_block_size=1, require_full_compilation=True
    )


class Pointwise(torch.nn.Module):
    def forward(self, x):
        return x * 2 + 1


class Chain(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x.flatten() * 2).reshape(x.shape) - x.sum(-1, keepdim=True)


class Rows(torch.nn.Module):
    def forward(self, x):
        return x.sum(-1), x.mean(), x.amax(0), x.softmax(-1), x.argmax(-1)


class Moves(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x, x + 1], 0), x.flatten(), x.transpose(-1, -2) * 2, x.flip(0)


class Square(torch.nn.Module):
    def forward(self, x):
        return x @ x.transpose(-1, -2)


def inputs_of_rank(rank):
    return [
        torch.randn(*shape)
        for shape in ((2,) * rank, (3, 5, 2, 4)[:rank], (2, 70, 3, 2)[:rank], (130, 2, 2, 2)[:rank])
    ]


@pytest.mark.parametrize("maximum", MAXIMA)
@pytest.mark.parametrize("model", [Pointwise, Chain, Rows, Moves, Square])
def test_two_sizes(model, maximum, assert_same):
    m = model()
    rows, columns = dims("rc", maximum)
    compiled = compile_exported(m, (torch.randn(3, 4),), {"x": {0: rows, 1: columns}})
    for x in inputs_of_rank(2):
        for got, expected in zip(as_list(compiled(x)), as_list(m(x)), strict=True):
            assert_same(got, expected)


class Rolled(torch.nn.Module):
    def forward(self, x):
        return x.roll(1, 0), x.cumsum(0), x.reshape(-1, 1)[::2], x[torch.arange(x.shape[0])]


@pytest.mark.parametrize("maximum", [*MAXIMA, 2**36, 2**50])
@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("model", [Pointwise, Chain, Moves, Rows, Square, Rolled])
def test_every_index_is_proven(model, rank, maximum, tmp_path):
    if rank > 2 and model in (Rows, Square, Rolled):
        pytest.skip("of two sizes only")
    example = torch.randn(3, 4, 5, 6)[(slice(None),) * rank + (0,) * (4 - rank)].contiguous()
    sizes = dict(enumerate(dims("abcd"[:rank], maximum)))
    program = torch.export.export(model(), (example,), dynamic_shapes={"x": sizes})
    torch.export.save(program, tmp_path / "m.pt2")
    engine = kiln.compile(
        tmp_path / "m.pt2", verify_passes=True, targets=["cpu:x86-64-v3"], num_threads=1
    )
    results = kiln.load(engine).session().run(example.numpy())
    for got, expected in zip(results, as_list(model()(example)), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), expected)


@pytest.mark.parametrize(("rank", "maximum"), itertools.product([3, 4], [None, 2**31, 2**40]))
@pytest.mark.parametrize("model", [Pointwise, Chain, Moves])
def test_more_sizes(model, rank, maximum, assert_same):
    m = model()
    symbols = dims("abcd"[:rank], maximum)
    example = torch.randn(3, 4, 5, 6)[(slice(None),) * rank + (0,) * (4 - rank)].contiguous()
    compiled = compile_exported(m, (example,), {"x": dict(enumerate(symbols))})
    for x in inputs_of_rank(rank):
        for got, expected in zip(as_list(compiled(x)), as_list(m(x)), strict=True):
            assert_same(got, expected)


@pytest.mark.parametrize("maximum", [2**32, 2**40])
def test_ranges_given_as_inputs(maximum, assert_same):
    spec = torch_tensorrt.Input(
        min_shape=(1, 1), opt_shape=(2, 2), max_shape=(maximum, maximum), dtype=torch.float32
    )
    model = Pointwise()
    compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[spec], min_block_size=1)
    for x in inputs_of_rank(2):
        assert_same(compiled(x), model(x))


@pytest.mark.parametrize("maximum", [None, 2**40, 2**62])
def test_matmul_of_two_inputs(maximum, assert_same):
    class Product(torch.nn.Module):
        def forward(self, x, y):
            return torch.relu(x @ y) + 1

    model = Product()
    m, k, n = dims("mkn", maximum)
    compiled = compile_exported(
        model, (torch.randn(3, 4), torch.randn(4, 5)), {"x": {0: m, 1: k}, "y": {0: k, 1: n}}
    )
    for sizes in ((2, 2, 2), (1, 7, 3), (65, 33, 129)):
        x, y = torch.randn(sizes[0], sizes[1]), torch.randn(sizes[1], sizes[2])
        assert_same(compiled(x, y), model(x, y))


@pytest.mark.parametrize("maximum", [None, 2**40])
def test_convolution_of_any_image(maximum, assert_same):
    model = torch.nn.Conv2d(3, 8, 3, padding=1).eval()
    b, h, w = dims("bhw", maximum)
    compiled = compile_exported(model, (torch.randn(2, 3, 8, 9),), {"input": {0: b, 2: h, 3: w}})
    for shape in ((2, 3, 4, 4), (1, 3, 17, 33), (3, 3, 5, 3)):
        x = torch.randn(*shape)
        assert_same(compiled(x), model(x))


def as_list(result):
    return list(result) if isinstance(result, tuple) else [result]


class TestEngine:
    """What the engine itself says of sizes that no memory has."""

    @pytest.fixture(scope="class")
    def session(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("huge") / "model.pt2"
        rows, columns = dims("rc", None)
        torch.export.save(
            torch.export.export(
                Chain(), (torch.randn(3, 4),), dynamic_shapes={"x": {0: rows, 1: columns}}
            ),
            path,
        )
        return kiln.load(kiln.compile(path)).session()

    @pytest.mark.parametrize("shape", [(2**32, 2**32), (2**40, 2**24), (2**62, 1), (2**31, 2**31)])
    def test_sizes_that_overflow_are_named(self, session, shape):
        import ctypes

        from kiln import _library

        sizes = (ctypes.c_int64 * 2)(*shape)
        tensor = _library.Tensor(
            struct_size=ctypes.sizeof(_library.Tensor), dtype=0, rank=2, shape=sizes
        )
        with pytest.raises(kiln.KilnError) as error:
            session._output_shapes((_library.Tensor * 1)(tensor))
        assert isinstance(error.value, kiln.OutOfRangeError)
        assert any(str(size) in str(error.value) for size in shape) or "overflow" in str(
            error.value
        )

    def test_static_sizes_that_overflow_are_named(self, tmp_path):
        class Expanded(torch.nn.Module):
            def forward(self, x):
                return (x.expand(2**40, 2**30) * 2).unsqueeze(0).expand(2**20, -1, -1) + 1

        path = tmp_path / "model.pt2"
        try:
            torch.export.save(torch.export.export(Expanded(), (torch.ones(1, 1),)), path)
        except RuntimeError:
            pytest.skip("this PyTorch does not export such a model")
        with pytest.raises(kiln.KilnError, match="1099511627776|1073741824|2\\^63|too large"):
            kiln.load(kiln.compile(path)).session().run(torch.ones(1, 1).numpy())

    def test_ranges_beyond_64_bits_are_refused(self, tmp_path):
        rows, columns = dims("rc", None)
        path = tmp_path / "model.pt2"
        torch.export.save(
            torch.export.export(
                Pointwise(), (torch.randn(3, 4),), dynamic_shapes={"x": {0: rows, 1: columns}}
            ),
            path,
        )
        with pytest.raises(kiln.InvalidArgumentError, match="18446744073709551620"):
            kiln.compile(path, ranges=[kiln.InputRange("x", 0, 1, 2, 2**64 + 4)])
