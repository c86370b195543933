"""Loads the operators `kiln::execute_engine` and `kiln::execute_engine_in_place`, and teaches PyTorch the shapes of
their results.

Every call of the operator carries a `spec`: the dtypes and shapes of its results as text, for tracing. It reads

    f32[i0_0,16]
    mul i0_0 2,max i1_1 4|f32[i0_0,16];i64[#0,#1]{1,0}

with one entry per result, whose sizes are operands of a size program (`_sizes.py`); its instructions come first if
there are any. `{0,2,3,1}` after the sizes are the dimensions in the order in which they lie in memory, the innermost
last, for results that are not row-major: the engine gives them in that order. `<;{0,2,3,1}` behind the results has the
same for inputs, up to the last one that the engine takes in another order; its sizes are then in that order, too. A
spec that ends in `@cuda:0` says where an engine without inputs runs; others run where their inputs are. A spec has no
quotes or backslashes, so every exporter can carry it.
"""

from __future__ import annotations

import ctypes
import functools
import re
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, Node

import kiln
from torch_tensorrt._sizes import Operand, SizeProgram, size_name

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "bool",
    torch.float8_e4m3fn: "f8e4m3",
}
# Engines have a complex tensor as its parts along a last dimension of size 2, as torch.view_as_real gives it.
PART_DTYPES = {torch.complex64: torch.float32, torch.complex128: torch.float64}
DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def is_engine_dtype(dtype: torch.dtype) -> bool:
    """Whether engines compute with tensors of a dtype."""
    return dtype in DTYPE_NAMES or dtype in PART_DTYPES


_ENTRY = re.compile(r"([a-z0-9]+)\[([^\]]*)\](?:\{([0-9,]+)\})?")


def _load() -> ctypes.CDLL:
    path = kiln.library_directory() / "libkiln_torch.so"
    if not path.is_file():
        raise ImportError(f"{path} does not exist: was Kiln built with KILN_BUILD_TORCH=OFF?")
    torch.ops.load_library(str(path))
    library = ctypes.CDLL(str(path))
    for function in (library.kiln_torch_hold_engine, library.kiln_torch_release_engine):
        function.argtypes, function.restype = [ctypes.c_void_p], None
    return library


_library = _load()
execute_engine = torch.ops.kiln.execute_engine.default
# Changes its `state`, the last inputs of an engine, in place: execute_engine_in_place(inputs, state, engine, spec).
execute_engine_in_place = torch.ops.kiln.execute_engine_in_place.default


@dataclass(frozen=True)
class EngineCall:
    """What a node of a graph hands to an engine."""

    inputs: list[Any]  # all of them
    state: list[Any]  # the last of them, which are changed
    engine: Any
    spec: str


def is_engine_call(node: Node) -> bool:
    return node.op == "call_function" and node.target in (execute_engine, execute_engine_in_place)


def engine_call(node: Node) -> EngineCall:
    """The arguments of a node that is an engine's call."""
    if node.target is execute_engine:
        inputs, engine, spec = node.args
        return EngineCall(list(inputs), [], engine, spec)
    inputs, state, engine, spec = node.args
    return EngineCall([*inputs, *state], list(state), engine, spec)


def engine_calls(graph: Graph) -> list[Node]:
    """The nodes of a graph that run engines, in order."""
    return [node for node in graph.nodes if is_engine_call(node)]


def engine_tensor(engine: bytes | bytearray | memoryview) -> torch.Tensor:
    """The bytes of an engine as the operator takes them: in memory of PyTorch's, which is aligned to the 64 bytes that
    weights need to be used where they are."""
    source = np.frombuffer(engine, dtype=np.uint8)
    tensor = torch.empty(source.size, dtype=torch.uint8)
    tensor.numpy()[:] = source
    return tensor


def engine_array(engine: torch.Tensor) -> np.ndarray:
    """The bytes of an engine's tensor, for `kiln`: not copied unless `.cuda()` has moved them."""
    return engine.detach().cpu().contiguous().numpy()


# What lets go of an engine, by its holder and address.
_holds: dict[tuple[int, int], weakref.finalize] = {}


def hold(module: torch.nn.Module, engine: torch.Tensor) -> None:
    """Keeps what the operator loads from an engine for as long as a module that has it lives."""
    key = id(module), engine.data_ptr()
    if key not in _holds:
        _library.kiln_torch_hold_engine(key[1])
        _holds[key] = weakref.finalize(module, _let_go, key)
        _holds[key].atexit = False


