"""torch.nn.attention.flex_attention in engines: functions on scores, masks, and what is captured by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models_small import compile_all, engines_of
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

import kiln
import torch_tensorrt

LENGTH, HEADS, SIZE = 128, 4, 16


class Attention(torch.nn.Module):
    """flex_attention of heads that a linear layer makes; `groups` heads of keys and values."""

    def __init__(self, groups: int = HEADS, **options: Any) -> None:
        super().__init__()
        self.groups, self.options = groups, options
        self.project = torch.nn.Linear(HEADS * SIZE, (HEADS + 2 * groups) * SIZE)
        self.slopes = torch.nn.Parameter(torch.rand(HEADS))
        self.documents = torch.nn.Buffer(torch.arange(LENGTH) // 50)
        self.table = torch.nn.Parameter(torch.randn(HEADS, 32))
        self.rows = torch.nn.Parameter(torch.randn(HEADS, LENGTH, 3))

    def forward(self, x: torch.Tensor) -> Any:
        batch, length, _ = x.shape
        parts = self.project(x).view(batch, length, -1, SIZE).transpose(1, 2)
        q, k, v = parts.split([HEADS, self.groups, self.groups], dim=1)
        y = self.attend(q, k, v)
        return y.transpose(1, 2).flatten(2) if isinstance(y, torch.Tensor) else y

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        options = {"enable_gqa": self.groups != HEADS} | self.options
        return flex_attention(q, k, v, **options)

    def alibi(self, score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return score + self.slopes[h] * (kv - q)

    def bucketed(self, score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return score + self.table[h, torch.clamp(q - kv, 0, 31)]

    def softcapped(self, score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return 5 * torch.tanh(score / 5)

    def summed(self, score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return score + self.rows[h, kv].sum() * (b + 1)

    def with_constants(self, score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        biased = score + torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=score.dtype)[h]
        return torch.where(q >= kv, biased, torch.tensor(-float("inf"), dtype=score.dtype))

    def below_a_constant(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (kv < torch.tensor(77)) & (q != torch.tensor(3))

    def causal(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return q >= kv

    def same_document(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return self.documents[q] == self.documents[kv]

    def window(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q >= kv) & (q - kv < 20)

    def some_rows(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q % 3 > 0) & (kv < 77) & (h < 3)


def masked(name: str) -> Callable[[], Attention]:
    def make() -> Attention:
        model = Attention()
        method = getattr(model, name)  # a mask has to be a function
        block_mask = create_block_mask(
            lambda b, h, q, kv: method(b, h, q, kv), None, HEADS, LENGTH, LENGTH, device="cpu"
        )
        model.options["block_mask"] = block_mask
        return model

    return make


def scored(name: str, **options: Any) -> Callable[[], Attention]:
    def make() -> Attention:
        model = Attention(**options)
        model.options["score_mod"] = getattr(model, name)
        return model

    return make


MODELS = {
    "plain": Attention,
    "of a scale": lambda: Attention(scale=0.7),
    "of grouped heads": lambda: Attention(groups=2),
    "of one head of keys": lambda: Attention(groups=1),
    "alibi": scored("alibi"),
    "alibi of grouped heads": scored("alibi", groups=2),
    "buckets": scored("bucketed"),
    "softcap": scored("softcapped"),
    "sums of rows": scored("summed"),
    "constants": scored("with_constants"),
    "mask of constants": masked("below_a_constant"),
    "causal": masked("causal"),
    "documents": masked("same_document"),
    "window": masked("window"),
    "rows and heads that see nothing": masked("some_rows"),
}
ONE_KERNEL = ["plain", "of a scale", "alibi", "buckets", "causal", "documents", "of grouped heads"]


def make(name: str, dtype: torch.dtype = torch.float32) -> tuple[Attention, torch.Tensor]:
    torch.manual_seed(7)
    torch._dynamo.reset()  # eager flex_attention of PyTorch 2.11 takes what it compiled for another score_mod
    model = MODELS[name]().eval().requires_grad_(False).to(dtype)
    return model, torch.randn(2, LENGTH, HEADS * SIZE, dtype=dtype)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_is_in_one_engine(name: str, dtype: torch.dtype) -> None:
    model, x = make(name, dtype)
    compiled = compile_all(model, x, require_full_compilation=True)
    assert len(engines_of(compiled)) == 1
    got, expected = compiled(x).double(), model(x).double()
    bound = {torch.float32: 1e-5, torch.float64: 1e-12}.get(dtype, 1e-2)
    assert (got - expected).norm() <= bound * expected.norm()
    assert (got - expected).abs().max() <= 4 * bound * expected.abs().max()


class Layers(torch.nn.Module):
    """Several calls, of which two have functions with constants of their own."""

    def __init__(self) -> None:
        super().__init__()
        names = ("constants", "mask of constants", "alibi", "constants")
        self.layers = torch.nn.ModuleList(MODELS[name]() for name in names)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_layers_are_saved(tmp_path: Path) -> None:
    torch._dynamo.reset()
    model, x = Layers().eval().requires_grad_(False), torch.randn(2, LENGTH, HEADS * SIZE)
    compiled = compile_all(model, x, require_full_compilation=True)
    torch_tensorrt.save(compiled, tmp_path / "model.ep", arg_inputs=[x])
    loaded = torch_tensorrt.load(tmp_path / "model.ep").module()
    expected = x
    for layer in model.layers:
        torch._dynamo.reset()  # as in make
        expected = expected + layer(expected)
    for module in (compiled, loaded):
        torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ONE_KERNEL)
def test_is_one_kernel(name: str, dtype: torch.dtype) -> None:
    model, x = make(name, dtype)
    program = torch.export.export(model, (x,))
    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=[x]
    )
    kinds = [kernel["kind"] for kernel in kiln.inspect(bytes(engine))["kernels"]]
    assert kinds.count("attention") == 1 and kinds.count("matmul") == 1, kinds


def test_sizes_may_vary() -> None:
    model, x = make("alibi")
    batch = torch.export.Dim("batch", max=8)  # flex_attention fixes the length when it is exported
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    compiled = torch_tensorrt.dynamo.compile(program, require_full_compilation=True)
    for size in (2, 1, 8):
        x = torch.randn(size, LENGTH, HEADS * SIZE)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["softcap", "rows and heads that see nothing"])
def test_logarithms_of_sums(name: str) -> None:
    model, x = make(name)
    model.options["return_aux"] = AuxRequest(lse=True)
    compiled = compile_all(model, x, require_full_compilation=True)
    (got, aux), (expected, expected_aux) = compiled(x), model(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(aux.lse, expected_aux.lse, rtol=1e-4, atol=1e-5)


def test_torch_compile() -> None:
    model, x = make("alibi")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="torch_tensorrt", options={"min_block_size": 1})
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_it_stays_in_pytorch_where_it_cannot_be_traced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def vmap(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no vectors today")

    model, x = make("alibi")
    expected = model(x)
    program = torch.export.export(model, (x,))
    monkeypatch.setattr(torch, "vmap", vmap)
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=[x], min_block_size=1)
    monkeypatch.undo()
    assert "no vectors today" in caplog.text
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)


def test_it_may_stay_in_pytorch() -> None:
    model, x = make("alibi")
    compiled = compile_all(model, x, torch_executed_ops={"torch.ops.higher_order.flex_attention"})
    assert any("flex_attention" in str(node.target) for node in compiled.graph.nodes)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["causal", "softcap"])
def test_values_that_are_not_finite(name: str) -> None:
    model, x = make(name)
    for value in (float("nan"), float("inf"), -float("inf"), 3e38):
        y = x.clone()
        y[0, 5, 3] = value
        got = compile_all(model, x, require_full_compilation=True)(y)
        torch.testing.assert_close(got, model(y), rtol=1e-4, atol=1e-5, equal_nan=True)


def test_weights_may_change() -> None:
    model, x = make("alibi")
    program = torch.export.export(model, (x,))
    compiled = torch_tensorrt.dynamo.compile(
        program, require_full_compilation=True, immutable_weights=False
    )
    other, _ = make("alibi")
    for parameter in other.parameters():
        parameter.mul_(0.5)
    new = torch_tensorrt.dynamo.refit_module_weights(
        compiled, torch.export.export(other, (x,)), arg_inputs=[x]
    )
    torch.testing.assert_close(new(x), other(x), rtol=1e-4, atol=1e-5)
