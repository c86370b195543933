"""Exceptions of this package: one class per status of the C API, all derived from `KilnError`."""

from __future__ import annotations


class KilnError(RuntimeError):
    """Anything that went wrong inside Kiln. The text says what was got and what was expected."""


class InvalidArgumentError(KilnError, ValueError):
    """A wrong number of inputs, a wrong dtype or rank, a model that cannot be compiled as it is, or data that an
    operator has no result for, as a singular matrix."""


class OutOfRangeError(KilnError, ValueError):
    """A dimension outside the range that the engine was compiled for."""


class NotFoundError(KilnError, FileNotFoundError):
    """No such file or folder."""


class InvalidEngineError(KilnError, ValueError):
    """A truncated, corrupted or foreign file, or one written by a newer version of Kiln."""


class UnsupportedError(KilnError, NotImplementedError):
    """An operator, CPU or device that Kiln does not support."""


class FileError(KilnError, OSError):
    """A file could not be read or written."""


class OutOfMemoryError(KilnError, MemoryError):
    """An allocation failed."""


class InternalError(KilnError):
    """A bug in Kiln: please report it."""


class OutOfBoundsError(KilnError, IndexError):
    """An index in the data is out of range: an embedding has no such row."""


class DivisionByZeroError(KilnError, ZeroDivisionError):
    """The model divides integers by zero."""


class CancelledError(KilnError):
    """The run was cancelled."""


class KernelFailedError(KilnError):
    """A kernel of the user's own failed: the text is its own, or says what it returned."""


# Indexed by kiln_status.
BY_STATUS: tuple[type[KilnError], ...] = (
    KilnError,
    InvalidArgumentError,
    OutOfRangeError,
    NotFoundError,
    InvalidEngineError,
    UnsupportedError,
    FileError,
    OutOfMemoryError,
    InternalError,
    OutOfBoundsError,
    DivisionByZeroError,
    CancelledError,
    KernelFailedError,
)
