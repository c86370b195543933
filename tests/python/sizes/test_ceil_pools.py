"""Pools with `ceil_mode` over sizes that vary: the sizes and results of PyTorch for every size in the range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models_small import compile_all, engines_of, torch_operators_of
from torch.nn import functional

import kiln
from torch_tensorrt import Input

MOST = 11


class Pool(torch.nn.Module):
    def __init__(self, pool: Callable[..., Any], options: dict[str, Any]) -> None:
        super().__init__()
        self.pool = pool
        self.options = options

    def forward(self, x: torch.Tensor) -> Any:
        return self.pool(x, ceil_mode=True, **self.options)


def window(kernel: int, stride: int, padding: int, **others: Any) -> dict[str, Any]:
    return {"kernel_size": kernel, "stride": stride, "padding": padding, **others}


WINDOWS = [
    window(3, 2, 0),
    window(3, 2, 1),
    window(2, 2, 1),
    window(2, 3, 0),  # a last window may begin behind the input
    window(2, 3, 1),
    window(4, 5, 2),
    window(1, 3, 0),
    window(5, 1, 2),
]
MAX_WINDOWS = [*WINDOWS, window(2, 3, 1, dilation=2), window(3, 2, 1, dilation=3)]
MEAN_WINDOWS = [
    *WINDOWS,
    *({**each, "count_include_pad": False} for each in WINDOWS[1:5]),
    *({**each, "divisor_override": 3} for each in WINDOWS[1:5]),
]
MAX_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
MEAN_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def check(module: torch.nn.Module, rank: int, dtype: torch.dtype = torch.float32) -> None:
    """The last axis and, if there are several, the first vary, down to 1 element."""

    def shape(size: int) -> tuple[int, ...]:
        return (2, 3, size, 5, 4)[: rank + 2] if rank != 2 else (2, 3, size, size)

    low = next(n for n in range(1, MOST) if has_result(module, shape(n), dtype))
    given = Input(min_shape=shape(low), opt_shape=shape(8), max_shape=shape(MOST), dtype=dtype)
    compiled = compile_all(module, given)
    assert len(engines_of(compiled)) == 1 and not torch_operators_of(compiled)
    for size in range(low, MOST + 1):
        x = numbers(shape(size), dtype)
        torch.testing.assert_close(
            places_that_are(compiled(x)), places_that_are(module(x)), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(RuntimeError, match="expected"):
        compiled(numbers(shape(MOST + 1), dtype))


def places_that_are(result: Any) -> Any:
    """Without the places of windows that have no element, which in PyTorch are behind the input."""
    if isinstance(result, torch.Tensor):
        return result
    largest, places = result
    return largest, places.where(largest > -torch.inf, -1)


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(shape[2])
    return (torch.randn(shape) * 50).to(dtype) - 60  # zeros of padding would be larger


def has_result(module: torch.nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    try:
        module(numbers(shape, dtype))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("options", MAX_WINDOWS, ids=str)
@pytest.mark.parametrize("indices", [False, True])
def test_max_pools(options: dict[str, Any], indices: bool) -> None:
    check(Pool(functional.max_pool2d, {**options, "return_indices": indices}).eval(), 2)


@pytest.mark.parametrize("options", MEAN_WINDOWS, ids=str)
def test_average_pools(options: dict[str, Any]) -> None:
    check(Pool(functional.avg_pool2d, options).eval(), 2)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("options", [window(3, 2, 1), window(2, 3, 1)], ids=str)
@pytest.mark.parametrize("kind", ["max", "indices", "mean"])
def test_other_ranks(rank: int, options: dict[str, Any], kind: str) -> None:
    pool = (MEAN_POOLS if kind == "mean" else MAX_POOLS)[rank]
    if kind == "indices":
        options = {**options, "return_indices": True}
    check(Pool(pool, options).eval(), rank)


@pytest.mark.parametrize("options", [window(3, 2, 1), window(2, 3, 1)], ids=str)
def test_average_pools_of_integers(options: dict[str, Any]) -> None:
    check(Pool(functional.avg_pool2d, options).eval(), 2, torch.int64)


def test_sizes_that_are_too_small_for_a_window(tmp_path: Path) -> None:
    module = Pool(functional.max_pool2d, window(3, 2, 0)).eval()
    dynamic = ({2: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (torch.randn(1, 2, 8, 8),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "model.pt2")
    ranges = [kiln.InputRange("x", 2, 0, 8, 20)]
    session = kiln.load(kiln.compile(tmp_path / "model.pt2", ranges=ranges)).session()
    for size in (0, 1):
        x = torch.randn(1, 2, size, 8)
        with pytest.raises(RuntimeError):
            module(x)
        with pytest.raises(kiln.KilnError, match="expected a window of 3 to fit into an axis"):
            session.run(x.numpy())
    x = torch.randn(1, 2, 4, 8)
    torch.testing.assert_close(torch.from_numpy(session.run(x.numpy())[0]), module(x))


@pytest.mark.parametrize("options", WINDOWS[:6], ids=str)
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_onnx_pools(operator: str, options: dict[str, Any], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    kernel, stride, padding = options.values()
    node = onnx.helper.make_node(
        operator,
        ["x"],
        ["y"],
        kernel_shape=[kernel],
        strides=[stride],
        pads=[padding, padding],
        ceil_mode=1,
    )
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, 3, "n"))
    graph = onnx.helper.make_graph([node], "graph", [x], [onnx.ValueInfoProto(name="y")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    ranges = [kiln.InputRange("x", 2, 4, 4, MOST)]
    session = kiln.load(kiln.compile(tmp_path / "model.onnx", ranges=ranges)).session()
    pool = functional.max_pool1d if operator == "MaxPool" else functional.avg_pool1d
    if operator == "AveragePool":
        options = {**options, "count_include_pad": False}
    for size in range(4, MOST + 1):
        given = numbers((2, 3, size), torch.float32)
        (y,) = session.run(given.numpy())
        torch.testing.assert_close(torch.from_numpy(y), pool(given, ceil_mode=True, **options))
