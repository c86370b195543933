"""`Input`: the shapes, dtype and name of one input of a model."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torch_tensorrt import _enums

Shape = tuple[int, ...]


class Input:
    """Describes an input: `Input(shape)` for a fixed shape, or `Input(min_shape=, opt_shape=, max_shape=)`.

    Args:
        shape: the shape, when it is fixed. A namedtuple names its axes, which are then shared by name.
        min_shape, opt_shape, max_shape: the smallest, the most usual and the largest shape.
        profiles: several ranges, each {"min_shape": ..., "opt_shape": ..., "max_shape": ...} (or "min", "opt", "max");
            an engine covers them all.
        shape_ranges: with `shape`, a list of (min, opt, max): the older way to give ranges.
        dtype: torch, NumPy or `torch_tensorrt.dtype`; float32 if unknown.
        format: accepted for compatibility: engines read any strides.
        tensor_domain: [low, high): range of the values of example tensors.
        torch_tensor: an example tensor to use instead of a random one.
        name: name of the input; dynamic axes are called `{name}_{axis}` when a model is saved.
        is_shape_tensor: accepted for compatibility.
        shared_dims: {axis: name}: axes of one name have one size in all inputs.
    """

    class _ShapeMode(enum.Enum):
        STATIC = 0
        DYNAMIC = 1

    DOMAIN_OFFSET = 2.0

    def __init__(
        self,
        *args: Any,
        shape: Any = None,
        min_shape: Any = None,
        opt_shape: Any = None,
        max_shape: Any = None,
        profiles: Sequence[Mapping[str, Any]] | None = None,
        shape_ranges: Sequence[tuple[Any, Any, Any]] | None = None,
        dtype: Any = _enums.dtype.unknown,
        format: Any = _enums.memory_format.linear,
        tensor_domain: tuple[float, float] = (0.0, DOMAIN_OFFSET),
        torch_tensor: torch.Tensor | None = None,
        name: str = "",
        is_shape_tensor: bool = False,
        shared_dims: Mapping[int, str] | None = None,
    ) -> None:
        if len(args) > 1:
            raise TypeError(
                f"Input takes one positional argument, the shape, but {len(args)} were given"
            )
        if args and shape is not None:
            raise ValueError("Input was given its shape twice: by position and by keyword")
        shape = args[0] if args else shape
        if shape_ranges:
            min_shape, opt_shape, max_shape = shape_ranges[0]
            shape = None
        ranges = (min_shape, opt_shape, max_shape)
        self.name = name
        self.is_shape_tensor = is_shape_tensor
        self._set_shapes(shape, ranges, profiles)
        _check_axis_names(ranges, shared_dims)
        self._set_shared_dims(shape if shape is not None else min_shape, shared_dims)
        self.dtype = _enums.dtype._from(dtype)
        self.format = _enums.memory_format._from(format)
        self.tensor_domain = _check_domain(tensor_domain)
        self.torch_tensor = torch_tensor
        # The TorchScript front end takes the dtype of a module's weights then.
        self._has_default_dtype = self.dtype is _enums.dtype.unknown and torch_tensor is None
        if self.dtype is _enums.dtype.unknown:
            self.dtype = (
                _enums.dtype._from(torch_tensor.dtype)
                if torch_tensor is not None
                else _enums.dtype.f32
            )

    def _set_shapes(
        self, shape: Any, ranges: tuple[Any, Any, Any], profiles: Sequence[Mapping[str, Any]] | None
    ) -> None:
        given = [value is not None for value in ranges]
        if sum((shape is not None, any(given), profiles is not None)) > 1:
            raise ValueError(
                "Found that both shape (for static inputs) and one or more of min_shape, opt_shape, max_shape or "
                "profiles (for dynamic inputs) were given: give one of them"
            )
        if profiles is not None:
            self.profiles = [_read_profile(profile) for profile in profiles]
            if not self.profiles:
                raise ValueError("profiles is empty, expected at least one range of shapes")
        elif any(given):
            if not all(given):
                raise ValueError(
                    "Missing one or more arguments for a dynamic input shape: min_shape, opt_shape and max_shape are "
                    "all needed"
                )
            low, opt, high = (_read_shape(value) for value in ranges)
            self.profiles = [{"min_shape": low, "opt_shape": opt, "max_shape": high}]
        elif shape is not None:
            self.shape_mode, self.shape, self.profiles = (
                Input._ShapeMode.STATIC,
                _read_shape(shape),
                [],
            )
            return
        else:
            raise ValueError(
                "Input needs a shape, or min_shape, opt_shape and max_shape, or profiles"
            )
        for profile in self.profiles:
            _check_profile(profile)
        first = self.profiles[0]
        self.shape_mode = Input._ShapeMode.DYNAMIC
        self.shape: Any = {
            "min_shape": _axis_wise(min, self.profiles, "min_shape"),
            "opt_shape": first["opt_shape"],
            "max_shape": _axis_wise(max, self.profiles, "max_shape"),
        }

    def _set_shared_dims(self, source: Any, shared_dims: Mapping[int, str] | None) -> None:
        self.shared_dims: dict[int, str] = dict(shared_dims or {})
        if shared_dims and not self.is_dynamic:
            raise ValueError(
                "shared_dims was given for an input of a fixed shape, expected a dynamic one"
            )
        for axis in self.shared_dims:
            if not 0 <= axis < len(self.min_shape):
                raise ValueError(
                    f"shared_dims names axis {axis}, but the input has {len(self.min_shape)} dimensions"
                )
            if self.min_shape[axis] == self.max_shape[axis]:
                raise ValueError(
                    f"shared_dims names axis {axis}, whose size is fixed at {self.min_shape[axis]}"
                )
        if not shared_dims and self.is_dynamic and hasattr(source, "_fields"):
            dynamic = [
                low != high for low, high in zip(self.min_shape, self.max_shape, strict=True)
            ]
            self.shared_dims = {
                axis: field for axis, field in enumerate(source._fields) if dynamic[axis]
            }

    @property
    def is_dynamic(self) -> bool:
        """Whether any range was given; min, opt and max may still be equal on some axes, or on all."""
        return self.shape_mode is Input._ShapeMode.DYNAMIC

    @property
    def min_shape(self) -> Shape:
        return self.shape["min_shape"] if self.is_dynamic else self.shape

    @property
    def opt_shape(self) -> Shape:
        return self.shape["opt_shape"] if self.is_dynamic else self.shape

    @property
    def max_shape(self) -> Shape:
        return self.shape["max_shape"] if self.is_dynamic else self.shape

    def dynamic_axes(self) -> dict[int, tuple[int, int]]:
        """The axes whose size may vary, with their smallest and largest sizes."""
        pairs = enumerate(zip(self.min_shape, self.max_shape, strict=True))
        return {axis: (low, high) for axis, (low, high) in pairs if low != high}

    @staticmethod
    def equivalent_spec(a: Input, b: Input) -> bool:
        """Whether two inputs take the same shapes, dtype and format."""
        same_shapes = a.shape_mode is b.shape_mode and a.shape == b.shape
        return same_shapes and a.dtype is b.dtype and a.format is b.format

    @classmethod
    def from_tensor(cls, t: torch.Tensor, disable_memory_format_check: bool = False) -> Input:
        """An input of the shape and dtype of a tensor."""
        layouts = (torch.contiguous_format, torch.channels_last)
        is_known = disable_memory_format_check or any(_has_layout(t, layout) for layout in layouts)
        if not is_known:
            raise ValueError(
                "the tensor is neither contiguous nor channels-last: call .contiguous() on it, or pass "
                "disable_memory_format_check=True"
            )
        contiguous = disable_memory_format_check or t.is_contiguous()
        layout = torch.contiguous_format if contiguous else torch.channels_last
        return cls(tuple(t.shape), dtype=t.dtype, format=layout, torch_tensor=t)

    @classmethod
    def from_tensors(cls, ts: Any, disable_memory_format_check: bool = False) -> Any:
        """Inputs for a list, tuple or dictionary of tensors, in the same structure."""
        if isinstance(ts, (list, tuple)):
            return [cls.from_tensor(t, disable_memory_format_check) for t in ts]
        if isinstance(ts, dict):
            return {key: cls.from_tensor(t, disable_memory_format_check) for key, t in ts.items()}
        raise ValueError(
            f"from_tensors got {type(ts).__name__}, expected a list, tuple or dictionary of tensors"
        )

    def example_tensor(self, optimization_profile_field: str | None = None) -> torch.Tensor:
        """A random tensor of this input's dtype, of its shape or of the shape that the field names.

        Args:
            optimization_profile_field: "min_shape", "opt_shape" or "max_shape" of a dynamic input.
        """
        if not self.is_dynamic:
            if optimization_profile_field is not None:
                raise ValueError(
                    "Specified a optimization profile field but the input is static: leave the argument out"
                )
            return (
                self.torch_tensor
                if self.torch_tensor is not None
                else self._random_tensor(self.shape)
            )
        fields = tuple(self.shape)
        if optimization_profile_field is None:
            raise ValueError(
                "Requested an example tensor from a dynamic shaped input but did not specific which profile field to "
                f"use: {', '.join(fields)}"
            )
        if optimization_profile_field not in fields:
            raise ValueError(
                f"profile field is {optimization_profile_field!r}, expected {', '.join(fields)}"
            )
        return self._random_tensor(self.shape[optimization_profile_field])

    def _random_tensor(self, shape: Shape) -> torch.Tensor:
        low, high = self.tensor_domain
        return (torch.rand(shape) * (high - low) + low).to(
            self.dtype.to(torch.dtype, use_default=True)
        )

    def __str__(self) -> str:
        if not self.is_dynamic:
            shape = f"shape={self.shape}"
        elif len(self.profiles) > 1:
            shape = f"profiles={self.profiles}"
        else:
            shape = ", ".join(f"{field}={value}" for field, value in self.shape.items())
        name = f", name={self.name!r}" if self.name else ""
        return f"Input({shape}, dtype={self.dtype.name}, format={self.format.name}{name})"

    __repr__ = __str__


def _check_axis_names(ranges: tuple[Any, Any, Any], shared_dims: Mapping[int, str] | None) -> None:
    """Named axes of min_shape, opt_shape and max_shape are the same, and named once."""
    names = [getattr(shape, "_fields", None) for shape in ranges]
    if names[0] is None:
        return
    if None in names:
        raise TypeError(
            "min_shape is a namedtuple, expected opt_shape and max_shape to be of its type"
        )
    if any(other != names[0] for other in names):
        low, opt, high = (", ".join(fields) for fields in names)
        raise ValueError(
            f"the axes of min_shape are {low}, those of opt_shape {opt} and of max_shape {high}: expected the same "
            "names"
        )
    if shared_dims:
        raise ValueError(
            "axes are named by the namedtuple min_shape and by shared_dims: give one of them"
        )


def _read_shape(value: Any) -> Shape:
    if not isinstance(value, (list, tuple, torch.Size)):
        raise TypeError(
            f"Input shape is {type(value).__name__}, expected a list, tuple or torch.Size of integers"
        )
    for size in value:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(
                f"Input shape {tuple(value)} has the size {size!r}, expected an integer"
            )
        if size < 0:
            raise ValueError(f"Input shape {tuple(value)} has the size {size}, expected 0 or more")
    return tuple(value)


def _read_profile(profile: Mapping[str, Any]) -> dict[str, Shape]:
    if not isinstance(profile, Mapping):
        raise TypeError(
            f"a profile is {type(profile).__name__}, expected a dictionary of min, opt and max shapes"
        )
    result = {}
    for field in ("min", "opt", "max"):
        value = profile.get(field, profile.get(f"{field}_shape"))
        if value is None:
            raise ValueError(
                f"a profile has the keys {', '.join(profile)}, expected min, opt and max"
            )
        result[f"{field}_shape"] = _read_shape(value)
    if any(size < 1 for size in result["min_shape"]):
        raise ValueError(
            f"a profile has the min shape {result['min_shape']}, expected sizes of 1 or more"
        )
    return result


def _check_profile(profile: Mapping[str, Shape]) -> None:
    low, opt, high = profile["min_shape"], profile["opt_shape"], profile["max_shape"]
    if not len(low) == len(opt) == len(high):
        raise ValueError(
            f"min, opt and max shapes have {len(low)}, {len(opt)} and {len(high)} dimensions: must match"
        )
    for axis, (a, b, c) in enumerate(zip(low, opt, high, strict=True)):
        if not a <= b <= c:
            raise ValueError(
                f"axis {axis} has min {a}, opt {b}, max {c}, expected min <= opt <= max"
            )


def _axis_wise(choose: Any, profiles: Sequence[Mapping[str, Shape]], field: str) -> Shape:
    ranks = {len(profile[field]) for profile in profiles}
    if len(ranks) > 1:
        raise ValueError(f"profiles have shapes of {sorted(ranks)} dimensions: must match")
    return tuple(
        choose(sizes) for sizes in zip(*(profile[field] for profile in profiles), strict=True)
    )


def _check_domain(domain: Any) -> tuple[float, float]:
    if not isinstance(domain, (list, tuple)) or len(domain) != 2 or not domain[0] < domain[1]:
        raise ValueError(
            f"tensor_domain is {domain!r}, expected two numbers (low, high) with low < high"
        )
    return (float(domain[0]), float(domain[1]))


def _has_layout(t: torch.Tensor, layout: torch.memory_format) -> bool:
    return (layout is not torch.channels_last or t.dim() == 4) and t.is_contiguous(
        memory_format=layout
    )
