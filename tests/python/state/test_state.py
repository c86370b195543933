"""Buffers and inputs that a model changes: engines change them where they are."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_small import compile_all
from stateful import WAYS, Cache, InputCache, inputs

import kiln
import torch_tensorrt
from torch_tensorrt import Input
from torch_tensorrt._operator import engine_calls, execute_engine_in_place
from torch_tensorrt.runtime._cuda import changed_by

HERE = Path(__file__).parent
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64)


def changes_in_place(module: torch.fx.GraphModule) -> bool:
    """Whether engines do all the writing."""
    targets = [node.target for node in module.graph.nodes if node.op == "call_function"]
    return execute_engine_in_place in targets and torch.ops.aten.copy_.default not in targets


def run_like(compiled: Any, model: torch.nn.Module, steps: int = 5, **sizes: Any) -> None:
    """Compares results and buffers with eager's, step by step; `model` is changed too."""
    state = dict(compiled.named_buffers())
    for step in range(steps):
        args = inputs(step, **sizes)
        torch.testing.assert_close(compiled(*args), model(*args), rtol=2e-3, atol=2e-3)
        for name, expected in model.named_buffers():
            torch.testing.assert_close(state[name], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing(way, batch, dtype) -> None:
    if way == "arithmetic" and not dtype.is_floating_point:
        pytest.skip("PyTorch has no such update of integers")
    model = Cache(way, batch, dtype).eval()
    sizes = {"batch": batch, "rows": 3, "dtype": dtype}
    compiled = compile_all(copy.deepcopy(model), *inputs(0, **sizes))
    assert changes_in_place(compiled)
    places = {name: buffer.data_ptr() for name, buffer in compiled.named_buffers()}
    run_like(compiled, model, **sizes)
    assert places == {name: buffer.data_ptr() for name, buffer in compiled.named_buffers()}


def dynamic_program(way: str) -> tuple[torch.nn.Module, torch.export.ExportedProgram]:
    model = Cache(way).eval()
    rows = torch.export.Dim("rows", min=1, max=8)
    shapes = {"x": {2: rows}, "places": {0: rows}}
    args = inputs(0, rows=5)
    program = torch.export.export(copy.deepcopy(model), args, dynamic_shapes=shapes, strict=False)
    return model, program


@pytest.mark.parametrize("way", ["index_copy", "index_put", "accumulate", "scatter"])
def test_prefill_and_decode_are_sizes_of_one_engine(way) -> None:
    model, program = dynamic_program(way)
    compiled = torch_tensorrt.dynamo.compile(program, require_full_compilation=True)
    assert changes_in_place(compiled)
    run_like(compiled, model, steps=1, rows=8)
    run_like(compiled, model, steps=5, rows=1)
    run_like(compiled, model, steps=1, rows=3)


def test_a_part_stays_in_pytorch() -> None:
    for left_out in ("aten.softmax.int", "aten.index_copy", "aten.mul.Tensor", "aten.add.Tensor"):
        model = Cache("index_copy").eval()
        compiled = compile_all(
            copy.deepcopy(model),
            *inputs(0),
            require_full_compilation=False,
            torch_executed_ops={left_out},
        )
        run_like(compiled, model)


class Halves(torch.nn.Module):
    """A buffer that is changed by two engines, with an operator between them that neither takes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 2, 12, 8))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        old = self.cache * 1
        self.cache.index_copy_(2, places, x)
        top = self.cache.sum(-1).sort(-1).values
        self.cache[:, :, 0] = top[..., :8] + self.steps
        self.steps += 1
        return self.cache.sum(-1) + old.sum(-1) + top


def test_a_buffer_between_two_engines() -> None:
    model = Halves().eval()
    options = {"require_full_compilation": False, "torch_executed_ops": {"aten.sort.default"}}
    compiled = compile_all(copy.deepcopy(model), *inputs(0), **options)
    assert len(engine_calls(compiled.graph)) == 2
    run_like(compiled, model)


class Returned(torch.nn.Module):
    """Gives what it changes, and views of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 2, 12, 8))

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> Any:
        self.cache.index_copy_(2, places, x)
        return self.cache.clone(), self.cache[:, 0] * 2, self.cache.clone().transpose(2, 3)


def test_results_of_a_step_outlive_the_next() -> None:
    model = Returned().eval()
    compiled = compile_all(copy.deepcopy(model), *inputs(0))
    results = [(compiled(*inputs(i)), model(*inputs(i))) for i in range(3)]
    for got, expected in results:
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_copies_share_no_state() -> None:
    model = Cache("index_copy").eval()
    compiled = compile_all(copy.deepcopy(model), *inputs(0))
    other, fresh = copy.deepcopy(compiled), copy.deepcopy(model)
    run_like(compiled, model)
    run_like(other, fresh)


