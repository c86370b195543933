"""Today's page: "b) Torchscript", "Torchscript IR", and "Loading the models" for files of TorchScript."""

from __future__ import annotations

import pytest
import torch

import torch_tensorrt

# PyTorch says of torch.jit that it is deprecated wherever the page calls it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def test_b_torchscript(my_model, device, assert_equal_results) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)

    # trt_gm is a torch.fx.GraphModule object
    trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)
    torch_tensorrt.save(trt_gm, "trt.ts", output_format="torchscript", arg_inputs=inputs)

    # Later, you can load it and run inference
    model = torch.jit.load("trt.ts").to(device)
    assert_equal_results(model(*inputs), expected)


def test_torchscript_ir(my_model, device, assert_equal_results) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)

    trt_ts = torch_tensorrt.compile(model, ir="ts", arg_inputs=inputs)  # Output is a ScriptModule
    assert isinstance(trt_ts, torch.jit.ScriptModule)
    torch.jit.save(trt_ts, "trt_model.ts")

    # Later, you can load it and run inference
    model = torch.jit.load("trt_model.ts").to(device)
    assert_equal_results(model(*inputs), expected)


def test_loading_the_models(my_model, device, assert_equal_results) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)
    trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)
    torch_tensorrt.save(trt_gm, "trt.ts", output_format="torchscript", arg_inputs=inputs)

    # file_path can be trt.ep or trt.ts file obtained via saving the model
    model = torch_tensorrt.load("trt.ts").module()
    assert_equal_results(model(*inputs), expected)
