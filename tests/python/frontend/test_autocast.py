"""`enable_autocast`: models of f32 computed in 16 bits, but for what the rules and the user keep."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch_tensorrt
from torch_tensorrt.dynamo._autocast import decide
from torch_tensorrt.dynamo._settings import CompilationSettings

LOW = [torch.float16, torch.bfloat16]


class Mixed(nn.Module):
    """A network with a region under torch.autocast, as Torch-TensorRT's example has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=False)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.flatten(self.pool1(self.relu2(self.conv2(x))))
        with torch.autocast(x.device.type, enabled=True, dtype=torch.float16):
            y = self.fc1(x)
            return x, y, torch.log(torch.abs(y) + 1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.first = nn.Linear(64, 256)
        self.second = nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(nn.functional.gelu(self.first(self.norm(x))))


def compiled(model: nn.Module, *inputs: Any, low: torch.dtype, **options: Any) -> Any:
    return torch_tensorrt.compile(
        model.eval(),
        ir="dynamo",
        arg_inputs=list(inputs),
        min_block_size=1,
        require_full_compilation=True,
        enable_autocast=True,
        autocast_low_precision_type=low,
        **options,
    )


def kept(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> frozenset[str]:
    options = {"autocast_low_precision_type": torch.float16, **options}
    settings = CompilationSettings.from_options({"enable_autocast": True, **options})
    return decide(torch.export.export(model.eval(), inputs), settings).high


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm())


def test_the_example() -> None:
    model, x = Mixed().eval(), torch.randn(4, 3, 32, 32)[..., :16, :16]
    model.fc1 = nn.Linear(16 * 4 * 4, 10)
    exported = torch.export.export(model, (x,))
    options = {
        "use_explicit_typing": True,
        "enable_autocast": True,
        "autocast_low_precision_type": torch.bfloat16,
        "autocast_excluded_nodes": {"^conv1$", "relu"},
        "autocast_excluded_ops": {torch.ops.aten.flatten.using_ints},
        "autocast_max_output_threshold": 512,
        "autocast_max_depth_of_reduction": None,
    }
    with torch.autocast(x.device.type, enabled=False):
        module = torch_tensorrt.compile(
            exported.module(), arg_inputs=[x], min_block_size=1, **options
        )
    expected = model(x)
    for actual, reference in zip(module(x), expected, strict=True):
        assert actual.dtype == reference.dtype  # flatten is excluded; the rest says it is f16
        assert error(actual, reference) <= 1e-2
    assert not torch.equal(module(x)[0], expected[0])
    high = decide(exported, CompilationSettings.from_options(options)).high
    assert high == {"conv2d", "relu", "relu_1", "flatten"}


@pytest.mark.parametrize("low", LOW)
def test_everything_is_in_16_bits(low: torch.dtype) -> None:
    model, x = Block().eval(), torch.randn(3, 64)
    module = compiled(model, x, low=low)
    assert module(x).dtype == low
    assert 1e-5 < error(module(x), model(x)) <= 1e-2
    whole = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[x], min_block_size=1)
    assert module.engine_0.numel() < 0.75 * whole.engine_0.numel()  # weights are stored in 16 bits


def test_dtype_of_the_enum_and_no_type(caplog: pytest.LogCaptureFixture) -> None:
    model, x = Block().eval(), torch.randn(3, 64)
    assert compiled(model, x, low=torch_tensorrt.dtype.f16)(x).dtype == torch.float16
    assert compiled(model, x, low=None)(x).dtype == torch.float32
    assert "autocast_low_precision_type" in caplog.text


@pytest.mark.parametrize(
    "operator",
    [torch.ops.aten.linear.default, torch.ops.aten.linear, "aten.linear", "torch.ops.aten.linear"],
)
def test_excluded_operators(operator: Any) -> None:
    names = kept(Block(), torch.randn(3, 64), autocast_excluded_ops={operator})
    assert names == {"linear", "linear_1"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("first", {"linear"}),
        ("linear_1$", {"linear_1"}),
        ("^norm$", {"layer_norm"}),
        ("irst", set()),
    ],
)
def test_excluded_nodes(pattern: str, expected: set[str]) -> None:
    assert kept(Block(), torch.randn(3, 64), autocast_excluded_nodes={pattern}) == expected


