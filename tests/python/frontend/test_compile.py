"""`torch_tensorrt.compile`: results equal eager PyTorch's, in the same structure."""

from __future__ import annotations

import pytest
import torch
from models_small import (
    Counter,
    KeywordArguments,
    Mlp,
    NestedInputs,
    NestedResults,
    batch_input,
    compile_all,
    engines_of,
    torch_operators_of,
)

import torch_tensorrt
from torch_tensorrt import Input
from torch_tensorrt.dynamo.conversion import UnsupportedOperatorException


def test_whole_graph_is_one_engine_and_nothing_else(mlp, assert_same) -> None:
    x = torch.randn(4, 16)
    compiled = torch_tensorrt.compile(mlp, ir="dynamo", arg_inputs=[x], min_block_size=1)
    assert isinstance(compiled, torch.fx.GraphModule)
    assert len(engines_of(compiled)) == 1
    assert not torch_operators_of(compiled)
    assert list(compiled.state_dict()) == ["engine_0"]
    assert compiled.engine_0.dtype == torch.uint8
    assert_same(compiled(x), mlp(x))


@pytest.mark.parametrize("ir", ["dynamo", "default"])
def test_every_way_to_give_inputs(mlp, assert_same, ir) -> None:
    x = torch.randn(4, 16)
    options = {"min_block_size": 1}
    for compiled in (
        torch_tensorrt.compile(mlp, ir, [x], **options),
        torch_tensorrt.compile(mlp, ir, inputs=[x], **options),
        torch_tensorrt.compile(mlp, ir=ir, arg_inputs=(x,), **options),
        torch_tensorrt.compile(mlp, ir=ir, inputs=x, **options),
        torch_tensorrt.compile(mlp, ir=ir, inputs=[Input((4, 16))], **options),
        torch_tensorrt.compile(mlp, ir=ir, kwarg_inputs={"x": x}, **options),
    ):
        assert len(engines_of(compiled)) == 1
        assert_same(compiled(x=x), mlp(x))


@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_dynamic_batch(mlp, assert_same, batch) -> None:
    compiled = compile_all(mlp, batch_input())
    x = torch.randn(batch, 16)
    assert_same(compiled(x), mlp(x))


def test_a_range_of_one_size_up(mlp, assert_same) -> None:
    compiled = compile_all(mlp, batch_input(1, 1, 2))
    for batch in (1, 2):
        x = torch.randn(batch, 16)
        assert_same(compiled(x), mlp(x))


def test_exported_program_with_its_own_dynamic_shapes(mlp, assert_same) -> None:
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    program = torch.export.export(mlp, (torch.randn(2, 16),), dynamic_shapes=dims, strict=False)
    for inputs in (None, [torch.randn(2, 16)], [batch_input()], [batch_input(2, 4, 8)]):
        compiled = torch_tensorrt.dynamo.compile(program, inputs, min_block_size=1)
        x = torch.randn(5, 16)
        assert_same(compiled(x), mlp(x))
    compiled = torch_tensorrt.compile(program, min_block_size=1)
    assert_same(compiled(x), mlp(x))


def test_inputs_narrow_the_range_of_a_program(mlp) -> None:
    dims = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    program = torch.export.export(mlp, (torch.randn(2, 16),), dynamic_shapes=dims, strict=False)
    compiled = torch_tensorrt.dynamo.compile(program, [batch_input(2, 4, 8)], min_block_size=1)
    for batch in (1, 9):
        with pytest.raises(RuntimeError, match=rf"x.*{batch}.*2.*8"):
            compiled(torch.randn(batch, 16))


def test_trace_then_compile(mlp, assert_same) -> None:
    program = torch_tensorrt.dynamo.trace(mlp, [batch_input()])
    assert isinstance(program, torch.export.ExportedProgram)
    compiled = torch_tensorrt.dynamo.compile(program, [batch_input()], min_block_size=1)
    x = torch.randn(9, 16)
    assert_same(compiled(x), mlp(x))


def test_keyword_inputs_in_any_order(assert_same) -> None:
    model = KeywordArguments().eval()
    x, scale, shift = torch.randn(3, 4), torch.randn(4), torch.randn(3, 1)
    compiled = compile_all(model, x, kwarg_inputs={"shift": shift, "scale": scale})
    expected = model(x, scale=scale, shift=shift)
    assert_same(compiled(x, scale=scale, shift=shift), expected)
    assert_same(compiled(x, shift=shift, scale=scale), expected)