def is_engine_name(name: str) -> bool:
    """Whether a buffer of a module that was compiled is an engine, by its name."""
    return name.rpartition(".")[2].startswith("engine_")


def hold_engines(module: torch.nn.Module) -> None:
    """`hold` for all engines of a module."""
    for name, buffer in module.named_buffers():
        if is_engine_name(name):
            hold(module, buffer)


def release(module: torch.nn.Module, engine: torch.Tensor) -> None:
    """Ends what `hold` began before the module does: the operator forgets the engine unless another module has it."""
    if finalizer := _holds.get((id(module), engine.data_ptr())):
        finalizer()


def _let_go(key: tuple[int, int]) -> None:
    del _holds[key]
    _library.kiln_torch_release_engine(key[1])


@dataclass(frozen=True)
class ResultSpec:
    """A result of an engine: its sizes are operands of the spec's size program."""

    dtype: torch.dtype
    sizes: tuple[Operand, ...]
    order: tuple[int, ...] = ()  # of the dimensions in memory; empty: row-major


def write_spec(
    program: SizeProgram,
    results: Iterable[ResultSpec],
    device: torch.device | None = None,
    input_orders: Sequence[tuple[int, ...]] = (),
) -> str:
    """The spec of an engine with these results; `device` is for one without inputs, `input_orders` has the orders in
    which inputs lie, () for row-major ones."""
    entries = [
        f"{DTYPE_NAMES[result.dtype]}[{','.join(map(str, result.sizes))}]{_order_text(result.order)}"
        for result in results
    ]
    inputs = ";".join(map(_order_text, input_orders)).rstrip(";")
    suffix = f"@{device}" if device is not None and device.type != "cpu" else ""
    text = "|".join(filter(None, [",".join(program.instructions), ";".join(entries)]))
    return text + (f"<{inputs}" if inputs else "") + suffix


def _order_text(order: tuple[int, ...]) -> str:
    return f"{{{','.join(map(str, order))}}}" if order else ""


@functools.lru_cache(maxsize=1024)
def _parse_spec(spec: str) -> tuple[SizeProgram, list[ResultSpec]]:
    text = spec.partition("@")[0].partition("<")[0]
    instructions, _, entries = text.rpartition("|")
    try:
        program = SizeProgram(instructions.split(",") if instructions else ())
        results = [_parse_entry(program, entry) for entry in entries.split(";") if text]
    except ValueError as error:
        raise ValueError(f"[execute_engine] the spec {spec!r}: {error}") from error
    return program, results


def _parse_entry(program: SizeProgram, entry: str) -> ResultSpec:
    match = _ENTRY.fullmatch(entry)
    if match is None or match[1] not in DTYPES:
        raise ValueError(
            f"got the result {entry!r}, expected dtype[size,size,...] and an order such as {{1,0}} if it is not "
            "row-major"
        )
    sizes = tuple(program.operand(text) for text in match[2].split(",") if match[2])
    order = tuple(int(dim) for dim in (match[3] or "").split(",") if dim)
    if order and sorted(order) != list(range(len(sizes))):
        raise ValueError(f"got the order {match[3]}, expected every dimension of [{match[2]}] once")
    return ResultSpec(DTYPES[match[1]], sizes, order)


def layouts_of(spec: str) -> str:
    """The orders in a spec alone, such as "{1,0};" for two results, "<{1,0}" for an input; "" if all are row-major."""
    results, at, inputs = spec.partition("@")[0].partition("<")
    orders = [entry[entry.find("]") + 1 :] for entry in results.rpartition("|")[2].split(";")]
    return (";".join(orders) if any(orders) else "") + at + inputs


@functools.lru_cache(maxsize=1024)
def _input_orders(spec: str) -> list[tuple[int, ...]]:
    text = spec.partition("@")[0].partition("<")[2]
    orders = [tuple(int(dim) for dim in entry[1:-1].split(",") if dim) for entry in text.split(";")]
    if any(sorted(order) != list(range(len(order))) for order in orders):
        raise ValueError(f"[execute_engine] the spec {spec!r}: got the orders {text}")
    return orders


