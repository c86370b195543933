"""Faulty calls of `save` and `load`: of several faults, the one that Torch-TensorRT names first is named first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_small import Mlp, compile_all

import torch_tensorrt

X = torch.ones(2, 16)

# A call with every fault; each step mends the one that was named.
SAVE_STEPS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, RuntimeError, "Module is an unknown format: got int"),
    ({"module": Mlp().eval()}, ValueError, "Not all inputs provided are torch.Tensor"),
    ({"arg_inputs": [X]}, AssertionError, "should not be used at the same time"),
    ({"inputs": None}, ValueError, "kwargs should not include None"),
    ({"kwarg_inputs": None}, ValueError, "output_format onnx is not supported. Supported options"),
    ({"output_format": "executorch"}, ImportError, "executorch"),
    ({"output_format": "exported_program"}, ValueError, "File path cannot be empty"),
    ({"file_path": "m.ep"}, ValueError, "Saving nn.Module directly is not supported"),
]


def test_save(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    call: dict[str, Any] = {
        "module": 3,
        "arg_inputs": [1.5],
        "inputs": [X],
        "kwarg_inputs": {"x": None},
        "output_format": "onnx",
        "file_path": "",
    }
    for mended, error, text in SAVE_STEPS:
        call |= mended
        with pytest.raises(error, match=text):
            torch_tensorrt.save(**call)
        assert not list(tmp_path.iterdir())
    call["module"] = compile_all(call["module"], X)
    torch_tensorrt.save(**call)
    assert [path.name for path in tmp_path.iterdir()] == ["m.ep"]


@pytest.mark.parametrize(
    ("kind", "output_format"),
    [
        ("ScriptModule", "exported_program"),
        ("ScriptModule", "aot_inductor"),
        ("ExportedProgram", "torchscript"),
    ],
)
def test_formats_that_a_module_cannot_have(mlp, tmp_path, kind, output_format) -> None:
    module: Any = torch.jit.trace(mlp, X)
    if kind == "ExportedProgram":
        module = torch.export.export(mlp, (X,))
    with pytest.raises(ValueError, match=f"{kind}.*output_format specified"):
        torch_tensorrt.save(module, tmp_path / "m.pt2", output_format=output_format)
    assert not list(tmp_path.iterdir())


def test_load(tmp_path) -> None:
    call: dict[str, Any] = {"file_path": "", "format": "onnx"}
    with pytest.raises(
        ValueError, match="Unsupported format 'onnx'; expected None or 'executorch'"
    ):
        torch_tensorrt.load(**call)
    with pytest.raises(ImportError, match="executorch"):
        torch_tensorrt.load(**call | {"format": "executorch"})
    with pytest.raises(ValueError, match="File path cannot be empty"):
        torch_tensorrt.load(**call | {"format": None})
    with pytest.raises(FileNotFoundError):
        torch_tensorrt.load(tmp_path / "m.ep")
    (tmp_path / "m.ep").write_text("hello")
    with pytest.raises(ValueError, match="doesn't correspond to a valid"):
        torch_tensorrt.load(tmp_path / "m.ep")
