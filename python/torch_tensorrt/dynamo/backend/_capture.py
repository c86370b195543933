"""From the graph that torch.compile captured to one that can be compiled: functional ATen, as torch.export makes it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch._functorch._aot_autograd.schemas import OutputType
from torch._guards import TracingContext, detect_fake_mode
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.exported_program import (
    _override_composite_implicit_decomp,
    _split_decomp_table_to_cia_and_python_decomp,
)
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    SymIntArgument,
    TensorArgument,
)
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._symbols import free_symbols, tensor_of

_COPY = torch.ops.aten.copy_.default


@dataclass(frozen=True)
class Captured:
    """A functional ATen graph, but for copies to changed inputs at its end: its inputs are those of the captured graph,
    weights among them.

    `weights` are the positions of parameters and buffers that the graph only reads. `recomputable` says that running
    the captured graph a second time gives the same results and changes nothing.
    """

    module: GraphModule
    weights: list[int]
    recomputable: bool


def capture(
    module: GraphModule, inputs: Sequence[Any], compiler: Callable[[Captured], Callable[..., Any]]
) -> Callable[..., Any]:
    """Runs AOTAutograd for inference.

    Args:
        module, inputs: what torch.compile hands to a backend.
        compiler: makes what runs instead of the functional graph: a function of the same inputs.

    Returns:
        A function of the module's inputs, which also makes results that are views of inputs such views. Changed inputs
        are written back at the end of the graph that `compiler` gets.
    """
    # Here, because importing them takes a while.
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def compile_inner(graph_module: GraphModule, _: Any) -> Callable[..., Any]:
        return make_boxed_func(compiler(_describe(graph_module)))

    with torch.no_grad(), quiet_torch(), _composite_operators_kept() as decompositions:
        return aot_autograd(
            fw_compiler=compile_inner,
            decompositions=decompositions,
            keep_inference_input_mutations=True,  # engines write to changed inputs themselves
        )(module, inputs)


@contextmanager
def _composite_operators_kept() -> Iterator[dict[Any, Any]]:
    """Keeps operators such as linear and attention whole, as `run_decompositions({})` does for the AOT path."""
    composite, decompositions = _split_decomp_table_to_cia_and_python_decomp({})
    with _override_composite_implicit_decomp(composite):
        yield decompositions


def _describe(module: GraphModule) -> Captured:
    metadata = TracingContext.get().fw_metadata
    placeholders = module.graph.find_nodes(op="placeholder")
    known = len(metadata.input_info) == len(placeholders)
    mutated = [
        index
        for index, info in enumerate(metadata.input_info)
        if info.mutates_data or info.mutates_metadata
    ]
    weights = [
        index
        for index in metadata.static_input_indices
        if index not in mutated and tensor_of(placeholders[index]) is not None
    ]
    aliases = (OutputType.alias_of_input, OutputType.is_input)
    recomputable = (
        not mutated
        and not any(info.output_type in aliases for info in metadata.output_info)
        and not any(_is_random(node) for node in module.graph.nodes)
    )
    # Inputs that AOTAutograd added or merged have no place in its lists: then nothing is taken as a constant.
    return Captured(module, weights if known else [], recomputable and known)


def _is_random(node: Node) -> bool:
    return isinstance(node.target, torch._ops.HigherOrderOperator) or (
        isinstance(node.target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in node.target.tags
    )


def as_program(captured: Captured, weights: Mapping[int, torch.Tensor]) -> Program:
    """A program with these weights as constants, by position; the other inputs are the user's."""
    return _ProgramBuilder(captured.module, weights).finish()


