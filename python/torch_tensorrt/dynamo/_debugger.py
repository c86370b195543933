"""`Debugger`: a context that shows what a compilation does, stage by stage, and how long its kernels run."""

from __future__ import annotations

import functools
import getpass
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from contextvars import Token
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

import kiln
from torch_tensorrt import logging as torch_tensorrt_logging
from torch_tensorrt._files import write_text
from torch_tensorrt._operator import engine_array
from torch_tensorrt.dynamo._capture import Observer, active_observer
from torch_tensorrt.dynamo.lowering.passes import pass_names
from torch_tensorrt.runtime._modes import Mode, engines_of, last_profile, mode
from torch_tensorrt.runtime._profile import check_format, write_profile

logger = logging.getLogger(__name__)

# Stages of the front end, in order; users' own lowering passes come after "decompose", under their names.
STAGES = ("decompose", "convert", "partition")
# Lowering passes of Torch-TensorRT 2.x, whose names scripts give.
_UPSTREAM_PASSES = frozenset(
    (
        "annotate_fp8_sdpa",
        "complex_graph_detection",
        "complex_lowering_pass",
        "constant_fold",
        "decompose_dynamic_slice_scatter",
        "eliminate_sym_min_int64_max",
        "force_causal_efficient_attention",
        "fuse_distributed_ops",
        "fuse_pad_into_convolution",
        "fuse_prims_broadcast",
        "mark_constant_fold_exclusions",
        "normalize_negative_slice_stop",
        "remove_assert_nodes",
        "remove_detach",
        "remove_input_alias_fixing_clones",
        "remove_num_users_is_0_nodes",
        "repair_input_as_output",
        "replace_fused_rms_norm",
        "replace_max_pool_with_indices",
        "rule_based_autocast",
    )
)

_LEVELS: dict[str, Callable[[], Any]] = {
    "internal_errors": torch_tensorrt_logging.internal_errors,
    "error": torch_tensorrt_logging.errors,
    "warning": torch_tensorrt_logging.warnings,
    "info": torch_tensorrt_logging.info,
    "debug": torch_tensorrt_logging.debug,
    "graphs": torch_tensorrt_logging.graphs,
}
_LOG_FILE = "torch_tensorrt_logging.log"


@dataclass(frozen=True)
class _Output:
    """What a Debugger writes besides the log."""

    before: frozenset[str]
    after: frozenset[str]
    profile_format: str | None
    layer_info: bool


