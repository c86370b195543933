"""Writes ExportedPrograms to files without a copy of their engines in memory."""

from __future__ import annotations

import copy
import io
import json
from typing import Any, BinaryIO

import torch
from torch._export.serde import serialize as serde
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from torch_tensorrt.formats.verify import WriteError, WrittenArchive

# Smaller tensors are left to torch.export.save, which copies what it writes.
_LARGE_BYTES = 1 << 20
_WEIGHTS = "data/weights/"
_WEIGHTS_CONFIG = _WEIGHTS + "model_weights_config.json"
_CONSTANTS = "data/constants/"
_CONSTANTS_CONFIG = _CONSTANTS + "model_constants_config.json"
# What a PyTorchFileWriter adds by itself.
_OF_THE_WRITER = (".data/version", ".data/serialization_id", "byteorder")


def save_program(
    program: ExportedProgram, file: BinaryIO, extra_files: Any, pickle_protocol: int
) -> None:
    """torch.export.save, with the same result, but large tensors go from their memory straight into the file.

    torch.export.save is given tensors of one element in their place, each with a storage of its own, because it writes
    one record per storage; tensors that share their storage share the stand-in too. When the small archive is copied
    into the file, their records are filled and their entries get the sizes. What was written is read and compared.

    Raises:
        WriteError: the file lacks something, or cannot be loaded.
    """
    stand_ins = _stand_ins(program.state_dict)
    light = copy.copy(program)
    light._state_dict = {**program.state_dict, **stand_ins}
    # torch.export.load needs the devices of example inputs, and engines for a GPU are to load where there is none.
    light._example_inputs = pytree.tree_map_only(torch.Tensor, _on_cpu, program.example_inputs)
    small = io.BytesIO()
    torch.export.save(light, small, extra_files=extra_files, pickle_protocol=pickle_protocol)
    _check_loads(small)
    large = {name: program.state_dict[name] for name in stand_ins}
    _copy_archive(torch._C.PyTorchFileReader(small), file, large)
    _check_written(file, program)


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu() if tensor.device.type == "cuda" else tensor


def _stand_ins(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Small tensors for those that lie in large memory, by name."""
    by_memory: dict[tuple[int, torch.dtype], torch.Tensor] = {}
    result = {}
    for name, tensor in tensors.items():
        if not _is_large(tensor):
            continue
        key = (tensor.untyped_storage().data_ptr(), tensor.dtype)
        small = by_memory.setdefault(key, torch.zeros(1, dtype=tensor.dtype))
        if isinstance(tensor, torch.nn.Parameter):
            small = torch.nn.Parameter(small, requires_grad=tensor.requires_grad)
        result[name] = small
    return result


def _is_large(tensor: torch.Tensor) -> bool:
    return _is_raw(tensor) and tensor.untyped_storage().nbytes() >= _LARGE_BYTES


def _is_raw(tensor: Any) -> bool:
    """Whether torch.export writes a tensor as the bytes of its storage, and these are there."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not isinstance(tensor.data, FakeTensor)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
    )


def _check_loads(archive: io.BytesIO) -> None:
    """Loads what torch.export.save wrote: it serialises programs that it cannot read again."""
    archive.seek(0)
    try:
        torch.export.load(archive)
    except Exception as error:
        raise WriteError(
            f"nothing was saved: torch.export.load cannot read what torch.export.save wrote: {error}"
        ) from error
    archive.seek(0)


def _copy_archive(reader: Any, file: BinaryIO, large: dict[str, torch.Tensor]) -> None:
    config = json.loads(reader.get_record(_WEIGHTS_CONFIG))
    storages = {}
    for name, tensor in large.items():
        entry = config["config"][name]
        entry["tensor_meta"] = _tensor_meta(tensor)
        storages[_WEIGHTS + entry["path_name"]] = tensor.untyped_storage()
    writer = torch._C.PyTorchFileWriter(file)
    writer.set_min_version(6)  # as torch.export.save has it
    for record in reader.get_all_records():
        if record in storages:
            writer.write_record(record, storages[record], storages[record].nbytes())
        elif record not in _OF_THE_WRITER:
            is_config = record == _WEIGHTS_CONFIG and large
            data = json.dumps(config).encode() if is_config else reader.get_record(record)
            writer.write_record(record, data, len(data))
    writer.write_end_of_file()


def _tensor_meta(tensor: torch.Tensor) -> Any:
    return serde._dataclass_to_dict(serde.serialize_tensor_meta(tensor))


def _check_written(file: BinaryIO, program: ExportedProgram) -> None:
    """Compares every tensor of a file with the program's: its description, and its bytes."""
    archive = WrittenArchive(file)
    tensors = {
        name: value for name, value in program.constants.items() if isinstance(value, torch.Tensor)
    }
    contents: dict[str, Any] = {}
    for folder, config, expected in (
        (_WEIGHTS, _WEIGHTS_CONFIG, program.state_dict),
        (_CONSTANTS, _CONSTANTS_CONFIG, tensors),
    ):
        written = json.loads(archive.read(config))["config"]
        for name, tensor in expected.items():
            entry = written.get(name)
            if entry is None:
                raise WriteError(f"nothing was saved: the tensor {name!r} was not written")
            if entry["use_pickle"] or not _is_raw(tensor):
                continue  # torch's own pickles
            if entry["tensor_meta"] != json.loads(json.dumps(_tensor_meta(tensor))):
                raise WriteError(f"nothing was saved: the tensor {name!r} has another description")
            if tensor.numel() == 0:
                continue
            record, storage = folder + entry["path_name"], tensor.untyped_storage()
            shared = contents.setdefault(record, storage)
            if shared.data_ptr() != storage.data_ptr():
                raise WriteError(
                    f"nothing was saved: the tensor {name!r} shares an entry with another one"
                )
    archive.check(contents)
