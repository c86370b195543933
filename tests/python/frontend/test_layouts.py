"""Inputs that fill their memory in another order enter engines as they lie: nothing is copied for it."""

from __future__ import annotations

import pytest
import torch
from models_small import compile_all, engines_of, torch_operators_of

import kiln
import torch_tensorrt
from torch_tensorrt import dynamo
from torch_tensorrt._operator import execute_engine
from torch_tensorrt.dynamo import _layouts, refit_module_weights, trace


@pytest.fixture(autouse=True)
def views_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What engines for GPUs get, without a GPU."""
    monkeypatch.setattr(_layouts, "_DEVICES", {"cpu"})


class Images(torch.nn.Module):
    """x: [n, 3, h, w], bias: [8, 1, 1]; the bias alone is used, too, so that a part needs no image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(self.first(x)) + torch.exp(bias), x.mean((2, 3))


def channels_last(*shape: int) -> torch.Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


def inputs_of(module: torch.fx.GraphModule) -> dict[str, str]:
    (call,) = engines_of(module)  # one engine, whatever waits for views
    description = kiln.inspect(module.get_buffer(call.args[1].target).numpy())
    return {each["name"]: each["shape"] for each in description["inputs"]}


@pytest.fixture
def images() -> Images:
    torch.manual_seed(0)
    return Images().eval()


X, BIAS = channels_last(2, 3, 6, 5), torch.randn(8, 1, 1)


def test_an_image_enters_with_its_channels_last(images, assert_same):
    compiled = compile_all(images, X, BIAS)
    assert inputs_of(compiled) == {"bias": "[8, 1, 1]", "x_as_it_lies": "[2, 6, 5, 3]"}
    assert torch_operators_of(compiled) == set()
    assert_same(compiled(X, BIAS), images(X, BIAS))


def test_inputs_in_another_order_give_the_same(images):
    compiled = compile_all(images, X, BIAS)
    for x in (X.contiguous(), X.transpose(2, 3).contiguous().transpose(2, 3), X[:, :, ::1]):
        for got, expected in zip(compiled(x, BIAS), images(x, BIAS), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_sizes_that_vary(images):
    batch, height = torch.export.Dim("n", min=1, max=8), torch.export.Dim("h", min=2, max=40)
    program = torch.export.export(images, (X, BIAS), dynamic_shapes=({0: batch, 2: height}, None))
    compiled = dynamo.compile(program, min_block_size=1)
    for shape in ((2, 3, 6, 5), (1, 3, 40, 5), (8, 3, 2, 5)):
        x = channels_last(*shape)
        for got, expected in zip(compiled(x, BIAS), images(x, BIAS), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match=r"x_as_it_lies.*in the order 0, 2, 3, 1"):
        compiled(channels_last(2, 3, 6, 4), BIAS)


def test_row_major_inputs_are_left_alone(images):
    compiled = compile_all(images, X.contiguous(), BIAS)
    assert inputs_of(compiled) == {"x": "[2, 3, 6, 5]", "bias": "[8, 1, 1]"}
    assert torch_operators_of(compiled) == set()


def test_inputs_with_gaps_are_left_alone(images):
    compiled = compile_all(images, channels_last(2, 3, 12, 5)[:, :, ::2], BIAS)
    assert torch_operators_of(compiled) == set()


def test_refit(images, assert_same):
    compiled = compile_all(images, X, BIAS)
    torch.manual_seed(1)
    other = Images().eval()
    refitted = refit_module_weights(compiled, trace(other, [X, BIAS]))
    assert_same(refitted(X, BIAS), other(X, BIAS))
    assert inputs_of(refitted) == inputs_of(compiled)


def test_an_input_that_is_changed(images):
    class Changing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.mean(1)
            x.add_(1)
            return y + x[:, 0]

    got, expected = X.clone(), X.clone()
    torch.testing.assert_close(compile_all(Changing(), X)(got), Changing()(expected))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("ending", "output_format"),
    [("ep", "exported_program"), ("ts", "torchscript"), ("pt2", "aot_inductor")],
)
def test_every_format(ending, output_format, images, tmp_path) -> None:
    """With sizes that vary, which the spec has in the order in which the engine takes them."""
    batch, height = torch.export.Dim("n", min=1, max=8), torch.export.Dim("h", min=2, max=40)
    program = torch.export.export(images, (X, BIAS), dynamic_shapes=({0: batch, 2: height}, None))
    compiled = dynamo.compile(program, min_block_size=1)
    path = tmp_path / f"m.{ending}"
    torch_tensorrt.save(compiled, path, output_format=output_format)
    loaded = torch_tensorrt.load(path)
    for x in (X, channels_last(3, 3, 9, 5), channels_last(1, 3, 40, 5).contiguous()):
        for got, expected in zip(loaded(x, BIAS), images(x, BIAS), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_bad_orders_of_inputs(images) -> None:
    compiled = compile_all(images, X, BIAS)
    (call,) = engines_of(compiled)
    spec = call.args[2]
    assert spec.endswith(("<;{0,2,3,1}", "<{0,2,3,1}"))
    engine = compiled.get_buffer(call.args[1].target)
    inputs = [BIAS, X] if "<;" in spec else [X, BIAS]
    for order in ("{0,2,3}", "{0,2,3,3}", "{0,2,3,1", ";;;{0}"):
        with pytest.raises(RuntimeError, match="layout|dimensions"):
            execute_engine(inputs, engine, spec.replace("{0,2,3,1}", order))
