"""One operator of PyTorch's own samples (OpInfo) in an engine, against eager PyTorch, element by element."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import BinaryUfuncInfo, OpInfo, UnaryUfuncInfo
from torch.utils import _pytree as pytree

import torch_tensorrt
from torch_tensorrt.dynamo._opaque_data import data_is_opaque

DTYPES = {
    "f32": torch.float32,
    "i64": torch.int64,
    "bool": torch.bool,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f64": torch.float64,
    "i32": torch.int32,
    "u8": torch.uint8,
    "i16": torch.int16,
    "i8": torch.int8,
    "c64": torch.complex64,
    "c128": torch.complex128,
}
# What a result may be away from eager's: relative to the element, and relative to the largest element of the
# result, for those where that comes of sums that cancel. Pointwise operators have the first alone, and a
# millionth of it.
RELATIVE = {torch.float64: 4e-14, torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
OF_LARGEST = {
    torch.float64: 1e-14,
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
} | {torch.complex64: torch.complex128}
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)
# Where PyTorch's own results have fewer digits: 1 + erf, of which little is left, series that stop early, and Bessel
# functions whose parts do not fit together.
FEWER_DIGITS = (
    {"special.ndtr": lambda dtype: torch.finfo(dtype).eps}
    | dict.fromkeys(("polygamma", "special.polygamma", "igamma", "igammac"), lambda dtype: 1e-9)
    | dict.fromkeys(
        (f"special.bessel_{kind}{n}" for kind in "jy" for n in (0, 1)), lambda dtype: 1e-6
    )
    | {"special.airy_ai": lambda dtype: 4e-6}
    | {  # the angle of a cosine, rounded
        f"special.{shifted}chebyshev_polynomial_{kind}": lambda dtype: 32 * torch.finfo(dtype).eps
        for shifted in ("", "shifted_")
        for kind in "tuvw"
    }
)
# Their results are memory that nobody wrote.
WITHOUT_VALUES = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty"} | {
    "new_empty_strided",
    "as_strided_scatter.partial",
}


# Signs of vectors are not defined, nor are vectors of equal values: what they make up is compared instead.
OF_VECTORS = {"svd", "linalg.svd", "linalg.eigh", "svd_lowrank", "pca_lowrank"}
# Which of equal elements they name is not defined: what they name is compared instead.
NAMES_ONE_OF_EQUALS = {"topk", "kthvalue", "sort", "argsort", "median", "nanmedian", "mode"}


@dataclass
class Outcome:
    """What came of one operator with one dtype. `status` is the worst of its samples."""

    op: str
    dtype: str
    status: str
    samples: int = 0
    passed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


# From best to worst. "not exported", "random" and "no samples" say nothing about Kiln.
STATUSES = ["no samples", "random", "not exported", "pass", "refused", "error", "wrong"]


def full_name(op: OpInfo) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def all_ops() -> list[OpInfo]:
    return [op for op in op_db if full_name(op) not in WITHOUT_VALUES]


class Sample:
    """A call of an operator: the tensors among its arguments are inputs, the rest is part of the model."""

    def __init__(self, op: OpInfo, sample: Any) -> None:
        self.op, self.name = op.op, op.name
        leaves, self._spec = pytree.tree_flatten(((sample.input, *sample.args), sample.kwargs))
        self._is_input = [isinstance(leaf, torch.Tensor) for leaf in leaves]
        self._constants = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
        self.inputs = [leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        tensors, constants = iter(inputs), iter(self._constants)
        leaves = [next(tensors if is_input else constants) for is_input in self._is_input]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        results = pytree.tree_leaves(self.op(*args, **kwargs))
        return [result for result in results if isinstance(result, torch.Tensor)]

    def comparable(self, results: list[torch.Tensor]) -> list[torch.Tensor]:
        """Results of which each element has to be eager's."""
        if self.name not in OF_VECTORS or len(results) < 2 or 0 in results[-1].shape:
            return self.with_named_elements(results)
        values, right = results[-2:] if len(results) == 3 else results
        if self.name == "linalg.svd":
            right = right.mH
        left = results[0] if len(results) == 3 else right
        count = values.shape[-1]
        whole = (left[..., :count] * values.unsqueeze(-2)) @ right[..., :count].mH
        return [values, whole, left.mH @ left, right.mH @ right]

    def with_named_elements(self, results: list[torch.Tensor]) -> list[torch.Tensor]:
        """Results whose last one, of indices, is replaced by the elements of the input that it names."""
        if self.name not in NAMES_ONE_OF_EQUALS or self.inputs[0].dim() == 0:
            return results
        if self.name == "argsort":
            return [
                self.inputs[0].gather(self._constants[0] if self._constants else -1, results[0])
            ]
        if len(results) != 2:
            return results
        values, index = results
        axes = [i for i in range(self.inputs[0].dim()) if self._is_axis(i, index)]
        keepdim = index.dim() == self.inputs[0].dim()
        for axis in axes:
            at = index if keepdim else index.unsqueeze(axis)
            found = self.inputs[0].gather(axis, at)
            if torch.equal(
                found.nan_to_num(), (values if keepdim else values.unsqueeze(axis)).nan_to_num()
            ):
                return [values, found]
        return results

    def _is_axis(self, axis: int, index: torch.Tensor) -> bool:
        shape, given = list(index.shape), list(self.inputs[0].shape)
        if len(shape) == len(given):
            return shape[:axis] + shape[axis + 1 :] == given[:axis] + given[axis + 1 :]
        return shape == given[:axis] + given[axis + 1 :]

    def eager(self) -> list[torch.Tensor]:
        return [result.detach().clone() for result in self(*(x.clone() for x in self.inputs))]

    def eager_in_f64(self) -> list[torch.Tensor]:
        """What the results are with more digits; as they are where the operator has no other dtype. Integers alone may
        have results of floats, too."""
        more = (
            WIDE
            if any(x.dtype in WIDE for x in self.inputs)
            else dict.fromkeys(INTEGERS, torch.float64)
        )
        try:
            wide = self(*(x.to(more.get(x.dtype, x.dtype)) for x in self.inputs))
        except Exception:
            return self.eager()
        return [result.detach() for result in wide]

    def is_random(self) -> bool:
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            results.append(self.eager())
        return any(
            a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num())
            for a, b in zip(*results, strict=True)
        )


