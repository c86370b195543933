"""Users' lowerings of operators: they end up in engines, where and only where they may be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from models_small import batch_input, compile_all, engines_of, torch_operators_of

import torch_tensorrt
from torch_tensorrt.dynamo.conversion import (
    DYNAMO_CONVERTERS,
    ConversionContext,
    ConverterError,
    ConverterPriority,
    dynamo_tensorrt_converter,
    plugins,
)
from torch_tensorrt.dynamo.lowering.passes import (
    _aten_lowering_pass,
    _remove_lowering_pass,
    dump_lowering_passes,
)

aten = torch.ops.aten


@torch.library.custom_op("kiln_test::scaled_sine", mutates_args=())
def scaled_sine(x: torch.Tensor, scale: float, shift: torch.Tensor | None = None) -> torch.Tensor:
    result = torch.sin(x) * scale
    return result if shift is None else result + shift


@scaled_sine.register_fake
def _(x: torch.Tensor, scale: float, shift: torch.Tensor | None = None) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("kiln_test::halves", mutates_args=())
def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    middle = x.shape[-1] // 2
    return x[..., :middle].clone(), x[..., middle:].clone()


@halves.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    middle = x.shape[-1] // 2
    return torch.empty_like(x[..., :middle]), torch.empty_like(x[..., middle:])


sine_op = torch.ops.kiln_test.scaled_sine.default


class Sine(torch.nn.Module):
    """A custom operator between operators of ATen; x: [batch, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 16)
        self.shift = torch.nn.Parameter(torch.randn(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.linear(x))
        return torch.ops.kiln_test.scaled_sine(y, 3.0, shift=self.shift) - 1


class Gelu(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x) * 2


@pytest.fixture
def register() -> Iterator[Callable[..., Any]]:
    """Registers a converter for the length of a test."""
    registered = []

    def add(key: Any, converter: Callable[..., Any], **options: Any) -> None:
        dynamo_tensorrt_converter(key, **options)(converter)
        if options.get("enabled", True):
            registered.append((key, converter))

    yield add
    for key, converter in registered:
        if any(s.converter_implementation is converter for s in DYNAMO_CONVERTERS.converters(key)):
            DYNAMO_CONVERTERS.unregister(key, converter)


def convert_sine(ctx: ConversionContext, target: Any, args: Any, kwargs: Any, name: str) -> Any:
    x, scale = args[:2]
    shift = args[2] if len(args) > 2 else kwargs.get("shift")
    result = torch.sin(x) * scale
    return result if shift is None else result + shift


def test_without_a_converter_a_custom_operator_runs_in_pytorch(assert_same, tmp_path) -> None:
    model, x = Sine().eval(), torch.randn(4, 16)
    compiled = compile_all(model, x)
    assert len(engines_of(compiled)) == 2
    assert len(compiled.graph.find_nodes(op="call_function", target=sine_op)) == 1
    assert_same(compiled(x), model(x))
    torch_tensorrt.save(compiled, tmp_path / "model.ep", arg_inputs=[x])
    assert_same(torch_tensorrt.load(tmp_path / "model.ep")(x), model(x))


def test_a_converter_brings_a_custom_operator_into_the_engine(register, assert_same) -> None:
    seen = []

    def convert(ctx, target, args, kwargs, name):
        seen.append((target, name, ctx.compilation_settings.min_block_size, ctx.node.target))
        return convert_sine(ctx, target, args, kwargs, name)

    register(sine_op, convert)
    model, x = Sine().eval(), torch.randn(4, 16)
    compiled = compile_all(model, x)
    assert len(engines_of(compiled)) == 1
    assert not torch_operators_of(compiled)
    assert list(compiled.state_dict()) == ["engine_0"]
    assert_same(compiled(x), model(x))
    assert seen == [(sine_op, "scaled_sine", 1, sine_op)]


def test_converted_operators_are_saved_without_the_converter(
    register, assert_same, tmp_path
) -> None:
    register(sine_op, convert_sine)
    model, x = Sine().eval(), torch.randn(4, 16)
    torch_tensorrt.save(compile_all(model, x), tmp_path / "model.ep", arg_inputs=[x])
    DYNAMO_CONVERTERS.unregister(sine_op, convert_sine)
    assert_same(torch_tensorrt.load(tmp_path / "model.ep")(x), model(x))


def test_converters_of_packets_and_of_several_results(register, assert_same) -> None:
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = torch.ops.kiln_test.halves(x)
            return torch.relu(left) + right

    register(
        torch.ops.kiln_test.halves,
        lambda ctx, target, args, kwargs, name: torch.chunk(args[0], 2, dim=-1),
    )
    x = torch.randn(4, 16)
    compiled = compile_all(Halves(), x)
    assert len(engines_of(compiled)) == 1
    assert not torch_operators_of(compiled)
    assert_same(compiled(x), Halves()(x))


def test_constants_and_composite_operators_in_converters(register, assert_same) -> None:
    weight = torch.randn(16, 16)

    def convert(ctx, target, args, kwargs, name):
        y = torch.nn.functional.linear(args[0], weight, torch.tensor([float(i) for i in range(16)]))
        y.add_(1)
        return torch.nn.functional.layer_norm(y, (16,)) * torch.arange(16)

    register(sine_op, convert)
    model, x = Sine().eval(), torch.randn(4, 16)
    compiled = compile_all(model, x)
    assert len(engines_of(compiled)) == 1
    assert not torch_operators_of(compiled)
    y = torch.nn.functional.linear(torch.relu(model.linear(x)), weight, torch.arange(16.0)) + 1
    expected = torch.nn.functional.layer_norm(y, (16,)) * torch.arange(16) - 1
    assert_same(compiled(x), expected.detach(), rtol=1e-3, atol=1e-4)


def test_dynamic_shapes_need_a_converter_that_supports_them(register, assert_same, capsys) -> None:
    register(sine_op, convert_sine)
    model = Sine().eval()
    compiled = compile_all(model, batch_input())
    assert len(engines_of(compiled)) == 2
    compile_all(model, batch_input(), dryrun=True)
    assert "convert_sine does not support dynamic shapes" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="does not support dynamic shapes"):
        compile_all(model, batch_input(), require_full_compilation=True)
    assumed = compile_all(model, batch_input(), assume_dynamic_shape_support=True)
    assert len(engines_of(assumed)) == 1
    for batch in (1, 5):
        x = torch.randn(batch, 16)
        assert_same(assumed(x), model(x))
        assert_same(compiled(x), model(x))


