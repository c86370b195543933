"""float8_e4m3fn on a GPU: the same codes as on a CPU, conversions and moves alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frontend.test_float8 import (
    F8,
    WIDER,
    Cast,
    Moves,
    Quantised,
    ScaledProduct,
    all_codes,
    codes,
    compile_whole,
    numbers,
    scaled_product,
    to_float8,
)

import torch_tensorrt


@pytest.mark.parametrize("dtype", WIDER, ids=str)
def test_conversions(dtype: torch.dtype) -> None:
    x = numbers(dtype).cuda()
    got = compile_whole(Cast(F8), x)(x)
    assert got.device == x.device
    assert torch.equal(codes(got), codes(to_float8(x)))
    every = all_codes().cuda()
    back = compile_whole(Cast(dtype), every)(every)
    torch.testing.assert_close(back, every.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_what_is_moved_is_the_same_to_the_last_bit() -> None:
    x, index = all_codes().reshape(16, 16).cuda(), torch.tensor([3, 0, 7]).cuda()
    got = compile_whole(Moves(), x, index)(x, index)
    for mine, theirs in zip(got, Moves()(x, index), strict=True):
        assert torch.equal(codes(mine), codes(theirs))


@pytest.mark.parametrize("kind", ["exported_program", "torchscript", "aot_inductor"])
def test_quantised_models_in_every_format(kind: str, tmp_path: Any, assert_near: Any) -> None:
    model, x = Quantised(64, 32).cuda(), torch.randn(8, 64).cuda()
    compiled = compile_whole(model, x)
    assert_near(compiled(x), model(x))
    path = tmp_path / f"m.{'pt2' if kind == 'aot_inductor' else 'ep'}"
    torch_tensorrt.save(compiled, path, arg_inputs=[x], output_format=kind)
    loaded = torch_tensorrt.load(path)
    loaded = loaded.module() if kind == "exported_program" else loaded
    assert torch.equal(loaded(x), compiled(x))


@pytest.mark.parametrize("per_row", [False, True], ids=["tensor", "rows"])
def test_scaled_products(per_row: bool) -> None:
    model = ScaledProduct(per_row, False, torch.bfloat16).cuda()
    x = torch.randn(32, 64).to(F8).cuda()
    got, expected = compile_whole(model, x)(x), scaled_product(model, x)
    assert (got.double() - expected).norm() <= 4e-3 * expected.norm()
