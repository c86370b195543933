"""`torch.compile(backend="torch_tensorrt")`: results, gradients and changes are those of eager PyTorch."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomllib
import torch
from models_small import Mlp, SortInTheMiddle, engines_of, torch_operators_of

import torch_tensorrt
from torch_tensorrt.dynamo.backend import BACKEND_NAMES, torch_tensorrt_backend
from torch_tensorrt.dynamo.backend import _engines as engines_module

ROOT = Path(__file__).parents[3]
ALL = {"min_block_size": 1}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


@pytest.fixture
def compiles(monkeypatch) -> list[torch.fx.GraphModule]:
    """The modules that the backend has built so far."""
    built: list[torch.fx.GraphModule] = []
    original = engines_module.compile_program

    def record(*args: Any) -> torch.fx.GraphModule:
        built.append(original(*args))
        return built[-1]

    monkeypatch.setattr(engines_module, "compile_program", record)
    return built


def jit(module: Any, **kwargs: Any) -> Any:
    return torch.compile(module, backend="torch_tensorrt", options=ALL, **kwargs)


# How the backend is found


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_every_name_makes_an_engine(mlp, assert_same, compiles, name) -> None:
    x = torch.randn(3, 16)
    compiled = torch.compile(mlp, backend=name, options=ALL)
    with torch.no_grad():
        assert_same(compiled(x), mlp(x))
    assert len(engines_of(compiles[0])) == 1
    assert not torch_operators_of(compiles[0])


def test_project_declares_the_entry_points() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["torch_dynamo_backends"]
    target = "torch_tensorrt.dynamo.backend:torch_tensorrt_backend"
    assert declared == dict.fromkeys(BACKEND_NAMES, target)


def test_found_without_an_import(tmp_path) -> None:
    """As the installed package is found, with its metadata made here."""
    folder = tmp_path / "torch_kiln-0.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-kiln\nVersion: 0.0\n")
    target = "torch_tensorrt.dynamo.backend:torch_tensorrt_backend"
    lines = [f"{name} = {target}" for name in BACKEND_NAMES]
    (folder / "entry_points.txt").write_text("\n".join(["[torch_dynamo_backends]", *lines]))
    program = f"""
import sys, torch
assert set({BACKEND_NAMES}) <= set(torch._dynamo.list_backends())
for name in {BACKEND_NAMES}:
    f = torch.compile(lambda x: torch.relu(x) + 1, backend=name, options={{"min_block_size": 1}})
    assert torch.equal(f(torch.tensor([-1.0, 2.0])), torch.tensor([1.0, 3.0]))
assert "torch_tensorrt" in sys.modules
import torch_tensorrt
f = torch.compile(lambda x: x - 1, backend="tensorrt")
assert f(torch.zeros(1)).item() == -1
"""
    paths = [str(tmp_path), str(Path(torch_tensorrt.__file__).parents[1])]
    path = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# When engines are built


def test_nothing_is_built_before_the_first_call(mlp, compiles) -> None:
    compiled = jit(mlp)
    assert not compiles
    with torch.no_grad():
        compiled(torch.randn(3, 16))
        compiled(torch.randn(3, 16))
    assert len(compiles) == 1


def test_new_shapes_build_and_known_ones_do_not(mlp, assert_same, compiles) -> None:
    compiled = jit(mlp, dynamic=False)
    with torch.no_grad():
        for batch, expected in ((3, 1), (3, 1), (5, 2), (3, 2), (5, 2), (1, 3)):
            x = torch.randn(batch, 16)
            assert_same(compiled(x), mlp(x))
            assert len(compiles) == expected


def test_sizes_become_dynamic_by_themselves(mlp, assert_same, compiles) -> None:
    compiled = jit(mlp)
    with torch.no_grad():
        for batch in (3, 5, 7, 100, 2):
            x = torch.randn(batch, 16)
            assert_same(compiled(x), mlp(x))
    assert len(compiles) == 2


def test_dynamic_from_the_start(mlp, assert_same, compiles) -> None:
    compiled = jit(mlp, dynamic=True)
    with torch.no_grad():
        for batch in (3, 5, 33):
            x = torch.randn(batch, 16)
            assert_same(compiled(x), mlp(x))
    assert len(compiles) == 1


class Conv(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).flatten(1)


def test_convolutions_of_any_batch(assert_same) -> None:
    """PyTorch's fake convolution guards on batches below and above 16: engines on both sides are right."""
    model = Conv().eval()
    compiled = jit(model, dynamic=True)
    with torch.no_grad():
        for batch in (2, 15, 16, 40, 1):
            x = torch.randn(batch, 3, 8, 8)
            assert_same(compiled(x), model(x))