def test_sizes_in_a_converter_are_symbolic(register, assert_same) -> None:
    def convert(ctx, target, args, kwargs, name):
        x, scale, shift = args
        return (torch.sin(x).reshape(x.shape[0] * 2, -1) * scale).reshape(x.shape) + shift

    register(sine_op, convert, supports_dynamic_shapes=True)
    model = Sine().eval()
    compiled = compile_all(model, batch_input())
    assert len(engines_of(compiled)) == 1
    for batch in (1, 3, 32):
        x = torch.randn(batch, 16)
        assert_same(compiled(x), model(x))


def test_validators_choose_nodes(register, assert_same) -> None:
    register(sine_op, convert_sine, capability_validator=lambda node, settings: node.args[1] == 3.0)

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            op = torch.ops.kiln_test.scaled_sine
            return torch.relu(op(torch.relu(op(x, 3.0)), 4.0))

    x = torch.randn(4, 16)
    compiled = compile_all(Twice(), x)
    left = compiled.graph.find_nodes(op="call_function", target=sine_op)
    assert [node.args[1] for node in left] == [4.0]
    assert_same(compiled(x), Twice()(x))


def test_only_high_priority_replaces_what_kiln_has(register, assert_same) -> None:
    def convert(ctx, target, args, kwargs, name):
        return torch.relu(args[0])

    x = torch.randn(4, 16)
    register(aten.gelu.default, convert)
    assert_same(compile_all(Gelu(), x)(x), Gelu()(x))
    register(aten.gelu.default, convert, priority=ConverterPriority.HIGH)
    assert_same(compile_all(Gelu(), x)(x), torch.relu(x) * 2)
    in_torch = compile_all(Gelu(), x, torch_executed_ops={"torch.ops.aten.gelu.default"})
    assert_same(in_torch(x), Gelu()(x))


