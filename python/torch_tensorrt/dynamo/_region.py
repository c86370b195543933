"""Takes a region out of a program as a program of its own, and compiles it into an engine."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node
from torch.utils._sympy.value_ranges import bound_sympy

import kiln
from torch_tensorrt._operator import PART_DTYPES, ResultSpec, engine_tensor, write_spec
from torch_tensorrt._sizes import Operand, SizeProgram
from torch_tensorrt.dynamo._capture import capture_passes
from torch_tensorrt.dynamo._devices import engine_device
from torch_tensorrt.dynamo._engine_cache import BaseEngineCache, DiskEngineCache
from torch_tensorrt.dynamo._layouts import order_taken
from torch_tensorrt.dynamo._partition import tensor_sources
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._ranges import as_constraints, range_bounds, value_range
from torch_tensorrt.dynamo._serialize import serialize, weight_views
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._strides import storage_order
from torch_tensorrt.dynamo._symbols import (
    UNBOUNDED,
    Range,
    SizeNodes,
    SymbolError,
    carrier_operands,
    expression,
    find_carriers,
    free_symbols,
    get_attribute,
    is_symbolic_node,
    linear,
    size_operand,
    tensor_of,
)

logger = logging.getLogger(__name__)


@dataclass
class Region:
    """Nodes for one engine: `inputs` and `outputs` are the tensors that cross its boundary, as nodes of the program.

    `orders` has the dimensions of an output from the outermost in memory to the innermost, where that is not their own
    order: the engine gives them in that.
    `updates` has the outputs that are what an input is to be after the call, which the engine writes to its memory.
    They are the last outputs, and those inputs the last inputs, in its order.
    `data_sizes` has the symbols that the engine finds in its data, with their bounds.
    """

    nodes: list[Node]
    weights: list[Node]
    inputs: list[Node]
    outputs: list[Node]
    orders: dict[Node, tuple[int, ...]] = field(default_factory=dict)
    updates: dict[Node, Node] = field(default_factory=dict)
    data_sizes: dict[sympy.Symbol, tuple[int, int | None]] = field(default_factory=dict)

    def update(self, updates: Mapping[Node, Node]) -> None:
        """Lets the engine change inputs: `updates` has them by the outputs."""
        self.updates = dict(updates)
        changed = list(updates.values())
        self.inputs = [node for node in self.inputs if node not in changed] + changed
        self.outputs = [node for node in self.outputs if node not in updates] + list(updates)

    @property
    def results(self) -> list[Node]:
        """The outputs that the operator gives."""
        return [node for node in self.outputs if node not in self.updates]

    @property
    def spec(self) -> str:
        """The results' dtypes, shapes and orders in memory, for the operator."""
        carriers = find_carriers(
            (index, node.meta["val"]) for index, node in enumerate(self.inputs)
        )
        program = SizeProgram()
        symbols = carrier_operands(carriers, program)
        data_sizes = self._result_sizes(program, symbols)
        results = []
        for node in self.results:
            tensor = node.meta["val"]
            sizes = tuple(
                data_sizes.get(expression(size)) or size_operand(size, program, symbols)
                for size in tensor.shape
            )
            dtype, order = tensor.dtype, self.orders.get(node, ())
            if part := PART_DTYPES.get(dtype):
                dtype, sizes = part, (*sizes, size_operand(2, program, symbols))
                order = order and (*order, tensor.dim())
            results.append(ResultSpec(dtype, sizes, order))
        device = self.outputs[0].meta["val"].device if not self.inputs else None
        return write_spec(program, results, device, [order_taken(node) for node in self.inputs])

    def _result_sizes(
        self, program: SizeProgram, symbols: dict[sympy.Symbol, Operand]
    ) -> dict[sympy.Expr, Operand]:
        """Adds the data sizes that are a size of some result to `symbols`. Whoever traces a call finds a new symbol
        only there, so that a size made of others is a new one, too."""
        sizes = {expression(size): None for node in self.results for size in node.meta["val"].shape}
        for size in sizes:
            if size in self.data_sizes:
                symbols[size] = program.add_data_size(*self.data_sizes[size])
        ranges = {symbol: value_range(*bounds) for symbol, bounds in self.data_sizes.items()}
        made = {}
        for size in sizes:
            if size.free_symbols & (self.data_sizes.keys() - symbols.keys()):
                low, high = range_bounds(bound_sympy(size, ranges))
                made[size] = program.add_data_size(low, None if high >= UNBOUNDED else high)
        return made


