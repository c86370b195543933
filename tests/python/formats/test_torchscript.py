"""TorchScript: `save(output_format="torchscript")`, `load`, torch.jit's own functions on compiled modules."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
import zipfile
from typing import Any

import pytest
import torch
from models_small import (
    Counter,
    KeywordArguments,
    Mlp,
    NestedInputs,
    NestedResults,
    SortInTheMiddle,
    batch_input,
    compile_all,
)

import torch_tensorrt
from torch_tensorrt import Input

# What torch.jit says of itself when the tests call it; our own calls are tested for silence.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def save_and_load(module: Any, path: Any, **arguments: Any) -> Any:
    torch_tensorrt.save(module, path, output_format="torchscript", **arguments)
    return torch_tensorrt.load(path)


@pytest.mark.parametrize("name", ["model.ts", "model.ep", "model"])
def test_static(mlp, tmp_path, assert_same, name) -> None:
    x = torch.randn(4, 16)
    loaded = save_and_load(compile_all(mlp, x), tmp_path / name, arg_inputs=[x])
    assert isinstance(loaded, torch.jit.ScriptModule)
    assert loaded.module() is loaded
    assert_same(loaded(x), mlp(x))
    assert_same(loaded.module()(x), mlp(x))
    assert_same(torch.jit.load(tmp_path / name)(x), mlp(x))
    assert [path.name for path in tmp_path.iterdir()] == [name]


# Reshapes stay in PyTorch, and so does the arithmetic on sizes that they need.
SIZES_IN_PYTORCH = {"torch_executed_ops": {"aten.view"}}


@pytest.mark.parametrize("arguments", [{"arg_inputs": [batch_input()]}, {}])
@pytest.mark.parametrize("options", [{}, SIZES_IN_PYTORCH])
@pytest.mark.parametrize("model", [Mlp, SortInTheMiddle])
def test_dynamic(tmp_path, assert_same, model, options, arguments) -> None:
    module = model().eval()
    compiled = compile_all(module, batch_input(), **options)
    loaded = save_and_load(compiled, tmp_path / "m.ts", **arguments)
    for batch in (1, 5, 32):
        x = torch.randn(batch, 16)
        assert_same(loaded(x), module(x))
    with pytest.raises(RuntimeError, match=r"x.*dim 0.*33.*1.*32"):
        loaded(torch.randn(33, 16))


def test_several_engines_and_pytorch(tmp_path, assert_same) -> None:
    module = SortInTheMiddle().eval()
    loaded = save_and_load(compile_all(module, batch_input()), tmp_path / "m.ts")
    code = loaded.code
    assert code.count("execute_engine") == 2
    assert "tanh_backward" in code


def test_keyword_inputs(tmp_path, assert_same) -> None:
    model = KeywordArguments().eval()
    x, named = torch.randn(3, 4), {"shift": torch.randn(3, 1), "scale": torch.randn(4)}
    compiled = compile_all(model, x, kwarg_inputs=named)
    loaded = save_and_load(compiled, tmp_path / "m.ts", arg_inputs=[x], kwarg_inputs=named)
    assert_same(loaded(x, **named), model(x, **named))
    assert_same(loaded(x, scale=named["scale"], shift=named["shift"]), model(x, **named))


def test_nested_inputs(tmp_path, assert_same) -> None:
    model = NestedInputs().eval()
    pair, named = [torch.randn(3, 4), torch.randn(3, 4)], {"bias": torch.randn(4)}
    loaded = save_and_load(compile_all(model, pair, named), tmp_path / "m.ts")
    assert_same(loaded(pair, named), model(pair, named))


class Results(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        a, b = x + 1, x.mean(-1)
        return {
            "tuple": (a, b),
            "list": [a, b],
            "dict": {"a": a, "b": b},
            "nested": ((a, [b, b]), {"x": x}),
            "nothing": (a, None),
            "one": (a,),
        }[self.kind]


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "nested", "nothing", "one"])
def test_results(tmp_path, assert_same, kind) -> None:
    model = Results(kind).eval()
    loaded = save_and_load(compile_all(model, batch_input()), tmp_path / "m.ts")
    x = torch.randn(3, 16)
    assert_same(loaded(x), model(x))


def test_results_of_several_types(tmp_path, assert_same) -> None:
    model = NestedResults().eval()
    loaded = save_and_load(compile_all(model, torch.randn(3, 4)), tmp_path / "m.ts")
    x = torch.randn(3, 4)
    assert_same(loaded(x), model(x))


@dataclasses.dataclass
class Pair:
    first: torch.Tensor
    second: torch.Tensor


torch.export.register_dataclass(Pair, serialized_type_name="test_torchscript.Pair")


class DataclassResult(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Pair:
        return Pair(x + 1, x * 2)


def test_results_that_torchscript_lacks(tmp_path) -> None:
    compiled = compile_all(DataclassResult().eval(), batch_input())
    for inputs in (None, [batch_input()]):
        with pytest.raises(ValueError, match=r"TorchScript cannot express.*exported_program"):
            save_and_load(compiled, tmp_path / "m.ts", arg_inputs=inputs)
    assert not list(tmp_path.iterdir())


def test_changing_buffers(tmp_path) -> None:
    x = torch.randn(2, 16)
    loaded = save_and_load(compile_all(Counter().eval(), x), tmp_path / "m.ts", arg_inputs=[x])
    for call in (1, 2, 3):
        torch.testing.assert_close(loaded(x), x * 2 + call)


class Constants(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, negate: bool, times: int, y: torch.Tensor | None, v1: str
    ) -> torch.Tensor:
        result = x * times if y is None else x * times + y
        return -result if negate else result


def test_values_that_are_not_tensors_are_constants(tmp_path, assert_same) -> None:
    x = torch.randn(3, 4)
    loaded = save_and_load(
        compile_all(Constants().eval(), x, True, 3, None, "{}"), tmp_path / "m.ts"
    )
    assert_same(loaded(x, True, 3, None, "{}"), -3 * x)
    for wrong in (
        (False, 3, None, "{}"),
        (True, 2, None, "{}"),
        (True, 3, x, "{}"),
        (True, 3, None, ""),
    ):
        with pytest.raises(Exception, match="not what the model was compiled for"):
            loaded(x, *wrong)


def test_inputs_that_only_pytorch_sees(mlp, tmp_path, assert_same) -> None:
    compiled = torch_tensorrt.compile(mlp, "dynamo", [batch_input(2, 4, 32)], min_block_size=100)
    loaded = save_and_load(compiled, tmp_path / "m.ts")
    x = torch.randn(5, 16)
    assert_same(loaded(x), mlp(x))
    for wrong, text in (
        (torch.randn(33, 16), r"x: dim 0: expected 2\.\.32"),
        (torch.randn(5, 17), "x: dim 1: expected 16"),
        (torch.randn(16), "expected 2 dimensions"),
        (x.double(), "expected torch.float32"),
    ):
        with pytest.raises(Exception, match=text):
            loaded(wrong)


class Branches(torch.nn.Module):
    """Control flow that depends on values; sizes inside."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.randn(16))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def double(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return y * 2 * self.scale, y.reshape(y.shape[0] * 2, -1).sum(0)

        def negate(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return -y, y.reshape(y.shape[0] * 2, -1).exp().sum(0)

        a, b = torch.cond(x.sum() > 0, double, negate, (torch.tanh(x),))
        return a + 1, b


def test_branches(tmp_path, assert_same) -> None:
    model = Branches().eval()
    compiled = compile_all(model, batch_input(), torch_executed_ops={torch.ops.higher_order.cond})
    loaded = save_and_load(compiled, tmp_path / "m.ts")
    with torch.no_grad():
        for x in (torch.rand(3, 16), -torch.rand(5, 16)):
            assert_same(loaded(x), model(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.half(),
        lambda m: m.to("cpu"),
        lambda m: m.to(torch.float64),
        torch.jit.freeze,
        lambda m: torch.jit.optimize_for_inference(torch.jit.freeze(m)),
        lambda m: m.eval().train().eval(),
    ],
    ids=["half", "to device", "to dtype", "freeze", "optimize", "train"],
)
def test_changed_modules_run(mlp, tmp_path, assert_same, change) -> None:
    loaded = change(save_and_load(compile_all(mlp, batch_input()), tmp_path / "m.ts"))
    for batch in (2, 7):
        x = torch.randn(batch, 16)
        assert_same(loaded(x), mlp(x))


def test_saving_what_was_loaded(tmp_path, assert_same, caplog) -> None:
    module = SortInTheMiddle().eval()
    loaded = save_and_load(compile_all(module, batch_input()), tmp_path / "a.ts")
    again = save_and_load(loaded, tmp_path / "b.ts")
    torch_tensorrt.save(loaded, tmp_path / "c.ts", output_format="torchscript", inputs=[3])
    assert "is not necessary" in caplog.text
    x = torch.randn(3, 16)
    assert_same(again(x), module(x))


def test_programs_that_were_loaded(tmp_path, assert_same) -> None:
    """From .ep to .ts, through all that `.module()` may be."""
    module = SortInTheMiddle().eval()
    torch_tensorrt.save(compile_all(module, batch_input()), tmp_path / "m.ep")
    x = torch.randn(3, 16)
    for loaded in (
        torch_tensorrt.load(tmp_path / "m.ep").module(),
        torch.export.load(tmp_path / "m.ep").module(),
    ):
        assert_same(save_and_load(loaded, tmp_path / "m.ts")(x), module(x))


def test_graphs_of_other_things_are_traced(mlp, tmp_path, assert_same) -> None:
    x = torch.randn(3, 16)
    module = torch.fx.symbolic_trace(mlp)
    with pytest.raises(ValueError, match="give arg_inputs"):
        save_and_load(module, tmp_path / "m.ts")
    assert_same(save_and_load(module, tmp_path / "m.ts", arg_inputs=[x])(x), mlp(x))
    named = {"x": x}
    assert_same(save_and_load(module, tmp_path / "m.ts", kwarg_inputs=named)(**named), mlp(x))


def test_extra_files(mlp, tmp_path) -> None:
    torch_tensorrt.save(
        compile_all(mlp, batch_input()),
        tmp_path / "m.ts",
        output_format="torchscript",
        extra_files={"note": "hello", "data": b"\0\1"},
    )
    files = {"note": "", "data": ""}
    torch_tensorrt.load(tmp_path / "m.ts", extra_files=files)
    assert files == {"note": b"hello", "data": b"\0\1"}


def test_no_warnings(mlp, tmp_path, caplog, recwarn) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = save_and_load(compile_all(mlp, batch_input()), tmp_path / "m.ts")
        loaded(torch.randn(2, 16))
    assert not [record for record in caplog.records if record.levelno >= 30]


def test_the_engine_is_stored_once(tmp_path) -> None:
    compiled = compile_all(torch.nn.Linear(512, 512).eval(), torch.randn(2, 512))
    torch_tensorrt.save(compiled, tmp_path / "m.ts", output_format="torchscript")
    assert (tmp_path / "m.ts").stat().st_size < compiled.engine_0.numel() + 20_000


NEW_PROCESS = """
import sys, torch, torch_tensorrt
inputs, expected = torch.load(sys.argv[2])
for model in (torch_tensorrt.load(sys.argv[1]), torch.jit.load(sys.argv[1])):
    torch.testing.assert_close(model(*inputs), expected, rtol=1e-4, atol=1e-5)
assert not any("libkiln.so" in line for line in open("/proc/self/maps")), "the compiler was loaded"
"""


def test_new_process_needs_no_compiler(tmp_path) -> None:
    module = SortInTheMiddle().eval()
    save_and_load(compile_all(module, batch_input()), tmp_path / "m.ts")
    x = torch.randn(7, 16)
    with torch.no_grad():
        torch.save(([x], module(x)), tmp_path / "expected.pt")
    command = [sys.executable, "-c", NEW_PROCESS, tmp_path / "m.ts", tmp_path / "expected.pt"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


class TestTracing:
    """The recipe of version 2.1: torch.jit.trace of a compiled module."""

    def test_trace(self, mlp, tmp_path, assert_same) -> None:
        x = torch.randn(4, 16)
        traced = torch.jit.trace(compile_all(mlp, batch_input()), [x])
        torch.jit.save(traced, tmp_path / "m.ts")
        loaded = torch.jit.load(tmp_path / "m.ts")
        for batch in (1, 5, 32):
            x = torch.randn(batch, 16)
            assert_same(loaded(x), mlp(x))

    def test_pytorch_between_engines(self, tmp_path, assert_same) -> None:
        module, x = SortInTheMiddle().eval(), torch.randn(4, 16)
        traced = torch.jit.trace(compile_all(module, x), [x])
        torch.jit.save(traced, tmp_path / "m.ts")
        assert_same(torch.jit.load(tmp_path / "m.ts")(x), module(x))

    def test_sizes_that_a_trace_would_fix(self, tmp_path) -> None:
        compiled = compile_all(SortInTheMiddle().eval(), batch_input(), **SIZES_IN_PYTORCH)
        torch_tensorrt.save(compiled, tmp_path / "m.ep")
        loaded = torch_tensorrt.load(tmp_path / "m.ep").module()
        for module in (compiled, loaded):
            with pytest.raises(RuntimeError, match="would fix the dynamic sizes"):
                torch.jit.trace(module, [torch.randn(4, 16)])


class TestErrors:
    def test_wrong_formats(self, mlp, tmp_path) -> None:
        x = torch.randn(3, 16)
        program = torch.export.export(mlp, (x,), strict=False)
        with pytest.raises(ValueError, match="format specified is torchscript. Please verify"):
            save_and_load(program, tmp_path / "m.ts")
        with pytest.raises(ValueError, match="nn.Module directly is not supported"):
            save_and_load(mlp, tmp_path / "m.ts", arg_inputs=[x])
        script = torch_tensorrt.dynamo.export(compile_all(mlp, x), ir="ts")
        with pytest.raises(ValueError, match="ScriptModule.*is not torchscript"):
            torch_tensorrt.save(script, tmp_path / "m.ep")
        assert not list(tmp_path.iterdir())

    def test_damaged_files(self, mlp, tmp_path) -> None:
        path = tmp_path / "m.ts"
        save_and_load(compile_all(mlp, batch_input()), path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="not an archive, or truncated"):
            torch_tensorrt.load(path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/constants.pkl", b"")
            archive.writestr("m/code/m.py", b"")
        with pytest.raises(ValueError, match="doesn't correspond to a valid Torchscript"):
            torch_tensorrt.load(path)
        with pytest.raises(FileNotFoundError):
            torch_tensorrt.load(tmp_path / "none.ts")

    def test_an_old_file_survives(self, mlp, tmp_path) -> None:
        path = tmp_path / "m.ts"
        path.write_text("old")
        with pytest.raises(ValueError, match="TorchScript cannot express"):
            save_and_load(compile_all(DataclassResult().eval(), batch_input()), path)
        assert path.read_text() == "old"
        with pytest.raises(FileNotFoundError):
            save_and_load(compile_all(mlp, batch_input()), tmp_path / "none" / "m.ts")


def test_images(tmp_path, assert_same) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
    images = Input(min_shape=(1, 3, 8, 8), opt_shape=(2, 3, 8, 8), max_shape=(4, 3, 8, 8))
    loaded = save_and_load(compile_all(model, images), tmp_path / "m.ts", arg_inputs=[images])
    x = torch.randn(3, 3, 8, 8)
    assert_same(loaded(x), model(x))
