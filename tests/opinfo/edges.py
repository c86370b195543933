"""Operators with values at the edges of a dtype among the elements of PyTorch's own samples, against eager PyTorch.

    python tests/opinfo/edges.py --dtypes f32,f16,i64 --out build/edges.jsonl [--ops 'sort|topk']

A sample is compiled once. It is called with one element in five replaced, in all tensors at once and in one after the
other, by zeros, infinities, NaN, the largest and the smallest numbers: a kind of values at a time, because a NaN hides
what an infinity does. Calls that eager PyTorch refuses have to be refused.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import torch  # noqa: E402
import workers  # noqa: E402
from one_op import (  # noqa: E402
    DTYPES,
    FEWER_DIGITS,
    STATUSES,
    OpInfo,
    Outcome,
    Sample,
    all_ops,
    difference,
    full_name,
    is_nearer,
    is_pointwise,
    refusal,
    spread,
    together,
)
from sweep import report  # noqa: E402

import torch_tensorrt  # noqa: E402

# Kinds of values that say nothing of an operator, or of it with some kinds: what PyTorch gives is an accident, or
# documented as different (docs/importing.md).
KNOWN: dict[str, tuple[str, str]] = {
    r"(linalg\.(?!cross|diagonal|multi_dot|vander|vecdot|vector_norm)|lu|qr|geqrf|ormqr|cholesky|"
    r"triangular_solve|matrix_exp|svd|pinverse|norm.nuc|logdet)": (
        ".*",
        "factors of a matrix that is not finite are NaN elsewhere than in LAPACK's",
    ),
    r"(fft\.|stft|istft|_upsample_bilinear2d_aa)": (
        ".*inf|nan|mixed|large",
        "products with a matrix: a row that is not finite is NaN",
    ),
    r"nn\.functional\.(conv|scaled_dot)|torch\.ops\.aten\._": (
        ".*inf|nan|mixed",
        "padding and masked keys are not looked at",
    ),
    r"(var_mean|std_mean|native_(layer|group)_norm)": (
        ".*inf|mixed",
        "PyTorch's running means end at NaN, depending on where the infinity is",
    ),
    r"\S*(batch|instance|group)_norm": (
        ".*inf|mixed|negative",
        "PyTorch multiplies weights with statistics first: infinite weights, and roots of 0",
    ),
    r"(mode|unique|unique_consecutive|searchsorted|bucketize)": (
        ".*",
        "PyTorch's order of what is not sorted, or NaN, is not defined",
    ),
    r"(fmod|remainder|__rmod__)": (
        "large|small",
        "PyTorch gives NaN for quotients beyond its integers",
    ),
    r"(polygamma|special\.polygamma)": (".*", "PyTorch's series stops early beside its poles"),
    r"_softmax_backward_data|_unsafe_masked_index|nn\.functional\.multi_margin": (
        ".*",
        "PyTorch's decomposition differs from its kernel",
    ),
    r"nn\.functional\.gelu": (".*inf|mixed", "PyTorch's kernel for AVX-512 gives NaN for infinity"),
    r"logspace.tensor_overload": (
        ".*",
        "PyTorch's decomposition leaves out what its kernel checks",
    ),
    r"masked_select": (".*", "torch.export's bound is the size of one operand"),
}


def values(dtype: torch.dtype) -> dict[str, list[Any]]:
    """Kinds of values at the edges of a dtype."""
    if dtype == torch.bool:
        return {"false": [False], "true": [True]}
    if dtype.is_complex:
        inf, nan = math.inf, math.nan
        return {"zeros": [0j, complex(-0.0, 0)], "inf": [complex(inf, 0)], "nan": [complex(nan, 1)]}
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        least, most = info.min, info.max
        return {"zeros": [0], "max": [most], "min": [least], "negative": [-1] if least else [most]}
    info = torch.finfo(dtype)
    return {
        "zeros": [0.0, -0.0],
        "inf": [math.inf],
        "-inf": [-math.inf],
        "nan": [math.nan],
        "mixed": [math.inf, -math.inf, math.nan, 0.0, -0.0],
        "large": [info.max, -info.max],
        "small": [info.tiny, -info.tiny, info.eps],
        "negative": [-1.0, -2.5, -0.5],
    }


def sprinkle(x: torch.Tensor, edge: list[Any], seed: int, share: float = 0.2) -> torch.Tensor:
    """x with a share of its elements replaced by these values."""
    generator = torch.Generator().manual_seed(seed)
    replaced = torch.rand(x.shape, generator=generator) < share
    which = torch.randint(len(edge), x.shape, generator=generator)
    return torch.where(replaced, torch.tensor(edge, dtype=x.dtype)[which], x)


def calls(
    inputs: list[torch.Tensor], dtype: torch.dtype
) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Inputs to try, each with its kind of values; those of other dtypes stay as they are."""
    own = [i for i, x in enumerate(inputs) if x.dtype == dtype and x.numel()]
    for kind, edge in values(dtype).items():
        choices = [own] + ([[i] for i in own] if len(own) > 1 else [])
        for chosen in choices:
            yield kind, [sprinkle(x, edge, i) if i in chosen else x for i, x in enumerate(inputs)]
        yield kind, [sprinkle(x, edge, 0, 1.1) if i in own else x for i, x in enumerate(inputs)]


