"""`CompilationSettings`: every option of `compile`, its default, and its checks.

Options that only make sense for TensorRT are accepted and have no effect; docs/torch_tensorrt_api.md
says for each what it does here. An option that nobody knows is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

import kiln
from torch_tensorrt._device import Device
from torch_tensorrt._enums import DeviceType, EngineCapability, dtype
from torch_tensorrt.dynamo._engine_cache import (
    DEFAULT_ENGINE_CACHE_DIR,
    DEFAULT_ENGINE_CACHE_SIZE,
    BaseEngineCache,
)
from torch_tensorrt.dynamo._words import translate

logger = logging.getLogger(__name__)

# Beside the engines, in the user's own folder: under /tmp, where Torch-TensorRT has it, others may have put a file.
TIMING_CACHE_PATH = os.path.join(os.path.dirname(DEFAULT_ENGINE_CACHE_DIR), "timing_cache.bin")
# How many ways of a product or convolution are timed, by optimization_level; lower levels time none.
_TIMED_WAYS = {3: 4, 4: 6, 5: 8}


@dataclass
class CompilationSettings:
    """Options of a compilation. The first group does something; docs/torch_tensorrt_api.md lists the rest."""

    min_block_size: int = 5
    torch_executed_ops: Set[Any] = field(default_factory=set)
    require_full_compilation: bool = False
    pass_through_build_failures: bool = False
    dryrun: bool | str = False
    emulate_precision_casts: bool = False
    device: Device = field(default_factory=Device.default)

    workspace_size: int = 0
    max_aux_streams: int | None = None
    version_compatible: bool = False
    optimization_level: int | None = None
    truncate_double: bool = False
    use_complex_decomposition: bool | None = None
    use_fast_partitioner: bool = True
    enable_experimental_decompositions: bool = False
    disable_tf32: bool = False
    assume_dynamic_shape_support: bool = False
    sparse_weights: bool = False
    engine_capability: EngineCapability = EngineCapability.STANDARD
    num_avg_timing_iters: int = 1
    dla_sram_size: int = 1048576
    dla_local_dram_size: int = 1073741824
    dla_global_dram_size: int = 536870912
    hardware_compatible: bool = False
    timing_cache_path: str = TIMING_CACHE_PATH
    runtime_cache_path: str = ""
    lazy_engine_init: bool = False
    cache_built_engines: bool = False
    reuse_cached_engines: bool = False
    use_fp32_acc: bool = False
    refit_identical_engine_weights: bool = False
    strip_engine_weights: bool = False
    immutable_weights: bool = True
    enable_weight_streaming: bool = False
    enable_cross_compile_for_windows: bool = False
    tiling_optimization_level: str = "none"
    l2_limit_for_tiling: int = -1
    use_distributed_mode_trace: bool = False
    offload_module_to_cpu: bool = False
    use_explicit_typing: bool = True
    enabled_precisions: Set[Any] = field(default_factory=lambda: {torch.float32})
    enable_autocast: bool = False
    autocast_low_precision_type: torch.dtype | None = None
    autocast_excluded_nodes: Set[str] = field(default_factory=set)
    autocast_excluded_ops: Set[Any] = field(default_factory=set)
    autocast_max_output_threshold: float = 512
    autocast_max_depth_of_reduction: int | None = None
    autocast_calibration_dataloader: Any = None
    enable_resource_partitioning: bool = False
    cpu_memory_budget: int | None = None
    dynamically_allocate_resources: bool = False
    decompose_attention: bool = False
    disabled_constant_fold_exclusions: frozenset[Any] = frozenset()
    attn_bias_is_causal: bool = True
    fallback_data_dependent_ops: bool = False
    dynamic_shapes_kernel_specialization_strategy: str = "lazy"
    engine_cache_dir: str = DEFAULT_ENGINE_CACHE_DIR
    engine_cache_size: int = DEFAULT_ENGINE_CACHE_SIZE
    custom_engine_cache: Any = None
    check_bounds: bool = True
    disable_winograd: bool = False
    targets: Sequence[str] = ()
    autocast_decisions: ClassVar[Any] = (
        None  # no option, but what became of those for autocast (`_autocast.py`)
    )

    def __post_init__(self) -> None:
        self.device = Device._from(self.device)
        self.torch_executed_ops = frozenset(self.torch_executed_ops)
        if isinstance(self.autocast_low_precision_type, dtype):
            self.autocast_low_precision_type = self.autocast_low_precision_type.to(torch.dtype)
        if isinstance(self.targets, str):
            self.targets = self.targets.split(",")
        for check in _CHECKS:
            check(self)

    @classmethod
    def names(cls) -> set[str]:
        """Every option, and "settings"."""
        return {option.name for option in dataclasses.fields(cls)} | {"settings"}

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], caller: str = "compile"
    ) -> CompilationSettings:
        """Settings from keyword arguments, in the words of any version (`_words.py`); a dictionary or a
        CompilationSettings under "settings" is the base. TypeError: a word that no version knew."""
        options = translate(options, cls.names(), caller)
        base = options.pop("settings", None)
        if base is None:
            return cls(**options)
        if not isinstance(base, (cls, Mapping)):
            raise TypeError(
                f"settings is {type(base).__name__}, expected CompilationSettings or a dictionary"
            )
        if isinstance(base, Mapping):
            return cls.from_options({**base, **options}, caller)
        return dataclasses.replace(base, **options)

    def targets_for(self, device: torch.device) -> list[str]:
        """What engines of a program on a device are compiled for, as `kiln.compile` takes it: the targets that were
        asked for, or else code for every CPU, or for the GPU's own generation, and with hardware_compatible for every
        generation and those to come. ValueError: asked for, but nothing of it for that device."""
        if self.targets:
            if device.type not in {target.partition(":")[0] for target in self.targets}:
                raise ValueError(
                    f"targets is {list(self.targets)}, expected one for {device.type} among them: the model is on "
                    f"{device}"
                )
            return list(self.targets)
        if device.type != "cuda":
            return [device.type]
        if self.hardware_compatible:
            return ["cuda"]
        return [_gpu_target(*torch.cuda.get_device_capability(device))]

    def tf32_for(self, targets: Sequence[str]) -> tuple[str, ...]:
        """Where engines for GPUs may round f32 to TF32, as `kiln.compile` takes it: where PyTorch may at this moment,
        unless disable_tf32. Convolutions do where products do too: PyTorch rounds those by default, so that its switch
        for them alone is nobody's wish."""
        if self.disable_tf32 or not any(target.startswith("cuda") for target in targets):
            return ()
        if not _tf32_products():
            return ()
        return ("matmul", "convolution") if _tf32_convolutions() else ("matmul",)

    def tuning_for(self, targets: Sequence[str]) -> kiln.Tuning | None:
        """How engines for these targets are tuned: those for GPUs by timing, from optimization_level 3 on."""
        ways = _TIMED_WAYS.get(self.optimization_level or 0)
        if ways is None or not any(target.startswith("cuda") for target in targets):
            return None
        return kiln.Tuning(ways, os.fspath(self.timing_cache_path) or None)

    def without_effect(self) -> list[str]:
        """Names of options that were changed from their defaults and that nothing here looks at."""
        default = CompilationSettings(device=self.device)
        return [
            option.name
            for option in dataclasses.fields(self)
            if option.name not in _USED
            and getattr(self, option.name) != getattr(default, option.name)
        ]

    def runs_in_torch(self, target: Any) -> bool:
        """Whether the user asked for an operator to stay in PyTorch."""
        return is_among(target, self.torch_executed_ops)


