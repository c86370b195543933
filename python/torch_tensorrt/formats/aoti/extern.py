"""Operators that a package leaves to PyTorch: nodes in the form that AOTInductor's proxy executor reads.

The executor gets the tensors and the integers of a call when it runs, and the rest when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde import serialize as serde
from torch.fx import Node
from torch.fx.node import map_arg

from torch_tensorrt._sizes import Operand
from torch_tensorrt.dynamo._symbols import is_symbolic_node

# Operators that LibTorch has without anything of Python's.
_NAMESPACES = ("aten", "quantized")
# The first version of torch whose executor reads dtypes as they are written: before, each is taken for another, int32
# for int64, mostly without an error.
READS_DTYPES = (2, 12)


class UnsupportedNodeError(RuntimeError):
    """A node that the container of a package cannot run."""


@dataclass(frozen=True)
class ExternNode:
    target: str  # "aten::add.Tensor"
    json: dict[str, Any]
    ints: list[Operand]  # in the order of the arguments
    inputs: list[Node]  # tensors, likewise
    num_results: int
    is_list: bool  # whether the node gives a sequence of tensors
    has_dtype: bool  # whether an argument is a dtype


def extern_node(node: Node, operand: Callable[[Any], Operand]) -> ExternNode:
    """Describes a call of an operator.

    Args:
        node: the call; its arguments are nodes with metadata.
        operand: puts a size into the package's size program.

    Raises:
        UnsupportedNodeError: a call that the executor cannot make; the text says why.
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        raise UnsupportedNodeError("it is not an operator")
    if node.target.namespace not in _NAMESPACES:
        raise UnsupportedNodeError("it is not an operator of PyTorch's own library")
    if node.target._schema.is_mutable:
        raise UnsupportedNodeError("it changes its arguments in place")
    target = _overload(node)
    arguments = _complete_arguments(node, target)
    symbolic = [leaf for leaf in _leaves([value for _, value in arguments]) if _is_symbolic(leaf)]
    if any(not isinstance(leaf.meta.get("val"), (int, torch.SymInt)) for leaf in symbolic):
        raise UnsupportedNodeError("it takes a number that depends on the values of a tensor")
    has_dtype = any(isinstance(value, torch.dtype) for _, value in arguments)
    if has_dtype and torch.__version__ < READS_DTYPES:
        raise UnsupportedNodeError(
            f"the executor of torch {torch.__version__} takes its dtype for another"
        )
    results, is_list = _results(node)
    serializer = serde.GraphModuleSerializer(None, [])  # type: ignore[arg-type] - no signature is needed here
    inputs = []
    for argument, value in arguments:
        # Integers are given at run time: here only their number matters.
        fixed = map_arg(value, lambda leaf: 0 if _is_symbolic(leaf) else leaf)
        try:
            serialized = serializer.serialize_input(fixed, argument.type)
        except Exception as error:
            raise UnsupportedNodeError(
                f"its argument {argument.name} has no form: {error}"
            ) from error
        inputs.append(
            {"name": argument.name, "arg": serde._dataclass_to_dict(serialized), "kind": 1}
        )
    record = {"target": target.name(), "inputs": inputs, "outputs": results, "metadata": {}}
    return ExternNode(
        target=target.name(),
        json={"name": node.name, "node": record},
        ints=[operand(_size(leaf)) for leaf in _ints(arguments)],
        inputs=[
            leaf
            for leaf in _leaves([value for _, value in arguments])
            if isinstance(leaf, Node) and not _is_symbolic(leaf)
        ],
        num_results=len(node.meta["val"]) if is_list else 1,
        is_list=is_list,
        has_dtype=has_dtype,
    )


def _overload(node: Node) -> torch._ops.OpOverload:
    """The overload to call: graphs may have numbers where the schema has tensors, but the executor may not."""
    target = node.target
    for argument, value in zip(target._schema.arguments, node.args, strict=False):
        is_number = type(value) in (bool, int, float) or _is_symbolic(value)
        if str(argument.type) == "Tensor" and is_number:
            name = target._overloadname.replace("Tensor", "Scalar")
            if name not in target.overloadpacket.overloads() or name == target._overloadname:
                raise UnsupportedNodeError(f"its argument {argument.name} is a number")
            return getattr(target.overloadpacket, name)
    return target


def _complete_arguments(node: Node, target: torch._ops.OpOverload) -> list[tuple[Any, Any]]:
    """Every argument of the operator's schema with its value, defaults included."""
    result = []
    for index, argument in enumerate(target._schema.arguments):
        if not argument.kwarg_only and index < len(node.args):
            value = node.args[index]
        elif argument.name in node.kwargs:
            value = node.kwargs[argument.name]
        elif argument.has_default_value():
            value = argument.default_value
        else:
            raise UnsupportedNodeError(f"its argument {argument.name} is missing")
        result.append((argument, _as_declared(value, argument.type)))
    return result


def _as_declared(value: Any, declared: Any) -> Any:
    """Numbers as the schema has them: a float argument may have been written as an integer."""
    text = str(declared)
    if "float" in text and type(value) is int:
        return float(value)
    if "float" in text and isinstance(value, (list, tuple)):
        return [float(each) if type(each) is int else each for each in value]
    return value


def _leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from _leaves(value)
    else:
        yield values


def _is_symbolic(leaf: Any) -> bool:
    return isinstance(leaf, Node) and is_symbolic_node(leaf)


def _ints(arguments: list[tuple[Any, Any]]) -> Iterator[Any]:
    for _, value in arguments:
        for leaf in _leaves(value):
            if type(leaf) is int or _is_symbolic(leaf):
                yield leaf


def _size(leaf: Any) -> Any:
    return leaf.meta["val"] if isinstance(leaf, Node) else leaf


def _results(node: Node) -> tuple[list[dict[str, Any]], bool]:
    value = node.meta.get("val")
    returns = [str(each.type) for each in node.target._schema.returns]
    if returns == ["Tensor"] and isinstance(value, torch.Tensor):
        return [_tensor(node.name)], False
    values = list(value) if isinstance(value, (list, tuple)) else []
    if not values or not all(isinstance(each, torch.Tensor) for each in values):
        raise UnsupportedNodeError("it gives something other than tensors")
    tensors = [_tensor(f"{node.name}_{index}") for index in range(len(values))]
    if returns == ["List[Tensor]"]:
        names = [each["as_tensor"] for each in tensors]
        return [{"as_tensors": names}], True
    if returns == ["Tensor"] * len(values):
        return tensors, True
    raise UnsupportedNodeError("it gives lists and tensors together")


def _tensor(name: str) -> dict[str, Any]:
    argument = schema.Argument.create(as_tensor=schema.TensorArgument(name=name))
    return serde._dataclass_to_dict(argument)
