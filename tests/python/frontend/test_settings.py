"""`CompilationSettings`, `Device` and the enumerations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from torch_tensorrt import (
    Device,
    DeviceType,
    EngineCapability,
    Platform,
    dtype,
    logging,
    memory_format,
)
from torch_tensorrt.dynamo import CompilationSettings

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="checks what happens without a GPU")


def settings(**options: object) -> CompilationSettings:
    return CompilationSettings.from_options(options)


def test_defaults_are_upstreams() -> None:
    value = settings()
    assert value.min_block_size == 5
    assert value.immutable_weights and value.use_explicit_typing
    assert not value.require_full_compilation
    assert value.engine_capability is EngineCapability.STANDARD
    assert value.without_effect() == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("min_blok_size", "min_block_size"), ("truncate_doubles", "truncate_double")],
)
def test_unknown_options_name_the_nearest(wrong, right) -> None:
    with pytest.raises(TypeError, match=f"'{wrong}'.*'{right}'"):
        settings(**{wrong: 1})


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("min_block_size", -1, ValueError),
        ("min_block_size", "3", TypeError),
        ("optimization_level", 6, ValueError),
        ("workspace_size", -1, ValueError),
        ("require_full_compilation", 1, TypeError),
        ("tiling_optimization_level", "high", ValueError),
        ("autocast_low_precision_type", torch.float64, ValueError),
        ("dryrun", 3, TypeError),
        ("device", "tpu:0", ValueError),
        ("device", "dla:0", ValueError),
        ("torch_executed_ops", {3}, TypeError),
        ("refit_identical_engine_weights", True, ValueError),
        ("enable_cross_compile_for_windows", True, ValueError),
        ("settings", 3, TypeError),
    ],
)
def test_bad_values(option, value, error) -> None:
    with pytest.raises(error, match=f"(?i){option}"):
        settings(**{option: value})


def test_options_without_effect_are_accepted_and_known() -> None:
    value = settings(workspace_size=1 << 30, num_avg_timing_iters=5, min_block_size=2)
    assert value.without_effect() == ["workspace_size", "num_avg_timing_iters"]


def test_gpus_get_the_code_that_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        (8, 0): "sm_80",
        (8, 6): "sm_86",
        (8, 7): "sm_86",
        (8, 9): "sm_89",
        (9, 0): "sm_90",
        (10, 0): "compute_90",
        (10, 3): "compute_90",
        (12, 0): "compute_90",
    }
    for capability, variant in expected.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert settings().targets_for(torch.device("cuda")) == [f"cuda:{variant}"]
        assert settings(hardware_compatible=True).targets_for(torch.device("cuda")) == ["cuda"]


def test_timing_is_for_gpus_and_from_level_3_on() -> None:
    gpu, cpu = ["cpu", "cuda:sm_90"], ["cpu"]
    for level, ways in ((None, 0), (0, 0), (2, 0), (3, 4), (4, 6), (5, 8)):
        value = settings(optimization_level=level, timing_cache_path="times.bin")
        tuning = value.tuning_for(gpu)
        assert (tuning.candidates if tuning else 0) == ways
        assert tuning is None or tuning.cache == "times.bin"
        assert value.tuning_for(cpu) is None
    default = settings(optimization_level=3).tuning_for(gpu)
    assert default.cache.startswith(os.path.expanduser("~")) or "XDG_CACHE_HOME" in os.environ
    assert settings(optimization_level=3, timing_cache_path="").tuning_for(gpu).cache is None


@pytest.fixture
def allow_tf32() -> Iterator[Callable[[bool, bool], None]]:
    """Sets PyTorch's switches for products and for convolutions. PyTorch's own tests, of which some are imported here,
    freeze the latter."""

    def allow(products: bool, convolutions: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32 = products
        torch._C._set_cudnn_allow_tf32(convolutions)

    yield allow
    allow(False, True)  # the defaults


def test_tf32_is_where_pytorch_allows_it(allow_tf32: Callable[[bool, bool], None]) -> None:
    gpu = ["cuda:sm_90"]
    for products, convolutions in ((False, True), (True, True), (True, False), (False, False)):
        allow_tf32(products, convolutions)
        expected = ("matmul", "convolution")[: products * (1 + convolutions)]
        assert settings().tf32_for(gpu) == expected
        assert settings().tf32_for(["cpu"]) == ()
        assert settings(disable_tf32=True).tf32_for(gpu) == ()


def test_tf32_is_off_by_default() -> None:
    assert torch.backends.cudnn.allow_tf32
    assert settings().tf32_for(["cuda:sm_90"]) == ()


@pytest.mark.parametrize(
    "name", ["debug", "refit", "use_python_runtime", "truncate_long_and_double"]
)
def test_deprecated_options_warn(name) -> None:
    with pytest.warns(DeprecationWarning, match=name):
        settings(**{name: True})


def test_settings_as_a_base() -> None:
    base = CompilationSettings(min_block_size=7)
    assert settings(settings=base).min_block_size == 7
    assert settings(settings=base, min_block_size=2).min_block_size == 2
    assert settings(settings={"min_block_size": 3}).min_block_size == 3


@pytest.mark.parametrize(
    "named",
    [
        torch.ops.aten.relu.default,
        torch.ops.aten.relu,
        "torch.ops.aten.relu.default",
        "torch.ops.aten.relu",
        "aten.relu.default",
        "aten.relu",
    ],
)
def test_operators_are_named_in_many_ways(named) -> None:
    value = settings(torch_executed_ops={named})
    assert value.runs_in_torch(torch.ops.aten.relu.default)
    assert not value.runs_in_torch(torch.ops.aten.tanh.default)


def test_device_forms() -> None:
    assert Device("cuda:1") == Device("gpu:1") == Device(gpu_id=1)
    assert Device(torch.device("cpu")).device_type is DeviceType.CPU
    assert Device("cpu").to(torch.device) == torch.device("cpu")
    assert Device("cuda:1").to(torch.device) == torch.device("cuda", 1)
    assert Device(dla_core=1).dla_core == 1
    assert repr(Device("gpu:0")) == "Device('cuda:0')"


@pytest.mark.parametrize("arguments", [{}, {"spec": "gpu:x"}, {"spec": "gpu:0", "gpu_id": 1}])
def test_device_errors(arguments) -> None:
    with pytest.raises(ValueError, match="Device"):
        Device(**arguments)


@cpu_only
def test_the_cpu_is_the_default_without_a_gpu() -> None:
    assert Device.default() == Device("cpu")
    with pytest.raises(ValueError, match="sees no GPU"):
        settings(device="cuda:0")


def test_dtype_conversions() -> None:
    for value in (torch.float32, torch.int64, torch.bool, torch.bfloat16):
        assert dtype._from(value).to(torch.dtype) is value
    assert dtype.f16.to(np.dtype) == np.float16
    assert dtype.f32 == torch.float32 and dtype.f32 != torch.float64
    assert dtype.float is dtype.f32 and dtype.bool is dtype.b
    assert dtype.unknown.to(torch.dtype, use_default=True) is torch.float32
    assert dtype.bf16.try_to(np.dtype) is None
    with pytest.raises(TypeError, match="no counterpart"):
        dtype.bf16.to(np.dtype)
    with pytest.raises(TypeError, match="not a dtype"):
        dtype._from(torch.complex64)


def test_memory_formats() -> None:
    assert memory_format._from(torch.channels_last) is memory_format.hwc
    with pytest.raises(TypeError, match="memory format"):
        memory_format._from(torch.preserve_format)


def test_platform() -> None:
    assert Platform.current_platform() in Platform


def test_logging_contexts_restore_the_level() -> None:
    import logging as std

    logger = std.getLogger("torch_tensorrt")
    before = logger.level
    for context, level in (
        (logging.debug, std.DEBUG),
        (logging.errors, std.ERROR),
        (logging.graphs, logging.GRAPHS),
    ):
        with context():
            assert logger.level == level
        assert logger.level == before
    logging.set_level(std.INFO)
    assert logger.level == std.INFO
    logging.set_level(before)
