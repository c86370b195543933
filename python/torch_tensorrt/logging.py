"""How much is logged: `set_level`, and contexts that change the level for a block.

with torch_tensorrt.logging.debug():
    trt_model = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)
"""

from __future__ import annotations

import logging
from types import TracebackType

_LOGGER = logging.getLogger("torch_tensorrt")
# More than DEBUG: graphs of every stage are logged.
GRAPHS = 5
logging.addLevelName(GRAPHS, "GRAPHS")


def set_level(level: int, logger: logging.Logger | None = None) -> None:
    """Sets the level (logging.DEBUG, ...) of a logger: this package's when None."""
    (logger or _LOGGER).setLevel(level)


class _LevelContext:
    level = logging.NOTSET

    def __enter__(self) -> None:
        self._previous = _LOGGER.level
        self._handler: logging.Handler | None = None
        if not _LOGGER.hasHandlers():
            self._handler = logging.StreamHandler()
            self._handler.setFormatter(logging.Formatter("%(levelname)s [%(name)s] %(message)s"))
            _LOGGER.addHandler(self._handler)
        _LOGGER.setLevel(self.level)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _LOGGER.setLevel(self._previous)
        if self._handler is not None:
            _LOGGER.removeHandler(self._handler)


class internal_errors(_LevelContext):  # noqa: N801 - upstream's names
    """Only fatal errors."""

    level = logging.CRITICAL


class errors(_LevelContext):  # noqa: N801
    """Errors."""

    level = logging.ERROR


class warnings(_LevelContext):  # noqa: N801
    """Errors and warnings."""

    level = logging.WARNING


class info(_LevelContext):  # noqa: N801
    """What is being done, too."""

    level = logging.INFO


class debug(_LevelContext):  # noqa: N801
    """How it is being done, too: which operators stay in PyTorch, and why."""

    level = logging.DEBUG


class graphs(_LevelContext):  # noqa: N801
    """Everything: the graph of every stage, too."""

    level = GRAPHS
