"""Batch norm over the batch in 16 bits, and the running statistics that it leaves in the module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as fn
from models_small import engines_of

import torch_tensorrt

HALF = [torch.float16, torch.bfloat16]
MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "training": lambda: torch.nn.BatchNorm2d(5).train(),
    "training, not affine": lambda: torch.nn.BatchNorm2d(5, affine=False).train(),
    "no running statistics": lambda: torch.nn.BatchNorm2d(5, track_running_stats=False).eval(),
    "momentum": lambda: torch.nn.BatchNorm2d(5, momentum=0.7).train(),
    "instances": lambda: torch.nn.InstanceNorm2d(5, affine=True).eval(),
}


def one_engine(model: torch.nn.Module, args: list[torch.Tensor]) -> Any:
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", arg_inputs=args, min_block_size=1, require_full_compilation=True
    )
    assert len(engines_of(compiled)) == 1
    return compiled


def assert_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    a, b = got.double(), expected.double()
    assert torch.equal(a.isnan(), b.isnan())
    a, b = a.nan_to_num(), b.nan_to_num()
    assert (a - b).norm() <= 1e-2 * b.norm() + 1e-6


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("is_mixed", [False, True], ids=["16 bits", "parameters of f32"])
@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str, is_mixed: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model = MODULES[name]()
    model = model if is_mixed else model.to(dtype)
    x = (torch.randn(4, 5, 3, 6) * 3 + 1).to(dtype)
    eager = copy.deepcopy(model)
    compiled = one_engine(model, [x])
    with torch.no_grad():
        for scale in (1, 0.25):
            assert_close(compiled(x * scale), eager(x * scale))
    left = dict(compiled.named_buffers())
    for buffer, value in eager.named_buffers():
        assert_close(left[buffer], value)


class Statistics(torch.nn.Module):
    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> Any:
        weight, mean, var = others
        got = torch.ops.aten._native_batch_norm_legit_functional(
            x, weight, weight, mean, var, True, 0.1, 1e-5
        )
        return *got, got[1] * 2, got[3] + got[4]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("is_mixed", [False, True], ids=["16 bits", "parameters of f32"])
def test_statistics_as_results(dtype: torch.dtype, is_mixed: bool) -> None:
    torch.manual_seed(4)
    x = torch.randn(3, 4, 7).to(dtype)
    x[0, 1, 2] = float("nan")
    of = torch.float32 if is_mixed else dtype
    args = [x, *(torch.rand(4).to(of) + 0.5 for _ in range(3))]
    model = Statistics().eval()
    for got, expected in zip(one_engine(model, args)(*args), model(*args), strict=True):
        assert_close(got, expected)


class Functional(torch.nn.Module):
    def forward(self, x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return fn.batch_norm(x, mean.clone(), var.clone(), training=True)


@pytest.mark.parametrize("dtype", HALF)
def test_dynamic_batch(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    mean, var = torch.zeros(4).to(dtype), torch.ones(4).to(dtype)
    batch = torch_tensorrt.Input(
        min_shape=(2, 4, 3), opt_shape=(3, 4, 3), max_shape=(9, 4, 3), dtype=dtype
    )
    model = Functional().eval()
    compiled = one_engine(model, [batch, mean, var])
    for count in (2, 5, 9):
        x = torch.randn(count, 4, 3).to(dtype)
        assert_close(compiled(x, mean, var), model(x, mean, var))
