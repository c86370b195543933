"""TorchScript: compiled modules as ScriptModules, and files of them."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx import GraphModule

from torch_tensorrt._arguments import check_graph_module, sample_inputs
from torch_tensorrt._files import replaced_path
from torch_tensorrt._operator import hold_engines
from torch_tensorrt.dynamo._checks import unchecked_inputs
from torch_tensorrt.dynamo._symbols import is_symbolic_node
from torch_tensorrt.formats.engine_check import check_engines
from torch_tensorrt.formats.script_writer import ScriptError, write_script
from torch_tensorrt.formats.verify_script import check_written_script

logger = logging.getLogger(__name__)

# Room for what an archive holds besides tensors.
_BESIDE_TENSORS = 1 << 20


class LoadedScript(torch.jit.RecursiveScriptModule):
    """A ScriptModule that `load` gave: `.module()` gives what to call for every format, here the module itself."""

    def module(self) -> LoadedScript:
        return self


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Silences what torch.jit says of itself: that it is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield


def to_torchscript(
    module: GraphModule,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> torch.jit.ScriptModule:
    """A compiled module as a ScriptModule; engines and weights are shared and not copied.

    Args:
        module: its graph is written as TorchScript; if it calls other things than operators, it is traced instead.
        args, kwargs: tensors or Inputs, for tracing only.
        names: of the parameters; those of the module if None.

    Raises:
        ValueError: a module that TorchScript cannot express, or one that has to be traced without inputs.
    """
    with quiet_torchscript():
        try:
            result = write_script(module, names, unchecked_inputs(module))
        except ScriptError as error:
            result = _trace(module, args, kwargs, error)
    hold_engines(result)
    return result


def _trace(
    module: GraphModule, args: Any, kwargs: Any, reason: ScriptError
) -> torch.jit.ScriptModule:
    """Traces what cannot be written, where a trace says the same."""
    why = f"TorchScript cannot express this module: {reason}"
    advice = 'save it with output_format="exported_program"'
    if not _is_traceable(module):
        raise ValueError(f"{why}; {advice}") from reason
    if args is None and not kwargs:
        raise ValueError(
            f"{why}. It can be traced instead, which needs inputs: give arg_inputs, or {advice}"
        ) from reason
    samples, named = sample_inputs(module, args, kwargs)
    try:
        if named:  # torch.jit.trace takes either all by position or all by name
            arguments = inspect.signature(module.forward).bind(*samples, **named).arguments
            return torch.jit.trace(module, example_kwarg_inputs=dict(arguments), strict=False)
        return torch.jit.trace(module, samples, strict=False)
    except (RuntimeError, TypeError) as error:
        text = str(error).partition("\n")[0][:200]
        raise ValueError(f"{why}, and it cannot be traced: {text}; {advice}") from error


def _is_traceable(module: GraphModule) -> bool:
    """Whether a trace has all that the graph says: no control flow, sizes or values become constants."""
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator) or is_symbolic_node(node):
            return False
        if node.op == "placeholder" and not isinstance(
            node.meta.get("val", torch.empty(0)), torch.Tensor
        ):
            return False
    return True


def save_torchscript(
    module: Any,
    path: str | os.PathLike[str],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, Any] | None = None,
) -> None:
    """Writes a compiled module, or a ScriptModule as it is, for `torch.jit.load`.

    Raises:
        ValueError: an ExportedProgram, a plain module, or something that TorchScript cannot express.
        OSError: a file that cannot be written, or was not written as it should; an old one stays as it was.
    """
    script = _to_script(module, args, kwargs)
    # PyTorch's writer ends the process when a disk is full.
    size = sum(tensor.nbytes for tensor in script.state_dict().values()) + _BESIDE_TENSORS
    with replaced_path(path, size) as temporary, quiet_torchscript():
        torch.jit.save(script, os.fspath(temporary), _extra_files=dict(extra_files or {}))
        check_written_script(temporary, script)


def _to_script(module: Any, args: Any, kwargs: Any) -> torch.jit.ScriptModule:
    if isinstance(module, torch.jit.ScriptModule):
        if args is not None or kwargs:
            logger.warning(
                "Provided model is a torch.jit.ScriptModule, inputs or arg_inputs is not necessary"
            )
        return module
    if isinstance(module, torch.export.ExportedProgram):
        raise ValueError(
            "Provided model is a torch.export.ExportedProgram but the output_format specified is torchscript. Please "
            "verify the output_format"
        )
    check_graph_module(module)
    return to_torchscript(module, args, kwargs)


def load_torchscript(
    path: str | os.PathLike[str], extra_files: dict[str, Any] | None = None
) -> LoadedScript:
    """Loads what `save_torchscript` or `torch.jit.save` wrote; extra files come as bytes, as torch.jit has them.

    Raises:
        ValueError: not a TorchScript file. FileNotFoundError: no such file.
    """
    with open(path, "rb"):
        pass  # torch.jit.load's errors do not tell a missing file from a damaged one
    with quiet_torchscript():
        try:
            module = torch.jit.load(os.fspath(path), _extra_files=extra_files)
        except Exception as error:  # of many kinds, if the file is damaged
            raise ValueError(
                f"The file {os.fspath(path)} doesn't correspond to a valid Torchscript module or ExportedProgram. "
                f"Please verify the file path. ({error})"
            ) from error
    check_engines(path, module.named_buffers())
    module.__class__ = LoadedScript
    hold_engines(module)
    return module


def is_torchscript(names: Sequence[str]) -> bool:
    """Whether an archive with these entries was written by torch.jit.save."""
    return any(name.endswith("/constants.pkl") for name in names) and any(
        "/code/" in name for name in names
    )
