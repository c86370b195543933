"""Models that torch.onnx.export wrote, in engines, against PyTorch: with fixed sizes and with sizes that vary."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import kiln

pytest.importorskip("onnx")


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Encoder(nn.Module):
    def __init__(self, attention: str | None = None) -> None:
        super().__init__()
        config = transformers.BertConfig(
            attn_implementation=attention,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            vocab_size=100,
        )
        self.bert = transformers.BertModel(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(32, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(self.lstm(x)[0])[0]


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Residual(16),
        Residual(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def inputs_of(name: str, batch: int) -> dict[str, torch.Tensor]:
    if name == "convolutional":
        return {"x": torch.randn(batch, 3, 64, 64)}
    if name == "recurrent":
        return {"x": torch.randn(batch, 5, 8)}
    length = 10 + batch
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[:, -3:] = 0
    return {"ids": torch.randint(0, 100, (batch, length)), "mask": mask}


MODELS: dict[str, Any] = {
    "convolutional": convolutional,
    "encoder": Encoder,
    "recurrent": Recurrent,
}


@pytest.mark.parametrize("varies", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_an_exported_model_gives_pytorchs_results(tmp_path: Path, name: str, varies: bool) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    inputs = inputs_of(name, 2)
    axes = {0: "batch", 1: "length"} if name == "encoder" else {0: "batch"}
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        dynamic_axes=dict.fromkeys(inputs, axes) if varies else None,
        opset_version=17,
        dynamo=False,
    )
    ranges = [kiln.InputRange(n, d, 1, 4, 64) for n in inputs for d in axes] if varies else []
    session = kiln.load(kiln.compile(path, ranges=ranges)).session()
    for batch in (2, 1, 5) if varies else (2,):
        inputs = inputs_of(name, batch)
        expected = model(*inputs.values()).detach().numpy()
        (got,) = session.run(*(value.numpy() for value in inputs.values()))
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error < 1e-5, f"batch {batch}: {error}"


@pytest.mark.filterwarnings("ignore")
def test_an_encoder_that_onnx_runtime_fused(tmp_path: Path) -> None:
    """Its embeddings, attention, norms and activations are one operator of com.microsoft each."""
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed: nothing fuses the model")
    from onnxruntime.transformers import optimizer

    torch.manual_seed(0)
    model = Encoder("eager").eval()
    inputs = inputs_of("encoder", 2)
    exported, path = tmp_path / "exported.onnx", tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        exported,
        input_names=list(inputs),
        dynamic_axes=dict.fromkeys(inputs, {0: "batch", 1: "length"}),
        opset_version=14,
        dynamo=False,
    )
    fused = optimizer.optimize_model(
        str(exported), model_type="bert", num_heads=4, hidden_size=64, opt_level=0
    )
    fused.save_model_to_file(str(path))
    operators = {node.op_type for node in fused.nodes()}
    assert operators >= {
        "Attention", "BiasGelu", "EmbedLayerNormalization", "SkipLayerNormalization",
    }  # fmt: skip
    ranges = [kiln.InputRange(name, dim, 1, 4, 64) for name in inputs for dim in (0, 1)]
    engine = kiln.load(kiln.compile(path, ranges=ranges))
    for batch in (2, 1, 5):
        inputs = inputs_of("encoder", batch)
        expected = model(*inputs.values()).detach().numpy()
        given = (
            inputs[info.name].numpy().astype(np.int32 if info.dtype == "i32" else np.int64)
            for info in engine.inputs
        )
        (got,) = engine.session().run(*given)
        kept = inputs["mask"].bool().numpy()  # what padding gives is nobody's concern
        error = np.abs(got - expected)[kept].max() / np.abs(expected).max()
        assert error < 1e-5, f"batch {batch}: {error}"
