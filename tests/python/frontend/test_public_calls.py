"""Calls as public code writes them: one dictionary of options for several calls, words of any version, any inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_small import engines_of

import torch_tensorrt
from torch_tensorrt import Input, dtype
from torch_tensorrt._operator import execute_engine
from torch_tensorrt.dynamo import CompilationSettings
from torch_tensorrt.dynamo._engine_cache import BaseEngineCache
from torch_tensorrt.dynamo._words import WORDS
from torch_tensorrt.runtime import TorchTensorRTModule


def mlp() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 4)).eval()


class Wrapper(torch.nn.Module):
    """As models of language are wrapped: dictionaries in, a named result out, a mask that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(8, 8)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        hidden = self.embedding(input_ids)
        if attention_mask is not None:
            hidden = hidden * attention_mask.unsqueeze(-1).to(hidden.dtype)
        return {"logits": self.head(hidden), "pooled": hidden.mean(1)}


class Masked(torch.nn.Module):
    def forward(self, a: torch.Tensor, *, mask: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.relu(a + mask) * bias


X = torch.randn(2, 8)
IDS = torch.randint(0, 50, (2, 5))
MASK = torch.ones(2, 5, dtype=torch.int64)

# Options of published scripts, tests and examples, 1.4 to 2.14.
SPECS: dict[str, dict[str, Any]] = {
    "2.14 tests": {
        "inputs": [Input(X.shape, dtype=torch.float, format=torch.contiguous_format)],
        "device": torch_tensorrt.Device("cpu"),
        "ir": "dynamo",
        "min_block_size": 1,
        "cache_built_engines": False,
        "reuse_cached_engines": False,
        "use_explicit_typing": True,
    },
    "2.3 tests": {
        "inputs": [Input(X.shape, dtype=torch.float, format=torch.contiguous_format)],
        "enabled_precisions": {dtype.f32},
        "ir": "dynamo",
        "min_block_size": 1,
        "output_format": "exported_program",
        "pass_through_build_failures": True,
        "optimization_level": 1,
        "truncate_double": True,
        "use_python_runtime": False,
    },
    "2.1 tutorial": {
        "inputs": [X],
        "enabled_precisions": {torch.float},
        "workspace_size": 20 << 30,
        "min_block_size": 1,
        "torch_executed_ops": {},
        "debug": False,
        "truncate_long_and_double": True,
        "version_compatible": False,
        "max_aux_streams": None,
    },
    "2.5 refit example": {
        "inputs": [X],
        "use_python_runtime": False,
        "enabled_precisions": {torch.float32},
        "debug": True,
        "min_block_size": 1,
        "make_refittable": True,
    },
    "2.8 model zoo": {
        "arg_inputs": [X],
        "use_fp32_acc": True,
        "enabled_precisions": {torch.float32},
        "use_explicit_typing": False,
        "disable_tf32": True,
        "offload_module_to_cpu": False,
        "immutable_weights": False,
        "timing_cache_path": "timing_cache.bin",
        "min_block_size": 1,
    },
    "1.4": {
        "inputs": [X],
        "precision": torch.float32,
        "capability": torch_tensorrt.EngineCapability.STANDARD,
        "num_avg_timing_iters": 1,
        "dla_sram_size": 1048576,
        "calibrator": None,
        "refit": False,
        "sparse_weights": False,
        "allow_shape_tensors": False,
        "require_full_compilation": False,
        "torch_executed_modules": [],
        "min_block_size": 1,
    },
}


def quietly(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


@pytest.mark.parametrize("spec", SPECS)
def test_one_dictionary_for_all_calls(spec, assert_same) -> None:
    options, model = SPECS[spec], mlp()
    with torch.no_grad():
        expected = model(X)

    def calls() -> list[Any]:
        program = torch_tensorrt.dynamo.trace(model, **options)
        engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program, **options
        )
        whole = {key: value for key, value in options.items() if key != "ir"}
        return [
            torch_tensorrt.dynamo.compile(program, **options),
            torch_tensorrt.compile(model, **({"ir": "dynamo"} | options)),
            TorchTensorRTModule(engine, None, ["output0"]),
            TorchTensorRTModule(
                torch_tensorrt.convert_method_to_trt_engine(model, "forward", ir="dynamo", **whole)
            ),
            torch_tensorrt.ts.compile(model, **options),
        ]

    for compiled in quietly(calls):
        assert_same(compiled(X), expected)


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_words_are_options_of_torch_compile(spec, assert_same) -> None:
    given = ("inputs", "arg_inputs")
    options = {key: value for key, value in SPECS[spec].items() if key not in given}
    model = mlp()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="torch_tensorrt", options=options)
    with torch.no_grad():
        assert_same(quietly(lambda: compiled(X)), model(X))


