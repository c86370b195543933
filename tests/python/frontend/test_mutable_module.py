"""`MutableTorchTensorRTModule`: after every change of the model its results are those of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_small import Counter, KeywordArguments, Mlp, engines_of

from torch_tensorrt.dynamo.runtime import MutableTorchTensorRTModule
from torch_tensorrt.dynamo.runtime import _mutable_module as module_under_test


@pytest.fixture
def compiles(monkeypatch) -> list[Any]:
    """The modules that were compiled so far."""
    made: list[Any] = []
    original = module_under_test.compile_exported

    def record(*args: Any, **kwargs: Any) -> Any:
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(module_under_test, "compile_exported", record)
    return made


def mutable(model: torch.nn.Module, **options: Any) -> MutableTorchTensorRTModule:
    return MutableTorchTensorRTModule(model, strict=False, min_block_size=1, **options)


def test_first_call_compiles(mlp, assert_same, compiles) -> None:
    module = mutable(mlp)
    assert not compiles
    x = torch.randn(3, 16)
    for _ in range(2):
        assert_same(module(x), mlp(x))
        assert_same(module.forward(x=x), mlp(x))
    assert len(engines_of(compiles[0])) == 1
    assert len(compiles) == 2  # by position and by keyword
    assert not module(x).requires_grad


def test_strict_is_the_default(mlp, assert_same) -> None:
    x = torch.randn(3, 16)
    assert_same(MutableTorchTensorRTModule(mlp, min_block_size=1)(x), mlp(x))


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.factor = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x)) * self.factor


def new_state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value + 1 for name, value in model.state_dict().items()}


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda m: m.layer.weight.mul_(2),
    "parameter": lambda m: setattr(m.layer, "weight", torch.nn.Parameter(m.layer.weight + 1)),
    "data": lambda m: setattr(m.layer.bias, "data", m.layer.bias.data + 1),
    "state dict": lambda m: m.load_state_dict(new_state(m)),
    "state dict of a part": lambda m: m.layer.load_state_dict(new_state(m.layer)),
    "assigned state dict": lambda m: m.load_state_dict(new_state(m), assign=True),
    "attribute": lambda m: setattr(m, "factor", 3.0),
    "module": lambda m: setattr(m, "layer", torch.nn.Linear(4, 2)),
    "hook": lambda m: m.layer.register_forward_hook(lambda _, args, result: result + 1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("through", ["wrapper", "model"])
def test_changes_are_followed(assert_same, compiles, change, through) -> None:
    model = Scale().eval()
    module = mutable(model)
    x = torch.randn(3, 4)
    with torch.no_grad():
        before = module(x)
        assert_same(before, model(x))
        CHANGES[change](module if through == "wrapper" else model)
        for _ in range(2):
            assert_same(module(x), model(x))
    assert not torch.equal(before, module(x)) or before.shape != module(x).shape
    assert len(compiles) == (2 if change in ("attribute", "module", "hook") else 1)


def test_nothing_changes_without_a_change(assert_same, compiles) -> None:
    model = Scale().eval()
    module = mutable(model)
    x = torch.randn(3, 4)
    module(x)
    model.layer.weight.sum()
    model.requires_grad_(False).eval()
    assert_same(module(x), model(x))
    assert len(compiles) == 1


def test_new_shapes_have_their_own_engines(mlp, assert_same, compiles) -> None:
    module = mutable(mlp)
    for batch in (3, 5, 3, 5):
        x = torch.randn(batch, 16)
        assert_same(module(x), mlp(x))
    assert len(compiles) == 2


def test_dynamic_shapes(mlp, assert_same, compiles) -> None:
    module = mutable(mlp)
    module.set_expected_dynamic_shape_range(({0: torch.export.Dim("batch", min=2, max=32)},), {})
    for batch in (3, 5, 32):
        x = torch.randn(batch, 16)
        assert_same(module(x), mlp(x))
    with torch.no_grad():
        mlp.first.weight.zero_()
    assert_same(module(x), mlp(x))
    assert len(compiles) == 1
    with pytest.raises(Exception, match="33"):
        module(torch.randn(33, 16))


def test_dynamic_shapes_of_keyword_inputs(assert_same, compiles) -> None:
    model = KeywordArguments()
    module = mutable(model)
    size = torch.export.Dim("size", min=2, max=64)
    module.set_expected_dynamic_shape_range(({0: size},), {"shift": {0: size}, "scale": {}})
    for n in (3, 9):
        x, shift, scale = torch.randn(n), torch.randn(n), torch.randn(1)
        assert_same(module(x, shift=shift, scale=scale), model(x, scale=scale, shift=shift))
    assert len(compiles) == 1


def test_wrong_dynamic_shapes(mlp) -> None:
    module = mutable(mlp)
    with pytest.raises(ValueError, match="tuple"):
        module.set_expected_dynamic_shape_range({0: 1}, {})
    with pytest.raises(ValueError, match="dictionary"):
        module.set_expected_dynamic_shape_range((), [])
    module.set_expected_dynamic_shape_range(({}, {}), {})
    with pytest.raises(ValueError, match="2 positional inputs.*1"):
        module(torch.randn(3, 16))


def test_written_buffers_are_those_of_the_model(assert_same, compiles) -> None:
    model, twin = Counter(), Counter()
    module = mutable(model)
    x = torch.randn(3)
    for _ in range(3):
        assert_same(module(x), twin(x))
    assert_same(model.calls, twin.calls)
    model.calls.zero_()
    twin.calls.zero_()
    assert_same(module(x), twin(x))
    assert len(compiles) == 1


def test_to_another_dtype(assert_same) -> None:
    model = Scale().eval()
    module = mutable(model)
    module(torch.randn(3, 4))
    x = torch.randn(3, 4, dtype=torch.float64)
    assert module.to(torch.float64) is module
    assert_same(module(x), model(x))


def test_attributes_are_those_of_the_model() -> None:
    model = Scale()
    module = mutable(model)
    assert module.layer is model.layer
    module.extra = 1
    assert model.extra == 1
    del module.extra
    assert not hasattr(module, "extra")
    assert "Linear" in repr(module)
    assert [name for name, _ in module.named_parameters()] == ["layer.weight", "layer.bias"]


def test_compile_and_refit_by_hand(assert_same, compiles) -> None:
    model = Scale().eval()
    module = mutable(model)
    for method in (module.compile, module.refit_gm):
        with pytest.raises(RuntimeError, match="call the module once"):
            method()
    x = torch.randn(3, 4)
    module(x)
    module.compile()
    assert len(compiles) == 2
    with torch.no_grad():
        model.layer.weight.add_(1)
    compiled = module._compiled[0].module
    module.refit_gm()
    with torch.no_grad():
        assert_same(compiled(x), model(x))  # the engines have the new weights, before any call
    assert_same(module(x), model(x))
    assert module._compiled[0].module is compiled
    assert len(compiles) == 2


def test_wrong_options(mlp) -> None:
    with pytest.raises(ValueError, match="immutable_weights"):
        mutable(mlp, immutable_weights=True)
    with pytest.raises(TypeError, match="min_blocksize.*min_block_size"):
        mutable(mlp, min_blocksize=1)
    with pytest.raises(TypeError, match="Module"):
        mutable(lambda x: x)
    with pytest.raises(NotImplementedError, match="weight_streaming_budget"):
        mutable(mlp, weight_streaming_budget=1)


@pytest.mark.parametrize("dynamic", [False, True])
def test_save_and_load(mlp, assert_same, compiles, tmp_path, dynamic) -> None:
    module = mutable(mlp)
    if dynamic:
        shapes = ({0: torch.export.Dim("batch", min=2, max=32)},)
        module.set_expected_dynamic_shape_range(shapes, {})
    x = torch.randn(3, 16)
    module(x)
    path = tmp_path / "module.pkl"
    MutableTorchTensorRTModule.save(module, path)
    assert [file.name for file in tmp_path.iterdir()] == ["module.pkl"]
    loaded = MutableTorchTensorRTModule.load(path)
    assert_same(loaded(x), mlp(x))
    assert len(compiles) == 1  # the engine came from the file
    with torch.no_grad():
        loaded.first.weight.mul_(2)
    assert_same(loaded(x), loaded.pytorch_model(x))
    assert len(compiles) == 1  # it was refitted
    y = torch.randn(9, 16)
    assert_same(loaded(y), loaded.pytorch_model(y))
    assert len(compiles) == (1 if dynamic else 2)
    MutableTorchTensorRTModule.save(loaded, path)
    again = MutableTorchTensorRTModule.load(path)
    assert_same(again(x), loaded.pytorch_model(x))
    assert len(compiles) == (1 if dynamic else 2)


def test_save_after_a_change(assert_same, tmp_path) -> None:
    model = Counter()
    module = mutable(model)
    x = torch.randn(3)
    module(x)
    path = tmp_path / "module.pkl"
    MutableTorchTensorRTModule.save(module, path)
    loaded = MutableTorchTensorRTModule.load(path)
    assert_same(loaded(x), model(x))
    assert_same(loaded.calls, model.calls)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match="was not written by"):
        MutableTorchTensorRTModule.load(path)
    module = mutable(Mlp().eval())
    module(torch.randn(3, 16))
    with torch.no_grad():
        module.second.bias.add_(1)
    MutableTorchTensorRTModule.save(module, path)
    x = torch.randn(3, 16)
    assert_same(MutableTorchTensorRTModule.load(path)(x), module.pytorch_model(x))
