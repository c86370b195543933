"""Strides of what leaves engines: what operators in PyTorch and callers see is what PyTorch itself would have given."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_small import Mlp, compile_all, engines_of, torch_operators_of, unsupported
from torch.nn import functional
from torch.utils import _pytree as pytree

import torch_tensorrt
from torch_tensorrt._operator import ResultSpec, _new_empty, execute_engine, layouts_of
from torch_tensorrt.dynamo._strides import is_dense, storage_order
from torch_tensorrt.formats import aoti

CHANNELS_LAST = torch.channels_last
_LIBRARY = torch.library.Library("kiln_test_strides", "FRAGMENT")
_LIBRARY.define("memory(Tensor x) -> Tensor")
_LIBRARY.impl("memory", lambda x: x.as_strided((x.numel(),), (1,)).clone(), "CPU")
_LIBRARY.impl("memory", lambda x: x.new_empty((x.numel(),)), "Meta")
# A custom operator that reads memory as it lies, as kernels that take a data pointer do.
memory = torch.ops.kiln_test_strides.memory


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Convolutions(torch.nn.Module):
    """Weights and therefore results are channels-last. x: [n, 3, h, w]."""

    def __init__(self, between: Callable[[torch.Tensor], Any] = torch.relu) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 4, 1)
        self.between = between
        self.to(memory_format=CHANNELS_LAST)

    def forward(self, x: torch.Tensor) -> Any:
        return self.between(self.second(torch.relu(self.first(x))))


def assert_like(got: Any, expected: Any) -> None:
    """Values, shapes, dtypes, and every stride that elements are found by."""
    leaves = zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True)
    for index, (value, wanted) in enumerate(leaves):
        assert value.dtype == wanted.dtype and value.shape == wanted.shape, f"result {index}"
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
        if wanted.numel() > 0:
            wide = [dim for dim, size in enumerate(wanted.shape) if size > 1]
            strides = [(value.stride(dim), wanted.stride(dim)) for dim in wide]
            assert all(got == want for got, want in strides), f"result {index}: {strides}"


def check(module: torch.nn.Module, x: torch.Tensor, **options: Any) -> torch.fx.GraphModule:
    module = module.eval()
    with torch.no_grad():
        compiled = compile_all(module, x, **options)
        assert_like(compiled(x), module(x))
    return compiled


X = torch.arange(24.0).reshape(2, 3, 4)
ROWS = torch.arange(6.0).reshape(2, 3)
IMAGE = torch.linspace(-1, 1, 2 * 3 * 4 * 6).reshape(2, 3, 4, 6)

# All in one engine: strides cost nothing.
DENSE = {
    "transpose": lambda x: (x + 1).transpose(0, 1),
    "permute": lambda x: (x + 1).permute(2, 0, 1),
    "in the middle": lambda x: torch.relu((x + 1).transpose(0, 2)) * 2,
    "scalar": lambda x: (x + 1).sum(),
    "reduced": lambda x: (x + 1).permute(2, 0, 1).sum(1),
    "kept": lambda x: (x + 1).permute(2, 0, 1).amax(1, keepdim=True),
    "product": lambda x: x.transpose(1, 2) @ x,
    "einsum": lambda x: torch.einsum("abc->cab", x + 1),
    "softmax": lambda x: torch.softmax((x + 1).transpose(1, 2), 1),
    "cumsum": lambda x: (x + 1).transpose(1, 2).cumsum(0),
    "two layouts": lambda x: (x + 1).transpose(1, 2) + torch.ones(2, 4, 3),
    "two layouts, other way": lambda x: torch.ones(2, 4, 3) + (x + 1).transpose(1, 2),
    "flip": lambda x: (x + 1).transpose(1, 2).flip(1),
    "expanded, then computed": lambda x: torch.relu((x + 1)[None].expand(3, 2, 3, 4)),
    "other dtype": lambda x: (x.transpose(0, 2) > 3, x.transpose(0, 2).double() * 2),
    "sizes of 1": lambda x: ((x + 1)[:1].transpose(0, 1), (x + 1).transpose(0, 1).unsqueeze(1)),
    "no elements": lambda x: ((x + 1)[:0].permute(2, 0, 1), (x + 1)[:, :0].transpose(0, 2)),
    "in place": lambda x: _changed((x + 1).transpose(0, 2)),
    "several": lambda x: [(x * 2).transpose(0, 1), x + 1, {"a": (x - 1).permute(1, 2, 0)}],
    "an input's": lambda x: (x.transpose(0, 2), x + 1),
}


def _changed(view: torch.Tensor) -> torch.Tensor:
    view.add_(1)
    view[0] = 5
    return view


@pytest.mark.parametrize("function", DENSE.values(), ids=DENSE)
def test_dense_results(function) -> None:
    compiled = check(Function(function), X)
    assert torch_operators_of(compiled) == set()


IMAGES = {
    "relu": torch.relu,
    "pool": lambda y: functional.max_pool2d(y, 2),
    "average": lambda y: functional.adaptive_avg_pool2d(y, (1, 1)),
    "resize": lambda y: functional.interpolate(y, scale_factor=2.0),
    "norm": lambda y: functional.batch_norm(y, torch.zeros(4), torch.ones(4)),
    "cat": lambda y: torch.cat([y, y * 2], 1),
    "pad": lambda y: functional.pad(y, (1, 1, 1, 1)),
    "mean": lambda y: (y.mean((2, 3)), y.mean(1, keepdim=True)),
    "tokens": lambda y: y.flatten(2).transpose(1, 2) + 1,
    "one channel": lambda y: y[:, :1].clone(memory_format=CHANNELS_LAST),
    "contiguous": lambda y: y.contiguous(),
    "clone": lambda y: y.clone(),
    "bool": lambda y: y > 0,
}


@pytest.mark.parametrize("between", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("given", [CHANNELS_LAST, torch.contiguous_format])
def test_channels_last(between, batch, given) -> None:
    compiled = check(Convolutions(between), IMAGE[:batch].contiguous(memory_format=given))
    assert torch_operators_of(compiled) == set()


def test_channels_last_3d() -> None:
    check(
        Function(lambda x: torch.relu(x * 2)),
        torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
    )


# Views that the engine does not make: it gives what they are views of.
VIEWS = {
    "expand": lambda x: (x + 1)[:, None].expand(2, 5, 3, 4),
    "expand first": lambda x: (x + 1)[None].expand(5, 2, 3, 4),
    "chunk": lambda x: (x + 1).chunk(2, -1),
    "split": lambda x: (x + 1).split([1, 2], 1),
    "unbind": lambda x: (x + 1).unbind(1),
    "unfold": lambda x: (x + 1).unfold(2, 2, 1),
    "queries and keys": lambda x: (x + 1).view(2, 3, 2, 2).permute(2, 0, 1, 3).unbind(0),
    "all and parts": lambda x: _parts(x + 1),
}


def _parts(y: torch.Tensor) -> Any:
    return y, y.expand(3, 2, 3, 4), y[0] * 2, y.view(-1)


@pytest.mark.parametrize("function", VIEWS.values(), ids=VIEWS)
def test_views_that_are_not_dense(function) -> None:
    compiled = check(Function(function), X, require_full_compilation=True)
    assert len(engines_of(compiled)) == 1


LEFT_OUT = {
    "step": lambda y: y[:, :, ::2],
    "select": lambda y: y[:, 1],
    "diagonal": lambda y: y.diagonal(dim1=1, dim2=2),
    "transposed": lambda y: y.permute(2, 0, 1)[:, :, 1:],
}


@pytest.mark.parametrize("function", LEFT_OUT.values(), ids=LEFT_OUT)
def test_views_that_leave_elements_out_come_without_gaps(function) -> None:
    """An engine computes only what is asked for (docs/saving.md)."""
    compiled = compile_all(Function(lambda x: function(x + 1)), X)
    result, view = compiled(X), function(X + 1)
    assert torch.equal(result, view) and is_dense(result)
    wide = [dim for dim in range(view.dim()) if view.shape[dim] > 1]
    order = sorted(wide, key=lambda dim: -view.stride(dim))
    assert sorted(wide, key=lambda dim: -result.stride(dim)) == order
    assert torch_operators_of(compiled) == set()


# Operators in PyTorch that look at strides, or at memory that their argument is a part of.
LOOKING = {
    "transposed": lambda x: (x + 1).t().as_strided((3, 2), (1, 3)),
    "own strides": lambda x: _own_strides((x + 1).t()),
    "offset": lambda x: (x + 1)[1:].as_strided((2, 2), (1, 1), 0),
    "own offset": lambda x: (x + 1)[1:].as_strided((2,), (1,)),
    "gaps": lambda x: (x + 1)[:, ::2].as_strided((2, 3), (3, 1)),
    "expanded": lambda x: (x + 1)[None].expand(4, 2, 3).as_strided((2, 3), (3, 1)),
    "chunk": lambda x: (x + 1).chunk(2, 0)[1].as_strided((2,), (1,)) * 2,
    "overlapping": lambda x: (x + 1).view(-1).as_strided((3, 4), (1, 1)) + 1,
    "view of a view": lambda x: (x + 1).t()[1:].t().as_strided((2, 2), (3, 1), 1),
    "between engines": lambda x: torch.relu((x - 3).t().as_strided((3, 2), (1, 3)).t() * 2) + 1,
    "scatter": lambda x: torch.as_strided_scatter((x + 1).t(), torch.zeros(2), (2,), (1,)),
    "custom": lambda x: memory((x + 1).t()) * 2,
    "custom and more": lambda x: (memory((x + 1).t()), (x + 1).t() * 3, memory(x + 1)),
    "custom on an input": lambda x: memory(x.t()) + 1,
    "custom on a copy": lambda x: memory((x + 1).t().contiguous()) + 1,
    "custom, changed": lambda x: memory(_changed((x + 1).t())) + 1,
    "custom on columns": lambda x: memory((x + 1)[:, :1].t()) + 1,
    "after PyTorch": lambda x: memory(unsupported((x + 1).t())) + 1,
    "cond": lambda x: torch.cond(x.sum() > 0, _rows, _rows_twice, ((x + 1).t(),)),
}


def _own_strides(y: torch.Tensor) -> torch.Tensor:
    return y.as_strided((3, 2), (y.stride(0), y.stride(1))) + 1


def _rows(y: torch.Tensor) -> torch.Tensor:
    return y.as_strided((2, 3), (3, 1)) + 1


def _rows_twice(y: torch.Tensor) -> torch.Tensor:
    return y.as_strided((2, 3), (3, 1)) * 2


@pytest.mark.parametrize("function", LOOKING.values(), ids=LOOKING)
def test_operators_that_look_at_memory(function) -> None:
    check(Function(function), ROWS)
    if function is not LOOKING["overlapping"]:  # its `view` needs rows
        check(Function(function), ROWS.t().contiguous().t() + 0.5)


def test_a_custom_operator_between_convolutions() -> None:
    check(Convolutions(lambda y: memory(y).view(y.shape) * 2), IMAGE)


def test_weights_that_pytorch_keeps() -> None:
    """Their copies have the strides of the originals."""

    class Weights(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("transposed", torch.arange(6.0).view(2, 3).t())
            self.register_buffer("gaps", torch.arange(12.0).view(2, 6)[:, ::2])

        def forward(self, x: torch.Tensor) -> Any:
            return x + memory(self.transposed).view(2, 3), self.gaps.as_strided((4,), (1,)) * 2

    check(Weights(), ROWS)


DIM = torch.export.Dim


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + 1).permute(2, 0, 1),
        lambda x: (x + 1).flatten(1).t(),
        lambda x: (x + 1)[:, None].expand(x.shape[0], 5, 3, x.shape[2]),
        lambda x: (x + 1).transpose(1, 2).unsqueeze(0).as_strided((x.shape[2], 3), (1, x.shape[2])),
        lambda x: memory((x + 1).transpose(0, 2)) * 2,
        lambda x: memory((x + 1).repeat(1, 1, 2).transpose(0, 2)) * 2,
        lambda x: (x + 1).unbind(1),
    ],
)
def test_dynamic_sizes(function) -> None:
    module = Function(function).eval()
    sizes = {"x": {0: DIM("a", min=1, max=16), 2: DIM("b", min=2, max=64)}}
    program = torch.export.export(module, (X,), dynamic_shapes=sizes)
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=[X], min_block_size=1)
    assert len(engines_of(compiled)) >= 1
    for a, b in ((2, 4), (1, 2), (16, 64), (5, 3)):
        x = torch.randn(a, 3, b)
        assert_like(compiled(x), module(x))


def test_dynamic_images() -> None:
    module = Convolutions().eval()
    sizes = {"x": {0: DIM("n", min=1, max=8), 2: DIM("h", min=4, max=32), 3: DIM("w", min=4)}}
    program = torch.export.export(module, (IMAGE,), dynamic_shapes=sizes)
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=[IMAGE], min_block_size=1)
    for shape in ((2, 3, 4, 6), (1, 3, 32, 5), (8, 3, 7, 7)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert_like(compiled(x), module(x))


def test_inputs_with_other_strides() -> None:
    """Strides of results are those of the export; numbers do not depend on the inputs' strides."""
    compiled = compile_all(Function(lambda x: (x + 1).transpose(0, 2)), X)
    for x in (X.permute(2, 1, 0).contiguous().permute(2, 1, 0), torch.randn(2, 3, 8)[..., ::2]):
        result = compiled(x)
        assert torch.equal(result, (x + 1).transpose(0, 2))
        assert result.stride() == (1, 4, 12)


