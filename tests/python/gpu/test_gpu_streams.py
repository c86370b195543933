"""Engines on a GPU follow the caller's streams, threads, graphs and memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from gpu.models import Mixer, Recurrent

import torch_tensorrt


def compile_model(model: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    return torch_tensorrt.compile(model, ir="dynamo", inputs=[x], min_block_size=1)


def test_work_is_in_the_order_of_the_stream(assert_near: Any) -> None:
    """An input that is still being computed on the stream, and a result that is used on it at once."""
    model, x = Mixer().eval().cuda(), torch.randn(64, 10, 64, device="cuda")
    compiled = compile_model(model, x)
    with torch.no_grad():
        expected = model(x)
        torch.cuda.synchronize()
        for _ in range(10):
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                late = torch.zeros_like(x)
                torch.cuda._sleep(2_000_000)
                late.copy_(x)
                y = compiled(late) * 1
            stream.synchronize()
            assert_near(y, expected)


def test_many_streams_and_threads(assert_near: Any) -> None:
    model, x = Mixer().eval().cuda(), torch.randn(8, 10, 64, device="cuda")
    compiled = compile_model(model, x)
    inputs = [torch.randn_like(x) for _ in range(8)]
    with torch.no_grad():
        expected = [model(each) for each in inputs]
    torch.cuda.synchronize()

    def work(index: int) -> list[torch.Tensor]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.no_grad():
            results = [compiled(inputs[index]) for _ in range(30)]
        stream.synchronize()
        return results

    with ThreadPoolExecutor(8) as pool:
        for index, results in enumerate(pool.map(work, range(8))):
            for y in results:
                assert_near(y, expected[index])


@pytest.mark.parametrize("make", [Mixer, Recurrent])
def test_captured_by_the_caller(make: Any, assert_near: Any) -> None:
    """Graphs of the caller's may be replayed beside other calls of the engine."""
    shape = (4, 10, 64) if make is Mixer else (4, 5, 16)
    model, x = make().eval().cuda(), torch.randn(shape, device="cuda")
    compiled = compile_model(model, x)
    with torch.no_grad():
        compiled(x)
        own = x.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = compiled(own)
        for _ in range(3):
            new = torch.randn_like(x)
            own.copy_(new)
            graph.replay()
            other = compiled(x)
            torch.cuda.synchronize()
            assert_near(y, model(new))
            assert_near(other, model(x))


@pytest.mark.parametrize("make", [Mixer, Recurrent])
def test_enable_cudagraphs(make: Any, assert_near: Any) -> None:
    shapes = [(4, 10, 64), (4, 10, 64)] if make is Mixer else [(4, 5, 16), (4, 5, 16)]
    model = make().eval().cuda()
    compiled = compile_model(model, torch.randn(shapes[0], device="cuda"))
    with torch.no_grad(), torch_tensorrt.runtime.enable_cudagraphs(compiled) as graphs:
        kept = []
        for shape in shapes * 3:
            x = torch.randn(shape, device="cuda")
            kept.append((graphs(x), model(x)))
        for y, expected in kept:
            assert_near(y, expected)


def test_pre_allocated_outputs(assert_near: Any) -> None:
    """Results stay, on a stream of their own, too, and in a graph, whose memory is its own."""
    model = Mixer().eval().cuda()
    inputs = [torch.randn(4, 10, 64, device="cuda") for _ in range(6)]
    compiled = compile_model(model, inputs[0])
    with torch.no_grad(), torch_tensorrt.runtime.enable_pre_allocated_outputs(compiled):
        results = [compiled(x) for x in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results += [compiled(x) for x in inputs]
        torch.cuda.current_stream().wait_stream(stream)
        static = inputs[0].clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = compiled(static)
        results += [compiled(x) for x in inputs]
        for x in inputs:
            static.copy_(x)
            graph.replay()
            assert_near(captured, model(x))
        for x, result in zip(inputs * 3, results, strict=True):
            assert_near(result, model(x))


def test_profiling() -> None:
    model, x = Mixer().eval().cuda(), torch.randn(4, 10, 64, device="cuda")
    compiled = compile_model(model, x)
    with torch.no_grad(), torch_tensorrt.runtime.profiling(compiled) as profile:
        compiled(x)
        (kernels,) = profile.kernels().values()
        assert len(kernels) >= 3
        assert all(kernel["nanoseconds"] > 0 for kernel in kernels)


def test_memory_comes_back() -> None:
    """Workspace is PyTorch's memory, and nothing is kept of calls."""
    model, x = Mixer().eval().cuda(), torch.randn(4, 10, 64, device="cuda")
    compiled = compile_model(model, x)
    with torch.no_grad():
        for _ in range(5):
            compiled(x)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        for _ in range(50):
            compiled(x)
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() == before


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="PyTorch sees fewer than two GPUs")
def test_two_gpus(assert_near: Any) -> None:
    model = Mixer().eval()
    x = torch.randn(4, 10, 64)
    compiled = [compile_model(model.to(f"cuda:{i}"), x.to(f"cuda:{i}")) for i in range(2)]
    with torch.no_grad():
        for i in range(2):
            assert_near(compiled[i](x.to(f"cuda:{i}")), model.to(f"cuda:{i}")(x.to(f"cuda:{i}")))
        assert_near(compiled[0](x.to("cuda:1")), model(x.to("cuda:1")))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="PyTorch sees fewer than two GPUs")
def test_one_engine_on_two_gpus_at_once(assert_near: Any) -> None:
    """Compiled on cuda:1, and called from threads for either GPU, with all weights there and with some."""
    model, x = Mixer().eval().to("cuda:1"), torch.randn(8, 10, 64, device="cuda:1")
    compiled = compile_model(model, x)
    inputs = [torch.randn(8, 10, 64) for _ in range(4)]
    with torch.no_grad():
        expected = [model(each.to("cuda:1")).cpu() for each in inputs]

    def work(index: int) -> list[torch.Tensor]:
        device = torch.device("cuda", index % 2)
        with torch.cuda.device(device), torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            results = [compiled(inputs[index].to(device)) for _ in range(30)]
            torch.cuda.current_stream().synchronize()
        assert all(result.device == device for result in results)
        return [result.cpu() for result in results]

    with torch_tensorrt.runtime.weight_streaming(compiled) as context:
        for budget in (context.total_device_budget, 0):
            context.device_budget = budget
            with ThreadPoolExecutor(4) as pool:
                for index, results in enumerate(pool.map(work, range(4))):
                    for y in results:
                        assert_near(y, expected[index])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="PyTorch sees fewer than two GPUs")
def test_a_call_with_tensors_on_two_gpus(assert_near: Any) -> None:
    """The error says which device is expected and got; the engine works afterwards, on either."""

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) + y

    x, y = torch.randn(8, 16, device="cuda:0"), torch.randn(8, 16, device="cuda:0")
    compiled = torch_tensorrt.compile(Sum(), ir="dynamo", inputs=[x, y], min_block_size=1)
    with pytest.raises(
        RuntimeError, match='input "y".*got a tensor on cuda:1, expected one on cuda:0'
    ):
        compiled(x, y.to("cuda:1"))
    with pytest.raises(
        RuntimeError, match='input "y".*got a tensor on cuda:0, expected one on cuda:1'
    ):
        compiled(x.to("cuda:1"), y)
    for device in ("cuda:0", "cuda:1"):
        got = compiled(x.to(device), y.to(device))
        assert str(got.device) == device
        assert_near(got.to("cuda:0"), Sum()(x, y))
