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
from dataclasses import dataclass
from pathlib import Path

from torch_tensorrt.formats.aoti.objects import ObjectsInFolder, ObjectsInMemory, prerequisites

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

    AOTInductor calls the compiler for one file after the other. A source that was compiled before, in the same way, is
    not compiled again: programs that differ by their weights have the same. Inductor's option `force_disable_caches`
    leaves out what other processes compiled.
    """
    _install()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        _running.compilations = compilations = _Compilations(pool, _folder())
        try:
            yield
            compilations.wait()
        finally:
            _running.compilations = None


class _Compilations:
    def __init__(self, pool: ThreadPoolExecutor, folder: ObjectsInFolder | None = None) -> None:
        self._pool = pool
        self._folder = folder
        self._started: dict[str, Future[None]] = {}  # by the file that comes of it

    def start(self, words: list[str]) -> bool:
        """Whether a command is one that need not be waited for: it compiles one C++ file to an object."""
        sources = [word for word in words[1:] if word.endswith(".cpp")]
        if "-c" not in words or "-o" not in words[:-1] or len(sources) != 1:
            return False
        target = words[words.index("-o") + 1]
        command = _Command(words, Path(sources[0]), Path(target))
        self._started[target] = self._pool.submit(_compile, command, self._folder)
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


@dataclass(frozen=True)
class _Command:
    words: list[str]
    source: Path
    target: Path

    def run(self) -> list[str]:
        """The files, other than the source, that the object is made of: those that the compiler names."""
        from torch._inductor import exc

        rule = self.target.with_suffix(".d")
        # Not in AOTInductor's working folder, which it removes.
        done = subprocess.run(
            [*self.words, "-MD", "-MF", str(rule)],
            cwd=self.target.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            raise exc.CppCompileError(self.words, done.stdout.decode(errors="replace"))
        if not rule.is_file():
            return []
        files = prerequisites(rule.read_text())
        rule.unlink()
        return [name for name in files if name != str(self.source)]


def _folder() -> ObjectsInFolder | None:
    from torch._inductor import config

    return None if config.force_disable_caches else ObjectsInFolder()


def _compile(command: _Command, folder: ObjectsInFolder | None) -> None:
    key = _key(command.words, command.source, command.target)
    if key is None:
        command.run()
        return
    compiler = command.words[0]
    kept = _kept.get(key)
    if kept is None and folder is not None:
        kept = folder.get(key, compiler)
    if kept is None:
        files = command.run()
        kept = command.target.read_bytes()
        if folder is not None and files:
            folder.put(key, compiler, files, kept)
    else:
        command.target.write_bytes(kept)
    _kept.put(key, kept)


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


_kept = ObjectsInMemory()