class _ProgramBuilder:
    def __init__(self, module: GraphModule, weights: Mapping[int, torch.Tensor]) -> None:
        self._module = module
        self._graph = copy.deepcopy(module.graph)
        self._state: dict[str, torch.Tensor] = {}
        self._constants: dict[str, torch.Tensor] = {}
        self._inputs = self._graph.find_nodes(op="placeholder")
        self._fake_mode = detect_fake_mode([node.meta.get("val") for node in self._inputs])
        self._changes = self._take_changes()
        self._specs = [self._input_spec(*item, weights) for item in enumerate(self._inputs)]
        self._specs += self._lift_constants()

    def _take_changes(self) -> dict[Node, Node]:
        """What inputs are to be, by the input; the copies go."""
        changes: dict[Node, Node] = {}
        for node in self._graph.find_nodes(op="call_function", target=_COPY):
            target, value = node.args[:2]
            if target not in self._inputs or target in changes or not isinstance(value, Node):
                continue  # stays in PyTorch
            changes[target] = value
            node.replace_all_uses_with(value)
            self._graph.erase_node(node)
        return changes

    def _input_spec(self, index: int, node: Node, weights: Mapping[int, torch.Tensor]) -> InputSpec:
        if index not in weights:
            return InputSpec(InputKind.USER_INPUT, _argument(node), None)
        name = f"weight_{index}"
        self._state[name] = weights[index].detach()
        return InputSpec(InputKind.BUFFER, TensorArgument(node.name), name, persistent=True)

    def _lift_constants(self) -> list[InputSpec]:
        """Tensors that the tracer found in the code, such as torch.tensor(2.0)."""
        specs = []
        for node in self._graph.find_nodes(op="get_attr"):
            name = str(node.target)
            value = getattr(self._module, name)
            if not isinstance(value, torch.Tensor):
                continue  # a submodule of control flow
            with self._graph.inserting_before(self._first_operator()):
                placeholder = self._graph.placeholder(f"c_{name}")
            fake = self._fake_mode.from_tensor(value, static_shapes=True)  # type: ignore[union-attr]
            placeholder.meta["val"] = fake
            node.replace_all_uses_with(placeholder)
            self._graph.erase_node(node)
            self._constants[name] = value
            argument = TensorArgument(placeholder.name)
            specs.append(InputSpec(InputKind.CONSTANT_TENSOR, argument, name))
        return specs

    def _first_operator(self) -> Node:
        return next(node for node in self._graph.nodes if node.op != "placeholder")

    def finish(self) -> Program:
        output = self._graph.output_node()
        results = output.args[0]
        outputs = [
            OutputSpec(OutputKind.USER_INPUT_MUTATION, TensorArgument(value.name), target.name)
            for target, value in self._changes.items()
        ]
        outputs += [OutputSpec(OutputKind.USER_OUTPUT, _argument(value), None) for value in results]
        output.args = ((*self._changes.values(), *results),)
        num_inputs = sum(spec.kind is InputKind.USER_INPUT for spec in self._specs)
        in_spec = pytree.tree_structure(((0,) * num_inputs, {}))
        out_spec = pytree.tree_structure((0,) * len(results))
        call = ModuleCallSignature([], [], in_spec, out_spec)
        return Program(
            ExportedProgram(
                root=self._module,
                graph=self._graph,
                graph_signature=ExportGraphSignature(self._specs, outputs),
                state_dict=self._state,
                range_constraints=self._ranges(),
                module_call_graph=[ModuleCallEntry("", call)],
                constants=self._constants,
            ),
            guarded=True,
        )

    def _ranges(self) -> dict[sympy.Symbol, ValueRanges[Any]]:
        """What torch.compile's guards promise about sizes: engines are built for these ranges and check them."""
        tensors = [tensor_of(node) for node in self._graph.nodes]
        symbols = free_symbols(
            size for tensor in tensors if tensor is not None for size in tensor.shape
        )
        if not symbols or self._fake_mode is None or self._fake_mode.shape_env is None:
            return {}
        known = self._fake_mode.shape_env.var_to_range
        return {symbol: known[symbol] for symbol in symbols if symbol in known}


def _argument(value: Any) -> Any:
    if not isinstance(value, Node):
        return ConstantArgument("", value)
    meta = value.meta.get("val")
    if isinstance(meta, torch.SymInt):
        return SymIntArgument(value.name)
    if isinstance(meta, torch.Tensor):
        return TensorArgument(value.name)
    return ConstantArgument(value.name, meta)
