"""Compile a model, save it, load it, run it."""

import tempfile
from pathlib import Path

import torch

import torch_tensorrt


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=2, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
            torch.nn.ReLU(),
        )
        self.head = torch.nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean((2, 3))).softmax(-1)


model = Classifier().eval()

# Any batch from 1 to 32; the engine is at its best at 8.
image = torch_tensorrt.Input(
    min_shape=(1, 3, 64, 64), opt_shape=(8, 3, 64, 64), max_shape=(32, 3, 64, 64), name="image"
)
compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[image])

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "classifier.ep"
    torch_tensorrt.save(compiled, path, arg_inputs=[image])
    loaded = torch_tensorrt.load(path)  # nothing is compiled here

for batch in (1, 5, 32):
    images = torch.randn(batch, 3, 64, 64)
    with torch.no_grad():
        error = (loaded(images) - model(images)).abs().max()
    print(f"batch {batch:2}: largest difference from eager PyTorch {error:.1e}")
    assert error < 1e-5
