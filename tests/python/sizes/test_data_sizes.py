"""Results whose sizes depend on data, in engines: nonzero, masks, unique, repeat_interleave, items used as sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import kiln
import torch_tensorrt
from torch_tensorrt._operator import engine_calls

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
B = torch.export.Dim("b", min=1, max=40)


class Operators(torch.nn.Module):
    """Each operator, and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor, k: torch.Tensor) -> Any:
        rows = torch.nonzero(x[:, 0] > 0).squeeze(1)
        kept = self.project(x.index_select(0, rows))
        picked, low = x[x > 0.5], torch.masked_select(x, x < 0)
        heads = x[x[:, 1] > 0]
        column = x[:, x[0] > 0]
        values, inverse, counts = torch.unique(k, return_inverse=True, return_counts=True)
        near, runs = torch.unique_consecutive(k, return_counts=True)
        return (
            torch.nonzero(x > 0),
            torch.softmax(kept @ kept.T, 1),
            torch.cat((picked * 2, low)),
            heads.mean(0) + heads.shape[0],
            torch.ones(heads.shape[0] + 1, 2),
            column.sum(1),
            *(values, inverse, counts, near, runs),
            torch.repeat_interleave(k.clamp(0, 3)),
            torch.where(k.unsqueeze(0) == values.unsqueeze(1), 1.0, 0.0).sum(1),
            *(picked, low, heads),
        )


def inputs_of(rows: int, kind: str = "mixed") -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 6)
    x = {"mixed": x, "all": x.abs() + 1, "none": -x.abs() - 1}[kind]
    return x, torch.randint(0, 5, (rows,))


def compile_whole(model: torch.nn.Module, inputs: Any, **options: Any) -> Any:
    """In one engine, with nothing beside it."""
    exported = torch.export.export(model, inputs, **options)
    compiled = torch_tensorrt.dynamo.compile(
        exported, arg_inputs=inputs, min_block_size=1, require_full_compilation=True
    )
    (call,) = engine_calls(compiled.graph)
    others = [
        node for node in compiled.graph.nodes if node.op == "call_function" and node is not call
    ]
    assert {str(node.target) for node in others} <= {"<built-in function getitem>"}
    return compiled


@pytest.fixture(scope="module")
def operators() -> tuple[torch.nn.Module, Any]:
    model = Operators().eval()
    dynamic = {"x": {0: B}, "k": {0: B}}
    return model, compile_whole(model, inputs_of(8), dynamic_shapes=dynamic)


@pytest.mark.parametrize("kind", ["mixed", "all", "none"])
def test_operators(operators, kind, assert_same) -> None:
    model, compiled = operators
    for rows in (8, 1, 2, 40, 8):
        inputs = inputs_of(rows, kind)
        assert_same(compiled(*inputs), model(*inputs), equal_nan=True)
    with torch_tensorrt.runtime.enable_output_allocator(compiled) as allocating:
        assert_same(allocating(*inputs), model(*inputs), equal_nan=True)


@pytest.mark.parametrize("ending", FORMATS)
def test_formats(operators, ending, tmp_path, assert_same) -> None:
    model, compiled = operators
    path = tmp_path / f"m.{ending}"
    torch_tensorrt.save(
        compiled, path, output_format=FORMATS[ending], arg_inputs=list(inputs_of(8)), retrace=False
    )
    loaded = torch_tensorrt.load(path)
    call = loaded.module() if hasattr(loaded, "module") else loaded
    for rows in (8, 3):
        inputs = inputs_of(rows)
        assert_same(tuple(call(*inputs)), model(*inputs), equal_nan=True)