def is_among(target: Any, operators: Set[Any]) -> bool:
    """Whether an operator is one of those that a user named: by overload, by packet or by name."""
    if not operators:
        return False
    names = {target, str(target), f"torch.ops.{target}"}
    if isinstance(target, torch._ops.OpOverload):
        packet = target.overloadpacket
        names |= {packet, str(packet), f"torch.ops.{packet}"}
    if isinstance(target, torch._ops.HigherOrderOperator):
        names |= {f"higher_order.{target}", f"torch.ops.higher_order.{target}"}
    return not names.isdisjoint(operators)


def _gpu_target(major: int, minor: int) -> str:
    """The code for one GPU: that of the latest generation whose code it runs, and of newer ones PTX."""
    if (major, minor) > (9, 0):
        return "cuda:compute_90"
    fitting = [each for each in ((8, 0), (8, 6), (8, 9)) if each[0] == major and each[1] <= minor]
    best = fitting[-1] if fitting else (major, minor)
    return f"cuda:sm_{best[0]}{best[1]}"


_USED = frozenset(
    (
        "assume_dynamic_shape_support",
        "min_block_size",
        "optimization_level",
        "timing_cache_path",
        "torch_executed_ops",
        "fallback_data_dependent_ops",
        "require_full_compilation",
        "pass_through_build_failures",
        "dryrun",
        "device",
        "cache_built_engines",
        "reuse_cached_engines",
        "engine_cache_dir",
        "engine_cache_size",
        "custom_engine_cache",
        "strip_engine_weights",
        "immutable_weights",
        "emulate_precision_casts",
        "check_bounds",
        "disable_winograd",
        "disable_tf32",
        "hardware_compatible",
        "offload_module_to_cpu",
        "targets",
        "enable_autocast",
        "autocast_low_precision_type",
        "autocast_excluded_nodes",
        "autocast_excluded_ops",
        "autocast_max_output_threshold",
        "autocast_max_depth_of_reduction",
        "autocast_calibration_dataloader",
    )
)


# PyTorch 2.9 and newer have a switch for each operator; an older one that is read after those were set raises an error.
def _tf32_products() -> bool:
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32 or torch.get_float32_matmul_precision() != "highest"


def _tf32_convolutions() -> bool:
    convolution = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(convolution, "fp32_precision"):
        return convolution.fp32_precision == "tf32"
    return torch.backends.cudnn.allow_tf32


