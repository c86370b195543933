"""An operator of one's own inside an engine: its kernel is a function in C, which the engine calls by name."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import kiln
import torch_tensorrt


@torch.library.custom_op("mylib::scaled_sine", mutates_args=())
def scaled_sine(x: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.sin(x) * scale


@scaled_sine.register_fake
def _(x, scale):
    return torch.empty_like(x)


class Waves(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.ops.mylib.scaled_sine(self.layer(x), 2.5))


source = Path(__file__).parent / "c" / "scaled_sine.c"
headers = subprocess.run(
    [sys.executable, "-m", "kiln", "--include-dir"], capture_output=True, text=True, check=True
).stdout.strip()

with tempfile.TemporaryDirectory() as folder:
    library = Path(folder) / "libscaled_sine.so"
    command = ["cc", "-shared", "-fPIC", "-O2", f"-I{headers}", source, "-o", library, "-lm"]
    subprocess.run(command, check=True)
    kiln.load_kernels(library)

    model, x = Waves().eval(), torch.randn(4, 16)
    program = torch.export.export(model, (x,))
    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=[x], require_full_compilation=True
    )
    path = Path(folder) / "waves.kiln"
    path.write_bytes(engine)

    # No PyTorch from here on: the engine, and the library with its kernel.
    result = kiln.load(path).session().run(x.numpy())[0]

np.testing.assert_allclose(result, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
print("the engine calls", kiln.inspect(engine)["custom_kernels"])