def find_region(
    program: Program,
    nodes: Sequence[Node],
    results: Mapping[Node, tuple[int, ...]] | None = None,
) -> Region:
    """Works out what crosses the boundary of a region. SymbolError: a size that cannot be had inside.

    `results` has the outputs and their orders in memory, if they are not to be found.
    """
    inside = set(nodes)
    order = {node: index for index, node in enumerate(program.graph.nodes)}
    used = {
        source
        for node in nodes
        for source in node.all_input_nodes
        if source.op != "get_attr" and not is_symbolic_node(source)
    } - inside
    weights = {node for node in used if program.is_constant(node)}
    inputs = sorted(used - weights, key=order.__getitem__)
    data_sizes, items = _data_sizes(program, nodes)
    inputs += [node for node in items if node not in inside and node not in inputs]
    inputs += _missing_carriers(program, nodes, inputs, data_sizes)
    if results is None:
        results = {
            node: storage_order(node.meta["val"])
            for node in nodes
            if tensor_of(node) is not None and _is_needed_outside(node, inside)
        }
    return Region(
        nodes=list(nodes),
        weights=sorted(weights, key=order.__getitem__),
        inputs=sorted(inputs, key=order.__getitem__),
        outputs=list(results),
        orders={node: order for node, order in results.items() if order},
        data_sizes=data_sizes,
    )


def _is_needed_outside(node: Node, inside: Collection[Node]) -> bool:
    """Whether a tensor of a region crosses its boundary: sizes are read off it where they are used."""
    return any(
        _is_needed_outside(user, inside) if is_symbolic_node(user) else user not in inside
        for user in node.users
    )


def _data_sizes(
    program: Program, nodes: Sequence[Node]
) -> tuple[dict[sympy.Symbol, tuple[int, int | None]], list[Node]]:
    """The symbols that a region finds in its data, and the tensors of which it has the items."""
    inside = set(nodes)
    wanted = free_symbols(size for node in nodes for size in _sizes_of(node))
    constraints = program.exported.range_constraints
    sizes, items = {}, []
    for symbol, finder in program.data_symbols.items():
        if symbol not in wanted:
            continue
        if is_symbolic_node(finder):
            if not _is_item(finder):
                continue
            items.append(finder.args[0])
        elif finder not in inside:
            continue
        bounds = constraints.get(symbol)
        low, high = (0, UNBOUNDED) if bounds is None else range_bounds(bounds)
        sizes[symbol] = low, None if high >= UNBOUNDED else high
    return sizes, items


def _is_item(node: Node) -> bool:
    """Whether a size is what a tensor of one integer holds."""
    if node.target not in (
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.item.default,
    ):
        return False
    tensor = tensor_of(node.args[0])
    return (
        tensor is not None
        and tensor.dtype in _INTEGERS
        and isinstance(node.meta["val"].node.expr, sympy.Symbol)
    )


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _missing_carriers(
    program: Program, nodes: Sequence[Node], inputs: Sequence[Node], found: Collection[sympy.Symbol]
) -> list[Node]:
    """Tensors that become inputs of a region only because sizes are read off them."""
    sizes = [size for node in nodes for size in _sizes_of(node)]
    carried = find_carriers((node, node.meta["val"]) for node in inputs)
    missing = sorted(free_symbols(sizes) - carried.keys() - set(found), key=str)
    sources = [
        source for node in nodes for source in tensor_sources(node) if tensor_of(source) is not None
    ]
    inside = set(nodes)
    candidates = find_carriers((node, node.meta["val"]) for node in sources if node not in inside)
    candidates |= program.size_carriers()
    result: dict[Node, None] = {}
    for symbol in missing:
        if symbol not in candidates:
            raise SymbolError(f"no input has {symbol} as one of its sizes")
        result[candidates[symbol].tensor] = None
    return list(result)


