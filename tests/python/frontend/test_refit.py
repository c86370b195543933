"""New weights for compiled modules: the engines are those of a compile with the new weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_small import Counter, Mlp, SortInTheMiddle, batch_input, compile_all, engines_of

import kiln
import torch_tensorrt
from torch_tensorrt import dynamo
from torch_tensorrt.dynamo import refit_module_weights, trace
from torch_tensorrt.dynamo.conversion import DYNAMO_CONVERTERS

X = torch.ones(4, 16)


def export(module: torch.nn.Module, *args: Any) -> torch.export.ExportedProgram:
    return trace(module, list(args) or [X])


def engine_bytes(module: torch.fx.GraphModule) -> list[bytes]:
    names = [call.args[1].target for call in engines_of(module)]
    return [module.get_buffer(name).numpy().tobytes() for name in names]


def other(kind: type[torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(1)
    return kind().eval()


def test_engines_are_those_of_a_compile(mlp, assert_same):
    compiled, new = compile_all(mlp, X), other(Mlp)
    before = mlp(X)
    refitted = refit_module_weights(compiled, export(new))
    assert engine_bytes(refitted) == engine_bytes(compile_all(new, X))
    assert_same(refitted(X), new(X))
    assert_same(compiled(X), before)  # the old one keeps its weights


def test_in_place(mlp, assert_same):
    compiled, new = compile_all(mlp, X), other(Mlp)
    compiled(X)  # loads the old engine
    assert refit_module_weights(compiled, export(new), in_place=True) is compiled
    assert_same(compiled(X), new(X))


def test_dynamic_shapes(mlp, assert_same):
    compiled, new = compile_all(mlp, batch_input(1, 4, 8)), other(Mlp)
    refitted = refit_module_weights(compiled, export(new, batch_input(1, 4, 8)))
    assert engine_bytes(refitted) == engine_bytes(compile_all(new, batch_input(1, 4, 8)))
    assert_same(refitted(torch.ones(7, 16)), new(torch.ones(7, 16)))
    with pytest.raises(RuntimeError, match="1..8"):
        refitted(torch.ones(9, 16))


class Decomposed(torch.nn.Module):
    """An operator that PyTorch can decompose, among weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 8), torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(torch.isclose(x, x + 1e-6) * x * 2) + torch.heaviside(x, x)[:, :4] * 3


@pytest.mark.parametrize(
    "kept", [set(), {"torch.ops.aten.isclose"}, {torch.ops.aten.heaviside.default}]
)
def test_operators_that_stay_in_pytorch_stay_there(kept, assert_same):
    model, new = Decomposed().eval(), other(Decomposed)
    compiled = compile_all(model, X, torch_executed_ops=kept)
    assert len(engines_of(compiled)) == (2 if kept else 1)
    assert_same(refit_module_weights(compiled, export(new))(X), new(X))


def test_several_engines_and_weights_in_pytorch(assert_same):
    model, new = SortInTheMiddle().eval(), other(SortInTheMiddle)
    compiled = compile_all(model, X, torch_executed_ops={"aten.linear.default"})
    refitted = refit_module_weights(compiled, export(new))
    assert len(engines_of(refitted)) == 3
    assert_same(refitted(X), new(X))


def test_buffer_that_the_model_changes(assert_same):
    compiled, new = compile_all(Counter().eval(), X), Counter().eval()
    new.calls += 10
    refitted = refit_module_weights(compiled, export(new))
    assert_same(refitted(X), X * 2 + 11)
    assert_same(refitted(X), X * 2 + 12)


@pytest.mark.parametrize("retrace", [True, False])
@pytest.mark.parametrize("as_module", [True, False])
def test_saved_program(tmp_path, assert_same, retrace, as_module):
    model, new = SortInTheMiddle().eval(), other(SortInTheMiddle)
    compiled = compile_all(model, X)
    torch_tensorrt.save(compiled, tmp_path / "model.ep", arg_inputs=[X], retrace=retrace)
    loaded = torch_tensorrt.load(tmp_path / "model.ep")
    refitted = refit_module_weights(loaded.module() if as_module else loaded, export(new))
    assert_same(refitted(X), new(X))
    assert engine_bytes(refitted) == engine_bytes(compile_all(new, X))


def test_refitted_module_can_be_saved(mlp, tmp_path, assert_same):
    new = other(Mlp)
    refitted = refit_module_weights(compile_all(mlp, X), export(new))
    torch_tensorrt.save(refitted, tmp_path / "model.ep", arg_inputs=[X])
    assert_same(torch_tensorrt.load(tmp_path / "model.ep")(X), new(X))


def test_refitted_module_can_be_refitted(mlp, assert_same):
    compiled, new = compile_all(mlp, X), other(Mlp)
    again = refit_module_weights(refit_module_weights(compiled, export(new)), export(mlp))
    assert engine_bytes(again) == engine_bytes(compiled)


