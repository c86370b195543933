"""Objects of C++ sources that were compiled before: in this process, and in a folder of the user's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from torch_tensorrt._files import replaced_file
from torch_tensorrt.dynamo._engine_cache import DEFAULT_ENGINE_CACHE_DIR

# What is kept of either kind: the object of a wrapper has up to a megabyte.
MAX_BYTES_IN_MEMORY = 1 << 24
MAX_BYTES_IN_FOLDER = 1 << 26

_DEFAULT_FOLDER = Path(DEFAULT_ENGINE_CACHE_DIR).with_name("objects")

# What changes the meaning of a command without being in it.
_ENVIRONMENT = (
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "SOURCE_DATE_EPOCH",
)


class ObjectsInMemory:
    """The objects that were used last, up to a number of bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            found = self._objects.pop(key, None)
            if found is not None:
                self._objects[key] = found
            return found

    def put(self, key: bytes, content: bytes) -> None:
        with self._lock:
            self._objects[key] = content
            while sum(map(len, self._objects.values())) > MAX_BYTES_IN_MEMORY:
                del self._objects[next(iter(self._objects))]


class ObjectsInFolder:
    """Objects beside the list of files that they were made of, and how these were then.

    An object counts as long as every one of these files is as it was, the compiler is, and the processor, which
    `-march=native` asks. A folder that others could write to is not used, and nothing that goes wrong here is an error:
    then the source is compiled.
    """

    def __init__(self, folder: Path = _DEFAULT_FOLDER) -> None:
        self._folder = folder

    def get(self, key: bytes, compiler: str) -> bytes | None:
        try:
            path = self._path(key, compiler)
            if not self._is_own():
                return None
            content = path.read_bytes()
            digest, files, found = _unpack(content)
            if hashlib.sha256(found).hexdigest() != digest or files != _states(
                [name for name, *_ in files]
            ):
                path.unlink()
                return None
            os.utime(path)
            return found
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key: bytes, compiler: str, files: Iterable[str], content: bytes) -> None:
        """Keeps an object that was made of `files`, of which none may have changed since."""
        with suppress(OSError, ValueError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_own():
                return
            head = [hashlib.sha256(content).hexdigest(), _states(files)]
            with replaced_file(self._path(key, compiler)) as file:
                file.write(json.dumps(head).encode() + b"\n" + content)
            self._remove_oldest()

    def _path(self, key: bytes, compiler: str) -> Path:
        whole = hashlib.sha256(key + _machine(compiler).encode()).hexdigest()
        return self._folder / f"{whole}.object"

    def _is_own(self) -> bool:
        """Code from here is run: nobody else may have put it here."""
        status = os.lstat(self._folder)
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.getuid()
            and not status.st_mode & 0o022
        )

    def _remove_oldest(self) -> None:
        entries = [(each.stat(), each) for each in self._folder.glob("*.object")]
        entries.sort(key=lambda entry: entry[0].st_mtime_ns)
        total = sum(status.st_size for status, _ in entries)
        for status, path in entries:
            if total <= MAX_BYTES_IN_FOLDER:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size


def prerequisites(rule: str) -> list[str]:
    """The files after the colon of a rule for make, as compilers write it (`-MD`)."""
    text = rule.replace("\\\n", " ").partition(": ")[2]
    names = text.replace("\\ ", "\0").replace("\\#", "#").replace("$$", "$").split()
    return [name.replace("\0", " ") for name in names]


def _unpack(content: bytes) -> tuple[str, list[list[str | int]], bytes]:
    head, _, found = content.partition(b"\n")
    digest, files = json.loads(head)
    return digest, files, found


def _states(files: Iterable[str]) -> list[list[str | int]]:
    statuses = ((name, os.stat(name)) for name in files)
    return [[name, status.st_size, status.st_mtime_ns] for name, status in statuses]


def _machine(compiler: str) -> str:
    path = shutil.which(compiler)
    if path is None:
        raise ValueError(f"there is no {compiler}")
    settings = [f"{name}={os.environ.get(name)}" for name in _ENVIRONMENT]
    return "\n".join([*map(str, _states([os.path.realpath(path)])), *settings, _processor()])


def _processor() -> str:
    """What `-march=native` depends on."""
    names = ("vendor_id", "cpu family", "model", "stepping", "flags", "cache size")
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        first = file.read().partition("\n\n")[0].splitlines()
    return "\n".join(line for line in first if line.startswith(names))