class Everything(torch.nn.Module):
    """Every kind of stride at once, one operator that looks at memory, and sizes that vary. x: [n, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 6)
        self.register_buffer("table", torch.arange(12.0).view(2, 6).t())

    def forward(self, x: torch.Tensor) -> Any:
        y = self.linear(x)
        z = y.view(-1, 2, 3).permute(2, 0, 1)
        looked = y.t().as_strided((x.shape[0], 6), (6, 1)) * 2
        table = self.table.as_strided((2, 6), (6, 1)).sum(0)
        return {"t": y.t(), "z": z * 2, "e": y[None].expand(3, -1, 6)}, looked.relu() + table, z


class AllInEngines(torch.nn.Module):
    """No operator of PyTorch's, but for an expansion. x: [n, 6]."""

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.relu(x) + 1
        return y.t(), y.view(-1, 3, 2).transpose(1, 2) * 2, y[:, None].expand(-1, 4, 6), x - 1


def save_and_load(
    compiled: Any, inputs: list[Any], folder: Any, container: str
) -> Callable[..., Any]:
    path = folder / f"model.{container[:3].strip()}"
    options: dict[str, Any] = {"arg_inputs": inputs}
    if container.startswith("ep"):
        options["retrace"] = "retraced" in container
    else:
        options["output_format"] = "torchscript" if container == "ts" else "aot_inductor"
    torch_tensorrt.save(compiled, path, **options)
    if container.endswith("torch.export.load"):
        with open(path, "rb") as file:
            return torch.export.load(file).module()
    return torch_tensorrt.load(path)


