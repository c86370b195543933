"""Whole programs as the bytes of one engine."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import pytest
import torch
from models_small import (
    Counter,
    KeywordArguments,
    Mlp,
    NestedInputs,
    SortInTheMiddle,
    batch_input,
)

import kiln
import torch_tensorrt
from torch_tensorrt.dynamo import (
    BindingNameMismatchError,
    convert_exported_program_to_serialized_trt_engine,
)
from torch_tensorrt.dynamo.conversion import UnsupportedOperatorException
from torch_tensorrt.runtime import TorchTensorRTModule

convert = torch_tensorrt.convert_method_to_trt_engine


def names(engine: bytes) -> tuple[list[str], list[str]]:
    loaded = kiln.Engine(engine)
    return [info.name for info in loaded.inputs], [info.name for info in loaded.outputs]


def test_the_bytes_are_an_engine_file(mlp, tmp_path) -> None:
    engine = convert(mlp, inputs=[batch_input()])
    assert isinstance(engine, bytes)
    x = torch.randn(3, 16)
    (result,) = kiln.Engine(engine).session().run(x.numpy())
    torch.testing.assert_close(torch.from_numpy(result), mlp(x).detach())
    (tmp_path / "mlp.kiln").write_bytes(engine)
    command = kiln.library_directory().parent / "bin" / "kiln"
    done = subprocess.run(
        [command, "inspect", tmp_path / "mlp.kiln"], capture_output=True, text=True, check=True
    )
    assert "x: float32[1" in done.stdout
    torch.testing.assert_close(TorchTensorRTModule(engine)(x), mlp(x).detach())


@pytest.mark.parametrize("ir", ["default", "dynamo"])
def test_inputs_are_given_as_for_compile(mlp, ir) -> None:
    x = torch.randn(4, 16)
    for engine in (
        convert(mlp, "forward", [x], ir=ir),
        convert(mlp, arg_inputs=(x,), ir=ir),
        convert(torch.export.export(mlp, (x,)), ir=ir),
        convert_exported_program_to_serialized_trt_engine(torch.export.export(mlp, (x,)), [x]),
    ):
        assert names(engine) == (["x"], ["output0"])
    with pytest.raises(AssertionError, match="should not be used at the same time"):
        convert(mlp, inputs=[x], arg_inputs=[x])
    with pytest.raises(TypeError, match=r"unknown option 'min_block'.*min_block_size"):
        convert(mlp, inputs=[x], min_block=1)


def test_methods_other_than_forward() -> None:
    class Model(Mlp):
        def encode(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.first(tokens))

    model, x = Model().eval(), torch.randn(2, 16)
    engine = convert(model, "encode", inputs=[x])
    assert names(engine)[0] == ["tokens"]
    torch.testing.assert_close(TorchTensorRTModule(engine)(x), model.encode(x).detach())
    with pytest.raises(AttributeError, match="Model has no method 'decode'"):
        convert(model, "decode", inputs=[x])


def test_binding_names(mlp) -> None:
    engine = convert(
        mlp,
        inputs=[batch_input()],
        arg_input_binding_names=["input.0"],
        output_binding_names="linear",  # the name of another node
    )
    assert names(engine) == (["input.0"], ["linear"])
    x = torch.randn(7, 16)
    module = TorchTensorRTModule(engine, ["input.0"], ["linear"])
    torch.testing.assert_close(module(x), mlp(x).detach())
    with pytest.raises(kiln.OutOfRangeError, match="input.0"):
        kiln.Engine(engine).session().run(np.zeros((33, 16), np.float32))


def test_binding_names_have_the_structure_of_the_inputs() -> None:
    pair, named = [torch.randn(2), torch.randn(2)], {"bias": torch.randn(2)}

    def engine(arg_names: Any) -> bytes:
        return convert(NestedInputs(), inputs=[pair, named], arg_input_binding_names=arg_names)

    assert names(engine([["a", "b"], {"bias": "c"}]))[0] == ["a", "b", "c"]
    for wrong in (["a", "b", "c"], [["a"], {"bias": "c"}], [["a", "b"], {"other": "c"}]):
        with pytest.raises(
            BindingNameMismatchError, match="arg_input_binding_names has the struct"
        ):
            engine(wrong)
    with pytest.raises(BindingNameMismatchError, match="has 1, expected a name"):
        engine([["a", 1], {"bias": "c"}])
    with pytest.raises(ValueError, match=r"\['a'\] are used more than once"):
        engine([["a", "a"], {"bias": "c"}])
    assert issubclass(BindingNameMismatchError, ValueError)


def test_binding_names_of_keyword_inputs_and_of_several_outputs() -> None:
    x, scale, shift = torch.randn(2, 3), torch.randn(3), torch.randn(3)
    engine = convert(
        KeywordArguments(),
        inputs=[x],
        kwarg_inputs={"shift": shift, "scale": scale},
        kwarg_input_binding_names={"scale": "s", "shift": "t"},
    )
    module = TorchTensorRTModule(engine, ["x", "t", "s"])
    torch.testing.assert_close(module(x, shift, scale), torch.tanh(x * scale - shift))
    with pytest.raises(BindingNameMismatchError, match=r"\['scale', 'shift'\]"):
        convert(
            KeywordArguments(),
            inputs=[x],
            kwarg_inputs={"shift": shift, "scale": scale},
            kwarg_input_binding_names={"scale": "s"},
        )

    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": torch.relu(x), "b": torch.tanh(x)}

    engine = convert(Two(), inputs=[x], output_binding_names={"a": "first", "b": "second"})
    assert names(engine)[1] == ["first", "second"]
    with pytest.raises(BindingNameMismatchError, match="output_binding_names"):
        convert(Two(), inputs=[x], output_binding_names=["first", "second"])


def test_inputs_and_weights_and_repeated_results_as_results() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3))

        def forward(self, x: torch.Tensor, unused: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = torch.relu(x)
            return y, x, y, self.weight * 1, self.weight

    model, x = Odd(), torch.randn(2, 3)
    engine = convert(model, inputs=[x, torch.zeros(1)], output_binding_names=list("abcde"))
    assert names(engine) == (["x", "unused"], list("abcde"))
    results = TorchTensorRTModule(engine)(x, torch.zeros(1))
    for result, expected in zip(results, model(x, x), strict=True):
        torch.testing.assert_close(result, expected.detach())


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (
            SortInTheMiddle(),
            UnsupportedOperatorException,
            r"1 operator\(s\) cannot be in an engine.*\n.*tanh_backward",
        ),
        (Counter(), RuntimeError, r"the program changes calls \(BUFFER_MUTATION\)"),
    ],
)
def test_what_cannot_be_one_engine(model, error, text) -> None:
    with pytest.raises(error, match=text):
        convert(model.eval(), inputs=[torch.randn(4, 16)])


def test_results_have_to_be_tensors() -> None:
    class WithSize(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return torch.relu(x), 3

    with pytest.raises(RuntimeError, match="result 1 of the program is 3, expected a tensor"):
        convert(WithSize(), inputs=[torch.randn(2)])


def test_wrong_irs_and_modules(mlp) -> None:
    x = torch.randn(4, 16)
    for ir in ("fx", "torch_compile"):
        with pytest.raises(RuntimeError, match=f"ir='{ir}' cannot make one engine"):
            convert(mlp, inputs=[x], ir=ir)
    with pytest.raises(ValueError, match="Unknown ir"):
        convert(mlp, inputs=[x], ir="onnx")
    with pytest.raises(RuntimeError, match="Module is an unknown format: got int"):
        convert(3, inputs=[x])
    with pytest.raises(ValueError, match="has forward alone"):
        convert(torch.export.export(mlp, (x,)), "encode")
    with pytest.raises(TypeError, match=r"expected torch\.export\.ExportedProgram"):
        convert_exported_program_to_serialized_trt_engine(mlp, [x])


def test_equal_programs_give_equal_bytes(mlp) -> None:
    assert convert(mlp, inputs=[batch_input()]) == convert(mlp, inputs=[batch_input()])
