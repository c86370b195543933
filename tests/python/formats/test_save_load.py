"""`save` and `load`: what comes back computes the same, in another process too."""

from __future__ import annotations

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
    NestedResults,
    SortInTheMiddle,
    batch_input,
    compile_all,
    engines_of,
)

import kiln
import torch_tensorrt
from torch_tensorrt import Input

BATCH = torch.export.Dim("batch", min=1, max=32)


def save_and_load(module: Any, path: Any, **arguments: Any) -> Any:
    torch_tensorrt.save(module, path, **arguments)
    return torch_tensorrt.load(path)


@pytest.mark.parametrize("retrace", [True, False])
@pytest.mark.parametrize("name", ["model.ep", "model.pt2", "model"])
def test_static(mlp, tmp_path, assert_same, retrace, name) -> None:
    x = torch.randn(4, 16)
    compiled = compile_all(mlp, x)
    loaded = save_and_load(compiled, tmp_path / name, arg_inputs=[x], retrace=retrace)
    assert isinstance(loaded, torch.export.ExportedProgram)
    assert_same(loaded(x), mlp(x))
    assert_same(loaded.module()(x), mlp(x))
    assert [path.name for path in tmp_path.iterdir()] == [name]


DYNAMIC_INPUTS = {
    "Input": {"arg_inputs": [batch_input(name="x")]},
    "inputs": {"inputs": [batch_input(name="x")]},
    "unnamed Input": {"arg_inputs": [batch_input(name="")]},
    "Dim": {"arg_inputs": [torch.ones(2, 16)], "dynamic_shapes": {"x": {0: BATCH}}},
    "Dim by position": {"arg_inputs": [torch.ones(2, 16)], "dynamic_shapes": ({0: BATCH},)},
    "neither": {"arg_inputs": [torch.ones(2, 16)]},
    "nothing": {},
    "keyword": {"kwarg_inputs": {"x": batch_input(name="x")}},
}


@pytest.mark.parametrize("retrace", [True, False])
@pytest.mark.parametrize("arguments", DYNAMIC_INPUTS.values(), ids=DYNAMIC_INPUTS.keys())
@pytest.mark.parametrize("model", [Mlp, SortInTheMiddle])
def test_dynamic(tmp_path, assert_same, model, arguments, retrace) -> None:
    module = model().eval()
    compiled = compile_all(module, batch_input())
    loaded = save_and_load(compiled, tmp_path / "model.ep", retrace=retrace, **arguments)
    (limits,) = {(int(r.lower), int(r.upper)) for r in loaded.range_constraints.values()}
    assert limits == (1, 32)
    for batch in (1, 5, 32):
        x = torch.randn(batch, 16)
        for call in (loaded, loaded.module(), torch.export.load(tmp_path / "model.ep").module()):
            by_keyword = retrace and "kwarg_inputs" in arguments
            assert_same(call(x=x) if by_keyword else call(x), module(x))


def test_narrowed_ranges_are_saved(mlp, tmp_path) -> None:
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    program = torch.export.export(mlp, (torch.ones(2, 16),), dynamic_shapes=dims, strict=False)
    compiled = torch_tensorrt.dynamo.compile(program, [batch_input(2, 4, 8)], min_block_size=1)
    loaded = save_and_load(compiled, tmp_path / "model.ep")
    (limits,) = {(int(r.lower), int(r.upper)) for r in loaded.range_constraints.values()}
    assert limits == (2, 8)


def test_dimension_names_of_inputs(mlp) -> None:
    from torch_tensorrt.dynamo._tracer import shapes_of_inputs

    def names(*inputs: Any) -> Any:
        shapes = shapes_of_inputs(mlp.forward, inputs, {}, by_parameter=False)
        return {axis: dim.__name__ for axis, dim in shapes["x"].items()}

    assert names(batch_input(name="x")) == {0: "x_0"}
    assert names(batch_input(name="")) == {0: "_0"}
    shared = Input(
        min_shape=(1, 16), opt_shape=(2, 16), max_shape=(4, 16), name="x", shared_dims={0: "batch"}
    )
    assert names(shared) == {0: "batch"}
    assert shapes_of_inputs(mlp.forward, [Input((1, 16))], {}) is None