def _shapes_taken(inputs: Sequence[torch.Tensor], spec: str) -> list[Sequence[Any]]:
    """The shapes of inputs as an engine takes them."""
    shapes: list[Sequence[Any]] = [tensor.shape for tensor in inputs]
    for index, order in enumerate(_input_orders(spec)):
        if order and index < len(shapes):
            if len(order) != len(shapes[index]):
                raise ValueError(
                    f"[execute_engine] got an input of {len(shapes[index])} dimensions, expected {len(order)}"
                )
            shapes[index] = [shapes[index][dim] for dim in order]
    return shapes


@torch.library.register_fake("kiln::execute_engine_in_place")
def _execute_engine_in_place_fake(
    inputs: list[torch.Tensor], state: list[torch.Tensor], engine: torch.Tensor, spec: str
) -> list[torch.Tensor]:
    return _execute_engine_fake([*inputs, *state], engine, spec)


@torch.library.register_fake("kiln::execute_engine")
def _execute_engine_fake(
    inputs: list[torch.Tensor], engine: torch.Tensor, spec: str
) -> list[torch.Tensor]:
    sizes = {
        size_name(index, dim): size
        for index, shape in enumerate(_shapes_taken(inputs, spec))
        for dim, size in enumerate(shape)
    }
    program, results = _parse_spec(spec)
    try:
        # All at once: a size that the data decides is the same wherever it is.
        values = iter(program.evaluate([size for each in results for size in each.sizes], sizes))
        shapes = [[next(values) for _ in result.sizes] for result in results]
    except KeyError as error:
        raise ValueError(f"[execute_engine] the inputs lack the size {error} of the spec") from None
    if any(size is None for shape in shapes for size in shape):
        raise ValueError("[execute_engine] a size overflows or divides by zero for these inputs")
    device = _device_of_call(inputs, engine, spec)
    return [
        _new_empty(engine, device, shape, result)
        for result, shape in zip(results, shapes, strict=True)
    ]


# Kept for as long as the process lives: what it registered goes with it.
_operators = torch.library.Library("kiln", "IMPL")


def _functional_call(
    inputs: list[torch.Tensor], state: list[torch.Tensor], engine: torch.Tensor, spec: str
) -> list[torch.Tensor]:
    """What PyTorch makes functional (`run_decompositions`, torch.compile) gets the operator without changes in place:
    the engine then gives what its state is to be as results too."""
    everything = [*inputs, *state]
    text, at, device = spec.partition("@")
    results_text, less, orders = text.partition("<")
    entries = [
        f"{DTYPE_NAMES[tensor.dtype]}[{','.join(size_name(index, dim) for dim in range(tensor.dim()))}]"
        for index, tensor in enumerate(everything)
        if index >= len(inputs)
    ]
    whole = ";".join(filter(None, [results_text, *entries])) + less + orders + at + device
    without = torch._C.DispatchKeySet(torch._C.DispatchKey.Functionalize)
    with torch._C._ExcludeDispatchKeyGuard(without):
        results = execute_engine([_plain(each) for each in everything], _plain(engine), whole)
    first = len(results) - len(state)
    for old, new in zip(state, results[first:], strict=True):
        torch._functionalize_replace(old, new)
        torch._functionalize_commit_update(old)
        torch._sync(old)
    return [torch._to_functional_tensor(result) for result in results[:first]]


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    if not torch._is_functional_tensor(tensor):
        return tensor
    torch._sync(tensor)
    return torch._from_functional_tensor(tensor)


_operators.impl("execute_engine_in_place", _functional_call, "Functionalize")


def _device_of_call(inputs: list[torch.Tensor], engine: torch.Tensor, spec: str) -> torch.device:
    """Where an engine runs and its results lie; its bytes may be elsewhere. As src/torch/operator.cpp has it."""
    for tensor in inputs:
        if tensor.device.type == "cuda":
            return tensor.device
    if inputs:
        return inputs[0].device
    _, _, device = spec.partition("@")
    return torch.device(device) if device and engine.device.type == "cpu" else engine.device


def _new_empty(
    like: torch.Tensor, device: torch.device, shape: Sequence[Any], result: ResultSpec
) -> torch.Tensor:
    order = result.order
    if not order:
        return like.new_empty(shape, dtype=result.dtype, device=device)
    stored = like.new_empty([shape[dim] for dim in order], dtype=result.dtype).stride()
    strides = [stored[order.index(dim)] for dim in range(len(order))]
    return like.new_empty_strided(shape, strides, dtype=result.dtype, device=device)
