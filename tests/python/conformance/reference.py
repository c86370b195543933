"""Runs exported programs with the reference interpreter, through the C++ importer."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[3]


class ReferenceError(Exception):
    """The runner failed; the text is what it printed."""


def find_runner() -> Path:
    """The program built from tests/reference; KILN_BUILD_DIR says where, else build/release."""
    build = Path(os.environ.get("KILN_BUILD_DIR", ROOT / "build" / "release"))
    return build / "tests" / "reference" / "kiln_reference_runner"


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    # NumPy has no bfloat16: its bits travel as uint16.
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def from_numpy(array: np.ndarray) -> torch.Tensor:
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def run(
    program: torch.export.ExportedProgram, inputs: Sequence[torch.Tensor], passes: bool = False
) -> list[torch.Tensor]:
    """The outputs of the program, flat; with `passes`, of the graph that the passes make of it."""
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model.pt2"
        torch.export.save(program, model)
        command = [str(find_runner()), *(["--passes"] if passes else []), model, folder]
        for i, tensor in enumerate(inputs):
            np.save(f"{folder}/input{i}.npy", to_numpy(tensor))
            command.append(f"{folder}/input{i}.npy")
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ReferenceError(result.stderr.strip() or f"exit code {result.returncode}")
        outputs = len(program.graph_signature.user_outputs)
        return [from_numpy(np.load(f"{folder}/{i}.npy")) for i in range(outputs)]