def _sizes_of(node: Node) -> list[object]:
    """Every size that a node mentions: in its results, and in its arguments."""
    value = node.meta.get("val")
    tensors = value if isinstance(value, (list, tuple)) else [value]
    sizes: list[object] = [size for t in tensors if isinstance(t, torch.Tensor) for size in t.shape]
    return sizes + [arg.meta["val"] for arg in node.all_input_nodes if is_symbolic_node(arg)]


def extract(program: Program, region: Region) -> tuple[GraphModule, ExportGraphSignature]:
    """Copies a region into a graph of its own, with weights as inputs, as torch.export has them."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    input_specs = []
    weights = set(region.weights)
    for node in (*region.weights, *region.inputs):
        copies[node] = graph.placeholder(node.name)
        copies[node].meta["val"] = node.meta["val"]
        argument = TensorArgument(name=copies[node].name)
        if node in weights:
            spec = program.input_spec(node)
            input_specs.append(InputSpec(spec.kind, argument, spec.target, spec.persistent))
        else:
            input_specs.append(InputSpec(InputKind.USER_INPUT, argument, None))
    sizes = SizeNodes(
        graph, find_carriers((copies[node], node.meta["val"]) for node in region.inputs)
    )

    root = torch.nn.Module()
    items = {
        finder.args[0]: (symbol, finder.meta["val"])
        for symbol, finder in program.data_symbols.items()
        if symbol in region.data_sizes and is_symbolic_node(finder)
    }

    def add_sizes(node: Node) -> None:
        """What is known of sizes once a node is copied."""
        sizes.add_carriers(copies[node], region.data_sizes)
        if node in items:
            symbol, value = items[node]
            sizes.add_item(symbol, copies[node], value)

    for node in region.inputs:
        add_sizes(node)

    def transform(node: Node) -> Node | int:
        if node.op == "get_attr" and node not in copies:  # the graph of a branch or a loop
            setattr(root, str(node.target), get_attribute(program.module, str(node.target)))
            copies[node] = graph.get_attr(str(node.target))
        return sizes.node_for(node.meta["val"]) if is_symbolic_node(node) else copies[node]

    for node in region.nodes:
        copies[node] = graph.node_copy(node, transform)  # type: ignore[arg-type] - an integer is a valid argument
        copies[node].meta = {
            key: node.meta[key] for key in ("val", "stack_trace") if key in node.meta
        }
        add_sizes(node)
    results = [
        _in_order(copies[node], region.orders[node]) if node in region.orders else copies[node]
        for node in region.outputs
    ]
    graph.output(tuple(results))
    output_specs = [
        OutputSpec(OutputKind.USER_INPUT_MUTATION, TensorArgument(copy.name), copies[source].name)
        if (source := region.updates.get(node)) is not None
        else OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(copy.name), None)
        for node, copy in zip(region.outputs, results, strict=True)
    ]
    return GraphModule(root, graph), ExportGraphSignature(input_specs, output_specs)


def _in_order(node: Node, order: tuple[int, ...]) -> Node:
    """The dimensions of a result as they are to lie in memory."""
    target = torch.ops.aten.permute.default
    result = node.graph.create_node(
        "call_function", target, (node, list(order)), name=f"{node.name}_in_memory"
    )
    result.meta["val"] = node.meta["val"].permute(order)
    return result


def region_model(
    program: Program,
    region: Region,
    ranges: Mapping[sympy.Symbol, Range] | None = None,
    binding_names: Mapping[str, str] | None = None,
) -> tuple[kiln.Model, list[str]]:
    """A region for the compiler, and the names of its inputs. Raises kiln.KilnError.

    `ranges` are those of the symbols, the program's own when None.
    `binding_names` has other names for inputs and outputs; those of their nodes occur nowhere else in the program.
    """
    module, signature = extract(program, region)
    symbols = free_symbols(size for node in region.inputs for size in node.meta["val"].shape)
    symbols |= region.data_sizes.keys()
    constraints = {
        key: value for key, value in as_constraints(program, ranges or {}).items() if key in symbols
    }
    names = [
        (binding_names or {}).get(argument.arg.name, argument.arg.name)
        for argument in signature.input_specs
        if argument.kind is InputKind.USER_INPUT
    ]
    serialized = serialize(
        module, signature, constraints, program.records, _guards(program, region, names)
    )
    weights = weight_views((program.lifted[node], program.weight(node)) for node in region.weights)
    text = serialized.json
    for old, new in (binding_names or {}).items():
        text = text.replace(json.dumps(old).encode(), json.dumps(new).encode())
    return kiln.Model.from_memory(text, weights), names


def _guards(program: Program, region: Region, names: Sequence[str]) -> list[str]:
    """What the program relies on of sizes, as far as they are those of a region's inputs."""
    name_of = dict(zip(region.inputs, names, strict=True))
    known = {
        index: name_of[node] for index, node in enumerate(program.user_inputs) if node in name_of
    }
    return [
        condition.write(lambda index, dim: f"L[{known[index]!r}].size()[{dim}]")
        for condition in (*program.guards, *program.assertions)
        if all(index in known for index, _ in condition.sizes())
    ]


