"""Today's page "Saving models compiled with Torch-TensorRT", section "Saving torch.compile models".

The snippet runs as it is written there, without `.cuda()` where there is no GPU; the table of key differences is
tested cell by cell.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import torch_tensorrt
from torch_tensorrt.dynamo import CompilationSettings
from torch_tensorrt.dynamo import _compile_program as compiler
from torch_tensorrt.dynamo.backend import torch_tensorrt_backend
from torch_tensorrt.dynamo.backend._backend import settings_of

SNIPPET = """
import torch
import torch_tensorrt

model = MyModel().eval().cuda()
inputs = [torch.randn((1, 3, 224, 224)).cuda()]

# JIT path — NOT serializable
# jit_model = torch.compile(model, backend="torch_tensorrt", ...)

# AOT path — produces a serializable GraphModule
trt_gm = torch_tensorrt.compile(
    model,
    ir="dynamo",
    arg_inputs=inputs,
    use_explicit_typing=True,
)

# Save to disk
torch_tensorrt.save(trt_gm, "model.ep", arg_inputs=inputs)

# Reload and run — no recompilation needed
loaded = torch_tensorrt.load("model.ep").module()
output = loaded(*inputs)
"""


class MyModel(torch.nn.Module):
    """x: [batch, 3, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 7, stride=4)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture(autouse=True)
