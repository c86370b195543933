"""Write a model for programs without Python: as an engine, and as an exported program.

python examples/02_deploy_without_python.py FOLDER
    FOLDER/classifier.pt2    what torch.export writes; `kiln compile` makes an engine of it
    FOLDER/classifier.kiln   the engine, compiled here
"""

import sys
from pathlib import Path

import torch

import kiln


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


folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
torch.manual_seed(0)
model = Classifier().eval()

# Any batch from 1 to 32.
batch = torch.export.Dim("batch", min=1, max=32)
program = torch.export.export(
    model, (torch.zeros(2, 3, 32, 32),), dynamic_shapes={"image": {0: batch}}
)
torch.export.save(program, folder / "classifier.pt2")
(folder / "classifier.kiln").write_bytes(kiln.compile(folder / "classifier.pt2"))
print(f"wrote {folder / 'classifier.pt2'} and {folder / 'classifier.kiln'}")
