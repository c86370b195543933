"""ScriptModules as ExportedPrograms, by PyTorch's converter and with its silent mistakes made loud.

The converter runs the module's graph through torch.export with sample inputs. By itself it lets sizes become constants
or not as it happens, and gives lists for tuples; here sizes are dynamic exactly where the Inputs say so, and the result
is compared with the ScriptModule, at both ends of the ranges.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._export.converter import TS2EPConverter
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from torch_tensorrt._arguments import sample_value
from torch_tensorrt._input import Input
from torch_tensorrt._quiet import quiet_torch

_CONTROL_FLOW = ("prim::If", "prim::Loop")
_ADVICE = 'compile the torch.nn.Module that it was made from, with ir="dynamo"'


class _Converter(TS2EPConverter):
    """The converter with explicit dynamic shapes, and results of the types that the ScriptModule declares."""

    def __init__(self, module: torch.jit.ScriptModule, samples: Any, shapes: Any) -> None:
        super().__init__(module, samples)
        self._shapes = shapes

    def retrace_as_exported_program(self, gm: Any, name_to_constant: Any) -> ExportedProgram:
        kind = self.ts_model.forward.schema.returns[0].type
        output = gm.graph.output_node()
        output.args = (_as_type(output.args[0], kind),)
        gm.recompile()
        return torch.export.export(gm, self.sample_args, dynamic_shapes=self._shapes, strict=False)


def _as_type(value: Any, kind: torch.Type) -> Any:
    """Results of a converted graph, which has lists for tuples, in the structure of a TorchScript type."""
    if isinstance(kind, torch.OptionalType):
        return _as_type(value, kind.getElementType())
    if isinstance(kind, torch.TupleType) and isinstance(value, (list, tuple)):
        return tuple(map(_as_type, value, kind.elements()))
    if isinstance(kind, torch.ListType) and isinstance(value, (list, tuple)):
        return [_as_type(item, kind.getElementType()) for item in value]
    if isinstance(kind, torch.DictType) and isinstance(value, dict):
        return {key: _as_type(item, kind.getValueType()) for key, item in value.items()}
    return value


def whole_graph(module: torch.jit.ScriptModule) -> torch.Graph:
    """The graph of `forward` with every call inlined and what is constant folded."""
    frozen = torch._C._freeze_module(module._c, preserveParameters=True)
    return frozen._get_method("forward").graph


def parameter_names(module: torch.jit.ScriptModule) -> list[str]:
    return [argument.name for argument in module.forward.schema.arguments[1:]]


def program_of_script(
    module: torch.jit.ScriptModule, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[ExportedProgram, list[Any]]:
    """Converts a ScriptModule.

    Args:
        module: its `forward` takes tensors.
        args, kwargs: tensors, or Inputs, whose ranges become dynamic sizes.

    Returns:
        The program, and its inputs: all of them by position.

    Raises:
        ValueError: inputs that `forward` does not take, a ScriptModule that cannot be converted, or ranges where its
            graph decides something by itself.
    """
    inputs = _bind(module, args, kwargs)
    shapes = _dynamic_shapes(module, inputs)
    samples = tuple(_own(sample_value(value)) for value in inputs)
    with torch.no_grad(), warnings.catch_warnings(), quiet_torch():
        warnings.simplefilter("ignore")
        try:
            program = _Converter(module, samples, shapes).convert()
        except Exception as error:  # whatever the converter lacks
            text = str(error).strip().partition("\n\n")[0][:500]
            raise ValueError(
                f"this ScriptModule cannot be compiled: {text or type(error).__name__}; {_ADVICE}"
            ) from error
        _compare(module, program, inputs)
    return program, inputs


def _bind(
    module: torch.jit.ScriptModule, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Any]:
    """Every argument of `forward`, by position."""
    expected = module.forward.schema.arguments[1:]
    names = [argument.name for argument in expected]
    if len(args) > len(names) or not set(kwargs) <= set(names[len(args) :]):
        raise ValueError(
            f"got {len(args)} inputs and the keywords {sorted(kwargs)}, but forward takes {', '.join(names)}"
        )
    inputs = list(args)
    for argument in expected[len(args) :]:
        if argument.name not in kwargs and not argument.has_default_value():
            raise ValueError(f"the input {argument.name!r} is missing")
        inputs.append(kwargs.get(argument.name, argument.default_value))
    for name, value in zip(names, inputs, strict=True):
        if not isinstance(value, (torch.Tensor, Input)):
            raise ValueError(
                f"the input {name!r} is {type(value).__name__}: a ScriptModule is compiled with tensors as inputs "
                f"alone; otherwise {_ADVICE}"
            )
    return inputs


def _own(value: Any) -> Any:
    """A copy: the exporter takes one tensor that is given twice for one input."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _dynamic_shapes(module: torch.jit.ScriptModule, inputs: Sequence[Any]) -> Any:
    """`dynamic_shapes` by position; sizes without a range are fixed."""
    dims: dict[str, Any] = {}
    shapes = []
    for name, value in zip(parameter_names(module), inputs, strict=True):
        axes = value.dynamic_axes() if isinstance(value, Input) else {}
        shape = {}
        for axis, (low, high) in axes.items():
            dim = value.shared_dims.get(axis) or f"{value.name or name}_{axis}"
            shape[axis] = dims.setdefault(dim, Dim(dim, min=low, max=high))
        shapes.append(shape or None)
    if dims:
        kinds = {node.kind() for node in whole_graph(module).nodes()}
        if found := sorted(kinds & set(_CONTROL_FLOW)):
            raise ValueError(
                f"this ScriptModule has control flow ({', '.join(found)}), which is decided for one shape when it is "
                f"converted: give inputs of fixed shapes, or {_ADVICE}"
            )
    return tuple(shapes) if dims else None


def _compare(
    module: torch.jit.ScriptModule, program: ExportedProgram, inputs: Sequence[Any]
) -> None:
    """Runs both, at the smallest and the largest shapes."""
    converted = program.module(check_guards=False)
    for which in ("min_shape", "max_shape"):
        samples = [
            _own(value._random_tensor(getattr(value, which)) if isinstance(value, Input) else value)
            for value in inputs
        ]
        expected, expected_spec = pytree.tree_flatten(module(*map(_own, samples)))
        actual, actual_spec = pytree.tree_flatten(converted(*samples))
        same = expected_spec == actual_spec and all(map(_is_close, actual, expected))
        if not same:
            shapes = [tuple(sample.shape) for sample in samples]
            raise ValueError(
                f"PyTorch's converter changes what this ScriptModule computes (seen with inputs of shapes {shapes}); "
                f"{_ADVICE}"
            )


def _is_close(actual: Any, expected: Any) -> bool:
    if not isinstance(expected, torch.Tensor):
        return type(actual) is type(expected) and actual == expected
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    return torch.allclose(actual, expected, rtol=1e-3, atol=1e-5, equal_nan=True)
