"""Models of timm: its smallest variants, with fewer blocks where that can be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from architecture import Architecture, Input
from torch import nn

# Options of timm.create_model, and the size of the image.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 64),
    "resnet26d": ({}, 64),
    "resnext50_32x4d": ({}, 64),
    "seresnet18": ({}, 64),
    "wide_resnet50_2": ({}, 64),
    "res2net50_14w_8s": ({}, 64),
    "resnest14d": ({}, 64),
    "skresnet18": ({}, 64),
    "ecaresnet26t": ({}, 64),
    "vgg11": ({}, 64),
    "densenet121": ({}, 64),
    "inception_v3": ({}, 96),
    "inception_v4": ({}, 96),
    "xception41": ({}, 64),
    "dpn48b": ({}, 64),
    "dla34": ({}, 64),
    "hrnet_w18_small": ({}, 64),
    "mobilenetv2_050": ({}, 64),
    "mobilenetv3_small_050": ({}, 64),
    "mobilenetv4_conv_small": ({}, 64),
    "mobileone_s0": ({}, 64),
    "efficientnet_b0": ({}, 64),
    "tf_efficientnetv2_b0": ({}, 64),
    "mnasnet_small": ({}, 64),
    "ghostnet_050": ({}, 64),
    "fbnetc_100": ({}, 64),
    "lcnet_050": ({}, 64),
    "regnetx_002": ({}, 64),
    "regnety_002": ({}, 64),
    "repvgg_a0": ({}, 64),
    "nfnet_l0": ({}, 64),
    "cspdarknet53": ({}, 64),
    "vovnet39a": ({}, 64),
    "convnext_atto": ({}, 64),
    "convnextv2_atto": ({}, 64),
    "convmixer_768_32": ({}, 64),
    "edgenext_xx_small": ({}, 64),
    "fastvit_t8": ({}, 64),
    "efficientformer_l1": ({}, 224),
    "efficientvit_b0": ({}, 64),
    "efficientvit_m0": ({}, 224),
    "repvit_m0_9": ({}, 64),
    "starnet_s1": ({}, 64),
    "inception_next_tiny": ({"depths": (1, 1, 1, 1)}, 64),
    "poolformer_s12": ({}, 64),
    "caformer_s18": ({}, 64),
    "vit_tiny_patch16_224": ({"depth": 2, "img_size": 64}, 64),
    "vit_small_patch16_rope_224": ({"depth": 2, "img_size": 64}, 64),
    "vit_relpos_small_patch16_224": ({"depth": 2, "img_size": 64}, 64),
    "deit_tiny_distilled_patch16_224": ({"depth": 2, "img_size": 64}, 64),
    "deit3_small_patch16_224": ({"depth": 2, "img_size": 64}, 64),
    "eva02_tiny_patch14_224": ({"depth": 2, "img_size": 56}, 56),
    "beit_base_patch16_224": ({"depth": 2, "embed_dim": 64, "num_heads": 4, "img_size": 64}, 64),
    "cait_xxs24_224": ({"depth": 2, "img_size": 64}, 64),
    "xcit_nano_12_p16_224": ({"depth": 2, "img_size": 64}, 64),
    "crossvit_tiny_240": ({"img_size": 240}, 240),
    "swin_tiny_patch4_window7_224": ({"depths": (1, 1, 1, 1)}, 224),
    "swinv2_cr_tiny_224": ({"depths": (1, 1, 1, 1)}, 224),
    "twins_svt_small": ({"depths": (1, 1, 1, 1)}, 224),
    "pvt_v2_b0": ({"depths": (1, 1, 1, 1)}, 64),
    "pit_ti_224": ({"depth": (1, 1, 1)}, 224),
    "levit_128s": ({}, 224),
    "tnt_s_patch16_224": ({"depth": 2}, 224),
    "convit_tiny": ({"depth": 2}, 224),
    "coat_tiny": ({"serial_depths": (1, 1, 1, 1), "parallel_depth": 1}, 224),
    "coatnet_nano_rw_224": ({}, 224),
    "maxvit_rmlp_pico_rw_256": ({}, 256),
    "mobilevit_xxs": ({}, 64),
    "mobilevitv2_050": ({}, 64),
    "mixer_s16_224": ({"img_size": 64}, 64),
    "gmixer_24_224": ({"img_size": 64}, 64),
    "resmlp_12_224": ({"img_size": 64}, 64),
    "gmlp_s16_224": ({"img_size": 64}, 64),
    "volo_d1_224": ({}, 224),
    "visformer_tiny": ({}, 224),
    "sequencer2d_s": ({"layers": (1, 1, 1, 1)}, 224),
    "focalnet_tiny_srf": ({}, 64),
    "davit_tiny": ({"depths": (1, 1, 1, 1)}, 64),
    "gcvit_xxtiny": ({}, 224),
    "mvitv2_tiny": ({}, 224),
    "nest_tiny": ({}, 224),
    "hiera_tiny_224": ({"stages": (1, 1, 1, 1)}, 224),
    "tiny_vit_5m_224": ({"depths": (1, 1, 1, 1)}, 224),
    "haloregnetz_b": ({}, 224),
    "lambda_resnet26t": ({}, 64),
    "botnet26t_256": ({"img_size": 64}, 64),
}


def _maker(name: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **options)

    return make


def architectures() -> list[Architecture]:
    return [
        Architecture(name, "timm", _maker(name, options), (Input("x", ("batch", 3, size, size)),))
        for name, (options, size) in MODELS.items()
    ]
