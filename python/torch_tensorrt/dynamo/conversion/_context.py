"""What a converter is told besides the arguments of its operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from torch.fx import Node

from torch_tensorrt.dynamo._settings import CompilationSettings


class ConverterError(RuntimeError):
    """A converter failed, or returned something else than its operator does."""


class UnsupportedOperatorException(RuntimeError):
    """Operators that no engine has, where all of a program must be in one."""


@dataclass(frozen=True)
class ConversionContext:
    """The first argument of a converter.

    Args:
        compilation_settings: options of the compilation.
        node: the call that is converted, with what the tracer knows of its result in `node.meta["val"]`.
        name: of the node, unique in the program.
    """

    compilation_settings: CompilationSettings
    node: Node
    name: str

    def __getattr__(self, attribute: str) -> NoReturn:
        hint = (
            ": a converter computes its results with functions of PyTorch; there is no network to add layers to"
            if attribute == "net"
            else ""
        )
        raise AttributeError(f"the conversion context has no {attribute!r}{hint}")

    def __deepcopy__(self, memo: Any) -> ConversionContext:
        return self