def compile_region(
    program: Program,
    region: Region,
    ranges: Mapping[sympy.Symbol, Range],
    settings: CompilationSettings,
    progress: Callable[[str, float], None] | None = None,
    binding_names: Mapping[str, str] | None = None,
) -> torch.Tensor:
    """Compiles a region, or takes it from the cache; the result is the engine's bytes. Raises kiln.KilnError."""
    model, names = region_model(program, region, ranges, binding_names)
    targets = settings.targets_for(engine_device(program.graph))
    engine = _build_engine(
        model,
        settings,
        progress,
        ranges=_input_ranges(names, region.inputs, ranges),
        strip_weights=settings.strip_engine_weights,
        refittable=not settings.immutable_weights,
        emulate_precision_casts=settings.emulate_precision_casts,
        metadata=region_metadata(program, region, settings),
        check_bounds=settings.check_bounds,
        disabled_passes=("choose_winograd",) if settings.disable_winograd else (),
        targets=targets,
        tf32=settings.tf32_for(targets),
        tuning=settings.tuning_for(targets),
    )
    return engine_tensor(engine)


def _build_engine(
    model: kiln.Model,
    settings: CompilationSettings,
    progress: Callable[[str, float], None] | None = None,
    **options: Any,
) -> memoryview | bytes:
    """Compiles a model, or takes its engine from the cache that the settings name. A cache that does not work gives
    a warning and never an error.

    Args:
        model: what to compile.
        options: of `kiln.compile`, those that decide the engine.

    Raises:
        kiln.KilnError: the model cannot be compiled.
    """
    read, write = settings.reuse_cached_engines, settings.cache_built_engines
    cache = settings.custom_engine_cache
    if cache is not None and type(cache) is not DiskEngineCache and (read or write):
        return _build_with_custom_cache(model, settings, progress, options)
    disk = None
    if read or write:
        source = cache or DiskEngineCache(settings.engine_cache_dir, settings.engine_cache_size)
        disk = kiln.EngineCache(source.engine_cache_dir, source.engine_cache_size, read, write)
    engine = _run_compiler(model, progress, disk, options)
    if disk is not None:
        if disk.problem:
            _warn_once(f"engine cache: {disk.problem}")
        logger.info("engine cache %s: %s", disk.directory, disk.result.replace("_", " "))
    return engine


