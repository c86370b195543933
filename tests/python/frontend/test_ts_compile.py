"""`ir="ts"` and `ts.compile`: ScriptModules out of modules, scripted and traced ones."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from models_small import KeywordArguments, Mlp, SortInTheMiddle, batch_input

import torch_tensorrt
from torch_tensorrt import Input

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch_tensorrt.ts:DeprecationWarning"),
]

KINDS = {
    "module": lambda module, x: module,
    "scripted": lambda module, x: torch.jit.script(module),
    "traced": lambda module, x: torch.jit.trace(module, x),
    "frozen": lambda module, x: torch.jit.freeze(torch.jit.script(module)),
}


def compile_script(module: Any, *inputs: Any, **options: Any) -> torch.jit.ScriptModule:
    options = {"min_block_size": 1, **options}
    return torch_tensorrt.compile(module, "ts", list(inputs) or None, **options)


@pytest.mark.parametrize("ir", ["ts", "torchscript"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_static(mlp, tmp_path, assert_same, kind, ir) -> None:
    x = torch.randn(4, 16)
    script = torch_tensorrt.compile(kind(mlp, x), ir=ir, arg_inputs=[x], min_block_size=1)
    assert isinstance(script, torch.jit.ScriptModule)
    assert "execute_engine" in script.code
    assert_same(script(x), mlp(x))
    torch.jit.save(script, tmp_path / "m.ts")
    assert_same(torch.jit.load(tmp_path / "m.ts")(x), mlp(x))
    with pytest.raises(RuntimeError, match=r"dim 0.*5.*4"):
        script(torch.randn(5, 16))


@pytest.mark.parametrize(
    ("model", "kind"),
    [(Mlp, kind) for kind in KINDS] + [(SortInTheMiddle, kind) for kind in ("module", "traced")],
)
def test_dynamic(assert_same, model, kind) -> None:
    module = model().eval()
    script = compile_script(KINDS[kind](module, torch.randn(3, 16)), batch_input())
    for batch in (1, 5, 32):
        x = torch.randn(batch, 16)
        assert_same(script(x), module(x))
    # By the engine, or by the TorchScript code where PyTorch alone sees the input.
    with pytest.raises(Exception, match=r"dim 0.*1.*32"):
        script(torch.randn(33, 16))


def test_script_modules_by_default(mlp, assert_same, caplog) -> None:
    x = torch.randn(4, 16)
    script = torch_tensorrt.compile(torch.jit.script(mlp), inputs=[x], min_block_size=1)
    assert isinstance(script, torch.jit.ScriptModule)
    assert "compiled with ir='ts'" in caplog.text
    assert_same(script(x), mlp(x))
    with pytest.raises(ValueError, match="cannot be compiled with ir='dynamo'"):
        torch_tensorrt.compile(torch.jit.script(mlp), ir="dynamo", inputs=[x])


def test_exported_programs(mlp, assert_same) -> None:
    x = torch.randn(4, 16)
    program = torch.export.export(mlp, (x,), strict=False)
    script = torch_tensorrt.compile(program, ir="ts", inputs=[x], min_block_size=1)
    assert_same(script(x), mlp(x))


def test_keyword_inputs(assert_same) -> None:
    model = KeywordArguments().eval()
    x, named = torch.randn(3, 4), {"shift": torch.randn(3, 1), "scale": torch.randn(4)}
    for module in (model, torch.jit.script(model)):
        script = compile_script(module, x, kwarg_inputs=named)
        assert_same(script(x, **named), model(x, **named))


class Several(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[torch.Tensor]]:
        a, b = x - y, x.sum(dim=[1])
        return a, {"a": a, "b": b}, [b, a * 2]


def test_structures_of_results(assert_same) -> None:
    model = Several().eval()
    x, y = torch.randn(3, 16), torch.randn(3, 16)
    for module in (model, torch.jit.script(model)):
        script = compile_script(module, x, y)
        assert [a.name for a in script.forward.schema.arguments[1:]] == ["x", "y"]
        assert_same(script(x, y), model(x, y))


def test_one_tensor_for_two_inputs(assert_same) -> None:
    """torch.export takes it for one input."""
    x, y = torch.randn(3, 16), torch.randn(3, 16)
    script = compile_script(torch.jit.script(Several().eval()), x, x)
    assert_same(script(x, y), Several()(x, y))


def test_shared_sizes(assert_same) -> None:
    rows = [
        Input(min_shape=(1, 16), opt_shape=(2, 16), max_shape=(4, 16), shared_dims={0: "rows"})
        for _ in range(2)
    ]
    script = compile_script(torch.jit.script(Several().eval()), *rows)
    x, y = torch.randn(3, 16), torch.randn(3, 16)
    assert_same(script(x, y), Several()(x, y))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_convolutions(assert_same, kind) -> None:
    """Scripted normalisations have checks that look like control flow."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout()
    ).eval()
    images = Input(min_shape=(1, 3, 8, 8), opt_shape=(2, 3, 8, 8), max_shape=(4, 3, 8, 8))
    script = compile_script(kind(model, torch.randn(2, 3, 8, 8)), images)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8)
        assert_same(script(x), model(x))


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(0) > 4:
            x = x * 2
        return torch.relu(x) + 1


