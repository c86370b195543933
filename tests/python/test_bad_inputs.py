"""Running a compiled module on what it was not compiled for: an error that says what is wrong, or the right result."""

from __future__ import annotations

import pytest
import torch
from models_small import batch_input, compile_all

import torch_tensorrt
from torch_tensorrt._operator import execute_engine


@pytest.fixture
def compiled(mlp):
    return compile_all(mlp, batch_input(2, 4, 32))


@pytest.mark.parametrize("batch", [1, 33])
def test_sizes_out_of_range(compiled, batch) -> None:
    with pytest.raises(RuntimeError) as error:
        compiled(torch.randn(batch, 16))
    text = str(error.value)
    for part in ("x", "dim 0", str(batch), "2", "32"):
        assert part in text


def test_fixed_sizes(compiled) -> None:
    with pytest.raises(RuntimeError, match=r"x.*dim 1.*17.*16"):
        compiled(torch.randn(4, 17))


def test_rank(compiled) -> None:
    with pytest.raises(RuntimeError, match=r"x.*3.*2"):
        compiled(torch.randn(2, 4, 16))


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float64, "f64"), (torch.int64, "i64"), (torch.bfloat16, "bf16")]
)
def test_dtype(compiled, dtype, name) -> None:
    with pytest.raises(RuntimeError, match=rf"x.*{name}.*f32"):
        compiled(torch.ones(4, 16, dtype=dtype))


def test_dtypes_that_engines_lack(compiled) -> None:
    with pytest.raises(RuntimeError, match="dtype that engines do not take"):
        compiled(torch.ones(4, 16, dtype=torch.complex64))


def test_count(compiled) -> None:
    x = torch.randn(4, 16)
    with pytest.raises(TypeError, match="argument"):
        compiled(x, x)
    with pytest.raises(TypeError, match="'x'"):
        compiled()
    for inputs in ([], [x, x]):
        with pytest.raises(RuntimeError, match=rf"{len(inputs)}.*1"):
            execute_engine(inputs, compiled.engine_0, "f32[i0_0,8]")


def test_empty_batch(mlp, compiled) -> None:
    with pytest.raises(RuntimeError, match=r"x.*dim 0.*0"):
        compiled(torch.randn(0, 16))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: torch.cat([x, x], 1)[:, ::2],
        lambda x: x[:1].expand(x.shape),
        lambda x: torch.cat([x, x])[1::2],
        lambda x: torch.cat([torch.zeros(1, 16), x])[1:],
    ],
    ids=["transposed", "strided", "expanded", "skipping rows", "offset"],
)
def test_strided_inputs(mlp, compiled, assert_same, make) -> None:
    x = make(torch.randn(6, 16))
    assert_same(compiled(x), mlp(x))


def test_unaligned_inputs(mlp, compiled, assert_same) -> None:
    x = torch.randn(4 * 16 + 1)[1:].reshape(4, 16)
    assert x.data_ptr() % 64
    assert_same(compiled(x), mlp(x))


def test_channels_last_images(assert_same) -> None:
    model = torch.nn.Conv2d(3, 8, 3, padding=1).eval()
    x = torch.randn(2, 3, 8, 8)
    compiled = compile_all(model, x)
    assert_same(compiled(x.to(memory_format=torch.channels_last)), model(x))


def test_inputs_that_need_gradients(mlp, compiled, assert_same) -> None:
    x = torch.randn(4, 16, requires_grad=True)
    with torch.no_grad():
        assert_same(compiled(x), mlp(x))


class Switched(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, negate: bool, times: int = 2, y: torch.Tensor | None = None
    ) -> torch.Tensor:
        result = x * times if y is None else x * times + y
        return -result if negate else result


def test_values_that_are_not_tensors_are_constants(assert_same) -> None:
    model = Switched().eval()
    x = torch.randn(3, 4)
    compiled = compile_all(model, x, True, 3, None)
    assert_same(compiled(x, True, 3, None), model(x, True, 3))
    for wrong in ((x, False, 3, None), (x, True, 2, None), (x, 1, 3, None), (x, True, 3, 0)):
        with pytest.raises(ValueError, match="compiled for"):
            compiled(*wrong)
    for call in (lambda: compiled(x), lambda: compiled(x, True, 3, None, x)):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize(
    "options", [{"min_block_size": 100}, {"torch_executed_ops": {"aten.linear"}}]
)
def test_inputs_that_only_pytorch_sees(mlp, assert_same, options) -> None:
    compiled = torch_tensorrt.compile(mlp, "dynamo", [batch_input(2, 4, 32)], **options)
    x = torch.randn(5, 16)
    assert_same(compiled(x), mlp(x))
    for wrong, text in (
        (torch.randn(33, 16), "'x' dim 0: got 33, expected 2..32"),
        (torch.randn(5, 17), "'x' dim 1: got 17, expected 16"),
        (torch.randn(16), "got 1 dimensions, expected 2"),
        (x.double(), "got torch.float64, expected torch.float32"),
    ):
        with pytest.raises(RuntimeError, match=text):
            compiled(wrong)
    with pytest.raises(TypeError, match="'x' is int, expected a tensor"):
        compiled(3)


def test_tensors_without_memory(compiled) -> None:
    assert compiled(torch.empty(4, 16, device="meta")).shape == (4, 8)
