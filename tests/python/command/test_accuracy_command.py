"""`kiln compile --quantize` and `kiln accuracy`."""

import json

import numpy as np
import pytest
import torch
from test_cli import kiln as run

import kiln


class Network(torch.nn.Module):
    """Its second layer has a weight that 8 bits hold badly."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Linear(32, 32) for _ in range(3))
        with torch.no_grad():
            self.second.weight[:, 0] = 40

    def forward(self, x, scale):
        return self.third(self.second(torch.relu(self.first(x)) * scale))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accuracy")
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=16)
    inputs = (torch.randn(4, 32), torch.ones(32))
    program = torch.export.export(Network(), inputs, dynamic_shapes=({0: batch}, None))
    torch.export.save(program, folder / "model.pt2")
    (folder / "sets").mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        x = random.normal(size=(4, 32)).astype(np.float32)
        np.savez(folder / "sets" / f"{number}.npz", scale=np.ones(32, np.float32), x=x)
    np.savez(folder / "stacked.npz", x=np.stack([x, x]), scale=np.ones((2, 32), np.float32))
    np.savez_compressed(folder / "compressed.npz", x=x, scale=np.ones(32, np.float32))
    np.savez(folder / "other.npz", x=x)
    return folder


def quantised(folder, *more):
    return ("--quantize", "int8", "--calibration", folder / "sets", *more)


def test_compares_an_engine_and_finds_the_worst_layer(folder):
    model, sets = folder / "model.pt2", folder / "sets"
    run("compile", model, "-o", folder / "int8.kiln", *quantised(folder))
    text = run("accuracy", model, folder / "int8.kiln", "--inputs", sets, "--json")
    report = json.loads(text)
    whole = report["outputs"][0]
    assert report["sets"] == 3 and report["layers"] == []
    assert 1e-4 < whole["relative_error"] < 0.1 and whole["cosine"] > 0.99

    own = run("accuracy", model, "--inputs", sets, "--layers", "--json", *quantised(folder))
    own = json.loads(own)
    assert own["outputs"] == report["outputs"]
    errors = {row["name"]: row["relative_error"] for row in own["layers"]}
    assert max(errors, key=errors.get) == "linear_1"
    shown = run("accuracy", model, "--inputs", sets, "--layers", *quantised(folder))
    rows = shown.split("alone is quantised")[1]
    assert rows.index("linear_1") < rows.index("linear ") < rows.index("linear_2")

    better = quantised(folder, "--exclude", "linear_1")
    without = run("accuracy", model, "--inputs", sets, "--json", *better)
    assert json.loads(without)["outputs"][0]["relative_error"] < whole["relative_error"]


def test_layers_are_those_that_are_quantised_alone(folder):
    """Each row is what an engine with that layer alone has."""
    samples = [dict(np.load(path)) for path in sorted((folder / "sets").glob("*"))]
    options = {"inputs": samples, "calibration": samples, "num_threads": 1}
    rows = kiln.accuracy(folder / "model.pt2", quantize="int8", layers=True, **options)["layers"]
    others = kiln.Quantization("int8", exclude="linear|linear_2")
    alone = kiln.accuracy(folder / "model.pt2", quantize=others, **options)["outputs"][0]
    assert rows[1]["name"] == "linear_1"
    assert rows[1]["relative_error"] == pytest.approx(alone["relative_error"], rel=1e-3)


def test_a_model_is_itself_and_sets_may_be_stacked(folder):
    model = folder / "model.pt2"
    report = json.loads(run("accuracy", model, model, "--inputs", folder / "stacked.npz", "--json"))
    assert report["sets"] == 2 and report["outputs"][0]["relative_error"] == 0
    text = run("accuracy", model, model, "--random", "--shape", "x=3,32")
    assert "1 sets of inputs" in text and "linear_2" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--random",), 2, "an engine or a model to compare with, or --quantize"),
        (("--quantize", "int8-weights"), 2, "no --inputs"),
        (("--quantize", "int8", "--random"), 1, "without calibration inputs"),
        (("--quantize", "int3", "--random"), 1, "expected one of int8"),
        (("--quantize", "int8-weights", "--inputs", "{}/compressed.npz"), 1, "compressed entry"),
        (("--quantize", "int8-weights", "--inputs", "{}/other.npz"), 1, "expected 2: x, scale"),
        (("--quantize", "int8-weights", "--inputs", "{}/model.pt2"), 1, "not a .npy file"),
        (("--quantize", "int8-weights", "--inputs", "{}/none.npz"), 1, "cannot open"),
        (
            ("--quantize", "int8-weights", "--inputs", "{0}/sets", "--inputs", "{0}/other.npz"),
            1,
            "got other arrays",
        ),
    ],
)
def test_what_is_refused(folder, arguments, code, message):
    filled = [each.format(folder) for each in arguments]
    assert message in run("accuracy", folder / "model.pt2", *filled, code=code)
