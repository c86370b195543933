"""Models of diffusers: denoisers, autoencoders, text-conditioned ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from architecture import Architecture, Input
from torch import nn

BLOCKS = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4}
LATENT = Input("sample", ("batch", 4, 16, 16))
STEP = Input("timestep", ("batch",), 1000)
WORDS = Input("encoder_hidden_states", ("batch", "length", 16))
DOWN_UP = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 8,
}
ENCODER = {
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "latent_channels": 4,
}
TRANSFORMER = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}

# Class, options, inputs by name.
MODELS: dict[str, tuple[dict[str, Any], tuple[Input, ...]]] = {
    "UNet2DModel": (
        {
            **BLOCKS,
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 8,
        },
        (LATENT, STEP),
    ),
    "UNet2DConditionModel": ({**BLOCKS, **DOWN_UP, "sample_size": 16}, (LATENT, STEP, WORDS)),
    "UNet1DModel": (
        {
            "block_out_channels": (32, 64),
            "extra_in_channels": 64,
            "sample_size": 64,
            "down_block_types": ("DownBlock1DNoSkip", "AttnDownBlock1D"),
            "up_block_types": ("AttnUpBlock1D", "UpBlock1DNoSkip"),
        },
        (Input("sample", ("batch", 2, 64)), STEP),
    ),
    "UNet3DConditionModel": (
        {
            **BLOCKS,
            "sample_size": 16,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
            "cross_attention_dim": 16,
            "attention_head_dim": 8,
        },
        (Input("sample", ("batch", 4, 3, 16, 16)), STEP, WORDS),
    ),
    "AutoencoderKL": ({**BLOCKS, **ENCODER}, (Input("sample", ("batch", 3, 32, 32)),)),
    "AutoencoderTiny": (
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        (Input("sample", ("batch", 3, 32, 32)),),
    ),
    "VQModel": (
        {**BLOCKS, **ENCODER, "num_vq_embeddings": 32},
        (Input("sample", ("batch", 3, 32, 32)),),
    ),
    "DiTTransformer2DModel": (
        {
            **TRANSFORMER,
            "in_channels": 4,
            "out_channels": 8,
            "sample_size": 16,
            "norm_type": "ada_norm_zero",
            "num_embeds_ada_norm": 1000,
        },
        (Input("hidden_states", ("batch", 4, 16, 16)), STEP, Input("class_labels", ("batch",), 10)),
    ),
    "PixArtTransformer2DModel": (
        {
            **TRANSFORMER,
            "in_channels": 4,
            "out_channels": 8,
            "sample_size": 16,
            "caption_channels": 16,
            "cross_attention_dim": 16,
        },
        (Input("hidden_states", ("batch", 4, 16, 16)), WORDS, STEP),
    ),
    "SD3Transformer2DModel": (
        {
            **TRANSFORMER,
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "joint_attention_dim": 16,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 16,
            "pos_embed_max_size": 16,
        },
        (
            Input("hidden_states", ("batch", 4, 16, 16)),
            WORDS,
            Input("pooled_projections", ("batch", 16)),
            STEP,
        ),
    ),
    "FluxTransformer2DModel": (
        {
            **TRANSFORMER,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "in_channels": 4,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": (4, 4, 8),
        },
        (
            Input("hidden_states", ("batch", 16, 4)),
            WORDS,
            Input("pooled_projections", ("batch", 16)),
            Input("timestep", ("batch",)),  # it is multiplied by 1000
            Input("img_ids", (16, 3)),
            Input("txt_ids", ("length", 3)),
        ),
    ),
    "ControlNetModel": (
        {
            **{k: v for k, v in DOWN_UP.items() if k != "up_block_types"},
            **BLOCKS,
            "conditioning_embedding_out_channels": (8, 16),
        },
        (LATENT, STEP, WORDS, Input("controlnet_cond", ("batch", 3, 32, 32))),
    ),
    "PriorTransformer": (
        {**TRANSFORMER, "embedding_dim": 16, "num_embeddings": 6},
        (
            Input("hidden_states", ("batch", 16)),
            STEP,
            Input("proj_embedding", ("batch", 16)),
            Input("encoder_hidden_states", ("batch", 6, 16)),
        ),
    ),
    "T5FilmDecoder": (
        {
            "input_dims": 16,
            "targets_length": 8,
            "d_model": 32,
            "num_layers": 2,
            "num_heads": 4,
            "d_kv": 8,
            "d_ff": 64,
        },
        (),
    ),
}
del MODELS["T5FilmDecoder"]


def _maker(name: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import diffusers

        return getattr(diffusers, name)(**options)

    return make


def architectures() -> list[Architecture]:
    return [
        Architecture(name, "diffusers", _maker(name, options), inputs, keywords=True)
        for name, (options, inputs) in MODELS.items()
    ]