class _Samples(torch.nn.Module):
    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__()
        self._samples = samples

    def forward(self, *inputs: torch.Tensor) -> tuple[list[torch.Tensor], ...]:
        results, at = [], 0
        for sample in self._samples:
            results.append(sample(*inputs[at : at + len(sample.inputs)]))
            at += len(sample.inputs)
        return tuple(results)


def together(samples: Sequence[Sample]) -> torch.nn.Module:
    """A model that computes all samples, of their inputs one behind the other."""
    return _Samples(samples).eval()


def is_pointwise(op: OpInfo) -> bool:
    return isinstance(op, UnaryUfuncInfo | BinaryUfuncInfo)


def try_op(op: OpInfo, dtype: str, limit: int) -> Outcome:
    """Compiles up to `limit` samples of an operator: together, and one by one where that does not pass."""
    outcome = Outcome(full_name(op), dtype, "no samples")
    if DTYPES[dtype] not in op.supported_dtypes("cpu"):
        return outcome
    samples, statuses = [], []
    torch.manual_seed(0)
    for given in spread(list(op.sample_inputs("cpu", DTYPES[dtype])), limit):
        sample = Sample(op, given)
        try:
            random = sample.is_random()
        except Exception:
            continue  # no sample of something that works
        if random:
            statuses.append("random")
        else:
            samples.append(sample)
    outcome.samples = len(samples)
    pointwise = is_pointwise(op)
    if len(samples) > 1 and _try_samples(samples, pointwise)[0] == "pass":
        outcome.status, outcome.passed = "pass", len(samples)
        return outcome
    for sample in samples:
        status, reasons = _try_samples([sample], pointwise)
        statuses.append(status)
        outcome.passed += status == "pass"
        for reason in reasons:
            outcome.reasons[reason] = outcome.reasons.get(reason, 0) + 1
    outcome.status = max(statuses, key=STATUSES.index, default="no samples")
    return outcome