@pytest.mark.parametrize("module", [Everything, AllInEngines])
@pytest.mark.parametrize(
    "container", ["ep", "ep retraced", "ep torch.export.load", "ts", "pt2", "pt2 uncompiled"]
)
def test_every_format(module, container, tmp_path, monkeypatch) -> None:
    if container == "pt2 uncompiled" or module is AllInEngines:  # the latter never needs one
        monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    model = module().eval()
    inputs = [torch_tensorrt.Input(min_shape=(2, 6), opt_shape=(4, 6), max_shape=(32, 6), name="x")]
    with torch.no_grad():
        compiled = compile_all(model, *inputs)
        loaded = save_and_load(compiled, inputs, tmp_path, container)
        for batch in (2, 4, 5, 32):
            x = torch.randn(batch, 6)
            expected = model(x)
            assert_like(compiled(x), expected)
            assert_like(loaded(x), expected)


@pytest.mark.parametrize("module", [Everything, AllInEngines, Convolutions])
@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile(module, dynamic) -> None:
    torch._dynamo.reset()
    model = module().eval()
    compiled = torch.compile(
        model, backend="torch_tensorrt", dynamic=dynamic, options={"min_block_size": 1}
    )
    inputs = [IMAGE, IMAGE[:1]] if module is Convolutions else [torch.randn(n, 6) for n in (4, 3)]
    with torch.no_grad():
        for x in inputs:
            assert_like(compiled(x), model(x))