def test_nested_results(assert_same) -> None:
    model = NestedResults().eval()
    compiled = compile_all(model, Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(8, 4)))
    assert len(engines_of(compiled)) == 1
    for batch in (1, 3):
        x = torch.randn(batch, 4)
        assert_same(compiled(x), model(x))


def test_nested_inputs(assert_same) -> None:
    model = NestedInputs().eval()
    pair, named = [torch.randn(2, 3), torch.randn(2, 3)], {"bias": torch.randn(3)}
    compiled = compile_all(model, pair, named)
    assert_same(compiled(pair, named), model(pair, named))


def test_nested_inputs_with_ranges(assert_same) -> None:
    model = NestedInputs().eval()
    rows = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(8, 3), name="rows")
    compiled = compile_all(model, [rows, rows], {"bias": Input((3,))})
    for batch in (1, 8):
        pair, named = [torch.randn(batch, 3), torch.randn(batch, 3)], {"bias": torch.randn(3)}
        assert_same(compiled(pair, named), model(pair, named))


class Add(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


def test_sizes_that_the_model_needs_equal_become_one(assert_same) -> None:
    compiled = compile_all(Add().eval(), batch_input(1, 4, 32, "a"), batch_input(1, 4, 16, "b"))
    a, b = torch.randn(16, 16), torch.randn(16, 16)
    assert_same(compiled(a, b), a + b)
    with pytest.raises(RuntimeError):
        compiled(torch.randn(17, 16), torch.randn(17, 16))


def test_shared_sizes(assert_same) -> None:
    shape = {"min_shape": (1, 16), "opt_shape": (2, 16), "max_shape": (8, 16)}
    inputs = [Input(**shape, shared_dims={0: "batch"}), Input(**shape, shared_dims={0: "batch"})]
    compiled = compile_all(Add().eval(), *inputs)
    a, b = torch.randn(3, 16), torch.randn(3, 16)
    assert_same(compiled(a, b), a + b)
    inputs[1] = Input((1, 16), shape_ranges=[((1, 16), (2, 16), (9, 16))], shared_dims={0: "batch"})
    with pytest.raises(ValueError, match="'batch' is 1..8 in one input and 1..9 in another"):
        compile_all(Add().eval(), *inputs)


def test_weights_are_taken_as_they_are(assert_same) -> None:
    model = Mlp().eval()
    x = torch.randn(2, 16)
    expected = model(x)
    compiled = compile_all(model, x, torch_executed_ops={"aten.linear"})
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert_same(compiled(x), expected)


def test_buffers_that_change_keep_changing() -> None:
    x = torch.randn(2, 16)
    compiled = compile_all(Counter().eval(), x)
    assert len(engines_of(compiled)) == 1
    for call in (1, 2, 3):
        torch.testing.assert_close(compiled(x), x * 2 + call)


def test_small_models_stay_in_pytorch_by_default(mlp, assert_same, caplog) -> None:
    x = torch.randn(2, 16)
    compiled = torch_tensorrt.compile(mlp, ir="dynamo", arg_inputs=[x])
    assert not engines_of(compiled)
    assert "min_block_size=5" in caplog.text
    assert_same(compiled(x), mlp(x))


def test_require_full_compilation_ignores_min_block_size(mlp) -> None:
    compiled = torch_tensorrt.compile(
        mlp, ir="dynamo", arg_inputs=[torch.randn(2, 16)], require_full_compilation=True
    )
    assert len(engines_of(compiled)) == 1


def test_require_full_compilation_names_what_cannot_be_in_an_engine() -> None:
    class Eigenvalues(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x).abs() + 1

    with pytest.raises(
        UnsupportedOperatorException, match=r"1 operator\(s\) cannot be .*\n.*linalg_eig"
    ):
        torch_tensorrt.compile(
            Eigenvalues(), ir="dynamo", arg_inputs=[torch.eye(3)], require_full_compilation=True
        )


def test_no_inputs(assert_same) -> None:
    class Constant(torch.nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.arange(6).reshape(2, 3) * 2

    compiled = torch_tensorrt.compile(
        Constant().eval(), ir="dynamo", arg_inputs=[], min_block_size=1
    )
    assert_same(compiled(), torch.arange(6).reshape(2, 3) * 2)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.bool, torch.float64, torch.uint8])
def test_dtypes_of_inputs_and_results(kind, assert_same) -> None:
    x = torch.randint(0, 2, (3, 4)).to(kind)
    compiled = compile_all(Passing().eval(), x)
    assert_same(compiled(x), Passing()(x))


class Passing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.flip(0)]).transpose(0, 1)


def test_same_inputs_same_bytes(mlp) -> None:
    first, second = (compile_all(mlp, batch_input()).engine_0 for _ in range(2))
    assert torch.equal(first, second)


