"""Helpers that scripts import from Torch-TensorRT: results compared, example tensors of inputs, devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tensorrt._device import Device
from torch_tensorrt._input import Input

COSINE_THRESHOLD = 0.99
RTOL = 5e-3
ATOL = 5e-3


def cosine_similarity(gt_tensor: torch.Tensor, pred_tensor: torch.Tensor) -> float:
    """The cosine of the angle between two tensors of the same number of elements, in f64; 1 where all elements
    of both are zero or there are none. ValueError: numbers of elements that differ."""
    if gt_tensor.numel() != pred_tensor.numel():
        raise ValueError(
            f"pred_tensor has shape {tuple(pred_tensor.shape)}, expected as many elements as gt_tensor of shape "
            f"{tuple(gt_tensor.shape)}"
        )
    expected, actual = (
        tensor.detach().flatten().to("cpu", torch.float64) for tensor in (gt_tensor, pred_tensor)
    )
    if not expected.any() and not actual.any():
        return 1.0
    return torch.nn.functional.cosine_similarity(expected, actual, dim=0, eps=1e-150).item()


def check_output_equal(output1: Any, output2: Any, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """Whether two results, tensors in lists, tuples and dictionaries, are of one structure and shape and their
    elements within atol + rtol * |element of output2| of each other."""
    if type(output1) is not type(output2):
        return False
    if isinstance(output1, torch.Tensor):
        return output1.shape == output2.shape and torch.allclose(output1, output2, rtol, atol)
    if isinstance(output1, Mapping):
        return output1.keys() == output2.keys() and all(
            check_output_equal(output1[key], output2[key], rtol, atol) for key in output1
        )
    if isinstance(output1, (list, tuple)):
        return len(output1) == len(output2) and all(
            check_output_equal(a, b, rtol, atol) for a, b in zip(output1, output2, strict=True)
        )
    return bool(output1 == output2)


def prepare_inputs(inputs: Any, disable_memory_format_check: bool = False) -> Any:
    """The same structure with an `Input` in the place of each tensor; Inputs, numbers and None stay.
    TypeError: anything else."""

    def prepare(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return Input.from_tensor(value, disable_memory_format_check)
        if value is None or isinstance(value, (Input, bool, int, float, torch.SymInt)):
            return value
        raise TypeError(
            f"inputs holds {type(value).__name__}, expected tensors, torch_tensorrt.Input, numbers, None, or lists, "
            "tuples and dictionaries of them"
        )

    return pytree.tree_map(prepare, inputs)


def get_torch_inputs(
    inputs: Any, device: Device | torch.device | str | None, mode: str = ""
) -> Any:
    """Example tensors of inputs on a device, in the same structure.

    Args:
        inputs: `Input`s in lists, tuples and dictionaries; what else is in them stays.
        device: where the tensors are to be.
        mode: "min_shape", "opt_shape" or "max_shape"; by default the example that an input was made of, else
            its "opt_shape".
    """
    place = to_torch_device(device)
    return pytree.tree_map(
        lambda value: get_torch_tensor(value, place, mode) if isinstance(value, Input) else value,
        inputs,
    )


def get_torch_tensor(
    input: Input, device: Device | torch.device | str | None, mode: str = ""
) -> torch.Tensor:
    """The example tensor of one input, as `get_torch_inputs` gives it."""
    place = to_torch_device(device)
    if input.torch_tensor is not None and not mode:
        return input.torch_tensor.to(place)
    field = (mode or "opt_shape") if input.is_dynamic else None
    return input.example_tensor(field).to(place)


def get_model_device(module: torch.nn.Module) -> torch.device:
    """Where the first parameter or buffer of a module is; the default device if it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return to_torch_device(None)


def to_torch_device(device: Device | torch.device | str | None) -> torch.device:
    """A device as torch.device; the current GPU, or the CPU where there is none, for None."""
    return Device._from(device).to(torch.device)


def to_torch_tensorrt_device(device: Device | torch.device | str | None) -> Device:
    """A device as `torch_tensorrt.Device`; the current GPU, or the CPU where there is none, for None."""
    return Device._from(device)