@pytest.mark.parametrize(
    "batch",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: [x],
        lambda x: {"x": x},
    ],
)
def test_large_values_in_the_data(batch: Any) -> None:
    model = Block()
    with torch.no_grad():
        model.first.weight.mul_(1e4)
    x = torch.randn(3, 64)
    names = kept(model, x, autocast_calibration_dataloader=[batch(x * 0), batch(x)])
    assert {"linear", "gelu", "linear_1"} <= names
    assert not kept(model, x, autocast_calibration_dataloader=[batch(x * 0)])
    assert not kept(
        model,
        x,
        autocast_calibration_dataloader=[batch(x)],
        autocast_max_output_threshold=math.inf,
    )


def test_nan_in_the_data() -> None:
    x = torch.full((3, 64), math.nan)
    assert "linear" in kept(Block(), x, autocast_calibration_dataloader=[(x,)])


def test_data_that_does_not_fit() -> None:
    x = torch.randn(3, 64)
    for data, text in [([], "empty"), ([(x, x)], "has 2 inputs"), ([{"y": x}], "does not fit")]:
        with pytest.raises(ValueError, match=text):
            kept(Block(), x, autocast_calibration_dataloader=data)


def test_calibration_changes_no_buffer() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x * self.count

    model, x = Counter().eval(), torch.ones(3)
    module = torch_tensorrt.compile(
        model,
        ir="dynamo",
        arg_inputs=[x],
        min_block_size=1,
        enable_autocast=True,
        autocast_low_precision_type=torch.bfloat16,
        autocast_calibration_dataloader=[(x,)] * 5,
    )
    assert float(model.count[0]) == 0
    assert [float(module(x)[0]) for _ in range(300)][-1] == 300  # bf16 has no 257
    assert module.count.dtype == torch.float32


def test_depth_of_reductions() -> None:
    x = torch.randn(3, 64)
    for depth, expected in [
        (None, set()),
        (256, set()),
        (255, {"linear_1"}),
        (63, {"linear", "linear_1"}),
    ]:
        assert kept(Block(), x, autocast_max_depth_of_reduction=depth) == expected

    class Convolution(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).mean((2, 3))

    layer, image = Convolution(4, 8, 3), torch.randn(1, 4, 12, 12)
    assert kept(layer, image, autocast_max_depth_of_reduction=99) == {"mean"}
    assert kept(layer, image, autocast_max_depth_of_reduction=35) == {"mean", "conv2d"}


def test_numbers_that_16_bits_do_not_have() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.scale = nn.Parameter(torch.full((8,), 1e5))

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.linear(x).masked_fill(mask, -1e9) + x * self.scale

    model, x = Masked().eval(), torch.randn(2, 8)
    mask = torch.tensor([[True, False] * 4] * 2)
    assert kept(model, x, mask) == {"masked_fill", "mul"}
    assert not kept(model, x, mask, autocast_low_precision_type=torch.bfloat16)
    actual = compiled(model, x, mask, low=torch.float16, autocast_excluded_ops={"aten.add.Tensor"})
    assert error(actual(x, mask), model(x, mask)) <= 1e-2
    assert actual(x, mask).isfinite().all()


@pytest.mark.parametrize("low", LOW)
def test_other_types_stay(low: torch.dtype) -> None:
    class Others(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, i: torch.Tensor, d: torch.Tensor, x: torch.Tensor) -> Any:
            return self.table(i), d * 2, i + 1, x.double() + d, x > 0, x.softmax(0, torch.float32)

    model = Others().eval()
    inputs = torch.tensor([1, 2, 9]), torch.rand(3, dtype=torch.float64), torch.randn(3)
    actual, expected = compiled(model, *inputs, low=low)(*inputs), model(*inputs)
    assert [t.dtype for t in actual] == [low, *(t.dtype for t in expected[1:])]
    for result, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(result.double(), reference.double(), rtol=1e-2, atol=1e-2)
    assert torch.equal(actual[1], expected[1])
    assert torch.equal(actual[2], expected[2])


def test_regions_of_their_own_precision() -> None:
    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.a(x)
            with torch.autocast("cpu", enabled=False):
                y = self.b(x)
            return y, self.c(y)

    model, x = Regions().eval(), torch.randn(5, 64)
    y, z = compiled(model, x, low=torch.bfloat16)(x)
    assert (y.dtype, z.dtype) == (torch.float32, torch.bfloat16)
    exact = model.b(model.a.bfloat16()(x.bfloat16()).float())
    assert error(y, exact) <= 1e-3