NEW_PROCESS = """
import sys, torch, torch_tensorrt
program = torch_tensorrt.load(sys.argv[1])
inputs, expected = torch.load(sys.argv[2])
for result in (program(*inputs), program.module()(*inputs), torch.export.load(sys.argv[1]).module()(*inputs)):
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
assert not any("libkiln.so" in line for line in open("/proc/self/maps")), "the compiler was loaded"
"""


@pytest.mark.parametrize("model", [Mlp, SortInTheMiddle])
def test_new_process_needs_no_compiler(tmp_path, model) -> None:
    module = model().eval()
    compiled = compile_all(module, batch_input())
    torch_tensorrt.save(compiled, tmp_path / "model.ep", arg_inputs=[batch_input()])
    x = torch.randn(7, 16)
    with torch.no_grad():
        torch.save(([x], module(x)), tmp_path / "expected.pt")
    command = [sys.executable, "-c", NEW_PROCESS, tmp_path / "model.ep", tmp_path / "expected.pt"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("retrace", [True, False])
def test_a_tensor_beside_an_input_with_a_range(tmp_path, assert_same, retrace) -> None:
    class Scale(torch.nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x * weight)

    module, weight = Scale().eval(), torch.randn(16)
    inputs = [batch_input(name="x"), weight]
    compiled = compile_all(module, *inputs)
    loaded = save_and_load(compiled, tmp_path / "model.ep", arg_inputs=inputs, retrace=retrace)
    for batch in (1, 7, 32):
        x = torch.randn(batch, 16)
        assert_same(loaded(x, weight), module(x, weight))


@pytest.mark.parametrize("retrace", [True, False])
def test_keyword_inputs(tmp_path, assert_same, retrace) -> None:
    model = KeywordArguments().eval()
    x, named = torch.randn(3, 4), {"shift": torch.randn(3, 1), "scale": torch.randn(4)}
    compiled = compile_all(model, x, kwarg_inputs=named)
    loaded = save_and_load(
        compiled, tmp_path / "model.ep", arg_inputs=[x], kwarg_inputs=named, retrace=retrace
    )
    for call in (loaded, loaded.module()):
        assert_same(call(x, **named), model(x, **named))
        assert_same(call(x, scale=named["scale"], shift=named["shift"]), model(x, **named))


@pytest.mark.parametrize("retrace", [True, False])
def test_nested_results(tmp_path, assert_same, retrace) -> None:
    model = NestedResults().eval()
    rows = Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(8, 4), name="rows")
    loaded = save_and_load(
        compile_all(model, rows), tmp_path / "model.ep", arg_inputs=[rows], retrace=retrace
    )
    x = torch.randn(3, 4)
    assert_same(loaded(x), model(x))
    assert_same(loaded.module()(x), model(x))


@pytest.mark.parametrize("retrace", [True, False])
def test_changing_buffers(tmp_path, retrace) -> None:
    x = torch.randn(2, 16)
    compiled = compile_all(Counter().eval(), x)
    loaded = save_and_load(compiled, tmp_path / "model.ep", arg_inputs=[x], retrace=retrace)
    module = loaded.module()
    for call in (1, 2, 3):
        torch.testing.assert_close(module(x), x * 2 + call)


def test_saving_what_was_loaded(mlp, tmp_path, assert_same) -> None:
    loaded = save_and_load(compile_all(mlp, batch_input()), tmp_path / "a.ep")
    again = save_and_load(loaded, tmp_path / "b.ep")
    x = torch.randn(3, 16)
    assert_same(again(x), mlp(x))


def test_exported_programs_are_saved_as_they_are(mlp, tmp_path, assert_same, caplog) -> None:
    x = torch.randn(3, 16)
    program = torch.export.export(mlp, (x,), strict=False)
    loaded = save_and_load(program, tmp_path / "model.ep", arg_inputs=[x])
    assert "is not necessary" in caplog.text
    assert_same(loaded(x), mlp(x))


def test_no_warnings(mlp, tmp_path, caplog) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = compile_all(mlp, batch_input())
        loaded = save_and_load(compiled, tmp_path / "model.ep", arg_inputs=[batch_input()])
        loaded(torch.randn(2, 16))
    assert not [record for record in caplog.records if record.levelno >= 30]


def test_no_remarks_on_file_names_from_torch_itself(mlp, tmp_path, caplog) -> None:
    compiled = compile_all(mlp, batch_input())
    program = torch_tensorrt.dynamo.export(compiled)
    torch.export.save(program, tmp_path / "model.ep")
    torch.export.load(tmp_path / "model.ep")
    assert not [record for record in caplog.records if record.levelno >= 30]


