"""Weights above a budget are copied to the GPU in every call: results are the same to the last bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import kiln
import torch_tensorrt
from torch_tensorrt import runtime
from torch_tensorrt.dynamo import convert_exported_program_to_serialized_trt_engine

WIDTH = 256


class Layers(torch.nn.Module):
    """Attention, products and normalisations; a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, batch_first=True)
            for _ in range(3)
        )
        self.shared = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(self.shared(x))
        return x


class Images(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = torch.nn.Sequential(
            *(torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolutions(x).relu()


def make(kind: str, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if kind == "layers":
        model, shape = Layers(), (4, 64, WIDTH)
    else:
        model, shape = Images(), (2, 64, 32, 32)
    return model.eval().cuda().to(dtype), torch.randn(shape, device="cuda", dtype=dtype)


def compile_model(
    model: torch.nn.Module, x: torch.Tensor, **options: object
) -> torch.fx.GraphModule:
    return torch_tensorrt.compile(
        model, ir="dynamo", inputs=[x], min_block_size=1, enable_weight_streaming=True, **options
    )


@pytest.fixture(scope="module", params=["layers f32", "layers f16", "images f16"])
def case(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]]:
    """A compiled module, an input, and what it gives without streaming."""
    kind, dtype = request.param.split()
    model, x = make(kind, torch.float32 if dtype == "f32" else torch.float16)
    compiled = compile_model(model, x)
    with torch.no_grad():
        expected = compiled(x)
        torch.testing.assert_close(expected, model(x), rtol=2e-2, atol=2e-2)
    yield compiled, x, expected


def budgets_of(total: int) -> list[int]:
    return [0, 1, total // 3, total // 2, total - 1, total, 2 * total]


def test_results_are_the_same_to_the_last_bit(case) -> None:
    compiled, x, expected = case
    with runtime.weight_streaming(compiled) as context:
        total = context.total_device_budget
        assert total > 100_000
        assert context.device_budget == total
        for budget in budgets_of(total):
            context.device_budget = budget
            assert context.device_budget == min(budget, total)
            for _ in range(4):  # alone, captured, and as a graph
                assert torch.equal(compiled(x), expected)
            other = x.clone()
            assert torch.equal(compiled(other), expected)
    assert torch.equal(compiled(x), expected)
    with runtime.weight_streaming(compiled) as context:
        assert context.device_budget == total


def test_budgets_change_between_calls(case) -> None:
    compiled, x, expected = case
    with runtime.weight_streaming(compiled) as context:
        total = context.total_device_budget
        for step in range(12):
            context.device_budget = total * (step % 4) // 3
            assert torch.equal(compiled(x), expected)
        context.device_budget = context.get_automatic_weight_streaming_budget()
        assert context.device_budget == total  # there is room
        assert torch.equal(compiled(x), expected)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_many_streams_and_threads(case, share) -> None:
    compiled, x, expected = case
    inputs = [x + index for index in range(6)]
    wanted = [compiled(each) for each in inputs]

    def work(index: int) -> bool:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.no_grad():
            results = [compiled(inputs[index]) for _ in range(20)]
        stream.synchronize()
        return all(torch.equal(result, wanted[index]) for result in results)

    with runtime.weight_streaming(compiled) as context:
        context.device_budget = int(share * context.total_device_budget)
        torch.cuda.synchronize()
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(work, range(6)))


def test_in_graphs_of_the_callers(case) -> None:
    compiled, x, expected = case
    with runtime.weight_streaming(compiled) as context, torch.no_grad():
        context.device_budget = context.total_device_budget // 2
        compiled(x)
        own = x.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = compiled(own)
        for value in (x, 2 * x):
            own.copy_(value)
            graph.replay()
            torch.cuda.synchronize()
            assert torch.equal(y, compiled(value))
        with runtime.enable_cudagraphs(compiled) as module:
            assert torch.equal(module(x), expected)


def test_with_profiling(case) -> None:
    compiled, x, expected = case
    with runtime.weight_streaming(compiled) as context, runtime.profiling(compiled) as profile:
        context.device_budget = 0
        assert torch.equal(compiled(x), expected)
        assert profile.nanoseconds() > 0


def test_of_several_engines() -> None:
    model, x = make("layers", torch.float16)
    compiled = compile_model(model, x, torch_executed_ops={"torch.ops.aten.layer_norm.default"})
    engines = [buffer for name, buffer in compiled.named_buffers() if buffer.dtype is torch.uint8]
    assert len(engines) > 1
    with torch.no_grad():
        expected = compiled(x)
        with runtime.weight_streaming(compiled) as context:
            for budget in budgets_of(context.total_device_budget):
                context.device_budget = budget
                assert context.device_budget == min(budget, context.total_device_budget)
                assert torch.equal(compiled(x), expected)


@pytest.mark.skipif(
    "PYTEST_XDIST_WORKER" in os.environ,
    reason="reads how much memory of the whole GPU is free: run it without other workers",
)
def test_less_memory_is_used() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(12)))
    model, x = model.eval().half().cuda(), torch.randn(8, 4096, device="cuda").half()
    compiled = compile_model(model, x)
    del model

    def used(budget: int) -> int:
        context.device_budget = budget
        assert torch.equal(compiled(x), expected)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        return total - free

    with torch.no_grad():
        expected = compiled(x)
        with runtime.weight_streaming(compiled) as context:
            weights = context.total_device_budget
            assert weights == 12 * 2 * 4096 * 4096
            whole, none, half = used(weights), used(0), used(weights // 2)
    ring = 2 * 2 * 4096 * 4096
    slack = 48 << 20  # the pieces in which PyTorch's allocator asks for memory
    assert whole - none > weights - ring - slack
    assert whole - half > weights // 2 - ring - slack


def test_modules_of_one_engine() -> None:
    model, x = make("layers", torch.float16)
    program = torch.export.export(model, (x,))
    module = runtime.TorchTensorRTModule(
        convert_exported_program_to_serialized_trt_engine(program, inputs=[x])
    )
    expected = module(x)
    total = module.get_streamable_device_memory_budget()
    assert module.get_device_memory_budget() == total > 0
    for budget in budgets_of(total):
        assert module.set_device_memory_budget(budget) == min(budget, total)
        assert module.get_device_memory_budget() == min(budget, total)
        module.set_pre_allocated_outputs(budget == 1)
        assert torch.equal(module(x), expected)
    assert module.get_automatic_device_memory_budget() == total
    with pytest.raises(RuntimeError, match="-1, expected 0 or more"):
        module.set_device_memory_budget(-1)


def test_sessions_of_different_budgets() -> None:
    model, x = make("layers", torch.float32)
    program = torch.export.export(model, (x,))
    engine = kiln.load(convert_exported_program_to_serialized_trt_engine(program, inputs=[x]))
    sessions = [
        engine.session(weight_budget=budget)
        for budget in (None, *budgets_of(engine.streamable_bytes))
    ]

    def run(session: kiln.Session) -> torch.Tensor:
        out = torch.empty_like(x)
        session.run(x, out=[out])
        torch.cuda.synchronize()
        return out

    expected = run(sessions[0])
    for _ in range(4):
        for session in sessions:
            assert torch.equal(run(session), expected)


def test_mutable_modules(caplog) -> None:
    model, x = make("layers", torch.float16)
    module = torch_tensorrt.MutableTorchTensorRTModule(
        model, min_block_size=1, weight_streaming_budget=1000
    )
    plain = torch_tensorrt.MutableTorchTensorRTModule(model, min_block_size=1)

    def budgets() -> set[int]:
        modules = [item.module for item in module._compiled]
        found = set()
        for each in modules:
            with runtime.weight_streaming(each) as context:
                found.add(context.device_budget)
        return found

    assert torch.equal(module(x), plain(x))
    assert budgets() == {1000}
    with torch.no_grad():
        model.shared.weight.mul_(0.5)
    assert torch.equal(module(x), plain(x))
    assert budgets() == {1000}
    module.set_weight_streaming_ctx(0)
    assert torch.equal(module(x), plain(x))
    assert budgets() == {0}
    module.set_weight_streaming_ctx()
    assert torch.equal(module(x), plain(x))
    assert budgets() != {0}
    with pytest.raises(RuntimeError, match="-5, expected 0 or more"):
        module.set_weight_streaming_ctx(-5)


def refused(module: torch.nn.Module) -> Callable[[], None]:
    def enter() -> None:
        with runtime.weight_streaming(module):
            pass

    return enter


def test_what_is_wrong(case) -> None:
    compiled, x, _ = case
    with (
        runtime.weight_streaming(compiled) as context,
        pytest.raises(RuntimeError, match="-1, expected 0 or more"),
    ):
        context.device_budget = -1
    biases = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()).eval().cuda()
    with pytest.raises(RuntimeError, match="does not have streamable weights"):
        refused(compile_model(biases, torch.randn(4, 8, device="cuda")))()
    with pytest.raises(RuntimeError, match="does not have streamable weights"):
        _ = runtime.weight_streaming(torch.nn.ReLU()).device_budget
    on_cpu = torch_tensorrt.compile(
        Layers().eval(), ir="dynamo", inputs=[torch.randn(2, 8, WIDTH)], min_block_size=1
    )
    with pytest.raises(RuntimeError, match="does not have streamable weights"):
        refused(on_cpu)()
    engine = next(b for b in on_cpu.buffers() if b.dtype is torch.uint8)
    assert kiln.load(np.asarray(engine)).streamable_bytes == 0


def test_without_a_block(case) -> None:
    """As scripts have it: the context is an object whose budget stays."""
    compiled, x, expected = case
    context = runtime.weight_streaming(compiled)
    total = context.total_device_budget
    assert context.device_budget == total > 0
    context.device_budget = total // 2
    assert runtime.weight_streaming(compiled).device_budget == total // 2
    assert torch.equal(compiled(x), expected)
    with runtime.weight_streaming(compiled) as inner:
        inner.device_budget = 0
        assert torch.equal(compiled(x), expected)
    assert context.device_budget == total // 2
    context.device_budget = context.get_automatic_weight_streaming_budget()
    assert context.device_budget == total