def test_writes_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.norm = nn.BatchNorm2d(8)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.relu(self.norm(self.conv(x)))
            y[:, :, 0] += 1
            x[0, 0, 0, 0] = 7
            return y * x[0, 0, 0, 0]

    model, x = InPlace().eval(), torch.randn(2, 3, 9, 9)
    module = compiled(model, x, low=torch.bfloat16)
    mine, theirs = x.clone(), x.clone()
    actual, expected = module(mine), model(theirs)
    assert actual.dtype == torch.bfloat16
    assert error(actual, expected) <= 1e-2
    assert torch.equal(mine, theirs)


def test_dynamic_batch_and_other_formats(tmp_path: Path) -> None:
    model = Block().eval()
    shape = torch_tensorrt.Input(min_shape=(1, 64), opt_shape=(4, 64), max_shape=(9, 64))
    module = compiled(model, shape, low=torch.bfloat16)
    torch_tensorrt.save(module, str(tmp_path / "m.ep"), arg_inputs=[shape])
    loaded = torch_tensorrt.load(str(tmp_path / "m.ep")).module()
    for batch in (1, 2, 9):
        x = torch.randn(batch, 64)
        assert loaded(x).dtype == torch.bfloat16
        assert torch.equal(loaded(x), module(x))
        assert error(module(x), model(x)) <= 1e-2


def test_torch_compile_keeps_the_types_of_results() -> None:
    model, x = Block().eval(), torch.randn(3, 64)
    options = {
        "enable_autocast": True,
        "autocast_low_precision_type": torch.bfloat16,
        "min_block_size": 1,
    }
    module = torch.compile(model, backend="torch_tensorrt", dynamic=False, options=options)
    actual = module(x)
    assert actual.dtype == torch.float32
    assert 1e-5 < error(actual, model(x)) <= 1e-2


def test_engine_bytes() -> None:
    import kiln

    model, x = Block().eval(), torch.randn(3, 64)
    data = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        torch.export.export(model, (x,)),
        arg_inputs=[x],
        enable_autocast=True,
        autocast_low_precision_type=torch.float16,
    )
    assert "f16" in str(kiln.inspect(data)["outputs"])


def test_refit() -> None:
    model, x = Block().eval(), torch.randn(3, 64)
    other = Block().eval()
    with torch.no_grad():
        other.first.weight.mul_(1e4)  # would have been kept, had it been calibrated with
    module = compiled(
        model,
        x,
        low=torch.bfloat16,
        immutable_weights=False,
        autocast_calibration_dataloader=[(x,)],
        autocast_max_depth_of_reduction=100,
    )
    exported = torch.export.export(other, (x,))
    refitted = torch_tensorrt.dynamo.refit_module_weights(
        module, exported, arg_inputs=[x], verify_output=False
    )
    assert error(refitted(x), other(x)) <= 1e-2
    same = torch_tensorrt.dynamo.refit_module_weights(
        module, torch.export.export(model, (x,)), arg_inputs=[x], verify_output=True
    )
    assert torch.equal(same(x), module(x))


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"autocast_excluded_nodes": {"("}}, ValueError, "regular expressions"),
        ({"autocast_excluded_nodes": "conv"}, TypeError, "expected a set"),
        ({"autocast_excluded_ops": "conv"}, TypeError, "expected a set"),
        ({"autocast_max_output_threshold": -1}, ValueError, "0 or more"),
        ({"autocast_max_depth_of_reduction": "x"}, ValueError, "0 or more"),
        ({"autocast_low_precision_type": torch.float64}, ValueError, "expected one of"),
        ({"autocast_decisions": 1}, TypeError, "autocast_decisions"),
    ],
)
def test_wrong_options(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        CompilationSettings.from_options({"enable_autocast": True, **options})


def test_a_saved_program_is_not_changed() -> None:
    model, x = Block().eval(), torch.randn(3, 64)
    exported, before = torch.export.export(model, (x,)), io.StringIO()
    print(exported.graph, file=before)
    torch_tensorrt.dynamo.compile(
        exported,
        arg_inputs=[x],
        min_block_size=1,
        enable_autocast=True,
        autocast_low_precision_type=torch.bfloat16,
    )
    assert str(exported.graph) == before.getvalue().rstrip("\n")
    assert exported.module()(x).dtype == torch.float32


def test_refit_of_what_writes_in_place() -> None:
    class InPlace(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu_(super().forward(x)).add_(1)

    model, other, x = InPlace().eval(), InPlace().eval(), torch.randn(3, 64)
    module = compiled(model, x, low=torch.bfloat16, immutable_weights=False)
    exported = torch.export.export(other, (x,))
    refitted = torch_tensorrt.dynamo.refit_module_weights(module, exported)
    assert refitted(x).dtype == torch.bfloat16
    assert error(refitted(x), other(x)) <= 1e-2
