"""Packages of AOTInductor (.pt2): saved here, loaded by torch._inductor.aoti_load_package without this project."""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

import kiln
from torch_tensorrt._operator import execute_engine_in_place
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt._structure import flatten_inputs
from torch_tensorrt.formats.aoti.archive import Entry, tensor_bytes, write_package
from torch_tensorrt.formats.aoti.compile import NoCodeError, compile_program, has_compiler
from torch_tensorrt.formats.aoti.library import check_libraries
from torch_tensorrt.formats.aoti.program import (
    COMPILED_FILE,
    PackageProgram,
    build_program,
    engine_file,
)

logger = logging.getLogger(__name__)

_MODEL_PREFIX = "data/aotinductor/"


def check_platform() -> None:
    """Raises ValueError on a system that packages do not run on."""
    if platform.system() != "Linux":
        raise ValueError(
            f"output_format='aot_inductor' is for Linux only, and this is {platform.system()}: save an exported_program"
        )


def check_package_path(path: str | os.PathLike[str]) -> None:
    """Raises ValueError for what cannot be the path of a package."""
    if Path(path).suffix != ".pt2":
        raise ValueError(
            f"got the file name {os.fspath(path)!r}, expected one that ends in .pt2: "
            "torch._inductor.aoti_load_package takes no other"
        )


def save_package(
    program: ExportedProgram,
    path: str | os.PathLike[str],
    *,
    inductor_configs: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, str | bytes] | None = None,
) -> None:
    """Saves a program as a package that `torch._inductor.aoti_load_package` and C++ load without this project.

    A program that is all engines needs no compiler: its package is a copy of a library of this project, and engines.
    Operators outside engines are compiled by AOTInductor where it finds a C++ compiler, and called in LibTorch one
    by one where it does not. The file appears only when it is complete.

    Args:
        program: what to save; its engines are calls of kiln::execute_engine.
        path: has to end in .pt2.
        inductor_configs: options for AOTInductor, if it is needed.
        extra_files: more files for the archive, by name.

    Raises:
        ValueError: a path that does not end in .pt2, inputs or results that a package cannot have.
        RuntimeError: an operator that needs a C++ compiler, where there is none.
        OSError: the file cannot be written, or was not written as it should.
    """
    check_platform()
    check_package_path(path)
    configs = dict(inductor_configs or {})
    with torch.no_grad(), quiet_torch():
        decomposed = program.run_decompositions({})
    lowered = build_program(decomposed)
    if program.graph.find_nodes(op="call_function", target=execute_engine_in_place):
        in_place = build_program(program)
        only_engines = in_place.only_views or in_place.device != "cpu"
        if only_engines and not in_place.unsupported:
            lowered = in_place
        decomposed._guards_code = list(getattr(program, "_guards_code", []))
        program = decomposed  # AOTInductor wants what is changed to be written back at the end
    if lowered.only_views and not lowered.unsupported:
        nodes = lowered.extern_json if lowered.extern_nodes else None
        entries = _container_entries(lowered, nodes)
    elif has_compiler(configs):
        entries = _compiled_entries(program, lowered, configs)
    else:
        _check_supported(
            lowered, "no C++ compiler was found", "Install g++ or clang++, or set CXX."
        )
        entries = _container_entries(lowered, lowered.extern_json)
    write_package(
        Path(path), entries, extra_files, load=bool(lowered.extern_nodes or lowered.unsupported)
    )


def _compiled_entries(
    program: ExportedProgram, lowered: PackageProgram, configs: Mapping[str, Any]
) -> list[Entry]:
    """With compiled code, or without where the compiler makes none that can be loaded."""
    try:
        compiled = compile_program(program, configs)
    except NoCodeError as error:
        reason, _, remedy = str(error).partition(": ")
        _check_supported(lowered, reason, remedy, error)
        logger.warning("operators outside engines are not compiled: %s", error)
        return _container_entries(lowered, lowered.extern_json)
    entries = _container_entries(
        compiled.program, compiled.extern_nodes, json.loads(compiled.metadata)
    )
    return [*entries, Entry(COMPILED_FILE, compiled.library)]


def _check_supported(
    lowered: PackageProgram, reason: str, remedy: str, cause: Exception | None = None
) -> None:
    if lowered.unsupported:
        nodes = "\n".join(f"  {node}: {why}" for node, why in lowered.unsupported.items())
        raise RuntimeError(
            f"{reason}, and what lies outside the engines has to be compiled:\n{nodes}\n{remedy}"
        ) from cause


def _container_entries(
    program: PackageProgram, extern_nodes: bytes | None = None, metadata: Mapping[str, str] = {}
) -> list[Entry]:
    library = kiln.library_directory() / "libkiln_aoti.so"
    if not library.is_file():
        raise ImportError(f"{library} does not exist: was Kiln built with KILN_BUILD_TORCH=OFF?")
    entries = [
        # Loaders of torch 2.11 and 2.12 find the metadata by the name of the library's source.
        Entry("kiln.wrapper.cpp", b"// kiln.wrapper.so is the same library in every package.\n"),
        Entry("kiln.wrapper.so", library),
        Entry(
            "kiln.wrapper_metadata.json",
            json.dumps({**metadata, "AOTI_DEVICE_KEY": program.device}).encode(),
        ),
        Entry("program.kiln.txt", program.text),
    ]
    if extern_nodes is not None:
        entries.append(Entry("kiln.wrapper.json", extern_nodes))
    if program.constants:
        entries.append(Entry("constants.bin", _constants(program.constants)))
    return entries + [
        Entry(engine_file(index), tensor_bytes(engine))
        for index, engine in enumerate(program.engines)
    ]


