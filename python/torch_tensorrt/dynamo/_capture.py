"""Where an observer, such as the Debugger, looks into a compilation. Nothing happens while there is none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch.fx import Graph, GraphModule


class Observer(Protocol):
    """What wants to see a compilation."""

    def capture_graph(self, stage: str, when: Literal["before", "after"], graph: Graph) -> None:
        """A graph of the front end, before or after a stage."""

    def wants_passes(self) -> bool:
        """Whether the compiler has to dump the graphs of its passes."""

    def collect_passes(self, folder: Path) -> None:
        """The compiler's dumps: a numbered file after every pass that changed something."""

    def watch_engine(self, name: str, engine: torch.Tensor) -> None:
        """An engine that was just compiled."""

    def watch_module(self, module: GraphModule) -> None:
        """A module that was just compiled."""


# Whose block this is.
active_observer: ContextVar[Observer | None] = ContextVar("active_observer", default=None)


@contextmanager
def capture(stage: str, before: Graph) -> Iterator[list[Graph]]:
    """Shows the observer a graph before a stage, and the one after it, which the block puts into the list."""
    observer = active_observer.get()
    after: list[Graph] = []
    if observer is not None:
        observer.capture_graph(stage, "before", before)
    yield after
    if observer is not None and after:
        observer.capture_graph(stage, "after", after[-1])


@contextmanager
def capture_passes() -> Iterator[Path | None]:
    """A folder for the compiler to dump its passes into; None if no observer wants them."""
    observer = active_observer.get()
    if observer is None or not observer.wants_passes():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="torch_tensorrt_") as folder:
        yield Path(folder)
        observer.collect_passes(Path(folder))


def show_engine(name: str, engine: torch.Tensor) -> None:
    """Shows the observer an engine that was just compiled."""
    observer = active_observer.get()
    if observer is not None:
        observer.watch_engine(name, engine)


def show_module(module: GraphModule) -> None:
    """Shows the observer a module that was just compiled."""
    observer = active_observer.get()
    if observer is not None:
        observer.watch_module(module)
