"""Dynamic sizes at their edges: 0, 1, both ends of a range and past them; sizes that follow from others, or that no
input has alone. Results are PyTorch's, and sizes that do not fit are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.export import Dim

import torch_tensorrt
from torch_tensorrt._operator import execute_engine
from torch_tensorrt.dynamo._symbols import linear

Sizes = tuple[int, ...]


def make(function: Callable[..., Any]) -> torch.nn.Module:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.conv = torch.nn.Conv2d(3, 5, 3, padding=1)

    # torch.export names sizes after the parameters of `forward`.
    names = ", ".join(function.__code__.co_varnames[1 : function.__code__.co_argcount])
    scope: dict[str, Any] = {"function": function}
    exec(f"def forward(self, {names}):\n    return function(self, {names})", scope)
    Model.forward = scope["forward"]
    return Model().eval()


def engines(module: torch.fx.GraphModule) -> int:
    return len(module.graph.find_nodes(op="call_function", target=execute_engine))


def compile_program(
    program: torch.export.ExportedProgram, args: Any = None, **options: Any
) -> torch.fx.GraphModule:
    return torch_tensorrt.dynamo.compile(program, arg_inputs=args, min_block_size=1, **options)


def check(compiled: Any, module: Any, shapes: tuple[Sizes, ...], assert_same: Any) -> None:
    args = [torch.randn(shape) for shape in shapes]
    with torch.no_grad():
        assert_same(compiled(*args), module(*args), equal_nan=True)


A = Dim.AUTO
D = Dim("d", min=1, max=9)

# What it computes; the shapes of the export; dynamic sizes; sizes of dimension 0 that fit; some that do not.
RELATED: dict[str, tuple[Callable[..., Any], list[Sizes], Any, list[Sizes], list[Sizes]]] = {
    "2d": (
        lambda m, x: torch.relu(m.linear(x)) * 2,
        [(4, 4)],
        ({0: 2 * D},),
        [(2,), (4,), (18,)],
        [(3,), (17,), (19,), (20,)],
    ),
    "2d, halved inside": (
        lambda m, x: torch.relu(x.reshape(2, -1, 4).sum(0)) * 2,
        [(4, 4)],
        ({0: 2 * D},),
        [(4,), (18,)],
        [(1,), (3,), (20,), (2,)],  # torch.export's own module refuses 2
    ),
    "d + 1": (
        lambda m, x: torch.relu(x[1:] - x[:-1]),
        [(4, 4)],
        ({0: D + 1},),
        [(4,), (10,)],
        [(0,), (11,), (2,)],  # as above
    ),
    "2d + 1": (
        lambda m, x: torch.relu(m.linear(x)[::2]),
        [(5, 4)],
        ({0: 2 * D + 1},),
        [(3,), (5,), (19,)],
        [(4,), (18,), (20,), (21,)],
    ),
    "d and 2d": (
        lambda m, x, y: torch.relu(torch.cat([x, x], 0) + y),
        [(2, 4), (4, 4)],
        ({0: D}, {0: 2 * D}),
        [(1, 2), (2, 4), (9, 18)],
        [(2, 3), (2, 5), (1, 1), (10, 20)],
    ),
    "3d and 6d": (
        lambda m, x, y: torch.relu(torch.cat([x, x], 0) + y),
        [(6, 4), (12, 4)],
        ({0: 3 * D}, {0: 6 * D}),
        [(3, 6), (27, 54)],
        [(2, 4), (3, 3), (30, 60)],
    ),
    "2d and d + 1": (
        lambda m, x, y: torch.relu(m.linear(x)).sum(0) + m.linear(y),
        [(4, 4), (3, 4)],
        ({0: 2 * D}, {0: D + 1}),
        [(2, 2), (4, 3), (18, 10)],
        [(4, 4), (3, 3), (20, 11)],
    ),
    "found by the exporter: d and 2d": (
        lambda m, x, y: torch.relu(torch.cat([x, x], 0) + y),
        [(2, 4), (4, 4)],
        ({0: A}, {0: A}),
        [(0, 0), (1, 2), (9, 18)],
        [(2, 3), (3, 2)],
    ),
    "found by the exporter: d + 1 and d": (
        lambda m, x, y: torch.relu(x[:-1] + y),
        [(5, 4), (4, 4)],
        ({0: A}, {0: A}),
        [(3, 2), (5, 4), (9, 8)],
        [(5, 5), (4, 4)],
    ),
    "found by the exporter: a sum": (
        lambda m, x, y, z: torch.relu(torch.cat([x, y]) + z),
        [(5, 4), (3, 4), (8, 4)],
        ({0: A}, {0: A}, {0: A}),
        [(2, 3, 5), (1, 1, 2), (1, 0, 1), (0, 0, 0)],
        [(2, 3, 4), (2, 3, 6)],
    ),
}


@pytest.mark.parametrize("name", RELATED)
def test_sizes_that_follow_from_others_are_in_engines_and_are_checked(name, assert_same) -> None:
    function, shapes, dynamic, good, bad = RELATED[name]
    module = make(function)
    args = tuple(torch.randn(shape) for shape in shapes)
    program = torch.export.export(module, args, dynamic_shapes=dynamic)
    compiled = compile_program(program, args)
    assert engines(compiled) == 1
    for sizes in good:
        check(compiled, module, tuple((size, 4) for size in sizes), assert_same)
    for sizes in bad:
        with pytest.raises(RuntimeError, match="dim 0: got|do not fit together: got"):
            compiled(*(torch.randn(size, 4) for size in sizes))


@pytest.mark.parametrize("name", ["2d, halved inside", "2d + 1", "3d and 6d"])
def test_sizes_that_no_input_has_alone_are_narrowed_by_inputs(name, assert_same) -> None:
    function, shapes, dynamic, good, _ = RELATED[name]
    module = make(function)
    args = tuple(torch.randn(shape) for shape in shapes)
    program = torch.export.export(module, args, dynamic_shapes=dynamic)
    low, high = good[0], tuple(size[0] for size in shapes)
    inputs = [
        torch_tensorrt.Input(min_shape=(a, 4), opt_shape=(b, 4), max_shape=(b, 4))
        for a, b in zip(low, high, strict=True)
    ]
    compiled = compile_program(program, inputs)
    for sizes in (low, high):
        check(compiled, module, tuple((size, 4) for size in sizes), assert_same)
    with pytest.raises(RuntimeError, match="dim 0: got|do not fit together: got"):
        compiled(*(torch.randn(size, 4) for size in good[-1]))


def test_what_a_size_says_of_its_symbol() -> None:
    program = torch.export.export(
        make(lambda m, x: x * 2), (torch.randn(7, 4),), dynamic_shapes=({0: 3 * D + 1},)
    )
    x = program.graph.find_nodes(op="placeholder")[-1]
    size = x.meta["val"].shape[0]
    found = linear(size)
    assert found is not None and (found.factor, found.offset) == (3, 1)
    assert [found.size(value) for value in (0, 2)] == [1, 7]
    assert [found.least(size) for size in (4, 5, 7)] == [1, 2, 2]
    assert [found.largest(size) for size in (4, 6, 7)] == [1, 1, 2]
    assert linear(size * size) is None and linear(-size) is None and linear(size // 2) is None
    assert linear(5) is None


# ---- Sizes of 0 and 1 ----

ONE: dict[str, tuple[Callable[..., Any], Sizes, bool]] = {
    # the last: whether an empty batch has a result in PyTorch
    "linear": (lambda m, x: torch.softmax(m.linear(x), -1), (4,), True),
    "convolution": (lambda m, x: torch.relu(m.conv(x)).mean((2, 3)), (3, 6, 6), True),
    "layer norm": (lambda m, x: torch.nn.functional.layer_norm(x, (4,)) + 1, (4,), True),
    "sum over the batch": (lambda m, x: torch.relu(x).sum(0), (4,), True),
    "mean over the batch": (lambda m, x: x.mean(0) + 1, (4,), True),
    "any over the batch": (lambda m, x: (x > 0).any(0) | (x > 9).all(0), (4,), True),
    "softmax over the batch": (lambda m, x: torch.softmax(x, 0), (4,), True),
    "product with itself": (lambda m, x: x @ x.t(), (4,), True),
    "transposed product": (lambda m, x: x.t() @ x, (4,), True),
    "reshape": (lambda m, x: x.reshape(x.shape[0] * 2, 2) * 2, (4,), True),
    "concatenation": (lambda m, x: torch.relu(torch.cat([x, x, x[:0]], 0)), (4,), True),
    "concatenation of rows": (lambda m, x: torch.relu(torch.cat([x, x], 1)), (4,), True),
    "repeat": (lambda m, x: x.repeat(2, 3) + 1, (4,), True),
    "expand": (lambda m, x: x.unsqueeze(0).expand(3, -1, -1) * 2, (4,), True),
    "broadcast": (lambda m, x: x[:, None, :] + x[None, :, :], (4,), True),
    "slice": (lambda m, x: torch.relu(x)[:, 1:] * 2, (4,), True),
    "flip": (lambda m, x: x.flip(0) * 2, (4,), True),
    "arange": (lambda m, x: x + torch.arange(x.shape[0])[:, None], (4,), True),
    "cumsum": (lambda m, x: x.cumsum(0) * 2, (4,), True),
    "pad": (lambda m, x: torch.nn.functional.pad(x, (1, 2, 3, 4)) * 2, (4,), True),
    "attention": (
        lambda m, x: torch.nn.functional.scaled_dot_product_attention(x, x, x),
        (2, 3, 4),
        True,
    ),
    "largest": (lambda m, x: x.amax(0) * 2, (4,), False),
    "first row": (lambda m, x: x[0] * 2, (4,), False),
    "greatest and place": (lambda m, x: x.max(0).values * 2, (4,), False),
    "last row set": (lambda m, x: x.select_scatter(m.linear(x).sum(0), 0, -1) * 2, (4,), False),
}


@pytest.mark.parametrize("kind", ["auto", "dynamic", "from 1", "from 0"])
@pytest.mark.parametrize("name", ONE)
def test_batches_of_1_and_of_none(name, kind, assert_same) -> None:
    function, rest, has_empty = ONE[name]
    module = make(function)
    dim = {"auto": A, "dynamic": Dim.DYNAMIC}.get(kind) or Dim("n", min=int(kind[-1]), max=7)
    program = torch.export.export(module, (torch.randn(3, *rest),), dynamic_shapes={"x": {0: dim}})
    compiled = compile_program(program, [torch.randn(3, *rest)])
    assert engines(compiled) == 1
    for batch in (1, 2, 7):
        check(compiled, module, ((batch, *rest),), assert_same)
    empty = torch.randn(0, *rest)
    if not has_empty or kind == "from 1":
        with pytest.raises(RuntimeError, match="got 0, expected"):
            compiled(empty)
    else:
        check(compiled, module, ((0, *rest),), assert_same)


@pytest.mark.parametrize(
    "dim", [A(min=1, max=3), Dim.DYNAMIC(min=1, max=3), Dim("n", min=1, max=3)]
)
def test_inputs_narrow_to_1(dim, assert_same) -> None:
    module = make(lambda m, x: torch.softmax(m.linear(x), -1))
    program = torch.export.export(module, (torch.rand(2, 4),), dynamic_shapes={"x": {0: dim}})
    given = torch_tensorrt.Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(3, 4))
    compiled = compile_program(program, [given])
    for batch in (1, 2, 3):
        check(compiled, module, ((batch, 4),), assert_same)
    for batch in (0, 4):
        with pytest.raises(RuntimeError, match=f"got {batch}, expected 1..3"):
            compiled(torch.randn(batch, 4))


def test_a_size_that_the_exporter_specialised_keeps_its_bound(assert_same) -> None:
    """`squeeze` drops an axis of size 1: the traced graph is not the model's there."""
    module = make(lambda m, x: m.linear(x).squeeze(0) * 2)
    program = torch.export.export(module, (torch.rand(3, 4),), dynamic_shapes={"x": {0: A}})
    compiled = compile_program(program, [torch.rand(3, 4)])
    for batch in (2, 3):
        check(compiled, module, ((batch, 4),), assert_same)
    with pytest.raises(RuntimeError, match="got 1, expected 2"):
        compiled(torch.randn(1, 4))