class TwoCaches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Cache("index_copy") for _ in range(2))

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.layers[0](*args) + self.layers[1](*args)


def test_buffers_of_submodules_are_found_without_searching(monkeypatch) -> None:
    compiled = compile_all(TwoCaches().eval(), *inputs(0))
    assert any("." in name for name, _ in compiled.named_buffers())
    searched = []
    search = torch.nn.Module.__getattr__
    monkeypatch.setattr(
        torch.nn.Module,
        "__getattr__",
        lambda self, name: searched.append(name) or search(self, name),
    )
    compiled(*inputs(1))
    assert searched == []


@pytest.mark.parametrize("kind", ["buffer", "parameter", "module", "copy", "pickled"])
def test_buffers_of_submodules_are_those_that_are_there_now(kind) -> None:
    model = TwoCaches().eval()
    compiled = compile_all(copy.deepcopy(model), *inputs(0))
    name, old = next((n, b) for n, b in compiled.named_buffers() if "." in n)
    path, _, last = name.rpartition(".")
    if kind == "copy":
        compiled = copy.deepcopy(compiled)
    elif kind == "pickled":
        compiled = pickle.loads(pickle.dumps(compiled))
    new = torch.randn_like(old)
    model.get_submodule(path)._buffers[last].copy_(new)
    owner = compiled.get_submodule(path)
    if kind == "parameter":
        delattr(owner, last)
        owner.register_parameter(last, torch.nn.Parameter(new.clone(), requires_grad=False))
    elif kind == "module":
        fresh = torch.nn.Module()
        for each, value in owner.named_buffers(recurse=False):
            fresh.register_buffer(each, new.clone() if each == last else value)
        compiled.set_submodule(path, fresh)
    else:
        setattr(owner, last, new.clone())
    with torch.no_grad():
        for step in range(3):
            args = inputs(step)
            torch.testing.assert_close(compiled(*args), model(*args), rtol=2e-3, atol=2e-3)


def test_what_a_call_changes_is_known() -> None:
    """Of a module that is captured as a CUDA graph its state is put back after the calls that warm it up."""
    options = {"require_full_compilation": False, "torch_executed_ops": {"aten.add.Tensor"}}
    compiled = compile_all(Cache("index_copy").eval(), *inputs(0), **options)
    buffers, names = changed_by(compiled)
    assert {b.data_ptr() for b in buffers} == {compiled.cache.data_ptr(), compiled.steps.data_ptr()}
    assert names == []
    assert changed_by(input_cache()[1]) == ([], ["cache"])


# ---- Inputs of the user's ----


def input_cache() -> tuple[torch.nn.Module, torch.fx.GraphModule]:
    model = InputCache().eval()
    return model, compile_all(model, *inputs(0), torch.zeros(1, 2, 12, 8))


def test_an_input_is_changed() -> None:
    model, compiled = input_cache()
    assert changes_in_place(compiled)
    cache, expected = torch.zeros(1, 2, 12, 8), torch.zeros(1, 2, 12, 8)
    for step in range(5):
        args = inputs(step)
        torch.testing.assert_close(compiled(*args, cache), model(*args, expected))
        torch.testing.assert_close(cache, expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda: torch.zeros(1, 2, 8, 12).transpose(2, 3),
        lambda: torch.zeros(1, 2, 12, 16)[..., ::2],
        lambda: torch.zeros(193)[1:].view(1, 2, 12, 8),
    ],
    ids=["transposed", "gaps", "misaligned"],
)
def test_an_input_that_lies_in_another_way_is_changed(view) -> None:
    model, compiled = input_cache()
    cache, expected = view(), view()
    for step in range(3):
        args = inputs(step)
        torch.testing.assert_close(compiled(*args, cache), model(*args, expected))
        torch.testing.assert_close(cache, expected)


def test_inputs_in_the_memory_of_one_that_is_changed_are_read_first() -> None:
    _, compiled = input_cache()
    cache = torch.arange(192.0).view(1, 2, 12, 8)
    x, places = cache[:, :, 4:5], torch.tensor([4])
    expected = cache.clone()
    expected[:, :, 7:8] = expected[:, :, 4:5]
    compiled(cache[:, :, 4:5], torch.tensor([7]), cache)
    torch.testing.assert_close(cache, expected)
    result = compiled(x, places, cache)  # writes what it reads
    torch.testing.assert_close(cache, expected)
    assert result.isfinite().all()


