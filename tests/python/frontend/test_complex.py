"""Complex tensors in engines, and at their boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import torch_tensorrt
from torch_tensorrt._operator import engine_calls


class Rotary(torch.nn.Module):
    """A table of complex numbers as a buffer, as in LLaMA's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.polar(torch.ones(8, 4), torch.randn(8, 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.table[: x.shape[1]]).flatten(2)


class Across(torch.nn.Module):
    """Complex numbers in, and complex and real ones out."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        spectrum = torch.fft.fft(x) * y
        return spectrum, spectrum.abs(), spectrum.transpose(0, 1).conj()


def compiled(module: torch.nn.Module, *inputs: torch.Tensor, **options: Any) -> torch.nn.Module:
    program = torch.export.export(module.eval(), inputs, **options)
    return torch_tensorrt.dynamo.compile(
        program, min_block_size=1, require_full_compilation=True, arg_inputs=list(inputs)
    )


def assert_close(got: Any, expected: Any) -> None:
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_complex_buffer_is_a_weight() -> None:
    module, x = Rotary(), torch.randn(2, 8, 8)
    assert_close([compiled(module, x)(x)], [module(x)])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_engines_take_and_give_complex_tensors_as_their_parts(dtype: torch.dtype) -> None:
    module = Across()
    x, y = torch.randn(3, 6, dtype=dtype), torch.randn(6, dtype=dtype)
    result = compiled(module, x, y)
    assert len(engine_calls(result.graph)) == 1
    assert_close(result(x, y), module(x, y))
    # Views that PyTorch conjugates lazily, and other strides.
    assert_close(result(x.t().contiguous().t().conj(), y.conj()), module(x.conj(), y.conj()))


@pytest.mark.parametrize("container", ["exported_program", "torchscript"])
def test_complex_tensors_are_saved(tmp_path: Path, container: str) -> None:
    module = Across()
    inputs = (torch.randn(3, 6, dtype=torch.complex64), torch.randn(6, dtype=torch.complex64))
    path = str(tmp_path / "model")
    torch_tensorrt.save(
        compiled(module, *inputs), path, output_format=container, arg_inputs=list(inputs)
    )
    loaded = torch_tensorrt.load(path)
    loaded = loaded.module() if hasattr(loaded, "module") else loaded
    assert_close(loaded(*inputs), module(*inputs))


def test_an_operator_outside_sees_complex_numbers() -> None:
    class Mixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values, _ = torch.linalg.eig(x)  # which engines do not have
            return (values * 2).abs()

    module, x = Mixed(), torch.randn(4, 4)
    program = torch.export.export(module, (x,))
    result = torch_tensorrt.dynamo.compile(program, arg_inputs=[x], min_block_size=1)
    assert len(engine_calls(result.graph)) == 1
    assert_close([result(x)], [module(x)])


def test_other_sizes_of_a_spectrogram() -> None:
    class Spectrogram(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            window = torch.hann_window(16)
            return torch.stft(x, 16, 4, window=window, return_complex=True).abs()

    module, x = Spectrogram(), torch.randn(2, 64)
    sizes = {0: torch.export.Dim("batch", max=4), 1: torch.export.Dim("length", min=32, max=128)}
    program = torch.export.export(module, (x,), dynamic_shapes=({0: sizes[0], 1: sizes[1]},))
    ranges = torch_tensorrt.Input(min_shape=(1, 32), opt_shape=(2, 64), max_shape=(4, 128))
    result = torch_tensorrt.dynamo.compile(
        program, arg_inputs=[ranges], min_block_size=1, require_full_compilation=True
    )
    for shape in ((2, 64), (1, 33), (4, 128)):
        x = torch.randn(shape)
        assert_close([result(x)], [module(x)])


def test_large_powers_of_complex64_keep_their_digits() -> None:
    class Powers(torch.nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> Any:
            return x**w, x**17.75, (8.6 - 2j) ** w

    x = torch.tensor([8.6 + 6.7j, 0.3 - 9j, -8 - 8j, 1 + 1j])
    w = torch.tensor([13.5 - 2j, 14 + 7j, 9.25j, -12.5])
    exact = [
        y.to(torch.complex64) for y in Powers()(x.to(torch.complex128), w.to(torch.complex128))
    ]
    for got, expected in zip(compiled(Powers(), x, w)(x, w), exact, strict=True):
        assert ((got - expected).abs() <= 3e-7 * expected.abs()).all(), (got, expected)
