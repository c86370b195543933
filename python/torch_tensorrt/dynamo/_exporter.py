"""`torch_tensorrt.dynamo.export`: a compiled module as what can be saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import GraphModule

from torch_tensorrt._arguments import merge_inputs, sample_inputs
from torch_tensorrt.dynamo._lift import lift
from torch_tensorrt.formats.torchscript import to_torchscript


def export(
    gm: GraphModule,
    inputs: Sequence[Any] | None = None,
    call_spec: Any = None,
    ir: str = "exported_program",
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    output_format: str | None = None,
) -> Any:
    """Turns a compiled module into what can be saved.

    Args:
        gm: what `torch_tensorrt.compile` or `torch_tensorrt.dynamo.compile` gave.
        inputs, arg_inputs: example inputs to keep with the program; for TorchScript needed only if it is traced.
        call_spec: accepted for compatibility; the module knows its own.
        ir, output_format: "exported_program" (or "ep"), or "torchscript" (or "ts").
        kwarg_inputs: keyword example inputs.

    Returns:
        An ExportedProgram, or a ScriptModule.
    """
    kind = output_format or ir
    args = merge_inputs(inputs, arg_inputs, required=False)
    samples = sample_inputs(gm, args, kwarg_inputs) if args is not None or kwarg_inputs else None
    if kind in ("torchscript", "ts"):
        return to_torchscript(gm, args, kwarg_inputs)
    if kind not in ("exported_program", "ep"):
        raise ValueError(
            f"Invalid ir : {kind} provided for serialization. Options include torchscript | exported_program"
        )
    return lift(gm, samples)
