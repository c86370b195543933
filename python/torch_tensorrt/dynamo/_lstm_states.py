"""Shapes of the last states of LSTMs. On a GPU torch.export records [layers, 1, batch, size] for what is
[layers, batch, size] when it runs, and everything behind it is recorded accordingly."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from torch_tensorrt.dynamo._symbols import fake_mode_of


def correct_lstm_states(graph: Graph) -> None:
    """Records what LSTMs and the operators behind them give."""
    wrong: set[Node] = set()
    for node in graph.nodes:
        if node.target is torch.ops.aten.lstm.input:
            output, *states = node.meta["val"]
            if any(state.dim() == 4 for state in states):
                with fake_mode_of([output]):
                    node.meta["val"] = (output, *(state.squeeze(1) for state in states))
                wrong.add(node)
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            continue  # has graphs of its own
        elif node.op == "call_function" and not wrong.isdisjoint(node.all_input_nodes):
            value = computed(node)
            if node.target is operator.getitem and _same(value, node.meta["val"]):
                continue
            node.meta["val"] = value
            wrong.add(node)


def computed(node: Node) -> Any:
    """What an operator gives for what is recorded of its inputs."""
    args, kwargs = map_arg((node.args, node.kwargs), lambda arg: arg.meta["val"])
    with torch.no_grad(), fake_mode_of(arg.meta["val"] for arg in node.all_input_nodes):
        return node.target(*args, **kwargs)


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
