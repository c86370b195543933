"""Checks what was written before it takes the place of a file: a save never succeeds without its data.

Writers are PyTorch's and Python's, and may lose data silently; so the file itself is read, through a mapping of
it, and compared byte by byte with the memory that it came from. That takes a fraction of the time of writing.
"""

from __future__ import annotations

import ctypes
import mmap
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

_LOCAL_HEADER_SIZE = 30
_compare = ctypes.CDLL(None).memcmp
_compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class WriteError(OSError):
    """A file was written that lacks something; the one that it was for is as it was before."""


class WrittenArchive:
    """A zip file that was just written, entries without the name of the folder that all lie in."""

    def __init__(self, file: IO[bytes]) -> None:
        """Raises WriteError: it is not an archive."""
        file.flush()
        self._file = file
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError) as error:
            raise WriteError(
                f"nothing was saved: what was written cannot be read: {error}"
            ) from error
        names = [entry.filename.partition("/")[2] for entry in entries]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise WriteError(
                f"nothing was saved: the entry {twice[0]!r} was written more than once"
            )
        self._entries = dict(zip(names, entries, strict=True))

    def read(self, name: str) -> bytes:
        """The content of an entry. Raises WriteError: there is none."""
        if name not in self._entries:
            raise WriteError(f"nothing was saved: the entry {name!r} was not written")
        with zipfile.ZipFile(self._file) as archive:
            return archive.read(self._entries[name])

    def check(self, contents: Mapping[str, Any]) -> None:
        """Compares entries with what they were written from: tensors' storages, bytes or files (Path).

        Raises:
            WriteError: an entry that is not there, is compressed, or differs.
        """
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            start = ctypes.addressof(anchor := ctypes.c_char.from_buffer(mapped))
            try:
                for name, content in contents.items():
                    self._check_entry(name, content, start, mapped)
            finally:
                del anchor

    def _check_entry(self, name: str, content: Any, start: int, mapped: mmap.mmap) -> None:
        entry = self._entries.get(name)
        if entry is None:
            raise WriteError(f"nothing was saved: the entry {name!r} was not written")
        address, size, owner = _memory(content)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
            raise WriteError(
                f"nothing was saved: the entry {name!r} has {entry.file_size} bytes, expected {size}"
            )
        header = entry.header_offset
        lengths = mapped[header + 26 : header + 30]
        offset = (
            header
            + _LOCAL_HEADER_SIZE
            + int.from_bytes(lengths[:2], "little")
            + int.from_bytes(lengths[2:], "little")
        )
        if offset + size > len(mapped) or _compare(start + offset, address, size) != 0:
            raise WriteError(f"nothing was saved: the entry {name!r} is not what was to be written")
        del owner


def _memory(content: Any) -> tuple[int, int, Any]:
    """The address and size of some content, and what keeps it there."""
    if isinstance(content, torch.UntypedStorage):
        return content.data_ptr(), content.nbytes(), content
    data = content.read_bytes() if isinstance(content, Path) else content
    view = memoryview(data).cast("B")
    if not view.nbytes:
        return 0, 0, view
    flat = torch.frombuffer(bytearray(view) if view.readonly else view, dtype=torch.uint8)
    return flat.data_ptr(), view.nbytes, flat
