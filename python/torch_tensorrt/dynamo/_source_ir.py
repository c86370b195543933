"""Kinds of graphs, by the names that Torch-TensorRT has for them."""

from __future__ import annotations

import enum


class SourceIR(enum.Enum):
    """What a graph consists of; programs are divided as ATEN."""

    NN = enum.auto()
    ACC = enum.auto()
    ATEN = enum.auto()
    PRIM = enum.auto()
    TORCHTRT_LOWERED = enum.auto()
    UNKNOWN = enum.auto()
    DYNAMO = ATEN

    def __str__(self) -> str:
        return self.name.lower()
