"""Whole models against eager PyTorch: each in one engine, with a dynamic batch (and sequence length, for text)."""

import operator
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import models
import torch_tensorrt

MAX_RELATIVE_ERROR = 1e-5
SIZES = [
    pytest.param(False, id="reduced"),
    pytest.param(True, id="full", marks=pytest.mark.full_size),
]


@pytest.fixture(scope="module", params=SIZES)
def full(request):
    return request.param


@pytest.fixture(scope="module", params=list(models.MODELS))
def case(request, full):
    """A model, its eager module and the compiled one."""
    if request.param == "minilm" and full:
        pytest.skip("MiniLM is small: the reduced run has its full size")
    model = models.MODELS[request.param]
    module = model.module(full)
    inputs = [torch_tensorrt.Input(**ranges) for ranges in model.ranges(full)]
    compiled = torch_tensorrt.compile(
        module, ir="dynamo", arg_inputs=inputs, require_full_compilation=True
    )
    return model, module, compiled


def called_targets(compiled):
    nodes = compiled.graph.nodes
    return [node.target for node in nodes if node.op in ("call_function", "call_module")]


def test_is_one_engine(case):
    _, _, compiled = case
    targets = [target for target in called_targets(compiled) if target is not operator.getitem]
    assert len(targets) == 1, targets


@pytest.mark.parametrize(("batch", "length"), [(1, 128), (8, 128), (3, 41)])
def test_equals_eager(case, full, batch, length):
    model, module, compiled = case
    inputs = model.inputs(batch, length, full)
    with torch.no_grad():
        expected, actual = module(*inputs), compiled(*inputs)
    shapes = [tuple(tensor.shape) for tensor in models.flat_tensors(actual)]
    assert shapes == [tuple(tensor.shape) for tensor in models.flat_tensors(expected)]
    assert models.relative_error(actual, expected) <= MAX_RELATIVE_ERROR
