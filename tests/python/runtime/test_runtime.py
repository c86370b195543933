"""`torch_tensorrt.runtime`: modules around engines, and contexts."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_small import Mlp, SortInTheMiddle, batch_input, compile_all

import kiln
import torch_tensorrt
from torch_tensorrt import runtime
from torch_tensorrt.runtime import TorchTensorRTModule
from torch_tensorrt.runtime._modes import engines_of


class TwoInputs(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x) - y, (x * y).sum(-1)


@pytest.fixture(scope="module")
def two_inputs() -> bytes:
    batch = torch_tensorrt.Input(
        min_shape=(1, 4), opt_shape=(2, 4), max_shape=(8, 4), shared_dims={0: "batch"}
    )
    return torch_tensorrt.convert_method_to_trt_engine(
        TwoInputs(),
        inputs=[batch, batch],
        arg_input_binding_names=["x", "y"],
        output_binding_names=["difference", "product"],
    )


@pytest.fixture(scope="module")
def mlp_and_compiled() -> tuple[torch.nn.Module, torch.fx.GraphModule]:
    torch.manual_seed(0)
    model = Mlp().eval()
    return model, compile_all(model, batch_input())


# ---- TorchTensorRTModule ----


def test_a_module_around_an_engine(two_inputs) -> None:
    module = TorchTensorRTModule(two_inputs, ["x", "y"], ["difference", "product"], name="two")
    for batch in (1, 3, 8):
        x, y = torch.randn(batch, 4), torch.randn(batch, 4)
        for result, expected in zip(module(x, y), TwoInputs()(x, y), strict=True):
            torch.testing.assert_close(result, expected)
    with pytest.raises(RuntimeError, match="got 9, expected 1..8"):
        module(torch.randn(9, 4), torch.randn(9, 4))
    with pytest.raises(RuntimeError, match="got 1 inputs, expected 2: x, y"):
        module(torch.randn(1, 4))
    assert "x, y -> difference, product" in repr(module)


def test_binding_names_choose_and_order(two_inputs) -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    swapped = TorchTensorRTModule(two_inputs, ["y", "x"], ["product"])
    torch.testing.assert_close(swapped(y, x), (x * y).sum(-1))
    default = TorchTensorRTModule(two_inputs)
    assert default.input_binding_names == ["x", "y"]
    assert default.output_binding_names == ["difference", "product"]
    for wrong in (["x"], ["x", "z"], ["x", "x"]):
        with pytest.raises(ValueError, match=r"input_binding_names is .*\['x', 'y'\]"):
            TorchTensorRTModule(two_inputs, wrong)
    with pytest.raises(ValueError, match="output_binding_names is"):
        TorchTensorRTModule(two_inputs, None, ["sum"])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, torch.Tensor])
def test_engines_come_in_any_buffer(two_inputs, kind) -> None:
    given = (
        torch.frombuffer(bytearray(two_inputs), dtype=torch.uint8)
        if kind is torch.Tensor
        else kind(two_inputs)
    )
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(TorchTensorRTModule(given)(x, y)[0], torch.relu(x) - y)


def test_what_is_no_engine(two_inputs) -> None:
    with pytest.raises(kiln.InvalidEngineError):
        TorchTensorRTModule(b"not an engine" * 100)
    with pytest.raises(kiln.InvalidEngineError):
        TorchTensorRTModule(two_inputs[:1000])
    with pytest.raises(TypeError, match="serialized_engine is str"):
        TorchTensorRTModule("model.kiln")
    with pytest.raises(TypeError, match=r"torch\.float32 with 1 dimensions"):
        TorchTensorRTModule(torch.zeros(3))
    with pytest.raises(RuntimeError, match="has no engine"):
        TorchTensorRTModule()(torch.zeros(1))
    with pytest.raises(ValueError, match="requires_native_multidevice"):
        TorchTensorRTModule(two_inputs, requires_native_multidevice=True)
    with pytest.raises(ValueError, match="aliased_io"):
        TorchTensorRTModule(two_inputs, aliased_io={"difference": "x"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'weights'"):
        TorchTensorRTModule(two_inputs, weights=1)


def test_state_dict_round_trip(two_inputs) -> None:
    module = TorchTensorRTModule(two_inputs, ["y", "x"], ["product"], name="two")
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = TorchTensorRTModule()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(loaded(y, x), module(y, x))
    assert loaded.name == "two"
    with pytest.raises(ValueError, match="another|not that of"):
        loaded.set_extra_state({"version": 99})


def test_copies_are_independent(two_inputs) -> None:
    module = TorchTensorRTModule(two_inputs)
    other = copy.deepcopy(module)
    assert other.engine.data_ptr() != module.engine.data_ptr()
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(other(x, y), module(x, y))


def test_modules_are_exported_and_traced(two_inputs, tmp_path) -> None:
    class Around(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.engine = TorchTensorRTModule(two_inputs)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.engine(x, y)[0] + 1

    x, y = torch.randn(3, 4), torch.randn(3, 4)
    batch = torch.export.Dim("batch", min=1, max=8)
    model = Around()
    program = torch.export.export(
        model, (x, y), dynamic_shapes={"x": {0: batch}, "y": {0: batch}}, strict=False
    )
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch_tensorrt.load(tmp_path / "model.pt2")
    torch.testing.assert_close(loaded(x[:2], y[:2]), torch.relu(x[:2]) - y[:2] + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (x, y))
    torch.testing.assert_close(traced(x, y), model(x, y))


def test_engines_with_long_formulas_for_sizes_are_traced() -> None:
    class Longer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                x = torch.cat([x, x[..., ::3]], dim=-1)
            return x

    length = torch_tensorrt.Input(min_shape=(1, 2, 64), opt_shape=(1, 2, 64), max_shape=(1, 2, 256))
    engine = torch_tensorrt.convert_method_to_trt_engine(Longer(), inputs=[length])
    module = TorchTensorRTModule(engine)
    assert "..." in kiln.inspect(engine)["outputs"][0]["shape"]
    for size in (64, 99, 256):
        x = torch.randn(1, 2, size)
        torch.testing.assert_close(module(x), Longer()(x))
        traced = torch.export.export(module, (x,), strict=False).module()
        torch.testing.assert_close(traced(x), Longer()(x))


def test_shapes_are_known_where_sizes_are_multiples() -> None:
    class Pairs(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, 2).sum(-1)

    pairs = torch.export.Dim("pairs", min=2, max=64)
    program = torch.export.export(
        Pairs(), (torch.randn(10),), dynamic_shapes={"x": {0: 2 * pairs}}, strict=False
    )
    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(program)
    module = TorchTensorRTModule(engine)
    for size in (4, 10):
        x = torch.randn(size)
        assert torch.export.export(module, (x,), strict=False).module()(x).shape == (size // 2,)


# ---- Profiling ----


def test_profiles_have_the_times_of_kernels(mlp_and_compiled, tmp_path) -> None:
    model, _ = mlp_and_compiled
    engine = torch_tensorrt.convert_method_to_trt_engine(model, inputs=[batch_input()])
    module = TorchTensorRTModule(engine, name="mlp")
    with pytest.raises(RuntimeError, match="not enabled"):
        module.profile()
    module.enable_profiling(str(tmp_path))
    assert module.profile() == []
    module(torch.randn(8, 16))
    kernels = module.profile()
    assert len(kernels) >= 2
    assert all(kernel["nanoseconds"] > 0 for kernel in kernels)
    assert any("linear" in source for kernel in kernels for source in kernel["sources"])
    trace = json.loads((tmp_path / "mlp_engine_execution_profile.trace").read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in events] == [kernel["kernel"] for kernel in kernels]
    module.enable_profiling(str(tmp_path), "trex")
    module(torch.randn(8, 16))
    rows = json.loads((tmp_path / "mlp_engine_execution_profile.trace").read_text())
    assert rows[0] == {"count": 1}
    assert sum(row["percentage"] for row in rows[1:]) == pytest.approx(100)
    module.disable_profiling()
    with pytest.raises(RuntimeError, match="not enabled"):
        module.profile()
    with pytest.raises(ValueError, match="'cudagraph' is about CUDA graphs"):
        module.enable_profiling(profile_format="cudagraph")
    with pytest.raises(ValueError, match="expected one of"):
        module.enable_profiling(profile_format="csv")


def test_profiling_of_a_compiled_module() -> None:
    model = SortInTheMiddle().eval()
    compiled = compile_all(model, torch.randn(4, 16))
    with runtime.profiling(compiled) as profile:
        assert profile.kernels() == {"engine_0": [], "engine_1": []}
        compiled(torch.randn(4, 16))
        kernels = profile.kernels()
        assert all(kernels.values())
        assert profile.nanoseconds() > 0
    assert profile.kernels() == {"engine_0": [], "engine_1": []}


def test_layer_info(two_inputs, capsys) -> None:
    module = TorchTensorRTModule(two_inputs)
    info = json.loads(module.get_layer_info())
    assert info["Bindings"] == ["x", "y", "difference", "product"]
    assert info["Layers"]
    module.dump_layer_info()
    assert json.loads(capsys.readouterr().out) == info


# ---- Pre-allocated outputs ----


def allocations(call: Callable[[], Any]) -> int:
    """Tensors that are allocated in a call."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        results = call()
    events = profile.profiler.kineto_results.events()
    del results  # after the end: its memory is given back
    return sum(event.name() == "[memory]" and event.nbytes() > 0 for event in events)