class TwoInputs(torch.nn.Module):
    def forward(self, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.add_(x)
        b.mul_(x)
        return a + b


def test_one_tensor_given_twice_ends_as_written_back_last() -> None:
    model = TwoInputs().eval()
    x = torch.full((4, 8), 3.0)
    compiled = compile_all(model, x, torch.ones(4, 8), torch.ones(4, 8))
    both = torch.full((4, 8), 2.0)
    result = compiled(x, both, both)  # the program has two tensors: 2 + 3 and 2 * 3
    torch.testing.assert_close(result, torch.full((4, 8), 11.0))
    torch.testing.assert_close(both, torch.full((4, 8), 6.0))


# ---- Formats ----

RUN = """
import sys, torch
sys.path.insert(0, {here!r})
import torch_tensorrt
from stateful import inputs
module = torch_tensorrt.load({path!r}).module()
print([[round(v, 4) for v in module(*inputs(step)).flatten().tolist()] for step in range(3)])
"""


def in_another_process(path: Path) -> str:
    code = RUN.format(here=str(HERE), path=str(path))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


FORMATS = [
    ("m.ep", {"retrace": True}),
    ("m.ep", {"retrace": False}),
    ("m.ts", {"output_format": "torchscript"}),
    ("m.pt2", {"output_format": "aot_inductor"}),
]


@pytest.mark.parametrize(("name", "options"), FORMATS, ids=["retraced", "lifted", "ts", "pt2"])
def test_formats(tmp_path, name, options) -> None:
    model = Cache("index_copy").eval()
    compiled = compile_all(copy.deepcopy(model), *inputs(0))
    torch_tensorrt.save(compiled, tmp_path / name, arg_inputs=list(inputs(0)), **options)
    first = torch_tensorrt.load(tmp_path / name).module()
    second = torch_tensorrt.load(tmp_path / name).module()
    results = []
    for step in range(3):
        args = inputs(step)
        expected = model(*args)
        torch.testing.assert_close(first(*args), expected)
        results.append([round(value, 4) for value in expected.flatten().tolist()])
    torch.testing.assert_close(second(*inputs(0)), Cache("index_copy")(*inputs(0)))
    assert in_another_process(tmp_path / name) == str(results)


@pytest.mark.parametrize("retrace", [True, False])
def test_a_loaded_program_changes_in_place(tmp_path, retrace) -> None:
    compiled = compile_all(Cache("index_copy").eval(), *inputs(0))
    torch_tensorrt.save(compiled, tmp_path / "m.ep", arg_inputs=list(inputs(0)), retrace=retrace)
    assert changes_in_place(torch_tensorrt.load(tmp_path / "m.ep").module())


def test_pytorch_makes_it_functional(tmp_path) -> None:
    model = Cache("index_copy").eval()
    compiled = compile_all(copy.deepcopy(model), *inputs(0))
    program = torch.export.export(compiled, inputs(0)).run_decompositions({})
    assert len(program.graph_signature.buffers_to_mutate) == 2
    run_like(program.module(), model)


def test_torch_compile() -> None:
    model, expected = Cache("index_copy").eval(), Cache("index_copy").eval()
    compiled = torch.compile(model, backend="torch_tensorrt", options={"min_block_size": 1})
    with torch.no_grad():
        for step in range(5):
            args = inputs(step)
            torch.testing.assert_close(compiled(*args), expected(*args))
            torch.testing.assert_close(model.cache, expected.cache)
            torch.testing.assert_close(model.steps, expected.steps)


# ---- Refit ----


class Projected(Cache):
    def __init__(self) -> None:
        super().__init__("index_copy")
        self.project = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return super().forward(self.project(x), places)


def test_refit_keeps_the_engine_and_takes_weights() -> None:
    torch.manual_seed(0)
    model, other = Projected().eval(), Projected().eval()
    compiled = compile_all(copy.deepcopy(model), *inputs(0), immutable_weights=False)
    program = torch.export.export(copy.deepcopy(other), inputs(0))
    refitted = torch_tensorrt.dynamo.refit_module_weights(compiled, program)
    assert changes_in_place(refitted)
    run_like(refitted, other)
    run_like(compiled, model)


# ---- Engines alone ----


def whole_engine(**options: Any) -> bytes:
    program = torch.export.export(Cache("index_copy").eval(), inputs(0))
    return torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=list(inputs(0)), **options
    )


def test_buffers_are_lifted_if_asked_to() -> None:
    with pytest.raises(RuntimeError, match="lift_mutable_buffers"):
        whole_engine()
    engine = kiln.Engine(whole_engine(lift_mutable_buffers=True))
    assert [tensor.name for tensor in engine.inputs] == ["x", "places", "buf_cache", "buf_steps"]
    assert [t.name for t in engine.outputs][1:] == ["buf_cache_updated", "buf_steps_updated"]
    assert engine.updates == {1: 2, 2: 3}


def state_of(model: torch.nn.Module) -> list[np.ndarray]:
    return [buffer.numpy().copy() for buffer in model.buffers()]


