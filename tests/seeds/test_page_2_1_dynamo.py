"""The page of version 2.1, "Dynamo IR": a) Converting to Torchscript, b) ExportedProgram."""

from __future__ import annotations

import pytest
import torch

import torch_tensorrt

# PyTorch says of torch.jit that it is deprecated wherever the page calls it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

# The page has `compile(model, ir="dynamo", inputs)`, which is no Python; these are the forms that are.
FORMS = {
    "by position": lambda model, inputs: torch_tensorrt.compile(model, "dynamo", inputs),
    "inputs": lambda model, inputs: torch_tensorrt.compile(model, ir="dynamo", inputs=inputs),
    "arg_inputs": lambda model, inputs: torch_tensorrt.compile(
        model, ir="dynamo", arg_inputs=inputs
    ),
}


@pytest.mark.parametrize("compile", FORMS.values(), ids=FORMS.keys())
def test_a_converting_to_torchscript(my_model, device, assert_equal_results, compile) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)

    trt_gm = compile(model, inputs)  # Output is a torch.fx.GraphModule
    assert isinstance(trt_gm, torch.fx.GraphModule)
    trt_traced_model = torch.jit.trace(trt_gm, inputs)
    torch.jit.save(trt_traced_model, "trt_model.ts")

    # Later, you can load it and run inference
    model = torch.jit.load("trt_model.ts").to(device)
    assert_equal_results(model(*inputs), expected)


@pytest.mark.parametrize("by_position", [True, False])
def test_b_exported_program(my_model, device, assert_equal_results, by_position) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)

    exp_program = torch_tensorrt.dynamo.trace(model, inputs)
    trt_gm = torch_tensorrt.dynamo.compile(exp_program, inputs)  # a torch.fx.GraphModule
    assert isinstance(trt_gm, torch.fx.GraphModule)
    # Transform and create an exported program
    if by_position:
        trt_exp_program = torch_tensorrt.dynamo.export(
            trt_gm, inputs, exp_program.call_spec, ir="exported_program"
        )
    else:
        trt_exp_program = torch_tensorrt.dynamo.export(
            trt_gm, inputs, call_spec=exp_program.call_spec, ir="exported_program"
        )
    torch.export.save(trt_exp_program, "trt_model.ep")

    # Later, you can load it and run inference. The page calls the program itself, which PyTorch has not allowed since
    # 2.3: either `.module()` is, or what torch_tensorrt.load gives.
    model = torch.export.load("trt_model.ep").module()
    assert_equal_results(model(*inputs), expected)
    model = torch_tensorrt.load("trt_model.ep")
    assert_equal_results(model(*inputs), expected)


def test_b_export_to_torchscript(my_model, device, assert_equal_results) -> None:
    """The other `ir` of `dynamo.export`, which was its default then."""
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)
    exp_program = torch_tensorrt.dynamo.trace(model, inputs)
    trt_gm = torch_tensorrt.dynamo.compile(exp_program, inputs)
    trt_ts = torch_tensorrt.dynamo.export(trt_gm, inputs, exp_program.call_spec, ir="torchscript")
    assert isinstance(trt_ts, torch.jit.ScriptModule)
    assert_equal_results(trt_ts(*inputs), expected)


class BlocksInPyTorch(torch.nn.Module):
    """Submodules of which some run in engines and some in PyTorch, one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        self.middle = torch.nn.ModuleList(torch.nn.Conv2d(4, 4, 1) for _ in range(2))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        for layer in (*self.middle, self.middle[0]):
            y = layer(y)
            y = torch.ops.aten.tanh_backward(y, y)  # only training needs it
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize(
    "options", [{}, {"torch_executed_ops": {"aten.convolution", "aten.conv2d"}}]
)
def test_b_no_submodules_in_a_saved_program(device, assert_equal_results, options) -> None:
    """Submodules are inlined: a saved program has no `call_module` (pytorch/TensorRT#2341)."""
    model = BlocksInPyTorch().eval().to(device)
    inputs = [torch.randn((2, 3, 8, 8)).to(device)]
    expected = model(*inputs)
    exp_program = torch_tensorrt.dynamo.trace(model, inputs)
    trt_gm = torch_tensorrt.dynamo.compile(exp_program, inputs, min_block_size=1, **options)
    targets = {str(node.target) for node in trt_gm.graph.nodes}
    assert "aten.tanh_backward.default" in targets
    assert "kiln.execute_engine.default" in targets
    assert bool(options) == any("conv" in target for target in targets)
    program = torch_tensorrt.dynamo.export(trt_gm, inputs, exp_program.call_spec)
    torch.export.save(program, "trt_model.ep")

    loaded = torch.export.load("trt_model.ep")
    for graph_module in (program.graph_module, loaded.graph_module):
        assert not graph_module.graph.find_nodes(op="call_module")
    assert_equal_results(loaded.module()(*inputs), expected)
