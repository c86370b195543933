"""Programs that PyTorch cannot make functional, and its primitives in programs of users."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_small import unsupported

import kiln
import torch_tensorrt
from torch_tensorrt._operator import execute_engine


def make(function: Callable[..., Any]) -> torch.nn.Module:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(self, x)

    return Model().eval()


def compile_model(module: torch.nn.Module, x: torch.Tensor) -> tuple[Any, int]:
    program = torch.export.export(module, (x.clone(),))
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=[x.clone()], min_block_size=1)
    calls = compiled.graph.find_nodes(op="call_function", target=execute_engine)
    return compiled, len(calls)


def resize_input(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.sigmoid(x) * 2
    x.resize_(2, 8)
    return torch.relu(x.sum(1)) + y[:2, 0] + torch.tanh(x)[:, 0]


def write_after_a_read(m: Any, x: torch.Tensor) -> torch.Tensor:
    before = torch.sigmoid(x) * 2
    x.resize_(2, 8)
    x.mul_(3)
    view = x[0]
    view.add_(1)
    return torch.relu(x) + before.reshape(2, 8) + torch.exp(view)


def resize_view(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.relu(x)
    z = y.view(-1)
    z.resize_(20)
    z[16:] = 1.0
    return torch.sigmoid(z) + y.sum()


def count_calls(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.count.add_(1)
    x.resize_(2, 8)
    return torch.sigmoid(x)[:, :4] + m.count


IN_PLACE = [resize_input, write_after_a_read, resize_view, count_calls]


@pytest.mark.parametrize("function", IN_PLACE)
def test_what_cannot_be_functional_stays_as_it_is(function, caplog) -> None:
    model = make(function)
    x = torch.randn(4, 4)
    with caplog.at_level(logging.WARNING):
        compiled, engines = compile_model(model, x)
    assert "cannot be made functional" in caplog.text
    assert engines >= 1
    for _ in range(3):
        x = torch.randn(4, 4)
        mine, theirs = x.clone(), x.clone()
        torch.testing.assert_close(compiled(mine), model(theirs))
        torch.testing.assert_close(mine, theirs)  # what was written to the input, and its shape


def test_an_operator_of_the_users_that_gives_a_view() -> None:
    with torch.library._scoped_library("kiln_functional_test", "DEF") as library:
        library.define("rows(Tensor(a) x, int n) -> Tensor(a)")
        library.impl("rows", lambda x, n: x[:n], "CPU")
        library.impl("rows", lambda x, n: x[:n], "Meta")
        rows = torch.ops.kiln_functional_test.rows
        model = make(lambda m, x: torch.sigmoid(rows(torch.relu(x) * 2, 2)) + 1)
        x = torch.randn(4, 4)
        compiled, engines = compile_model(model, x)
        assert engines == 2
        torch.testing.assert_close(compiled(x), model(x))


class OneNamedInput(torch.nn.Module):
    """Its parameter has the name of a function of Python's, which tracers rename."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.function = function

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(input).reshape(-1))


# What a model ends with, and whether it is compiled as it was exported.
ENDS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], bool]] = {
    "a view": (lambda y: y.view(2, 8).transpose(0, 1), True),
    "the same dtype": (lambda y: y.to(torch.float32).contiguous(), True),
    "a write": (lambda y: (y * 2).mul_(3), False),
    "what is decomposed": (lambda y: torch.rad2deg(y), False),
    "what stays in PyTorch": (unsupported, False),
}


@pytest.mark.parametrize("name", ENDS)
def test_functional_programs_are_compiled_as_they_were_exported(name) -> None:
    function, as_exported = ENDS[name]
    model, x = OneNamedInput(function).eval(), torch.randn(4, 4)
    compiled, engines = compile_model(model, x)
    assert engines == 1
    (engine,) = [each for each in compiled.buffers() if each.dtype == torch.uint8]
    origin = json.loads(kiln.inspect(engine.numpy())["metadata"])
    assert origin.get("as_exported", False) == as_exported
    torch.testing.assert_close(compiled(x), model(x))
    with torch.no_grad():
        model.linear.weight.mul_(2)
    refitted = torch_tensorrt.dynamo.refit_module_weights(
        compiled, torch.export.export(model, (x,))
    )
    torch.testing.assert_close(refitted(x), model(x))


prims = torch.ops.prims
PRIMS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "broadcast_in_dim": lambda m, x: prims.broadcast_in_dim(torch.relu(x), [3, 4, 4], [1, 2]) * 2,
    "transpose": lambda m, x: prims.transpose(torch.relu(x), [1, 0]) * 2,
    "squeeze": lambda m, x: prims.squeeze(x.unsqueeze(0) * 2, [0]) + 1,
    "split_dim": lambda m, x: prims.split_dim(torch.relu(x), 1, 2) * 2,
    "collapse_view": lambda m, x: prims.collapse_view(torch.relu(x), 0, 1) * 2,
    "reshape": lambda m, x: prims.reshape(torch.relu(x), [2, 8]) * 2,
    "rev": lambda m, x: prims.rev(torch.relu(x), [0]) * 2,
    "cat": lambda m, x: prims.cat([x * 2, torch.relu(x)], 0) + 1,
    "where": lambda m, x: prims.where(prims.gt(x, torch.zeros_like(x)), x, prims.neg(x)) * 2,
    "arithmetic": lambda m, x: prims.mul(prims.add(x, x), prims.sub(x, prims.abs(x))),
    "functions": lambda m, x: prims.exp(prims.sin(x)) + prims.erf(x) * prims.tanh(x),
    "div": lambda m, x: prims.div(x, prims.abs(x) + 1),
    "sum": lambda m, x: prims.sum(torch.relu(x), [1]) * 2,
    "amax": lambda m, x: prims.amax(torch.relu(x), [0]) * 2,
    "convert": lambda m, x: prims.convert_element_type(torch.relu(x) * 9, torch.int32) + 1,
    "maximum": lambda m, x: prims.maximum(x, prims.minimum(x * 2, torch.ones_like(x))),
}


@pytest.mark.parametrize("name", PRIMS)
def test_primitives_are_in_engines(name) -> None:
    model = make(PRIMS[name])
    x = torch.randn(4, 4)
    compiled, engines = compile_model(model, x)
    assert engines == 1
    assert [n for n in compiled.graph.nodes if "prims" in str(n.target)] == []
    torch.testing.assert_close(compiled(x), model(x))
