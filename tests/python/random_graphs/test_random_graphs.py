"""A few random models (tests/random_graphs), and the graphs that were wrong once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "random_graphs"))
from check import check, difference  # noqa: E402
from generate import generate  # noqa: E402
from graph import Graph, Input, Step, from_json  # noqa: E402
from shrink import shrink  # noqa: E402

GOOD = ("pass", "refused", "not exported")


@pytest.mark.parametrize("seed", range(16))
def test_seed(seed: int) -> None:
    graph = generate(seed)
    outcome = check(graph)
    if outcome["status"] not in GOOD:
        graph = shrink(graph, outcome, check)
    assert outcome["status"] in GOOD, graph.program(str(outcome["reasons"]))


def _graph(
    *steps: tuple[str, str, str], symbols: dict[str, tuple[int, int, int]] | None = None
) -> Graph:
    made = tuple(Step(name, f"{name} = {call}", (of,), "rounds") for name, call, of in steps)
    used = {step.operands[0] for step in made}
    outputs = tuple(step.result for step in made if step.result not in used)
    shape = ("b" if symbols else 3, 4)
    return Graph((Input("x0", "float32", shape, 1),), made, outputs, symbols or {})


# What was wrong when it was found.
FOUND = {
    "nothing joined with itself": _graph(
        ("v0", "torch.cat([x0[..., :0]] * 3, -1)", "x0"), symbols={"b": (2, 3, 5)}
    ),
    "a convolution's result in a longer shape": _graph(
        ("v0", "functional.conv2d(x0.expand(3, 3, 3, 4), torch.ones(3, 3, 1, 2))", "x0"),
        ("v1", "v0 + torch.arange(162.0).view(2, 3, 3, 3, 3)", "v0"),
    ),
    "a bool filled with a half": _graph(
        ("v0", "torch.full_like(x0 > 0, 0.5)", "x0"), ("v1", "v0 * 2", "v0")
    ),
    "roll of a size that may be 0": _graph(
        ("v0", "x0.roll((1, -2), (0, 0))", "x0"), symbols={"b": (0, 3, 5)}
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    assert check(FOUND[name]) == {"status": "pass", "reasons": {}}


def test_models_are_the_same_for_a_seed_and_as_text() -> None:
    graph = generate(3)
    assert graph == generate(3) == from_json(graph.to_json())


def test_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    graph = _graph(("v0", "torch.sqrt(x0.abs())", "x0"), symbols={"b": (1, 3, 5)})
    exec(compile(graph.program("a test"), "<program>", "exec"), {})
    assert "torch.float32" in capsys.readouterr().out


def test_a_wrong_result_is_found_and_shrunk() -> None:
    graph = _graph(
        ("v0", "x0.exp()", "x0"),
        ("v1", "v0.floor()", "v0"),
        ("v2", "torch.stack([v1, v1])", "v1"),
        ("v3", "x0.cos()", "x0"),
    )

    def wrong_with_floor(candidate: Graph) -> dict[str, object]:
        is_wrong = any("floor" in step.source for step in candidate.steps)
        return {"status": "wrong" if is_wrong else "pass", "reasons": {}}

    smallest = shrink(graph, wrong_with_floor(graph), wrong_with_floor)
    assert [step.source for step in smallest.steps] == ["v1 = x0.floor()"]


def test_bounds_are_what_rounding_makes_of_results() -> None:
    x = torch.tensor([1.0, 2.0])
    near, far = x * (1 + 2.0**-23), x * (1 + 2.0**-12)
    steady = [x, x]
    assert difference(x, x, steady) is None
    assert difference(near, x, [near, x]) is None
    assert difference(far, x, [near, x]) is not None
    assert difference(near, x, steady) is not None
    assert difference(x.long(), x.long() + 1, [x.long() + 1]) is not None
    assert difference(x.long(), x.long() + 1, [x.long()]) is None  # an operator that jumps
    assert difference(torch.full((2,), torch.nan), x, steady) is not None