def test_views_of_a_result_with_torch_compile() -> None:
    """AOTAutograd makes views of results itself, from strides that it knows."""
    torch._dynamo.reset()
    model = Convolutions(lambda y: (y, y[0], y.permute(1, 0, 2, 3), y.flatten(2))).eval()
    compiled = torch.compile(model, backend="torch_tensorrt", options={"min_block_size": 1})
    with torch.no_grad():
        assert_like(compiled(IMAGE), model(IMAGE))


def test_results_that_are_allocated_before() -> None:
    """`enable_pre_allocated_outputs`: memory that the call before allocated, with the same strides."""
    model = Convolutions().eval()
    with torch.no_grad():
        compiled = compile_all(model, IMAGE)
        with torch_tensorrt.runtime.enable_pre_allocated_outputs(compiled):
            results = [compiled(IMAGE * times) for times in range(4)]
        for times, result in enumerate(results):
            assert_like(result, model(IMAGE * times))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("module", [Everything, AllInEngines, Convolutions])
def test_refit(module, in_place) -> None:
    x = IMAGE if module is Convolutions else torch.randn(4, 6)
    old, new = module().eval(), module().eval()
    with torch.no_grad():
        compiled = compile_all(old, x, immutable_weights=False)
        program = torch.export.export(new, (x,))
        refitted = torch_tensorrt.dynamo.refit_module_weights(
            compiled, program, arg_inputs=[x], verify_output=True, in_place=in_place
        )
        assert_like(refitted(x), new(x))
        assert refitted.engine_0.equal(compile_all(new, x, immutable_weights=False).engine_0)


