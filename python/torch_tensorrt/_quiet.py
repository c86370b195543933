"""Remarks that PyTorch makes about itself while it does what we ask it to."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Silences warnings that the user can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        # Recurrent networks set their lists of weights while they run.
        warnings.filterwarnings("ignore", ".*_flat_weights.* assigned during export", UserWarning)
        yield


@contextmanager
def quiet_trials() -> Iterator[None]:
    """Silences what PyTorch logs of operators that refuse sizes, on this thread, which tries whether they do."""
    thread = threading.get_ident()

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    trials = logging.getLogger("torch._subclasses.fake_tensor")
    trials.addFilter(is_of_another_thread)
    try:
        yield
    finally:
        trials.removeFilter(is_of_another_thread)


def _is_no_remark_on_endings(record: logging.LogRecord) -> bool:
    return "a file ending in" not in str(record.msg)


def _is_no_remark_on_empty_lists(record: logging.LogRecord) -> bool:
    return "the given empty list" not in str(record.msg)


def accept_any_ending() -> None:
    """Lets torch.export.save and torch.export.load take files of any name, such as model.ep, without a remark."""
    logging.getLogger("torch.export.pt2_archive._package").addFilter(_is_no_remark_on_endings)


def accept_empty_lists() -> None:
    """Lets operators with empty lists, such as loops without operands, be serialised without a remark."""
    logging.getLogger("torch._export.serde.serialize").addFilter(_is_no_remark_on_empty_lists)