OTHERS: dict[str, Any] = {
    "ir": "ts",
    "precision": torch.half,
    "enabled_precisions": {torch.half, torch.float},
    "debug": True,
    "use_python_runtime": True,
    "torch_executed_modules": {"a.b"},
    "refit": True,
    "make_refittable": True,
    "method_name": "encode",
    "truncate_long_and_double": True,
    "enable_precisions": {torch.half},
}


@pytest.mark.parametrize("word", sorted(word for word in WORDS if WORDS[word].advice))
def test_a_word_without_a_meaning_here_warns_once_and_says_what_to_do(word) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CompilationSettings.from_options({word: OTHERS.get(word, "something")}, "here")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert f"here: option {word!r} " in str(caught[0].message)


@pytest.mark.parametrize("word", sorted(WORDS))
def test_words_with_their_defaults_say_nothing(word) -> None:
    default = {"enabled_precisions": {torch.float32}, "precision": torch.float32, "ir": "dynamo"}
    always = ("output_format", "retrace", "extra_files", "pickle_protocol", "use_legacy_exporter")
    if word in (*always, "inductor_configs", "capability"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CompilationSettings.from_options({word: default.get(word)})


def test_only_modules_that_can_be_put_into_eval_mode_are_told_to_be(caplog) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    with caplog.at_level("WARNING", "torch_tensorrt"):
        torch_tensorrt.dynamo.trace(model, [X])
        assert "training mode" in caplog.text
        caplog.clear()
        exported = torch.export.export(model.eval(), (X,)).module()
        assert exported.training
        torch_tensorrt.dynamo.trace(exported, [X])
        assert not caplog.records


def test_words_that_were_called_something_else() -> None:
    def read(**options: Any) -> CompilationSettings:
        return quietly(lambda: CompilationSettings.from_options(options))

    standard = torch_tensorrt.EngineCapability.STANDARD
    assert read(capability=standard).engine_capability is standard
    assert read(make_refittable=True).immutable_weights is False
    assert read(refit=True).immutable_weights is False
    assert read(refit=False).immutable_weights is True
    assert read(refit=False, immutable_weights=False).immutable_weights is False
    assert read(truncate_long_and_double=True).truncate_double is True
    assert read(precision=torch.half).enabled_precisions == {torch.half}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("output_fromat", "output_format"), ("min_block_sise", "min_block_size"), ("irr", "ir")],
)
def test_a_word_that_no_version_knew_is_an_error(wrong, right, tmp_path) -> None:
    model = mlp()
    program = torch.export.export(model, (X,))
    compiled = torch_tensorrt.dynamo.compile(program, [X], min_block_size=1)
    options = {wrong: 1}
    calls: list[Callable[[], Any]] = [
        lambda: torch_tensorrt.compile(model, inputs=[X], **options),
        lambda: torch_tensorrt.dynamo.trace(model, [X], **options),
        lambda: torch_tensorrt.dynamo.compile(program, [X], **options),
        lambda: torch_tensorrt.convert_method_to_trt_engine(model, inputs=[X], **options),
        lambda: torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program, [X], **options
        ),
        lambda: quietly(lambda: torch_tensorrt.ts.compile(model, [X], **options)),
        lambda: torch_tensorrt.save(compiled, tmp_path / "m.ep", **options),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=f"unknown option '{wrong}'.*'{right}'"):
            call()
    assert not list(tmp_path.iterdir())


# ---- Inputs ----