def _constants(tensors: list[torch.Tensor]) -> bytes:
    data = bytearray()
    for tensor in tensors:
        data += bytes(-len(data) % 64)
        data += tensor_bytes(tensor)
    return bytes(data)


class LoadedPackage:
    """A package that was loaded: call it like the module that was saved."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        specs = [pytree.treespec_loads(text) for text in self.loader.get_call_spec()]
        self._in_spec, self._out_spec = specs
        positional = self._in_spec.child(0)
        self._plain_inputs = (
            positional.num_children
            if self._in_spec.child(1).num_leaves == 0
            and all(child.is_leaf() for child in positional.children())
            else None
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs and len(args) == self._plain_inputs:
            tensors = [value for value in args if isinstance(value, torch.Tensor)]
        else:
            tensors = self._flatten(args, kwargs)
        results = self.loader.boxed_run(tensors)
        return (
            results[0]
            if self._out_spec.is_leaf()
            else pytree.tree_unflatten(results, self._out_spec)
        )

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        leaves = flatten_inputs(args, kwargs, self._in_spec)
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def module(self) -> LoadedPackage:
        """Itself, so that packages are used like exported programs."""
        return self

    def get_metadata(self) -> dict[str, str]:
        return self.loader.get_metadata()


def is_package(path: str | os.PathLike[str], names: Sequence[str]) -> bool:
    """Whether a path is that of a package, with these entries, or of a folder that one was unpacked to."""
    if os.path.isdir(path):
        return _unpacked_root(Path(path)) is not None
    return any(f"/{_MODEL_PREFIX}" in f"/{name}" for name in names)


def _unpacked_root(folder: Path) -> Path | None:
    """The folder that holds data/aotinductor: the one given, or the only one in it."""
    candidates = [folder, *(child for child in sorted(folder.iterdir()) if child.is_dir())]
    return next((each for each in candidates if (each / _MODEL_PREFIX).is_dir()), None)


def load_package(
    path: str | os.PathLike[str], extra_files: dict[str, Any] | None = None
) -> LoadedPackage:
    """Loads a package as torch._inductor.aoti_load_package does, without what that imports.

    A folder that a package was unpacked to is used in place, or packed again for loaders before torch 2.13, which take
    none.

    Args:
        path: a .pt2 file that `save_package` wrote, or such a folder.
        extra_files: names of extra files to read; their contents are filled in.

    Raises:
        ValueError: not a package, or one that this PyTorch cannot load.
    """
    root = _unpacked_root(Path(path)) if os.path.isdir(path) else Path(path)
    if root is None:
        raise ValueError(
            f"the folder {os.fspath(path)} has no {_MODEL_PREFIX}: it is not an unpacked package"
        )
    try:
        check_libraries(root)
        _check_operators(root)
        with _loadable(root) as file:
            path_of_loader = os.path.abspath(file)
            loader = torch._C._aoti.AOTIModelPackageLoader(path_of_loader, "model", False, 1, -1)
        package = LoadedPackage(loader)
    except Exception as error:  # of many kinds, if the package is damaged
        raise ValueError(
            f"the package {os.fspath(path)} cannot be loaded: {error or type(error).__name__}"
        ) from error
    for name, content in _extra_files(root, extra_files or {}):
        extra_files[name] = content  # type: ignore[index] - not None here
    return package


@contextmanager
def _loadable(root: Path) -> Iterator[Path]:
    """What PyTorch's loader takes for a package or the folder of one. It unpacks an archive before it returns."""
    if root.is_file() or torch.__version__ >= (2, 13):
        yield root
        return
    with tempfile.NamedTemporaryFile(suffix=".pt2") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(each for each in root.rglob("*") if each.is_file()):
                archive.write(path, f"{root.name}/{path.relative_to(root)}")
        yield Path(file.name)


def _check_operators(root: Path) -> None:
    """Raises ValueError for a program that calls operators of PyTorch's, in a package without the list of them."""
    program, operators = f"{_MODEL_PREFIX}model/program.kiln.txt", "model/kiln.wrapper.json"
    if root.is_dir():
        text = (root / program).read_bytes() if (root / program).is_file() else b""
        has_list = (root / _MODEL_PREFIX / operators).is_file()
    else:
        with zipfile.ZipFile(root) as archive:
            names = archive.namelist()
            text = b"".join(archive.read(name) for name in names if name.endswith(program))
        has_list = any(name.endswith(operators) for name in names)
    if b"\nrun_aten " in text and not has_list:
        raise ValueError(
            "it lacks kiln.wrapper.json, the list of PyTorch's operators that it calls"
        )


def _extra_files(root: Path, wanted: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if root.is_dir():
        for name in wanted:
            if (root / "extra" / name).is_file():
                yield name, (root / "extra" / name).read_text(encoding="utf-8")
        return
    with zipfile.ZipFile(root) as archive:
        for entry in archive.namelist():
            name = entry.partition("/extra/")[2]
            if name in wanted:
                yield name, archive.read(entry).decode()
