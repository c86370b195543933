"""Inputs in dictionaries, lists and classes: any order of keys is right in every format; what is missing is named."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
import torch.fx._pytree
from torch.utils import _pytree as pytree

import torch_tensorrt
from torch_tensorrt._structure import flatten_as, flatten_inputs
from torch_tensorrt.formats import aoti

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}


class Named(torch.nn.Module):
    def forward(self, x: torch.Tensor, d: dict[str, torch.Tensor]) -> torch.Tensor:
        return x.sin() * d["scale"] - d["shift"]


class Inner(torch.nn.Module):
    def forward(self, d: dict[str, Any]) -> torch.Tensor:
        return d["b"]["u"] * 2 - d["b"]["v"] + d["a"]["w"].sin()


class Left(torch.nn.Module):
    """A dictionary that PyTorch sees and no engine."""

    def forward(self, d: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.sort(d["a"]).values - torch.sort(d["b"]).values


def calls_of(module: Any, args: Any, tmp_path: Any, how: str) -> list[Any]:
    program = torch.export.export(module.eval(), args, strict=False)
    compiled = torch_tensorrt.dynamo.compile(
        program, min_block_size=1, torch_executed_ops={"torch.ops.aten.sort.default"}
    )
    if how == "module":
        return [compiled]
    path = tmp_path / f"m.{how}"
    torch_tensorrt.save(compiled, path, output_format=FORMATS[how])
    loaded = torch_tensorrt.load(path)
    return [loaded, loaded.module()]


A, B, C = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 4)
CASES = {  # module, inputs, the same in other orders, wrong ones with what the error has to name
    "flat": (
        Named(),
        (A, {"scale": B, "shift": C}),
        [(A, {"shift": C, "scale": B})],
        [
            ((A, {"scale": B}), "shift"),
            ((A, {"scale": B, "shift": C, "more": A}), "more|alone"),
            ((A, {"scale": B, "shaft": C}), "shift"),
        ],
    ),
    "nested": (
        Inner(),
        ({"a": {"w": A}, "b": {"u": B, "v": C}},),
        [({"b": {"v": C, "u": B}, "a": {"w": A}},), ({"b": {"u": B, "v": C}, "a": {"w": A}},)],
        [(({"a": {"w": A}, "b": {"u": B}},), "v"), (({"b": {"u": B, "v": C}},), "a")],
    ),
    "outside engines": (
        Left(),
        ({"a": A, "b": B},),
        [({"b": B, "a": A},)],
        [(({"a": A},), "b"), (({"a": A, "b": B, "c": C},), "c|alone")],
    ),
}


@pytest.mark.parametrize("how", ["module", "ep", "ts", "pt2"])
@pytest.mark.parametrize("name", CASES)
def test_dictionaries(name, how, tmp_path, assert_same, monkeypatch) -> None:
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    module, args, others, wrong = CASES[name]
    for call in calls_of(module, args, tmp_path, how):
        for given in (args, *others):
            assert_same(call(*given), module(*given))
        for given, named in wrong:
            with pytest.raises((TypeError, torch.jit.Error), match=named) as error:
                call(*given)
            assert "TreeSpec" not in str(error.value)


def spec_of(*args: Any, **kwargs: Any) -> pytree.TreeSpec:
    return pytree.tree_structure((args, kwargs))


class Point(NamedTuple):
    x: Any
    y: Any


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1,), {}, "input 'd' is missing"),
        ((1, {"a": 1, "b": 2}, [3], Point(4, 5), 6), {}, "got 5 inputs by position, expected 4"),
        ((1, {"a": 1}, [3], Point(4, 5)), {}, "input 'd' has no key 'b', expected 'a', 'b'"),
        (
            (1, {"a": 1, "b": 2, 3: 4}, [3], Point(4, 5)),
            {},
            "input 'd' has the key 3, expected 'a', 'b'",
        ),
        ((1, 2, [3], Point(4, 5)), {}, "input 'd' is a int, expected a dictionary with 'a', 'b'"),
        ((1, {"a": 1, "b": 2}, [3, 4], Point(4, 5)), {}, "input 'l' has 2 items, expected 1"),
        ((1, {"a": 1, "b": 2}, None, Point(4, 5)), {}, "input 'l' is None, expected a list"),
        ((1, {"a": 1, "b": 2}, [3], (4, 5)), {}, "input 'p' is a tuple, expected a Point"),
        (
            (1, {"a": 1, "b": 2}, [3], Point(4, 5)),
            {"x": 1},
            "input 'x' was given by position and by",
        ),
        ((1, {"a": 1, "b": 2}, [3], Point(4, 5)), {"z": 1}, "got an input 'z', expected 'x', 'd'"),
    ],
)
def test_errors(args, kwargs, text) -> None:
    spec = spec_of(1, {"a": 1, "b": 2}, [3], Point(4, 5))
    with pytest.raises(TypeError, match=text):
        flatten_inputs(args, kwargs, spec, ["x", "d", "l", "p"])


def test_flattening() -> None:
    spec = spec_of(0, {"a": 1, "b": {"c": 2, "d": 3}}, k=Point({"e": 4, "f": 5}, 6))
    given = {"b": {"d": 3, "c": 2}, "a": 1}
    wanted = [0, 1, 2, 3, 4, 5, 6]
    k = Point({"f": 5, "e": 4}, 6)
    assert flatten_inputs((0, given), {"k": k}, spec, ["x", "y"]) == wanted
    assert flatten_inputs((), {"k": k, "y": given, "x": 0}, spec, ["x", "y"]) == wanted
    assert flatten_inputs((0, given, k), {}, spec) == wanted
    assert flatten_as(7, pytree.tree_structure(0), "input") == [7]


class Several(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        return {"sum": x + y, "parts": [x * 2, y * 3]}


@pytest.mark.parametrize("again", [lambda m: m, copy.deepcopy], ids=["made", "copied"])
def test_plain_inputs_are_not_taken_apart_whatever_the_results_are(monkeypatch, again) -> None:
    x, y = torch.randn(3), torch.randn(3)
    module = again(torch_tensorrt.compile(Several().eval(), arg_inputs=[x, y], min_block_size=1))
    taken = []
    flatten = torch.fx._pytree.tree_flatten_spec
    monkeypatch.setattr(
        torch.fx._pytree, "tree_flatten_spec", lambda *a: taken.append(a) or flatten(*a)
    )
    for args, kwargs in (((x, y), {}), ((x,), {"y": y}), ((), {"y": y, "x": x})):
        torch.testing.assert_close(module(*args, **kwargs), Several()(x, y))
    assert taken == []