def test_the_engine_cache(tmp_path) -> None:
    """The same values in another layout are another engine."""
    options = {"cache_built_engines": True, "reuse_cached_engines": True}
    for function in (lambda x: x + 1, lambda x: (x + 1).transpose(0, 2).clone().transpose(0, 2)):
        for _ in range(2):
            check(Function(function), X, engine_cache_dir=str(tmp_path), **options)


def test_views_of_results_work_where_they_work_in_pytorch() -> None:
    model = Function(lambda x: (x + 1).t())
    result = compile_all(model, ROWS)(ROWS)
    with pytest.raises(RuntimeError, match="view"):
        result.view(-1)
    assert not result.is_contiguous() and result.t().is_contiguous()
    images = compile_all(Convolutions().eval(), IMAGE)(IMAGE)
    assert images.is_contiguous(memory_format=CHANNELS_LAST) and not images.is_contiguous()


def test_bad_layouts_of_the_operator() -> None:
    compiled = compile_all(Mlp().eval(), torch.randn(3, 16))
    for spec in (
        "f32[3,8]{0}",
        "f32[3,8]{0,0}",
        "f32[3,8]{2,0}",
        "f32[3,8]{0,1,2}",
        "f32[3,8]{",
        ";{0,1}",
    ):
        with pytest.raises(RuntimeError, match="layout"):
            execute_engine([torch.randn(3, 16)], compiled.engine_0, spec)
    with pytest.raises(ValueError, match="order 0,0"):
        execute_engine(
            [torch.empty(3, 16, device="meta")], compiled.engine_0.to("meta"), "f32[3,8]{0,0}"
        )


