"""An exported program as what the container of a package runs: engines, operators of PyTorch, results.

The text is that of src/torch/aoti/program.h.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    SymIntArgument,
    TensorArgument,
)
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils import _pytree as pytree
from torch.utils._sympy.symbol import SymT, symbol_is_type

from torch_tensorrt._operator import (
    DTYPE_NAMES,
    engine_call,
    engine_calls,
    is_engine_call,
    layouts_of,
)
from torch_tensorrt._sizes import Operand, SizeProgram, size_name
from torch_tensorrt.dynamo._contract import (
    Condition,
    asserted,
    asserted_conditions,
    guard_conditions,
    message,
    ranges_of,
    symbol_sizes,
)
from torch_tensorrt.dynamo._names import argument_names
from torch_tensorrt.dynamo._program import MUTATIONS
from torch_tensorrt.dynamo._strides import is_view
from torch_tensorrt.dynamo._symbols import (
    UNBOUNDED,
    Range,
    SymbolError,
    expression,
    free_symbols,
    is_symbolic_node,
    size_operand,
)
from torch_tensorrt.formats.aoti.extern import READS_DTYPES, UnsupportedNodeError, extern_node

_ENGINE_FILE = "engine_{}.kiln"
COMPILED_FILE = "model.so.1"  # not *.so: the loader takes such a file for the package's own library


@dataclass
class Interface:
    """The inputs of a program: what every package checks before it runs."""

    lines: list[str]
    sizes: SizeProgram
    symbols: dict[sympy.Symbol, Operand]  # that sizes of the inputs tell
    slots: dict[str, int]  # number of the value, by name of the placeholder

    def size(self, size: Any) -> Operand:
        """A size in the size program. Raises SymbolError for one that is not made of the inputs' sizes."""
        for symbol in expression(size).free_symbols - self.symbols.keys():
            unbacked = symbol_is_type(symbol, (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT))
            reason = "depends on the values of a tensor" if unbacked else "is of no input"
            raise SymbolError(f"the size {symbol} {reason}")
        return size_operand(size, self.sizes, self.symbols)

    def size_lines(self) -> list[str]:
        return [f"size {instruction}" for instruction in self.sizes.instructions]


@dataclass
class PackageProgram:
    """What a package holds: its text, and the tensors that it names."""

    lines: list[str]
    engines: list[torch.Tensor] = field(default_factory=list)
    constants: list[torch.Tensor] = field(default_factory=list)
    extern_nodes: list[dict[str, Any]] = field(default_factory=list)
    device: str = "cpu"  # or "cuda"
    only_views: bool = True  # whether no extern node computes anything
    # What the container cannot run, with the reason.
    unsupported: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> bytes:
        return ("\n".join(self.lines) + "\n").encode()

    @property
    def extern_json(self) -> bytes:
        return json.dumps({"nodes": self.extern_nodes}).encode()


def engine_file(index: int) -> str:
    return _ENGINE_FILE.format(index)


def header(exported: ExportedProgram, device: str) -> list[str]:
    spec = exported.call_spec
    return [
        "kiln-program 1",
        f"in_spec {pytree.treespec_dumps(spec.in_spec)}",
        f"out_spec {pytree.treespec_dumps(spec.out_spec)}",
        *([] if device == "cpu" else [f"device {device}"]),
    ]


def describe_inputs(exported: ExportedProgram, *, with_strides: bool) -> Interface:
    """The lines of the inputs. Inputs that are not tensors are left out, as AOTInductor's loader does.

    Raises:
        ValueError: an input that a package cannot have; the text says which.
    """
    placeholders = {node.name: node for node in exported.graph.find_nodes(op="placeholder")}
    tensors: list[tuple[str, torch.Tensor]] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            value = placeholders[spec.arg.name].meta.get("val")
            _check_input(spec.arg, value)
            if isinstance(value, torch.Tensor):
                tensors.append((spec.arg.name, value))
    ranges = ranges_of(exported.range_constraints)
    sizes = symbol_sizes([tensor.shape for _, tensor in tensors], ranges)
    program = SizeProgram()
    symbols = {symbol: Condition(text).add_to(program) for symbol, text in sizes.names.items()}
    slots = {name: index for index, (name, _) in enumerate(tensors)}
    interface = Interface([], program, symbols, slots)
    for index, (name, tensor) in enumerate(tensors):
        dims = [
            _describe_dim(size, size_name(index, dim), exported, interface)
            for dim, size in enumerate(tensor.shape)
        ]
        words = ["input", name, DTYPE_NAMES[tensor.dtype], *dims]
        if with_strides:
            words += ["strides", *map(interface.size, tensor.stride())]
        interface.lines.append(" ".join(map(str, words)))
    said = asserted(exported.graph, sizes.names.keys()).values()
    conditions = [*sizes.bounds, *asserted_conditions(said, sizes.names)]
    interface.lines += _checks(exported, conditions, interface)
    return interface


