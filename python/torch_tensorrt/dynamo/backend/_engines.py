"""Engines of one graph of torch.compile's: built when it is first called, and again when its weights change.

Weights are part of an engine, but torch.compile does not promise that a graph is always called with the same ones: a
graph is shared by modules of one class, and a weight may be changed or replaced. Every call therefore compares the
identities, versions and addresses of its weights with those that the engine has. A weight that keeps changing becomes
an input of the engine.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tensorrt.dynamo._autocast import autocast
from torch_tensorrt.dynamo._compile_program import compile_program
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.backend._capture import Captured, as_program

logger = logging.getLogger(__name__)

# Changes of one weight after which it is no longer taken as a constant.
_MAX_CHANGES = 2

_States = list[tuple[int, int]]


def _states(weights: Sequence[torch.Tensor]) -> _States:
    """What changes when a weight is written to or gets other memory."""
    # Inference tensors have no version: writing to one goes unnoticed (docs/torch_compile.md).
    return [(-1 if w.is_inference() else w._version, w.data_ptr()) for w in weights]


@dataclass(frozen=True)
class _Compiled:
    """A module with engines for certain weights. `inputs` are the positions of what it is called with."""

    run: Callable[..., Any]
    inputs: list[int]
    states: _States
    references: list[weakref.ref[torch.Tensor]]


class GraphEngines:
    """Called with the graph's inputs, weights included; gives a tuple of results."""

    def __init__(self, captured: Captured, settings: CompilationSettings) -> None:
        self._captured = captured
        self._settings = settings
        self._weights = list(captured.weights)
        self._compiled: dict[tuple[int, ...], _Compiled] = {}  # by the identities of the weights
        self._changes: Counter[int] = Counter()
        self._lock = threading.Lock()

    @property
    def recomputable(self) -> bool:
        return self._captured.recomputable

    @property
    def weights_keep_changing(self) -> bool:
        return len(self._weights) < len(self._captured.weights)

    def __call__(self, *args: Any) -> Any:
        compiled = self._find(args)
        if compiled is None:
            with self._lock:
                compiled = self._find(args) or self._build(args)
        return compiled.run(*[args[index] for index in compiled.inputs])

    def _find(self, args: Sequence[Any]) -> _Compiled | None:
        weights = [args[index] for index in self._weights]
        compiled = self._compiled.get(tuple(map(id, weights)))
        return compiled if compiled is not None and compiled.states == _states(weights) else None

    def _build(self, args: Sequence[Any]) -> _Compiled:
        self._note_changes(args)
        weights = {index: args[index] for index in self._weights}
        inputs = [index for index in range(len(args)) if index not in weights]
        states = _states(list(weights.values()))
        with torch.no_grad():
            program = as_program(self._captured, weights)
            # torch.compile has promised the types of the results already.
            cast, settings = autocast(program.exported, self._settings, keep_results=True)
            if cast is not program.exported:
                program = Program.decomposed(cast, guarded=program.guarded)
            module = compile_program(program, [args[index] for index in inputs], settings)
        key = tuple(map(id, weights.values()))

        def forget(_: Any) -> None:  # the identity of a tensor that is gone is used again
            self._compiled.pop(key, None)

        references = [weakref.ref(weight, forget) for weight in weights.values()]
        # The module is run past its hooks: torch.compile's guards have checked the inputs.
        self._compiled[key] = _Compiled(module.forward, inputs, states, references)
        return self._compiled[key]

    def _note_changes(self, args: Sequence[Any]) -> None:
        """Drops an engine with weights of before, and stops baking in those that change again and again."""
        weights = [args[index] for index in self._weights]
        before = self._compiled.pop(tuple(map(id, weights)), None)
        if before is None:
            return
        now = zip(self._weights, before.states, _states(weights), strict=True)
        self._changes.update(index for index, old, new in now if old != new)
        logger.info("weights changed after the engine was built: building again")
        kept = [index for index in self._weights if self._changes[index] < _MAX_CHANGES]
        if len(kept) < len(self._weights):
            logger.info("weights that keep changing become inputs of the engine")
            self._weights = kept
            self._compiled = {}