def test_marked_ranges_are_the_ranges_of_the_engine(mlp, assert_same, compiles) -> None:
    compiled = jit(mlp)
    with torch.no_grad():
        x = torch.randn(4, 16)
        torch._dynamo.mark_dynamic(x, 0, min=2, max=15)
        assert_same(compiled(x), mlp(x))
        x = torch.randn(15, 16)
        assert_same(compiled(x), mlp(x))
        assert len(compiles) == 1
        with pytest.raises(RuntimeError, match="16.*2.*15"):  # what guards keep from it
            compiles[0](16, torch.randn(16, 16))


def test_sizes_and_integers_in_the_code(assert_same) -> None:
    def model(x: torch.Tensor, n: int) -> torch.Tensor:
        return x.reshape(x.shape[0] * 2, -1).repeat(n, 1) * x.shape[0] + torch.arange(n).sum()

    compiled = jit(model, dynamic=True)
    for batch, n in ((3, 2), (5, 4), (7, 3)):
        x = torch.randn(batch, 4)
        assert_same(compiled(x, n), model(x, n))


# What stays in PyTorch


def test_operators_that_engines_lack_stay_in_pytorch(assert_same, compiles) -> None:
    model = SortInTheMiddle().eval()
    compiled = jit(model, dynamic=True)
    with torch.no_grad():
        for batch in (3, 5):
            x = torch.randn(batch, 16)
            assert_same(compiled(x), model(x))
    assert len(compiles) == 1
    assert torch_operators_of(compiles[0]) == {"aten.tanh_backward.default"}
    assert len(engines_of(compiles[0])) == 2


def test_graph_breaks_and_results_that_depend_on_data(assert_same, compiles) -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(x) + 1
        if y.sum() > 100:
            y = y * 2
        torch._dynamo.graph_break()
        return y - 3, torch.nonzero(torch.tanh(y) > 0.7)

    compiled = jit(model)
    for x in (torch.randn(4, 4), 100 * torch.ones(4, 4)):
        assert_same(compiled(x), model(x))
    assert len(compiles) >= 2


def test_constants_in_the_code(assert_same, compiles) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor([1.0, 2.0]) + torch.tensor(3.0)

    x = torch.randn(3, 2)
    assert_same(jit(model)(x), model(x))
    assert len(engines_of(compiles[0])) == 1


def test_control_flow_operators(assert_same) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        y = torch.cond(x.sum() > 0, lambda t: t + 1, lambda t: t - 1, (x,))
        return torch.relu(y)

    for x in (torch.ones(3), -torch.ones(3)):
        assert_same(jit(model)(x), model(x))


def test_nothing_and_inputs_as_results(assert_same) -> None:
    def model(x: torch.Tensor) -> dict[str, Any]:
        return {"a": x, "b": (None, x + 1), "size": x.shape[0]}

    x = torch.randn(3)
    result = jit(model, dynamic=True)(x)
    assert result["a"] is x
    assert_same(result, model(x))


# Changes of inputs and buffers