def spread(given: list[Any], limit: int) -> list[Any]:
    if len(given) <= limit:
        return given
    return [given[index * (len(given) - 1) // (limit - 1 or 1)] for index in range(limit)]


def _try_samples(samples: Sequence[Sample], pointwise: bool) -> tuple[str, list[str]]:
    inputs = tuple(x.clone() for sample in samples for x in sample.inputs)
    expected = [sample.eager() for sample in samples]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            with data_is_opaque():
                program = torch.export.export(together(samples), inputs, strict=False)
        except Exception as error:
            return "not exported", [_first_line(error)]
        try:
            module = torch_tensorrt.dynamo.compile(
                program, arg_inputs=inputs, require_full_compilation=True, min_block_size=1
            )
        except Exception as error:
            return refusal(error)
        try:
            results = module(*(x.clone() for x in inputs))
        except Exception as error:
            return _export_is_to_blame(program, inputs, expected) or (
                "error",
                [f"the call: {_first_line(error)}"],
            )
    problems = []
    for sample, of_sample, got in zip(samples, expected, results, strict=True):
        theirs, ours = map(sample.comparable, (list(of_sample), list(got)))
        slack = FEWER_DIGITS.get(sample.name)
        found = [difference(g, e, pointwise, slack) for g, e in zip(ours, theirs, strict=True)]
        if any(found):
            exact = sample.comparable(sample.eager_in_f64())
            found = [
                None if problem and is_nearer(g, e, w) else problem
                for problem, g, e, w in zip(found, ours, theirs, exact, strict=True)
            ]
        problems += [problem for problem in found if problem]
    if not problems:
        return "pass", []
    return _export_is_to_blame(program, inputs, expected) or ("wrong", problems[:1])


def _export_is_to_blame(
    program: torch.export.ExportedProgram,
    inputs: tuple[torch.Tensor, ...],
    expected: Sequence[Sequence[torch.Tensor]],
) -> tuple[str, list[str]] | None:
    """Whether what torch.export wrote, run by PyTorch, is no more eager's than the engine: it fails or is far off."""
    try:
        results = program.module()(*(x.clone() for x in inputs))
    except Exception as error:
        return "not exported", [f"the exported program fails: {_first_line(error)}"]
    flat = [tensor for of_sample in expected for tensor in of_sample]
    for e, g in zip(flat, pytree.tree_leaves(results), strict=True):
        if problem := difference(g, e, pointwise=False):
            return "not exported", [f"the exported program differs from eager: {problem}"]
    return None


def refusal(error: Exception) -> tuple[str, list[str]]:
    nodes = re.findall(r"^  \S+ \(([^)]*)\): (.*)$", str(error), re.MULTILINE)
    if nodes:
        return "refused", [f"{target}: {reason}" for target, reason in nodes]
    return "error", [_first_line(error)]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def is_nearer(got: torch.Tensor, expected: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether no element is further from the result in more digits than eager's is. A NaN of eager's where there is a
    result is further than what rounds to it."""
    shapes = {x.shape for x in (got, expected, exact)}
    if exact.dtype != WIDE.get(expected.dtype) or len(shapes) > 1 or got.dtype != expected.dtype:
        return False
    ours, theirs = ((x.to(exact.dtype) - exact).abs() for x in (got, expected))
    rounding = exact.abs() * torch.finfo(expected.dtype).eps
    rounding += exact.abs().nan_to_num(posinf=0).max() * torch.finfo(exact.dtype).eps
    same = (got == expected) | ((got != got) & (expected != expected))
    near = ours <= RELATIVE.get(expected.dtype, 0) * exact.abs()
    near = theirs.isnan() & (near | (got == exact.to(expected.dtype)))
    return bool((same | near | (ours <= theirs + rounding)).all())


def difference(
    got: torch.Tensor,
    expected: torch.Tensor,
    pointwise: bool,
    slack: Callable[[torch.dtype], float] | None = None,
) -> str | None:
    """What differs by more than is allowed, as text; `slack` is what is allowed beside that of numbers near 1."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return (
            f"got {got.dtype} {tuple(got.shape)}, expected {expected.dtype} {tuple(expected.shape)}"
        )
    magnitude = expected.to(torch.float64 if not expected.is_complex() else torch.complex128).abs()
    if got.is_complex():  # what a part may be away is relative to the number
        got, expected = (torch.view_as_real(x.resolve_conj()) for x in (got, expected))
        magnitude = magnitude.unsqueeze(-1)
    same = (got == expected) | ((got != got) & (expected != expected))
    if expected.dtype in RELATIVE:
        a, e = got.to(torch.float64), expected.to(torch.float64)
        bound = (RELATIVE[expected.dtype] * magnitude).expand(e.shape).clone()
        finite = e[e.isfinite()]
        if slack is not None:
            bound += slack(expected.dtype) * magnitude.clamp_min(1)
            same |= got.isinf() & (
                magnitude > 1e12
            )  # at poles PyTorch divides by what rounding left
        if pointwise:
            bound += 1e-6 * RELATIVE[expected.dtype]
        elif finite.numel():
            bound += OF_LARGEST[expected.dtype] * finite.abs().max()
        same |= e.isfinite() & ((a - e).abs() <= bound)
    wrong = (~same).flatten().nonzero().flatten()[:3]
    if not len(wrong):
        return None
    values = [tensor.flatten()[wrong].tolist() for tensor in (got, expected)]
    return f"{int((~same).sum())} of {same.numel()} differ: got {values[0]}, expected {values[1]}"
