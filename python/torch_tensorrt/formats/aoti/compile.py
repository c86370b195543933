"""Compiles what lies outside the engines of a program with AOTInductor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen

import kiln
from torch_tensorrt._operator import execute_engine
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._calling import flat_results
from torch_tensorrt.dynamo._symbols import fake_mode_of, get_attribute
from torch_tensorrt.formats.aoti.compilations import side_by_side, try_instruction_sets
from torch_tensorrt.formats.aoti.gpu import cuda_toolkit, missing_for_gpu
from torch_tensorrt.formats.aoti.program import (
    COMPILED_FILE,
    PackageProgram,
    describe_inputs,
    engine_file,
    header,
    package_device,
)

# By the device of the results, as AOTInductor names what it calls.
_SHIMS = [
    f"AOTITorchError aoti_torch_{device}_execute_engine(const AtenTensorHandle* inputs, int64_t num_inputs, "
    "AtenTensorHandle engine, const char* spec, ...)"
    for device in ("cpu", "cuda")
]


def faster_options(known: Any) -> dict[str, Any]:
    """What makes compiling faster, of the options that are `known`: those of `torch._inductor.config.aot_inductor`."""
    # Precompiled headers are made for each set of options: 10 s and hundreds of megabytes, to save 2 s afterwards. Line
    # tables are most of an object, and of lines that nobody sees.
    options: dict[str, Any] = {"precompile_headers": False, "enable_line_tables": False}
    # -Og leaves out what takes the time of -O1 and does nothing for a wrapper, whose work is calls.
    if "AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL" not in os.environ:
        options["compile_wrapper_opt_level"] = "Og"
    return {
        f"aot_inductor.{name}": value for name, value in options.items() if hasattr(known, name)
    }


@dataclass(frozen=True)
class CompiledProgram:
    program: PackageProgram
    library: Path
    extern_nodes: bytes  # JSON
    metadata: bytes  # JSON


class NoCodeError(RuntimeError):
    """There is no compiled code. The text is the reason, a colon, and what to do."""


class StaticRuntimeError(NoCodeError):
    """Compiled code has the C++ standard library in it."""


def has_compiler(inductor_configs: Mapping[str, Any]) -> bool:
    """Whether AOTInductor finds a C++ compiler."""
    from torch._inductor import config, cpp_builder, exc

    with config.patch({k: v for k, v in inductor_configs.items() if k == "cpp.cxx"}):
        try:
            cpp_builder.get_cpp_compiler()
        except (exc.InvalidCxxCompiler, OSError):
            return False
    return True


def compile_program(
    exported: ExportedProgram, inductor_configs: Mapping[str, Any]
) -> CompiledProgram:
    """Compiles a program that has operators outside engines.

    Engines become inputs of the compiled code, which it passes on to the container that it lies in; so AOTInductor
    never sees their bytes.

    Raises:
        StaticRuntimeError: the compiler makes what PyTorch cannot load.
        NoCodeError: what is needed to compile for a GPU is not there, or does not do it.
    """
    device = package_device(exported)
    if device == "cuda" and (missing := missing_for_gpu()) is not None:
        raise NoCodeError(missing)
    graph = _Flattened(exported)
    from torch._inductor import config

    options = {
        **faster_options(config.aot_inductor),
        **inductor_configs,
        "aot_inductor.package": True,
    }
    if device == "cuda":
        options["aot_inductor.embed_kernel_binary"] = True  # one library instead of a file for each
    if graph.engines:
        options["aot_inductor.custom_ops_to_c_shims"] = {
            **options.get("aot_inductor.custom_ops_to_c_shims", {}),
            execute_engine: _SHIMS,
        }
        options["aot_inductor.custom_op_libs"] = [
            *(options.get("aot_inductor.custom_op_libs") or ()),
            "kiln_aoti_shim",
        ]
    if not any(name.startswith("cpp.") for name in inductor_configs):
        try_instruction_sets()
    with _finding_libraries(device), torch.no_grad(), quiet_torch(), side_by_side():
        files = torch._inductor.aot_compile(graph.module, tuple(graph.inputs), options=options)
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ValueError(
            "inductor_configs asks for something other than a compiled library with its constants inside"
        )
    library, *others = _sort_files([Path(f) for f in files if f])
    check_runtime(library)
    return CompiledProgram(_program(exported, graph, device), library, *others)


def check_runtime(library: Path) -> None:
    """Raises StaticRuntimeError for compiled code that shares no C++ standard library with PyTorch.

    Such code has one of its own whose symbols are mixed with those of PyTorch's, by the rules of the system's loader:
    it ends the process, or fails, when it is loaded.
    """
    data = library.read_bytes()
    if not any(name in data for name in (b"\0libstdc++.so", b"\0libc++.so")):
        raise StaticRuntimeError(
            "the C++ compiler links its standard library statically and so makes nothing that PyTorch can load: "
            "install the shared one for development (libstdc++.so beside libstdc++.a), or name another "
            "compiler by CXX or by inductor_configs={'cpp.cxx': ...}"
        )


class _Flattened:
    """A program as a module from tensors to tensors, with engines as its last inputs."""

    def __init__(self, exported: ExportedProgram) -> None:
        with quiet_torch():
            module = exported.module(check_guards=False)
        graph: Graph = module.graph
        for copy in graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default):
            copy.meta.setdefault("val", copy.args[0].meta.get("val", copy.args[1].meta["val"]))
        self.results = flat_results(graph)
        graph.set_codegen(CodeGen())
        self._drop_other_inputs(graph)
        self._placeholders = graph.find_nodes(op="placeholder")
        fake_mode = fake_mode_of(node.meta["val"] for node in self._placeholders)
        self.engines = self._lift_engines(module, graph, fake_mode)
        graph.output_node().args = (tuple(r for r in self.results if r is not None),)
        graph.eliminate_dead_code()
        graph.lint()
        self.module = GraphModule(module, graph)
        self.inputs = [node.meta["val"] for node in graph.find_nodes(op="placeholder")]

    @staticmethod
    def _drop_other_inputs(graph: Graph) -> None:
        """Inputs that are not tensors were constants of the export: nothing uses them."""
        for node in graph.find_nodes(op="placeholder"):
            if not isinstance(node.meta.get("val"), torch.Tensor):
                graph.erase_node(node)

    def _lift_engines(
        self, module: GraphModule, graph: Graph, fake_mode: FakeTensorMode
    ) -> list[torch.Tensor]:
        engines: list[torch.Tensor] = []
        tokens: dict[str, Node] = {}
        last = self._placeholders[-1] if self._placeholders else None
        for call in graph.find_nodes(op="call_function", target=execute_engine):
            source = call.args[1]
            name = str(source.target)
            if name not in tokens:
                anchor = next(reversed(tokens.values()), last)
                where = graph.inserting_after(anchor) if anchor else graph.inserting_before()
                with where:
                    tokens[name] = graph.placeholder(f"kiln_engine_{len(engines)}")
                with fake_mode:
                    tokens[name].meta["val"] = torch.empty(1, dtype=torch.int64)
                engines.append(get_attribute(module, name))
            call.args = (call.args[0], tokens[name], call.args[2])
        return engines


def _program(exported: ExportedProgram, graph: _Flattened, device: str) -> PackageProgram:
    interface = describe_inputs(exported, with_strides=True)
    lines = [*header(exported, device), *interface.size_lines(), *interface.lines]
    result = PackageProgram(lines, device=device)
    result.engines += graph.engines
    engines = range(len(graph.engines))
    result.lines += [f"engine {engine_file(index)}" for index in engines]
    for spec in exported.graph_signature.output_specs:
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            result.lines.append(f"changes {interface.slots[spec.target]}")
    result.lines.append(f"model {COMPILED_FILE}")
    inputs = range(len(interface.slots))
    tensors = [value for value in graph.results if value is not None]
    words = ["run_model inputs", *inputs, "engines", *engines, "results", len(tensors)]
    result.lines.append(" ".join(map(str, words)))
    slot = len(inputs)
    for value in graph.results:
        _check_result(value)
        result.lines.append(f"result {'none' if value is None else slot}")
        slot += value is not None
    return result


def _check_result(value: Any) -> None:
    is_tensor = isinstance(value, Node) and isinstance(value.meta.get("val"), torch.Tensor)
    if value is not None and not is_tensor:
        raise ValueError(
            f"a result of the model is {value}, but packages of AOTInductor give tensors only: leave it out, or make "
            "it a tensor"
        )


def _sort_files(files: list[Path]) -> tuple[Path, bytes, bytes]:
    """The library, its extern nodes and its metadata."""
    libraries = [file for file in files if file.suffix == ".so"]
    metadata = [file for file in files if file.name.endswith("_metadata.json")]
    nodes = [file for file in files if file.suffix == ".json" and file not in metadata]
    known = {".so", ".json", ".cpp", ".o", ".h"}
    other = [file.name for file in files if file.suffix not in known]
    if len(libraries) != 1 or len(nodes) > 1 or other:
        names = ", ".join(file.name for file in files)
        raise RuntimeError(
            f"AOTInductor made the files {names}; expected one library with everything inside"
        )
    return (
        libraries[0],
        nodes[0].read_bytes() if nodes else b'{"nodes": []}',
        metadata[0].read_bytes() if metadata else b"{}",
    )


@contextmanager
def _finding_libraries(device: str) -> Iterator[None]:
    """Lets AOTInductor find what it links, and the headers of a GPU.

    Raises:
        NoCodeError: instead of whatever went wrong inside, for a GPU: Triton and the toolkit are much that may not fit.
    """
    if device == "cpu":
        with _library_path(kiln.library_directory()):
            yield
        return
    try:
        with cuda_toolkit() as driver, _library_path(kiln.library_directory(), driver):
            yield
    except Exception as error:
        text = str(error).strip().split("\n")[0].replace(": ", " - ")
        raise NoCodeError(
            f"AOTInductor cannot compile for the GPU here ({type(error).__name__} - {text}): see the error that this "
            "one came of"
        ) from error


@contextmanager
def _library_path(*folders: Path) -> Iterator[None]:
    """Lets the linker that AOTInductor calls find libraries in folders; it has no option for that."""
    before = os.environ.get("LIBRARY_PATH")
    os.environ["LIBRARY_PATH"] = ":".join([*map(str, folders), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["LIBRARY_PATH"]
        else:
            os.environ["LIBRARY_PATH"] = before