class Loops(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x
        for i in range(x.size(0)):
            total = total + x[i]
        return total


class FixedSizes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.reshape(3, -1)) * torch.zeros(x.shape[0]).sum()


class TestControlFlow:
    @pytest.mark.parametrize("rows", [3, 7])
    def test_fixed_shapes(self, assert_same, rows) -> None:
        x = torch.randn(rows, 16)
        script = compile_script(torch.jit.script(Branches().eval()), x)
        assert_same(script(x), Branches()(x))
        with pytest.raises(RuntimeError, match="dim 0"):
            script(torch.randn(10 - rows, 16))

    @pytest.mark.parametrize("model", [Branches, Loops])
    def test_ranges_are_refused(self, model) -> None:
        with pytest.raises(ValueError, match=r"control flow \(prim::.*fixed shapes"):
            compile_script(torch.jit.script(model().eval()), batch_input())

    def test_what_the_converter_lacks(self) -> None:
        with pytest.raises(ValueError, match=r"cannot be compiled: .*prim::Loop.*ir=\"dynamo\""):
            compile_script(torch.jit.script(Loops().eval()), torch.randn(3, 16))

    def test_sizes_that_the_converter_fixes(self) -> None:
        scripted = torch.jit.script(SortInTheMiddle().eval())
        with pytest.raises(ValueError, match=r"(?s)specialized it to be a constant.*ir=\"dynamo\""):
            compile_script(scripted, batch_input())

    def test_sizes_that_a_trace_fixed(self) -> None:
        traced = torch.jit.trace(FixedSizes().eval(), torch.randn(3, 16))
        with pytest.raises(ValueError, match="ScriptModule"):
            compile_script(traced, batch_input())


