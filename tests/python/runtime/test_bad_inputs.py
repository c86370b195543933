"""Running a compiled module on what it was not compiled for: an error that says what is wrong, or the right result."""

from __future__ import annotations

import pytest
import torch
from models_small import batch_input, compile_all

import kiln
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


def deep(rank: int) -> torch.Tensor:
    return torch.arange(2 * 3.0).reshape((2,) + (1,) * (rank - 2) + (3,))


class Doubled(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x) * 2


class ThroughRank17(torch.nn.Module):
    """Only in between: small tensors go in and come out."""

    def forward(self, x):
        return torch.relu(x.reshape((2,) + (1,) * 15 + (3,)) * 2).reshape(2, 3) + 1


@pytest.mark.parametrize("rank", [15, 16, 17, 20])
def test_tensors_of_more_than_16_dimensions_stay_in_pytorch(rank, assert_same):
    x = deep(rank)
    compiled = torch_tensorrt.compile(Doubled(), ir="dynamo", arg_inputs=[x], min_block_size=1)
    assert_same(compiled(x), Doubled()(x))
    in_engines = any("execute_engine" in str(node.target) for node in compiled.graph.nodes)
    assert in_engines == (rank <= 16)


def test_rank_17_in_between_is_right(assert_same):
    x = torch.randn(2, 3)
    model = ThroughRank17()
    compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[x], min_block_size=1)
    assert_same(compiled(x), model(x))


@pytest.mark.parametrize("rank", [16, 17])
def test_kiln_says_how_many_dimensions_there_may_be(rank, tmp_path):
    torch.export.save(torch.export.export(Doubled(), (deep(rank),)), tmp_path / "m.pt2")
    if rank <= 16:
        session = kiln.load(kiln.compile(tmp_path / "m.pt2")).session()
        assert session.run(deep(rank).numpy())[0].shape == deep(rank).shape
        return
    with pytest.raises(kiln.KilnError, match="got 17 dimensions for x, expected at most 16"):
        kiln.compile(tmp_path / "m.pt2")
    reasons = [node.reason for node in kiln.Model.open(tmp_path / "m.pt2").check()]
    assert all("at most 16" in reason for reason in reasons)


def test_json_that_is_nested_too_deep_is_no_saved_model(tmp_path):
    import zipfile

    for text in ('{"a":' * 100000 + "1" + "}" * 100000, "[" * 3000 + "]" * 3000):
        with zipfile.ZipFile(tmp_path / "deep.ep", "w") as archive:
            archive.writestr("deep/models/model.json", text)
            archive.writestr("deep/archive_format", "pt2")
            archive.writestr("deep/archive_version", "0")
        with pytest.raises(ValueError, match="doesn't correspond to a valid ExportedProgram"):
            torch_tensorrt.load(str(tmp_path / "deep.ep"))