def exported_with_keywords(dynamic: bool) -> Any:
    size = torch.export.Dim("d", min=2, max=9) if dynamic else None
    shapes = {name: {0: size} for name in ("a", "mask", "bias")} if dynamic else None
    args, kwargs = (torch.randn(4, 3),), {"mask": torch.randn(4, 3), "bias": torch.randn(4, 3)}
    return torch.export.export(Masked(), args, kwargs, dynamic_shapes=shapes)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        {"arg_inputs": [torch.randn(4, 3)]},
        {"arg_inputs": [torch.randn(4, 3)], "kwarg_inputs": {"bias": torch.randn(4, 3)}},
        {"kwarg_inputs": {"bias": torch.randn(4, 3), "mask": torch.randn(4, 3)}},
        {"kwarg_inputs": {"mask": torch.randn(4, 3)}},
        {"inputs": [torch.randn(4, 3) for _ in range(3)]},
        {},
    ],
)
def test_inputs_left_out_are_the_examples_of_the_program(given, dynamic, assert_same) -> None:
    compiled = torch_tensorrt.dynamo.compile(
        exported_with_keywords(dynamic), **given, min_block_size=1
    )
    for size in (4, 7) if dynamic else (4,):
        a, mask, bias = (torch.randn(size, 3) for _ in range(3))
        assert_same(compiled(a, bias=bias, mask=mask), Masked()(a, mask=mask, bias=bias))


def test_ranges_of_keyword_inputs_behind_the_others(assert_same) -> None:
    given = [Input(min_shape=(2, 3), opt_shape=(3, 3), max_shape=(6, 3))] * 3
    compiled = torch_tensorrt.dynamo.compile(
        exported_with_keywords(True), inputs=given, require_full_compilation=True
    )
    a, mask, bias = (torch.randn(6, 3) for _ in range(3))
    assert_same(compiled(a, bias=bias, mask=mask), Masked()(a, mask=mask, bias=bias))
    with pytest.raises(
        (ValueError, RuntimeError)
    ):  # the ranges of Inputs narrow those of the program
        compiled(*(torch.randn(7, 3),), bias=torch.randn(7, 3), mask=torch.randn(7, 3))
    for wrong in (given[:2], given[:2] * 2):
        with pytest.raises(ValueError, match=f"got {2 + len(wrong)} inputs, but .* with 3"):
            torch_tensorrt.dynamo.compile(exported_with_keywords(True), inputs=wrong)


def test_keyword_inputs_that_the_program_does_not_have() -> None:
    with pytest.raises(ValueError, match=r"has \['masks'\], but.*\['bias', 'mask'\]"):
        torch_tensorrt.dynamo.compile(
            exported_with_keywords(False), kwarg_inputs={"masks": torch.randn(4, 3)}
        )


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((IDS,), {}),
        ((IDS, MASK), {}),
        ((), {"input_ids": IDS, "attention_mask": MASK}),
        ((IDS,), {"attention_mask": MASK}),
    ],
)
def test_wrappers_of_language_models(args, kwargs, assert_same) -> None:
    model = Wrapper().eval()
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", arg_inputs=list(args), kwarg_inputs=kwargs, min_block_size=1
    )
    with torch.no_grad():
        assert_same(compiled(*args, **kwargs), model(*args, **kwargs))


# ---- Engines and their names ----


class TwoResults(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x) + y, x - y


def test_outputs_of_engines_are_numbered(assert_same) -> None:
    args = (torch.randn(2, 3), torch.randn(2, 3))
    program = torch.export.export(TwoResults(), args)
    convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    for engine in (
        convert(program, arg_inputs=args),
        torch_tensorrt.convert_method_to_trt_engine(TwoResults(), inputs=args),
    ):
        module = TorchTensorRTModule(engine, ["x", "y"], ["output0", "output1"])
        assert_same(module(*args), TwoResults()(*args))
        swapped = TorchTensorRTModule(engine, ["y", "x"], ["output1"])
        assert_same(swapped(args[1], args[0]), args[0] - args[1])
    own = convert(
        program,
        arg_inputs=args,
        arg_input_binding_names=["left", "right"],
        output_binding_names=["sum", "difference"],
    )
    assert_same(
        TorchTensorRTModule(own, ["left", "right"], ["sum", "difference"])(*args),
        TwoResults()(*args),
    )


def test_an_input_that_is_called_like_an_output(assert_same) -> None:
    class Model(torch.nn.Module):
        def forward(self, output0: torch.Tensor) -> torch.Tensor:
            return output0 * 2 + 1

    x = torch.randn(3)
    engine = torch_tensorrt.convert_method_to_trt_engine(Model(), inputs=[x])
    assert_same(TorchTensorRTModule(engine)(x), x * 2 + 1)


# ---- The runtime and the cache ----


@pytest.fixture(scope="module")
def compiled_mlp() -> Any:
    return torch_tensorrt.compile(mlp(), ir="dynamo", inputs=[X], min_block_size=1)


