"""How much is logged: `set_level`, and contexts that change the level for a block.

with torch_tensorrt.logging.debug():
    trt_model = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=inputs)

`Level` and the functions named after it are those of Torch-TensorRT 1.x and 2.x, which has them in `ts.logging` too.
"""

from __future__ import annotations

import enum
import logging
from types import TracebackType

_LOGGER = logging.getLogger("torch_tensorrt")
# More than DEBUG: graphs of every stage are logged.
GRAPHS = 5
logging.addLevelName(GRAPHS, "GRAPHS")


class Level(enum.Enum):
    """How much is logged, each with what comes before it; the values are those of the module logging."""

    InternalError = logging.CRITICAL
    Error = logging.ERROR
    Warning = logging.WARNING
    Info = logging.INFO
    Debug = logging.DEBUG
    Graph = GRAPHS


class _Formatter(logging.Formatter):
    """Of the messages that are printed where the application set up no logging."""

    prefix = ""
    colored = False
    _COLORS = ((logging.ERROR, "31"), (logging.WARNING, "33"), (logging.INFO, "32"))

    def format(self, record: logging.LogRecord) -> str:
        text = _Formatter.prefix + super().format(record)
        if not _Formatter.colored:
            return text
        color = next((color for level, color in self._COLORS if record.levelno >= level), "36")
        return f"\033[{color}m{text}\033[0m"


def set_level(level: int | str, logger: logging.Logger | None = None) -> None:
    """Sets the level of a logger: this package's when None.

    Args:
        level: logging.DEBUG, GRAPHS, ..., or its name. ValueError for a name that does not exist.
        logger: whose level.
    """
    if isinstance(level, bool) or not isinstance(level, (int, str)):
        raise TypeError(f"level is {level!r}, expected a level of the module logging or its name")
    (logger or _LOGGER).setLevel(level)


def set_reportable_log_level(level: Level) -> None:
    """Sets how much this package logs. TypeError: no `Level`."""
    set_level(_check_level(level).value)


def get_reportable_log_level() -> Level:
    """How much this package logs: the `Level` that its logger's effective level lets through."""
    effective = _LOGGER.getEffectiveLevel()
    return next(
        (level for level in reversed(Level) if level.value >= effective), Level.InternalError
    )


def set_logging_prefix(prefix: str) -> None:
    """Sets what stands before messages that are printed where the application set up no logging."""
    _Formatter.prefix = prefix


def get_logging_prefix() -> str:
    """What `set_logging_prefix` set; empty by default."""
    return _Formatter.prefix


def set_is_colored_output_on(colored_output_on: bool) -> None:
    """Sets whether messages that are printed where the application set up no logging have the colour of their level."""
    _Formatter.colored = colored_output_on


def get_is_colored_output_on() -> bool:
    """What `set_is_colored_output_on` set; False by default."""
    return _Formatter.colored


def log(level: Level, msg: str) -> None:
    """Logs a message of the application's as one of this package. TypeError: no `Level`."""
    _LOGGER.log(_check_level(level).value, "%s", msg)


def _check_level(level: Level) -> Level:
    if not isinstance(level, Level):
        raise TypeError(f"level is {level!r}, expected a torch_tensorrt.logging.Level")
    return level


class _LevelContext:
    level = logging.NOTSET

    def __init__(self) -> None:
        self._saved: list[tuple[int, logging.Handler | None]] = []

    def __enter__(self) -> None:
        handler: logging.Handler | None = None
        if not _LOGGER.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(_Formatter("%(levelname)s [%(name)s] %(message)s"))
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
