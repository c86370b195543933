"""The page of version 2.1, "Torchscript IR"."""

from __future__ import annotations

import pytest
import torch

import torch_tensorrt

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch_tensorrt.ts:DeprecationWarning"),
]

# The page has `compile(model, ir="ts", inputs)`, which is no Python; these are the forms that are.
FORMS = {
    "by position": lambda model, inputs: torch_tensorrt.compile(model, "ts", inputs),
    "inputs": lambda model, inputs: torch_tensorrt.compile(model, ir="ts", inputs=inputs),
    "arg_inputs": lambda model, inputs: torch_tensorrt.compile(model, ir="ts", arg_inputs=inputs),
    "ts.compile": lambda model, inputs: torch_tensorrt.ts.compile(model, inputs),
}


@pytest.mark.parametrize("compile", FORMS.values(), ids=FORMS.keys())
def test_torchscript_ir(my_model, device, assert_equal_results, compile) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)

    trt_ts = compile(model, inputs)  # Output is a ScriptModule object
    assert isinstance(trt_ts, torch.jit.ScriptModule)
    torch.jit.save(trt_ts, "trt_model.ts")

    # Later, you can load it and run inference
    model = torch.jit.load("trt_model.ts").to(device)
    assert_equal_results(model(*inputs), expected)
