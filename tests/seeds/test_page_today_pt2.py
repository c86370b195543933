"""Today's page, "b) PT2 Format (AOTInductor)"."""

from __future__ import annotations

import torch

import torch_tensorrt


def test_b_pt2_format(my_model, device, assert_equal_results) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)

    trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)
    torch_tensorrt.save(
        trt_gm, "trt.pt2", arg_inputs=inputs, output_format="aot_inductor", retrace=True
    )

    # Load without Torch-TensorRT at inference time: tests/python/formats/aot_inductor/test_fresh_process.py does so,
    # in an environment that has nothing of this project.
    model = torch._inductor.aoti_load_package("trt.pt2")
    assert_equal_results(model(*inputs), expected)