def _checks(
    exported: ExportedProgram, conditions: Sequence[Condition], interface: Interface
) -> list[str]:
    """Lines for what the sizes of the inputs have to do with each other, besides what the lines of the inputs say."""
    slots = interface.slots
    names = list(slots)
    conditions = list(conditions)
    user_inputs = [
        spec.arg.name if isinstance(spec.arg, TensorArgument) else None
        for spec in exported.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    ]
    guards = guard_conditions(
        getattr(exported, "_guards_code", ()),
        exported.call_spec.in_spec,
        argument_names(exported),
    )
    for condition in guards:
        inputs = {user_inputs[index] for index, _ in condition.sizes()}
        if not inputs <= slots.keys():
            continue  # of something that is not a tensor
        moved = Condition(
            condition.write(lambda index, dim: size_name(slots[str(user_inputs[index])], dim))
        )
        conditions.append(moved)
    lines = [
        f"check {condition.add_to(interface.sizes)} {message(condition, names)}"
        for condition in conditions
    ]
    return list(dict.fromkeys(lines))


def _check_input(argument: Any, value: Any) -> None:
    name = argument.name
    if isinstance(argument, SymIntArgument):
        raise ValueError(
            f"input {name!r} is an integer that may vary, but packages of AOTInductor take tensors only: pass it as a "
            "tensor, or as a constant when the model is exported"
        )
    if isinstance(argument, ConstantArgument):
        return
    if not isinstance(argument, TensorArgument) or not isinstance(value, torch.Tensor):
        raise ValueError(
            f"input {name!r} is a {type(value).__name__}, but packages of AOTInductor take tensors only"
        )
    if value.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"input {name!r} is on {value.device}, but packages are for the CPU or an NVIDIA GPU: export it there"
        )
    if value.dtype not in DTYPE_NAMES:
        raise ValueError(
            f"input {name!r} has dtype {value.dtype}, expected one of {', '.join(map(str, DTYPE_NAMES))}"
        )


def _describe_dim(size: Any, name: str, exported: ExportedProgram, interface: Interface) -> str:
    if isinstance(size, int):
        return str(size)
    expr = expression(size)
    if interface.symbols.get(expr) != name:
        try:
            return f"={interface.size(size)}"
        except SymbolError:
            return "0.."  # of symbols that no size of an input tells
    bounds = ranges_of(exported.range_constraints).get(expr, Range(0, 0, UNBOUNDED))
    return f"{bounds.min}..{bounds.max if bounds.max < UNBOUNDED else ''}"


def package_device(exported: ExportedProgram) -> str:
    """Where a program runs: "cuda" if any of its tensors is on a GPU, else "cpu"."""
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, torch.Tensor) and each.device.type == "cuda":
                return "cuda"
    return "cpu"


def build_program(exported: ExportedProgram) -> PackageProgram:
    """Lowers a decomposed program. What the container cannot run is in `unsupported`."""
    return _Builder(exported).build()


