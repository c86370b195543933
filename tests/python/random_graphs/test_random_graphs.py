"""A few random models (tests/random_graphs), and the graphs that were wrong once."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "random_graphs"))
from check import check  # noqa: E402
from generate import generate  # noqa: E402
from graph import Graph, Input, Step, from_json  # noqa: E402
from noise import Runs, differing, wrong_elements  # noqa: E402
from opinions import Case, explained, is_as_near  # noqa: E402
from shrink import shrink  # noqa: E402

GOOD = ("pass", "rounding", "refused", "not exported")


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
    assert differing(x, x, steady) is None
    assert differing(near, x, [near, x]) is None
    assert differing(far, x, [near, x]).all()
    assert differing(near, x, steady).all()
    assert differing(x.long(), x.long() + 1, [x.long() + 1]).all()
    assert differing(x.long(), x.long() + 1, [x.long()]) is None  # an operator that jumps
    assert differing(torch.full((2,), torch.nan), x, steady).all()
    assert isinstance(differing(x.long(), x, steady), str)


def _of_two(call: str, rounding: str, dtype: str = "float32") -> Graph:
    step = Step("v0", f"v0 = {call}", ("x0",), rounding)
    after = Step("v1", "v1 = torch.atan2(v0, v0)", ("v0",), "rounds")
    return Graph((Input("x0", dtype, (3, 4), 1),), (step, after), ("v0", "v1"))


def test_zeros_have_either_sign_only_where_terms_accumulate() -> None:
    x = torch.zeros(3, 4)
    for rounding, few in (("accumulates", 0), ("exact", 12)):
        graph = _of_two("x0 * 1.0", rounding)
        wrong = wrong_elements(Runs(graph, [x]), [-x, torch.atan2(-x, -x)])
        assert wrong[0] is None
        assert (0 if wrong[1] is None else int(wrong[1].sum())) == few


def test_terms_are_rounded_to_the_dtype_of_a_sum() -> None:
    graph = _of_two("x0.sum(-1, dtype=torch.float32)", "accumulates", "float64")
    x = torch.tensor([[1000.0, -1000, 0.1, 0.2]] * 3, dtype=torch.float64)
    right = x.sum(-1, dtype=torch.float32)
    for error, is_right in ((1e-4, True), (1e-1, False)):
        wrong = wrong_elements(Runs(graph, [x]), [right + error, torch.atan2(right, right)])
        assert (wrong[0] is None) == is_right


def test_second_opinions_explain_single_elements_and_no_wrong_ones() -> None:
    """What PyTorch's fused attention gives of NaN where there are few keys is not what its own formula gives."""
    call = "functional.scaled_dot_product_attention(x0, x0, x0)"
    one_key = Input("x0", "float32", (1, 2, 1, 4), 1)
    graph = replace(_of_two(call, "accumulates"), inputs=(one_key,), outputs=("v0",))
    program = torch.export.export(graph.module(), tuple(graph.tensors({})))
    (x,) = graph.tensors({})
    x[0, 0, 0, 0] = torch.nan
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        right = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    for result, is_right in ((right, True), (right.nan_to_num(7), False)):
        wrong = wrong_elements(Runs(graph, [x]), [result])
        assert isinstance(wrong[0], torch.Tensor)
        left, names = explained(Case(Runs(graph, [x]), program, [result]), wrong, list)
        assert (left[0] is None) == is_right
        assert not is_right or names == ["as eager's other attention"]


def test_what_is_finite_in_f64_may_overflow_in_another_order() -> None:
    got = torch.tensor([torch.inf, torch.inf, torch.nan, 1e30])
    eager = torch.tensor([torch.nan, 1e30, torch.inf, torch.nan])
    exact = torch.tensor([0, 1e30, 1e39, 0], dtype=torch.float64)
    assert is_as_near(got, eager, exact).tolist() == [True, False, False, False]


def test_results_of_f64_are_as_near_as_f32_lets_expect() -> None:
    graph = replace(_of_two("x0.log_softmax(-1)", "exact", "float64"), outputs=("v0",))
    program = torch.export.export(graph.module(), tuple(graph.tensors({})))
    (x,) = graph.tensors({})
    right = x.log_softmax(-1)
    for error, is_right in ((2.0**-52, True), (2.0**-44, False)):
        result = right - error
        wrong = wrong_elements(Runs(graph, [x]), [result])
        left, _ = explained(Case(Runs(graph, [x]), program, [result]), wrong, list)
        assert (left[0] is None) == is_right
