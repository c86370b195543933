"""Today's page, "Loading the models": one function for every format."""

from __future__ import annotations

import pytest
import torch

import torch_tensorrt

FORMATS = {"trt.ep": "exported_program", "trt.ts": "torchscript", "trt.pt2": "aot_inductor"}


@pytest.mark.parametrize("file_path", FORMATS)
def test_loading_the_models(my_model, device, assert_equal_results, file_path) -> None:
    source = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    trt_gm = torch_tensorrt.compile(source, ir="dynamo", arg_inputs=inputs)
    torch_tensorrt.save(trt_gm, file_path, output_format=FORMATS[file_path], arg_inputs=inputs)

    # file_path can be trt.ep or trt.ts file obtained via saving the model
    model = torch_tensorrt.load(file_path).module()
    assert_equal_results(model(*inputs), source(*inputs))
    model = torch_tensorrt.load(file_path)
    assert_equal_results(model(*inputs), source(*inputs))


def test_without_a_path_the_error_says_so() -> None:
    with pytest.raises((TypeError, ValueError), match="path"):
        torch_tensorrt.load()
