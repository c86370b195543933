"""How compiled modules run: modules around engines, and contexts. docs/runtime_api.md says what each does."""

from torch_tensorrt.runtime._contexts import (
    Profile,
    enable_output_allocator,
    enable_pre_allocated_outputs,
    optimization_profile,
    profiling,
)
from torch_tensorrt.runtime._cuda import (
    enable_cudagraphs,
    get_cudagraphs_mode,
    get_multi_device_safe_mode,
    get_whole_cudagraphs_mode,
    set_cudagraphs_mode,
    set_multi_device_safe_mode,
)
from torch_tensorrt.runtime._module import TorchTensorRTModule
from torch_tensorrt.runtime._runtime_settings import (
    RuntimeCache,
    RuntimeSettings,
    runtime_cache,
    runtime_config,
    set_dynamic_shapes_kernel_strategy,
)
from torch_tensorrt.runtime._weight_streaming import weight_streaming

__all__ = [
    "Profile",
    "RuntimeCache",
    "RuntimeSettings",
    "TorchTensorRTModule",
    "enable_cudagraphs",
    "enable_output_allocator",
    "enable_pre_allocated_outputs",
    "get_cudagraphs_mode",
    "get_multi_device_safe_mode",
    "get_whole_cudagraphs_mode",
    "optimization_profile",
    "profiling",
    "runtime_cache",
    "runtime_config",
    "set_cudagraphs_mode",
    "set_dynamic_shapes_kernel_strategy",
    "set_multi_device_safe_mode",
    "weight_streaming",
]
