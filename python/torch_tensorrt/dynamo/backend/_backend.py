"""`torch_tensorrt_backend`: what torch.compile calls with every graph that it captures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.backend._capture import Captured, capture
from torch_tensorrt.dynamo.backend._engines import GraphEngines
from torch_tensorrt.dynamo.backend._gradients import RecomputedInBackward, needs_gradients

logger = logging.getLogger(__name__)


def torch_tensorrt_backend(
    gm: GraphModule, sample_inputs: Sequence[Any], **kwargs: Any
) -> Callable[..., Any]:
    """Compiles a graph of torch.compile's. Engines are built when the graph is first called.

    Args:
        gm, sample_inputs: what torch.compile hands to backends; parameters are among the inputs.
        kwargs: `options`, a dictionary of the fields of `CompilationSettings`, or these fields themselves.

    Returns:
        A function of the graph's inputs.

    Raises:
        TypeError, ValueError: a wrong option. torch.compile wraps it into a BackendCompilerFailed.
    """
    settings = settings_of(kwargs)
    if not torch.is_grad_enabled() and _enables_gradients(gm):
        _warn_in_pytorch("it switches gradients on")
        return gm.forward
    engines: list[GraphEngines] = []
    recomputable = True

    def compiler(captured: Captured) -> Callable[..., Any]:
        nonlocal recomputable
        recomputable = captured.recomputable
        engines.append(GraphEngines(captured, settings))
        return engines[0]

    run = capture(gm, sample_inputs, compiler)
    return _with_gradients(gm, run, engines, recomputable) if torch.is_grad_enabled() else run


def settings_of(kwargs: Mapping[str, Any]) -> CompilationSettings:
    """Settings from the options of torch.compile, without those that make no sense there."""
    options = dict(kwargs)
    options |= options.pop("options", None) or {}
    settings = CompilationSettings.from_options(options, "torch.compile")
    if settings.require_full_compilation:
        logger.warning(
            "require_full_compilation=True is taken as False: torch.compile decides what a graph is, and runs the rest "
            'in Python. torch_tensorrt.compile(ir="dynamo") compiles whole models'
        )
    if settings.offload_module_to_cpu:
        logger.warning("offload_module_to_cpu=True is ignored: torch.compile keeps the module")
    return dataclasses.replace(
        settings, require_full_compilation=False, offload_module_to_cpu=False
    )


def _with_gradients(
    gm: GraphModule,
    run: Callable[..., Any],
    engines: Sequence[GraphEngines],
    recomputable: bool,
) -> Callable[..., Any]:
    """Chooses at every call: an engine alone, an engine with a backward pass in PyTorch, or PyTorch for both."""
    warned = False

    def call(*args: Any) -> Any:
        nonlocal warned
        if not needs_gradients(args):
            return run(*args)
        changing = any(engine.weights_keep_changing for engine in engines)
        if recomputable and not changing:
            return RecomputedInBackward.apply(run, gm.forward, *args)
        if not warned:
            warned = True
            _warn_in_pytorch("its weights are being trained" if changing else _NOT_REPEATABLE)
        return gm.forward(*args)

    return call


_NOT_REPEATABLE = "gradients are wanted, and it has random numbers, writes to its inputs or buffers, or gives views of inputs"


def _warn_in_pytorch(reason: str) -> None:
    logger.warning(
        "a graph runs in PyTorch and not in an engine, because %s. For inference call the model in eval mode and under "
        "torch.no_grad() or torch.inference_mode()",
        reason,
    )


def _enables_gradients(gm: GraphModule) -> bool:
    return any(
        node.target is torch._C._set_grad_enabled and node.args == (True,)
        for node in gm.graph.nodes
    )
