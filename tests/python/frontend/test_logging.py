"""`torch_tensorrt.logging`: levels, for good and for a block."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import torch_tensorrt
import torch_tensorrt.ts.logging as words
from torch_tensorrt.logging import GRAPHS, set_level

logger = logging.getLogger("torch_tensorrt")


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("internal_errors", logging.CRITICAL),
        ("errors", logging.ERROR),
        ("warnings", logging.WARNING),
        ("info", logging.INFO),
        ("debug", logging.DEBUG),
        ("graphs", GRAPHS),
    ],
)
def test_contexts_change_the_level_for_a_block(name, level) -> None:
    before = logger.level
    with getattr(torch_tensorrt.logging, name)():
        assert logger.level == level
    assert logger.level == before
    with pytest.raises(KeyError), getattr(torch_tensorrt.logging, name)():
        raise KeyError
    assert logger.level == before


def test_contexts_nest_and_can_be_entered_again() -> None:
    before = logger.level, list(logger.handlers)
    context = torch_tensorrt.logging.debug()
    for _ in range(2):
        with torch_tensorrt.logging.errors():
            with context:
                assert logger.level == logging.DEBUG
            assert logger.level == logging.ERROR
    assert (logger.level, list(logger.handlers)) == before


def test_one_context_in_itself() -> None:
    before = logger.level, list(logger.handlers)
    context = torch_tensorrt.logging.info()
    with context, context:
        assert logger.level == logging.INFO
    assert (logger.level, list(logger.handlers)) == before


def test_set_level() -> None:
    before = logger.level
    other = logging.getLogger("torch_tensorrt_test")
    set_level(logging.ERROR, other)
    assert other.level == logging.ERROR
    assert logger.level == before
    try:
        set_level(GRAPHS)
        assert logger.level == GRAPHS
        set_level("INFO")
        assert logger.level == logging.INFO
        with pytest.raises(ValueError, match="'LOUD'"):
            set_level("LOUD")
        with pytest.raises(TypeError, match=r"level is 1\.5"):
            set_level(1.5)
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(before)
    assert logging.getLevelName(GRAPHS) == "GRAPHS"


@pytest.fixture
def restored():
    before = logger.level
    yield
    logger.setLevel(before)
    words.set_logging_prefix("")
    words.set_is_colored_output_on(False)


def test_levels_by_the_names_of_torch_tensorrt(restored) -> None:
    for level in words.Level:
        words.set_reportable_log_level(level)
        assert words.get_reportable_log_level() is level
        assert logger.level == level.value
    logger.setLevel(logging.NOTSET)  # that of the loggers above decides
    assert words.get_reportable_log_level().value >= logging.getLogger().level
    for name, level in zip(
        ("internal_errors", "errors", "warnings", "info", "debug", "graphs"),
        words.Level,
        strict=True,
    ):
        with getattr(torch_tensorrt.logging, name)():
            assert words.get_reportable_log_level() is level
    with pytest.raises(TypeError, match="level is 10, expected a torch_tensorrt.logging.Level"):
        words.set_reportable_log_level(10)


def test_messages_of_the_application(restored, caplog) -> None:
    words.set_reportable_log_level(words.Level.Warning)
    words.log(words.Level.Info, "not this")
    words.log(words.Level.Error, "this: 100 %s")
    assert caplog.messages == ["this: 100 %s"]


PRINTS = """
import torch_tensorrt
from torch_tensorrt.ts import logging
logging.set_logging_prefix("mine: ")
for colored in (False, True):
    logging.set_is_colored_output_on(colored)
    assert logging.get_is_colored_output_on() is colored
    with torch_tensorrt.logging.info():
        logging.log(logging.Level.Info, "so")
        logging.log(logging.Level.Debug, "not so")
assert logging.get_logging_prefix() == "mine: "
"""


def test_what_is_printed_has_the_prefix_and_the_colour() -> None:
    run = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True)
    line = "mine: INFO [torch_tensorrt] so"
    assert run.stderr.splitlines()[-2:] == [line, f"\x1b[32m{line}\x1b[0m"]
