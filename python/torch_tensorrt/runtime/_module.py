"""`TorchTensorRTModule`: a torch.nn.Module around one engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import kiln
from torch_tensorrt._operator import (
    engine_array,
    engine_tensor,
    execute_engine,
    execute_engine_in_place,
    hold,
    release,
)
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.runtime._modes import Mode, has_mode, last_profile, set_mode
from torch_tensorrt.runtime._profile import check_format, write_profile
from torch_tensorrt.runtime._runtime_settings import RuntimeSettings
from torch_tensorrt.runtime._spec import spec_of
from torch_tensorrt.runtime._weight_streaming import (
    NOTHING_TO_STREAM,
    automatic_budget,
    get_budget,
    set_budget,
    streamable_bytes,
)

_FORMAT_VERSION = 1


class TorchTensorRTModule(torch.nn.Module):
    """A module that runs one engine.

    It is called with one tensor per input binding, in order, and gives one tensor, or a tuple if there are several
    outputs. It can be traced, exported and saved like any module; the engine is a uint8 buffer of it.

    Args:
        serialized_engine: bytes of an engine (a `.kiln` file), or a uint8 tensor of them, which is not copied. None
            makes an empty module for `load_state_dict`.
        input_binding_names: names of the engine's inputs in the order of the call; the engine's own order when None.
        output_binding_names: names of the outputs to give, in order; all of them in the engine's order when None.
        name: for logs and profiles.
        settings: what the engine was compiled with; kept.
        requires_output_allocator: accepted: results are always allocated when their sizes are known.
        requires_native_multidevice: True is an error.
        symbolic_shape_expressions: accepted: an engine knows the shapes of its results.
        aliased_io: inputs that a call changes in place: their names, or tuples that begin with these, by those of the
            outputs that update them, all that the engine has. These outputs are no results then. Without it they are
            results like others, and inputs stay as they are.

    Raises:
        kiln.InvalidEngineError: not an engine. ValueError: a name that the engine does not have, or another aliased_io
            than the engine's.
    """

    engine: torch.Tensor | None

    def __init__(
        self,
        serialized_engine: bytes | bytearray | memoryview | torch.Tensor | None = None,
        input_binding_names: Sequence[str] | None = None,
        output_binding_names: Sequence[str] | None = None,
        *,
        name: str = "",
        settings: CompilationSettings | None = None,
        **compatibility: Any,
    ) -> None:
        super().__init__()
        _check_compatibility(compatibility)
        self.aliased_io: dict[str, Any] = dict(compatibility.get("aliased_io") or {})
        self.name = name
        self.settings = settings if settings is not None else CompilationSettings()
        self.runtime_settings = RuntimeSettings()
        self.input_binding_names: list[str] = list(input_binding_names or ())
        self.output_binding_names: list[str] = list(output_binding_names or ())
        # Not in the state dict by itself: extra state has it, with the names.
        self.register_buffer("engine", None, persistent=False)
        self._profile_folder: Path | None = None
        self._profile_format = "perfetto"
        if serialized_engine is not None:
            self._set_engine(_as_tensor(serialized_engine))

    def _set_engine(self, engine: torch.Tensor) -> None:
        description = kiln.inspect(engine_array(engine))
        inputs = [tensor["name"] for tensor in description["inputs"]]
        outputs = [tensor["name"] for tensor in description["outputs"]]
        self.input_binding_names = self.input_binding_names or inputs
        self.output_binding_names = self.output_binding_names or outputs
        _check_names("input", self.input_binding_names, inputs, every=True)
        _check_names("output", self.output_binding_names, outputs, every=False)
        self._input_order = [self.input_binding_names.index(name) for name in inputs]
        updates = {t["name"]: t["updates"] for t in description["outputs"] if "updates" in t}
        if self.aliased_io:
            _check_aliases(self.aliased_io, updates)
            self.output_binding_names = [n for n in self.output_binding_names if n not in updates]
        else:
            updates = {}
        self._output_order = [outputs.index(name) for name in self.output_binding_names]
        # The operator wants what is changed at the end, in one order.
        self._num_states = len(updates)
        in_order = list(updates) == outputs[len(outputs) - len(updates) :]
        self._is_direct = (
            in_order and list(updates.values()) == inputs[len(inputs) - len(updates) :]
        )
        self._changes = [(outputs.index(o), inputs.index(i)) for o, i in updates.items()]
        self._spec = spec_of(description, without=updates if self._is_direct else ())
        if self.engine is not None:
            release(self, self.engine)
        self.engine = engine
        hold(self, engine)

    def forward(self, *inputs: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if self.engine is None:
            raise RuntimeError(
                "this TorchTensorRTModule has no engine: give it serialized_engine, or load a state dict"
            )
        if len(inputs) != len(self._input_order):
            raise RuntimeError(
                f"got {len(inputs)} inputs, expected {len(self._input_order)}: "
                f"{', '.join(self.input_binding_names)}"
            )
        tensors = [
            value if isinstance(value, torch.Tensor) else torch.tensor(value) for value in inputs
        ]
        results = self._run([tensors[index] for index in self._input_order], self.engine)
        if self._profile_folder is not None and not torch.compiler.is_compiling():
            self._write_profile(self._profile_folder)
        outputs = tuple(results[index] for index in self._output_order)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, tensors: list[torch.Tensor], engine: torch.Tensor) -> list[torch.Tensor]:
        if self._num_states and self._is_direct:
            split = len(tensors) - self._num_states
            return execute_engine_in_place(tensors[:split], tensors[split:], engine, self._spec)
        results = execute_engine(tensors, engine, self._spec)
        for output, source in self._changes:
            tensors[source].copy_(results[output])
        return results

    # ---- Profiling ----

    def enable_profiling(
        self, profiling_results_dir: str | None = None, profile_format: str = "perfetto"
    ) -> None:
        """Times every kernel of the following calls; `profile` has the times of the last one.

        Args:
            profiling_results_dir: where every call writes `{name}_engine_execution_profile.trace`; no files when None.
            profile_format: "perfetto" or "trex".
        """
        check_format(profile_format)
        set_mode(self._require_engine(), Mode.PROFILE, True)
        self._profile_format = profile_format
        self._profile_folder = Path(profiling_results_dir) if profiling_results_dir else None

    def disable_profiling(self) -> None:
        """Stops timing; the times of the last call are forgotten."""
        set_mode(self._require_engine(), Mode.PROFILE, False)
        self._profile_folder = None

    def profile(self) -> list[dict[str, Any]]:
        """The kernels of the last call in the order in which they ran.

        Each has "kernel", "kind", "sources" (operators of the model), "tasks", "threads", "nanoseconds", and what it
        has to do: "operations" (arithmetic), "bytes" (of memory), "precision".
        RuntimeError: profiling is not enabled.
        """
        engine = self._require_engine()
        if not has_mode(engine, Mode.PROFILE):
            raise RuntimeError("profiling is not enabled: call enable_profiling() first")
        return last_profile(engine)

    def _write_profile(self, folder: Path) -> None:
        name = self.name or "engine"
        path = folder / f"{name}_engine_execution_profile.trace"
        write_profile(path, self.profile(), self._profile_format, name)

    def get_layer_info(self) -> str:
        """The kernels of the engine ("Layers"), its inputs and outputs ("Bindings") and memory, as JSON."""
        description = kiln.inspect(engine_array(self._require_engine()))
        bindings = [tensor["name"] for key in ("inputs", "outputs") for tensor in description[key]]
        layers = description.pop("kernels")
        return json.dumps({"Layers": layers, "Bindings": bindings, **description}, indent=1)

    def dump_layer_info(self) -> None:
        """Prints `get_layer_info`."""
        print(self.get_layer_info())

    # ---- Modes ----

    def set_pre_allocated_outputs(self, enable: bool) -> None:
        """Allocates the results of the next call after each call, in the same shapes."""
        set_mode(self._require_engine(), Mode.PRE_ALLOCATE, enable)

    def set_use_output_allocator(self, enable: bool) -> None:
        """Accepted: results are always allocated when their sizes are known."""

    def set_optimization_profile(self, profile: int | str | None) -> None:
        """Accepted: one engine serves the ranges of all profiles. Raises for anything that is not a profile."""
        check_optimization_profile(profile)

    def use_dynamically_allocated_resources(self, dynamically_allocate_resources: bool) -> None:
        """Accepted: a workspace is as large as the largest shapes so far need."""

    def get_streamable_device_memory_budget(self) -> int:
        """Bytes of the weights that can be streamed to a GPU; 0 for an engine for CPUs."""
        return streamable_bytes(self._require_engine())

    def get_device_memory_budget(self) -> int:
        """Bytes of a GPU's memory for these weights: all of them unless a budget was set.

        RuntimeError: the engine has no such weights.
        """
        return get_budget(self._require_engine(), self._require_streamable())

    def set_device_memory_budget(self, budget_bytes: int) -> int:
        """Sets it from the next call on, see `torch_tensorrt.runtime.weight_streaming`; gives what there is now.

        RuntimeError: it is negative, or the engine has no such weights.
        """
        return set_budget(self._require_engine(), self._require_streamable(), budget_bytes)

    def get_automatic_device_memory_budget(self) -> int:
        """The most that fits into the memory that is free on the current GPU now, but for a tenth of it."""
        device = torch.device("cuda", torch.cuda.current_device())
        return automatic_budget(self._require_streamable(), device)

    def _require_streamable(self) -> int:
        streamable = streamable_bytes(self._require_engine())
        if streamable == 0:
            raise RuntimeError(NOTHING_TO_STREAM)
        return streamable

    # ---- State ----

    def get_extra_state(self) -> dict[str, Any]:
        """Everything but the settings, as plain values: `torch.load(weights_only=True)` reads it."""
        return {
            "version": _FORMAT_VERSION,
            "name": self.name,
            "engine": self.engine,
            "input_binding_names": self.input_binding_names,
            "output_binding_names": self.output_binding_names,
            "aliased_io": self.aliased_io,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes what `get_extra_state` gave. ValueError: it is of another version or of something else."""
        if not isinstance(state, dict) or state.get("version") != _FORMAT_VERSION:
            raise ValueError(
                "the extra state is not that of a TorchTensorRTModule of this version: save it again with the "
                "version that is installed"
            )
        self.name = state["name"]
        self.input_binding_names = list(state["input_binding_names"])
        self.output_binding_names = list(state["output_binding_names"])
        self.aliased_io = dict(state.get("aliased_io", {}))
        if state["engine"] is not None:
            self._set_engine(_as_tensor(state["engine"]))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.engine is not None:
            hold(self, self.engine)

    def extra_repr(self) -> str:
        if self.engine is None:
            return "no engine"
        inputs, outputs = self.input_binding_names, self.output_binding_names
        return f"{', '.join(inputs)} -> {', '.join(outputs)}; {self.engine.numel()} bytes"

    def _require_engine(self) -> torch.Tensor:
        if self.engine is None:
            raise RuntimeError("this TorchTensorRTModule has no engine")
        return self.engine