def test_argument_errors(mlp) -> None:
    x = torch.randn(2, 16)
    with pytest.raises(AssertionError, match="should not both be None"):
        torch_tensorrt.compile(mlp, ir="dynamo")
    with pytest.raises(AssertionError, match="at the same time"):
        torch_tensorrt.compile(mlp, ir="dynamo", inputs=[x], arg_inputs=[x])
    with pytest.raises(ValueError, match="Unknown ir.*'onnx'.*dynamo"):
        torch_tensorrt.compile(mlp, ir="onnx", inputs=[x])
    with pytest.raises(RuntimeError, match="unknown format: got function"):
        torch_tensorrt.compile(lambda y: y, ir="dynamo", inputs=[x])
    with pytest.raises(TypeError, match="'min_block_size'"):
        torch_tensorrt.compile(mlp, ir="dynamo", inputs=[x], min_blocksize=1)
    with pytest.raises(TypeError, match="ExportedProgram"):
        torch_tensorrt.dynamo.compile(mlp, [x])


@pytest.mark.parametrize("ir", ["fx"])
def test_irs_that_are_not_there(mlp, ir) -> None:
    with pytest.raises(NotImplementedError, match="supported are .default., .dynamo."):
        torch_tensorrt.compile(mlp, ir=ir, inputs=[torch.randn(2, 16)])


def test_inputs_that_do_not_fit_the_program(mlp) -> None:
    program = torch_tensorrt.dynamo.trace(mlp, [torch.randn(2, 16)])
    for inputs, text in (
        ([torch.randn(2, 16)] * 2, "got 2 inputs.*exported with 1"),
        ([Input((2, 16, 1))], "3 dimensions.*exported with 2"),
        ([Input((3, 16))], "is 3, but was exported as 2"),
        ([batch_input()], "may vary from 1 to 32.*fixed size 2"),
    ):
        with pytest.raises(ValueError, match=text):
            torch_tensorrt.dynamo.compile(program, inputs)
    with pytest.raises(ValueError, match="kwarg_inputs has"):
        torch_tensorrt.dynamo.compile(program, kwarg_inputs={"y": torch.randn(2)})


def test_training_mode_is_warned_about(caplog) -> None:
    compile_all(Mlp().train(), torch.randn(2, 16))
    assert "training mode" in caplog.text


def test_results_need_no_gradient(mlp) -> None:
    compiled = compile_all(mlp, torch.randn(2, 16))
    assert not compiled(torch.randn(2, 16)).requires_grad


class Differs(torch.nn.Module):
    """Two inputs of one shape, and weights of that shape."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 4))
        self.register_buffer("scale", torch.randn(3, 4))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2 - y * self.scale + self.weight


@pytest.mark.parametrize("kind", ["one", "input", "weight", "buffer"])
@pytest.mark.parametrize("way", ["dynamo", "keywords", "torch_compile", "ts", "mutable", "saved"])
def test_one_tensor_for_two_inputs(kind, way, tmp_path, assert_same) -> None:
    model, x = Differs().eval(), torch.randn(3, 4)
    given = {
        "one": [x, x],
        "input": [Input.from_tensor(x)] * 2,
        "weight": [x, model.weight],
        "buffer": [model.scale, x],
    }[kind]
    tensors = [each.torch_tensor if isinstance(each, Input) else each for each in given]
    options = {"min_block_size": 1}
    if way == "keywords":
        names = dict(zip(("x", "y"), given, strict=True))
        compiled = torch_tensorrt.compile(model, ir="dynamo", kwarg_inputs=names, **options)
    elif way == "torch_compile":
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="torch_tensorrt", options=options)
        with torch.no_grad():
            compiled(*tensors)
    elif way == "mutable":
        compiled = torch_tensorrt.MutableTorchTensorRTModule(model, **options)
        compiled(*tensors)
    else:
        ir = "ts" if way == "ts" else "dynamo"
        compiled = torch_tensorrt.compile(model, ir=ir, inputs=given, **options)
    modules = [compiled]
    if way == "saved":
        for output_format in ("exported_program", "torchscript"):
            path = str(tmp_path / output_format)
            torch_tensorrt.save(
                compiled, path, output_format=output_format, arg_inputs=tensors, retrace=True
            )
            loaded = torch_tensorrt.load(path)
            modules.append(loaded.module() if hasattr(loaded, "module") else loaded)
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    with torch.no_grad():
        expected = model(a, b)
        for module in modules:
            assert_same(module(x=a, y=b) if way == "keywords" else module(a, b), expected)
