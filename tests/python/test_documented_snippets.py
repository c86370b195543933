"""The snippets of Torch-TensorRT's page "Saving models compiled with Torch-TensorRT", as users copy them.

On machines without a GPU they are run without `.cuda()`; nothing else is changed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


class MyModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 7, stride=4)
        self.norm = torch.nn.BatchNorm2d(8)
        self.pool = torch.nn.MaxPool2d(3)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(torch.relu(self.norm(self.conv(x)))).mean((2, 3)))


HEAD = """
import torch
import torch_tensorrt
model = MyModel().eval().cuda()
"""

EXPORTED_PROGRAM = (
    HEAD
    + """
inputs = [torch.randn((1, 3, 224, 224)).cuda()]
# trt_ep is a torch.fx.GraphModule object
trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)
torch_tensorrt.save(trt_gm, "trt.ep", arg_inputs=inputs)

# Later, you can load it and run inference
model = torch.export.load("trt.ep").module()
result = model(*inputs)
"""
)

EXPLICIT_DIMENSIONS = (
    HEAD
    + """
example_input = torch.randn((2, 3, 224, 224)).cuda()
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
    arg_inputs=[torch_tensorrt.Input(
        min_shape=(1, 3, 224, 224),
        opt_shape=(8, 3, 224, 224),
        max_shape=(32, 3, 224, 224),
    )]
)
# Save with dynamic_shapes to preserve dynamic behavior
torch_tensorrt.save(
    trt_gm,
    "trt_dynamic.ep",
    arg_inputs=[example_input],
    dynamic_shapes=dynamic_shapes  # Same as used during export
)
# Load and use with different batch sizes
loaded_model = torch_tensorrt.load("trt_dynamic.ep").module()
inputs = [torch.randn(4, 3, 224, 224).cuda()]
result = loaded_model(*inputs)
output_bs16 = loaded_model(torch.randn(16, 3, 224, 224).cuda())
assert output_bs16.shape[0] == 16
"""
)

INFERRED_DIMENSIONS = (
    HEAD
    + """
# Define Input with dynamic shapes
inputs = [
    torch_tensorrt.Input(
        min_shape=(1, 3, 224, 224),
        opt_shape=(8, 3, 224, 224),
        max_shape=(32, 3, 224, 224),
        dtype=torch.float32,
        name="x"  # Optional: provides better dimension naming
    )
]
# Compile with Torch-TensorRT
trt_gm = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)
# Save with Input objects - dynamic_shapes inferred automatically!
torch_tensorrt.save(
    trt_gm,
    "trt_dynamic.ep",
    arg_inputs=inputs  # Dynamic shapes inferred from Input objects
)
# Load and use with different batch sizes
loaded_model = torch_tensorrt.load("trt_dynamic.ep").module()
inputs = [torch.randn(4, 3, 224, 224).cuda()]
result = loaded_model(*inputs)
output_bs16 = loaded_model(torch.randn(16, 3, 224, 224).cuda())
assert output_bs16.shape[0] == 16
"""
)

AHEAD_OF_TIME = (
    HEAD
    + """
inputs = [torch.randn((1, 3, 224, 224)).cuda()]
# AOT path — produces a serializable GraphModule
trt_gm = torch_tensorrt.compile(
    model,
    ir="dynamo",
    arg_inputs=inputs,
    use_explicit_typing=True,
)
# Save to disk
torch_tensorrt.save(trt_gm, "model.ep", arg_inputs=inputs)
# Reload and run — no recompilation needed
loaded = torch_tensorrt.load("model.ep").module()
result = loaded(*inputs)
"""
)

TRACE_COMPILE_EXPORT = (
    HEAD
    + """
inputs = [torch.randn((1, 3, 224, 224)).cuda()]
exp_program = torch_tensorrt.dynamo.trace(model, inputs)
trt_gm = torch_tensorrt.dynamo.compile(exp_program, inputs) # Output is a torch.fx.GraphModule
# Transform and create an exported program
trt_exp_program = torch_tensorrt.dynamo.export(trt_gm, inputs, exp_program.call_spec, ir="exported_program")
torch.export.save(trt_exp_program, "trt_model.ep")

# Later, you can load it and run inference
model = torch_tensorrt.load("trt_model.ep")
result = model(*inputs)
"""
)

TRACED = (
    HEAD
    + """
inputs = [torch.randn((1, 3, 224, 224)).cuda()]
trt_gm = torch_tensorrt.compile(model, "dynamo", inputs) # Output is a torch.fx.GraphModule
trt_traced_model = torch.jit.trace(trt_gm, inputs)
torch.jit.save(trt_traced_model, "trt_model.ts")

# Later, you can load it and run inference
model = torch.jit.load("trt_model.ts")
result = model(*inputs)
"""
)

SNIPPETS = {
    "exported program": EXPORTED_PROGRAM,
    "explicit dimensions": EXPLICIT_DIMENSIONS,
    "inferred dimensions": INFERRED_DIMENSIONS,
    "ahead of time": AHEAD_OF_TIME,
    "trace, compile, export": TRACE_COMPILE_EXPORT,
    "traced": TRACED,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("snippet", SNIPPETS.values(), ids=SNIPPETS.keys())
def test_snippet(snippet, tmp_path, monkeypatch, assert_same) -> None:
    monkeypatch.chdir(tmp_path)
    if not torch.cuda.is_available():
        snippet = snippet.replace(".cuda()", "")
    made = []

    def make() -> torch.nn.Module:
        made.append(MyModel())
        return made[-1]

    names = {"MyModel": make}
    exec(compile(snippet, "<snippet>", "exec"), names)
    assert_same(names["result"], made[0](*names["inputs"]))
    assert list(Path().iterdir())