def is_known(op: str, kind: str, pointwise: bool) -> bool:
    if kind == "large" and not pointwise:
        return True  # the order of a sum decides whether it overflows
    return any(re.match(ops, op) and re.fullmatch(kinds, kind) for ops, (kinds, _) in KNOWN.items())


def divides_integers(op: OpInfo, dtype: torch.dtype) -> bool:
    """Eager PyTorch ends the process for the least integer over -1."""
    names = (
        "div",
        "floor_divide",
        "fmod",
        "remainder",
        "lcm",
        "true_divide",
        "__rdiv__",
        "__rmod__",
    )
    return not dtype.is_floating_point and not dtype.is_complex and op.name in names


def try_edges(op: OpInfo, dtype: str, limit: int) -> Outcome:
    """What came of up to `limit` samples of an operator, each with all kinds of values."""
    outcome = Outcome(full_name(op), dtype, "no samples")
    if DTYPES[dtype] not in op.supported_dtypes("cpu") or divides_integers(op, DTYPES[dtype]):
        return outcome
    statuses = []
    torch.manual_seed(0)
    for given in spread(list(op.sample_inputs("cpu", DTYPES[dtype])), limit):
        sample = Sample(op, given)
        try:
            if sample.is_random():
                continue
        except Exception:
            continue  # no sample of something that works
        status, reasons = _try_sample(sample, outcome.op, DTYPES[dtype], is_pointwise(op))
        statuses.append(status)
        outcome.samples += 1
        outcome.passed += status == "pass"
        for reason in reasons:
            outcome.reasons[reason] = outcome.reasons.get(reason, 0) + 1
    outcome.status = max(statuses, key=STATUSES.index, default="no samples")
    return outcome


def _try_sample(
    sample: Sample, op: str, dtype: torch.dtype, pointwise: bool
) -> tuple[str, list[str]]:
    first = sample.inputs
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(together([sample]), tuple(first), strict=False)
        except Exception:
            return "not exported", []
        try:
            module = torch_tensorrt.dynamo.compile(
                program, arg_inputs=first, require_full_compilation=True, min_block_size=1
            )
        except Exception as error:
            return refusal(error)
        problems = []
        for kind, sample.inputs in calls(first, dtype):
            if is_known(op, kind, pointwise):
                continue
            if problem := _try_call(sample, module, pointwise):
                problems.append(f"{kind}: {problem}")
    return ("wrong", problems[:2]) if problems else ("pass", [])


def _try_call(sample: Sample, module: torch.fx.GraphModule, pointwise: bool) -> str | None:
    try:
        expected = sample.eager()
    except Exception as error:
        refused = error
    else:
        refused = None
    try:
        (got,) = module(*(x.clone() for x in sample.inputs))
    except Exception as error:
        return None if refused else f"the call: {str(error).splitlines()[0]}"
    if refused:
        return f"no error, expected {str(refused).splitlines()[0]}"
    ours, theirs = map(sample.comparable, (list(got), expected))
    exact = sample.eager_in_f64()
    for g, e, wide in zip(ours, theirs, exact, strict=True):
        problem = difference(g, e, pointwise, FEWER_DIGITS.get(sample.name))
        if problem and not is_nearer(g, e, wide):
            return problem
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", default="f32,f16,i64")
    parser.add_argument("--ops", default="", help="a regular expression for names")
    parser.add_argument("--samples", type=int, default=4, help="of each operator and dtype")
    workers.add_options(parser, limit=180, item="operator")
    options = parser.parse_args()
    by_name = {full_name(op): op for op in all_ops()}
    if options.work:
        torch.set_num_threads(1)
        workers.answer_tasks(
            lambda task: asdict(try_edges(by_name[task[0]], task[1], options.samples))
        )
        return 0
    tasks = [
        (name, dtype)
        for dtype in options.dtypes.split(",")
        for name in sorted(by_name)
        if re.search(options.ops, name)
    ]
    outcomes: list[dict[str, Any]] = []

    def done(task: tuple[str, str], answer: dict[str, Any]) -> None:
        outcomes.append({"op": task[0], "dtype": task[1], "samples": 0, "passed": 0} | answer)
        workers.add_line(options.out, outcomes[-1])

    command = [sys.executable, __file__, "--work", "--samples", str(options.samples)]
    workers.run(tasks, lambda: workers.Worker(command), done, options.jobs, options.limit)
    report(sorted(outcomes, key=lambda each: (each["dtype"], each["op"])))
    return any(each["status"] in ("wrong", "error", "crash", "hang") for each in outcomes)


if __name__ == "__main__":
    sys.exit(main())
