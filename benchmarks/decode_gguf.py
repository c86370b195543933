"""GGUF files of the models of `decode_models.py`, for llama.cpp."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch

from decode_models import Decoder

TYPES = {"f32": "F32", "bf16": "BF16", "int8": "Q8_0", "int4-32": "Q4_0"}
# Kiln's names of the parts of a layer, and GGUF's.
PARTS = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def vocabulary(count: int) -> list[str]:
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return special + [f"\u2581word{i}" for i in range(count - len(special))]


def write(model: Decoder, form: str, path: Path) -> None:
    """Matrices in the format, all else in f32."""
    sizes = model.sizes
    kind = gguf.GGMLQuantizationType[TYPES[form]]
    writer = gguf.GGUFWriter(path, "llama" if sizes.gated else "gpt2")
    writer.add_context_length(sizes.length)
    writer.add_embedding_length(sizes.size)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.hidden)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.shared)
    if sizes.gated:
        writer.add_rope_dimension_count(sizes.each)
        writer.add_layer_norm_rms_eps(1e-5)
    else:
        writer.add_layer_norm_eps(1e-5)
    words = vocabulary(sizes.vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(words) - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def add(name: str, tensor: torch.Tensor) -> None:
        array = tensor.detach().float().numpy()
        of = kind if tensor.dim() == 2 and "position" not in name else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(array, of), raw_dtype=of)

    def add_module(name: str, module: torch.nn.Module) -> None:
        for part, tensor in module.named_parameters():
            add(f"{name}.{part}", tensor)

    add_module("token_embd", model.embedding)
    if not sizes.gated:
        add_module("position_embd", model.places)
    for i, layer in enumerate(model.layers):
        for own, theirs in PARTS.items():
            if own in "qkv" and not sizes.gated:
                continue
            if hasattr(layer, own):
                add_module(f"blk.{i}.{theirs}", getattr(layer, own))
        if not sizes.gated:
            for part in ("weight", "bias"):
                joined = torch.cat([getattr(getattr(layer, own), part) for own in "qkv"])
                add(f"blk.{i}.attn_qkv.{part}", joined)
    add_module("output_norm", model.norm)
    add_module("output", model.head)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
