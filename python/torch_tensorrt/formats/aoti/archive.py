"""The archive of an AOTInductor package: a zip file whose entries are stored as they are."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from torch_tensorrt._files import replaced_file
from torch_tensorrt.formats.verify import WriteError, WrittenArchive

MODEL_FOLDER = "data/aotinductor/model"
# Large entries begin at a page, so that they can be mapped straight from the archive.
_ALIGNMENT, _LARGE_ALIGNMENT = 64, 4096
_LARGE = 1 << 16
_CHUNK = 1 << 24
_LOCAL_HEADER_SIZE = 30
_ZIP64_EXTRA_SIZE = 20
_PADDING_ID = 0x4646  # an extra field that readers skip; what PyTorch's archives have there too
_EPOCH = (1980, 1, 1, 0, 0, 0)

Content = bytes | memoryview | Path


@dataclass(frozen=True)
class Entry:
    name: str
    content: Content


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def write_package(
    path: Path,
    model: Iterable[Entry],
    extra_files: Mapping[str, str | bytes] | None,
    *,
    load: bool = False,
) -> None:
    """Writes the archive of a package.

    Args:
        path: the file; it is replaced when the new one is complete.
        model: what lies in the folder of the model.
        extra_files: more files, by name.
        load: load the package before it appears: operators outside engines may be of a kind that PyTorch writes and
            does not read.

    Raises:
        WriteError: the file that was written is not complete, or cannot be loaded.
    """
    entries = [
        Entry("archive_format", b"pt2"),
        Entry(".data/version", b"3\n"),
        Entry("archive_version", b"0"),
        Entry("byteorder", b"little"),
        *(Entry(f"{MODEL_FOLDER}/{entry.name}", entry.content) for entry in model),
    ]
    for name, content in (extra_files or {}).items():
        data = content.encode() if isinstance(content, str) else bytes(content)
        entries.append(Entry(f"extra/{name}", data))
    with replaced_file(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for entry in entries:
                _add(archive, file, f"{path.stem}/{entry.name}", entry.content)
        WrittenArchive(file).check({entry.name: entry.content for entry in entries})
        if load:
            _check_loads(f"/proc/self/fd/{file.fileno()}")


def _check_loads(path: str) -> None:
    try:
        torch._C._aoti.AOTIModelPackageLoader(path, "model", False, 1, -1)
    except Exception as error:
        raise WriteError(
            f"nothing was saved: PyTorch cannot load the package that was written: {error}"
        ) from error


def _add(archive: zipfile.ZipFile, file: IO[bytes], name: str, content: Content) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.file_size = content.stat().st_size if isinstance(content, Path) else len(content)
    info.external_attr = 0o644 << 16
    is_zip64 = info.file_size * 1.05 > zipfile.ZIP64_LIMIT  # as zipfile decides it
    header = _LOCAL_HEADER_SIZE + len(name.encode()) + (_ZIP64_EXTRA_SIZE if is_zip64 else 0)
    alignment = _LARGE_ALIGNMENT if info.file_size >= _LARGE else _ALIGNMENT
    padding = -(file.tell() + header + 4) % alignment
    info.extra = _PADDING_ID.to_bytes(2, "little") + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(info, "w") as target:
        if isinstance(content, Path):
            with content.open("rb") as source:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
        else:
            view = memoryview(content)
            for begin in range(0, len(view), _CHUNK):
                target.write(view[begin : begin + _CHUNK])