def test_a_converter_may_use_its_own_operator(register, assert_same) -> None:
    def convert(ctx, target, args, kwargs, name):
        return torch.nn.functional.gelu(args[0], approximate="tanh")

    register(aten.gelu.default, convert, priority=ConverterPriority.HIGH)
    x = torch.randn(4, 16)
    compiled = compile_all(Gelu(), x)
    assert len(engines_of(compiled)) == 1
    assert_same(compiled(x), torch.nn.functional.gelu(x, approximate="tanh") * 2)


def test_converters_may_use_operators_with_converters(register, assert_same) -> None:
    def convert_gelu(ctx, target, args, kwargs, name):
        return torch.ops.kiln_test.scaled_sine(args[0], 2.0)

    register(aten.gelu.default, convert_gelu, priority=ConverterPriority.HIGH)
    register(sine_op, convert_sine)
    x = torch.randn(4, 16)
    compiled = compile_all(Gelu(), x)
    assert len(engines_of(compiled)) == 1
    assert not torch_operators_of(compiled)
    assert_same(compiled(x), torch.sin(x) * 4)


@pytest.mark.parametrize(
    ("converter", "text"),
    [
        (lambda ctx, t, args, kw, n: args[0].sum(), r"shape \[\], expected .*\[4, 16\]"),
        (lambda ctx, t, args, kw, n: args[0].double(), "float64.*, expected torch.float32"),
        (lambda ctx, t, args, kw, n: (args[0], args[0]), "got 2 results, expected 1"),
        (lambda ctx, t, args, kw, n: None, "result 0 is NoneType, expected torch.float32"),
        (lambda ctx, t, args, kw, n: ctx.net, "failed for scaled_sine: .*no network to add layers"),
        (lambda ctx, t, args, kw, n: args[0].item(), "failed for scaled_sine"),
    ],
)
def test_wrong_converters_are_errors(register, converter, text) -> None:
    register(sine_op, converter)
    with pytest.raises(ConverterError, match=text):
        compile_all(Sine().eval(), torch.randn(4, 16))


def test_whole_engines_use_converters(register) -> None:
    x = torch.randn(4, 16)
    with pytest.raises(RuntimeError, match="scaled_sine"):
        torch_tensorrt.convert_method_to_trt_engine(Sine().eval(), inputs=[x])
    register(sine_op, convert_sine)
    model = Sine().eval()
    engine = torch_tensorrt.convert_method_to_trt_engine(model, inputs=[x])
    module = torch_tensorrt.runtime.TorchTensorRTModule(engine)
    torch.testing.assert_close(module(x), model(x).detach())


def test_the_registry_knows_kilns_operators_and_the_users(register) -> None:
    assert aten.relu.default in DYNAMO_CONVERTERS
    assert aten.relu in DYNAMO_CONVERTERS
    assert "aten.relu.default" in DYNAMO_CONVERTERS
    assert sine_op not in DYNAMO_CONVERTERS
    assert DYNAMO_CONVERTERS[aten.relu.default] == []
    with pytest.raises(KeyError, match="scaled_sine"):
        DYNAMO_CONVERTERS[sine_op]
    register(sine_op, convert_sine, supports_dynamic_shapes=True)
    (support,) = DYNAMO_CONVERTERS[sine_op]
    assert support.converter_implementation is convert_sine
    assert support.supports_dynamic_shapes
    info = DYNAMO_CONVERTERS.get_converter_support_info()
    assert info["kiln_test.scaled_sine.default"] == {"Kiln": 0, "User": 1}
    assert info["aten.relu.default"] == {"Kiln": 1, "User": 0}
    assert "scaled_sine.default (User: 1)" in DYNAMO_CONVERTERS.display_all_available_converters()
    assert len(DYNAMO_CONVERTERS) == len(info) > 400
    assert DYNAMO_CONVERTERS.get("aten.no_such_op.default") is None


