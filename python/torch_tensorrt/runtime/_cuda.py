"""The GPU side of the runtime API. For modules on the CPU: a clear error, or no effect where callers expect that."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from torch_tensorrt._arguments import input_device
from torch_tensorrt._mutation import changed_arguments
from torch_tensorrt._operator import is_engine_call, is_engine_name
from torch_tensorrt.runtime._modes import engines_of

_CUDA_GRAPHS = (
    "CUDA graphs need a GPU, but engines run on the CPU, where a call has no launch overhead to save: "
    "call the module as it is"
)
_EXCLUSIVE = (
    "Both CUDA Graphs and dynamic output allocation are enabled, which are incompatible runtime modes. Please disable "
    "one of the two."
)
# How many blocks of either kind are open in this thread of control.
_cuda_graphs: ContextVar[int] = ContextVar("cuda_graphs", default=0)
_output_allocators: ContextVar[int] = ContextVar("output_allocators", default=0)


@contextmanager
def _counted(mode: ContextVar[int]) -> Iterator[None]:
    token = mode.set(mode.get() + 1)
    try:
        if _cuda_graphs.get() and _output_allocators.get():
            raise RuntimeError(_EXCLUSIVE)
        yield
    finally:
        mode.reset(token)


def output_allocator() -> AbstractContextManager[None]:
    """A block of `enable_output_allocator`. RuntimeError: it is inside one of `enable_cudagraphs`."""
    return _counted(_output_allocators)


class enable_cudagraphs:  # noqa: N801 - upstream's name
    """Calls of a module on a GPU as one CUDA graph, which is captured for every new combination of input shapes.

    Engines launch their own kernels as graphs in any case; this joins them with what PyTorch runs between them.

    with torch_tensorrt.runtime.enable_cudagraphs(trt_gm) as cudagraphs_module:
        cudagraphs_module(x)

    Yields the module itself where it is one engine, or else a `CudaGraphsModule`. For a module on the CPU it is a
    RuntimeError at the first call of the module in the block, or else at its end: not before, because a mode that
    excludes CUDA graphs is the mistake to name first.
    """

    def __init__(self, compiled_module: Any, cuda_graph_strategy: str | None = None) -> None:
        self._engines = engines_of(compiled_module)
        self._module = compiled_module
        self._is_cuda = not isinstance(compiled_module, ExportedProgram) and (
            input_device(compiled_module).type == "cuda"
        )
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        self._stack.enter_context(_counted(_cuda_graphs))
        if self._is_cuda:
            return self._module if _is_one_engine(self._module) else CudaGraphsModule(self._module)
        hook = getattr(
            self._module, "register_forward_pre_hook", None
        )  # an ExportedProgram has none
        if hook is None:
            self._stack.close()
            raise RuntimeError(_CUDA_GRAPHS)
        self._stack.callback(hook(_refuse).remove)
        return self._module

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stack.close()
        if kind is None and not self._is_cuda:
            raise RuntimeError(_CUDA_GRAPHS)


def _is_one_engine(module: Any) -> bool:
    """Whether all that a module computes is in one engine."""
    if not isinstance(module, GraphModule):
        return False
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    calls = [node for node in calls if node.target is not operator.getitem]
    return len(calls) == 1 and is_engine_call(calls[0])


def changed_by(module: torch.nn.Module) -> tuple[list[torch.Tensor], list[str]]:
    """The buffers and the names of the inputs that a call of a compiled module changes. Of another module nothing is
    known: any buffer."""
    if not isinstance(module, GraphModule):
        return [b for name, b in module.named_buffers() if not is_engine_name(name)], []
    changed = [target for node in module.graph.nodes for target in changed_arguments(node)]
    targets = list(dict.fromkeys(changed))
    return (
        [
            operator.attrgetter(str(node.target))(module)
            for node in targets
            if node.op == "get_attr"
        ],
        [node.name for node in targets if node.op == "placeholder"],
    )


class CudaGraphsModule(torch.nn.Module):
    """A module on a GPU whose calls are replayed as CUDA graphs, one for each combination of input shapes.

    Args:
        module: what to call. Python code in it runs when a graph is captured, and not again.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self._captures: dict[Any, _Capture] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        key = (spec, tuple(_describe(leaf) for leaf in leaves))
        if key not in self._captures:
            self._captures[key] = _Capture(self.module, leaves, spec)
        return self._captures[key].replay(leaves)


def _describe(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device
    return leaf


class _Capture:
    """A graph of a call, with inputs and outputs of its own."""

    def __init__(self, module: torch.nn.Module, leaves: list[Any], spec: pytree.TreeSpec) -> None:
        self._inputs = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(self._inputs, spec)
        buffers, inputs = changed_by(module)
        if inputs:
            raise RuntimeError(
                f"the module changes its input {inputs[0]!r}, which a CUDA graph has a copy of: call it without "
                "enable_cudagraphs, engines run as CUDA graphs in any case"
            )
        before = [buffer.clone() for buffer in buffers]
        self._graph = torch.cuda.CUDAGraph()
        # What a first call allocates and loads must not be part of the graph.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(2):
                module(*args, **kwargs)
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph, stream=stream), torch.no_grad():
            self._outputs = module(*args, **kwargs)

    def replay(self, leaves: list[Any]) -> Any:
        """Results in memory of their own: the graph's are written again by the next call."""
        for own, given in zip(self._inputs, leaves, strict=True):
            if isinstance(own, torch.Tensor):
                own.copy_(given)
        self._graph.replay()
        return pytree.tree_map_only(torch.Tensor, torch.clone, self._outputs)


def _refuse(*_: Any) -> NoReturn:
    raise RuntimeError(_CUDA_GRAPHS)


_graphs_mode = False


def set_cudagraphs_mode(mode: bool) -> None:
    """Accepted where PyTorch sees a GPU: engines there run as CUDA graphs, always. Elsewhere True is a RuntimeError."""
    global _graphs_mode
    if mode and not torch.cuda.is_available():
        raise RuntimeError(_CUDA_GRAPHS)
    _graphs_mode = mode


def get_cudagraphs_mode() -> bool:
    """The mode that was set; False at first."""
    return _graphs_mode


def get_whole_cudagraphs_mode() -> bool:
    """Whether this is inside a block of `enable_cudagraphs`."""
    return _cuda_graphs.get() > 0


class set_multi_device_safe_mode:  # noqa: N801 - upstream's name
    """Accepted, as a call and as a context: engines run on one device, so that there is nothing to check.

    TypeError if `mode` is not a bool.
    """

    _mode = False

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise TypeError(f"multi-device safe mode is {mode!r}, expected True or False")
        self._old = set_multi_device_safe_mode._mode
        set_multi_device_safe_mode._mode = mode

    def __enter__(self) -> None:
        """The mode was set already."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        set_multi_device_safe_mode._mode = self._old


def get_multi_device_safe_mode() -> bool:
    """The mode that was set; it has no effect."""
    return set_multi_device_safe_mode._mode
