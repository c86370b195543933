"""Graphs to torch.export's JSON schema, in memory: what libkiln reads. Weights go beside it, by address."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde import serialize as serde
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import GraphModule, Node

from kiln import TensorView
from torch_tensorrt._operator import DTYPE_NAMES


@dataclass(frozen=True)
class Serialized:
    """The JSON of a program, and the node of the graph behind each of its nodes."""

    json: bytes
    nodes: list[Node]


def serialize(
    module: GraphModule, signature: ExportGraphSignature, range_constraints: Mapping[Any, Any]
) -> Serialized:
    """Serialises a graph whose weights are inputs. A node that the schema cannot express keeps its name alone."""
    serializer = serde.GraphModuleSerializer(signature, [])
    serializer.serialize_metadata = _metadata
    written = []
    for node in module.graph.nodes:
        before = len(serializer.graph_state.nodes)
        try:
            getattr(serializer, f"handle_{node.op}")(node)
        except Exception:  # whatever the schema lacks stays in PyTorch
            if node.op != "call_function":
                raise
            del serializer.graph_state.nodes[before:]
            serializer.graph_state.nodes.append(_unknown_node(serializer, node))
        written += [node] * (len(serializer.graph_state.nodes) - before)
    state = serializer.graph_state
    graph = schema.Graph(
        inputs=state.inputs,
        outputs=state.outputs,
        nodes=state.nodes,
        tensor_values=state.tensor_values,
        sym_int_values=state.sym_int_values,
        sym_float_values=state.sym_float_values,
        sym_bool_values=state.sym_bool_values,
        custom_obj_values=state.custom_obj_values,
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
    text = json.dumps(serde._dataclass_to_dict(program), cls=serde.EnumEncoder, allow_nan=False)
    return Serialized(text.encode(), written)


def _metadata(node: Node) -> dict[str, str]:
    """Where in the model a node comes from, for error messages; the rest of torch's notes is long and not needed."""
    return {"stack_trace": node.meta["stack_trace"]} if node.meta.get("stack_trace") else {}


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
        if weight.dtype not in DTYPE_NAMES or weight.layout is not torch.strided:
            continue  # the nodes that use it stay in PyTorch
        tensor = weight.detach().resolve_neg().cpu().contiguous()
        views[name] = TensorView(
            tensor.data_ptr(), DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), tensor
        )
    return views
