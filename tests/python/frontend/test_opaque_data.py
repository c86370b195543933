"""Functions that look into data while they are called: torch.export alone refuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as fn
from models_small import engines_of

import torch_tensorrt

NAN, INF = float("nan"), float("inf")
F, A = torch.tensor([1, 0, 3, 2]), torch.tensor([0.5, 1.0, 0.0, 2.0])


class Of(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def one_engine(model: torch.nn.Module, args: list[Any]) -> Any:
    compiled = torch_tensorrt.compile(
        model, ir="dynamo", arg_inputs=args, min_block_size=1, require_full_compilation=True
    )
    assert len(engines_of(compiled)) == 1
    return compiled


def check(function: Callable[..., Any], args: list[torch.Tensor]) -> Any:
    compiled = one_engine(Of(function).eval(), args)
    close(compiled(*args), function(*args))
    return compiled


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    narrow = expected.dtype in (torch.float16, torch.bfloat16)
    rtol, atol = (2e-2, 2e-2) if narrow else (1e-5, 1e-6)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(6))


COVARIANCES: dict[str, tuple[Callable[..., Any], torch.Tensor]] = {
    "cov": (torch.cov, draw(3, 4)),
    "cov, f64": (lambda x: x.cov(), draw(3, 4).double()),
    "cov, f16": (torch.cov, draw(3, 4).half()),
    "cov, bf16": (torch.cov, draw(3, 4).bfloat16()),
    "cov of integers": (torch.cov, torch.tensor([[1, 2, 5], [3, 4, 4]])),
    "cov of complex numbers": (torch.cov, torch.complex(draw(3, 4), draw(4, 3).t())),
    "cov of a vector": (torch.cov, draw(5)),
    "cov of a scalar": (torch.cov, torch.tensor(3.0)),
    "cov of one observation": (torch.cov, draw(3, 1)),
    "cov of no correction": (lambda x: torch.cov(x, correction=0), draw(3, 4)),
    "cov of a large correction": (lambda x: torch.cov(x, correction=7), draw(3, 4)),
    "cov with frequencies": (lambda x: torch.cov(x, fweights=F), draw(3, 4)),
    "cov with weights": (lambda x: torch.cov(x, aweights=A), draw(3, 4)),
    "cov with both": (lambda x: torch.cov(x, correction=2, fweights=F, aweights=A), draw(3, 4)),
    "cov by name": (lambda x: torch.cov(input=x, correction=0, aweights=A), draw(3, 4)),
    "cov of an infinity": (torch.cov, torch.tensor([[INF, 1.0], [2.0, 3.0]])),
    "cov of a NaN": (torch.cov, torch.tensor([[NAN, 1.0], [2.0, 3.0]])),
    "corrcoef": (torch.corrcoef, draw(3, 4)),
    "corrcoef of a vector": (lambda x: x.corrcoef(), draw(4)),
    "corrcoef of zeros": (torch.corrcoef, torch.zeros(2, 3)),
    "corrcoef of integers": (torch.corrcoef, torch.tensor([[1, 2, 5], [3, 4, 4]])),
    "corrcoef, bf16": (torch.corrcoef, draw(2, 3).bfloat16()),
    "corrcoef of complex numbers": (torch.corrcoef, torch.complex(draw(3, 4), draw(4, 3).t())),
}


@pytest.mark.filterwarnings("ignore:cov")
@pytest.mark.parametrize("name", COVARIANCES)
def test_covariances(name: str) -> None:
    function, x = COVARIANCES[name]
    check(function, [x])


@pytest.mark.parametrize("function", [torch.cov, torch.corrcoef])
def test_covariances_of_any_number_of_observations(function: Callable[..., Any]) -> None:
    rows = torch_tensorrt.Input(min_shape=(3, 2), opt_shape=(3, 4), max_shape=(3, 9))
    compiled = one_engine(Of(function).eval(), [rows])
    for count in (2, 5, 9):
        close(compiled(draw(3, count)), function(draw(3, count)))


def weighted(x: torch.Tensor, f: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return torch.cov(x, fweights=f, aweights=a)


def test_weights_that_pytorch_refuses() -> None:
    x = draw(3, 4)
    compiled = check(weighted, [x, F, A])
    with pytest.raises(RuntimeError, match=r"\[cov\] got negative fweights"):
        compiled(x, -F, A)
    with pytest.raises(RuntimeError, match=r"\[cov\] got negative aweights"):
        compiled(x, F, -A)
    with pytest.raises(RuntimeError, match=r"\[cov\] got weights whose sum is zero"):
        compiled(x, F * 0, A)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(4, 3), (4,), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gaussian_nll_loss(reduction: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    loss = torch.nn.GaussianNLLLoss(full=reduction == "sum", reduction=reduction)
    var = draw(*shape).abs().to(dtype)
    var.view(-1)[:2] = torch.tensor([0.0, -0.0])
    x, target = draw(4, 3).to(dtype), draw(3, 4).t().to(dtype)
    if dtype is torch.bfloat16 and reduction != "none":
        var = var + 1  # else one term of a million is all of the sum
    compiled = check(loss, [x, target, var])
    with pytest.raises(RuntimeError, match=r"\[gaussian_nll_loss\] got a negative variance"):
        compiled(x, target, var - 9)


def test_gaussian_nll_loss_takes_nan() -> None:
    check(fn.gaussian_nll_loss, [draw(3), draw(3), torch.tensor([1.0, NAN, INF])])


SCORES = draw(6, 3, 5).log_softmax(2)
LABELS = torch.tensor([[1, 2, 2, 3], [4, 4, 1, 2], [1, 1, 1, 1]])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ctc_loss(reduction: str, zero_infinity: bool, dtype: torch.dtype) -> None:
    loss = torch.nn.CTCLoss(reduction=reduction, zero_infinity=zero_infinity)
    scores = SCORES.to(dtype)
    compiled = one_engine(
        Of(loss).eval(), [scores, LABELS, torch.tensor([6, 5, 4]), torch.tensor([4, 2, 1])]
    )
    # Labels that do not fit into the steps, no labels, and no steps.
    for steps, labels in (
        ([6, 5, 4], [4, 2, 1]),
        ([6, 5, 4], [4, 2, 3]),
        ([6, 5, 0], [4, 0, 0]),
        ([1, 2, 0], [1, 0, 1]),
    ):
        args = [scores, LABELS, torch.tensor(steps), torch.tensor(labels)]
        close(compiled(*args), loss(*args))
    bad = scores.clone()
    bad[1, 0, 2] = NAN
    bad[2, 1, 4] = -INF
    args = [bad, LABELS, torch.tensor([6, 5, 4]), torch.tensor([4, 2, 1])]
    close(compiled(*args), loss(*args))


def test_ctc_loss_of_other_forms() -> None:
    steps, labels = torch.tensor([6, 5, 4]), torch.tensor([4, 2, 1])
    check(
        lambda s, t: fn.ctc_loss(s, t, (6, 5, 4), (4, 2, 1), blank=3, reduction="none"),
        [SCORES, LABELS % 3],
    )
    check(fn.ctc_loss, [SCORES, torch.tensor([1, 2, 2, 3, 4, 4, 1]), steps, labels])
    check(fn.ctc_loss, [SCORES, LABELS.int(), steps.int(), labels.int()])
    check(
        lambda *args: fn.ctc_loss(*args, reduction="none"),
        [SCORES[:, 0], LABELS[0], torch.tensor(6), torch.tensor(4)],
    )
    check(lambda *args: torch.ctc_loss(*args, reduction=2), [SCORES, LABELS, steps, labels])


def test_ctc_loss_of_lengths_that_pytorch_refuses() -> None:
    steps, labels = torch.tensor([6, 5, 4]), torch.tensor([4, 2, 1])
    compiled = check(fn.ctc_loss, [SCORES, LABELS, steps, labels])
    for wrong in (steps + 1, steps - 5):
        with pytest.raises(RuntimeError, match=r"\[ctc_loss\] got an input length"):
            compiled(SCORES, LABELS, wrong, labels)
    for wrong in (labels + 1, labels - 2):
        with pytest.raises(RuntimeError, match=r"\[ctc_loss\] got a target length"):
            compiled(SCORES, LABELS, steps, wrong)
    with pytest.raises(RuntimeError, match=r"\[ctc_loss\] got a label that is not a class"):
        compiled(SCORES, LABELS + 2, steps, labels)


@pytest.mark.parametrize("function", [torch.equal, torch.allclose])
def test_a_bool_of_data_is_refused(function: Callable[..., bool]) -> None:
    def branch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + 1 if function(x, y) else x

    with pytest.raises(Exception, match="DataDependent|data-dependent|equal|allclose"):
        torch_tensorrt.compile(Of(branch), ir="dynamo", arg_inputs=[draw(3), draw(3)])
