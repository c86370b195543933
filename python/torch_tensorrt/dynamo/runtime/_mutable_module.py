"""`MutableTorchTensorRTModule`: a compiled module that follows changes of the PyTorch module that it was made from."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule

import kiln
from torch_tensorrt._arguments import input_device, sample_inputs
from torch_tensorrt._files import errors_at_the_end, replaced_file
from torch_tensorrt._quiet import quiet_torch
from torch_tensorrt.dynamo._compile_program import compile as compile_exported
from torch_tensorrt.dynamo._lift import changed_buffers, lift
from torch_tensorrt.dynamo._refit import refit_module_weights
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo._tracer import export_ranges
from torch_tensorrt.dynamo.runtime._accepted import AcceptedInputs
from torch_tensorrt.dynamo.runtime._model_state import same_kinds, structure_state, weight_state
from torch_tensorrt.formats.load import LoadedProgram
from torch_tensorrt.runtime._weight_streaming import Budgets

logger = logging.getLogger(__name__)


@dataclass
class _Compiled:
    module: GraphModule
    accepted: AcceptedInputs
    program: ExportedProgram  # of `module`, for saving
    source: ExportedProgram | None  # what it was compiled from; None if it came from a file


class MutableTorchTensorRTModule:
    """Wraps a module: the first call compiles it, and a call after a change takes the change into account.

    Attributes are those of the module, to read and to write. What is noticed: new weights, weights written in place,
    `load_state_dict`, plain attributes and hooks of any submodule, replaced submodules. What is not: writing through
    `tensor.data`, and changes inside lists, dictionaries or objects that are not modules. Calls are for inference:
    their results have no gradients.

    Every combination of input shapes has its own engines, unless `set_expected_dynamic_shape_range` says what varies.
    """

    def __init__(
        self,
        pytorch_model: torch.nn.Module,
        *,
        device: Any = None,
        immutable_weights: bool = False,
        strict: bool = True,
        prefer_deferred_runtime_asserts_over_guards: bool = False,
        weight_streaming_budget: int | None = None,
        **settings: Any,
    ) -> None:
        """Compiles nothing yet.

        Args:
            pytorch_model: a module in eval mode. It stays the user's: changes to it are seen.
            device: the device of the engines.
            immutable_weights: False.
            strict, prefer_deferred_runtime_asserts_over_guards: as in torch.export.export.
            weight_streaming_budget: see `set_weight_streaming_ctx`.
            settings: see `CompilationSettings`.

        Raises:
            TypeError, ValueError: an option that is not known or not possible.
        """
        if immutable_weights:
            raise ValueError("immutable_weights has to be False for a MutableTorchTensorRTModule")
        if not isinstance(pytorch_model, torch.nn.Module):
            raise TypeError(f"got {type(pytorch_model).__name__}, expected a torch.nn.Module")
        if device is not None:
            settings["device"] = device
        if settings.get("offload_module_to_cpu"):
            logger.warning(
                "offload_module_to_cpu=True is ignored: the module is traced again when it changes"
            )
        options = {**settings, "immutable_weights": False, "offload_module_to_cpu": False}
        CompilationSettings.from_options(options, type(self).__name__)
        self.__dict__.update(
            pytorch_model=pytorch_model,
            _settings=options,
            _export_options={
                "strict": strict,
                "prefer_deferred_runtime_asserts_over_guards": prefer_deferred_runtime_asserts_over_guards,
            },
            _dynamic_shapes=None,
            _compiled=[],
            _weights={},
            _structure=[],
            _written=set(),
            _last_inputs=None,
            _weight_budget=None,
        )
        self.set_weight_streaming_ctx(weight_streaming_budget)

    # Calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the compiled module; compiles it before if the model changed or these inputs need it."""
        self._last_inputs = (args, kwargs)
        self._follow_changes()
        compiled = self._find(args, kwargs) or self._compile(args, kwargs)
        with torch.no_grad():
            return compiled.module(*args, **kwargs)

    def compile(self) -> None:
        """Compiles for the inputs of the last call, whether it is necessary or not."""
        self._forget()
        self._compile(*self._inputs_of_last_call("compile"))

    def refit_gm(self) -> None:
        """Takes the current weights over into the engines now, and not at the next call."""
        self._inputs_of_last_call("refit_gm")
        if structure_state(self.pytorch_model) != self._structure:
            self._follow_changes()
        self._update_weights()

    def _inputs_of_last_call(self, caller: str) -> Any:
        if self._last_inputs is None:
            raise RuntimeError(f"{caller}() needs example inputs: call the module once before")
        return self._last_inputs

    def _find(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Compiled | None:
        return next((item for item in self._compiled if item.accepted.fit(args, kwargs)), None)

    def _compile(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Compiled:
        program = self._export(args, kwargs)
        module = compile_exported(program, arg_inputs=args, kwarg_inputs=kwargs, **self._settings)
        return self._add(module, lift(module), program)

    def _export(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
        samples, keyword_samples = sample_inputs(
            self.pytorch_model, args, kwargs, self._settings.get("device")
        )
        return export_ranges(
            self.pytorch_model,
            samples,
            keyword_samples,
            self._shapes_by_parameter(args),
            **self._export_options,
        )

    def _add(
        self, module: GraphModule, program: ExportedProgram, source: ExportedProgram | None
    ) -> _Compiled:
        specs = program.graph_signature.input_specs
        placeholders = program.graph.find_nodes(op="placeholder")
        examples = [
            node.meta.get("val", getattr(spec.arg, "value", None))
            for node, spec in zip(placeholders, specs, strict=True)
            if spec.kind is InputKind.USER_INPUT
        ]
        accepted = AcceptedInputs(program.call_spec.in_spec, examples, program.range_constraints)
        self._share_written_buffers(module, program)
        if self._limits_weights():
            self._limit_weights(module)
        self._compiled.append(_Compiled(module, accepted, program, source))
        self._structure = structure_state(self.pytorch_model)
        self._weights = weight_state(self.pytorch_model, self._written)
        return self._compiled[-1]

    def _share_written_buffers(self, module: GraphModule, program: ExportedProgram) -> None:
        """Makes the compiled module write to the buffers of the model, and not to copies."""
        buffers = dict(self.pytorch_model.named_buffers(remove_duplicate=False))
        for name in changed_buffers(program):
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, buffers[name])
            self._written.add(name)

    # Following changes

    def _follow_changes(self) -> None:
        if not self._compiled:
            return
        weights = weight_state(self.pytorch_model, self._written)
        same_structure = structure_state(self.pytorch_model) == self._structure
        if same_structure and weights == self._weights:
            return
        if same_structure and same_kinds(self._weights, weights):
            logger.info("weights changed since the engines were built")
            self._update_weights()
        else:
            logger.info("the module changed since the engines were built: compiling it again")
            self._forget()

    def _update_weights(self) -> None:
        """Brings the engines up to date with weights of the same shapes; calls compile what cannot be refitted."""
        kept = [item for item in self._compiled if self._refit(item)]
        self._compiled[:] = kept
        self._weights = weight_state(self.pytorch_model, self._written)

    def _refit(self, item: _Compiled) -> bool:
        """Gives the engines of a compiled module the current weights; False if they cannot take them."""
        try:
            if (
                item.source is None
            ):  # from a file: exported once more, with inputs that it was made for
                args, kwargs = self._last_inputs or ((), {})
                if not item.accepted.fit(args, kwargs):
                    return False
                item.source = self._export(args, kwargs)
            source = _with_tensors(item.source, self.pytorch_model)
            refit_module_weights(item.module, source, in_place=True)
        except (ValueError, TypeError, kiln.KilnError) as error:
            logger.info("the engines are built again, because they cannot be refitted: %s", error)
            return False
        item.program = _with_tensors(item.program, item.module)
        self._share_written_buffers(item.module, item.program)
        if self._limits_weights():
            self._limit_weights(item.module)
        return True

    def _forget(self) -> None:
        self._compiled.clear()
        self._written.clear()

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As torch.nn.Module's; the next call uses the new weights."""
        return self.pytorch_model.load_state_dict(state_dict, *args, **kwargs)

    def to(self, *args: Any, **kwargs: Any) -> MutableTorchTensorRTModule:
        """As torch.nn.Module's; the next call compiles for the new dtype or device."""
        self.pytorch_model.to(*args, **kwargs)
        return self

    def set_expected_dynamic_shape_range(
        self, args_dynamic_shape: Sequence[Any], kwargs_dynamic_shape: Mapping[str, Any]
    ) -> None:
        """Says what sizes vary.

        Args:
            args_dynamic_shape: per positional input what torch.export takes in `dynamic_shapes`, such as
                `{0: torch.export.Dim("batch", min=1, max=32)}`; `{}` for fixed sizes.
            kwargs_dynamic_shape: likewise, by name.
        """
        if not isinstance(args_dynamic_shape, (tuple, list)):
            raise ValueError(
                f"args_dynamic_shape is {type(args_dynamic_shape).__name__}, expected a tuple with an entry per input"
            )
        if not isinstance(kwargs_dynamic_shape, Mapping):
            raise ValueError(
                f"kwargs_dynamic_shape is {type(kwargs_dynamic_shape).__name__}, expected a dictionary"
            )
        self._dynamic_shapes = (tuple(args_dynamic_shape), dict(kwargs_dynamic_shape))
        self._forget()

    def _shapes_by_parameter(self, args: tuple[Any, ...]) -> dict[str, Any] | None:
        if self._dynamic_shapes is None:
            return None
        shapes, keyword_shapes = self._dynamic_shapes
        if len(shapes) != len(args):
            raise ValueError(
                f"set_expected_dynamic_shape_range got {len(shapes)} positional inputs, but the call has {len(args)}"
            )
        bound = inspect.signature(self.pytorch_model.forward).bind_partial(*shapes)
        return {**bound.arguments, **keyword_shapes}

    def set_weight_streaming_ctx(self, requested_budget: int | None = None) -> None:
        """Bytes of a GPU's memory for the weights of the engines, of each combination of input shapes.

        Args:
            requested_budget: see `torch_tensorrt.runtime.weight_streaming`. None: as much as is free when engines are
                made, if the setting `enable_weight_streaming` is True, and otherwise no limit.

        Raises:
            NotImplementedError: the module is on the CPU. RuntimeError: a negative budget.
        """
        if requested_budget is not None and input_device(self.pytorch_model).type != "cuda":
            raise NotImplementedError(
                f"weight_streaming_budget is {requested_budget}, expected None: engines on the CPU do not copy weights "
                "to a device"
            )
        if requested_budget is not None and requested_budget < 0:
            raise RuntimeError(
                f"weight_streaming_budget is {requested_budget}, expected 0 or more bytes"
            )
        self.__dict__["_weight_budget"] = requested_budget
        for item in self._compiled:
            self._limit_weights(item.module)

    def _limits_weights(self) -> bool:
        return self._weight_budget is not None or bool(
            self._settings.get("enable_weight_streaming", False)
        )

    def _limit_weights(self, module: GraphModule) -> None:
        budgets = Budgets(module)
        if budgets.total == 0:
            return
        if self._weight_budget is not None:
            budgets.divide(self._weight_budget)
        else:
            budgets.divide(budgets.automatic() if self._limits_weights() else budgets.total)

    # Looking like the module

    def __getattr__(self, name: str) -> Any:
        if "pytorch_model" not in self.__dict__:  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.pytorch_model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            self.__dict__[name] = value
        else:
            setattr(self.pytorch_model, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.pytorch_model, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pytorch_model!r})"

    # Files

    @staticmethod
    def save(module: MutableTorchTensorRTModule, path: str | os.PathLike[str]) -> None:
        """Saves the module with its engines.

        The PyTorch module is pickled by torch.save, because only its class knows what it computes; engines are kept as
        exported programs. The file appears only when it is complete.
        """
        module._follow_changes()
        content = {
            "pytorch_model": module.pytorch_model,
            "settings": module._settings,
            "export_options": module._export_options,
            "dynamic_shapes": module._dynamic_shapes,
            "weight_budget": module._weight_budget,
            "programs": [_to_bytes(item.program) for item in module._compiled],
        }
        with replaced_file(path) as file, errors_at_the_end(file) as archive:
            torch.save(content, archive)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> MutableTorchTensorRTModule:
        """Loads what `save` wrote. It is a pickle, which can run code: load only files that you trust."""
        content = torch.load(path, weights_only=False)
        if not isinstance(content, dict) or "pytorch_model" not in content:
            raise ValueError(
                f"The file {os.fspath(path)} was not written by MutableTorchTensorRTModule.save"
            )
        options = dict(content["settings"])
        result = MutableTorchTensorRTModule(
            content["pytorch_model"], **content["export_options"], **options
        )
        result._dynamic_shapes = content["dynamic_shapes"]
        result.set_weight_streaming_ctx(content.get("weight_budget"))
        for saved in content["programs"]:
            with quiet_torch():
                program = torch.export.load(io.BytesIO(saved))
            program.__class__ = LoadedProgram
            result._add(program.module(), program, None)
        return result


def _with_tensors(program: ExportedProgram, module: torch.nn.Module) -> ExportedProgram:
    """A program with the parameters and buffers that a module has under the same names."""
    now = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    result = copy.copy(program)
    result._state_dict = {name: now.get(name, old) for name, old in program.state_dict.items()}
    result._constants = {name: now.get(name, old) for name, old in program.constants.items()}
    return result


def _to_bytes(program: ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    with quiet_torch():
        torch.export.save(program, buffer)
    return buffer.getvalue()
