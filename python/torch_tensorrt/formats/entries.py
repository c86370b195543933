"""Entries of an archive that somebody gives to `load`: bytes from outside, so that anything may be wrong with them."""

from __future__ import annotations

import os
import zipfile
from typing import Any


def entry_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of an archive's entries; none for a file that is not an archive.

    Raises:
        ValueError: a damaged archive. OSError: a file that cannot be read.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            return []
        try:
            with zipfile.ZipFile(file) as archive:
                return archive.namelist()
        except Exception as error:  # zipfile raises many kinds
            raise _damaged(path, error) from error


def read_entry(path: str | os.PathLike[str], name: str) -> bytes:
    """The content of an entry. ValueError: it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except Exception as error:  # zipfile and its decompressors raise many kinds
        raise _damaged(path, error, f"its entry {name!r}: ") from error


def _damaged(path: Any, error: Exception, where: str = "") -> ValueError:
    reason = str(error) or type(error).__name__
    return ValueError(
        f"The file {os.fspath(path)} doesn't correspond to a valid saved model: it is a damaged archive: "
        f"{where}{reason}"
    )