def test_stripped_engine(mlp, assert_same):
    stripped = compile_all(mlp, X, strip_engine_weights=True)
    with pytest.raises(RuntimeError, match="no weights.*refit_module_weights"):
        stripped(X)
    refitted = refit_module_weights(stripped, export(mlp))
    assert_same(refitted(X), mlp(X))
    assert engine_bytes(refitted) == engine_bytes(compile_all(mlp, X))
    assert kiln.inspect(engine_bytes(stripped)[0])["memory"]["stripped"]


class TestTrainedLayerNorm:
    """Weights that are 1 everywhere are part of the code, unless weights are said to change."""

    @pytest.fixture
    def trained(self) -> torch.nn.Module:
        new = other(Mlp)
        with torch.no_grad():
            new.norm.weight.uniform_()
        return new

    def test_is_refused_with_advice(self, mlp, trained):
        compiled = compile_all(mlp, X)
        before = compiled(X)
        with pytest.raises(ValueError, match="engine_0 cannot be refitted.*immutable_weights=Fals"):
            refit_module_weights(compiled, export(trained), in_place=True)
        assert torch.equal(compiled(X), before)

    def test_is_taken_by_a_refittable_engine(self, mlp, trained, assert_same):
        compiled = compile_all(mlp, X, immutable_weights=False)
        assert_same(compiled(X), mlp(X))
        refitted = refit_module_weights(compiled, export(trained))
        assert_same(refitted(X), trained(X))
        expected = compile_all(trained, X, immutable_weights=False)
        assert engine_bytes(refitted) == engine_bytes(expected)


def test_batch_norm_that_was_folded_away(assert_same):
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 8, 3)
            self.norm = torch.nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm(self.convolution(x)))

    x = torch.randn(1, 3, 8, 8)
    compiled, new = compile_all(Network().eval(), x, immutable_weights=False), other(Network)
    new.norm.running_mean.normal_()
    new.norm.running_var.uniform_(0.5, 2)
    assert_same(refit_module_weights(compiled, export(new, x))(x), new(x))


def test_verify_output(mlp):
    compiled, new = compile_all(mlp, X), other(Mlp)
    refit_module_weights(compiled, export(new), arg_inputs=[X], verify_output=True)
    with pytest.raises(ValueError, match="needs arg_inputs"):
        refit_module_weights(compiled, export(new), verify_output=True)


def test_other_model_is_refused(mlp):
    class Wider(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.second = torch.nn.Linear(32, 9)

    compiled = compile_all(mlp, X)
    with pytest.raises(ValueError, match="engine_0 cannot be refitted"):
        refit_module_weights(compiled, export(Wider().eval()))
    with pytest.raises(ValueError, match="does not have"):
        refit_module_weights(compiled, export(torch.nn.Sigmoid()))


def test_other_shapes_are_refused(mlp):
    compiled = compile_all(mlp, X)
    with pytest.raises(ValueError, match="engine_0 cannot be refitted"):
        refit_module_weights(compiled, export(other(Mlp), torch.ones(5, 16)))


def test_wrong_types(mlp):
    compiled = compile_all(mlp, X)
    with pytest.raises(TypeError, match="dynamo.trace makes one"):
        refit_module_weights(compiled, mlp)
    with pytest.raises(TypeError, match="torch_tensorrt.compile or load"):
        refit_module_weights(mlp, export(mlp))


def test_engine_that_says_nothing_of_its_origin(mlp, tmp_path):
    compiled = compile_all(mlp, X)
    torch.export.save(torch.export.export(mlp, (X,)), tmp_path / "model.pt2")
    foreign = kiln.compile(tmp_path / "model.pt2")
    compiled.engine_0 = torch.frombuffer(bytearray(foreign), dtype=torch.uint8)
    with pytest.raises(ValueError, match="compile the model again"):
        refit_module_weights(compiled, export(mlp))


def test_users_converter_is_applied_again(mlp, assert_same):
    def shifted_relu(ctx: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        return torch.clamp(args[0], min=0) + 1

    operator = torch.ops.aten.relu.default
    priority = dynamo.conversion.ConverterPriority.HIGH
    dynamo.conversion.dynamo_tensorrt_converter(operator, priority=priority)(shifted_relu)
    try:
        compiled, new = compile_all(mlp, X), other(Mlp)
        refitted = refit_module_weights(compiled, export(new))
        assert engine_bytes(refitted) == engine_bytes(compile_all(new, X))
    finally:
        DYNAMO_CONVERTERS.unregister(operator, shifted_relu)
    assert_same(refitted(X), new.second(torch.relu(new.norm(new.first(X))) + 1))
    with pytest.raises(ValueError, match="does not have"):  # without it, the program is another one
        refit_module_weights(compiled, export(new))
