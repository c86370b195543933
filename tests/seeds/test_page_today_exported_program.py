"""Today's page, "Dynamo IR": a) ExportedProgram, and its two ways of saving dynamic shapes."""

from __future__ import annotations

import pytest
import torch

import torch_tensorrt


def test_a_exported_program(my_model, device, assert_equal_results) -> None:
    model = my_model().eval().to(device)
    inputs = [torch.randn((1, 3, 224, 224)).to(device)]
    expected = model(*inputs)

    # trt_ep is a torch.fx.GraphModule object
    trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)
    assert isinstance(trt_gm, torch.fx.GraphModule)
    torch_tensorrt.save(trt_gm, "trt.ep", arg_inputs=inputs)

    # Later, you can load it and run inference
    model = torch.export.load("trt.ep").module()
    assert_equal_results(model(*inputs), expected)


def test_method_1_torch_export_dim(my_model, device, assert_equal_results) -> None:
    model = my_model().eval().to(device)
    example_input = torch.randn((2, 3, 224, 224)).to(device)

    # Define dynamic batch dimension
    dyn_batch = torch.export.Dim("batch", min=1, max=32)
    dynamic_shapes = {"x": {0: dyn_batch}}

    # Export with dynamic shapes
    exp_program = torch.export.export(
        model, (example_input,), dynamic_shapes=dynamic_shapes, strict=False
    )

    # Compile with dynamic input specifications
    trt_gm = torch_tensorrt.dynamo.compile(
        exp_program,
        arg_inputs=[
            torch_tensorrt.Input(
                min_shape=(1, 3, 224, 224),
                opt_shape=(8, 3, 224, 224),
                max_shape=(32, 3, 224, 224),
            )
        ],
    )

    # Save with dynamic_shapes to preserve dynamic behavior
    torch_tensorrt.save(
        trt_gm,
        "trt_dynamic.ep",
        arg_inputs=[example_input],
        dynamic_shapes=dynamic_shapes,  # Same as used during export
    )
    check_other_batches(model, device, assert_equal_results)


def test_method_2_torch_tensorrt_input(my_model, device, assert_equal_results) -> None:
    model = my_model().eval().to(device)

    # Define Input with dynamic shapes
    inputs = [
        torch_tensorrt.Input(
            min_shape=(1, 3, 224, 224),
            opt_shape=(8, 3, 224, 224),
            max_shape=(32, 3, 224, 224),
            dtype=torch.float32,
            name="x",  # Optional: provides better dimension naming
        )
    ]

    # Compile with Torch-TensorRT
    trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)

    # Save with Input objects - dynamic_shapes inferred automatically!
    torch_tensorrt.save(
        trt_gm,
        "trt_dynamic.ep",
        arg_inputs=inputs,  # Dynamic shapes inferred from Input objects
    )
    check_other_batches(model, device, assert_equal_results)


def check_other_batches(model, device, assert_equal_results) -> None:
    # Load and use with different batch sizes
    loaded_model = torch_tensorrt.load("trt_dynamic.ep").module()
    for batch in (4, 16, 1, 32):
        x = torch.randn(batch, 3, 224, 224).to(device)
        assert_equal_results(loaded_model(x), model(x))
    with pytest.raises(RuntimeError, match=r"33"):
        loaded_model(torch.randn(33, 3, 224, 224).to(device))
