"""Data types, layouts, devices and platforms, and their conversions."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

import torch_tensorrt
from torch_tensorrt import (
    ENABLED_FEATURES,
    Device,
    DeviceType,
    EngineCapability,
    Platform,
    dtype,
    memory_format,
)

BOTH = {
    "u8": (torch.uint8, "uint8"),
    "i8": (torch.int8, "int8"),
    "i32": (torch.int32, "int32"),
    "i64": (torch.int64, "int64"),
    "f16": (torch.float16, "float16"),
    "f32": (torch.float32, "float32"),
    "f64": (torch.float64, "float64"),
    "b": (torch.bool, "bool"),
}


@pytest.mark.parametrize("name", list(BOTH))
def test_dtypes_of_torch_and_numpy(name) -> None:
    in_torch, in_numpy = BOTH[name]
    value = dtype[name]
    assert value.to(torch.dtype) is in_torch
    assert value.to(np.dtype) == np.dtype(in_numpy)
    assert dtype._from(in_torch) is value
    assert dtype._from(np.dtype(in_numpy)) is value
    assert dtype._from(value) is value
    assert value == in_torch
    assert value == np.dtype(in_numpy)
    assert value.to(dtype) is value


def test_dtypes_that_numpy_lacks() -> None:
    for value, in_torch in ((dtype.bf16, torch.bfloat16), (dtype.f8, torch.float8_e4m3fn)):
        assert value.to(torch.dtype) is in_torch
        assert dtype._from(in_torch) is value
        with pytest.raises(TypeError, match="no counterpart in numpy"):
            value.to(np.dtype)
        assert value.try_to(np.dtype) is None


def test_dtypes_without_a_counterpart() -> None:
    for value in (dtype.unknown, dtype.f4):
        with pytest.raises(TypeError, match="no counterpart in torch"):
            value.to(torch.dtype)
    assert dtype.unknown.to(torch.dtype, use_default=True) is torch.float32
    with pytest.raises(TypeError, match="kind of dtype"):
        dtype.f32.to(int)
    with pytest.raises(TypeError, match=r"torch\.complex64.*supported"):
        dtype._from(torch.complex64)
    assert dtype.try_from(torch.complex64) is None


def test_aliases_of_dtypes() -> None:
    aliases = {
        dtype.f16: ("half", "float16", "fp16"),
        dtype.f32: ("float", "float32", "fp32"),
        dtype.f64: ("double", "float64", "fp64"),
        dtype.bf16: ("bfloat16",),
        dtype.i8: ("int8",),
        dtype.i32: ("int", "int32"),
        dtype.i64: ("long", "int64"),
        dtype.u8: ("uint8",),
        dtype.b: ("bool",),
        dtype.f8: ("fp8", "float8"),
        dtype.f4: ("fp4", "float4"),
    }
    for value, names in aliases.items():
        assert all(getattr(dtype, name) is value for name in names)
        assert dtype._from(names[0]) is value
    assert len(list(dtype)) == 12


def test_memory_formats() -> None:
    assert memory_format._from(torch.contiguous_format) is memory_format.linear
    assert memory_format._from(torch.channels_last) is memory_format.hwc
    assert memory_format._from(torch.channels_last_3d) is memory_format.dhwc
    assert memory_format._from(memory_format.chw4) is memory_format.chw4
    assert memory_format.hwc.to(torch.memory_format) is torch.channels_last
    assert memory_format.linear.to(torch.memory_format) is torch.contiguous_format
    with pytest.raises(TypeError, match="chw32"):
        memory_format.chw32.to(torch.memory_format)
    with pytest.raises(TypeError, match="preserve_format"):
        memory_format._from(torch.preserve_format)
    names = "linear chw2 hwc8 chw4 chw16 chw32 dhwc8 cdhw32 hwc dla_linear dla_hwc4 hwc16 dhwc"
    assert [value.name for value in memory_format] == names.split()


def test_devices() -> None:
    for text in ("gpu:1", "cuda:1", "CUDA:1"):
        device = Device(text)
        assert (device.device_type, device.gpu_id) == (DeviceType.GPU, 1)
        assert device.to(torch.device) == torch.device("cuda", 1)
    assert Device(gpu_id=1) == Device("cuda:1") == Device(torch.device("cuda", 1))
    assert len({Device(gpu_id=1), Device("gpu:1")}) == 1
    dla = Device("dla:1", allow_gpu_fallback=True)
    assert (dla.device_type, dla.dla_core, dla.gpu_id) == (DeviceType.DLA, 1, 0)
    assert dla.allow_gpu_fallback
    assert Device("cpu").to(torch.device) == torch.device("cpu")
    assert DeviceType._from(torch.device("cpu")) is DeviceType.CPU
    assert DeviceType._from("cuda") is DeviceType.GPU
    with pytest.raises(ValueError, match="needs a description"):
        Device()
    with pytest.raises(ValueError, match="give one of them"):
        Device("cuda:0", gpu_id=0)
    with pytest.raises(ValueError, match="expected cpu, cuda:N, gpu:N or dla:N"):
        Device("tpu:0")
    with pytest.raises(TypeError, match="expected"):
        DeviceType._from("tpu")


def test_capabilities_and_platforms() -> None:
    assert [value.name for value in EngineCapability] == ["STANDARD", "SAFETY", "DLA_STANDALONE"]
    assert EngineCapability._from("safety") is EngineCapability.SAFETY
    assert EngineCapability._from(EngineCapability.STANDARD) is EngineCapability.STANDARD
    with pytest.raises(TypeError, match="STANDARD, SAFETY, DLA_STANDALONE"):
        EngineCapability._from("fast")
    names = ["LINUX_X86_64", "LINUX_AARCH64", "WIN_X86_64", "WIN_ARM64", "UNKNOWN"]
    assert [value.name for value in Platform] == names
    assert Platform.current_platform() is Platform.LINUX_X86_64
    assert str(Platform.LINUX_X86_64) == "linux_x86_64"


def test_features() -> None:
    assert ENABLED_FEATURES.dynamo_frontend
    assert ENABLED_FEATURES.torch_tensorrt_runtime
    for missing in ("fx_frontend", "qdp_plugin", "windows_cross_compile", "tensorrt_rtx"):
        assert getattr(ENABLED_FEATURES, missing) is False
    assert len(ENABLED_FEATURES) == 11
    assert torch_tensorrt.__cuda_version__ is None


def test_what_is_not_there(mlp) -> None:
    with pytest.raises(NotImplementedError, match=r"for Linux.*torch_tensorrt\.save"):
        torch_tensorrt.cross_compile_for_windows(mlp, "model.ep", inputs=[torch.randn(4, 16)])
    with pytest.raises(ValueError, match=r"for Linux.*torch_tensorrt\.load"):
        torch_tensorrt.load_cross_compiled_exported_program("model.ep")
    with (
        pytest.warns(DeprecationWarning, match="fx"),
        pytest.raises(NotImplementedError, match="ir='fx'.*'dynamo'"),
    ):
        torch_tensorrt.compile(mlp, ir="fx", inputs=[torch.randn(4, 16)])
    for name in ("fx", "kernels", "distributed", "executorch"):
        with pytest.raises(ImportError, match=f"torch_tensorrt has no '{name}': "):
            importlib.import_module(f"torch_tensorrt.{name}")
        with pytest.raises(AttributeError, match=f"no '{name}': "):
            getattr(torch_tensorrt, name)
    with pytest.raises(AttributeError, match="no 'compiel'$"):
        torch_tensorrt.compiel  # noqa: B018


def test_devices_as_dictionaries() -> None:
    assert Device._from({"device_type": DeviceType.GPU, "gpu_id": 1}) == Device("cuda:1")
    assert Device._from({"device_type": DeviceType.GPU}) == Device("cuda:0")
    assert Device._from({"device_type": "cpu"}) == Device("cpu")
    dla = Device._from({"device_type": "dla", "dla_core": 1, "allow_gpu_fallback": True})
    assert (dla.dla_core, dla.gpu_id, dla.allow_gpu_fallback) == (1, 0, True)
    with pytest.raises(KeyError, match="expected a device_type in it"):
        Device._from({"gpu_id": 0})
    with pytest.raises(ValueError, match="device has 'gpu', expected device_type, gpu_id"):
        Device._from({"device_type": "cpu", "gpu": 0})


def test_a_device_as_a_dictionary_is_compiled_for(assert_same) -> None:
    x = torch.randn(3, 4)
    spec = {"inputs": [x], "device": {"device_type": DeviceType.CPU}, "min_block_size": 1}
    assert_same(torch_tensorrt.compile(torch.nn.ReLU(), ir="dynamo", **spec)(x), torch.relu(x))
