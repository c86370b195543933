"""The GPU side of the runtime API: on the CPU it is a clear error, or has no effect where callers expect that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NoReturn

from torch_tensorrt.runtime._modes import engines_of

_CUDA_GRAPHS = (
    "CUDA graphs need a GPU, but engines run on the CPU, where a call has no launch overhead to save: "
    "call the module as it is"
)
_WEIGHT_STREAMING = (
    "engine does not have streamable weights: engines run on the CPU, where weights are used in place and the "
    "operating system decides which of them are in memory"
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
    """RuntimeError at the first call of the module in the block, or else at its end: CUDA graphs need a GPU.

    Not before, because a mode that excludes CUDA graphs is the mistake to name first.
    """

    def __init__(self, compiled_module: Any, cuda_graph_strategy: str | None = None) -> None:
        engines_of(compiled_module)
        self._module = compiled_module
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        self._stack.enter_context(_counted(_cuda_graphs))
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
        if kind is None:
            raise RuntimeError(_CUDA_GRAPHS)


def _refuse(*_: Any) -> NoReturn:
    raise RuntimeError(_CUDA_GRAPHS)


class weight_streaming:  # noqa: N801 - upstream's name
    """RuntimeError when it is entered: weights of engines on the CPU are not streamed."""

    def __init__(self, module: Any) -> None:
        engines_of(module)

    def __enter__(self) -> NoReturn:
        raise RuntimeError(_WEIGHT_STREAMING)

    def __exit__(self, *_: object) -> None:
        """Never reached: the block is not entered."""


def set_cudagraphs_mode(mode: bool) -> None:
    """False is accepted, and what always is; True is a RuntimeError."""
    if mode:
        raise RuntimeError(_CUDA_GRAPHS)


def get_cudagraphs_mode() -> bool:
    """Whether calls of engines are captured as CUDA graphs: False."""
    return False


def get_whole_cudagraphs_mode() -> bool:
    """Whether calls of modules are captured as CUDA graphs: False."""
    return False


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