def test_registration_is_checked(register) -> None:
    register(sine_op, convert_sine, enabled=False)
    assert sine_op not in DYNAMO_CONVERTERS
    with pytest.raises(TypeError, match="expected an operator"):
        dynamo_tensorrt_converter("aten.relu.default")(convert_sine)
    with pytest.raises(TypeError, match="priority"):
        dynamo_tensorrt_converter(sine_op, priority=1)
    with pytest.raises(TypeError, match="no_such_option"):
        dynamo_tensorrt_converter(sine_op, no_such_option=True)
    with pytest.raises(KeyError, match="no such converter"):
        DYNAMO_CONVERTERS.unregister(sine_op)


def test_plugins_say_what_to_do() -> None:
    for function in (
        plugins.custom_op,
        plugins.generate_plugin,
        plugins.generate_plugin_converter,
    ):
        with pytest.raises(NotImplementedError, match="mylib::op.*dynamo_tensorrt_converter"):
            function("mylib::op")


def test_lowering_passes_change_the_graph(assert_same) -> None:
    @_aten_lowering_pass
    def relu_to_shifted_tanh(gm, settings):
        gm.register_buffer("shift", torch.full((16,), 0.5))
        for node in gm.graph.find_nodes(op="call_function", target=aten.relu.default):
            with gm.graph.inserting_before(node):
                shift = gm.graph.get_attr("shift")
                tanh = gm.graph.call_function(aten.tanh.default, (node.args[0],))
                new = gm.graph.call_function(aten.add.Tensor, (tanh, shift))
            node.replace_all_uses_with(new)
            gm.graph.erase_node(node)
        return gm

    try:
        assert "relu_to_shifted_tanh" in dump_lowering_passes()
        compiled = compile_all(torch.nn.ReLU(), batch_input())
    finally:
        _remove_lowering_pass(index=0)
    assert len(engines_of(compiled)) == 1
    x = torch.randn(5, 16)
    assert_same(compiled(x), torch.tanh(x) + 0.5)
    assert_same(compile_all(torch.nn.ReLU(), x)(x), torch.relu(x))


@pytest.mark.parametrize(
    ("function", "error", "text"),
    [
        (lambda gm, settings: None, TypeError, "returned NoneType, expected the GraphModule"),
        (lambda gm, settings: drop_results(gm), ValueError, "changed the number of results"),
    ],
)
def test_wrong_lowering_passes_are_errors(function, error, text) -> None:
    _aten_lowering_pass(function, index=0)
    try:
        with pytest.raises(error, match=text):
            compile_all(torch.nn.ReLU(), torch.randn(4, 16))
    finally:
        _remove_lowering_pass(index=0)


def drop_results(gm: torch.fx.GraphModule) -> torch.fx.GraphModule:
    gm.graph.output_node().args = ((),)
    return gm


def test_a_pass_may_return_another_module(assert_same) -> None:
    def copy(gm, settings):
        return torch.fx.GraphModule(gm, torch.fx.Transformer(gm).transform().graph)

    _aten_lowering_pass(copy)
    try:
        x = torch.randn(3, 16)
        model = Sine().eval()
        assert_same(compile_all(model, batch_input())(x), model(x))
    finally:
        _remove_lowering_pass(index=0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_converters_are_used_by_torch_compile(register, dynamic, caplog) -> None:
    register(sine_op, convert_sine, supports_dynamic_shapes=True)
    torch._dynamo.reset()
    model = Sine().eval()
    compiled = torch.compile(
        model, backend="torch_tensorrt", dynamic=dynamic, options={"min_block_size": 1}
    )
    with torch.no_grad(), torch_tensorrt.logging.debug():
        for batch in (4, 6):
            x = torch.randn(batch, 16)
            torch.testing.assert_close(compiled(x), model(x))
    assert "partitioning: 1 engine(s)" in caplog.text
    assert "scaled_sine" not in caplog.text.partition("partitioning:")[2]