def test_layouts_of_a_spec() -> None:
    assert layouts_of("") == "" and layouts_of("f32[2,i0_0];i64[]") == ""
    assert layouts_of("max i0_0 3|f32[2,#0]{1,0};i64[]") == "{1,0};"


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (3,),
        (2, 3),
        (1, 3),
        (3, 1),
        (2, 0),
        (2, 3, 4),
        (2, 1, 3),
        (1, 1, 2),
        (2, 1, 3, 1),
        (0, 3, 2),
        (2, 3, 4, 5),
    ],
)
def test_orders_of_dense_tensors(shape) -> None:
    """For every order of dimensions, the strides made from it are those that PyTorch gives."""
    for dims in itertools.permutations(range(len(shape))):
        tensor = torch.empty([shape[dim] for dim in dims]).permute(
            [dims.index(dim) for dim in range(len(shape))]
        )
        order = storage_order(tensor)
        assert is_dense(tensor)
        result = ResultSpec(torch.float32, (), order)
        made = _new_empty(torch.empty(0), torch.device("cpu"), tuple(shape), result)
        assert made.stride() == tensor.stride()
        if tensor.is_contiguous() and tensor.stride() == torch.empty(shape).stride():
            assert order == ()


def test_what_is_not_dense() -> None:
    x = torch.empty(4, 6)
    for view in (
        x[:, ::2],
        x[:2, :3],
        x[1:],
        x[None].expand(2, 4, 6),
        x.unfold(1, 2, 1),
        x.diagonal(),
    ):
        assert not is_dense(view)
    for view in (x.t(), x[:2], x[:0, ::2], x[None], x.view(2, 2, 6).permute(2, 0, 1)):
        assert is_dense(view)


def test_longformer() -> None:
    """transformers' own layer makes overlapping chunks of its heads with as_strided."""
    modeling = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    config = modeling.LongformerConfig(
        attention_window=[4], hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = modeling.LongformerSelfAttention(config, layer_id=0)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            flags = {"is_index_masked": mask < 0, "is_index_global_attn": mask > 0}
            return self.attention(x, mask, is_global_attn=False, **flags)[0] * 2

    layer = Layer().eval()
    x, mask = torch.randn(2, 16, 16), torch.zeros(2, 16)
    mask[1, 12:] = -10000
    with torch.no_grad():
        program = torch.export.export(layer, (x, mask))
        for outside in (set(), {torch.ops.aten.as_strided.default}):
            compiled = torch_tensorrt.dynamo.compile(
                program, arg_inputs=(x, mask), min_block_size=1, torch_executed_ops=outside
            )
            assert ("aten.as_strided.default" in torch_operators_of(compiled)) == bool(outside)
            assert_like(compiled(x, mask), layer(x, mask))


def test_results_that_are_no_views_come_dense() -> None:
    """PyTorch's meshgrid gives expanded tensors, which no operator outside of an engine makes."""
    x = torch.arange(3.0)
    module = Function(lambda x: torch.meshgrid(x, x + 1, indexing="ij"))
    compiled = torch_tensorrt.dynamo.compile(
        torch.export.export(module, (x,), strict=False),
        arg_inputs=(x,),
        require_full_compilation=True,
        min_block_size=1,
    )
    for got, expected in zip(compiled(x), module(x), strict=True):
        assert torch.equal(got, expected) and is_dense(got)
