"""The keywords of Torch-TensorRT: a table of the words that versions 1.4 to 2.14 took, and what they are here.

Public code calls `dynamo.trace`, `dynamo.compile`, `ts.compile`, `save` and the others with one dictionary for all of
them, written for some version. A word is one of three things: a field of `CompilationSettings`, which means what it
means; a word of this table, which becomes an option or gives a warning that says what to do; or an error, because no
version knew it.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torch_tensorrt import _enums


def _is_set(value: Any) -> bool:
    """Whether a value asks for anything: None, False, 0 and empty collections are the defaults of their words."""
    return not (value is None or value is False or (hasattr(value, "__len__") and not len(value)))


def _always(_: Any) -> bool:
    return True


def _is_another_ir(value: Any) -> bool:
    return value not in (None, "dynamo", "default", "torch_compile")


def _is_lower_precision(value: Any) -> bool:
    """Whether precisions other than f32 are among those enabled."""
    given = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return any(
        _enums.dtype.try_from(item) is not _enums.dtype.f32 for item in given if item is not None
    )


@dataclass(frozen=True)
class Word:
    """A keyword that is not a field of `CompilationSettings`, or one that needs a word of advice.

    `becomes` gives the options that say the same here. `asks` tells whether a value asks for something: only then there
    is a warning.
    """

    advice: str = ""
    becomes: Callable[[Any], dict[str, Any]] | None = None
    asks: Callable[[Any], bool] = _is_set
    deprecated: bool = False  # by Torch-TensorRT itself

    def apply(self, name: str, value: Any, caller: str, options: dict[str, Any]) -> None:
        """Adds what the word becomes to options that do not say it themselves, and warns."""
        for key, meant in (self.becomes(value) if self.becomes is not None else {}).items():
            options.setdefault(key, meant)
        if self.advice and self.asks(value):
            kind = DeprecationWarning if self.deprecated else UserWarning
            warn(f"{caller}: option {name!r} {self.advice}", kind)


_REFIT = Word(
    "is deprecated: use immutable_weights=False instead",
    becomes=lambda value: {"immutable_weights": not value},
    deprecated=True,
)
_PRECISION = Word(
    "has no effect: results have the precision of the model; convert it first, with .half() or .bfloat16(), export "
    "it under torch.autocast, or give enable_autocast=True and autocast_low_precision_type",
    becomes=lambda value: {} if value is None else {"enabled_precisions": value},
    asks=_is_lower_precision,
)
_OF_TRACE = Word(
    "belongs to the export and not to this call: give it to torch_tensorrt.dynamo.trace or torch.export.export"
)
_OF_SAVE = Word("belongs to torch_tensorrt.save: give it there", asks=_always)
_OF_CONVERT = Word(
    "names the inputs or outputs of one whole engine: give it to "
    "torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine"
)
_OF_CALIBRATION = Word(
    "has no effect: engines compute in the precision of the model; quantise it with torch.ao or torchao first"
)
_OF_FX = Word(
    "belonged to ir='fx', which is not there: compile with ir='dynamo', which needs no such option"
)
_OF_EXECUTORCH = Word(
    "belongs to output_format='executorch', which is not there: save as 'exported_program' or 'aot_inductor'"
)
_OF_EMBEDDING = Word(
    "belongs to torch_tensorrt.ts.embed_engine_in_new_module or runtime.TorchTensorRTModule: give it there"
)

WORDS: dict[str, Word] = {
    # Names of options that were called something else.
    "capability": Word(becomes=lambda value: {"engine_capability": value}),
    "truncate_long_and_double": Word(
        "is deprecated and has no effect: 64-bit types are kept",
        becomes=lambda value: {"truncate_double": bool(value)},
        deprecated=True,
    ),
    "refit": _REFIT,
    "make_refittable": _REFIT,
    "enabled_precisions": _PRECISION,
    "precision": Word(
        _PRECISION.advice,
        becomes=lambda value: {"enabled_precisions": {value}},
        asks=_is_lower_precision,
    ),
    # Slips of published scripts, which Torch-TensorRT let pass.
    "enable_precisions": Word(
        "is called enabled_precisions, which has no effect either", asks=_is_lower_precision
    ),
    "truncate_and_double": Word(
        "is called truncate_double, which has no effect either: 64-bit types are kept"
    ),
    # What other calls of the same script take.
    "ir": Word(
        "is not taken here, where ir='dynamo' is what happens: call torch_tensorrt.compile(module, ir=...) for another",
        asks=_is_another_ir,
    ),
    "output_format": _OF_SAVE,
    "retrace": _OF_SAVE,
    "extra_files": _OF_SAVE,
    "pickle_protocol": _OF_SAVE,
    "use_legacy_exporter": _OF_SAVE,
    "inductor_configs": _OF_SAVE,
    "strict": _OF_TRACE,
    "dynamic_shapes": _OF_TRACE,
    "prefer_deferred_runtime_asserts_over_guards": _OF_TRACE,
    "allow_complex_guards_as_runtime_asserts": _OF_TRACE,
    "arg_input_binding_names": _OF_CONVERT,
    "kwarg_input_binding_names": _OF_CONVERT,
    "input_binding_names": _OF_EMBEDDING,
    "output_binding_names": _OF_CONVERT,
    "method_name": Word(
        "belongs to torch_tensorrt.convert_method_to_trt_engine: give it there",
        asks=lambda value: value not in (None, "forward"),
    ),
    "input_signature": Word(
        "belongs to torch_tensorrt.ts.compile and ir='ts': give the inputs as arg_inputs"
    ),
    "weight_streaming_budget": Word(
        "belongs to MutableTorchTensorRTModule; of other modules, torch_tensorrt.runtime.weight_streaming sets it"
    ),
    # Without a meaning here.
    "debug": Word(
        "is deprecated and has no effect: use `with torch_tensorrt.logging.debug():` instead",
        deprecated=True,
    ),
    "use_python_runtime": Word(
        "is deprecated and has no effect: there is one runtime",
        asks=lambda value: value is not None,
        deprecated=True,
    ),
    "torch_executed_modules": Word(
        "is deprecated and has no effect: name operators in torch_executed_ops instead",
        deprecated=True,
    ),
    "torch_fallback": Word(
        "has no effect: use min_block_size, torch_executed_ops and require_full_compilation instead"
    ),
    "allow_shape_tensors": Word(),
    "lift_mutable_buffers": Word(
        "belongs to torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine: modules that were "
        "compiled keep changed buffers, and their engines change them in place"
    ),
    "use_aot_joint_export": Word(),
    "cross_compile_module": Word("has no effect: engines are for Linux on x86-64"),
    "calibrator": _OF_CALIBRATION,
    "algo_type": _OF_CALIBRATION,
    "cache_file": _OF_CALIBRATION,
    "use_cache": _OF_CALIBRATION,
    **dict.fromkeys(
        (
            *("lower_precision", "max_batch_size", "max_workspace_size", "min_acc_module_size"),
            *("explicit_batch_dimension", "verbose_log", "timing_cache_prefix", "dynamic_batch"),
            *("save_timing_cache", "cuda_graph_batch_size", "is_aten", "use_experimental_fx_rt"),
            *("correctness_atol", "correctness_rtol"),
        ),
        _OF_FX,
    ),
    **dict.fromkeys(
        (
            *("partitioners", "compile_specs", "transform_passes", "constant_methods"),
            *("compile_config", "backend_config", "generate_etrecord"),
            "weight_streaming_budget_per_engine",
        ),
        _OF_EXECUTORCH,
    ),
}


def translate(options: Mapping[str, Any], known: Iterable[str], caller: str) -> dict[str, Any]:
    """Options in today's words, with a warning for each that asks for what is not there.

    Args:
        options: keyword arguments of any version.
        known: the words that the caller takes itself.
        caller: for messages.

    Raises:
        TypeError: a word that no version knew; it names the nearest one.
    """
    known = set(known)
    check_words(options, known, caller)
    result = {name: value for name, value in options.items() if name in known}
    for name, value in options.items():
        if name in WORDS:
            result.pop(name, None)
            WORDS[name].apply(name, value, caller, result)
    return result


def check_words(names: Iterable[str], known: Iterable[str], caller: str) -> None:
    """TypeError for a word that neither the caller nor any version knew."""
    known = {*known, *WORDS}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]
            raise TypeError(
                f"{caller}() got an unknown option {name!r}; the nearest one is {near!r}"
            )


def export_words() -> set[str]:
    """What torch.export.export takes besides the model and its inputs."""
    return set(inspect.signature(torch.export.export).parameters) - {"mod", "args", "kwargs"}


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """A warning that points to the line of the caller's that called this package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "torch_tensorrt."
    ):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)