class Debugger:
    """Shows what happens in compilations inside its block. Files go to `logging_dir`.

    with torch_tensorrt.dynamo.Debugger("graphs", capture_fx_graph_after=["decompose"], save_engine_profile=True):
        trt_gm = torch_tensorrt.compile(model, arg_inputs=[x])
        trt_gm(x)

    Args:
        log_level: "debug", "info", "warning", "error", "internal_errors" or "graphs"; the log goes to a file as well.
        capture_fx_graph_before, capture_fx_graph_after: names of stages whose graphs are written before or after they
            run: "decompose", "convert" and "partition", lowering passes of the user's by their function's name, and
            passes of the compiler ("canonicalise", ...; `kiln.passes()` lists them), which are written if they
            change something.
        save_engine_profile: whether modules that are compiled in the block write the times of their kernels at every
            call in the block.
        profile_format: "perfetto" (for ui.perfetto.dev) or "trex".
        engine_builder_monitor: accepted: progress is shown for every compile that takes more than two seconds.
        logging_dir: the folder; `torch_tensorrt_<user>/debug_logs` among the temporary files when None.
        save_layer_info: whether to write the kernels and memory of every engine that is compiled.

    Raises:
        ValueError: a level, a stage or a format that does not exist.
    """

    def __init__(
        self,
        log_level: str = "debug",
        capture_fx_graph_before: Sequence[str] | None = None,
        capture_fx_graph_after: Sequence[str] | None = None,
        save_engine_profile: bool = False,
        profile_format: str = "perfetto",
        engine_builder_monitor: bool = True,
        logging_dir: str | os.PathLike[str] | None = None,
        save_layer_info: bool = False,
    ) -> None:
        if log_level not in _LEVELS:
            raise ValueError(
                f"Invalid log level: got {log_level!r}, expected one of {', '.join(_LEVELS)}"
            )
        check_format(profile_format)
        _check_stages("capture_fx_graph_before", capture_fx_graph_before or ())
        _check_stages("capture_fx_graph_after", capture_fx_graph_after or ())
        self.log_level = log_level
        self.logging_dir = Path(logging_dir) if logging_dir is not None else default_folder()
        self._output = _Output(
            before=frozenset(capture_fx_graph_before or ()),
            after=frozenset(capture_fx_graph_after or ()),
            profile_format=profile_format if save_engine_profile else None,
            layer_info=save_layer_info,
        )
        self._num_files = 0
        self._token: Token[Observer | None] | None = None

    def __enter__(self) -> Debugger:
        if self._token is not None:
            raise RuntimeError("this Debugger is entered already: make another one")
        self.logging_dir.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._stack.enter_context(_LEVELS[self.log_level]())
        self._stack.enter_context(_log_to(self.logging_dir / _LOG_FILE))
        self._token = active_observer.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            active_observer.reset(self._token)
            self._token = None
        self._stack.close()

    # ---- Called by the compilation ----

    def capture_graph(self, stage: str, when: str, graph: Graph) -> None:
        """Writes a graph of the front end, if it is wanted."""
        if stage in (self._output.before if when == "before" else self._output.after):
            self._write(f"{stage}_{when}.txt", format_graph(graph))

    def wants_passes(self) -> bool:
        """Whether the compiler has to dump the graphs of its passes."""
        return not (self._output.before | self._output.after).isdisjoint(_compiler_passes())

    def collect_passes(self, folder: Path) -> None:
        """Takes what is wanted out of the compiler's dumps: a numbered file after every pass that changed something."""
        self._collect_pipeline("", sorted(folder.glob("*.ir")))
        self._collect_pipeline("", sorted(folder.glob("*.plan")))
        for target in sorted(each for each in folder.iterdir() if each.is_dir()):
            self._collect_pipeline(f"{target.name}_", sorted(target.glob("*.plan")))

    def _collect_pipeline(self, prefix: str, dumps: list[Path]) -> None:
        """The dumps of one run of passes; `prefix` tells those of the targets of an engine apart."""
        for previous, path in zip((None, *dumps), dumps, strict=False):
            name = path.stem.removeprefix("plan_").partition("_")[2]
            if name in self._output.before and previous is not None:
                shutil.copyfile(previous, self._next_path(f"{prefix}{name}_before{path.suffix}"))
            if name in self._output.after:
                shutil.copyfile(path, self._next_path(f"{prefix}{name}_after{path.suffix}"))

    def watch_engine(self, name: str, engine: torch.Tensor) -> None:
        """Writes the description of an engine."""
        if self._output.layer_info:
            text = json.dumps(kiln.inspect(engine_array(engine)), indent=1)
            self._write(f"{name}_layer_info.json", text)

    def watch_module(self, module: GraphModule) -> None:
        """Lets a module write the times of its kernels at every call, until the block ends."""
        if self._output.profile_format is None:
            return
        engines = engines_of(module)
        self._stack.enter_context(mode(list(engines.values()), Mode.PROFILE))
        handle = module.register_forward_hook(lambda *_: self._write_profiles(engines))
        self._stack.callback(handle.remove)

    def _write_profiles(self, engines: dict[str, torch.Tensor]) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        for name, engine in engines.items():
            path = self._next_path(f"{name}_engine_execution_profile.trace")
            kernels = last_profile(engine)
            assert self._output.profile_format is not None
            write_profile(path, kernels, self._output.profile_format, name)

    def _write(self, name: str, text: str) -> None:
        path = self._next_path(name)
        write_text(path, text)
        logger.info("wrote %s", path)

    def _next_path(self, name: str) -> Path:
        """Files are numbered in the order in which they are written."""
        self._num_files += 1
        return self.logging_dir / f"{self._num_files:03d}_{name}"


def format_graph(graph: Graph) -> str:
    """A graph as text, with dtypes and shapes."""
    return (
        "\n".join(f"{node.format_node() or node}{_describe(node)}" for node in graph.nodes) + "\n"
    )


def _describe(node: Node) -> str:
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    tensors = [item for item in values if isinstance(item, torch.Tensor)]
    shapes = [f"{t.dtype}[{', '.join(map(str, t.shape))}]" for t in tensors]
    return f"  # {', '.join(shapes)}" if shapes else ""


def _check_stages(option: str, names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise TypeError(f"{option} is {names!r}, expected a list of names")
    known = (*STAGES, *pass_names(), *_compiler_passes())
    for name in names:
        if name in _UPSTREAM_PASSES and name not in known:
            logger.warning(
                "%s has %r, a pass of Torch-TensorRT that has no counterpart here: nothing is written for it. "
                "There are %s",
                option,
                name,
                ", ".join(known),
            )
        elif name not in known:
            raise ValueError(f"{option} has {name!r}, expected names among {', '.join(known)}")


@functools.cache
def _compiler_passes() -> tuple[str, ...]:
    """Passes of the compiler, over the graph of an engine and then over its plan."""
    passes = kiln.passes()
    return tuple(each["name"] for each in (*passes["graph"], *passes["plan"]))


def default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"torch_tensorrt_{getpass.getuser()}" / "debug_logs"


class _log_to:  # noqa: N801 - a context, like those of logging
    """Copies the log of this package to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._handler = logging.FileHandler(self._path, encoding="utf-8")
        self._handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s [%(name)s] %(message)s")
        )
        logging.getLogger("torch_tensorrt").addHandler(self._handler)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("torch_tensorrt").removeHandler(self._handler)
        self._handler.close()