def check_optimization_profile(profile: int | str | None) -> None:
    """TypeError or ValueError for what is neither the number of a profile, "auto" nor None."""
    if profile is None or profile == "auto":
        return
    if isinstance(profile, bool) or not isinstance(profile, int):
        raise TypeError(f'optimization profile is {profile!r}, expected a number, "auto" or None')
    if profile < 0:
        raise ValueError(f"optimization profile is {profile}, expected 0 or more")


def _check_compatibility(given: dict[str, Any]) -> None:
    known = (
        "requires_output_allocator",
        "requires_native_multidevice",
        "symbolic_shape_expressions",
        "aliased_io",
    )
    for key in given:
        if key not in known:
            raise TypeError(f"TorchTensorRTModule() got an unexpected keyword argument {key!r}")
    if given.get("requires_native_multidevice"):
        raise ValueError("requires_native_multidevice=True: engines run on one device, the CPU")


def _check_aliases(given: dict[str, Any], updates: dict[str, str]) -> None:
    """ValueError: not what the engine says."""
    wanted = {o: i[0] if isinstance(i, (tuple, list)) else i for o, i in given.items()}
    if wanted != updates:
        raise ValueError(f"aliased_io is {wanted}, but what the engine updates is {updates}")


def _as_tensor(engine: Any) -> torch.Tensor:
    """The engine as a tensor, at an address that is aligned for its weights."""
    if isinstance(engine, torch.Tensor):
        if engine.dtype is not torch.uint8 or engine.dim() != 1:
            raise TypeError(
                f"serialized_engine is a tensor of {engine.dtype} with {engine.dim()} dimensions, expected "
                "one dimension of torch.uint8"
            )
        return engine.contiguous()
    if not isinstance(engine, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"serialized_engine is {type(engine).__name__}, expected bytes or a uint8 tensor: "
            "torch_tensorrt.convert_method_to_trt_engine makes them"
        )
    return engine_tensor(engine)


def _check_names(kind: str, given: list[str], known: list[str], *, every: bool) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or len(set(given)) != len(given) or (every and len(given) != len(known)):
        raise ValueError(
            f"{kind}_binding_names is {given}, but the {kind}s of the engine are {known}: give "
            f"{'each of them once' if every else 'some of them'}"
        )


# Its name in scripts that asked for the runtime in Python; there is one runtime.
PythonTorchTensorRTModule = TorchTensorRTModule
