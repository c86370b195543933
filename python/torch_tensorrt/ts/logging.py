"""`torch_tensorrt.logging` by the name that the TorchScript front end has for it."""

from torch_tensorrt.logging import (
    Level,
    debug,
    errors,
    get_is_colored_output_on,
    get_logging_prefix,
    get_reportable_log_level,
    graphs,
    info,
    internal_errors,
    log,
    set_is_colored_output_on,
    set_logging_prefix,
    set_reportable_log_level,
    warnings,
)

__all__ = [
    "Level",
    "debug",
    "errors",
    "get_is_colored_output_on",
    "get_logging_prefix",
    "get_reportable_log_level",
    "graphs",
    "info",
    "internal_errors",
    "log",
    "set_is_colored_output_on",
    "set_logging_prefix",
    "set_reportable_log_level",
    "warnings",
]