def test_engine_file(tmp_path) -> None:
    """Without PyTorch around it."""
    model = Operators().eval()
    dynamic = {"x": {0: B}, "k": {0: B}}
    exported = torch.export.export(model, inputs_of(8), dynamic_shapes=dynamic)
    torch.export.save(exported.run_decompositions(), tmp_path / "m.pt2")
    engine = kiln.load(bytes(kiln.compile(tmp_path / "m.pt2")))
    description = engine.describe()
    assert engine.num_data_sizes > 4 and description["format_version"] == 4
    assert description["data_sizes"][0]["min"] == 0
    session = engine.session()
    for kind in ("mixed", "none"):
        x, k = inputs_of(8, kind)
        expected = [value.detach().numpy() for value in model(x, k)]
        got = session.run(x.numpy(), k.numpy())
        assert session.result_shapes() == [array.shape for array in expected]
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_memory_for_the_largest_shape() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.masked_select(x, x > 0) * 2

    x = torch.tensor([1.0, -1, 2, -2, 3])
    compiled = compile_whole(Model(), (x,))
    (call,) = engine_calls(compiled.graph)
    session = kiln.load(bytes(getattr(compiled, call.args[1].target).numpy())).session()
    out = np.zeros(5, np.float32)
    assert session.output_shapes(x.numpy()) == [(5,)]
    session.run(x.numpy(), out=[out])
    assert session.result_shapes() == [(3,)]
    np.testing.assert_array_equal(out[:3], [2, 4, 6])
    with pytest.raises(kiln.InvalidArgumentError, match="got shape"):
        session.run(x.numpy(), out=[np.zeros(3, np.float32)])


def test_item_as_a_size(assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, n: torch.Tensor, x: torch.Tensor) -> Any:
            size = (n + 1).item()
            torch._check(size >= 0)
            torch._check(size <= 6)
            return torch.ones(size, 2) * x, torch.arange(size) * 2

    model = Model()
    compiled = compile_whole(model, (torch.tensor(3), torch.randn(2)))
    for n in (0, 5, 3, -1):
        inputs = torch.tensor(n), torch.randn(2)
        assert_same(compiled(*inputs), model(*inputs))
    for n in (6, 100, -3, 2**62):
        with pytest.raises(
            RuntimeError, match=r"the size u\d that the data gives: got .*expected 0..6"
        ):
            compiled(torch.tensor(n), torch.randn(2))
    assert compiled(torch.tensor(2), torch.ones(2))[0].shape == (3, 2)


def test_what_the_author_says_of_a_size() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            picked = x[x > 0]
            torch._check(picked.shape[0] >= 2)
            torch._check(picked.shape[0] * 2 <= x.shape[0])
            return picked * 2

    x = torch.tensor([1.0, 2, -1, -1, -1])
    rows = torch.export.Dim("rows", min=4, max=40)
    compiled = compile_whole(Model(), (x,), dynamic_shapes=({0: rows},))
    torch.testing.assert_close(compiled(x), torch.tensor([2.0, 4]))
    for wrong in (x - 1.5, x + 2):
        with pytest.raises(RuntimeError, match="expected"):
            compiled(wrong)


