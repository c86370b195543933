"""Models of many kinds, saved in every format: the file gives eager's numbers, or the save is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from models_small import engines_of
from torch.utils import _pytree as pytree

import torch_tensorrt
from torch_tensorrt.formats import aoti

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
WAYS = [("ep", True), ("ep", False), ("ep", None), ("ts", None), ("pt2", None), ("pt2", True)]
has_compiler = aoti.package.has_compiler({})


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclass
class Boxes:
    corners: torch.Tensor
    scores: torch.Tensor


torch.export.register_dataclass(Boxes, serialized_type_name="test_save_kinds.Boxes")
pytree._register_namedtuple(Pair, serialized_type_name="test_save_kinds.Pair")


def module(
    forward: Callable[..., Any],
    *tensors: torch.Tensor,
    linear: bool = False,
    **buffers: torch.Tensor,
) -> torch.nn.Module:
    """A module whose `forward` gets itself first."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if linear:
                self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            for name, value in buffers.items():
                self.register_buffer(name, value.clone())

    Model.forward = forward
    return Model().eval()


FLAG = torch.tensor(True)
X = torch.linspace(-2, 2, 8).reshape(2, 4)


def cond(self: Any, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
    return torch.cond(flag, lambda y: y * 2, lambda y: y - 1, [x.relu()]) + 1


def cond_with_weights(self: Any, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
    y = self.b(self.a(x).relu()).sigmoid()
    return torch.cond(flag, lambda y: self.a(y) * 2, lambda y: self.b(y) - 1, [y]) + 1


def cond_in_cond(self: Any, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
    def inner(y: torch.Tensor) -> torch.Tensor:
        return torch.cond(y.sum() > 0, lambda z: z * 2, lambda z: z.sin(), [y])

    return torch.cond(flag, inner, lambda y: y - 1, [x.relu() - 0.5]).tanh()


def cond_of_two(self: Any, x: torch.Tensor, flag: torch.Tensor) -> Any:
    low, high = torch.cond(flag, lambda y: (y * 2, y + 1), lambda y: (y - 1, y.sin()), [x.relu()])
    return low.exp() + high


def loop(self: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    from torch._higher_order_ops.while_loop import while_loop

    def step(i: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return i - 1, y * 1.5

    return while_loop(lambda i, y: i > 0, step, (n.clone(), x.relu()))[1].tanh()


def change_and_return(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n.add_(x)
    return self.n


def change_two(self: Any, x: torch.Tensor) -> Any:
    self.n.add_(x)
    self.m.mul_(2).sub_(self.n)
    return self.m.sin(), self.n


def change_input(self: Any, x: torch.Tensor) -> torch.Tensor:
    x.mul_(2)
    return x.sin()


def change_input_and_return(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


def many_dtypes(self: Any, x: torch.Tensor) -> Any:
    """Leftovers of every dtype."""
    order = torch.argsort(x, dim=-1, stable=True)
    return (
        torch.sort(x > 0, -1).values,
        order.int(),
        torch.sort(x.half(), -1).values,
        torch.sort(x.bfloat16(), -1).values,
        torch.sort(x.double(), -1).values,
        torch.sort(order.to(torch.int8), -1).values,
        torch.sort(order.to(torch.uint8), -1).values,
        torch.fft.fft(x).abs(),
    )


# forward, inputs to export with, sets of inputs to call with, formats that refuse, buffers
CASES: dict[str, tuple[Any, ...]] = {
    "cond": (module(cond), (X, FLAG), [(X, FLAG), (X, ~FLAG)]),
    "cond with weights": (
        module(cond_with_weights, linear=True),
        (X, FLAG),
        [(X, FLAG), (X, ~FLAG)],
    ),
    "cond in cond": (module(cond_in_cond), (X, FLAG), [(X, FLAG), (-X * 0, FLAG), (X, ~FLAG)]),
    "cond of two results": (module(cond_of_two), (X, FLAG), [(X, FLAG), (X, ~FLAG)]),
    "while_loop": (module(loop), (X, torch.tensor(3)), [(X, torch.tensor(n)) for n in (0, 1, 5)]),
    "index of rank 0": (
        module(lambda self, x, i: x[i] * 2),
        (X, torch.tensor(1)),
        [(X, torch.tensor(i)) for i in (0, 1)],
    ),
    "value of a tensor as a size": (
        module(lambda self, x: torch.sin(x)[x.sum(-1) > 0] * 2),
        (X,),
        [(X,), (-X,), (X + 9,), (X - 9,)],
    ),
    "buffer changed and returned": (
        module(change_and_return, n=torch.zeros(4)),
        (X[0],),
        [(X[0],)] * 3,
    ),
    "two buffers changed": (
        module(change_two, n=torch.zeros(4), m=torch.ones(4)),
        (X[0],),
        [(X[0],)] * 3,
    ),
    "input changed": (module(change_input), (X,), [(X,)] * 2),
    "input changed and returned": (module(change_input_and_return), (X,), [(X,)] * 2),
    "dictionary": (module(lambda self, x: {"b": x.sin(), "a": [x.cos()]}), (X,), [(X,)]),
    "named tuple": (module(lambda self, x: Pair(x.sin(), x.cos())), (X,), [(X,)]),
    "data class": (module(lambda self, x: Boxes(x.sin(), x.cos())), (X,), [(X,)]),
    "None": (module(lambda self, x: (x.sin(), None)), (X,), [(X,)]),
    "inputs as results": (module(lambda self, x, y: (x, x.sin(), y, x)), (X, X + 1), [(X, X - 1)]),
    "a result twice": (module(lambda self, x: (y := x.sin(), y.cos(), y)), (X,), [(X,)]),
    "nothing in an engine": (module(lambda self, x: x), (X,), [(X,)]),
    "constants": (
        module(lambda self, x: (x.sin(), self.c, self.c + 1), c=torch.arange(3.0)),
        (X,),
        [(X,)],
    ),
    "numbers as results": (module(lambda self, x: (x.sin(), 3, 0.5, True)), (X,), [(X,)]),
    "numbers as inputs": (
        module(lambda self, x, i, f, b: x.sin() * i + f if b else x),
        (X, 3, 0.5, True),
        [(X, 3, 0.5, True)],
    ),
    "0-d": (
        module(lambda self, x, s: (x.sum() * s, s.sin())),
        (X, torch.tensor(2.0)),
        [(X, torch.tensor(-3.0))],
    ),
    "dtypes": (module(many_dtypes), (X,), [(X,), (-X,)]),
}
# What a format cannot have: the error has to say so, with a name.
REFUSED = {
    ("while_loop", "ts"): "while_loop.*exported_program",
    ("named tuple", "ts"): "a result is a Pair.*exported_program",
    ("data class", "ts"): "a result is a Boxes.*exported_program",
    ("numbers as results", "pt2"): "a result of the model is 3",
}
NEEDS_COMPILER = {
    "cond": "cond",
    "cond with weights": "cond",
    "cond in cond": "cond",
    "cond of two results": "cond",
    "while_loop": "while_loop",
    "index of rank 0": "depends on the values of a tensor",
    "value of a tensor as a size": "depends on the values of a tensor",
    "buffer changed and returned": "changes n in place",
    "two buffers changed": "changes",
    "input changed": "changes x in place",
    "input changed and returned": "changes x in place",
}


# Unless an engine does it.
IN_ENGINES = {"input changed", "value of a tensor as a size"}


def run(call: Any, inputs: Any) -> Any:
    """The result, and the inputs afterwards."""
    copies = pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, inputs
    )
    with torch.no_grad():
        return call(*copies), copies


def check(call: Any, model: Any, calls: list[Any]) -> None:
    for inputs in calls:
        result, after = run(call, inputs)
        expected, changed = run(model, inputs)
        actual, wanted = (
            pytree.tree_leaves((result, after)),
            pytree.tree_leaves((expected, changed)),
        )
        assert len(actual) == len(wanted)
        for a, b in zip(actual, wanted, strict=True):
            if isinstance(b, torch.Tensor):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
            else:
                assert a == b
        assert type(result) is type(expected) or isinstance(expected, (tuple, list, dict))


def fresh(name: str) -> Any:
    """A copy, because calls change buffers."""
    import copy

    model, args, calls = CASES[name]
    return copy.deepcopy(model), args, calls


def compile_case(name: str, blocks: int) -> Any:
    model, args, _ = fresh(name)
    args = pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, args
    )
    program = torch.export.export(model, args, strict=False)
    left = {
        "torch.ops.aten.sort.default",
        "torch.ops.aten.sort.stable",
        "torch.ops.higher_order.cond",
        "torch.ops.higher_order.while_loop",
    }
    return torch_tensorrt.dynamo.compile(program, min_block_size=blocks, torch_executed_ops=left)


def save_and_check(name: str, ending: str, retrace: Any, blocks: int, path: Any) -> None:
    compiled = compile_case(name, blocks)
    assert blocks == 1 or not engines_of(compiled)
    model, args, calls = fresh(name)
    options: dict[str, Any] = {}
    if retrace is not None:
        options["retrace"] = retrace
        if all(isinstance(arg, torch.Tensor) for arg in args):
            options["arg_inputs"] = [arg.clone() for arg in args]
    path = path / f"m.{ending}"
    if (name, ending) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, ending]):
            torch_tensorrt.save(compiled, path, output_format=FORMATS[ending], **options)
        assert not path.exists()
        return
    torch_tensorrt.save(compiled, path, output_format=FORMATS[ending], **options)
    check(torch_tensorrt.load(path), model, calls)
    if ending == "ep":
        check(torch.export.load(path).module(), fresh(name)[0], calls)


@pytest.mark.parametrize("blocks", [1, 99])
@pytest.mark.parametrize("name", CASES)
def test_compiled(name, blocks) -> None:
    model, _, calls = fresh(name)
    check(compile_case(name, blocks), model, calls)


@pytest.mark.parametrize("blocks", [1, 99])
@pytest.mark.parametrize(("ending", "retrace"), [way for way in WAYS if way[0] != "pt2"])
@pytest.mark.parametrize("name", CASES)
def test_saved(name, ending, retrace, blocks, tmp_path) -> None:
    save_and_check(name, ending, retrace, blocks, tmp_path)


@pytest.mark.parametrize("blocks", [1, 99])
@pytest.mark.parametrize("name", CASES)
def test_packages_without_a_compiler(name, blocks, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    if name not in NEEDS_COMPILER or (blocks == 1 and name in IN_ENGINES):
        save_and_check(name, "pt2", None, blocks, tmp_path)
        return
    with pytest.raises(
        RuntimeError, match=rf"no C\+\+ compiler was found(.|\n)*{NEEDS_COMPILER[name]}"
    ):
        torch_tensorrt.save(
            compile_case(name, blocks), tmp_path / "m.pt2", output_format="aot_inductor"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not has_compiler, reason="there is no C++ compiler")
@pytest.mark.parametrize("name", sorted(NEEDS_COMPILER))
def test_packages_with_compiled_code(name, tmp_path) -> None:
    save_and_check(name, "pt2", None, 1, tmp_path)
