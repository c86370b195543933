"""What PyTorch refuses while it runs, engines refuse too: indices that are out of range, integers divided by zero."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import kiln
import torch_tensorrt

KILN = Path(kiln.__file__).parent / "bin" / "kiln"
ROWS = torch.arange(10.0).reshape(5, 2)
INT64 = torch.iinfo(torch.int64)
BELOW, ABOVE = (-1, -6, INT64.min), (5, 6, 1 << 33, INT64.max)


class Function(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def exported(function: Any, *inputs: torch.Tensor, dynamic_shapes: Any = None) -> Any:
    shapes = (dynamic_shapes,) if dynamic_shapes is not None else None
    return torch.export.export(Function(function).eval(), inputs, dynamic_shapes=shapes)


def compiled(function: Any, *inputs: torch.Tensor, **options: Any) -> Any:
    shapes = options.pop("dynamic_shapes", None)
    return torch_tensorrt.dynamo.compile(
        exported(function, *inputs, dynamic_shapes=shapes),
        arg_inputs=inputs,
        min_block_size=1,
        **{"require_full_compilation": True, **options},
    )


def engine_of(function: Any, *inputs: torch.Tensor) -> bytes:
    return torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        exported(function, *inputs), arg_inputs=inputs, min_block_size=1
    )


def expect_as_eager(function: Any, module: Any, *inputs: torch.Tensor) -> None:
    """The same result, or an error where PyTorch has one: IndexError where PyTorch's is, else RuntimeError."""
    try:
        expected = function(*inputs)
    except (IndexError, RuntimeError) as error:
        kinds = (IndexError,) if isinstance(error, IndexError) else (IndexError, RuntimeError)
        with pytest.raises(kinds, match=r"expected|ZeroDivisionError"):
            module(*inputs)
        return
    torch.testing.assert_close(module(*inputs), expected, equal_nan=True)


