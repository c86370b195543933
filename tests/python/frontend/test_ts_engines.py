"""`ts.convert_method_to_trt_engine`, `ts.embed_engine_in_new_module`, `ts.check_method_op_support`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from models_small import Counter, Mlp, SortInTheMiddle, batch_input

import kiln
from torch_tensorrt import Input, ts

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch_tensorrt.ts:DeprecationWarning"),
]

ROWS = [
    Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(8, 4), name=name, shared_dims={0: "rows"})
    for name in ("x", "y")
]


class TwoOfEach(torch.nn.Module):
    """Results in another order than they are computed in, one of them twice."""

    def forward(
        self, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        first = x - y
        second = torch.cat([first, x], 0).exp()
        return second, first, second

    @torch.jit.export
    def halve(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


@pytest.fixture
def engine() -> bytes:
    return ts.convert_method_to_trt_engine(TwoOfEach().eval(), inputs=ROWS)


@pytest.mark.parametrize("script", [False, True])
def test_convert(mlp, script) -> None:
    data = ts.convert_method_to_trt_engine(
        torch.jit.script(mlp) if script else mlp, inputs=[batch_input()]
    )
    assert isinstance(data, bytes)
    x = torch.randn(5, 16)
    (result,) = kiln.Engine(data).session().run(x.numpy())
    torch.testing.assert_close(torch.from_numpy(result), mlp(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("script", [False, True])
def test_other_methods(script) -> None:
    model = TwoOfEach().eval()
    module = torch.jit.script(model) if script else model
    data = ts.convert_method_to_trt_engine(module, "halve", [torch.ones(2, 4)])
    (result,) = kiln.Engine(data).session().run(torch.ones(2, 4).numpy())
    assert (result == 0.5).all()
    with pytest.raises(AttributeError, match="third"):
        ts.convert_method_to_trt_engine(module, "third", [torch.ones(2, 4)])


def test_what_an_engine_cannot_take() -> None:
    with pytest.raises(RuntimeError, match=r"cannot be in an engine, .*:\n.*tanh_backward"):
        ts.convert_method_to_trt_engine(SortInTheMiddle().eval(), inputs=[batch_input()])
    with pytest.raises(RuntimeError, match="changes calls"):
        ts.convert_method_to_trt_engine(Counter().eval(), inputs=[batch_input()])


def test_embed(engine, tmp_path, assert_same) -> None:
    module = ts.embed_engine_in_new_module(engine, device="cpu")
    assert isinstance(module, torch.jit.ScriptModule)
    torch.jit.save(module, tmp_path / "m.ts")
    for each in (module, torch.jit.load(tmp_path / "m.ts"), torch.jit.freeze(module)):
        for rows in (1, 5, 8):
            x, y = torch.randn(rows, 4), torch.randn(rows, 4)
            assert_same(each(x, y), TwoOfEach()(x, y))
    with pytest.raises(RuntimeError, match="dim 0.*9"):
        module(torch.randn(9, 4), torch.randn(9, 4))


def test_embed_one_result(mlp, assert_same) -> None:
    module = ts.embed_engine_in_new_module(
        ts.convert_method_to_trt_engine(mlp, inputs=[batch_input()])
    )
    x = torch.randn(3, 16)
    assert_same(module(x), mlp(x))


def test_binding_names_give_the_order(engine, assert_same) -> None:
    outputs = [info.name for info in kiln.Engine(engine).outputs]
    module = ts.embed_engine_in_new_module(engine, ["y", "x"], outputs[::-1])
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    assert_same(module(y, x), TwoOfEach()(x, y)[::-1])
    assert_same(module(x=x, y=y), TwoOfEach()(x, y)[::-1])


class Wide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4096, 4096))  # 64 MiB

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mm(x, self.weight)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_weights_are_used_where_they_are() -> None:
    """Memory that is not aligned to 64 bytes would be copied by whatever loads the engine."""
    data = ts.convert_method_to_trt_engine(Wide().eval(), inputs=[torch.ones(1, 4096)])
    assert len(data) > 64 << 20
    module = ts.embed_engine_in_new_module(data)
    assert module.engine_0.data_ptr() % 64 == 0
    before = resident_bytes()
    module(torch.ones(1, 4096))
    assert resident_bytes() - before < 32 << 20


def test_binding_names_are_checked(engine) -> None:
    for names in (["x"], ["x", "x"], ["x", "z"], ["x", "y", "z"], []):
        with pytest.raises(ValueError, match=r"input_binding_names is .*are \['x', 'y'\]"):
            ts.embed_engine_in_new_module(engine, names)
    with pytest.raises(ValueError, match="output_binding_names is"):
        ts.embed_engine_in_new_module(engine, None, ["x"])


def test_bad_engines_and_devices(engine) -> None:
    with pytest.raises(kiln.InvalidEngineError):
        ts.embed_engine_in_new_module(engine[:100])
    with pytest.raises(ValueError, match="engines run on the CPU"):
        ts.embed_engine_in_new_module(engine, device="cuda:0")


def test_embedded_shapes_are_known_to_exporters(engine) -> None:
    """The spec that the module carries says what the engine gives."""
    from torch_tensorrt._operator import execute_engine
    from torch_tensorrt.runtime._spec import spec_of

    spec = spec_of(kiln.Engine(engine).describe())
    meta = [torch.empty(3, 4, device="meta")] * 2
    results = execute_engine(meta, torch.empty(9, dtype=torch.uint8, device="meta"), spec)
    assert [tuple(each.shape) for each in results] == [(6, 4), (3, 4), (6, 4)]


def test_check_method_op_support(mlp) -> None:
    assert ts.check_method_op_support(mlp)
    assert ts.check_method_op_support(torch.jit.script(Mlp().eval()))
    assert ts.check_method_op_support(torch.jit.trace(mlp, torch.randn(2, 16)))
    assert not ts.check_method_op_support(SortInTheMiddle().eval())
    assert ts.check_method_op_support(torch.jit.script(TwoOfEach().eval()), "halve")
    with pytest.raises(AttributeError, match="third"):
        ts.check_method_op_support(mlp, "third")
