"""`torch_tensorrt.dynamo.compile`: an exported program in, a module with engines out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export._tree_utils import reorder_kwargs
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

import kiln
from torch_tensorrt._arguments import check_program, flatten_tensors, merge_inputs
from torch_tensorrt.dynamo._assemble import CompiledRegion, assemble
from torch_tensorrt.dynamo._autocast import autocast
from torch_tensorrt.dynamo._capture import capture, show_engine, show_module
from torch_tensorrt.dynamo._devices import engine_device
from torch_tensorrt.dynamo._layouts import enter_as_they_lie
from torch_tensorrt.dynamo._offload import offload
from torch_tensorrt.dynamo._partition import (
    Partition,
    apply_min_block_size,
    check_support,
    describe,
    list_reasons,
    partition,
)
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._progress import CompileProgress
from torch_tensorrt.dynamo._ranges import symbol_ranges, tracers_ranges
from torch_tensorrt.dynamo._region import Region, compile_region, find_region
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._strides import leave_views_to_torch
from torch_tensorrt.dynamo._symbols import Range, SymbolError
from torch_tensorrt.dynamo._tracer import ANYWHERE
from torch_tensorrt.dynamo._updates import find_updates
from torch_tensorrt.dynamo.conversion._apply import has_user_lowerings, lower
from torch_tensorrt.dynamo.conversion._context import UnsupportedOperatorException

logger = logging.getLogger(__name__)


def compile(
    exported_program: ExportedProgram,
    inputs: Sequence[Any] | None = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> GraphModule:
    """Compiles an exported program.

    Weights are taken as they are now: changing the original model afterwards does not change the result.

    Args:
        exported_program: what `torch.export.export` or `torch_tensorrt.dynamo.trace` gave.
        inputs, arg_inputs: positional inputs: tensors, `Input`s, or structures of them. `Input`s narrow the ranges of
            dynamic sizes and say what size to optimise for.
        kwarg_inputs: keyword inputs, likewise.
        options: see `CompilationSettings`.

    Returns:
        A module that is called like the original one, and gives the same structure of results.

    Raises:
        TypeError: an unknown option. ValueError: inputs that do not fit the program.
        RuntimeError: operators that no engine can take, with require_full_compilation=True.
    """
    check_program(exported_program)
    settings = CompilationSettings.from_options(options)
    arg_inputs = merge_inputs(inputs, arg_inputs, required=False)
    if exported_program.graph_module.meta.get(ANYWHERE):
        settings = _for_anywhere(settings)
    cast, settings = autocast(exported_program, settings)
    whole = whole_program(cast, arg_inputs, kwarg_inputs, settings)
    if whole is not None:
        return _compile_supported(whole.program, whole.ranges, whole.support, settings)
    program = Program.decomposed(cast)
    if settings.offload_module_to_cpu:
        offload(exported_program, program.exported)
    return compile_program(program, flat_inputs(program, arg_inputs, kwarg_inputs), settings)


def _for_anywhere(settings: CompilationSettings) -> CompilationSettings:
    """With engines for CPUs too, if those are for a GPU only because there is one."""
    device = settings.device.to(torch.device)
    if settings.targets or device.type == "cpu":
        return settings
    return dataclasses.replace(settings, targets=[*settings.targets_for(device), "cpu"])


@dataclass(frozen=True)
class WholeProgram:
    """A program that engines take whole, for these ranges; `support` is what `check_support` says of it."""

    program: Program
    ranges: dict[Any, Range]
    support: dict[Node, str]


def whole_program(
    exported: ExportedProgram,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    settings: CompilationSettings,
) -> WholeProgram | None:
    """The program as it was exported, if engines take all of it so: then it need not be traced again. None where they
    do not, and where the user's passes, converters or names are for operators of a traced one."""
    if settings.torch_executed_ops or settings.offload_module_to_cpu or has_user_lowerings():
        return None
    program = Program.as_exported(exported)
    if program is None:
        return None
    settings.targets_for(engine_device(program.graph))  # an error before anything takes long
    ranges = symbol_ranges(program, flat_inputs(program, args, kwargs))
    ranges, support = supported_ranges(program, settings, ranges)
    return None if any(support.values()) else WholeProgram(program, ranges, support)


def compile_program(
    program: Program, inputs: list[Any] | None, settings: CompilationSettings
) -> GraphModule:
    """Partitions a program, compiles its regions and puts it together again.

    `inputs` has a tensor, an `Input` or another value for each input of the program, or is None.
    """
    settings.targets_for(engine_device(program.graph))  # an error before anything takes long
    program = lower(program, settings)
    ranges = symbol_ranges(program, inputs)
    ranges, support = supported_ranges(program, settings, ranges)
    return _compile_supported(program, ranges, support, settings)


def _compile_supported(
    program: Program,
    ranges: dict[Any, Range],
    support: dict[Node, str],
    settings: CompilationSettings,
) -> GraphModule:
    if ignored := settings.without_effect():
        logger.info(
            "options without effect here: %s (docs/torch_tensorrt_api.md)", ", ".join(ignored)
        )
    leave_views_to_torch(program.graph, support)
    parts = partition(program, support, enter_as_they_lie(program, support))
    apply_min_block_size(parts, settings)
    _report(parts, settings)
    compiled = {} if settings.dryrun else _compile_regions(program, parts, ranges, settings)
    with capture("partition", program.graph) as after:
        module = assemble(program, parts, compiled, ranges)
        after.append(module.graph)
    show_module(module)
    return module


