"""`torch_tensorrt.dynamo.utils`: what scripts import to compare results and to make example tensors."""

from __future__ import annotations

import math
import pathlib
from collections import namedtuple

import pytest
import torch

import torch_tensorrt
from torch_tensorrt.dynamo import _compiler as published_compiler
from torch_tensorrt.dynamo import utils
from torch_tensorrt.dynamo._defaults import (
    DEBUG_LOGGING_DIR,
    ENGINE_CACHE_DIR,
    MIN_BLOCK_SIZE,
    TIMING_CACHE_PATH,
    default_device,
)


@pytest.mark.parametrize(
    ("expected", "actual", "cosine"),
    [
        ([1.0, 2.0], [1.0, 2.0], 1),
        ([1.0, 2.0], [-2.0, -4.0], -1),
        ([1.0, 0.0], [0.0, 3.0], 0),
        ([1.0, -1.0], [-1.0, 1.0], -1),  # sums of zero are no zeros
        ([0.0, 0.0], [0.0, 0.0], 1),
        ([0.0, 0.0], [1.0, 0.0], 0),
        ([1e-30, 2e-30], [1e-30, 2e-30], 1),
        ([], [], 1),
        ([1.0, math.nan], [1.0, 2.0], math.nan),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cosines(expected, actual, cosine, dtype) -> None:
    found = utils.cosine_similarity(torch.tensor(expected, dtype=dtype), torch.tensor(actual))
    tolerance = 1e-2 if dtype is torch.bfloat16 else 1e-6
    assert isinstance(found, float)
    assert found == pytest.approx(cosine, abs=tolerance, nan_ok=True)


def test_a_cosine_needs_elements_that_belong_together() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\), expected as many elements as gt_tensor"):
        utils.cosine_similarity(torch.ones(2), torch.ones(3))


def test_equal_results() -> None:
    x = torch.tensor([1.0, 2.0])
    near, far = x * (1 + 1e-3), x * 1.1
    assert utils.check_output_equal(x, near)
    assert not utils.check_output_equal(x, near, rtol=1e-5, atol=0)
    assert not utils.check_output_equal(x, x[None])
    assert not utils.check_output_equal(x, [x])
    assert utils.check_output_equal((x, {"a": [x]}), (near, {"a": [near]}))
    # Every element is looked at, and the bounds are those that were asked for.
    assert not utils.check_output_equal([x, x], [x, far])
    assert not utils.check_output_equal({"a": x, "b": x}, {"a": x, "b": far})
    assert not utils.check_output_equal([x, x], [x, near], rtol=1e-5, atol=0)
    assert not utils.check_output_equal([x], [x, x])
    assert utils.check_output_equal(3, 3) and not utils.check_output_equal(3, 4)


def test_inputs_and_their_example_tensors() -> None:
    x = torch.arange(4, dtype=torch.int32)
    dynamic = torch_tensorrt.Input(
        min_shape=(1, 3), opt_shape=(2, 3), max_shape=(4, 3), dtype=torch.half
    )
    structure = {"a": [x, (dynamic, None)], "b": 2.5}
    inputs = utils.prepare_inputs(structure)
    assert inputs["a"][0].dtype == torch_tensorrt.dtype.i32 and inputs["a"][0].shape == (4,)
    assert inputs["a"][1] == (dynamic, None) and inputs["b"] == 2.5
    examples = utils.get_torch_inputs(inputs, "cpu")
    assert examples["a"][0] is x or torch.equal(examples["a"][0], x)
    assert examples["a"][1][0].shape == (2, 3) and examples["a"][1][0].dtype is torch.half
    assert utils.get_torch_inputs([dynamic], torch.device("cpu"), "max_shape")[0].shape == (4, 3)
    named = namedtuple("named", ["x", "y"])(x, [dynamic])
    inputs = utils.prepare_inputs(named)
    assert type(inputs) is type(named) and inputs.x.shape == (4,) and inputs.y == [dynamic]
    assert type(utils.get_torch_inputs(inputs, "cpu")) is type(named)
    with pytest.raises(TypeError, match="inputs holds str"):
        utils.prepare_inputs(["x"])


def test_devices() -> None:
    assert utils.get_model_device(torch.nn.Linear(1, 1)) == torch.device("cpu")
    assert utils.get_model_device(torch.nn.ReLU()) == default_device().to(torch.device)
    assert utils.to_torch_device("cuda:1") == torch.device("cuda", 1)
    assert utils.to_torch_tensorrt_device(torch.device("cpu")) == torch_tensorrt.Device("cpu")
    with pytest.raises(RuntimeError, match="gpu_id is 99, expected the number of a GPU"):
        torch_tensorrt.set_device(99)


def test_settings_and_where_caches_are() -> None:
    settings = torch_tensorrt.dynamo.conversion.CompilationSettings()
    assert isinstance(settings, torch_tensorrt.dynamo.CompilationSettings)
    assert settings.timing_cache_path == TIMING_CACHE_PATH
    assert settings.engine_cache_dir == ENGINE_CACHE_DIR
    assert settings.min_block_size == MIN_BLOCK_SIZE
    assert torch_tensorrt.dynamo.Debugger().logging_dir == pathlib.Path(DEBUG_LOGGING_DIR)


@pytest.mark.parametrize("name", published_compiler.__all__)
def test_the_compiler_module_has_what_dynamo_has(name) -> None:
    assert getattr(published_compiler, name) is getattr(torch_tensorrt.dynamo, name)