class _Builder:
    def __init__(self, exported: ExportedProgram) -> None:
        self._exported = exported
        self._interface = describe_inputs(exported, with_strides=False)
        device = package_device(exported)
        self._result = PackageProgram(header(exported, device), device=device)
        self._calls: list[str] = []
        self._has_dtypes = False
        self._lifted = {
            spec.arg.name: str(spec.target)
            for spec in exported.graph_signature.input_specs
            if spec.kind is not InputKind.USER_INPUT
        }
        self._engine_of: dict[str, int] = {}
        self._engine_sizes: set[sympy.Symbol] = set()  # that depend on data, of engines' results
        self._states = {
            node for call in engine_calls(exported.graph) for node in engine_call(call).state
        }
        self._slots: dict[Node, int | list[int]] = {}
        self._constant_lines: list[str] = []
        self._changes: list[str] = []
        self._end_of_constants = 0

    def build(self) -> PackageProgram:
        nodes = list(self._exported.graph.nodes)
        self._add_constants(nodes)
        self._next = len(self._interface.slots) + len(self._constant_lines)
        for node in nodes:
            if node.op in ("call_function", "get_attr") and not is_symbolic_node(node):
                try:
                    self._add(node)
                except (UnsupportedNodeError, SymbolError) as error:
                    self._result.unsupported[f"{node.name} ({node.target})"] = str(error)
                    self._slots[node] = []
        results = self._results(nodes[-1])
        engines = [f"engine {engine_file(index)}" for index in range(len(self._result.engines))]
        if self._has_dtypes:
            self._result.lines.append("needs_torch {} {}".format(*READS_DTYPES))
        self._result.lines += [*self._interface.size_lines(), *self._interface.lines]
        self._result.lines += [*self._changes, *self._constant_lines, *engines]
        self._result.lines += [*self._calls, *results]
        return self._result

    def _tensor(self, name: str) -> Any:
        target = self._lifted[name]
        state = self._exported.state_dict
        return state[target] if target in state else self._exported.constants[target]

    def _add_constants(self, nodes: Iterable[Node]) -> None:
        """Weights that are used outside engines, or are results."""
        for node in nodes:
            if node.op != "placeholder":
                continue
            users = [user for user in node.users if not is_engine_call(user)]
            if node.name not in self._lifted:
                if node.name in self._interface.slots:
                    self._slots[node] = self._interface.slots[node.name]
                    if node in self._states:
                        self._changes.append(f"changes {self._slots[node]}")
            elif users or any(node in engine_call(user).inputs for user in node.users):
                self._add_constant(node)

    def _add_constant(self, node: Node) -> None:
        tensor = self._tensor(node.name)
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in DTYPE_NAMES:
            kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            self._result.unsupported[node.name] = f"a constant of {kind}"
            self._slots[node] = []
            return
        memory = _memory_of(tensor)
        offset = -(-self._end_of_constants // 64) * 64
        self._end_of_constants = offset + memory.nbytes
        self._slots[node] = len(self._interface.slots) + len(self._constant_lines)
        is_on_host = tensor.device.type == "cpu" and self._result.device != "cpu"
        word = "host_constant" if is_on_host else "constant"
        if node in self._states:
            word = "state"
        words = [word, DTYPE_NAMES[tensor.dtype], offset, *tensor.shape]
        if not tensor.is_contiguous():
            words += ["strides", *tensor.stride()]
        self._constant_lines.append(" ".join(map(str, words)))
        self._result.constants.append(memory)

    def _add(self, node: Node) -> None:
        if is_engine_call(node):
            self._add_engine_call(node)
        elif node.target is operator.getitem:
            source, index = node.args
            found = self._slots[source]
            self._slots[node] = found[index] if isinstance(found, list) and found else []
        elif _is_settled_check(node, set(self._interface.symbols), self._engine_sizes):
            pass  # the container checks its inputs, and an engine what it finds in its data
        else:
            self._add_operator(node)

    def _add_engine_call(self, node: Node) -> None:
        call = engine_call(node)
        engine = call.engine
        if engine.name not in self._lifted:
            raise UnsupportedNodeError("its engine is not a constant")
        self._engine_sizes |= free_symbols(size for each in node.meta["val"] for size in each.shape)
        index = self._engine_of.setdefault(engine.name, len(self._result.engines))
        if index == len(self._result.engines):
            self._result.engines.append(self._tensor(engine.name))
        count = len(node.meta["val"])
        words = ["states", len(call.state)] if call.state else []
        layouts = layouts_of(call.spec)
        words += ["layouts", layouts] if layouts else []
        inputs = map(self._slot, call.inputs)
        self._call(["run_engine", index, "inputs", *inputs], node, count, words)

    def _add_operator(self, node: Node) -> None:
        extern = extern_node(node, self._interface.size)
        index = len(self._result.extern_nodes)
        words = ["run_aten", extern.target, index, "ints", *extern.ints, "inputs"]
        self._call([*words, *map(self._slot, extern.inputs)], node, extern.num_results)
        if not extern.is_list:
            self._slots[node] = self._slots[node][0]
        self._result.extern_nodes.append(extern.json)
        self._result.only_views &= is_view(node)
        self._has_dtypes |= extern.has_dtype

    def _call(self, words: list[Any], node: Node, count: int, after: Sequence[str] = ()) -> None:
        self._slots[node] = list(range(self._next, self._next + count))
        self._next += count
        self._calls.append(" ".join(map(str, [*words, "results", count, *after])))

    def _slot(self, node: Node) -> int:
        found = self._slots.get(node)
        if not isinstance(found, int):
            raise UnsupportedNodeError(f"its input {node.name} is not there")
        return found

    def _results(self, output: Node) -> list[str]:
        lines = []
        specs = self._exported.graph_signature.output_specs
        for value, spec in zip(output.args[0], specs, strict=True):
            if spec.kind in MUTATIONS:
                self._result.unsupported[f"{value} (changes {spec.target} in place)"] = (
                    "calls without compiled code keep no state"
                )
            elif value is None:
                lines.append("result none")
            elif isinstance(value, Node) and isinstance(value.meta.get("val"), torch.Tensor):
                found = self._slots.get(value)
                lines.append(f"result {found if isinstance(found, int) else 'none'}")
            else:
                raise ValueError(
                    f"a result of the model is {value}, but packages of AOTInductor give tensors only: leave it out, "
                    "or make it a tensor"
                )
        return lines


def _memory_of(tensor: torch.Tensor) -> torch.Tensor:
    """The memory from a tensor's first element to its last, as a row."""
    if tensor.is_contiguous():
        return tensor.detach().reshape(-1)
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tensor.detach().as_strided((last + 1,), (1,))


def _is_settled_check(
    node: Node, symbols: set[sympy.Symbol], engine_sizes: set[sympy.Symbol]
) -> bool:
    """Whether a node asserts what is known already: metadata, a relation of the inputs' sizes, or the range of a size
    that an engine finds in its data."""
    if node.target is torch.ops.aten._assert_tensor_metadata.default:
        return True
    if node.target is not torch.ops.aten._assert_scalar.default:
        return False
    condition = node.args[0]
    value = condition.meta.get("val") if isinstance(condition, Node) else condition
    used = free_symbols([value])
    if used <= symbols:
        return True
    return used <= symbols | engine_sizes and statically_known_true(value)