class Cache(torch.nn.Module):
    """State beside a size that depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x[x[:, 0] > 0]
        self.total.add_(kept.sum(0))
        self.calls.add_(1)
        return kept + self.total


def test_state(assert_same) -> None:
    model, x = Cache(), torch.randn(9, 4)
    compiled = compile_whole(Cache(), (x,), dynamic_shapes=({0: B},))
    for rows in (9, 2, 9):
        x = torch.randn(rows, 4)
        assert_same(compiled(x), model(x))


def test_what_stays_in_pytorch_gives_sizes_to_engines(assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = torch.nonzero(x[:, 0] > 0).squeeze(1)
            return torch.tanh(x.index_select(0, rows) * 2 + 1)

    model, x = Model(), torch.randn(8, 4)
    compiled = torch_tensorrt.dynamo.compile(
        torch.export.export(model, (x,)),
        arg_inputs=[x],
        min_block_size=1,
        torch_executed_ops={"torch.ops.aten.nonzero.default"},
    )
    outside = {
        str(node.target)
        for node in compiled.graph.nodes
        if node.op == "call_function" and str(node.target).startswith("aten.")
    }
    assert outside <= {"aten.nonzero.default", "aten.sym_size.int", "aten._assert_scalar.default"}
    assert len(engine_calls(compiled.graph)) == 2
    for _ in range(3):
        x = torch.randn(8, 4)
        assert_same(compiled(x), model(x))


def test_torch_compile(assert_same) -> None:
    def model(x: torch.Tensor) -> Any:
        kept = x[x > 0]
        return kept * 2 + kept.shape[0], torch.nonzero(x)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(
            model, backend="torch_tensorrt", fullgraph=True, options={"min_block_size": 1}
        )
        for _ in range(3):
            x = torch.randn(5, 4)
            assert_same(compiled(x), model(x))


def test_where_of_one_operand_gives_places(assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            rows, columns = torch.where(x > 0)
            return rows, columns, x[rows, columns]

    model, x = Model(), torch.randn(5, 4)
    compiled = compile_whole(model, (x,))
    for given in (x, -x, x.abs(), -x.abs()):
        assert_same(compiled(given), model(given))


def test_the_places_of_a_scalar_have_no_coordinates(assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.nonzero(x), torch.argwhere(x)

    compiled = compile_whole(Model(), (torch.tensor(2.0),))
    for number in (2.0, 0.0, float("nan")):
        assert_same(compiled(torch.tensor(number)), Model()(torch.tensor(number)))


def test_rows_without_elements_are_counted(assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
            return x[mask], (x[mask] + 1).sum(1)

    mask = torch.tensor([True, False, True, True])
    compiled = compile_whole(Model(), (torch.zeros(4, 0), mask))
    for given in (mask, ~mask, mask & False):
        assert_same(compiled(torch.zeros(4, 0), given), Model()(torch.zeros(4, 0), given))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_bincount_is_as_long_as_the_largest(dtype: torch.dtype, assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, weights: torch.Tensor) -> Any:
            counts = torch.bincount(x), torch.bincount(x, minlength=9), torch.bincount(x, weights)
            return *counts, torch.bincount(x, weights.half(), 3), counts[0].sum()

    n = torch.export.Dim("n", min=0, max=20)
    example = torch.tensor([1, 2, 5, 2], dtype=dtype), torch.randn(4)
    compiled = compile_whole(Model(), example, dynamic_shapes=({0: n}, {0: n}))
    for values in ([1, 2, 5, 2], [0, 0, 0], [7, 19], [3]):
        given = torch.tensor(values, dtype=dtype), torch.randn(len(values))
        assert_same(compiled(*given), Model()(*given))
    nothing = torch.zeros(0, dtype=dtype), torch.zeros(0)
    # Of nothing, weighed or not, PyTorch's are integers; the program that it writes says otherwise.
    expected = [x.to(y.dtype) for x, y in zip(Model()(*nothing), compiled(*nothing), strict=True)]
    assert_same(list(compiled(*nothing)), expected)
    if dtype != torch.uint8:
        with pytest.raises(IndexError, match="bincount"):
            compiled(torch.tensor([1, -1], dtype=dtype), torch.randn(2))


class Assign(torch.nn.Module):
    """As many rows as the mask selects, which only a run knows."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[mask] = values
        return x


def test_what_a_mask_selects_is_assigned(assert_same) -> None:
    b, n = torch.export.Dim("b", min=1, max=50), torch.export.Dim("n", min=0, max=300)
    mask = torch.rand(4, 6) > 0.5
    example = torch.randn(4, 6, 5), mask, torch.randn(int(mask.sum()), 5)
    compiled = compile_whole(Assign(), example, dynamic_shapes=({0: b}, {0: b}, {0: n}))
    for rows in (1, 4, 50):
        for share in (-1, 0.5, 2):
            mask = torch.rand(rows, 6) < share
            given = torch.randn(rows, 6, 5), mask, torch.randn(int(mask.sum()), 5)
            assert_same(compiled(*given), Assign()(*given))
    mask = torch.rand(4, 6) > 0.5
    one = torch.randn(4, 6, 5), mask, torch.randn(1, 5)
    assert_same(compiled(*one), Assign()(*one))
    for wrong in (1, -1):
        with pytest.raises(RuntimeError, match="got a mask that selects another number"):
            compiled(example[0], mask, torch.randn(int(mask.sum()) + wrong, 5))


def test_a_source_for_a_mask_may_be_empty(assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> Any:
            return x.masked_scatter(mask, source)

    n = torch.export.Dim("n", min=0, max=300)
    example = torch.randn(4, 6), torch.rand(4, 6) > 0.5, torch.randn(30)
    compiled = compile_whole(Model(), example, dynamic_shapes=(None, None, {0: n}))
    assert_same(compiled(*example), Model()(*example))
    none = example[0], example[1] & False, torch.randn(0)
    assert_same(compiled(*none), Model()(*none))
    with pytest.raises(RuntimeError, match="got a mask that selects more elements"):
        compiled(example[0], example[1] | True, torch.randn(23))