def test_pre_allocated_outputs_can_be_switched(compiled_mlp) -> None:
    with torch_tensorrt.runtime.enable_pre_allocated_outputs(compiled_mlp) as context:
        results = [compiled_mlp(X), compiled_mlp(2 * X)]
        context.set_pre_allocated_output(False)
        results += [compiled_mlp(3 * X), compiled_mlp(4 * X)]
        context.set_pre_allocated_output(True)
        results += [compiled_mlp(5 * X), compiled_mlp(6 * X)]
    for times, result in enumerate(results, 1):
        torch.testing.assert_close(result, compiled_mlp(times * X))


def test_modes_that_exclude_each_other_are_both_named(compiled_mlp) -> None:
    runtime = torch_tensorrt.runtime
    text = "Both CUDA Graphs and dynamic output allocation are enabled, which are incompatible"
    with (
        pytest.raises(RuntimeError, match=text),
        runtime.enable_cudagraphs(compiled_mlp),
        runtime.enable_output_allocator(compiled_mlp),
    ):
        compiled_mlp(X)
    with (
        pytest.raises(RuntimeError, match=text),
        runtime.enable_output_allocator(compiled_mlp),
        runtime.enable_cudagraphs(compiled_mlp),
    ):
        compiled_mlp(X)
    with (
        pytest.raises(RuntimeError, match="need a GPU"),
        runtime.enable_cudagraphs(compiled_mlp) as m,
    ):
        m(X)
    with pytest.raises(KeyError), runtime.enable_cudagraphs(compiled_mlp):
        raise KeyError
    compiled_mlp(X)  # as before
    with runtime.enable_output_allocator(compiled_mlp):
        compiled_mlp(X)


def test_keys_of_graphs() -> None:
    def graph(factor: float, name: str = "x") -> torch.fx.GraphModule:
        result = torch.fx.Graph()
        x = result.placeholder(name)
        result.output(result.call_function(torch.ops.aten.mul.Tensor, (x, factor)))
        return torch.fx.GraphModule(torch.nn.Module(), result)

    def key(module: Any = None, specs: Any = None, **options: Any) -> str:
        settings = CompilationSettings.from_options(options)
        return BaseEngineCache.get_hash(module or graph(2.0), specs or [Input((2, 3))], settings)

    assert len(key()) == 64
    assert key() == key(graph(2.0, "other")) == key(reuse_cached_engines=True)
    assert key(torch_executed_ops={"a", "b"}) == key(torch_executed_ops={"b", "a"})
    several = [
        key(),
        key(graph(3.0)),
        key(specs=[Input((2, 4))]),
        key(specs=[Input((2, 3), dtype=torch.half)]),
        key(specs=[torch.zeros(2, 3, dtype=torch.int64)]),
        key(optimization_level=1),
        key(immutable_weights=False),
        key(torch_executed_ops={"a"}),
        key(torch.fx.symbolic_trace(torch.nn.Linear(3, 3))),
        key(torch.fx.symbolic_trace(torch.nn.Linear(3, 3))),  # other weights
    ]
    assert len(set(several)) == len(several)


# ---- Values that decide sizes ----


class Picked(torch.nn.Module):
    def forward(self, a: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return a[keep.any(1)][:, :2] * 2


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_sizes_that_values_decide_stay_outside_engines(rows, assert_same) -> None:
    a, keep = torch.randn(5, 4), torch.zeros(5, 4, dtype=torch.bool)
    keep[:3, 1] = True
    program = torch.export.export(Picked(), (a, keep))
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=[a, keep], min_block_size=1)
    assert len(compiled.graph.find_nodes(op="call_function", target=execute_engine)) == 1
    keep = torch.zeros(5, 4, dtype=torch.bool)
    keep[:rows, 1] = True
    assert_same(compiled(a, keep), Picked()(a, keep))


def test_a_block_of_0_operators_is_asked_for(assert_same) -> None:
    compiled = torch_tensorrt.compile(torch.nn.ReLU(), ir="dynamo", inputs=[X], min_block_size=0)
    assert_same(compiled(X), torch.relu(X))
    assert len(engines_of(compiled)) == 1
    with pytest.raises(ValueError, match="min_block_size is -1, expected 0 or more"):
        torch_tensorrt.compile(torch.nn.ReLU(), ir="dynamo", inputs=[X], min_block_size=-1)
