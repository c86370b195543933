"""torch.nn's transformers with masks as scripts give them: torch.export alone looks into them, which is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_small import engines_of

import torch_tensorrt
from torch_tensorrt.dynamo._opaque_data import data_is_opaque

SIZE, LENGTH, BATCH = 32, 7, 3
CAUSAL = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH)
PADDING = torch.arange(LENGTH).expand(BATCH, LENGTH) >= torch.tensor([[7], [5], [2]])
BANDED = (
    torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    | torch.ones(LENGTH, LENGTH).tril(-4).bool()
)
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"mask": CAUSAL},
    "causal, said so": {"mask": CAUSAL, "is_causal": True},
    "banded": {"mask": BANDED},
    "padding": {"src_key_padding_mask": PADDING},
    "causal and padding": {"mask": CAUSAL, "src_key_padding_mask": PADDING.float() * -1e9},
}


def layers(kind: str, norm_first: bool) -> Any:
    torch.manual_seed(5)
    options: dict[str, Any] = {"batch_first": True, "norm_first": norm_first}
    if kind == "encoder":
        layer = torch.nn.TransformerEncoderLayer(SIZE, 4, 64, **options)
        return torch.nn.TransformerEncoder(layer, 2).eval()
    decoder = torch.nn.TransformerDecoderLayer(SIZE, 4, 64, **options)
    return torch.nn.TransformerDecoder(decoder, 2).eval()


def check(model: torch.nn.Module, args: list[Any], kwargs: dict[str, Any]) -> None:
    compiled = torch_tensorrt.compile(
        model,
        ir="dynamo",
        arg_inputs=args,
        kwarg_inputs=kwargs,
        min_block_size=1,
        require_full_compilation=True,
    )
    assert len(engines_of(compiled)) == 1
    mha = torch.backends.mha
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)  # it gives zeros for padding, which programs do not
    try:
        with torch.no_grad():
            expected = model(*args, **kwargs)
    finally:
        mha.set_fastpath_enabled(fast)
    torch.testing.assert_close(compiled(*args, **kwargs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder(mask: str, norm_first: bool) -> None:
    check(layers("encoder", norm_first), [torch.randn(BATCH, LENGTH, SIZE)], MASKS[mask])


@pytest.mark.parametrize("mask", [CAUSAL, BANDED])
def test_decoder(mask: torch.Tensor) -> None:
    args = [torch.randn(BATCH, LENGTH, SIZE), torch.randn(BATCH, 5, SIZE)]
    check(layers("decoder", False), args, {"tgt_mask": mask})


def test_whole_transformer() -> None:
    torch.manual_seed(5)
    model = torch.nn.Transformer(SIZE, 4, 1, 1, 64, batch_first=True).eval()
    args = [torch.randn(BATCH, 5, SIZE), torch.randn(BATCH, LENGTH, SIZE)]
    check(model, args, {"tgt_mask": CAUSAL, "src_mask": torch.zeros(5, 5)})


def test_pytorch_is_as_before() -> None:
    from torch.nn.modules import transformer

    before = transformer._detect_is_causal_mask
    check(layers("encoder", False), [torch.randn(BATCH, LENGTH, SIZE)], MASKS["causal"])
    with pytest.raises(Exception, match="already"):
        torch_tensorrt.dynamo.trace(Failing(), arg_inputs=[torch.randn(2)])
    assert transformer._detect_is_causal_mask is before
    with data_is_opaque():
        with data_is_opaque():
            pass
        assert transformer._detect_is_causal_mask is not before  # somebody traces still
    assert transformer._detect_is_causal_mask is before


def test_mutable_module() -> None:
    model, x = layers("encoder", True), torch.randn(BATCH, LENGTH, SIZE)
    module = torch_tensorrt.MutableTorchTensorRTModule(model, min_block_size=1)
    with torch.no_grad():
        expected = model(x, mask=CAUSAL)
    torch.testing.assert_close(module(x, mask=CAUSAL), expected, rtol=1e-4, atol=1e-5)


class Failing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("already")
