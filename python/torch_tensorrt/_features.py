"""What this build can do, under the names that Torch-TensorRT has for it."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple


class FeatureSet(NamedTuple):
    """Features; those of TensorRT's own libraries are False."""

    torchscript_frontend: bool
    torch_tensorrt_runtime: bool
    dynamo_frontend: bool
    fx_frontend: bool
    refit: bool
    qdp_plugin: bool
    windows_cross_compile: bool
    tensorrt_rtx: bool
    trtllm_for_nccl: bool
    native_trt_collectives: bool
    complex_decomposition: bool


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


ENABLED_FEATURES = FeatureSet(
    torchscript_frontend=_exists("torch_tensorrt.ts"),
    torch_tensorrt_runtime=True,
    dynamo_frontend=True,
    fx_frontend=False,
    refit=_exists("torch_tensorrt.dynamo._refit"),
    qdp_plugin=False,
    windows_cross_compile=False,
    tensorrt_rtx=False,
    trtllm_for_nccl=False,
    native_trt_collectives=False,
    complex_decomposition=False,
)
