"""`Input`: every way to make one, and every way to get it wrong."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch

import torch_tensorrt
from torch_tensorrt import Input, dtype, memory_format
from torch_tensorrt._arguments import sample_inputs


def dynamic(**more: object) -> Input:
    return Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(4, 3), **more)


@pytest.mark.parametrize("shape", [(1, 2), [1, 2], torch.Size([1, 2])])
def test_static_by_position_and_by_keyword(shape) -> None:
    for value in (Input(shape), Input(shape=shape)):
        assert not value.is_dynamic
        assert value.shape == value.min_shape == value.opt_shape == value.max_shape == (1, 2)
        assert value.dtype is dtype.f32
        assert value.format is memory_format.linear
        assert value.dynamic_axes() == {}


def test_range() -> None:
    value = dynamic(dtype=torch.int64, name="ids")
    assert value.is_dynamic
    assert value.shape == {"min_shape": (1, 3), "opt_shape": (2, 3), "max_shape": (4, 3)}
    assert value.dynamic_axes() == {0: (1, 4)}
    assert value.dtype is dtype.i64
    assert value.name == "ids"


def test_profiles_are_covered_together() -> None:
    profiles = [
        {"min": (1, 8), "opt": (1, 16), "max": (1, 32)},
        {"min_shape": (4, 1), "opt_shape": (8, 1), "max_shape": (16, 1)},
    ]
    value = Input(profiles=profiles)
    assert (value.min_shape, value.opt_shape, value.max_shape) == ((1, 1), (1, 16), (16, 32))


def test_shape_ranges_of_the_older_form() -> None:
    value = Input(shape=(-1, 3), shape_ranges=[((1, 3), (2, 3), (4, 3))])
    assert value.dynamic_axes() == {0: (1, 4)}


def test_namedtuple_shapes_share_their_dynamic_axes() -> None:
    shape = namedtuple("Shape", ["batch", "width"])
    value = Input(min_shape=shape(1, 3), opt_shape=shape(2, 3), max_shape=shape(4, 3))
    assert value.shared_dims == {0: "batch"}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"shape": 3}, TypeError, "expected a list, tuple or torch.Size"),
        ({"shape": (1, 2.0)}, TypeError, "expected an integer"),
        ({"shape": (1, -2)}, ValueError, "expected 0 or more"),
        ({"shape": (1,), "min_shape": (1,)}, ValueError, "both shape"),
        ({"min_shape": (1,), "opt_shape": (2,)}, ValueError, "Missing one or more"),
        (
            {"min_shape": (3,), "opt_shape": (2,), "max_shape": (4,)},
            ValueError,
            "min <= opt <= max",
        ),
        ({"min_shape": (1,), "opt_shape": (2, 2), "max_shape": (4, 4)}, ValueError, "dimensions"),
        ({"profiles": []}, ValueError, "empty"),
        ({"profiles": [{"min": (1,), "opt": (2,)}]}, ValueError, "min, opt and max"),
        ({"profiles": [{"min": (0,), "opt": (2,), "max": (3,)}]}, ValueError, "1 or more"),
        ({"shape": (1, 2), "shared_dims": {0: "b"}}, ValueError, "fixed shape"),
        ({"shape": (1,), "tensor_domain": (2, 1)}, ValueError, "low < high"),
        ({"shape": (1,), "dtype": "f33"}, TypeError, "not a dtype"),
        ({}, ValueError, "needs a shape"),
    ],
)
def test_errors(arguments, error, text) -> None:
    with pytest.raises(error, match=text):
        Input(**arguments)


def test_two_positional_arguments() -> None:
    with pytest.raises(TypeError, match="one positional argument"):
        Input((1,), (2,))
    with pytest.raises(ValueError, match="twice"):
        Input((1,), shape=(1,))


@pytest.mark.parametrize(("shared", "text"), [({1: "w"}, "fixed at 3"), ({2: "w"}, "2 dimensions")])
def test_shared_axes_have_to_be_dynamic(shared, text) -> None:
    with pytest.raises(ValueError, match=text):
        dynamic(shared_dims=shared)


def test_a_minimum_of_zero_is_a_size_like_others(caplog) -> None:
    Input(min_shape=(0,), opt_shape=(1,), max_shape=(2,))
    assert not caplog.records


def test_example_tensors() -> None:
    value = Input((2, 3), dtype=torch.int32, tensor_domain=(5, 9)).example_tensor()
    assert value.shape == (2, 3) and value.dtype == torch.int32
    assert value.min() >= 5 and value.max() < 9
    assert dynamic().example_tensor("max_shape").shape == (4, 3)
    given = torch.ones(2)
    assert Input((2,), torch_tensor=given).example_tensor() is given


def test_example_tensor_errors() -> None:
    with pytest.raises(ValueError, match="which profile field"):
        dynamic().example_tensor()
    with pytest.raises(ValueError, match="expected min_shape"):
        dynamic().example_tensor("middle_shape")
    with pytest.raises(ValueError, match="static"):
        Input((1,)).example_tensor("min_shape")


def test_from_tensor() -> None:
    value = Input.from_tensor(torch.zeros(2, 3, dtype=torch.float16))
    assert value.shape == (2, 3) and value.dtype is dtype.f16
    image = torch.zeros(1, 3, 4, 4).to(memory_format=torch.channels_last)
    assert Input.from_tensor(image).format is memory_format.channels_last
    strided = torch.zeros(4, 6)[:, ::2]
    with pytest.raises(ValueError, match="contiguous"):
        Input.from_tensor(strided)
    assert Input.from_tensor(strided, disable_memory_format_check=True).shape == (4, 3)


def test_from_tensors() -> None:
    assert [value.shape for value in Input.from_tensors([torch.zeros(1), torch.zeros(2)])] == [
        (1,),
        (2,),
    ]
    assert Input.from_tensors({"a": torch.zeros(3)})["a"].shape == (3,)
    with pytest.raises(ValueError, match="expected a list"):
        Input.from_tensors(torch.zeros(1))


def test_equivalent_spec() -> None:
    assert Input.equivalent_spec(Input((1, 2)), Input([1, 2]))
    assert not Input.equivalent_spec(Input((1, 2)), Input((1, 2), dtype=torch.int32))
    assert not Input.equivalent_spec(Input((1, 3)), dynamic())
    assert Input.equivalent_spec(dynamic(), dynamic())


@pytest.mark.parametrize(
    "given", [torch.float16, np.float16, np.dtype("float16"), dtype.half, "f16"]
)
def test_dtypes_of_every_library(given) -> None:
    assert Input((1,), dtype=given).dtype is dtype.f16


def test_text() -> None:
    assert str(Input((1, 2), name="x")) == "Input(shape=(1, 2), dtype=f32, format=linear, name='x')"
    assert "max_shape=(4, 3)" in repr(dynamic())


def test_text_of_several_profiles_names_each() -> None:
    ranges = [{"min": (n,), "opt": (n + 1,), "max": (n + 2,)} for n in (1, 5)]
    one, both = (str(Input(profiles=ranges[:count])) for count in (1, 2))
    assert "min_shape=(1,), opt_shape=(2,), max_shape=(3,)," in one
    for shape in ("'opt_shape': (2,)", "'opt_shape': (6,)", "'max_shape': (7,)"):
        assert shape in both


def test_named_axes_are_the_same_in_all_shapes() -> None:
    first, second = namedtuple("first", ["b", "c"]), namedtuple("second", ["b", "seq"])
    with pytest.raises(ValueError, match="min_shape are b, c, those of opt_shape b, seq and of"):
        Input(min_shape=first(1, 16), opt_shape=second(4, 16), max_shape=first(4, 16))
    with pytest.raises(ValueError, match="max_shape b, seq: expected the same names"):
        Input(min_shape=first(1, 16), opt_shape=first(4, 16), max_shape=second(4, 16))
    with pytest.raises(TypeError, match="expected opt_shape and max_shape to be of its type"):
        Input(min_shape=first(1, 16), opt_shape=(4, 16), max_shape=(4, 16))
    shapes = {"min_shape": first(1, 16), "opt_shape": first(4, 16), "max_shape": first(4, 16)}
    with pytest.raises(ValueError, match="by the namedtuple min_shape and by shared_dims"):
        Input(**shapes, shared_dims={0: "b"})
    assert Input(**shapes).shared_dims == {0: "b"}


class Weightless(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def test_samples_are_where_something_of_the_module_is() -> None:
    """Its weights first, then other inputs, an Input's own tensor among them, then the device that was asked for."""
    spec, elsewhere = Input((2,)), torch.empty(2, device="meta")
    weighty = Weightless()
    weighty.bias = torch.nn.Parameter(torch.zeros(2))
    for module, given, device, expected in (
        (Weightless(), (spec, elsewhere), None, "meta"),
        (Weightless(), (spec, Input((2,), torch_tensor=elsewhere)), "cpu", "meta"),
        (Weightless(), (spec, Input((2,), torch_tensor=torch.ones(2)), elsewhere), None, "meta"),
        (Weightless(), (spec, spec), "cpu", "cpu"),
        (Weightless(), (spec, spec), None, torch_tensorrt.Device.default().to(torch.device).type),
        (weighty, (spec, elsewhere), None, "cpu"),
    ):
        args, _ = sample_inputs(module, given, None, device)
        assert args[0].device.type == expected
        _, kwargs = sample_inputs(module, None, dict(zip("xyz", given, strict=False)), device)
        assert kwargs["x"].device.type == expected