class TestOptions:
    def test_min_block_size_is_three(self) -> None:
        def engines(layers: int) -> int:
            model = torch.nn.Sequential(*[torch.nn.Tanh() for _ in range(layers)]).eval()
            module = torch_tensorrt.compile(model, ir="ts", inputs=[torch.randn(2, 3)])
            return module.code.count("execute_engine")

        assert (engines(2), engines(3)) == (0, 1)

    def test_operators_in_pytorch(self, mlp, assert_same) -> None:
        x = torch.randn(4, 16)
        script = torch_tensorrt.ts.compile(
            mlp, [x], torch_executed_ops=["aten::relu"], min_block_size=1
        )
        assert "relu" in script.code
        assert_same(script(x), mlp(x))

    def test_names_of_old(self, mlp, assert_same) -> None:
        x = torch.randn(4, 16)
        script = torch_tensorrt.ts.compile(
            mlp,
            input_signature=(x,),
            device=torch_tensorrt.Device("cpu"),
            disable_tf32=False,
            sparse_weights=False,
            enabled_precisions={torch.float32},
            refit=False,
            debug=False,
            capability=torch_tensorrt.EngineCapability.STANDARD,
            num_avg_timing_iters=1,
            workspace_size=0,
            dla_sram_size=1048576,
            truncate_long_and_double=False,
            require_full_compilation=True,
            torch_executed_modules=None,
            allow_shape_tensors=False,
        )
        assert_same(script(x), mlp(x))

    def test_errors(self, mlp) -> None:
        x = torch.randn(4, 16)
        with pytest.raises(TypeError, match="min_block_size"):
            torch_tensorrt.ts.compile(mlp, [x], min_blocksize=1)
        with pytest.raises(TypeError, match="min_block_size"):
            torch_tensorrt.compile(mlp, ir="ts", inputs=[x], min_blocksize=1)
        with pytest.raises(AssertionError, match="both be None"):
            torch_tensorrt.ts.compile(mlp)
        with pytest.raises(AssertionError, match="same time"):
            torch_tensorrt.ts.compile(mlp, [x], arg_inputs=[x])
        with pytest.raises(RuntimeError, match="(?s)require_full_compilation=True.*tanh_backward"):
            compile_script(SortInTheMiddle().eval(), batch_input(), require_full_compilation=True)

    def test_inputs_of_script_modules(self, mlp) -> None:
        script, x = torch.jit.script(mlp), torch.randn(4, 16)
        with pytest.raises(ValueError, match="forward takes x"):
            compile_script(script, x, x)
        with pytest.raises(ValueError, match=r"\['y'\].*forward takes x"):
            compile_script(script, x, kwarg_inputs={"y": x})
        with pytest.raises(ValueError, match="'x' is int: a ScriptModule"):
            compile_script(script, 3)
        with pytest.raises(ValueError, match="dynamic_shapes is not for ScriptModules"):
            compile_script(script, x, dynamic_shapes={"x": {0: torch.export.Dim("n")}})

    def test_deprecation(self, mlp) -> None:
        with pytest.warns(DeprecationWarning, match='torch_tensorrt.ts.compile.*ir="dynamo"'):
            torch_tensorrt.ts.compile(mlp, [torch.randn(4, 16)])

    def test_ir_ts_is_silent(self, mlp) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compile_script(mlp, torch.randn(4, 16))

    def test_compile_spec(self, mlp, assert_same) -> None:
        x = torch.randn(4, 16)
        spec = torch_tensorrt.ts.TensorRTCompileSpec(inputs=[x], min_block_size=1)
        assert_same(torch_tensorrt.ts.compile(mlp, **spec)(x), mlp(x))
        with pytest.raises(TypeError, match="min_block_size"):
            torch_tensorrt.ts.TensorRTCompileSpec(inputs=[x], min_blocksize=1)
        with pytest.raises(ValueError, match="one of inputs and input_signature"):
            torch_tensorrt.ts.TensorRTCompileSpec()
        assert issubclass(torch_tensorrt.ts.TorchScriptInput, Input)
        assert issubclass(torch_tensorrt.ts.TorchScriptDevice, torch_tensorrt.Device)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_without_a_dtype_have_that_of_the_weights(kind, assert_same) -> None:
    script = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).to(kind))
    given = torch_tensorrt.Input((2, 4))
    for call in (torch_tensorrt.ts.compile, torch_tensorrt.compile):
        compiled = call(script, inputs=[given], min_block_size=1)
        x = torch.randn(2, 4).to(kind)
        assert_same(compiled(x), script(x))
    assert given.dtype is torch_tensorrt.dtype.f32  # the caller's is as it was
    with pytest.raises(ValueError, match="cannot be compiled"):  # one that was asked for stays
        torch_tensorrt.ts.compile(
            script, inputs=[torch_tensorrt.Input((2, 4), dtype=torch.float32)]
        )
