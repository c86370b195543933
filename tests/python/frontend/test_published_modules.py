"""Modules by the names that scripts written for Torch-TensorRT import them by."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys

import pytest
import torch

import torch_tensorrt
from torch_tensorrt import Input
from torch_tensorrt._utils import is_tensorrt_version_supported
from torch_tensorrt.dynamo import lowering
from torch_tensorrt.dynamo._tracer import get_dynamic_shapes_args
from torch_tensorrt.dynamo.lowering import get_decompositions, post_lowering, pre_export_lowering
from torch_tensorrt.dynamo.lowering.passes import (
    _aten_lowering_pass,
    _remove_lowering_pass,
    clean_up_graph_after_modifications,
)
from torch_tensorrt.dynamo.utils import get_torch_tensor

X = torch.tensor([[-1.0, 0.0, 2.0], [3.0, -4.0, 5.0]])


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2


@pytest.mark.parametrize(
    ("module", "name", "same"),
    [
        ("_Input", "Input", torch_tensorrt.Input),
        ("_Device", "Device", torch_tensorrt.Device),
        (
            "dynamo.conversion._ConverterRegistry",
            "DYNAMO_CONVERTERS",
            torch_tensorrt.dynamo.conversion.DYNAMO_CONVERTERS,
        ),
        (
            "dynamo.conversion._ConverterRegistry",
            "DYNAMO_ATEN_CONVERTERS",
            torch_tensorrt.dynamo.conversion.DYNAMO_CONVERTERS._converters,
        ),
        (
            "dynamo.conversion._ConversionContext",
            "ConversionContext",
            torch_tensorrt.dynamo.conversion.ConversionContext,
        ),
        ("runtime._runtime_cache", "RuntimeCache", torch_tensorrt.runtime.RuntimeCache),
        (
            "dynamo.runtime._TorchTensorRTModule",
            "TorchTensorRTModule",
            torch_tensorrt.runtime.TorchTensorRTModule,
        ),
        (
            "dynamo.runtime._PythonTorchTensorRTModule",
            "PythonTorchTensorRTModule",
            torch_tensorrt.dynamo.runtime.PythonTorchTensorRTModule,
        ),
        (
            "dynamo.runtime._MutableTorchTensorRTModule",
            "MutableTorchTensorRTModule",
            torch_tensorrt.MutableTorchTensorRTModule,
        ),
        (
            "dynamo.lowering.passes._aten_lowering_pass",
            "_aten_lowering_pass",
            _aten_lowering_pass,
        ),
        (
            "dynamo.lowering.passes.pass_utils",
            "clean_up_graph_after_modifications",
            clean_up_graph_after_modifications,
        ),
    ],
)
def test_the_same_object_by_either_module(module, name, same) -> None:
    assert getattr(importlib.import_module(f"torch_tensorrt.{module}"), name) is same


def test_there_is_one_runtime() -> None:
    compiled = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        torch.export.export(Doubled(), (X,)), [X]
    )
    module = torch_tensorrt.dynamo.runtime.PythonTorchTensorRTModule(compiled, ["x"], ["output0"])
    assert isinstance(module, torch_tensorrt.runtime.TorchTensorRTModule)
    assert torch.equal(module(X), Doubled()(X))


def test_a_module_does_not_take_the_place_of_a_name() -> None:
    assert inspect.isfunction(lowering.passes._aten_lowering_pass)


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("fx", "ir='dynamo'"),
        ("fx.tracer", "ir='dynamo'"),
        ("kernels", "kiln.register_kernel"),
        ("distributed", "torch.distributed"),
        ("executorch", "output_format"),
        ("dynamo.partitioning", "dryrun=True"),
        ("dynamo.partitioning._hierarchical_partitioner", "dryrun=True"),
        ("dynamo.conversion.impl", "dynamo_tensorrt_converter"),
        ("dynamo.conversion.converter_utils", "dynamo_tensorrt_converter"),
        ("dynamo.conversion.aten_ops_converters", "DYNAMO_CONVERTERS"),
        ("dynamo.types", "dynamo_tensorrt_converter"),
    ],
)
def test_modules_that_are_not_here_say_what_to_use(module, advice) -> None:
    with pytest.raises(ImportError, match=advice):
        importlib.import_module(f"torch_tensorrt.{module}")
    parent, _, name = f"torch_tensorrt.{module}".rpartition(".")
    with pytest.raises(ImportError, match=advice):
        exec(f"from {parent} import {name}")


def test_modules_that_nobody_has_stay_pythons_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'torch_tensorrt\.nothing'"):
        importlib.import_module("torch_tensorrt.nothing")
    assert importlib.util.find_spec("torch_tensorrt.nothing") is None
    assert "torch_tensorrt.fx" not in sys.modules


def test_steps_one_by_one_are_those_of_compile(assert_same) -> None:
    def double_sums(gm, settings):
        assert isinstance(settings, torch_tensorrt.dynamo.CompilationSettings)
        for node in gm.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor):
            node.target = torch.ops.aten.add.Tensor
        unused = gm.graph.nodes.__iter__().__next__()
        with gm.graph.inserting_after(unused):
            gm.graph.call_function(torch.ops.aten.neg.default, (unused,))
        return clean_up_graph_after_modifications(gm)

    program = pre_export_lowering(torch.export.export(Doubled(), (X,)))
    gm = program.run_decompositions(get_decompositions()).module()
    assert post_lowering(gm) is gm
    assert_same(gm(X), Doubled()(X))
    _aten_lowering_pass(double_sums, index=0)
    try:
        assert_same(post_lowering(gm)(X), torch.relu(X) + 2)
    finally:
        _remove_lowering_pass(index=0)
    assert not gm.graph.find_nodes(op="call_function", target=torch.ops.aten.neg.default)


def test_a_pass_that_returns_no_module_is_named() -> None:
    def broken(gm, settings):
        return None

    _aten_lowering_pass(broken, index=0)
    try:
        with pytest.raises(TypeError, match="broken returned NoneType"):
            post_lowering(torch.export.export(Doubled(), (X,)).module())
    finally:
        _remove_lowering_pass(index=0)


def test_operators_stay_whole_in_the_table_of_decompositions() -> None:
    program = torch.export.export(torch.nn.Linear(3, 2), (X,))
    decomposed = program.run_decompositions(get_decompositions(decompose_attention=True))
    targets = {node.target for node in decomposed.graph.nodes if node.op == "call_function"}
    assert targets == {torch.ops.aten.linear.default}


def test_dynamic_shapes_of_positional_inputs() -> None:
    batch = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(8, 3))
    shapes = get_dynamic_shapes_args(Doubled(), [batch])
    program = torch.export.export(Doubled(), (X,), dynamic_shapes=shapes)
    assert program.module()(torch.ones(7, 3)).shape == (7, 3)
    fixed = get_dynamic_shapes_args(Doubled(), [X])
    assert fixed == {"x": None}
    torch.export.export(Doubled(), (X,), dynamic_shapes=fixed)


def test_the_example_of_one_input() -> None:
    batch = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(8, 3), dtype=torch.int64)
    assert get_torch_tensor(batch, "cpu", "max_shape").shape == (8, 3)
    assert get_torch_tensor(batch, None).dtype == torch.int64
    assert get_torch_tensor(Input.from_tensor(X), "cpu").shape == X.shape


def test_there_is_no_version_of_tensorrt() -> None:
    assert not is_tensorrt_version_supported("8.0.0")


def test_a_strategy_of_resources_changes_no_result() -> None:
    compiled = torch_tensorrt.compile(Doubled().eval(), inputs=[X], min_block_size=1)
    strategy = torch_tensorrt.dynamo.runtime.ResourceAllocationStrategy
    for dynamic in (True, False):
        with strategy(compiled, dynamically_allocate_resources=dynamic):
            assert compiled(X).equal(Doubled()(X))
    assert compiled(X).equal(Doubled()(X))
    with pytest.raises(TypeError, match="expected a compiled torch.nn.Module"):
        strategy(compiled.forward)
