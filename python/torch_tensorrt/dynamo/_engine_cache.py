"""Engine caches: what was compiled once is not compiled again.

Keys come from Kiln (`kiln.compile_key`): a hash of the program, the contents of its weights, the options and the
version, so that an engine that is found is the one that would be made.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule
from torch.fx.node import map_arg

import kiln
from torch_tensorrt._input import Input
from torch_tensorrt.dynamo._capture import capture_passes

if TYPE_CHECKING:
    from torch_tensorrt.dynamo._settings import CompilationSettings

logger = logging.getLogger(__name__)


def _default_folder() -> str:
    """A folder that belongs to the user alone, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the specification: relative paths are to be ignored
        home = os.path.expanduser("~")
        # Without a home there is no place that is surely the user's own: Debian's name for that cannot be made.
        base = os.path.join(home if os.path.isabs(home) else "/nonexistent", ".cache")
    return os.path.join(base, "kiln", "engines")


DEFAULT_ENGINE_CACHE_DIR = _default_folder()
DEFAULT_ENGINE_CACHE_SIZE = kiln.cache.DEFAULT_CACHE_BYTES


class BaseEngineCache(ABC):
    """Where engines are kept. Derive from it for a place of your own, such as a database or a bucket, and give an
    object of it as `custom_engine_cache`. Engines are machine code: keep them where nobody else can write."""

    @staticmethod
    def get_hash(gm: GraphModule, input_specs: Sequence[Any], settings: CompilationSettings) -> str:
        """A key for a graph, its weights, its inputs and the options: 64 hexadecimal digits, the same in every process.

        For caches of the user's own making. The keys that `save` and `load` get are Kiln's, which also know the
        version of the compiler and what was made of the graph.

        Args:
            gm: any graph module.
            input_specs: `Input`s or tensors; of a tensor, its shape and dtype count.
            settings: all options but those that are about caches.
        """
        return graph_key(gm, input_specs, settings)

    @abstractmethod
    def save(self, hash: str, blob: bytes, *args: Any, **kwargs: Any) -> None:
        """Keeps an engine.

        Args:
            hash: its key, 32 hexadecimal digits.
            blob: its bytes.
        """

    @abstractmethod
    def load(self, hash: str, *args: Any, **kwargs: Any) -> bytes | None:
        """The bytes that were kept under a key; None if there are none."""


class DiskEngineCache(BaseEngineCache):
    """Engines in a folder. Processes may share it; the least recently used engines go first.

    Args:
        engine_cache_dir: made, for the user alone, when it is not there. One that others may write to is refused.
        engine_cache_size: its largest size in bytes.
    """

    def __init__(
        self,
        engine_cache_dir: str | os.PathLike[str] = DEFAULT_ENGINE_CACHE_DIR,
        engine_cache_size: int = DEFAULT_ENGINE_CACHE_SIZE,
    ) -> None:
        if engine_cache_size <= 0:
            raise ValueError(f"engine_cache_size is {engine_cache_size}, expected 1 or more")
        self.engine_cache_dir = os.fspath(engine_cache_dir)
        self.engine_cache_size = engine_cache_size

    def save(self, hash: str, blob: bytes, *args: Any, **kwargs: Any) -> None:
        """Raises kiln.KilnError: the folder cannot be used, or the blob is no engine or larger than the cache."""
        kiln.EngineCache(self.engine_cache_dir, self.engine_cache_size).store(hash, blob)

    def load(self, hash: str, *args: Any, **kwargs: Any) -> bytes | None:
        """A damaged engine is removed, with a warning. Raises kiln.KilnError: the folder cannot be used."""
        try:
            engine = kiln.EngineCache(self.engine_cache_dir).load(hash)
        except kiln.InvalidEngineError as error:
            logger.warning("engine cache: %s", error)
            return None
        return None if engine is None else bytes(engine)


# Options that decide where engines are kept, and not what they are.
_ABOUT_CACHES = (
    *("cache_built_engines", "reuse_cached_engines", "engine_cache_dir", "engine_cache_size"),
    "custom_engine_cache",
)


