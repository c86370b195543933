"""The calls of a C++ compiler that one run of AOTInductor makes: side by side, and each source once."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

# Objects that are kept for sources that come again: those of a wrapper have 300 kB.
_MAX_KEPT_BYTES = 1 << 24

_RAW_STRING = re.compile(rb'R"([^(\s]*)\(.*?\)\1"')  # within a line
_COMMENT = re.compile(rb"^[ \t]*//.*(?<!\\)$", re.MULTILINE)


def try_instruction_sets() -> None:
    """Has Inductor try at once what this machine's compiler and processor can do; it keeps the answers."""
    from torch._inductor import cpu_vec_isa

    flags = getattr(cpu_vec_isa, "x86_isa_checker", list)()
    sets = [
        each
        for each in getattr(cpu_vec_isa, "supported_vec_isa_list", ())
        if flags and all(flag in flags for flag in str(each).split())
    ]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(bool, sets))


@contextmanager
def side_by_side() -> Iterator[None]:
    """What AOTInductor compiles inside, in this thread, is compiled at the same time, and linked when it is there.

    AOTInductor calls the compiler for one file after the other. A source that was compiled in this process before, in
    the same way, is not compiled again: programs that differ by their weights have the same.
    """
    _install()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        _running.compilations = compilations = _Compilations(pool)
        try:
            yield
            compilations.wait()
        finally:
            _running.compilations = None


class _Compilations:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._started: dict[str, Future[None]] = {}  # by the file that comes of it

    def start(self, words: list[str]) -> bool:
        """Whether a command is one that need not be waited for: it compiles one C++ file to an object."""
        sources = [word for word in words[1:] if word.endswith(".cpp")]
        if "-c" not in words or "-o" not in words[:-1] or len(sources) != 1:
            return False
        target = words[words.index("-o") + 1]
        self._started[target] = self._pool.submit(_compile, words, Path(sources[0]), Path(target))
        return True

    def wait(self, words: list[str] | None = None) -> None:
        """Waits for the files that a command reads, or for all. Raises the error of what failed."""
        for target in list(self._started) if words is None else words:
            if target in self._started:
                self._started[target].result()


_running = threading.local()
_install_lock = threading.Lock()


def _install() -> None:
    """Puts itself between AOTInductor and its compiler; it changes nothing outside `side_by_side`."""
    from torch._inductor import cpp_builder

    with _install_lock:
        run_command = getattr(cpp_builder, "run_compile_cmd", None)
        if run_command is None or hasattr(run_command, "is_side_by_side"):
            return

        def run(cmd_line: str, cwd: str) -> None:
            compilations = getattr(_running, "compilations", None)
            if compilations is not None:
                words = shlex.split(cmd_line)
                if compilations.start(words):
                    return
                compilations.wait(words)
            run_command(cmd_line, cwd)

        run.is_side_by_side = True  # type: ignore[attr-defined]
        cpp_builder.run_compile_cmd = run


def _compile(words: list[str], source: Path, target: Path) -> None:
    from torch._inductor import exc

    key = _key(words, source, target)
    kept = _kept.get(key) if key else None
    if kept is not None:
        target.write_bytes(kept)
        return
    # Not in AOTInductor's working folder, which it removes.
    done = subprocess.run(
        words, cwd=target.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        raise exc.CppCompileError(words, done.stdout.decode(errors="replace"))
    if key:
        _kept.put(key, target.read_bytes())


def _key(words: list[str], source: Path, target: Path) -> bytes | None:
    """What an object depends on: the command and the source, without names of nodes and files.

    Comments hold these, and AOTInductor adds its commands to the end of the source. None for a source with a string of
    several lines, which could hold what looks like a comment.
    """
    text = source.read_bytes()
    if text.count(b'R"') != len(_RAW_STRING.findall(text)):
        return None
    own = {str(source): "source", str(target): "target"}
    command = "\0".join(own.get(word, word) for word in words)
    return hashlib.sha256(command.encode() + b"\0\0" + _COMMENT.sub(b"", text).rstrip()).digest()


class _KeptObjects:
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
            while sum(map(len, self._objects.values())) > _MAX_KEPT_BYTES:
                del self._objects[next(iter(self._objects))]


_kept = _KeptObjects()
