"""Some of the architectures of tests/architectures, in one engine each; `make test-architectures` tries all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "architectures"))
import of_torch  # noqa: E402
import of_transformers  # noqa: E402
from compare import compare  # noqa: E402

ARCHITECTURES = {
    f"{each.package}/{each.name}": each
    for each in [*of_torch.architectures(), *of_transformers.architectures()]
}
# Small ones, which have operators that the other tests have not.
CHOSEN = [
    "torch/LSTMCell loop",
    "torch/GRUCell loop",
    "torch/Bilinear",
    "torch/MaxUnpool2d",
    "torch/Mixture of experts",
    "torch/Graph convolution",
    "torch/U-Net",
    "torch/Fold and Unfold",
    "transformers/AlbertModel",
    "transformers/LlamaForCausalLM",
]


@pytest.mark.parametrize("form", ["static", "dynamic"])
@pytest.mark.parametrize("name", CHOSEN)
def test_is_as_eager_in_one_engine(name: str, form: str) -> None:
    outcome = compare(ARCHITECTURES[name], form == "dynamic")
    assert (outcome["status"], outcome.get("engines")) == ("pass", 1), outcome
