"""Buffers and inputs that a model on a GPU changes: in place, as CUDA graphs, in every format."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from state.stateful import WAYS, Cache, InputCache, inputs

import torch_tensorrt
from torch_tensorrt._operator import execute_engine_in_place

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}


def on_gpu(step: int, **sizes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    x, places = inputs(step, **sizes)
    return x.cuda(), places.cuda()


def compiled_cache(way: str, model: torch.nn.Module, **sizes: Any) -> Any:
    return torch_tensorrt.compile(
        copy.deepcopy(model), "dynamo", list(on_gpu(0, **sizes)), min_block_size=1
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing(way, batch, dtype, assert_near) -> None:
    model = Cache(way, batch, dtype).eval().cuda()
    sizes = {"batch": batch, "rows": 3, "dtype": dtype}
    compiled = compiled_cache(way, model, **sizes)
    assert any(node.target is execute_engine_in_place for node in compiled.graph.nodes)
    state = dict(compiled.named_buffers())
    with torch.no_grad():
        for step in range(5):
            args = on_gpu(step, **sizes)
            assert_near(compiled(*args), model(*args))
            for name, expected in model.named_buffers():
                assert_near(state[name], expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind, tmp_path, assert_near) -> None:
    model = Cache("index_copy").eval().cuda()
    path = tmp_path / f"m.{kind}"
    torch_tensorrt.save(
        compiled_cache("index_copy", model),
        str(path),
        arg_inputs=list(on_gpu(0)),
        output_format=FORMATS[kind],
    )
    loaded = torch_tensorrt.load(str(path)).module()
    with torch.no_grad():
        for step in range(3):
            assert_near(loaded(*on_gpu(step)), model(*on_gpu(step)))


@pytest.mark.parametrize("first", [0, 1], ids=["aligned", "misaligned"])
def test_an_input_is_changed(first, assert_near) -> None:
    model = InputCache().eval()
    example = [*on_gpu(0), torch.zeros(1, 2, 12, 8, device="cuda")]
    compiled = torch_tensorrt.compile(model, "dynamo", example, min_block_size=1)
    memory, expected = torch.zeros(194, device="cuda"), torch.zeros(1, 2, 12, 8, device="cuda")
    cache = memory[first : first + 192].view(1, 2, 12, 8)
    with torch.no_grad():
        for step in range(5):
            args = on_gpu(step)
            assert_near(compiled(*args, cache), model(*args, expected))
            assert_near(cache, expected)
    assert memory[192 + first :].count_nonzero() == 0


def test_a_captured_step_changes_state_when_it_is_replayed(assert_near) -> None:
    model = Cache("index_copy").eval().cuda()
    compiled = compiled_cache("index_copy", model)
    own = [arg.clone() for arg in on_gpu(0)]
    before = [buffer.clone() for buffer in model.buffers()]
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            compiled(*own)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.no_grad(), torch.cuda.graph(graph):
        result = compiled(*own)
    state = dict(compiled.named_buffers())
    for name, value in zip(("cache", "steps"), before, strict=True):
        state[name].copy_(value)
    for step in range(4):
        args = on_gpu(step)
        for mine, given in zip(own, args, strict=True):
            mine.copy_(given)
        graph.replay()
        with torch.no_grad():
            assert_near(result, model(*args))
        assert_near(state["cache"], model.cache)


def test_enable_cudagraphs_leaves_state_as_it_was(assert_near) -> None:
    model = Cache("index_copy").eval().cuda()
    compiled = torch_tensorrt.compile(
        copy.deepcopy(model),
        "dynamo",
        list(on_gpu(0)),
        min_block_size=1,
        torch_executed_ops={"aten.add.Tensor"},
    )
    with torch.no_grad(), torch_tensorrt.runtime.enable_cudagraphs(compiled) as graphs:
        for step in range(4):
            assert_near(graphs(*on_gpu(step)), model(*on_gpu(step)))
