"""Modules on a GPU become engines for it, which give what PyTorch gives there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu.models import ConvNet, Lookup, Mixer, Recurrent

import kiln
import torch_tensorrt
from torch_tensorrt.runtime._modes import engines_of

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MODELS = {
    "mixer": (Mixer, (2, 10, 64)),
    "conv": (ConvNet, (2, 3, 32, 32)),
    "recurrent": (Recurrent, (2, 5, 16)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, dtype: torch.dtype, assert_near: Any) -> None:
    make, shape = MODELS[name]
    model = make().eval().cuda().to(dtype)
    x = torch.randn(shape, device="cuda", dtype=dtype)
    with torch.no_grad():
        expected = model(x)
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[x], min_block_size=1)
    for _ in range(4):  # run, captured, replayed
        assert_near(compiled(x), expected)
    for engine in engines_of(compiled).values():
        assert [program["target"] for program in kiln.inspect(engine.numpy())["programs"]] == [
            "cuda"
        ]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 32])
def test_dynamic_batch(batch: int, assert_near: Any) -> None:
    model = Mixer().eval().cuda()
    spec = torch_tensorrt.Input(
        min_shape=(1, 10, 64), opt_shape=(8, 10, 64), max_shape=(32, 10, 64)
    )
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[spec])
    x = torch.randn(batch, 10, 64, device="cuda")
    with torch.no_grad():
        assert_near(compiled(x), model(x))


def test_strided_inputs_and_offsets(assert_near: Any) -> None:
    """Inputs that are views: transposed, with gaps, and at odd addresses."""
    model = Mixer().eval().cuda()
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[torch.randn(2, 10, 64, device="cuda")]
    )
    base = torch.randn(2 * 10 * 64 + 1, device="cuda")
    views = [
        torch.randn(10, 2, 64, device="cuda").transpose(0, 1),
        torch.randn(2, 10, 128, device="cuda")[..., ::2],
        base[1:].view(2, 10, 64),
        torch.randn(1, 10, 64, device="cuda").expand(2, 10, 64),
    ]
    for x in views:
        with torch.no_grad():
            assert_near(compiled(x), model(x))


def test_channels_last_images_enter_as_they_lie(assert_near: Any) -> None:
    model = ConvNet().eval().cuda().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[x], min_block_size=1)
    (engine,) = engines_of(compiled).values()
    assert [each["shape"] for each in kiln.inspect(engine.numpy())["inputs"]] == ["[2, 32, 32, 3]"]
    with torch.no_grad():
        for image in (x, x.contiguous(), x.clone(memory_format=torch.channels_last)):
            assert_near(compiled(image), model(image))
        with torch_tensorrt.runtime.enable_cudagraphs(compiled) as captured:
            for _ in range(3):
                assert_near(captured(x), model(x))


def test_results_have_the_strides_of_eager() -> None:
    class Transposed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = (x * 2).contiguous(memory_format=torch.channels_last)
            return y + 1, (x + 1).transpose(1, 3)

    model = Transposed()
    x = torch.randn(2, 3, 4, 5, device="cuda")
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[x], min_block_size=1)
    for got, expected in zip(compiled(x), model(x), strict=True):
        assert got.stride() == expected.stride()
        assert torch.equal(got, expected)


def test_an_index_that_is_out_of_range_is_told_later() -> None:
    model = Lookup().eval().cuda()
    good = torch.tensor([0, 9, 3], device="cuda")
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[good], min_block_size=1)
    expected = model(good)
    for _ in range(3):
        compiled(torch.tensor([0, 10, 3], device="cuda"))
        torch.cuda.synchronize()
        with pytest.raises(IndexError, match="embedding"):
            compiled(good)
        assert torch.equal(compiled(good), expected)


def test_torch_compile(assert_near: Any) -> None:
    model = Mixer().eval().cuda()
    optimised = torch.compile(model, backend="torch_tensorrt", options={"min_block_size": 1})
    with torch.no_grad():
        for batch in (2, 2, 5):
            x = torch.randn(batch, 10, 64, device="cuda")
            assert_near(optimised(x), model(x))


def test_refit(assert_near: Any) -> None:
    old, new = Mixer().eval().cuda(), Mixer().eval().cuda()
    x = torch.randn(2, 10, 64, device="cuda")
    program = torch.export.export(old, (x,))
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=[x], immutable_weights=False)
    refitted = torch_tensorrt.dynamo.refit_module_weights(compiled, torch.export.export(new, (x,)))
    with torch.no_grad():
        assert_near(refitted(x), new(x))
        assert_near(compiled(x), old(x))


def test_mutable_module(assert_near: Any) -> None:
    model = Mixer().eval().cuda()
    mutable = torch_tensorrt.MutableTorchTensorRTModule(model, immutable_weights=False)
    x = torch.randn(2, 10, 64, device="cuda")
    other = Mixer().eval().cuda()
    with torch.no_grad():
        assert_near(mutable(x), model(x))
        mutable.load_state_dict(other.state_dict())
        assert_near(mutable(x), other(x))


def test_hardware_compatible() -> None:
    model = Lookup().eval().cuda()
    i = torch.tensor([1, 2], device="cuda")
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[i], min_block_size=1, hardware_compatible=True
    )
    (engine,) = engines_of(compiled).values()
    variants = {program["variant"] for program in kiln.inspect(engine.numpy())["programs"]}
    assert {"sm_80", "sm_90", "compute_90"} <= variants
    assert torch.equal(compiled(i), model(i))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_ptx_that_the_driver_compiles(name: str, dtype: torch.dtype, assert_near: Any) -> None:
    """What GPUs newer than all generations run, on this one."""
    make, shape = MODELS[name]
    model = make().eval().cuda().to(dtype)
    x = torch.randn(shape, device="cuda", dtype=dtype)
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[x], min_block_size=1, targets="cuda:compute_90"
    )
    for engine in engines_of(compiled).values():
        (program,) = kiln.inspect(engine.numpy())["programs"]
        assert program["variant"] == "compute_90"
    with torch.no_grad():
        for _ in range(4):
            assert_near(compiled(x), model(x))


def test_a_module_without_weights_runs_anywhere() -> None:
    """Nothing of it says where: scripts call it with CUDA tensors, and nothing is lost with others."""

    class Finite(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x.isinf(), 0.0, x)

    spec = torch_tensorrt.Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(4, 3))
    x = torch.tensor([[1.0, float("inf"), -2.0]])
    for device in (None, "cpu"):
        options = {} if device is None else {"device": torch_tensorrt.Device(device)}
        compiled = torch_tensorrt.compile(
            Finite().eval(), inputs=[spec], min_block_size=1, **options
        )
        for place in ("cpu",) if device else ("cuda", "cpu"):
            result = compiled(x.to(place))
            assert result.device.type == place
            assert result.equal(Finite()(x.to(place)))


@torch.no_grad()
def test_a_program_decomposed_for_the_gpu_is_one_engine(assert_near: Any) -> None:
    """Its attention is one of the kernels of PyTorch, which gives the state of random numbers too."""
    model = torch.nn.MultiheadAttention(64, 4, batch_first=True).eval().cuda().half()
    x = torch.randn(2, 10, 64, device="cuda", dtype=torch.float16)
    call = {"need_weights": False}
    program = torch.export.export(model, (x, x, x), call).run_decompositions()
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=[x, x, x], kwarg_inputs=call, require_full_compilation=True
    )
    assert_near(compiled(x, x, x, **call)[0], model(x, x, x, **call)[0])
