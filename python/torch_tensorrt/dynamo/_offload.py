"""Weights of a model on a GPU go to the CPU while it is compiled, and stay there (`offload_module_to_cpu`)."""

from __future__ import annotations

import logging

import torch
from torch.export import ExportedProgram

logger = logging.getLogger(__name__)


def offload(*programs: ExportedProgram) -> None:
    """Moves parameters and buffers to the CPU: those of the programs, which are those of the modules that they were
    exported from, as `Module.cpu()` moves them. Memory that nobody else has is given back to the GPU."""
    copies: dict[tuple[object, ...], torch.Tensor] = {}
    for program in programs:
        for tensor in program.state_dict.values():
            # A tensor of a type of its own may hold others, which only it knows how to move.
            if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not tensor.is_cuda:
                continue
            place = tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
            if place not in copies:
                copies[place] = tensor.detach().cpu()
            tensor.data = copies[place]
    if copies:
        torch.cuda.empty_cache()
        logger.info(
            "the model was moved to the CPU while it is compiled, and stays there: offload_module_to_cpu=False leaves "
            "it on the GPU"
        )