def graph_key(gm: GraphModule, input_specs: Sequence[Any], settings: CompilationSettings) -> str:
    """`BaseEngineCache.get_hash`."""
    digest = hashlib.sha256()

    def add(*values: Any) -> None:
        digest.update(json.dumps([str(value) for value in values]).encode())

    # Names are nothing that a graph computes: nodes count by their positions.
    places = {node: f"%{index}" for index, node in enumerate(gm.graph.nodes)}
    for node in gm.graph.nodes:
        arguments = map_arg((node.args, node.kwargs), lambda arg: _Place(places[arg]))
        add(node.op, "" if node.op in ("placeholder", "output") else _name(node.target), arguments)
    for name, tensor in sorted({**dict(gm.named_parameters()), **dict(gm.named_buffers())}.items()):
        add(name, tensor.dtype, tuple(tensor.shape))
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    for spec in input_specs:
        add(Input.from_tensor(spec, True) if isinstance(spec, torch.Tensor) else spec)
    for option in dataclasses.fields(settings):
        if option.name not in _ABOUT_CACHES:
            value = getattr(settings, option.name)
            unordered = isinstance(value, (set, frozenset))
            add(option.name, sorted(map(str, value)) if unordered else value)
    return digest.hexdigest()


def _name(target: Any) -> str:
    """Of an operator, function, method or submodule: without addresses."""
    is_function = callable(target) and not isinstance(target, torch._ops.OpOverload)
    return f"{target.__module__}.{target.__qualname__}" if is_function else str(target)


class _Place(str):
    """The position of a node among the arguments of another."""

    __repr__ = str.__str__


def build_engine(
    model: kiln.Model,
    settings: CompilationSettings,
    progress: Callable[[str, float], None] | None = None,
    **options: Any,
) -> memoryview | bytes:
    """Compiles a model, or takes its engine from the cache that the settings name. A cache that does not work gives
    a warning and never an error.

    Args:
        model: what to compile.
        options: of `kiln.compile`, those that decide the engine.

    Raises:
        kiln.KilnError: the model cannot be compiled.
    """
    read, write = settings.reuse_cached_engines, settings.cache_built_engines
    cache = settings.custom_engine_cache
    if cache is not None and type(cache) is not DiskEngineCache and (read or write):
        return _build_with_custom_cache(model, settings, progress, options)
    disk = None
    if read or write:
        source = cache or DiskEngineCache(settings.engine_cache_dir, settings.engine_cache_size)
        disk = kiln.EngineCache(source.engine_cache_dir, source.engine_cache_size, read, write)
    engine = _compile(model, progress, disk, options)
    if disk is not None:
        if disk.problem:
            _warn_once(disk.problem)
        logger.info("engine cache %s: %s", disk.directory, disk.result.replace("_", " "))
    return engine


@functools.cache
def _warn_once(problem: str) -> None:
    """A folder that cannot be used is the same news for every engine of a model."""
    logger.warning("engine cache: %s", problem)


def _compile(
    model: kiln.Model,
    progress: Callable[[str, float], None] | None,
    cache: kiln.EngineCache | None,
    options: dict[str, Any],
) -> memoryview:
    with capture_passes() as folder:  # the compiler takes nothing from a cache when it dumps
        engine = kiln.compile(
            model, progress=progress, cache=cache, dump_directory=folder, **options
        )
    assert engine is not None
    return engine


def _build_with_custom_cache(
    model: kiln.Model,
    settings: CompilationSettings,
    progress: Callable[[str, float], None] | None,
    options: dict[str, Any],
) -> memoryview | bytes:
    cache = settings.custom_engine_cache
    key = kiln.compile_key(model, **options)
    if settings.reuse_cached_engines and (found := _load(cache, key)) is not None:
        logger.info("engine cache: hit for %s", key)
        return found
    engine = _compile(model, progress, None, options)
    if settings.cache_built_engines:
        try:
            cache.save(key, bytes(engine))
        except Exception as error:  # of the user's: compiling must not fail because of it
            logger.warning("engine cache: %s could not save: %r", type(cache).__name__, error)
    return engine


def _load(cache: BaseEngineCache, key: str) -> bytes | None:
    """An engine of the user's cache that can be used: every byte of it is checked."""
    try:
        blob = cache.load(key)
        if blob is not None:
            kiln.Engine(blob, verify_weights=True)
        return blob
    except Exception as error:
        logger.warning("engine cache: %s could not load: %r", type(cache).__name__, error)
        return None
