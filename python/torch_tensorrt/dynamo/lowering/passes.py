"""Passes of the user's over the ATen graph, before it is divided between engines and PyTorch.

@_aten_lowering_pass
def replace_erf(gm: torch.fx.GraphModule, settings: CompilationSettings) -> torch.fx.GraphModule:
    ...
    return gm
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from torch_tensorrt.dynamo._capture import capture
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._rebuild import ProgramEditor, adopt_graph

LoweringPass = Callable[[GraphModule, CompilationSettings], GraphModule]

_passes: list[LoweringPass] = []


def _aten_lowering_pass(
    lowering_pass: LoweringPass | None = None, *, index: int | None = None
) -> Any:
    """Registers `(gm, settings) -> gm`, as a decorator or a call.

    The graph is functional and flat, with weights and buffers as its first inputs. A pass may change everything but
    the inputs and the number of results, and may use tensors that are attributes of the module.

    Args:
        lowering_pass: the function.
        index: its place among the passes; the last when None.
    """

    def register(function: LoweringPass) -> LoweringPass:
        if not callable(function):
            raise TypeError(f"got {function!r}, expected a function (gm, settings) -> gm")
        _passes.insert(len(_passes) if index is None else index, function)
        return function

    return register if lowering_pass is None else register(lowering_pass)


def _remove_lowering_pass(*, index: int) -> None:
    """Removes the pass with this number. IndexError: there is none."""
    del _passes[index]


def dump_lowering_passes() -> str:
    """The registered passes in their order, as text."""
    names = [f"{index}: {name_of(function)}" for index, function in enumerate(_passes)]
    return "\n".join(["Lowering passes:", *names])


def name_of(function: LoweringPass) -> str:
    return getattr(function, "__name__", type(function).__name__)


def pass_names() -> list[str]:
    return [name_of(function) for function in _passes]


def get_decompositions(
    enable_experimental_decompositions: bool = False,
    decompose_attention: bool = False,
    use_fp32_acc: bool = False,
) -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """The table for `run_decompositions` with which `compile` begins: empty, because engines take operators such as
    linear and attention whole. The arguments are accepted, and change nothing."""
    return {}


def pre_export_lowering(
    program: ExportedProgram, settings: CompilationSettings | None = None
) -> ExportedProgram:
    """The program itself: nothing has to be changed before it is decomposed."""
    return program


def post_lowering(gm: GraphModule, settings: CompilationSettings | None = None) -> GraphModule:
    """The module after the registered passes, for graphs that are not compiled by `compile`, which runs them itself."""
    for function in list(_passes):
        gm = function(gm, settings if settings is not None else CompilationSettings())
        _check_module(gm, function)
    return gm


def clean_up_graph_after_modifications(gm: GraphModule) -> GraphModule:
    """What a pass ends with: nodes without use are removed, the graph is checked, and its code made anew."""
    gm.graph.eliminate_dead_code()
    gm.graph.lint()
    gm.recompile()
    return gm


def run_passes(program: Program, settings: CompilationSettings) -> Program:
    """The program after all passes; the same one if there are none."""
    for function in list(_passes):
        with capture(name_of(function), program.graph) as after:
            program = _run(program, function, settings)
            after.append(program.graph)
    return program


def _run(program: Program, function: LoweringPass, settings: CompilationSettings) -> Program:
    inputs = [node.name for node in program.graph.find_nodes(op="placeholder")]
    num_results = len(program.graph.output_node().args[0])
    gm = function(program.module, settings)
    _check_module(gm, function)
    if [node.name for node in gm.graph.find_nodes(op="placeholder")] != inputs:
        raise ValueError(f"the lowering pass {name_of(function)} changed the inputs of the graph")
    if len(gm.graph.output_node().args[0]) != num_results:
        raise ValueError(f"the lowering pass {name_of(function)} changed the number of results")
    if gm is not program.module:
        adopt_graph(program, gm)
    editor = ProgramEditor(program)
    for node in gm.graph.find_nodes(op="get_attr"):
        value = getattr(gm, str(node.target))
        if isinstance(value, torch.Tensor):
            node.replace_all_uses_with(editor.add_constant(value))
            gm.graph.erase_node(node)
    if any("val" not in node.meta for node in gm.graph.nodes if node.op == "call_function"):
        values = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
        FakeTensorProp(gm, editor.fake_mode).propagate_dont_convert_inputs(*values)
    return Program.decomposed(editor.finish(), guarded=program.guarded)


def _check_module(gm: Any, function: LoweringPass) -> None:
    if not isinstance(gm, GraphModule):
        raise TypeError(
            f"the lowering pass {name_of(function)} returned {type(gm).__name__}, expected the GraphModule"
        )