def test_two_sizes_of_1_and_0(assert_same) -> None:
    module = make(lambda m, x, y: torch.relu(x[:, None, :] + y[None, :, :]).sum(1))
    args = (torch.randn(2, 4), torch.randn(3, 4))
    program = torch.export.export(module, args, dynamic_shapes=({0: A}, {0: A}))
    compiled = compile_program(program, args)
    for first in (0, 1, 2, 5):
        for second in (0, 1, 2, 5):
            check(compiled, module, ((first, 4), (second, 4)), assert_same)


def test_a_cache_that_starts_empty(assert_same) -> None:
    module = make(lambda m, cache, x: (torch.cat([cache, x], 1), torch.cat([cache, x], 1).sum(1)))
    args = (torch.randn(2, 3, 4), torch.randn(2, 1, 4))
    dynamic = ({1: Dim("past", min=0, max=64)}, None)
    compiled = compile_program(torch.export.export(module, args, dynamic_shapes=dynamic), args)
    assert engines(compiled) == 1
    for past in (0, 1, 2, 64):
        check(compiled, module, ((2, past, 4), (2, 1, 4)), assert_same)
    with pytest.raises(RuntimeError, match="got 65, expected 0..64"):
        compiled(torch.randn(2, 65, 4), args[1])


EMPTY: dict[str, tuple[Callable[..., Any], list[Sizes]]] = {
    "an empty input": (lambda m, x: torch.relu(x) * 2, [(0, 4)]),
    "an empty dimension inside": (lambda m, x: torch.relu(x) * 2 + 1, [(2, 0, 3)]),
    "beside another": (lambda m, x, y: torch.cat([x, y], 0) * 2, [(0, 4), (2, 4)]),
    "empty in the middle": (lambda m, x: torch.cat([x[:0] * 2, torch.relu(x)], 0), [(3, 4)]),
    "a sum of nothing": (lambda m, x: x.sum(1) + 1, [(3, 0)]),
    "a product over nothing": (lambda m, x, y: x @ y + 1, [(3, 0), (0, 5)]),
    "a product of nothing": (lambda m, x: m.linear(x) * 2, [(0, 4)]),
    "a convolution of nothing": (lambda m, x: torch.relu(m.conv(x)), [(0, 3, 5, 5)]),
    "a softmax of nothing": (lambda m, x: torch.softmax(x, -1) * 2, [(2, 0)]),
    "reshaped": (lambda m, x: x.reshape(4, 0, 2) * 2, [(0, 8)]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_static_sizes_of_0_are_in_engines(name, assert_same) -> None:
    function, shapes = EMPTY[name]
    module = make(function)
    args = tuple(torch.randn(shape) for shape in shapes)
    compiled = compile_program(torch.export.export(module, args), args)
    assert engines(compiled) == 1
    check(compiled, module, tuple(shapes), assert_same)


def attended(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(x, x, x)


# Sizes of 0 where the last axis but one varies.
BESIDE_A_RANGE: dict[str, tuple[Callable[..., Any], Sizes]] = {
    "products without results": (lambda m, x: x @ x.mT[..., :0], (2, 5, 4)),
    "products over nothing": (lambda m, x: x @ torch.zeros(0, 3) + 1, (2, 5, 0)),
    "linear layers over nothing": (
        lambda m, x: torch.nn.functional.linear(x, torch.zeros(3, 0), torch.ones(3)),
        (2, 5, 0),
    ),
    "linear layers of views": (
        lambda m, x: torch.nn.functional.linear(m.conv(x)[..., :-5], torch.zeros(4, 0)),
        (2, 3, 5, 5),
    ),
    "heads of nothing": (
        lambda m, x: attended(m.conv(x)[..., :-5]) @ torch.ones(0, 2),
        (2, 3, 5, 5),
    ),
    "means of nothing": (lambda m, x: torch.relu(x)[..., :0].mean(-1), (2, 5, 4)),
}


@pytest.mark.parametrize("name", BESIDE_A_RANGE)
def test_sizes_of_0_beside_a_range_are_in_engines(name, assert_same) -> None:
    function, shape = BESIDE_A_RANGE[name]
    module = make(function)
    axis = len(shape) - 2
    args = (torch.randn(shape),)
    shapes = ({axis: Dim("s", min=3, max=9)},)
    program = torch.export.export(module, args, dynamic_shapes=shapes)
    compiled = compile_program(program, require_full_compilation=True)
    for size in (3, 5, 9):
        check(compiled, module, ((*shape[:axis], size, *shape[axis + 1 :]),), assert_same)


def test_ranges_of_inputs_from_0(assert_same) -> None:
    module = make(lambda m, x: torch.softmax(m.linear(x), -1))
    given = torch_tensorrt.Input(min_shape=(0, 4), opt_shape=(2, 4), max_shape=(8, 4))
    compiled = torch_tensorrt.compile(module, ir="dynamo", inputs=[given], min_block_size=1)
    for batch in (0, 1, 8):
        check(compiled, module, ((batch, 4),), assert_same)
    with pytest.raises(RuntimeError, match="got 9, expected 0..8"):
        compiled(torch.randn(9, 4))


def test_images_of_any_size_are_resized_and_pooled(assert_same) -> None:
    """Two sizes that vary, above and below the 128 of both together where PyTorch takes other kernels."""
    resize = torch.nn.functional.interpolate

    def forward(m, x):
        larger = resize(x, scale_factor=2.0, mode="bilinear")
        smaller = resize(x, scale_factor=0.5, mode="bicubic")
        like = resize(x[:, :, :2, :3], size=x.shape[2:], mode="bilinear", align_corners=True)
        pooled = torch.nn.functional.adaptive_avg_pool2d(smaller, (3, 5))
        largest = torch.nn.functional.adaptive_max_pool2d(resize(x, scale_factor=3.0), (2, 4))
        return larger, x + like, pooled, largest

    module = make(forward)
    sizes = {2: Dim("h", min=4, max=90), 3: Dim("w", min=4, max=90)}
    program = torch.export.export(module, (torch.randn(1, 2, 6, 8),), dynamic_shapes=(sizes,))
    compiled = compile_program(program, require_full_compilation=True)
    for height, width in ((4, 4), (5, 7), (33, 31), (90, 6), (64, 65)):
        check(compiled, module, ((1, 2, height, width),), assert_same)


# ---- What inputs say of ranges ----


@pytest.mark.parametrize("given", ["tensor", "Input"])
def test_a_static_input_keeps_the_range_of_the_program(given, assert_same) -> None:
    module = make(lambda m, x: torch.relu(m.linear(x)))
    program = torch.export.export(
        module, (torch.randn(2, 4),), dynamic_shapes=({0: Dim("n", min=1, max=6)},)
    )
    inputs = [torch.randn(2, 4) if given == "tensor" else torch_tensorrt.Input(shape=(2, 4))]
    compiled = compile_program(program, inputs)
    for batch in (1, 2, 6):
        check(compiled, module, ((batch, 4),), assert_same)
    with pytest.raises(RuntimeError, match="got 7, expected 1..6"):
        compiled(torch.randn(7, 4))
    with pytest.raises(ValueError, match="is 7, but was exported for 1 to 6"):
        compile_program(program, [torch_tensorrt.Input(shape=(7, 4))])


class Turned(torch.nn.Module):
    """A linear layer's rows, b + 1 of each, reversed or turned, as the left factor of a product."""

    def __init__(self, stacked: int, turns: int, dims: tuple[int, int]) -> None:
        super().__init__()
        self.stacked, self.turns, self.dims = stacked, turns, dims
        self.linear = torch.nn.Linear(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = torch.cat([x[..., :1], x], -1)[..., None]
        rows = self.linear(torch.stack([padded, padded * 2], self.stacked))
        turned = torch.rot90(rows, self.turns, self.dims)
        return turned @ torch.ones(turned.shape[-1], 2)


@pytest.mark.parametrize(
    ("stacked", "turns", "dims"),
    [(0, 1, (0, 2)), (0, 2, (0, 1)), (0, 3, (0, 2)), (1, 1, (0, 1)), (1, 3, (0, 1))],
)
def test_rows_of_a_size_and_one_more_are_turned(stacked, turns, dims, assert_same) -> None:
    model, x = Turned(stacked, turns, dims).eval(), torch.randn(5)
    b = torch.export.Dim("b", min=2, max=9)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: b},))
    compiled = torch_tensorrt.dynamo.compile(program, inputs=[x], require_full_compilation=True)
    for size in (2, 3, 9):
        x = torch.randn(size)
        assert_same(compiled(x), model(x))


def beside_text(m: Any, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """As transformers for images do: rows of both, whose heads and pairs follow from the others."""
    rows = torch.cat([text, image], 1)
    pairs = rows.view(rows.shape[0], rows.shape[1], 2, -1, 2)
    return (
        pairs.flip(-1).flatten(3),
        rows.reshape(-1, rows.shape[1] * 2, 4),
        rows.unflatten(2, (-1, 4)),
    )


@pytest.mark.parametrize("decompose", [False, True])
def test_a_size_that_sums_divide(decompose: bool, assert_same) -> None:
    batch = Dim("batch", max=5)
    shapes = {"image": {0: batch, 1: Dim("length", max=40)}, "text": {0: batch}}
    args = (torch.randn(3, 5, 8), torch.randn(3, 16, 8))
    program = torch.export.export(make(beside_text), args, dynamic_shapes=shapes)
    if decompose:
        program = program.run_decompositions()
    compiled = compile_program(program, args)
    assert engines(compiled) == 1
    for n, length in ((3, 5), (1, 1), (5, 40)):
        given = (torch.randn(n, length, 8), torch.randn(n, 16, 8))
        assert_same(compiled(*given), beside_text(None, *given))
