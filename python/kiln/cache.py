"""A folder of engines, so that what was compiled once is not compiled again."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field

import numpy as np

from kiln import _library
from kiln._library import check, compiler
from kiln.errors import NotFoundError

DEFAULT_CACHE_BYTES = 5 << 30


@dataclass
class EngineCache:
    """Engines in a folder, named by their keys. Any number of processes may share one.

    Engines are machine code: a folder that others own or may write to is not used. Damaged entries are removed and made
    again. Least recently used engines go first when the folder outgrows `max_bytes`.

    Args:
        directory: made, for the user alone, when it is not there.
        max_bytes: the largest size of the folder.
        read: whether `compile` looks for engines. write: whether it keeps those that it makes.

    After `compile`, `result` is "hit", "code_hit" (code was there, for other weights), "miss", or "problem": then
    `problem` says what did not work, and the engine was compiled all the same. It may say something beside a "hit" too:
    that an entry could not be kept.
    """

    directory: str | os.PathLike[str]
    max_bytes: int = DEFAULT_CACHE_BYTES
    read: bool = True
    write: bool = True
    result: str = field(default="", init=False)
    problem: str = field(default="", init=False)

    def load(self, key: str) -> memoryview | None:
        """The engine of a key, every byte of it checked; None if there is none.

        Raises:
            InvalidEngineError: it was damaged, and is removed now. InvalidArgumentError: a folder that is not safe, or
            a key that is not made of letters, digits, - and _.
        """
        handle = ctypes.c_void_p()
        try:
            check(
                compiler().kiln_cache_load(
                    os.fsencode(self.directory), key.encode(), ctypes.byref(handle)
                )
            )
        except NotFoundError:
            return None
        return _library.take_bytes(handle)

    def store(self, key: str, engine: bytes | memoryview) -> None:
        """Keeps an engine, and removes others if the folder is full. Raises as `load` does, and FileError."""
        data = np.frombuffer(engine, dtype=np.uint8)
        check(
            compiler().kiln_cache_store(
                os.fsencode(self.directory),
                self.max_bytes,
                key.encode(),
                data.ctypes.data,
                data.size,
            )
        )


@dataclass
class Tuning:
    """Chooses products and convolutions for GPUs by timing them on one of this machine.

    Args:
        candidates: how many ways of each are tried at most.
        cache: a file that keeps the times, so that a second compile is faster and gives the same bytes; any number of
            processes may use one.

    After `compile`, `problems` says what did not work: then a model of the machine chose.
    """

    candidates: int = 6
    cache: str | os.PathLike[str] | None = None
    problems: list[str] = field(default_factory=list, init=False)


_RESULTS = {-1: "problem", 0: "miss", 1: "hit", 2: "code_hit"}


class CacheCall:
    """The part of the cache and of the tuning in one call of the compiler."""

    def __init__(
        self, cache: EngineCache | None, tuning: Tuning | None, options: _library.CompileOptions
    ) -> None:
        self._cache, self._tuning = cache, tuning
        self._result = ctypes.c_int32(0)
        self._warnings: list[str] = []
        options.warning = _library.WarningFunction(self._warn)
        set_tuning(options, tuning)
        if cache is None or not (cache.read or cache.write):
            return
        options.cache_directory = os.fsencode(cache.directory)
        options.cache_bytes = cache.max_bytes
        options.cache_mode = 0 if cache.read and cache.write else 1 if cache.read else 2
        options.cache_result = ctypes.pointer(self._result)

    def finish(self) -> None:
        """Tells the cache and the tuning what happened."""
        begin = "tuning: "
        if self._tuning is not None:
            self._tuning.problems = [
                text.removeprefix(begin) for text in self._warnings if text.startswith(begin)
            ]
        if self._cache is None:
            return
        self._cache.result = _RESULTS.get(self._result.value, "miss")
        self._cache.problem = "; ".join(
            text for text in self._warnings if not text.startswith(begin)
        )

    def _warn(self, _user: object, text: bytes) -> None:
        self._warnings.append(text.decode(errors="replace"))


def set_tuning(options: _library.CompileOptions, tuning: Tuning | None) -> None:
    if tuning is None:
        return
    options.tuning_candidates = tuning.candidates
    options.timing_cache = os.fsencode(tuning.cache) if tuning.cache is not None else None