def test_a_call_allocates_the_results_of_the_next(mlp_and_compiled) -> None:
    _, compiled = mlp_and_compiled
    x = torch.randn(4, 16)
    assert [allocations(lambda: compiled(x)) for _ in range(2)] == [1, 1]
    with runtime.enable_pre_allocated_outputs(compiled) as context:
        assert [allocations(lambda: context(x)) for _ in range(3)] == [2, 1, 1]
        assert allocations(lambda: compiled(x[:2])) == 2
        assert allocations(lambda: compiled(x[2:])) == 1
    assert allocations(lambda: compiled(x)) == 1


def test_results_of_earlier_calls_stay(mlp_and_compiled) -> None:
    """Scripts collect results in a list and switch the mode between calls."""
    model, compiled = mlp_and_compiled
    inputs = [torch.randn(1 + i // 3 % 4, 16) for i in range(24)]
    results = []
    context = runtime.enable_pre_allocated_outputs(compiled)
    for i, x in enumerate(inputs):
        context.set_pre_allocated_output(i % 5 != 3)
        results.append(compiled(x))
    context.set_pre_allocated_output(False)
    for x, result in zip(inputs, results, strict=True):
        torch.testing.assert_close(result, model(x).detach())
    assert len({result.data_ptr() for result in results}) == len(results)


def test_memory_that_a_call_reads_is_not_written_to() -> None:
    class Step(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(0) + 1

    compiled = compile_all(Step(), torch.zeros(4, 4))
    start = torch.arange(16.0).reshape(4, 4)
    with runtime.enable_pre_allocated_outputs(compiled):
        once = compiled(start)
        twice = compiled(once)
        assert twice.data_ptr() != once.data_ptr()
        torch.testing.assert_close(twice, start + 2)
        view = twice.reshape(-1)[:].view(4, 4).t()
        torch.testing.assert_close(compiled(view), (start + 2).t().flip(0) + 1)


def test_contexts_nest(mlp_and_compiled) -> None:
    _, compiled = mlp_and_compiled
    x = torch.randn(4, 16)
    with runtime.enable_pre_allocated_outputs(compiled):
        with runtime.enable_pre_allocated_outputs(compiled), runtime.profiling(compiled) as profile:
            compiled(x)
            assert profile.nanoseconds() > 0
        assert [allocations(lambda: compiled(x)) for _ in range(2)] == [2, 1]
    assert allocations(lambda: compiled(x)) == 1


def test_modes_end_with_an_exception(mlp_and_compiled) -> None:
    _, compiled = mlp_and_compiled
    with pytest.raises(KeyError), runtime.enable_pre_allocated_outputs(compiled):
        raise KeyError
    x = torch.randn(4, 16)
    assert [allocations(lambda: compiled(x)) for _ in range(2)] == [1, 1]


def test_modes_of_modules(two_inputs) -> None:
    module = TorchTensorRTModule(two_inputs)
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    module.set_pre_allocated_outputs(True)
    results = len(module(x, y))
    assert [allocations(lambda: module(x, y)) for _ in range(2)] == [results, results]
    module.set_pre_allocated_outputs(False)
    assert [allocations(lambda: module(x, y)) for _ in range(2)] == [results, results]
    module.set_pre_allocated_outputs(True)
    assert allocations(lambda: module(x, y)) == 2 * results
    module.set_use_output_allocator(True)
    module.use_dynamically_allocated_resources(True)
    for profile in (0, 1, "auto", None):
        module.set_optimization_profile(profile)
    with pytest.raises(TypeError, match="optimization profile"):
        module.set_optimization_profile(1.5)
    for call in (module.get_device_memory_budget, lambda: module.set_device_memory_budget(1)):
        with pytest.raises(RuntimeError, match="no device memory"):
            call()


def test_saved_and_loaded_modules_have_modes(mlp_and_compiled, tmp_path) -> None:
    _, compiled = mlp_and_compiled
    torch_tensorrt.save(compiled, tmp_path / "mlp.ep")
    x = torch.randn(4, 16)
    program = torch_tensorrt.load(tmp_path / "mlp.ep")
    for loaded in (program, program.module()):
        with runtime.enable_pre_allocated_outputs(loaded):
            assert [allocations(lambda each=loaded: each(x)) for _ in range(2)] == [2, 1]
        assert allocations(lambda each=loaded: each(x)) == 1


# ---- Contexts without effect, and those of GPUs ----


def test_accepted_contexts(mlp_and_compiled) -> None:
    model, compiled = mlp_and_compiled
    x = torch.randn(4, 16)
    for context in (
        runtime.enable_output_allocator(compiled),
        runtime.optimization_profile(compiled, 0),
        runtime.optimization_profile(compiled, "auto"),
        runtime.set_multi_device_safe_mode(True),
        torch_tensorrt.enable_pre_allocated_outputs(compiled),
    ):
        with context:
            torch.testing.assert_close(compiled(x), model(x).detach())
    with (
        pytest.raises(ValueError, match="-1, expected 0 or more"),
        runtime.optimization_profile(compiled, -1),
    ):
        pass


def test_what_needs_a_gpu(mlp_and_compiled) -> None:
    _, compiled = mlp_and_compiled
    with pytest.raises(RuntimeError, match="need a GPU"), runtime.enable_cudagraphs(compiled):
        pass
    with (
        pytest.raises(RuntimeError, match="streamable weights"),
        runtime.weight_streaming(compiled),
    ):
        pass
    with pytest.raises(RuntimeError, match="need a GPU"):
        runtime.set_cudagraphs_mode(True)
    runtime.set_cudagraphs_mode(False)
    assert runtime.get_cudagraphs_mode() is False
    assert runtime.get_whole_cudagraphs_mode() is False


def test_multi_device_safe_mode_is_a_call_and_a_context() -> None:
    assert runtime.get_multi_device_safe_mode() is False
    with runtime.set_multi_device_safe_mode(True):
        assert runtime.get_multi_device_safe_mode() is True
    assert runtime.get_multi_device_safe_mode() is False
    runtime.set_multi_device_safe_mode(True)
    assert runtime.get_multi_device_safe_mode() is True
    runtime.set_multi_device_safe_mode(False)
    with pytest.raises(TypeError, match="expected True or False"):
        runtime.set_multi_device_safe_mode("on")


def test_runtime_settings(mlp_and_compiled, tmp_path) -> None:
    _, compiled = mlp_and_compiled
    strategy = "dynamic_shapes_kernel_specialization_strategy"
    with (
        pytest.warns(UserWarning, match="have no effect"),
        runtime.runtime_config(compiled, **{strategy: "eager"}) as same,
    ):
        assert same is compiled
        assert compiled.runtime_settings == runtime.RuntimeSettings("eager")
    assert compiled.runtime_settings == runtime.RuntimeSettings()
    with (
        pytest.warns(UserWarning, match="have no effect"),
        runtime.set_dynamic_shapes_kernel_strategy([compiled], "none"),
    ):
        assert compiled.runtime_settings == runtime.RuntimeSettings("none")
    with (
        pytest.warns(UserWarning, match="have no effect"),
        runtime.runtime_cache(compiled, tmp_path / "cache") as cache,
    ):
        cache.save()
        cache.load()
        assert len(cache) == 0
    assert not (tmp_path / "cache").exists()
    with (
        pytest.raises(TypeError, match="'cuda_graph'.*'cuda_graph_strategy'"),
        runtime.runtime_config(compiled, cuda_graph="x"),
    ):
        pass
    with pytest.raises(ValueError, match="expected one of lazy, eager, none"):
        runtime.RuntimeSettings("now")
    graphs = runtime.RuntimeSettings().merge(cuda_graph_strategy="whole_graph_capture")
    assert graphs == runtime.RuntimeSettings(cuda_graph_strategy="whole_graph_capture")
    with (
        pytest.raises(ValueError, match="need a GPU"),
        runtime.runtime_config(compiled, cuda_graph_strategy="whole_graph_capture"),
    ):
        pass
    assert compiled.runtime_settings == runtime.RuntimeSettings()


def test_engines_are_found_in_every_kind_of_module(two_inputs, mlp_and_compiled, caplog) -> None:
    _, compiled = mlp_and_compiled
    assert list(engines_of(compiled)) == ["engine_0"]
    both = torch.nn.ModuleDict({"a": compiled, "b": TorchTensorRTModule(two_inputs)})
    assert list(engines_of(both)) == ["a.engine_0", "b.engine"]
    with runtime.enable_pre_allocated_outputs(torch.nn.ReLU()):
        assert "the module has no engines" in caplog.text
    with (
        pytest.raises(TypeError, match="got function, expected a module with engines"),
        runtime.enable_pre_allocated_outputs(lambda x: x),
    ):
        pass


def test_the_older_place_of_the_module() -> None:
    from torch_tensorrt.dynamo.runtime import TorchTensorRTModule as Older

    assert Older is TorchTensorRTModule
