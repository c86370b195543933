"""Users' own lowerings of operators."""

from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion import plugins
from torch_tensorrt.dynamo.conversion._context import (
    ConversionContext,
    ConverterError,
    UnsupportedOperatorException,
)
from torch_tensorrt.dynamo.conversion._registry import (
    DYNAMO_CONVERTERS,
    ConverterPriority,
    ConverterRegistry,
    ConverterSupport,
    dynamo_tensorrt_converter,
)

__all__ = [
    "DYNAMO_CONVERTERS",
    "CompilationSettings",
    "ConversionContext",
    "ConverterError",
    "ConverterPriority",
    "ConverterRegistry",
    "ConverterSupport",
    "UnsupportedOperatorException",
    "dynamo_tensorrt_converter",
    "plugins",
]
