"""Graphs to torch.export's JSON schema, in memory: what libkiln reads. Weights go beside it, by address."""

from __future__ import annotations

import functools
import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde import serialize as serde
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import GraphModule, Node

from kiln import TensorView, has_kernel
from torch_tensorrt._operator import DTYPE_NAMES, PART_DTYPES, is_engine_dtype


@dataclass(frozen=True)
class Serialized:
    """The JSON of a program, and the node of the graph behind each of its nodes."""

    json: bytes
    nodes: list[Node]


# What a graph says of its values, by kind: {"tensor_values": {"relu": {"dtype": ...}}, ...}.
Values = dict[str, dict[str, Any]]
_VALUES = (
    *("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"),
    "custom_obj_values",
)


@dataclass(frozen=True)
class _Record:
    """What the schema has for a node of a graph."""

    nodes: list[dict[str, Any]]
    values: Values


# Records of the nodes of one program, by what they are made from: a region has nodes of the program that it is a part
# of, and those are not serialised again.
Records = dict[tuple[str, ...], _Record]


def serialize(
    module: GraphModule,
    signature: ExportGraphSignature,
    range_constraints: Mapping[Any, Any],
    records: Records,
    guards: Sequence[str] = (),
) -> Serialized:
    """Serialises a graph whose weights are inputs. A node that the schema cannot express keeps its name alone.

    `records` are those of the program that the graph is, or is a part of; new ones are added.
    `guards` are conditions on sizes of the graph's inputs: "L['x'].size()[0] % 2 == 0".
    """
    serializer = serde.GraphModuleSerializer(signature, [])
    serializer.serialize_metadata = _metadata
    serializer.serialize_tensor_output = functools.partial(_tensor_output, serializer)
    serializer.serialize_inputs = functools.partial(
        _inputs_with_defaults, serializer, serializer.serialize_inputs
    )
    state = serializer.graph_state
    nodes: list[dict[str, Any]] = []
    values: Values = {kind: {} for kind in _VALUES}
    written = []
    for node in module.graph.nodes:
        if node.op != "call_function":
            record = _serialize_node(serializer, node)
        elif (record := records.get(key := _key(node))) is None:
            record = records[key] = _serialize_node(serializer, node)
        nodes += record.nodes
        for kind, found in record.values.items():
            values[kind] |= found
            getattr(state, kind).update(found)  # by which the serializer knows what is a size
        written += [node] * len(record.nodes)
    graph = schema.Graph(
        inputs=state.inputs,
        outputs=state.outputs,
        nodes=[],
        tensor_values={},
        sym_int_values={},
        sym_bool_values={},
        is_single_tensor_return=state.is_single_tensor_return,
    )
    program = schema.ExportedProgram(
        graph_module=schema.GraphModule(
            graph=graph, signature=serializer.serialize_signature(signature), module_call_graph=[]
        ),
        opset_version={"aten": torch._C._get_max_operator_version()},
        range_constraints=serde.serialize_range_constraints(dict(range_constraints)),
        schema_version=schema.SchemaVersion(
            major=schema.SCHEMA_VERSION[0], minor=schema.SCHEMA_VERSION[1]
        ),
        torch_version=torch.__version__,
    )
    content = serde._dataclass_to_dict(program)
    content["graph_module"]["graph"] |= {"nodes": nodes, **values}
    content["guards_code"] = list(guards)  # not a field of every version
    text = json.dumps(content, cls=serde.EnumEncoder, allow_nan=False)
    return Serialized(text.encode(), written)


def _key(node: Node) -> tuple[str, ...]:
    """All that a record of a node of one program is made from: several results have the names of what picks them."""
    picked = [
        (str(user.args[1]), user.name) for user in node.users if user.target is operator.getitem
    ]
    return node.name, str(node.target), str(node.args), str(node.kwargs), str(sorted(picked))


def _serialize_node(serializer: Any, node: Node) -> _Record:
    state = serializer.graph_state
    num_nodes = len(state.nodes)
    known = {kind: len(getattr(state, kind)) for kind in _VALUES}
    try:
        getattr(serializer, f"handle_{node.op}")(node)
    except Exception:  # whatever the schema lacks stays in PyTorch
        if node.op != "call_function":
            raise
        state.nodes[num_nodes:] = [_unknown_node(serializer, node)]
    new = {kind: _added(getattr(state, kind), count) for kind, count in known.items()}
    return _Record(serde._dataclass_to_dict(state.nodes[num_nodes:]), serde._dataclass_to_dict(new))


def _inputs_with_defaults(serializer: Any, serialize: Any, target: Any, *args: Any) -> list[Any]:
    """The schema leaves out arguments that have their defaults, which kernels of the user's own do not know."""
    inputs: list[Any] = serialize(target, *args)
    if not isinstance(target, torch._ops.OpOverload):
        return inputs
    if not has_kernel(str(target).replace(".", "::", 1)):  # "mylib.scaled_sine.default"
        return inputs
    given = {argument.name: argument for argument in inputs}
    for argument in target._schema.arguments:
        if argument.name not in given and argument.has_default_value():
            value = serializer.serialize_input(argument.default_value, argument.type)
            given[argument.name] = schema.NamedArgument(name=argument.name, arg=value)
    return [given[argument.name] for argument in target._schema.arguments if argument.name in given]


def _added(values: dict[str, Any], since: int) -> dict[str, Any]:
    """What is in a dictionary beyond so many items, which are not walked through: a program has many nodes."""
    return dict(reversed(list(itertools.islice(reversed(values.items()), len(values) - since))))


def _metadata(node: Node) -> dict[str, str]:
    """Where in the model a node comes from, for error messages; the rest of torch's notes is long and not needed."""
    return {"stack_trace": node.meta["stack_trace"]} if node.meta.get("stack_trace") else {}


def _tensor_output(serializer: Any, name: str, value: torch.Tensor) -> schema.TensorArgument:
    """Notes a value. No engine has tensors of other dtypes and layouts than its own, and the schema lacks some of them:
    bytes of the same sizes stand for them, so that one such tensor does not keep the whole program from being read."""
    if is_engine_dtype(value.dtype) and value.layout is torch.strided:
        meta = serde.serialize_tensor_meta(value)
    else:
        one, zero = serde.serialize_sym_int(1), serde.serialize_sym_int(0)
        meta = schema.TensorMeta(
            dtype=schema.ScalarType.BYTE,
            sizes=[serde.serialize_sym_int(size) for size in value.shape],
            requires_grad=False,
            device=schema.Device(type="cpu", index=None),
            strides=[one] * value.dim(),
            storage_offset=zero,
            layout=schema.Layout.Strided,
        )
    serializer.graph_state.tensor_values[name] = meta
    return schema.TensorArgument(name=name)


def _unknown_node(serializer: Any, node: Node) -> schema.Node:
    outputs = []
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        outputs = [
            schema.Argument.create(as_tensor=serializer.serialize_tensor_output(node.name, value))
        ]
    return schema.Node(
        target=str(node.target), inputs=[], outputs=outputs, metadata={}, name=node.name
    )


def weight_views(weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, TensorView]:
    """Weights for `kiln.Model.from_memory`: not copied if they are contiguous and in CPU memory."""
    views = {}
    for name, weight in weights:
        if not is_engine_dtype(weight.dtype) or weight.layout is not torch.strided:
            continue  # the nodes that use it stay in PyTorch
        tensor = weight.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if tensor.dtype in PART_DTYPES:
            tensor = torch.view_as_real(tensor)
        views[name] = TensorView(
            tensor.data_ptr(), DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), tensor
        )
    return views
