"""Branches and loops of a known number of steps inside of engines; others are in test_loops.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from eager import check
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

import torch_tensorrt

X = torch.linspace(-2, 2, 12).reshape(3, 4)


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)


class Chosen(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, self.a, lambda t: self.b(t) * 2, (x,)).relu()


def module(forward: Any) -> torch.nn.Module:
    class Function(torch.nn.Module):
        def forward(self, *args: torch.Tensor) -> Any:
            return forward(*args)

    return Function().eval()


def compile_all(model: torch.nn.Module, *args: Any, shapes: Any = None, **options: Any) -> Any:
    exported = torch.export.export(model.eval(), args, dynamic_shapes=shapes, strict=False)
    options = {"require_full_compilation": True, "min_block_size": 1, **options}
    return torch_tensorrt.dynamo.compile(exported, arg_inputs=list(args), **options)


# Branches


@pytest.mark.parametrize("dynamic", [False, True])
def test_branches_with_weights(dynamic: bool) -> None:
    model = Chosen().eval()
    compiled = compile_all(model, X, shapes={"x": {0: Dim("n", max=9)}} if dynamic else None)
    assert [name for name, _ in compiled.named_children()] == []
    for x in (X, -X - 1, X + 1):
        check(compiled, model, x)
    if dynamic:
        for rows in (1, 2, 9):
            check(compiled, model, torch.randn(rows, 4) + 1)
            check(compiled, model, torch.randn(rows, 4) - 1)


def test_what_the_other_branch_makes_of_its_input_does_not_matter() -> None:
    model = module(lambda x: torch.cond(x.min() > 0, torch.log, lambda t: t / 0 * 0 + 1, (x,)))
    compiled = compile_all(model, X)
    for x in (X, X + 9, X * torch.inf, X * torch.nan):
        check(compiled, model, x)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64]
)
def test_results_of_any_type(dtype: torch.dtype) -> None:
    def yes(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return t.flip(0), t.sum()

    def no(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return t.clone(), (t * 2).sum()

    model, flag = module(lambda x, f: torch.cond(f, yes, no, (x,))), torch.tensor(True)
    x = torch.tensor([[0, 1, 3], [1, 0, 2]]).to(dtype)
    if dtype is torch.bool:
        model = module(lambda x, f: torch.cond(f, torch.logical_not, torch.clone, (x,)))
    compiled = compile_all(model, x, flag)
    for value in (flag, ~flag):
        check(compiled, model, x, value)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_shapes_of_the_condition(shape: tuple[int, ...]) -> None:
    model = module(lambda x, f: torch.cond(f, torch.sin, torch.cos, (x,)))
    compiled = compile_all(model, X, torch.ones(shape, dtype=torch.bool))
    for value in (True, False):
        check(compiled, model, X, torch.full(shape, value))


def test_branches_in_branches() -> None:
    def inner(t: torch.Tensor) -> torch.Tensor:
        return torch.cond(t.max() > 3, lambda u: u * 2, torch.sin, (t,))

    model = module(lambda x: torch.cond(x.sum() > 0, inner, lambda t: t - 1, (x,)).tanh())
    compiled = compile_all(model, X)
    for x in (X, X + 1, X + 5, X - 1):
        check(compiled, model, x)


@pytest.mark.parametrize(
    "condition",
    [
        lambda x: x.shape[0] > 4,
        lambda x: x.shape[0] * 2 <= 9,
        lambda x: x.shape[0] % 2 == 0,
        lambda x: x.shape[0] != x.shape[1],
    ],
)
def test_conditions_on_sizes(condition: Any) -> None:
    model = module(lambda x: torch.cond(condition(x), torch.exp, lambda t: t + 1, (x,)))
    shapes = {"args": (({0: Dim("n", max=9), 1: Dim("m", max=9)}),)}
    compiled = compile_all(model, torch.randn(3, 5), shapes=shapes)
    for n, m in ((1, 2), (2, 2), (4, 5), (5, 5), (9, 3)):
        check(compiled, model, torch.randn(n, m))


def test_a_branch_whose_results_have_sizes_of_their_own_stays_in_pytorch() -> None:
    model = module(
        lambda x: torch.cond(x.max() > 0, lambda x: x[x > 0].sum(), lambda x: x.sum(), (x,)) + 1
    )
    with pytest.raises(RuntimeError, match="within a loop or a branch"):
        compile_all(model, X)
    compiled = compile_all(model, X, require_full_compilation=False)
    for x in (X, X - 9):
        check(compiled, model, x)


def test_dear_branches_stay_in_pytorch() -> None:
    model = Chosen().eval()
    compiled = compile_all(model, X, require_full_compilation=False)
    assert any(node.target is torch.ops.higher_order.cond for node in compiled.graph.nodes)
    for x in (X, -X - 1, X + 1):
        check(compiled, model, x)


@pytest.mark.parametrize("operator", [torch.ops.higher_order.cond, "torch.ops.higher_order.cond"])
def test_what_the_user_wants_in_pytorch(operator: Any) -> None:
    model = module(lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)).tanh())
    options = {"require_full_compilation": False, "torch_executed_ops": {operator}}
    compiled = compile_all(model, X, **options)
    assert any(node.target is torch.ops.higher_order.cond for node in compiled.graph.nodes)
    check(compiled, model, X - 1)


# Loops


@pytest.mark.parametrize("rows", [1, 2, 128])
def test_map(rows: int) -> None:
    layers = Layers().eval()

    def body(row: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return layers.a(row) * y, row.sum()

    model = module(lambda x, y: map_rows(body, x, y))
    check(compile_all(model, torch.randn(rows, 4), X[0]), model, torch.randn(rows, 4), X[1])


@pytest.mark.parametrize("rows", [1, 2, 128])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(rows: int, reverse: bool) -> None:
    def body(state: Any, row: torch.Tensor) -> tuple[Any, torch.Tensor]:
        new = state["a"] * 0.9 + row
        return {"a": new, "n": state["n"] + 1}, new.tanh() * state["n"]

    def forward(x: torch.Tensor) -> Any:
        return scan(body, {"a": torch.zeros(4), "n": torch.tensor(0)}, x, reverse=reverse)

    x = torch.randn(rows, 4)
    check(compile_all(module(forward), x), module(forward), x)


class Recurrence(Layers):
    def forward(self, x: torch.Tensor) -> Any:
        def body(state: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            new = self.b(state) + self.a(row)
            return torch.cond(new.sum() > 0, lambda t: t.tanh(), lambda t: t.sin(), (new,)), new * 2

        return scan(body, torch.zeros(4), x)


def test_scan_with_weights_and_a_branch() -> None:
    model = Recurrence().eval()
    check(compile_all(model, X), model, X)


def test_loops_that_carry_integers_of_python_stay_in_pytorch() -> None:
    def forward(x: torch.Tensor) -> Any:
        return while_loop(lambda i, t: i < 3, lambda i, t: (i + 1, t * 2), (0, x))[1].tanh()

    model = module(forward)
    with pytest.raises(RuntimeError, match="while_loop"):
        compile_all(model, X)
    check(compile_all(model, X, require_full_compilation=False), model, X)


# Formats


@pytest.mark.parametrize("ending", ["ep", "ts", "pt2", "kiln"])
def test_formats(ending: str, tmp_path: Path) -> None:
    model, path = Chosen().eval(), str(tmp_path / f"m.{ending}")
    if ending == "kiln":
        exported = torch.export.export(model, (X,))
        convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
        Path(path).write_bytes(convert(exported, arg_inputs=[X]))
    else:
        names = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
        compiled = compile_all(model, X)
        torch_tensorrt.save(compiled, path, output_format=names[ending], arg_inputs=[X])
    loaded = torch_tensorrt.load(path)
    loaded = loaded.module() if hasattr(loaded, "module") else loaded
    for x in (X + 1, X - 1):
        check(loaded, model, x)


def test_refit() -> None:
    model, other = Chosen().eval(), Chosen().eval()
    compiled = compile_all(model, X, immutable_weights=False)
    exported = torch.export.export(other, (X,))
    refitted = torch_tensorrt.dynamo.refit_module_weights(compiled, exported)
    for x in (X + 1, X - 1):
        check(refitted, other, x)


def test_torch_compile() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t + 1, lambda t: t - 1, (x,)).relu()

    compiled = torch.compile(forward, backend="torch_tensorrt", options={"min_block_size": 1})
    for x in (X + 1, X - 1):
        check(compiled, forward, x)