def mask_rows(rows: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    return torch.where(i[:, None] >= 0, rows[i], torch.zeros(()))


# Each takes [5, 2] rows and indices of shape [n].
INDEXING = {
    "embedding": lambda rows, i: functional.embedding(i, rows),
    "embedding, padding_idx": lambda rows, i: functional.embedding(i, rows, padding_idx=-1),
    "embedding, cut": lambda rows, i: functional.embedding(i, rows)[:1, 1:],
    "embedding, summed": lambda rows, i: functional.embedding(i, rows).sum(0),
    "embedding of a computed index": lambda rows, i: functional.embedding((i + 1) - 1, rows),
    "embedding of a table of ones": lambda rows, i: functional.embedding(i, torch.ones(5, 2))
    + rows[0],
    "index_select": lambda rows, i: rows.index_select(0, i),
    "index_select of columns": lambda rows, i: rows.T.contiguous().index_select(1, i),
    "gather": lambda rows, i: rows.gather(0, i[:, None].expand(-1, 2)),
    "index": lambda rows, i: rows[i],
    "index of columns": lambda rows, i: rows.T[:, i],
    "two indices": lambda rows, i: rows[i, i * 0],
    "take_along_dim": lambda rows, i: torch.take_along_dim(rows, i[:, None], 0),
    "one_hot": lambda rows, i: functional.one_hot(i, 5) + rows.sum().long(),
    "masked afterwards": mask_rows,
    "normalised": lambda rows, i: functional.layer_norm(functional.embedding(i, rows), (2,)),
    "clamped": lambda rows, i: rows[i.clamp(0, 4)],
    "through a linear": lambda rows, i: functional.linear(
        functional.embedding(i, rows), torch.ones(3, 2)
    ),
    "padded": lambda rows, i: functional.pad(rows[i], (1, 2, 0, 3)),
    "joined and cut away": lambda rows, i: torch.cat([rows[i], rows])[4:],
    "multiplied by nothing": lambda rows, i: torch.cat([rows, rows[i]])[:2] * 2,
}


@pytest.mark.parametrize("name", INDEXING)
def test_indices(name) -> None:
    function = INDEXING[name]
    module = compiled(function, ROWS, torch.tensor([0, 4, 1, 2]))
    for bad in (*BELOW, *ABOVE, 9, 10, -5, -10, -11, 0):
        for place in range(4):
            index = torch.tensor([0, 4, 1, 2])
            index[place] = bad
            expect_as_eager(function, module, ROWS, index)
    expect_as_eager(function, module, ROWS, torch.tensor([4, 0, 0, 3]))


@pytest.mark.parametrize("name", ["embedding", "index_select", "index", "gather"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_sizes_and_dtypes(name, dtype) -> None:
    function = INDEXING[name]
    if name == "gather" and dtype == torch.int32:
        pytest.skip("PyTorch's gather takes int64")
    count = torch.export.Dim("count", min=1, max=64)
    shapes = (None, {0: count})
    module = compiled(function, ROWS, torch.zeros(4, dtype=dtype), dynamic_shapes=shapes)
    limits = torch.iinfo(dtype)
    for size in range(1, 34):
        index = torch.arange(size, dtype=dtype) % 5
        expect_as_eager(function, module, ROWS, index)
        for bad in (5, -1, -6, limits.min, limits.max):
            for place in {0, size // 2, size - 1}:
                wrong = index.clone()
                wrong[place] = bad
                expect_as_eager(function, module, ROWS, wrong)


DIVISIONS = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "fmod": lambda a, b: torch.fmod(a, b),
    "true": lambda a, b: a / b,
    "7 //": lambda a, b: 7 // b + a,
}


@pytest.mark.parametrize("name", DIVISIONS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_division(name, dtype) -> None:
    function = DIVISIONS[name]
    count = torch.export.Dim("count", min=1, max=64)
    a, b = torch.arange(4).to(dtype), torch.arange(1, 5).to(dtype)
    module = compiled(function, a, b, dynamic_shapes=({0: count}, {0: count}))
    for size in range(1, 34):
        a = torch.arange(size).to(dtype)
        b = (torch.arange(size) % 7 + 1).to(dtype)
        expect_as_eager(function, module, a, b)
        for place in {0, size // 2, size - 1}:
            zero = b.clone()
            zero[place] = 0
            expect_as_eager(function, module, a, zero)
    expect_as_eager(function, module, torch.ones(3, dtype=dtype), torch.ones(3, dtype=dtype))


def test_a_division_that_is_cut_away() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat([a // b, a])[3:] + 1

    module = compiled(function, torch.tensor([7, 3, 1]), torch.tensor([1, 2, 3]))
    for divisors in ([1, 2, 3], [1, 2, 0], [0, 0, 0]):
        expect_as_eager(function, module, torch.tensor([7, 3, 1]), torch.tensor(divisors))


EXTREMES = {
    "amax": lambda x: x.amax(1) + 1,
    "amin, kept": lambda x: x.amin(1, keepdim=True) + 1,
    "amax of two": lambda x: x.amax((0, 1)) + 1,
    "max": lambda x: x.max() + 1,
    "max with indices": lambda x: tuple(x.max(1)),
    "argmax": lambda x: x.argmax(1) + 1,
    "argmin of all": lambda x: x.argmin() + 1,
    "aminmax": lambda x: tuple(torch.aminmax(x, dim=1)),
    "infinite norm": lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1) + 1,
    "of other sizes": lambda x: x.amax(0) + x.sum(),
    "sum": lambda x: x.sum(1) + x.prod(1) + x.logsumexp(1) + x.any(1),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_the_extreme_of_no_elements(name, tmp_path) -> None:
    """Of a bare engine: what calls a compiled module leaves such sizes out of its ranges."""
    function = EXTREMES[name]
    shapes = {0: torch.export.Dim("rows", min=0, max=9), 1: torch.export.Dim("n", min=0, max=9)}
    program = exported(function, torch.randn(3, 4), dynamic_shapes=(shapes,))
    torch.export.save(program, tmp_path / "m")
    session = kiln.load(kiln.compile(tmp_path / "m")).session()

    def run(x: torch.Tensor) -> Any:
        results = [torch.from_numpy(result) for result in session.run(x.numpy())]
        return results[0] if len(results) == 1 else tuple(results)

    for sizes in ((3, 4), (2, 0), (2, 1), (0, 3), (0, 0), (2, 9)):
        x = torch.randn(sizes)
        try:
            expected = function(x)
        except (IndexError, RuntimeError) as error:
            is_index = isinstance(error, IndexError)
            with pytest.raises(kiln.KilnError, match="expected a size other than 0") as raised:
                run(x)
            assert isinstance(raised.value, IndexError) == is_index
            continue
        got = run(x)
        for one, other in zip(
            got if isinstance(got, tuple) else [got],
            expected if isinstance(expected, tuple) else [expected],
            strict=True,
        ):
            torch.testing.assert_close(one, other, equal_nan=True)


def test_division_by_what_is_computed() -> None:
    module = compiled(lambda i: i // (i - i), torch.tensor([7, 3]))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        module(torch.tensor([7, 3]))


def test_targets_that_are_ignored() -> None:
    def loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores, target, ignore_index=-100)

    scores = torch.randn(4, 3)
    example = torch.tensor([0, 1, 2, -100])
    module = compiled(loss, scores, example, require_full_compilation=False)
    expect_as_eager(loss, module, scores, torch.tensor([-100, 2, 2, 0]))
    with pytest.raises((IndexError, RuntimeError)):
        module(scores, torch.tensor([0, 3, 1, 2]))


def test_the_message_says_what_and_where() -> None:
    module = compiled(INDEXING["embedding"], ROWS, torch.tensor([0, 1]))
    with pytest.raises(IndexError, match=r"\[embedding\] got the index 7 .*0 <= index < 5"):
        module(ROWS, torch.tensor([0, 7]))
    module = compiled(INDEXING["index"], ROWS, torch.tensor([0, 1]))
    with pytest.raises(IndexError, match=r"\[index\] got the index -6 .*-5 <= index < 5"):
        module(ROWS, torch.tensor([-6, 0]))


def test_strided_indices() -> None:
    function = INDEXING["embedding"]
    module = compiled(function, ROWS, torch.tensor([0, 1]))
    good, bad = torch.tensor([[0, 9], [1, 9]])[:, 0], torch.tensor([[0, 0], [9, 0]])[:, 0]
    expect_as_eager(function, module, ROWS, good)
    with pytest.raises(IndexError, match="the index 9"):
        module(ROWS, bad)


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:x86-64-v4"])
@pytest.mark.parametrize("threads", [1, 4])
def test_engines_of_every_kind(target, threads) -> None:
    code = engine_of(INDEXING["embedding"], ROWS, torch.zeros(5000, dtype=torch.int64))
    try:
        engine = kiln.Engine(code, target=target)
    except kiln.UnsupportedError as error:
        pytest.skip(str(error))
    session = engine.session(num_threads=threads)
    rows, index = ROWS.numpy(), np.arange(5000) % 5
    for place in (0, 2500, 4999):
        wrong = index.copy()
        wrong[place] = 5
        with pytest.raises(kiln.OutOfBoundsError, match=r"\[embedding\] got the index 5"):
            session.run(rows, wrong)
        np.testing.assert_array_equal(session.run(rows, index)[0], rows[index])


class Table(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 2)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        return self.table(i) * (12 // i.abs().sum())


@pytest.mark.parametrize("name", ["model.ep", "model.pt2", "model.ts"])
def test_saved_models(tmp_path, name) -> None:
    model, good = Table().eval(), torch.tensor([0, 4, 1])
    module = torch_tensorrt.compile(model, "dynamo", [good], min_block_size=1)
    options = {"output_format": "torchscript"} if name.endswith(".ts") else {}
    if name.endswith(".pt2"):
        options = {"output_format": "aot_inductor"}
    torch_tensorrt.save(module, tmp_path / name, arg_inputs=[good], **options)
    loaded = torch_tensorrt.load(tmp_path / name)
    if isinstance(loaded, torch.export.ExportedProgram):
        loaded = loaded.module()
    for _ in range(2):
        torch.testing.assert_close(loaded(good), model(good))
        with pytest.raises((IndexError, RuntimeError)):
            loaded(torch.tensor([0, 5, 1]))
        with pytest.raises(RuntimeError):
            loaded(torch.tensor([0, 0, 0]))


def test_engine_files(tmp_path) -> None:
    model, good = Table().eval(), np.array([0, 4, 1])
    program = torch.export.export(model, (torch.from_numpy(good),))
    torch.export.save(program, tmp_path / "model.pt2")
    subprocess.run([KILN, "compile", tmp_path / "model.pt2", "-o", tmp_path / "m.kiln"], check=True)
    session = kiln.load(tmp_path / "m.kiln").session()
    expected = model(torch.from_numpy(good)).detach().numpy()
    np.testing.assert_allclose(session.run(good)[0], expected)
    with pytest.raises(IndexError, match="the index 5"):
        session.run(np.array([0, 5, 1]))
    with pytest.raises(ZeroDivisionError):
        session.run(np.array([0, 0, 0]))
    np.testing.assert_allclose(session.run(good)[0], expected)
    np.save(tmp_path / "bad.npy", np.array([0, 5, 1]))
    done = subprocess.run(
        [KILN, "run", tmp_path / "m.kiln", "--input", tmp_path / "bad.npy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "[embedding] got the index 5" in done.stderr


def test_checks_that_are_left_out(tmp_path) -> None:
    index = torch.tensor([0, 7, -3])
    module = compiled(INDEXING["embedding"], ROWS, torch.tensor([0, 1, 2]), check_bounds=False)
    module(ROWS, index)  # memory is safe all the same
    program = exported(INDEXING["embedding"], ROWS, torch.tensor([0, 1, 2]))
    torch.export.save(program, tmp_path / "model.pt2")
    checked = kiln.compile(tmp_path / "model.pt2")
    unchecked = kiln.compile(tmp_path / "model.pt2", check_bounds=False)
    assert kiln.Engine(checked).describe()["check_bounds"] is True
    assert kiln.Engine(unchecked).describe()["check_bounds"] is False
    kiln.Engine(unchecked).session().run(ROWS.numpy(), index.numpy())
    assert kiln.compile_key(tmp_path / "model.pt2") != kiln.compile_key(
        tmp_path / "model.pt2", check_bounds=False
    )
    assert bytes(kiln.refit(unchecked, tmp_path / "model.pt2")) == bytes(unchecked)
    assert bytes(kiln.refit(checked, tmp_path / "model.pt2")) == bytes(checked)
    subprocess.run(
        [KILN, "compile", tmp_path / "model.pt2", "-o", tmp_path / "m.kiln", "--no-bounds-checks"],
        check=True,
    )
    assert (tmp_path / "m.kiln").read_bytes() == bytes(unchecked)