def records(path: Any) -> dict[str, tuple[bytes, int]]:
    """Contents of an archive, and whether they are aligned as a mapped file needs."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        result = {}
        for entry in archive.infolist():
            file.seek(entry.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            offset = entry.header_offset + 30 + name + extra
            result[entry.filename.partition("/")[2]] = (archive.read(entry), offset % 64)
        return {key: value for key, value in result.items() if key != ".data/serialization_id"}


def test_large_engines_are_written_as_torch_does(tmp_path) -> None:
    model = torch.nn.Linear(600, 600).eval()
    compiled = compile_all(model, torch.randn(2, 600))
    program = torch_tensorrt.dynamo.export(compiled)
    tied = dict.fromkeys(("engine_0", "again"), program.state_dict["engine_0"])
    for state in (program.state_dict, tied):
        program._state_dict = dict(state)
        torch_tensorrt.save(program, tmp_path / "a.ep", extra_files={"note": "hello"})
        torch.export.save(program, tmp_path / "b.ep", extra_files={"note": "hello"})
        assert records(tmp_path / "a.ep") == records(tmp_path / "b.ep")


def test_extra_files(mlp, tmp_path) -> None:
    torch_tensorrt.save(
        compile_all(mlp, batch_input()), tmp_path / "m.ep", extra_files={"note": "hello"}
    )
    files = {"note": ""}
    torch_tensorrt.load(tmp_path / "m.ep", extra_files=files)
    assert files["note"] == "hello"


def test_the_engine_is_stored_once(tmp_path) -> None:
    model = torch.nn.Linear(512, 512).eval()
    compiled = compile_all(model, torch.randn(2, 512))
    torch_tensorrt.save(compiled, tmp_path / "m.ep", arg_inputs=[torch.randn(2, 512)])
    assert (tmp_path / "m.ep").stat().st_size < compiled.engine_0.numel() + 100_000


def test_a_loaded_module_calls_nothing_but_the_engine(mlp, tmp_path) -> None:
    loaded = save_and_load(
        compile_all(mlp, batch_input()), tmp_path / "m.ep", arg_inputs=[batch_input()]
    )
    module = loaded.module()
    assert len(engines_of(module)) == 1
    assert not module.graph.find_nodes(op="call_module")
    with pytest.raises(RuntimeError, match=r"x.*33.*1.*32"):
        module(torch.randn(33, 16))


def test_results_of_registered_types_survive(tmp_path) -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return outputs.BaseModelOutput(last_hidden_state=torch.tanh(x))

    compiled = compile_all(Model().eval(), batch_input())
    x = torch.randn(2, 16)
    assert isinstance(compiled(x), outputs.BaseModelOutput)
    torch_tensorrt.save(compiled, tmp_path / "m.ep", arg_inputs=[batch_input()])
    script = (
        "import sys, torch, torch_tensorrt\n"
        "result = torch_tensorrt.load(sys.argv[1])(torch.ones(2, 16))\n"
        "torch.testing.assert_close(result.last_hidden_state, torch.ones(2, 16).tanh())\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "m.ep"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_bare_engines(mlp, tmp_path, assert_same) -> None:
    path = tmp_path / "model.kiln"
    program = torch_tensorrt.dynamo.trace(mlp, [batch_input(name="x")])
    path.write_bytes(
        torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(program)
    )
    loaded = torch_tensorrt.load(path)
    for batch in (1, 32):
        x = torch.randn(batch, 16)
        assert_same(loaded(x), mlp(x))
        assert_same(loaded.module()(x), mlp(x))
    with pytest.raises(RuntimeError, match=r"33.*1.*32"):
        loaded(torch.randn(33, 16))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(kiln.InvalidEngineError):
        torch_tensorrt.load(path)


class TestSaveErrors:
    def test_unknown_modules(self, tmp_path) -> None:
        with pytest.raises(RuntimeError, match="unknown format: got int"):
            torch_tensorrt.save(3, tmp_path / "m.ep")

    def test_plain_modules(self, mlp, tmp_path) -> None:
        with pytest.raises(ValueError, match="nn.Module directly is not supported"):
            torch_tensorrt.save(mlp, tmp_path / "m.ep", arg_inputs=[torch.randn(2, 16)])

    def test_wrong_inputs(self, mlp, tmp_path) -> None:
        x = torch.randn(2, 16)
        compiled = compile_all(mlp, x)
        path = tmp_path / "m.ep"
        with pytest.raises(ValueError, match="Not all inputs provided are torch.Tensor"):
            torch_tensorrt.save(compiled, path, arg_inputs=[[1, 2]])
        with pytest.raises(AssertionError, match="at the same time"):
            torch_tensorrt.save(compiled, path, arg_inputs=[x], inputs=[x])
        with pytest.raises(ValueError, match="should not include None"):
            torch_tensorrt.save(compiled, path, kwarg_inputs={"x": None})
        assert not list(tmp_path.iterdir())

    def test_formats(self, mlp, tmp_path) -> None:
        compiled = compile_all(mlp, torch.randn(2, 16))
        with pytest.raises(ValueError, match="output_format onnx is not supported"):
            torch_tensorrt.save(compiled, tmp_path / "m.ep", output_format="onnx")

    def test_no_path(self, mlp) -> None:
        with pytest.raises(ValueError, match="File path cannot be empty"):
            torch_tensorrt.save(compile_all(mlp, torch.randn(2, 16)))

    def test_keywords_of_other_calls_warn(self, mlp, tmp_path) -> None:
        compiled = compile_all(mlp, torch.randn(2, 16))
        with pytest.warns(UserWarning, match="save.*'min_block_size'.*has no effect"):
            torch_tensorrt.save(compiled, tmp_path / "m.ep", min_block_size=1, ir="dynamo")
        with pytest.warns(UserWarning, match="'inductor_configs'.*aot_inductor"):
            torch_tensorrt.save(compiled, tmp_path / "m.ep", inductor_configs={"a": 1})

    def test_unknown_keywords_name_the_nearest(self, mlp, tmp_path) -> None:
        compiled = compile_all(mlp, torch.randn(2, 16))
        with pytest.raises(TypeError, match="'retracing'.*'retrace'"):
            torch_tensorrt.save(compiled, tmp_path / "m.ep", retracing=True)
        assert not list(tmp_path.iterdir())

    def test_a_path_that_cannot_be_written(self, mlp, tmp_path) -> None:
        compiled = compile_all(mlp, torch.randn(2, 16))
        with pytest.raises(FileNotFoundError):
            torch_tensorrt.save(compiled, tmp_path / "none" / "m.ep")
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            torch_tensorrt.save(compiled, tmp_path / "folder")
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]

    def test_a_failed_save_leaves_the_old_file(self, mlp, tmp_path, monkeypatch) -> None:
        path = tmp_path / "m.ep"
        path.write_bytes(b"old")

        def fail(program: Any, file: Any, **_: Any) -> None:
            file.write(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(torch.export, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            torch_tensorrt.save(compile_all(mlp, torch.randn(2, 16)), path)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["m.ep"]


class TestLoadErrors:
    def test_no_path(self) -> None:
        with pytest.raises(ValueError, match="File path cannot be empty"):
            torch_tensorrt.load()

    def test_no_file(self, tmp_path) -> None:
        with pytest.raises(FileNotFoundError):
            torch_tensorrt.load(tmp_path / "m.ep")

    def test_formats(self, tmp_path) -> None:
        with pytest.raises(ValueError, match="Unsupported format 'onnx'"):
            torch_tensorrt.load(tmp_path / "m.ep", format="onnx")
        with pytest.raises(ImportError, match="executorch"):
            torch_tensorrt.load(tmp_path / "m.ep", format="executorch")

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
    def test_foreign_files(self, tmp_path, content) -> None:
        (tmp_path / "m.ep").write_bytes(content)
        with pytest.raises(ValueError, match="doesn't correspond to a valid"):
            torch_tensorrt.load(tmp_path / "m.ep")

    def test_archives_of_something_else(self, tmp_path) -> None:
        with zipfile.ZipFile(tmp_path / "m.ep", "w") as archive:
            archive.writestr("hello", "world")
        with pytest.raises(ValueError, match="unknown format"):
            torch_tensorrt.load(tmp_path / "m.ep")

    def test_truncated_files(self, mlp, tmp_path) -> None:
        path = tmp_path / "m.ep"
        torch_tensorrt.save(compile_all(mlp, torch.randn(2, 16)), path)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(ValueError, match="doesn't correspond to a valid"):
            torch_tensorrt.load(path)
