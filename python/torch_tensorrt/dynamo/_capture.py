"""Where the Debugger looks into a compilation. Nothing happens while there is none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from torch.fx import Graph, GraphModule

if TYPE_CHECKING:
    import torch

    from torch_tensorrt.dynamo._debugger import Debugger

# The debugger whose block this is.
active_debugger: ContextVar[Debugger | None] = ContextVar("active_debugger", default=None)


@contextmanager
def capture(stage: str, before: Graph) -> Iterator[list[Graph]]:
    """Shows the debugger a graph before a stage, and the one after it, which the block puts into the list."""
    debugger = active_debugger.get()
    after: list[Graph] = []
    if debugger is not None:
        debugger.capture_graph(stage, "before", before)
    yield after
    if debugger is not None and after:
        debugger.capture_graph(stage, "after", after[-1])


@contextmanager
def capture_passes() -> Iterator[Path | None]:
    """A folder for the compiler to dump its passes into, None if nobody wants to see them."""
    debugger = active_debugger.get()
    if debugger is None or not debugger.wants_passes():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="torch_tensorrt_") as folder:
        yield Path(folder)
        debugger.collect_passes(Path(folder))


def show_engine(name: str, engine: torch.Tensor) -> None:
    """Shows the debugger an engine that was just compiled."""
    debugger = active_debugger.get()
    if debugger is not None:
        debugger.watch_engine(name, engine)


def show_module(module: GraphModule) -> None:
    """Shows the debugger a module that was just compiled."""
    debugger = active_debugger.get()
    if debugger is not None:
        debugger.watch_module(module)
