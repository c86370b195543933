"""The libraries in a package: whole, before the system's loader maps them. It ends the process for truncated ones."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

_SUFFIXES = (".so", ".so.1")
_HEAD_BYTES = 4096  # holds the program headers of every library that a linker makes
_HEADER_BYTES = 64
_SEGMENT_BYTES = 56


def check_libraries(root: Path) -> None:
    """Looks at the libraries of a package, or of a folder that one was unpacked to. ValueError: one is truncated."""
    for name, head, size in _libraries(root):
        if len(head) < _HEADER_BYTES or not head.startswith(b"\x7fELF"):
            raise ValueError(f"its entry {name} is not a library")
        if (needed := _end(head)) > size:
            raise ValueError(
                f"its entry {name} is truncated: it has {size} bytes, expected {needed}"
            )


def _libraries(root: Path) -> Iterator[tuple[str, bytes, int]]:
    """Names, first bytes and sizes."""
    if root.is_dir():
        for path in sorted((root / "data" / "aotinductor").rglob("*")):
            if path.name.endswith(_SUFFIXES):
                with path.open("rb") as file:
                    yield path.name, file.read(_HEAD_BYTES), path.stat().st_size
        return
    with zipfile.ZipFile(root) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(_SUFFIXES):
                with archive.open(entry) as file:
                    yield entry.filename, file.read(_HEAD_BYTES), entry.file_size


def _end(head: bytes) -> int:
    """Where a 64-bit ELF file ends at least, by its headers."""
    segments, sections = struct.unpack_from("<QQ", head, 32)
    segment_size, num_segments, section_size, num_sections = struct.unpack_from("<HHHH", head, 54)
    ends = [sections + section_size * num_sections]
    for index in range(num_segments):
        place = segments + index * segment_size
        if place + _SEGMENT_BYTES <= len(head):
            offset, file_bytes = struct.unpack_from("<Q16xQ", head, place + 8)
            ends.append(offset + file_bytes)
    return max(ends)
