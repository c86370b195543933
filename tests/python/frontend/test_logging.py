"""`torch_tensorrt.logging`: levels, for good and for a block."""

from __future__ import annotations

import logging

import pytest

import torch_tensorrt
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
