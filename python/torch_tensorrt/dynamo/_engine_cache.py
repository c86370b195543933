"""Engine caches: what was compiled once is not compiled again.

Keys come from Kiln (`kiln.compile_key`): a hash of the program, the contents of its weights, the options and the
version, so that an engine that is found is the one that would be made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx.node import map_arg

import kiln
from torch_tensorrt._input import Input

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
    def get_hash(gm: GraphModule, input_specs: Sequence[Any], settings: Any) -> str:
        """A key for a graph, its weights, its inputs and the options: 64 hexadecimal digits, the same in every process.

        For caches of the user's own making. The keys that `save` and `load` get are Kiln's, which also know the
        version of the compiler and what was made of the graph.

        Args:
            gm: any graph module.
            input_specs: `Input`s or tensors; of a tensor, its shape and dtype count.
            settings: `CompilationSettings`; all options count but those that are about caches.
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
        """Raises kiln.KilnError: the folder cannot be used, the blob is not an engine or exceeds the cache."""
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


def graph_key(gm: GraphModule, input_specs: Sequence[Any], settings: Any) -> str:
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
