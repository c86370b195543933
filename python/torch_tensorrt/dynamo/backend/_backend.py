"""`torch_tensorrt_backend`: what torch.compile calls with every graph that it captures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.backend._capture import Captured, capture
from torch_tensorrt.dynamo.backend._engines import GraphEngines
from torch_tensorrt.dynamo.backend._gradients import RecomputedInBackward, require_gradients

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
    made: list[GraphEngines] = []

    def compiler(captured: Captured) -> GraphEngines:
        made.append(GraphEngines(captured, settings))
        return made[0]

    run = capture(gm, sample_inputs, compiler)
    if not torch.is_grad_enabled():  # torch.compile compiles again for the other mode
        return run
    return _with_gradients(gm, sample_inputs, run, made[0])


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
    if settings.strip_engine_weights:
        logger.warning(
            "strip_engine_weights=True is ignored: engines of torch.compile run at once, and are not saved"
        )
    return dataclasses.replace(
        settings,
        require_full_compilation=False,
        offload_module_to_cpu=False,
        strip_engine_weights=False,
    )


def _with_gradients(
    gm: GraphModule, sample_inputs: Sequence[Any], run: Callable[..., Any], engines: GraphEngines
) -> Callable[..., Any]:
    """Chooses at every call: an engine alone, an engine with a backward pass in PyTorch, or PyTorch for both."""
    expected = require_gradients(sample_inputs)
    differentiable = require_gradients(map(_example, gm.graph.output_node().args[0]))
    warned = False

    def call(*args: Any) -> Any:
        nonlocal warned
        wanted = require_gradients(args)
        if not any(wanted):
            return run(*args)
        changing = engines.weights_keep_changing
        if engines.recomputable and not changing and wanted == expected:
            return RecomputedInBackward.apply(run, gm.forward, differentiable, *args)
        if not warned:
            warned = True
            _warn_in_pytorch(_TRAINED if changing else _NOT_REPEATABLE)
        return gm.forward(*args)

    return call


_TRAINED = "its weights are being trained"
_NOT_REPEATABLE = (
    "gradients are wanted, and it has random numbers, writes to its inputs or buffers, gives views of inputs, or "
    "requires_grad of its weights has changed"
)


def _example(result: Any) -> Any:
    """The value of a result while torch.compile traced."""
    return result.meta["example_value"] if isinstance(result, Node) else result


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
