"""Plugins of TensorRT: there are none here; the errors say what takes their place."""

from __future__ import annotations

from typing import Any, NoReturn

_NO_PLUGINS = (
    "{caller}: there are no TensorRT plugins in this runtime. Give {name} a lowering with "
    "torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter (docs/converters.md) to have it inside engines, or do "
    "nothing: a torch.library.custom_op without one runs in PyTorch, between engines"
)


def custom_op(op_name: str, *args: Any, **kwargs: Any) -> NoReturn:
    """NotImplementedError that says what to do."""
    raise NotImplementedError(_NO_PLUGINS.format(caller="custom_op", name=op_name))


def generate_plugin(plugin_name: str, *args: Any, **kwargs: Any) -> NoReturn:
    """NotImplementedError that says what to do."""
    raise NotImplementedError(_NO_PLUGINS.format(caller="generate_plugin", name=plugin_name))


def generate_plugin_converter(plugin_id: str, *args: Any, **kwargs: Any) -> NoReturn:
    """NotImplementedError that says what to do."""
    raise NotImplementedError(
        _NO_PLUGINS.format(caller="generate_plugin_converter", name=plugin_id)
    )
