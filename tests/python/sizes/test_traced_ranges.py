"""Ranges of Inputs as users write them, also where torch.export alone takes no such range: every size in them works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import check
from torch.nn import functional

import torch_tensorrt
from torch_tensorrt import Input

pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 13),
    reason="PyTorch before 2.13 takes sizes of slices for data, and pools for lengths of the example's remainder",
)

# One input: the function, the shape with None for the size that varies, its range.
ONE_SIZE: dict[
    str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int | None, ...], range]
] = {
    "up to 2": (lambda x: x + 1, (None, 3), range(1, 3)),
    "a slice from the start": (lambda x: x[:, :2], (1, None), range(1, 4)),
    "a slice in the middle": (lambda x: x[:, 2:5], (1, None), range(2, 10)),
    "a slice from the end": (lambda x: x[:, -3:], (1, None), range(2, 10)),
    "every second": (lambda x: x[:, ::2], (1, None), range(2, 10)),
    "steps up to an end": (lambda x: x[:, 1:9:3], (1, None), range(2, 11)),
    "the first half": (lambda x: x[: x.shape[0] // 2], (None, 3), range(1, 6)),
    "a strided convolution down to one": (
        lambda x: functional.conv1d(x, torch.ones(2, 3, 3), stride=2),
        (1, 3, None),
        range(3, 10),
    ),
    "windows": (lambda x: x.unfold(1, 3, 2), (1, None), range(3, 10)),
    "half an image": (
        lambda x: functional.interpolate(x, scale_factor=0.5),
        (1, 3, None, 4),
        range(2, 10),
    ),
    "half an image, bilinear": (
        lambda x: functional.interpolate(x, scale_factor=0.5, mode="bilinear"),
        (1, 3, None, 4),
        range(2, 10),
    ),
    "pooling down to one": (lambda x: functional.avg_pool2d(x, 2), (1, 3, None, 4), range(2, 10)),
}

# PyTorch's own fixes the length of what it is traced with.
POOLS = {
    "kernel": torch.nn.MaxPool1d(2),
    "stride": torch.nn.MaxPool1d(3, stride=1, padding=1),
    "dilation": torch.nn.MaxPool1d(kernel_size=(2,), stride=(2,), dilation=(2,)),
}

TWO_INPUTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "sum": lambda x, y: x + y,
    "concatenation": lambda x, y: torch.cat([x, y], 1),
    "angle": torch.atan2,
    "product": lambda x, y: x @ y.t(),
    "scores": lambda x, y: functional.scaled_dot_product_attention(x[None], y[None], y[None])[0],
}


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class TwoInputs(Function):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.function(x, y)


def whole_engine(model: torch.nn.Module, inputs: list[Input]) -> torch.nn.Module:
    return torch_tensorrt.compile(
        model.eval(), ir="dynamo", inputs=inputs, require_full_compilation=True, min_block_size=1
    )


def of_size(shape: tuple[int | None, ...], size: int) -> tuple[int, ...]:
    return tuple(size if each is None else each for each in shape)


@pytest.mark.parametrize("name", ONE_SIZE)
def test_every_size_of_the_range_works(name: str) -> None:
    function, shape, sizes = ONE_SIZE[name]
    least, opt, most = (of_size(shape, n) for n in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    model = Function(function)
    compiled = whole_engine(model, [Input(min_shape=least, opt_shape=opt, max_shape=most)])
    for size in sizes:
        check(compiled, model, torch.randn(of_size(shape, size)))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("rank", [2, 3])
def test_max_pools_of_any_length(name: str, rank: int) -> None:
    batch = (2,) * (rank - 2)
    spec = Input(min_shape=(*batch, 3, 4), opt_shape=(*batch, 3, 16), max_shape=(*batch, 3, 40))
    compiled = whole_engine(POOLS[name], [spec])
    for length in (4, 5, 16, 39, 40):
        check(compiled, POOLS[name], torch.randn(*batch, 3, length))


class Recurrent(torch.nn.Module):
    """With an operator that is decomposed beside it."""

    def __init__(self, kind: type[torch.nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.network = kind(8, 16, batch_first=True, **options)
        self.out = torch.nn.Linear(16 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        y, state = self.network(x)
        return self.out(torch.relu(y)) + torch.trapezoid(y, dim=2).unsqueeze(-1), state


@pytest.mark.parametrize("is_decomposed", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (torch.nn.GRU, {"bidirectional": True}),
        (torch.nn.RNN, {"nonlinearity": "relu"}),
    ],
)
def test_recurrent_networks_over_sequences_of_any_length(
    kind: type[torch.nn.RNNBase], options: dict[str, Any], is_decomposed: bool
) -> None:
    plain = kind(8, 16, batch_first=True, **options)
    model = Recurrent(kind, **options) if is_decomposed else plain
    spec = Input(min_shape=(1, 1, 8), opt_shape=(2, 9, 8), max_shape=(4, 64, 8))
    compiled = whole_engine(model, [spec])
    for rows in (1, 2, 4):
        for length in (1, 2, 9, 64):
            check(compiled, model, torch.randn(rows, length, 8))


@pytest.mark.parametrize("name", TWO_INPUTS)
@pytest.mark.parametrize(("least", "opt", "most"), [(1, 2, 2), (1, 1, 2), (1, 2, 3), (1, 4, 8)])
def test_sizes_of_two_inputs_are_found_to_be_one(
    name: str, least: int, opt: int, most: int
) -> None:
    model = TwoInputs(TWO_INPUTS[name])
    spec = Input(min_shape=(least, 3), opt_shape=(opt, 3), max_shape=(most, 3))
    compiled = whole_engine(model, [spec, spec])
    for size in range(least, most + 1):
        check(compiled, model, torch.randn(size, 3), torch.randn(size, 3))


def test_two_axes_of_two_inputs() -> None:
    model = TwoInputs(lambda x, y: torch.sub(x, y, alpha=2))
    x = Input(min_shape=(1, 1, 3), opt_shape=(2, 2, 3), max_shape=(2, 2, 4))
    y = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(2, 4))
    compiled = whole_engine(model, [x, y])
    for rows, columns in ((1, 3), (2, 3), (1, 4), (2, 4)):
        check(compiled, model, torch.randn(rows, rows, columns), torch.randn(rows, columns))


def test_sizes_that_the_model_cannot_take_fail_at_the_call() -> None:
    model = Function(lambda x: x.reshape(x.shape[0] // 2, 2, 3) + 1).eval()
    spec = Input(min_shape=(2, 3), opt_shape=(4, 3), max_shape=(8, 3))
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[spec], min_block_size=1)
    for size in (2, 4, 8):
        check(compiled, model, torch.randn(size, 3))
    for size in (3, 7):
        with pytest.raises(RuntimeError):
            compiled(torch.randn(size, 3))


def test_a_range_of_which_the_model_takes_one_size_is_an_error() -> None:
    def one_size_alone(x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[0] == 3 else x + 1

    spec = Input(min_shape=(2, 3), opt_shape=(3, 3), max_shape=(4, 3))
    with pytest.raises(Exception, match="constant"):
        whole_engine(Function(one_size_alone), [spec])


def test_a_size_that_decompositions_fix_is_an_error() -> None:
    spec = Input(min_shape=(2, 3), opt_shape=(3, 3), max_shape=(4, 3))
    with pytest.raises(ValueError, match="dimension 0, may vary, but .* fix it at 3"):
        whole_engine(Function(torch.pdist), [spec])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.arange(x.shape[0], -x.shape[0], -1.0) + x[0, 0],
        lambda x: torch.arange(0.0, x.shape[0]) * x[0, 0],
        lambda x: torch.arange(1.0, x.shape[0] + 1, 2.0, dtype=torch.float64) * x[0, 0],
        lambda x: torch.arange(-2.0, x.shape[0], dtype=torch.int64) * x[0, 0],
    ],
)
def test_whole_numbers_with_a_point_beside_sizes(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    model = Function(function)
    spec = Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(9, 3))
    compiled = whole_engine(model, [spec])
    for size in (1, 2, 4, 9):
        check(compiled, model, torch.randn(size, 3))


def test_conditions_that_decompositions_add_leave_one_row_in() -> None:
    model = torch.nn.EmbeddingBag(20, 8)
    spec = Input(min_shape=(1, 4), opt_shape=(2, 9), max_shape=(4, 16), dtype=torch.int64)
    compiled = whole_engine(model, [spec])
    for rows in (1, 2, 4):
        for length in (4, 9, 16):
            check(compiled, model, torch.randint(0, 20, (rows, length)))


@pytest.mark.parametrize(
    "function", [lambda x: x[:, :2] + 1, lambda x: x[::2] * 2], ids=["slice", "stride"]
)
def test_sizes_that_follow_from_a_dimension(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    model = Function(function).eval()
    half = torch.export.Dim("half", min=1, max=4)
    compiled = torch_tensorrt.compile(
        model,
        ir="dynamo",
        inputs=[torch.randn(4, 3)],
        dynamic_shapes=({0: 2 * half},),
        min_block_size=1,
    )
    for rows in (2, 4, 8):
        check(compiled, model, torch.randn(rows, 3))


@pytest.mark.parametrize("defers", [False, True])
@pytest.mark.parametrize(
    "name", ["a strided convolution down to one", "a slice in the middle", "windows"]
)
def test_mutable_modules_take_the_same_ranges(name: str, defers: bool) -> None:
    function, shape, sizes = ONE_SIZE[name]
    model = Function(function).eval()
    mutable = torch_tensorrt.MutableTorchTensorRTModule(
        model, min_block_size=1, prefer_deferred_runtime_asserts_over_guards=defers
    )
    length = torch.export.Dim("length", min=sizes[0], max=sizes[-1])
    mutable.set_expected_dynamic_shape_range(({shape.index(None): length},), {})
    for size in (6, *sizes):
        check(mutable, model, torch.randn(of_size(shape, size)))
    assert len(mutable._compiled) == 1


def test_recurrent_networks_are_trained_as_before() -> None:
    # Their shapes are for tracers; what computes, and its gradients, is PyTorch's own.
    torch._dynamo.reset()
    model = torch.nn.GRU(8, 16, batch_first=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(model, backend="aot_eager", dynamic=True)
        for length in (5, 9, 3):
            x = torch.randn(2, length, 8, requires_grad=True)
            (expected,) = torch.autograd.grad(model(x)[0].sum(), x)
            (result,) = torch.autograd.grad(compiled(x)[0].sum(), x)
            torch.testing.assert_close(result, expected)