@functools.cache
def _warn_once(problem: str) -> None:
    """One warning for each thing that does not work, not one per engine of a model."""
    logger.warning("%s", problem)


def _run_compiler(
    model: kiln.Model,
    progress: Callable[[str, float], None] | None,
    cache: kiln.EngineCache | None,
    options: dict[str, Any],
) -> memoryview:
    with capture_passes() as folder:  # the compiler takes nothing from a cache when it dumps
        engine = kiln.compile(
            model, progress=progress, cache=cache, dump_directory=folder, **options
        )
    assert engine is not None
    if (tuning := options.get("tuning")) is not None:
        for problem in tuning.problems:
            _warn_once(f"tuning: {problem}")
    return engine


def _build_with_custom_cache(
    model: kiln.Model,
    settings: CompilationSettings,
    progress: Callable[[str, float], None] | None,
    options: dict[str, Any],
) -> memoryview | bytes:
    cache = settings.custom_engine_cache
    key = kiln.compile_key(model, **options)
    if settings.reuse_cached_engines and (found := _load_checked(cache, key)) is not None:
        logger.info("engine cache: hit for %s", key)
        return found
    engine = _run_compiler(model, progress, None, options)
    if settings.cache_built_engines:
        try:
            cache.save(key, bytes(engine))
        except Exception as error:  # of the user's: compiling must not fail because of it
            logger.warning("engine cache: %s could not save: %r", type(cache).__name__, error)
    return engine


def _load_checked(cache: BaseEngineCache, key: str) -> bytes | None:
    """An engine of the user's cache that can be used: every byte of it is checked."""
    try:
        blob = cache.load(key)
        if blob is not None and (damage := kiln.verify(blob)):
            raise kiln.InvalidEngineError("; ".join(map(str, damage)))
        return blob
    except Exception as error:
        logger.warning("engine cache: %s could not load: %r", type(cache).__name__, error)
        return None


def region_metadata(program: Program, region: Region, settings: CompilationSettings) -> str:
    """What an engine keeps about where it comes from: the names of its nodes, by which a refit finds them again, and
    those of its results with their orders in memory; whether they are those of the export; what was to stay in
    PyTorch, and in the model's precision."""
    metadata: dict[str, Any] = {
        "nodes": [node.name for node in region.nodes],
        "results": {node.name: region.orders.get(node, ()) for node in region.outputs},
    }
    if not program.is_retraced:
        metadata["as_exported"] = True
    if region.updates:
        metadata["updates"] = {node.name: source.name for node, source in region.updates.items()}
    if settings.torch_executed_ops:
        metadata["torch_executed_ops"] = sorted(map(str, settings.torch_executed_ops))
    if settings.autocast_decisions:
        metadata["autocast"] = settings.autocast_decisions.as_metadata()
    return json.dumps(metadata, separators=(",", ":"))


def _input_ranges(
    names: Sequence[str], inputs: Sequence[Node], ranges: Mapping[sympy.Symbol, Range]
) -> list[kiln.InputRange]:
    """Of every size that is a symbol; of a symbol that no input has alone, of the size that it is read off."""
    carriers = find_carriers((index, node.meta["val"]) for index, node in enumerate(inputs))
    result = []
    for index, (name, node) in enumerate(zip(names, inputs, strict=True)):
        for dim, size in enumerate(node.meta["val"].shape):
            found = linear(size) if isinstance(size, torch.SymInt) else None
            if found is None or found.symbol not in ranges:
                continue
            carrier = carriers[found.symbol]
            if found.is_plain or (carrier.tensor, carrier.dim) == (index, dim):
                r = ranges[found.symbol]
                result.append(kiln.InputRange(name, dim, *map(found.size, (r.min, r.opt, r.max))))
    return result