class Cache(torch.nn.Module):
    """Writes into a buffer and an input, as key-value caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("keys", torch.zeros(8, 4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, at: torch.Tensor, log: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.keys.index_copy_(0, at, self.linear(x))
        log.add_(x.sum())
        return torch.softmax(x @ self.keys.T, -1)


def test_buffers_and_inputs_are_written(assert_same, compiles) -> None:
    model, twin = Cache().eval(), Cache().eval()
    twin.load_state_dict(model.state_dict())
    compiled = jit(model)
    log, twin_log = torch.zeros(2), torch.zeros(2)
    with torch.no_grad():
        for step in range(4):
            x, at = torch.randn(1, 4), torch.tensor([step])
            assert_same(compiled(x, at, log), twin(x, at, twin_log))
    assert_same(model.state_dict(), twin.state_dict())
    assert_same(log, twin_log)
    assert len(compiles) == 1


def test_buffer_that_another_graph_writes(assert_same, compiles) -> None:
    """It becomes an input of the engine, not a new engine for every call."""
    model = Cache().eval()
    compiled = jit(lambda x: torch.tanh(x @ model.keys.T))
    for step in range(6):
        model.keys[step] = step
        x = torch.randn(2, 4)
        assert_same(compiled(x), torch.tanh(x @ model.keys.T))
    assert len(compiles) <= 3


def test_views_of_inputs_are_views(assert_same) -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.view(-1), torch.relu(x) + 1

    x = torch.randn(2, 3)
    flat, _ = jit(model)(x)
    flat.zero_()
    assert_same(x, torch.zeros(2, 3))


def test_batch_norm_in_training_mode(assert_same) -> None:
    model, twin = torch.nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4)
    compiled = jit(model)
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(8, 4)
            assert_same(compiled(x), twin(x))
    assert_same(model.state_dict(), twin.state_dict())


# Weights


def test_tied_weights(assert_same) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    model[2].weight = model[0].weight
    compiled = jit(model.eval())
    x = torch.randn(3, 4)
    with torch.no_grad():
        assert_same(compiled(x), model(x))
        model[0].weight.mul_(2)
        assert_same(compiled(x), model(x))


CHANGES: dict[str, Callable[[torch.nn.Linear], Any]] = {
    "in place": lambda layer: layer.weight.mul_(2),
    "state dict": lambda layer: layer.load_state_dict(
        {k: v + 1 for k, v in layer.state_dict().items()}
    ),
    "new parameter": lambda layer: setattr(layer, "weight", torch.nn.Parameter(layer.weight + 1)),
    "data": lambda layer: setattr(layer.weight, "data", layer.weight.data * 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_seen(assert_same, compiles, change) -> None:
    model = torch.nn.Linear(4, 4).eval()
    compiled = jit(model)
    x = torch.randn(3, 4)
    with torch.no_grad():
        compiled(x)
        CHANGES[change](model)
        for _ in range(2):
            assert_same(compiled(x), model(x))
    assert len(compiles) == 2


def test_weights_that_keep_changing_become_inputs(assert_same, compiles) -> None:
    model = torch.nn.Linear(4, 4).eval()
    compiled = jit(model)
    x = torch.randn(3, 4)
    with torch.no_grad():
        for _ in range(8):
            model.weight.add_(1)
            assert_same(compiled(x), model(x))
    assert len(compiles) == 3


def test_modules_of_one_class_have_their_own_engines(assert_same) -> None:
    blocks = [Mlp().eval() for _ in range(3)]
    compiled = [jit(block) for block in blocks]
    x = torch.randn(3, 16)
    with torch.no_grad():
        for _ in range(2):
            for block, fast in zip(blocks, compiled, strict=True):
                assert_same(fast(x), block(x))


# Gradients


def gradients(model: torch.nn.Module, call: Any, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    result = call(x)
    assert result.requires_grad
    result.square().sum().backward()
    return [x.grad, *(p.grad.clone() for p in model.parameters() if p.requires_grad)]


def test_gradients_with_an_engine_in_front(mlp, assert_same, compiles, caplog) -> None:
    mlp.second.bias.requires_grad_(False)
    compiled = jit(mlp)
    x = torch.randn(3, 16)
    for _ in range(2):
        assert_same(gradients(mlp, compiled, x), gradients(mlp, mlp, x))
    assert len(compiles) == 1
    assert len(engines_of(compiles[0])) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_gradients_switched_on_after_the_first_call(assert_same) -> None:
    model = torch.nn.Linear(4, 4).requires_grad_(False)
    compiled = jit(model)
    x = torch.randn(3, 4)
    assert not compiled(x).requires_grad
    model.requires_grad_(True)
    assert_same(gradients(model, compiled, x), gradients(model, model, x))


def test_gradients_under_autocast(assert_same) -> None:
    model = torch.nn.Linear(4, 4)
    compiled = jit(model)

    def cast(call: Any) -> Any:
        def run(x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return call(x)

        return run

    x = torch.randn(3, 4)
    actual, expected = gradients(model, cast(compiled), x), gradients(model, cast(model), x)
    assert_same(actual, expected, rtol=2e-2, atol=2e-2)


def test_training_goes_to_pytorch_and_says_so(assert_same, compiles, caplog) -> None:
    model, twin = Mlp(), Mlp()
    twin.load_state_dict(model.state_dict())
    compiled = jit(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.001) for m in (model, twin)]
    x = torch.randn(3, 16)
    for _ in range(6):
        for call, optimizer in zip((compiled, twin), optimizers, strict=True):
            optimizer.zero_grad()
            call(x).square().sum().backward()
            optimizer.step()
    assert_same(model.state_dict(), twin.state_dict())
    assert len(compiles) <= 3
    assert sum("being trained" in record.message for record in caplog.records) == 1
    with torch.no_grad():
        assert_same(compiled(x), twin(x))


class Dropout(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(torch.relu(x), 0.5, self.training) * 2


def test_gradients_of_random_graphs(caplog) -> None:
    """The backward pass has to see the numbers that the forward pass drew."""
    compiled = jit(Dropout().train())
    x = torch.ones(200, requires_grad=True)
    result = compiled(x)
    result.sum().backward()
    assert torch.equal(x.grad, result.detach())
    assert 0 < int((result == 0).sum()) < 200
    assert "random" in caplog.text


def test_gradients_through_written_buffers(assert_same, caplog) -> None:
    model, twin = torch.nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4)
    compiled = jit(model)
    x = torch.randn(8, 4)
    for _ in range(2):
        assert_same(gradients(model, compiled, x), gradients(twin, twin, x))
    assert_same(model.state_dict(), twin.state_dict())
    assert "writes to" in caplog.text


def test_gradients_that_the_graph_switches_on(assert_same) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            return torch.relu(x) * 3

    compiled = jit(model)
    with torch.no_grad():
        x = torch.randn(4, requires_grad=True)
        result = compiled(x)
    assert result.requires_grad
    assert_same(result, model(x))


def test_results_without_gradients(assert_same) -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            a = torch.relu(x) + 1
        return a, torch.tanh(x) * a, (x * 2).detach(), x.argmax()

    x = torch.randn(4, requires_grad=True)
    actual, expected = jit(model)(x), model(x)
    assert_same(actual, expected)
    assert [r.requires_grad for r in actual] == [r.requires_grad for r in expected]
    (gradient,) = torch.autograd.grad(actual[1].sum(), x)
    assert_same(gradient, torch.autograd.grad(expected[1].sum(), x)[0])


def test_second_derivatives_are_refused(mlp) -> None:
    x = torch.randn(3, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(jit(mlp)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_modes(mlp, assert_same, mode) -> None:
    compiled = jit(mlp)
    with mode():
        x = torch.randn(3, 16)
        result = compiled(x)
        assert_same(result, mlp(x))
    assert not result.requires_grad


# Options


def test_options_reach_the_compiler(assert_same, compiles) -> None:
    model = Mlp().eval()
    options = {**ALL, "torch_executed_ops": {"torch.ops.aten.relu.default"}}
    compiled = torch.compile(model, backend="tensorrt", options=options)
    x = torch.randn(3, 16)
    with torch.no_grad():
        assert_same(compiled(x), model(x))
    assert torch_operators_of(compiles[0]) == {"aten.relu.default"}


def test_small_graphs_stay_in_pytorch_by_default(assert_same, compiles) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    assert_same(torch.compile(model, backend="tensorrt")(torch.ones(2)), model(torch.ones(2)))
    assert not engines_of(compiles[0])


def test_unknown_options_name_the_nearest() -> None:
    options = {"min_blocksize": 1}
    graph = torch.fx.symbolic_trace(torch.nn.ReLU())
    for kwargs in ({"options": options}, options):
        with pytest.raises(TypeError, match="min_blocksize.*nearest.*min_block_size"):
            torch_tensorrt_backend(graph, [torch.ones(1)], **kwargs)
    with pytest.raises(TypeError, match="min_block_size"):
        torch_tensorrt.compile(torch.nn.ReLU(), ir="torch_compile", **options)
    compiled = torch.compile(torch.nn.ReLU(), backend="tensorrt", options=options)
    with pytest.raises(RuntimeError, match="TypeError.*min_block_size"):
        compiled(torch.ones(1))


@pytest.mark.parametrize("option", ["require_full_compilation", "offload_module_to_cpu"])
def test_options_without_sense_here_warn(assert_same, caplog, option) -> None:
    model = SortInTheMiddle().eval()
    compiled = torch.compile(model, backend="tensorrt", options={option: True, **ALL})
    x = torch.randn(3, 16)
    with torch.no_grad():
        assert_same(compiled(x), model(x))
    assert option in caplog.text


def test_python_runtime_warns(mlp) -> None:
    with pytest.warns(DeprecationWarning, match="use_python_runtime"):
        torch_tensorrt.compile(mlp, ir="torch_compile", use_python_runtime=True)


# torch_tensorrt.compile(ir="torch_compile")


def test_compile_with_ir(mlp, assert_same, compiles) -> None:
    x = torch.randn(3, 16)
    compiled = torch_tensorrt.compile(mlp, ir="torch_compile", min_block_size=1)
    assert not compiles
    with torch.no_grad():
        assert_same(compiled(x), mlp(x))
        assert_same(compiled(torch.cat([x, x])), mlp(torch.cat([x, x])))
    assert len(compiles) == 2


def test_compile_with_ir_and_dynamic_inputs(mlp, assert_same, compiles) -> None:
    inputs = [torch_tensorrt.Input(min_shape=(2, 16), opt_shape=(4, 16), max_shape=(32, 16))]
    compiled = torch_tensorrt.compile(mlp, "torch_compile", inputs, min_block_size=1)
    with torch.no_grad():
        for batch in (2, 9):
            x = torch.randn(batch, 16)
            assert_same(compiled(x), mlp(x))
    assert len(compiles) == 1


def test_exported_programs_are_refused() -> None:
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(1),))
    with pytest.raises(ValueError, match='ir="dynamo"'):
        torch_tensorrt.compile(program, ir="torch_compile")


# Saving


def compiled_in_place() -> torch.nn.Module:
    model = Mlp().eval()
    model.compile(backend="torch_tensorrt")
    return model


JIT_MODELS: dict[str, Callable[[], Any]] = {
    "torch.compile": lambda: torch.compile(Mlp(), backend="torch_tensorrt"),
    "ir": lambda: torch_tensorrt.compile(Mlp(), ir="torch_compile"),
    "function": lambda: torch.compile(torch.relu, backend="torch_tensorrt"),
    "in place": compiled_in_place,
}


@pytest.mark.parametrize("kind", JIT_MODELS)
def test_saving_says_what_to_do(tmp_path, kind) -> None:
    path = tmp_path / "model.ep"
    with pytest.raises(ValueError) as error:
        torch_tensorrt.save(JIT_MODELS[kind](), path, arg_inputs=[torch.randn(3, 16)])
    assert 'torch_tensorrt.compile(model, ir="dynamo"' in str(error.value)
    assert "torch_tensorrt.save(" in str(error.value)
    assert not path.exists()


def test_logs_say_that_engines_are_built_again(caplog) -> None:
    model = torch.nn.Linear(4, 4).eval()
    compiled = jit(model)
    with torch.no_grad(), caplog.at_level(logging.INFO, logger="torch_tensorrt"):
        compiled(torch.ones(1, 4))
        model.weight.zero_()
        compiled(torch.ones(1, 4))
    assert "building again" in caplog.text