def test_a_session_changes_what_it_is_told_to() -> None:
    engine = kiln.Engine(whole_engine(lift_mutable_buffers=True))
    sessions = [engine.session(), engine.session()]
    models = [Cache("index_copy").eval(), Cache("index_copy").eval()]
    states = [state_of(model) for model in models]
    for step in range(5):
        for i in (0, 1):
            args = inputs(step + i)
            given = [arg.numpy() for arg in args]
            apart = sessions[i].run(*given, *[each.copy() for each in states[i]])
            before = [each.copy() for each in states[i]]
            sessions[i].run(*given, *states[i])  # leaves its inputs alone
            for a, b in zip(states[i], before, strict=True):
                np.testing.assert_array_equal(a, b)
            result = sessions[i].run(*given, *states[i], in_place=True)
            assert result[1] is states[i][0]
            np.testing.assert_allclose(result[0], models[i](*args).numpy(), rtol=1e-5)
            for a, b, c in zip(states[i], models[i].buffers(), apart[1:], strict=True):
                np.testing.assert_array_equal(a, b.numpy())
                np.testing.assert_array_equal(a, c)


def test_a_session_refuses_memory_that_cannot_be_changed_in_place() -> None:
    engine = kiln.Engine(whole_engine(lift_mutable_buffers=True))
    session = engine.session()
    args = [arg.numpy() for arg in inputs(0)]
    cache, steps = state_of(Cache("index_copy"))
    wide = np.zeros(cache.size + 1, cache.dtype)
    inside, shifted = wide[1:].reshape(cache.shape), wide[:-1].reshape(cache.shape)
    inside[:] = cache
    scores = session.run(*args, cache, steps)[0]
    with pytest.raises(kiln.InvalidArgumentError, match="buf_cache_updated.*overlaps"):
        session.run(*args, inside, steps, out=[scores, shifted, steps])
    session.run(*args, inside, steps, out=[scores, inside, steps])  # any alignment
    np.testing.assert_array_equal(inside, session.run(*args, cache, steps)[1])


def test_modules_of_engines_change_inputs_with_aliased_io() -> None:
    data = whole_engine(lift_mutable_buffers=True)
    pairs = {"buf_cache_updated": "buf_cache", "buf_steps_updated": ("buf_steps", "user")}
    module = torch_tensorrt.runtime.TorchTensorRTModule(data, aliased_io=pairs)
    model = Cache("index_copy").eval()
    cache, steps = [buffer.clone() for buffer in model.buffers()]
    for step in range(3):
        torch.testing.assert_close(module(*inputs(step), cache, steps), model(*inputs(step)))
        torch.testing.assert_close(cache, model.cache)
        torch.testing.assert_close(steps, model.steps)
    plain = torch_tensorrt.runtime.TorchTensorRTModule(data)
    before = cache.clone()
    assert len(plain(*inputs(0), cache, steps)) == 3
    torch.testing.assert_close(cache, before)
    with pytest.raises(ValueError, match="aliased_io"):
        torch_tensorrt.runtime.TorchTensorRTModule(data, aliased_io={"buf_cache_updated": "x"})


def test_a_saved_program_compiles_without_pytorch(tmp_path) -> None:
    model, program = dynamic_program("index_copy")
    torch.export.save(program.run_decompositions({}), tmp_path / "m.pt2")
    kiln.compile(tmp_path / "m.pt2", output=tmp_path / "m.kiln")
    engine = kiln.load(tmp_path / "m.kiln")
    assert [tensor.name for tensor in engine.inputs] == ["x", "places", "buf_cache", "buf_steps"]
    state, session = state_of(model), engine.session()
    for step, rows in enumerate((8, 1, 1, 3)):
        args = inputs(step, rows=rows)
        result = session.run(*[arg.numpy() for arg in args], *state, in_place=True)
        np.testing.assert_allclose(result[0], model(*args).numpy(), rtol=1e-5)
        np.testing.assert_array_equal(state[0], model.cache.numpy())


def test_dynamic_inputs_are_changed() -> None:
    model = TwoInputs().eval()
    rows = Input(min_shape=(1, 8), opt_shape=(4, 8), max_shape=(16, 8), shared_dims={0: "rows"})
    compiled = torch_tensorrt.compile(
        model, arg_inputs=[rows] * 3, min_block_size=1, require_full_compilation=True
    )
    assert changes_in_place(compiled)
    for size in (1, 4, 16):
        x, a, b = torch.randn(3, size, 8)
        given, expected = [a.clone(), b.clone()], [a.clone(), b.clone()]
        torch.testing.assert_close(compiled(x, *given), model(x, *expected))
        torch.testing.assert_close(given, expected)