def supported_ranges(
    program: Program, settings: CompilationSettings, ranges: dict[Any, Range]
) -> tuple[dict[Any, Range], dict[Node, str]]:
    """The ranges, and what engines can take of the program with them (`check_support`): without the sizes that the
    exporter's tracer left out if these kept operators out of engines."""
    support = check_support(program, settings, ranges)
    usual = tracers_ranges(program, ranges)
    if usual == ranges or not any(support.values()):
        return ranges, support
    usual_support = check_support(program, settings, usual)
    wanted = [node for node, reason in usual_support.items() if not reason]
    if all(support[node] == "" for node in wanted):
        return ranges, support
    with_1 = tracers_ranges(program, ranges, 1)
    support = check_support(program, settings, with_1)
    if all(support[node] == "" for node in wanted):
        return with_1, support
    return usual, usual_support


def flat_inputs(
    program: Program, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> list[Any] | None:
    """One leaf per input of the program, in its order; the example inputs of the export if none were given."""
    if args is None and not kwargs:
        example = program.exported.example_inputs
        return None if example is None else flatten_tensors(example)
    in_spec = program.exported.call_spec.in_spec
    flat = pytree.tree_leaves(args)
    if not kwargs and in_spec.children()[0].num_leaves < len(flat) == in_spec.num_leaves:
        return flat  # keyword inputs behind the others, as Torch-TensorRT takes them
    args, kwargs = _with_examples(program, args, dict(kwargs or {}))
    leaves, spec = pytree.tree_flatten((args, reorder_kwargs(kwargs, in_spec)))
    if len(leaves) != in_spec.num_leaves:
        raise ValueError(
            f"got {len(leaves)} inputs, but the program was exported with {in_spec.num_leaves}"
        )
    return leaves


def _with_examples(
    program: Program, args: Sequence[Any] | None, kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs with the program's own examples for those that were left out: all positional ones, or any keyword."""
    args_spec, kwargs_spec = program.exported.call_spec.in_spec.children()
    expected = list(kwargs_spec.context)
    if unknown := sorted(kwargs.keys() - set(expected)):
        raise ValueError(
            f"kwarg_inputs has {unknown}, but the program was exported with {sorted(expected)}"
        )
    # A program from a file may have no examples: then nothing is known of what was left out.
    nothing = [
        pytree.tree_unflatten([None] * spec.num_leaves, spec) for spec in (args_spec, kwargs_spec)
    ]
    example_args, example_kwargs = program.exported.example_inputs or nothing
    missing = {name: example_kwargs[name] for name in expected if name not in kwargs}
    return tuple(example_args if args is None else args), {**kwargs, **missing}


def _report(parts: Partition, settings: CompilationSettings) -> None:
    text = describe(parts)
    if settings.dryrun:
        if isinstance(settings.dryrun, bool):
            print(text)
        else:
            Path(settings.dryrun).write_text(text + "\n", encoding="utf-8")
    else:
        logger.debug("partitioning: %s", text)
    if settings.require_full_compilation and parts.left_out:
        raise UnsupportedOperatorException(
            f"require_full_compilation=True, but {len(parts.left_out)} operator(s) cannot be in an engine:\n"
            f"{list_reasons(parts.left_out)}"
        )
    if not parts.regions:
        logger.warning(
            "no engine was made: the whole model runs in PyTorch (%s)",
            next(iter(parts.left_out.values()), "no operators"),
        )


def _compile_regions(
    program: Program, parts: Partition, ranges: Any, settings: CompilationSettings
) -> dict[int, CompiledRegion]:
    compiled = {}
    with CompileProgress(len(parts.regions)) as progress:
        for level, nodes in list(parts.regions.items()):
            progress.next_engine()
            try:
                region = find_region(program, nodes)
                region.update(find_updates(program, parts, level, region))
                spec = (
                    region.spec
                )  # before the compile, because it may find a size that cannot be had
                engine = _compile_region(program, region, ranges, settings, progress)
            except (kiln.KilnError, SymbolError) as error:
                if settings.pass_through_build_failures or settings.require_full_compilation:
                    raise
                logger.warning("a block of %d operators stays in PyTorch: %s", len(nodes), error)
                parts.drop(level, str(error))
                continue
            logger.info("engine of %d operators: %d bytes, %s", len(nodes), engine.numel(), spec)
            show_engine(f"engine_{len(compiled)}", engine)
            compiled[level] = CompiledRegion(region, engine)
    return compiled


def _compile_region(
    program: Program,
    region: Region,
    ranges: dict[Any, Range],
    settings: CompilationSettings,
    progress: CompileProgress,
) -> Any:
    """Compiles a region; without the sizes that the exporter's tracer left out where it cannot be done with them."""
    try:
        return compile_region(program, region, ranges, settings, progress.update)
    except kiln.KilnError as error:
        usual = tracers_ranges(program, ranges)
        if usual == ranges:
            raise
        logger.info("compiling again without sizes of 0 and 1: %s", error)
    return compile_region(program, region, usual, settings, progress.update)
