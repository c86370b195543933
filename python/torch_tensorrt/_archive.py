"""Writes ExportedPrograms to files without a copy of their engines in memory."""

from __future__ import annotations

import copy
import io
import json
from collections import Counter
from typing import Any, BinaryIO

import torch
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram

# Smaller tensors are left to torch.export.save, which copies what it writes.
_LARGE_BYTES = 1 << 20
_WEIGHTS = "data/weights/"
# What a PyTorchFileWriter adds by itself.
_OF_THE_WRITER = (".data/version", ".data/serialization_id", "byteorder")


def save_program(
    program: ExportedProgram, file: BinaryIO, extra_files: Any, pickle_protocol: int
) -> None:
    """torch.export.save, with the same result, but large buffers go from their memory straight into the file.

    torch.export.save is given tensors without data in their place, for which it writes empty records; when the small
    archive is copied into the file, those are filled.
    """
    large = {name: tensor for name, tensor in program.state_dict.items() if _is_large(tensor)}
    seen = Counter(tensor.data_ptr() for tensor in large.values())
    large = {name: tensor for name, tensor in large.items() if seen[tensor.data_ptr()] == 1}
    if not large:
        torch.export.save(program, file, extra_files=extra_files, pickle_protocol=pickle_protocol)
        return
    light, fake = copy.copy(program), FakeTensorMode()
    light._state_dict = {
        name: fake.from_tensor(tensor, static_shapes=True) if name in large else tensor
        for name, tensor in program.state_dict.items()
    }
    small = io.BytesIO()
    torch.export.save(light, small, extra_files=extra_files, pickle_protocol=pickle_protocol)
    small.seek(0)
    _copy_archive(torch._C.PyTorchFileReader(small), file, large)


def _is_large(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a large one that alone fills the memory that it lies in."""
    return (
        type(tensor) is torch.Tensor
        and tensor.device.type == "cpu"
        and tensor.nbytes >= _LARGE_BYTES
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() == tensor.nbytes
    )


def _copy_archive(reader: Any, file: BinaryIO, large: dict[str, torch.Tensor]) -> None:
    config = json.loads(reader.get_record(_WEIGHTS + "model_weights_config.json"))["config"]
    tensors = {_WEIGHTS + config[name]["path_name"]: tensor for name, tensor in large.items()}
    writer = torch._C.PyTorchFileWriter(file)
    writer.set_min_version(6)  # as torch.export.save has it
    for record in reader.get_all_records():
        if record in tensors:
            tensor = tensors[record]
            writer.write_record(record, tensor.untyped_storage(), tensor.nbytes)
        elif record not in _OF_THE_WRITER:
            data = reader.get_record(record)
            writer.write_record(record, data, len(data))
    writer.write_end_of_file()
