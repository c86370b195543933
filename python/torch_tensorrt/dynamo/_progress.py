"""Progress messages of compiles that take longer than a glance."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

# Compiles shorter than this say nothing.
_DELAY_SECONDS = 2.0


class CompileProgress:
    """Shows how far a compile is: a bar on a terminal, a line every few seconds in a log. Use as a context."""

    def __init__(self, num_engines: int) -> None:
        self._num_engines = num_engines
        self._engine = 0
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> CompileProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def next_engine(self) -> None:
        self._engine += 1

    def update(self, stage: str, fraction: float) -> None:
        """Called by the compiler."""
        now = time.monotonic()
        if now - self._start < _DELAY_SECONDS:
            return
        text = (
            stage
            if self._num_engines == 1
            else f"engine {self._engine} of {self._num_engines}: {stage}"
        )
        done = (max(self._engine, 1) - 1 + fraction) / max(self._num_engines, 1)
        if self._bar is None and sys.stderr.isatty():
            self._open_bar()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)
        elif now - self._last >= _DELAY_SECONDS:
            self._last = now
            logger.info("compiling, %.0f %%: %s", 100 * done, text)

    def _open_bar(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                TaskProgressColumn,
                TextColumn,
                TimeElapsedColumn,
            )
        except ImportError:  # a log line will do
            return
        columns = (
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("compiling", total=1.0)
        self._bar.start()
