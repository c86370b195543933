"""Dtypes of what batch norms give beside their result. Of 16 bits torch.export records others than kernels for CPUs
give: those of the operands. Everything behind them is recorded accordingly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

from torch_tensorrt.dynamo._lstm_states import computed
from torch_tensorrt.dynamo._symbols import fake_mode_of

_ATEN = torch.ops.aten
BATCH_NORMS = (
    _ATEN.native_batch_norm.default,
    _ATEN._native_batch_norm_legit.default,
    _ATEN._native_batch_norm_legit.no_stats,
    _ATEN._native_batch_norm_legit_functional.default,
    _ATEN._native_batch_norm_legit_no_training.default,
    _ATEN._batch_norm_with_update.default,
    _ATEN._batch_norm_with_update_functional.default,
)


def correct_batch_statistics(graph: Graph) -> None:
    """Records what batch norms of 16 bits and the operators behind them give."""
    corrected: set[Node] = set()
    for node in graph.nodes:
        if node.target in BATCH_NORMS:
            dtypes = statistics_dtypes(node)
            if dtypes is not None and dtypes != [value.dtype for value in node.meta["val"]]:
                with fake_mode_of(node.meta["val"]):
                    node.meta["val"] = tuple(
                        value if value.dtype == dtype else torch.empty_like(value, dtype=dtype)
                        for value, dtype in zip(node.meta["val"], dtypes, strict=True)
                    )
                corrected.add(node)
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            continue  # has graphs of its own
        elif node.op == "call_function" and not corrected.isdisjoint(node.all_input_nodes):
            value = computed(node)
            if _dtypes(value) != _dtypes(node.meta["val"]):
                node.meta["val"] = value
                corrected.add(node)


def statistics_dtypes(norm: Node) -> list[torch.dtype] | None:
    """The dtypes of all results of a batch norm; None if they are not known."""
    operands = {
        argument.name: value.meta["val"]
        for argument, value in zip(norm.target._schema.arguments, norm.args, strict=False)
        if isinstance(value, Node)
    }
    operands |= {
        name: value.meta["val"] for name, value in norm.kwargs.items() if isinstance(value, Node)
    }
    tensors = [value for value in operands.values() if isinstance(value, torch.Tensor)]
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return None
    statistics = operands["input"].dtype
    for tensor in tensors:
        statistics = torch.promote_types(statistics, tensor.dtype)
    result = [value.dtype for value in norm.meta["val"]]
    result[0], result[1], result[2] = operands["input"].dtype, statistics, statistics
    if norm.target in (
        _ATEN._native_batch_norm_legit_functional.default,
        _ATEN._batch_norm_with_update_functional.default,
    ):
        result[-2:] = [operands["running_mean"].dtype, operands["running_var"].dtype]
    return result


def _dtypes(value: Any) -> list[torch.dtype | None]:
    values: Sequence[Any] = value if isinstance(value, (tuple, list)) else [value]
    return [getattr(of, "dtype", None) for of in values]