def _check_device(settings: CompilationSettings) -> None:
    kind = settings.device.device_type
    if kind is DeviceType.DLA:
        raise ValueError(
            f"device is {settings.device}, expected cpu or a GPU: there is no DLA support"
        )
    if kind is DeviceType.GPU and not torch.cuda.is_available():
        raise ValueError(
            f'device is {settings.device}, but PyTorch sees no GPU: use device="cpu", or leave it out'
        )


def _check_numbers(settings: CompilationSettings) -> None:
    def require(name: str, low: int, high: int | None = None) -> None:
        value = getattr(settings, name)
        bound = f"{low} or more" if high is None else f"{low} to {high}"
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected an integer, {bound}")
        if value < low or (high is not None and value > high):
            raise ValueError(f"{name} is {value}, expected {bound}")

    require("min_block_size", 0)
    require("workspace_size", 0)
    require("num_avg_timing_iters", 1)
    require("engine_cache_size", 1)
    if settings.optimization_level is not None:
        require("optimization_level", 0, 5)
    if settings.max_aux_streams is not None:
        require("max_aux_streams", 0)


def _check_flags(settings: CompilationSettings) -> None:
    for option in dataclasses.fields(settings):
        if option.type == "bool" and not isinstance(getattr(settings, option.name), bool):
            raise TypeError(
                f"{option.name} is {getattr(settings, option.name)!r}, expected True or False"
            )
    if not isinstance(settings.dryrun, (bool, str, os.PathLike)):
        raise TypeError(
            f"dryrun is {settings.dryrun!r}, expected True, False or the path of a report"
        )


def _check_choices(settings: CompilationSettings) -> None:
    choices = {
        "tiling_optimization_level": ("none", "fast", "moderate", "full"),
        "dynamic_shapes_kernel_specialization_strategy": ("lazy", "eager", "none"),
        "autocast_low_precision_type": (None, torch.float16, torch.bfloat16),
    }
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            raise ValueError(f"{name} is {getattr(settings, name)!r}, expected one of {allowed}")


def _check_combinations(settings: CompilationSettings) -> None:
    if settings.refit_identical_engine_weights and settings.immutable_weights:
        raise ValueError("refit_identical_engine_weights needs immutable_weights=False")
    if settings.fallback_data_dependent_ops and settings.require_full_compilation:
        raise ValueError(
            "fallback_data_dependent_ops=True leaves operators to PyTorch, which require_full_compilation=True "
            "forbids: give one of the two"
        )
    if settings.enable_cross_compile_for_windows:
        raise ValueError(
            "enable_cross_compile_for_windows is not supported: engines are for Linux on x86-64"
        )
    for op in settings.torch_executed_ops:
        if not isinstance(
            op, (str, torch._ops.OpOverload, torch._ops.OpOverloadPacket)
        ) and not callable(op):
            raise TypeError(
                f"torch_executed_ops has {op!r}, expected operators such as torch.ops.aten.relu.default or "
                '"torch.ops.aten.relu.default"'
            )


def _check_cache(settings: CompilationSettings) -> None:
    cache = settings.custom_engine_cache
    if cache is not None and not isinstance(cache, BaseEngineCache):
        raise TypeError(
            f"custom_engine_cache is {type(cache).__name__}, expected an object of a class derived from "
            "torch_tensorrt.dynamo._engine_cache.BaseEngineCache"
        )
    if not isinstance(settings.timing_cache_path, (str, os.PathLike)):
        raise TypeError(f"timing_cache_path is {settings.timing_cache_path!r}, expected a path")
    if not isinstance(settings.engine_cache_dir, (str, os.PathLike)) or not os.fspath(
        settings.engine_cache_dir
    ):
        raise TypeError(f"engine_cache_dir is {settings.engine_cache_dir!r}, expected a path")


def _check_targets(settings: CompilationSettings) -> None:
    targets = settings.targets
    if not isinstance(targets, Sequence) or not all(
        isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda")
        for target in targets
    ):
        raise ValueError(
            f'targets is {targets!r}, expected names of targets such as "cpu,cuda:sm_90" or ["cpu", "cuda"]'
        )
    settings.targets = tuple(targets)


def _check_autocast(settings: CompilationSettings) -> None:
    for name in ("autocast_excluded_nodes", "autocast_excluded_ops"):
        value = getattr(settings, name)
        if isinstance(value, str) or not isinstance(value, (Set, Sequence)):
            raise TypeError(f"{name} is {value!r}, expected a set")
        setattr(settings, name, frozenset(value))
    for pattern in settings.autocast_excluded_nodes:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"autocast_excluded_nodes has {pattern!r}, expected regular expressions: {error}"
            ) from error
    for name in ("autocast_max_output_threshold", "autocast_max_depth_of_reduction"):
        value = getattr(settings, name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and value >= 0):
            raise ValueError(f"{name} is {value!r}, expected a number, 0 or more, or None")


_CHECKS = (
    _check_autocast,
    _check_device,
    _check_targets,
    _check_cache,
    _check_numbers,
    _check_flags,
    _check_choices,
    _check_combinations,
)
