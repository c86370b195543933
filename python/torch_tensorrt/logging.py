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


def set_level(level: int | str, logger: logging.Logger | None = None) -> None:
    """Sets the level of a logger: this package's when None.

    Args:
        level: logging.DEBUG, GRAPHS, ..., or its name. ValueError for a name that does not exist.
        logger: whose level.
    """
    if isinstance(level, bool) or not isinstance(level, (int, str)):
        raise TypeError(f"level is {level!r}, expected a level of the module logging or its name")
    (logger or _LOGGER).setLevel(level)


class _LevelContext:
    level = logging.NOTSET

    def __init__(self) -> None:
        self._saved: list[tuple[int, logging.Handler | None]] = []

    def __enter__(self) -> None:
        handler: logging.Handler | None = None
        if not _LOGGER.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(levelname)s [%(name)s] %(message)s"))
            _LOGGER.addHandler(handler)
        self._saved.append((_LOGGER.level, handler))
        _LOGGER.setLevel(self.level)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        level, handler = self._saved.pop()
        _LOGGER.setLevel(level)
        if handler is not None:
            _LOGGER.removeHandler(handler)


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
