"""Models of transformers with few and narrow layers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from architecture import Architecture, Input
from torch import nn

VOCABULARY = 99
IDS = Input("input_ids", ("batch", "length"), VOCABULARY)
MASK = Input("attention_mask", ("batch", "length"), 2)
DECODER_IDS = Input("decoder_input_ids", ("batch", 5), VOCABULARY)
PIXELS = Input("pixel_values", ("batch", 3, 32, 32))

# What most configurations call their sizes.
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = {**SMALL, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0}
GROUPED = {**TEXT, "num_key_value_heads": 2}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
SEQ2SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": 0,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

# Name of the model's class, of the configuration's, and what it is given.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertModel": ("BertConfig", TEXT),
    "BertForQuestionAnswering": ("BertConfig", TEXT),
    "BertForSequenceClassification": ("BertConfig", TEXT),
    "RobertaModel": ("RobertaConfig", TEXT),
    "RobertaForTokenClassification": ("RobertaConfig", TEXT),
    "XLMRobertaModel": ("XLMRobertaConfig", TEXT),
    "CamembertForMaskedLM": ("CamembertConfig", TEXT),
    "DistilBertModel": (
        "DistilBertConfig",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": VOCABULARY},
    ),
    "AlbertModel": ("AlbertConfig", {**TEXT, "embedding_size": 16}),
    "ElectraForPreTraining": ("ElectraConfig", {**TEXT, "embedding_size": 16}),
    "MPNetModel": ("MPNetConfig", TEXT),
    "DebertaModel": (
        "DebertaConfig",
        {**TEXT, "relative_attention": True, "pos_att_type": "c2p|p2c"},
    ),
    "DebertaV2Model": (
        "DebertaV2Config",
        {**TEXT, "relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 8},
    ),
    "ModernBertModel": (
        "ModernBertConfig",
        {**TEXT, "global_attn_every_n_layers": 2, "local_attention": 4},
    ),
    "NomicBertModel": ("NomicBertConfig", TEXT),
    "EsmModel": ("EsmConfig", {**TEXT, "position_embedding_type": "rotary", "mask_token_id": 3}),
    "MegatronBertModel": ("MegatronBertConfig", TEXT),
    "MobileBertModel": (
        "MobileBertConfig",
        {**TEXT, "embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    ),
    "SqueezeBertModel": ("SqueezeBertConfig", {**TEXT, "embedding_size": 32}),
    "FNetModel": ("FNetConfig", TEXT),
    "RoFormerModel": ("RoFormerConfig", TEXT),
    "ConvBertModel": ("ConvBertConfig", TEXT),
    "FunnelModel": (
        "FunnelConfig",
        {
            "block_sizes": [1, 1],
            "d_model": 32,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 64,
            "vocab_size": VOCABULARY,
        },
    ),
    "IBertModel": ("IBertConfig", TEXT),
    "LayoutLMModel": ("LayoutLMConfig", TEXT),
    "SplinterModel": ("SplinterConfig", TEXT),
    "YosoModel": ("YosoConfig", TEXT),
    "NystromformerModel": ("NystromformerConfig", TEXT),
    "CanineModel": ("CanineConfig", {**SMALL, "max_position_embeddings": 64}),
    "XLNetModel": (
        "XLNetConfig",
        {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": VOCABULARY},
    ),
    "T5EncoderModel": ("T5Config", T5),
    "UMT5EncoderModel": ("UMT5Config", T5),
    "CLIPTextModel": ("CLIPTextConfig", TEXT),
    "SiglipTextModel": ("SiglipTextConfig", TEXT),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    ),
    "GPTNeoForCausalLM": (
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "vocab_size": VOCABULARY,
        },
    ),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", TEXT),
    "GPTJForCausalLM": (
        "GPTJConfig",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": VOCABULARY},
    ),
    "OPTForCausalLM": (
        "OPTConfig",
        {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32},
    ),
    "BloomForCausalLM": (
        "BloomConfig",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    ),
    "LlamaForCausalLM": ("LlamaConfig", GROUPED),
    "MistralForCausalLM": ("MistralConfig", {**GROUPED, "sliding_window": 4}),
    "MixtralForCausalLM": ("MixtralConfig", {**GROUPED, "num_local_experts": 4}),
    "Qwen2ForCausalLM": ("Qwen2Config", GROUPED),
    "Qwen3ForCausalLM": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "Qwen2MoeForCausalLM": (
        "Qwen2MoeConfig",
        {**GROUPED, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16},
    ),
    "GemmaForCausalLM": ("GemmaConfig", {**GROUPED, "head_dim": 8}),
    "Gemma2ForCausalLM": ("Gemma2Config", {**GROUPED, "head_dim": 8, "sliding_window": 4}),
    "Gemma3ForCausalLM": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 4}),
    "PhiForCausalLM": ("PhiConfig", TEXT),
    "Phi3ForCausalLM": ("Phi3Config", GROUPED),
    "CohereForCausalLM": ("CohereConfig", GROUPED),
    "OlmoForCausalLM": ("OlmoConfig", GROUPED),
    "Olmo2ForCausalLM": ("Olmo2Config", GROUPED),
    "StableLmForCausalLM": ("StableLmConfig", GROUPED),
    "FalconForCausalLM": (
        "FalconConfig",
        {**TEXT, "alibi": False, "new_decoder_architecture": False},
    ),
    "FalconForCausalLM alibi": ("FalconConfig", {**TEXT, "alibi": True}),
    "MptForCausalLM": (
        "MptConfig",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": VOCABULARY, "max_seq_len": 64},
    ),
    "CodeGenForCausalLM": (
        "CodeGenConfig",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": VOCABULARY},
    ),
    "Starcoder2ForCausalLM": ("Starcoder2Config", GROUPED),
    "GraniteForCausalLM": ("GraniteConfig", GROUPED),
    "HeliumForCausalLM": ("HeliumConfig", {**GROUPED, "head_dim": 8}),
    "GlmForCausalLM": ("GlmConfig", {**GROUPED, "head_dim": 8}),
    "NemotronForCausalLM": ("NemotronConfig", GROUPED),
    "SmolLM3ForCausalLM": ("SmolLM3Config", GROUPED),
    "DeepseekV3ForCausalLM": (
        "DeepseekV3Config",
        {
            **GROUPED,
            **EXPERTS,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
        },
    ),
    "MambaForCausalLM": (
        "MambaConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": VOCABULARY},
    ),
    "BioGptForCausalLM": ("BioGptConfig", TEXT),
    "XGLMForCausalLM": (
        "XGLMConfig",
        {
            "d_model": 32,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 64,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
        },
    ),
}
SEQ2SEQS: dict[str, tuple[str, dict[str, Any]]] = {
    "T5ForConditionalGeneration": ("T5Config", T5),
    "BartForConditionalGeneration": ("BartConfig", SEQ2SEQ),
    "MBartForConditionalGeneration": ("MBartConfig", SEQ2SEQ),
    "PegasusForConditionalGeneration": ("PegasusConfig", SEQ2SEQ),
    "MarianMTModel": ("MarianConfig", SEQ2SEQ),
    "M2M100ForConditionalGeneration": ("M2M100Config", SEQ2SEQ),
    "BlenderbotForConditionalGeneration": ("BlenderbotConfig", SEQ2SEQ),
}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViTModel": ("ViTConfig", VISION),
    "DeiTModel": ("DeiTConfig", VISION),
    "BeitModel": ("BeitConfig", VISION),
    "Dinov2Model": ("Dinov2Config", VISION),
    "ViTMSNModel": ("ViTMSNConfig", VISION),
    "CLIPVisionModel": ("CLIPVisionConfig", VISION),
    "SiglipVisionModel": ("SiglipVisionConfig", VISION),
    "IJepaModel": ("IJepaConfig", VISION),
    "YolosForObjectDetection": (
        "YolosConfig",
        {**VISION, "image_size": [32, 32], "num_detection_tokens": 5},
    ),
    "SwinModel": (
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
    ),
    "Swinv2Model": (
        "Swinv2Config",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
    ),
    "ConvNextModel": ("ConvNextConfig", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "ConvNextV2Model": (
        "ConvNextV2Config",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    ),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    ),
    "RegNetModel": (
        "RegNetConfig",
        {
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "groups_width": 4,
        },
    ),
    "MobileNetV1Model": ("MobileNetV1Config", {"image_size": 32, "depth_multiplier": 0.25}),
    "MobileNetV2Model": ("MobileNetV2Config", {"image_size": 32, "depth_multiplier": 0.25}),
    "MobileViTModel": (
        "MobileViTConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 16, 24],
            "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 16],
            "num_attention_heads": 2,
        },
    ),
    "EfficientNetModel": (
        "EfficientNetConfig",
        {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    ),
    "SegformerForSemanticSegmentation": (
        "SegformerConfig",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
        },
    ),
    "PvtModel": (
        "PvtConfig",
        {
            "image_size": 32,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
        },
    ),
    "PoolFormerModel": (
        "PoolFormerConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    ),
    "LevitModel": (
        "LevitConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "CvtModel": (
        "CvtConfig",
        {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    ),
    "DPTForDepthEstimation": (
        "DPTConfig",
        {
            **VISION,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 8,
        },
    ),
    "VitDetModel": ("VitDetConfig", {**VISION, "pretrain_image_size": 32}),
    "FocalNetModel": (
        "FocalNetConfig",
        {
            "image_size": 32,
            "embed_dim": 16,
            "depths": [1, 1],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
    ),
    "GLPNForDepthEstimation": (
        "GLPNConfig",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
        },
    ),
    "SwiftFormerModel": (
        "SwiftFormerConfig",
        {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32},
    ),
    "HieraModel": (
        "HieraConfig",
        {
            "image_size": [32, 32],
            "embed_dim": 8,
            "num_heads": [1, 2],
            "depths": [1, 1],
            "num_query_pool": 1,
            "masked_unit_size": [4, 4],
        },
    ),
}
AUDIO: dict[str, tuple[str, dict[str, Any], Input]] = {
    "WhisperModel encoder": (
        "WhisperConfig",
        {**SEQ2SEQ, "max_source_positions": 30, "num_mel_bins": 16},
        Input("x", ("batch", 16, 60)),
    ),
    "Wav2Vec2Model": (
        "Wav2Vec2Config",
        {
            **SMALL,
            "conv_dim": [16, 16],
            "conv_kernel": [5, 3],
            "conv_stride": [4, 2],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        Input("x", ("batch", 200)),
    ),
    "HubertModel": (
        "HubertConfig",
        {
            **SMALL,
            "conv_dim": [16, 16],
            "conv_kernel": [5, 3],
            "conv_stride": [4, 2],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        Input("x", ("batch", 200)),
    ),
    "ASTModel": (
        "ASTConfig",
        {
            **SMALL,
            "patch_size": 8,
            "frequency_stride": 8,
            "time_stride": 8,
            "max_length": 32,
            "num_mel_bins": 16,
        },
        Input("x", ("batch", 32, 16)),
    ),
}


def _maker(model: str, config: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made = getattr(transformers, config)(**options)
        made.use_cache = False
        cls = getattr(transformers, model.split()[0])
        module = cls(made)
        return module.get_encoder() if model.endswith(" encoder") else module

    return make


def _clip() -> nn.Module:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    return transformers.CLIPModel(config)


def _time_series() -> nn.Module:
    config = transformers.PatchTSTConfig(
        num_input_channels=3,
        context_length=32,
        patch_length=8,
        patch_stride=8,
        d_model=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=32,
    )
    return transformers.PatchTSTModel(config)


def _patch_mixer() -> nn.Module:
    config = transformers.PatchTSMixerConfig(
        context_length=32,
        patch_length=8,
        patch_stride=8,
        num_input_channels=3,
        d_model=16,
        num_layers=2,
    )
    return transformers.PatchTSMixerModel(config)


def _decision() -> nn.Module:
    config = transformers.DecisionTransformerConfig(
        state_dim=6, act_dim=3, hidden_size=32, n_layer=2, n_head=4
    )
    config.use_cache = False
    return transformers.DecisionTransformerModel(config)


def architectures() -> list[Architecture]:
    cases = []

    def add(name: str, config: str, options: dict[str, Any], *inputs: Input) -> None:
        cases.append(
            Architecture(name, "transformers", _maker(name, config, options), inputs, keywords=True)
        )

    for name, (config, options) in ENCODERS.items():
        add(name, config, options, IDS, MASK)
    for name, (config, options) in DECODERS.items():
        add(name, config, options, IDS)
    for name, (config, options) in SEQ2SEQS.items():
        add(name, config, options, IDS, DECODER_IDS)
    for name, (config, options) in IMAGES.items():
        size = options.get("image_size", 64)
        size = size[0] if isinstance(size, list) else size
        add(name, config, options, Input("pixel_values", ("batch", 3, size, size)))
    for name, (config, options, given) in AUDIO.items():
        cases.append(Architecture(name, "transformers", _maker(name, config, options), (given,)))
    others: list[tuple[str, Callable[[], nn.Module], tuple[Input, ...]]] = [
        ("CLIPModel", _clip, (IDS, PIXELS, MASK)),
        ("PatchTSTModel", _time_series, (Input("past_values", ("batch", 32, 3)),)),
        ("PatchTSMixerModel", _patch_mixer, (Input("past_values", ("batch", 32, 3)),)),
        (
            "DecisionTransformerModel",
            _decision,
            (
                Input("states", ("batch", 5, 6)),
                Input("actions", ("batch", 5, 3)),
                Input("rewards", ("batch", 5, 1)),
                Input("returns_to_go", ("batch", 5, 1)),
                Input("timesteps", ("batch", 5), 50),
                Input("attention_mask", ("batch", 5), 2),
            ),
        ),
    ]
    cases += [Architecture(n, "transformers", make, i, keywords=True) for n, make, i in others]
    return cases
