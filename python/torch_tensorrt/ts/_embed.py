"""`embed_engine_in_new_module`: the bytes of an engine as a ScriptModule."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from typing import Any

import torch

import kiln
from torch_tensorrt._device import Device
from torch_tensorrt._enums import DeviceType
from torch_tensorrt._operator import engine_tensor, hold
from torch_tensorrt.formats.script_writer import define_script
from torch_tensorrt.formats.torchscript import quiet_torchscript
from torch_tensorrt.runtime._spec import spec_of
from torch_tensorrt.ts._compile_spec import warn_deprecated


def embed_engine_in_new_module(
    serialized_engine: bytes,
    input_binding_names: Sequence[str] | None = None,
    output_binding_names: Sequence[str] | None = None,
    device: Any = None,
) -> torch.jit.ScriptModule:
    """A ScriptModule that runs an engine.

    Args:
        serialized_engine: the bytes of an engine file.
        input_binding_names, output_binding_names: the engine's names of its inputs and outputs, in the order in which
            the module is to take and give them; the engine's own order if None.
        device: where it is to run, which is checked; an engine runs where it was compiled for.

    Returns:
        A module that takes tensors and gives one tensor, or a tuple of them.

    Raises:
        ValueError: names that the engine does not have, or not as many; a device that engines do not run on.
        kiln.InvalidEngineError: bytes that are not an engine.
    """
    warn_deprecated("embed_engine_in_new_module")
    buffer = engine_tensor(serialized_engine)
    description = kiln.inspect(buffer.numpy())
    if device is not None:
        _check_device(device, {program["target"] for program in description["programs"]})
    inputs = _order("input", description["inputs"], input_binding_names)
    outputs = _order("output", description["outputs"], output_binding_names)
    source = _source(description, inputs, outputs)
    holder = torch.nn.Module()
    holder.register_buffer("engine_0", buffer)
    with quiet_torchscript():
        module = define_script(holder.eval(), source)
    hold(module, buffer)
    return module


def _check_device(device: Any, targets: set[str]) -> None:
    """ValueError: a device that an engine with programs for these targets does not run on."""
    names = {DeviceType.CPU: "cpu", DeviceType.GPU: "cuda"}
    if names.get(Device._from(device).device_type) not in targets:
        place = "the CPU" if targets == {"cpu"} else "a GPU"
        raise ValueError(
            f"device is {device}, expected {' or '.join(sorted(targets))}: such engines run on {place}"
        )


def _order(kind: str, tensors: Sequence[dict[str, Any]], names: Sequence[str] | None) -> list[int]:
    """Positions in the engine of what the caller named."""
    own = [tensor["name"] for tensor in tensors]
    if names is None:
        return list(range(len(own)))
    if sorted(names) != sorted(own):
        raise ValueError(
            f"{kind}_binding_names is {list(names)}, but the {kind}s of the engine are {own}: give each of them once"
        )
    return [own.index(name) for name in names]


def _source(description: dict[str, Any], inputs: list[int], outputs: list[int]) -> str:
    own = [_identifier(index, each["name"]) for index, each in enumerate(description["inputs"])]
    head = ", ".join(f"{own[index]}: Tensor" for index in inputs)
    results = ", ".join(f"results[{index}]" for index in outputs)
    return (
        f"def forward(self, {head}):\n"
        f"    results = torch.ops.kiln.execute_engine([{', '.join(own)}], self.engine_0, "
        f'"{spec_of(description)}")\n'
        f"    return {results if len(outputs) == 1 else f'({results})'}\n"
    )


def _identifier(index: int, name: str) -> str:
    plain = name.isidentifier() and not keyword.iskeyword(name)
    return name if plain and name not in ("self", "torch", "results") else f"input_{index}"