def start_afresh(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def engines(monkeypatch) -> list[torch.Tensor]:
    """Every engine that is compiled, on either path."""
    made: list[torch.Tensor] = []
    original = compiler.compile_region

    def record(*args: Any, **kwargs: Any) -> torch.Tensor:
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(compiler, "compile_region", record)
    return made


def small(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32)


def check(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def jit(model: torch.nn.Module, **options: Any) -> Any:
    return torch.compile(
        model, backend="torch_tensorrt", dynamic=False, options={"min_block_size": 1, **options}
    )


def aot(model: torch.nn.Module, *inputs: Any, **options: Any) -> torch.fx.GraphModule:
    return torch_tensorrt.compile(
        model, ir="dynamo", arg_inputs=list(inputs), min_block_size=1, **options
    )


def test_snippet_as_written(engines) -> None:
    snippet = SNIPPET if torch.cuda.is_available() else SNIPPET.replace(".cuda()", "")
    names: dict[str, Any] = {"MyModel": MyModel}
    exec(snippet, names)
    assert isinstance(names["trt_gm"], torch.fx.GraphModule)
    assert len(engines) == 1, "reloading must not compile"
    with torch.no_grad():
        check(names["output"], names["model"](*names["inputs"]))


def test_compilation_timing_jit_on_first_call(engines) -> None:
    compiled = jit(MyModel().eval())
    assert not engines
    with torch.no_grad():
        compiled(small())
    assert len(engines) == 1


def test_compilation_timing_aot_explicit_step(engines) -> None:
    compiled = aot(MyModel().eval(), small())
    assert len(engines) == 1
    compiled(small())
    assert len(engines) == 1


def test_shape_change_jit_recompiles(engines) -> None:
    model = MyModel().eval()
    compiled = jit(model)
    with torch.no_grad():
        for batch, expected in ((2, 1), (4, 2), (2, 2)):
            x = small(batch)
            check(compiled(x), model(x))
            assert len(engines) == expected


def test_shape_change_aot_is_refused(engines) -> None:
    compiled = aot(MyModel().eval(), small(2))
    with pytest.raises(RuntimeError, match=r"4.*2"):
        compiled(small(4))
    assert len(engines) == 1


def test_shape_change_aot_with_dynamic_input(engines) -> None:
    model = MyModel().eval()
    shapes = {f"{kind}_shape": (n, 3, 32, 32) for kind, n in (("min", 1), ("opt", 4), ("max", 8))}
    compiled = aot(model, torch_tensorrt.Input(**shapes))
    with torch.no_grad():
        for batch in (1, 4, 8):
            x = small(batch)
            check(compiled(x), model(x))
    with pytest.raises(RuntimeError, match=r"9.*8"):
        compiled(small(9))
    assert len(engines) == 1


@pytest.mark.parametrize("called", [False, True])
def test_serializable_jit_no(tmp_path, called) -> None:
    compiled = jit(MyModel().eval())
    if called:
        compiled(small())
    with pytest.raises(ValueError) as error:
        torch_tensorrt.save(compiled, "model.ep", arg_inputs=[small()])
    assert 'torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)' in str(error.value)
    assert not list(tmp_path.iterdir())


def test_serializable_aot_yes(engines) -> None:
    model = MyModel().eval()
    x = small()
    torch_tensorrt.save(aot(model, x), "model.ep", arg_inputs=[x])
    loaded = torch_tensorrt.load("model.ep").module()
    with torch.no_grad():
        check(loaded(x), model(x))
    assert len(engines) == 1


def test_cpp_deployment_jit_no() -> None:
    for output_format in ("exported_program", "torchscript", "aot_inductor"):
        with pytest.raises(ValueError, match="torch.compile cannot be saved"):
            torch_tensorrt.save(
                jit(MyModel().eval()), "m", arg_inputs=[small()], output_format=output_format
            )


def test_cpp_deployment_aot_has_a_file_of_plain_tensors() -> None:
    """What C++ opens: an archive whose engine is a tensor, next to a graph in JSON. C++ itself is tested elsewhere."""
    x = small()
    torch_tensorrt.save(aot(MyModel().eval(), x), "model.ep", arg_inputs=[x])
    program = torch.export.load("model.ep")
    assert [value.dtype for value in program.state_dict.values()] == [torch.uint8]
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets[0] == "kiln.execute_engine.default"


# "The ir="dynamo" path supports all the same compilation options as torch.compile"

VALUES: dict[str, Any] = {
    "min_block_size": 3,
    "torch_executed_ops": {"torch.ops.aten.mean.dim"},
    "pass_through_build_failures": True,
    "workspace_size": 1 << 20,
    "optimization_level": 3,
    "max_aux_streams": 1,
    "tiling_optimization_level": "fast",
    "device": "cpu",
}
# Options that are refused on both paths, or print.
EXCEPT = {
    "dryrun",
    "enable_cross_compile_for_windows",
    "refit_identical_engine_weights",
    "fallback_data_dependent_ops",  # not together with require_full_compilation
}
# Options that only whole models can keep: torch.compile warns about them.
NOT_KEPT = {
    "require_full_compilation": False,
    "offload_module_to_cpu": False,
    "strip_engine_weights": False,
}
OPTIONS = [f.name for f in dataclasses.fields(CompilationSettings) if f.name not in EXCEPT]


def value_of(option: str) -> Any:
    default = getattr(CompilationSettings(), option)
    return VALUES.get(option, not default if isinstance(default, bool) else default)


def test_options_are_the_same_on_both_paths(tmp_path) -> None:
    """All of them, with values that are not the default where there is one to choose."""
    model, x = torch.nn.ReLU(), torch.randn(2, 2)
    options = {option: value_of(option) for option in OPTIONS}
    options["engine_cache_dir"] = str(tmp_path / "cache")
    expected = CompilationSettings.from_options({**options, **NOT_KEPT})
    assert settings_of({"options": options}) == expected
    compiled = torch_tensorrt.dynamo.compile(torch.export.export(model, (x,)), **options)
    check(compiled(x), model(x))
    with pytest.raises(TypeError, match="min_block_size"):
        torch_tensorrt_backend(torch.fx.symbolic_trace(model), [x], options={"min_block": 1})
    with pytest.raises(TypeError, match="min_block_size"):
        torch_tensorrt.dynamo.compile(torch.export.export(model, (x,)), min_block=1)


@pytest.mark.parametrize("option", sorted(VALUES))
def test_options_give_the_same_engines(engines, option) -> None:
    model, x = MyModel().eval(), small()
    options = {"min_block_size": 1, option: VALUES[option]}
    with torch.no_grad():
        compiled = jit(model, **{option: VALUES[option]})
        check(compiled(x), model(x))
        on_jit = len(engines)
        check(torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[x], **options)(x), model(x))
    assert on_jit == len(engines) - on_jit > 0


def test_require_full_compilation_needs_aot(caplog) -> None:
    model, x = MyModel().eval(), small()
    with torch.no_grad():
        check(jit(model, require_full_compilation=True)(x), model(x))
        assert "require_full_compilation" in caplog.text
        check(aot(model, x, require_full_compilation=True)(x), model(x))
