"""ScriptModules as ExportedPrograms, by PyTorch's converter and with its silent mistakes made loud.

The converter runs the module's graph through torch.export with sample inputs. By itself it lets sizes become constants
or not as it happens, and gives lists for tuples; here sizes are dynamic exactly where the Inputs say so, and the result
is compared with the ScriptModule, at both ends of the ranges.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._export.converter import TS2EPConverter
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from torch_tensorrt._arguments import sample_inputs
from torch_tensorrt._enums import dtype
from torch_tensorrt._input import Input
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._tracer import trace

_ADVICE = 'compile the torch.nn.Module that it was made from, with ir="dynamo"'


class _Converter(TS2EPConverter):
    """The converter with sizes dynamic as the Inputs say, and results of the types that the ScriptModule declares."""

    def __init__(self, module: torch.jit.ScriptModule, inputs: Sequence[Any]) -> None:
        super().__init__(module, sample_inputs(module, inputs, None)[0])
        self._inputs = inputs

    def retrace_as_exported_program(self, gm: Any, name_to_constant: Any) -> ExportedProgram:
        output = gm.graph.output_node()
        output.args = (_as_type(output.args[0], self.ts_model.forward.schema.returns[0].type),)
        gm.recompile()
        return trace(gm.eval(), arg_inputs=self._inputs)


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
        args, kwargs: tensors, or Inputs, whose ranges become dynamic sizes, and whose dtype is that of the module's
            first floating-point parameter where none was given.

    Returns:
        The program, and its inputs: all of them by position.

    Raises:
        ValueError: inputs that `forward` does not take, a ScriptModule that cannot be converted, or ranges where its
            graph decides something by itself.
    """
    # Copies, because the exporter takes one tensor that is given twice for one input.
    inputs = [_copy(value) for value in _bind(module, args, kwargs)]
    _take_dtype_of_weights(module, inputs)
    _refuse_control_flow(module, inputs)
    with torch.no_grad(), warnings.catch_warnings(), quiet_torch():
        warnings.simplefilter("ignore")
        try:
            program = _Converter(module, inputs).convert()
            difference = _difference(module, program, inputs)
        except Exception as error:  # whatever the converter lacks
            text = str(error).strip().partition("\n\n")[0][:500]
            raise ValueError(
                f"this ScriptModule cannot be compiled: {text or type(error).__name__}; {_ADVICE}"
            ) from error
    if difference:
        raise ValueError(
            f"PyTorch's converter changes what this ScriptModule computes ({difference}); {_ADVICE}"
        )
    return program, inputs


def _take_dtype_of_weights(module: torch.jit.ScriptModule, inputs: list[Any]) -> None:
    weights = (weight.dtype for weight in module.parameters() if weight.is_floating_point())
    found = next(weights, None)
    for value in inputs:
        is_default = isinstance(value, Input) and value._has_default_dtype
        if found is not None and is_default and value.dtype is dtype.f32:
            value.dtype = dtype._from(found)


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


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.copy(value)


def _refuse_control_flow(module: torch.jit.ScriptModule, inputs: Sequence[Any]) -> None:
    if not any(isinstance(value, Input) and value.dynamic_axes() for value in inputs):
        return
    if found := sorted({node.kind() for node in whole_graph(module).nodes() if _decides(node)}):
        raise ValueError(
            f"this ScriptModule has control flow ({', '.join(found)}), which is decided for one shape when it is "
            f"converted: give inputs of fixed shapes, or {_ADVICE}"
        )


def _decides(node: torch.Node) -> bool:
    """Whether a node is a branch or loop, and not just a check, which raises on one side."""
    if node.kind() == "prim::Loop":
        return True
    raises = (
        inner.kind() == "prim::RaiseException" for block in node.blocks() for inner in block.nodes()
    )
    return node.kind() == "prim::If" and not any(raises)


def _difference(
    module: torch.jit.ScriptModule, program: ExportedProgram, inputs: Sequence[Any]
) -> str:
    """Runs both at the smallest and the largest shapes; says where they differ, "" if nowhere."""
    converted = program.module(check_guards=False)
    names = parameter_names(module)
    for which in ("min_shape", "max_shape"):
        samples = [
            value._random_tensor(getattr(value, which)) if isinstance(value, Input) else value
            for value in inputs
        ]
        named = dict(zip(names, map(_copy, samples), strict=True))
        expected, expected_spec = pytree.tree_flatten(module(**named))
        actual, actual_spec = pytree.tree_flatten(_plain(converted(*map(_copy, samples))))
        if expected_spec != actual_spec or not all(map(_is_close, actual, expected)):
            return f"seen with inputs of shapes {[tuple(sample.shape) for sample in samples]}"
    return ""


def _plain(value: Any) -> Any:
    """A result with lists and dictionaries for those of fx, which cannot change."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(map(_plain, value))
    return value


def _is_close(actual: Any, expected: Any) -> bool:
    if not isinstance(expected, torch.Tensor):
        return type(actual) is type(expected) and actual == expected
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    return torch.allclose(actual, expected, rtol=1e-3, atol=1e-5, equal_nan=True)
