"""The backend test suite of the `onnx` package, in engines: every test of an operator, and every model that comes with
the package.

    python tests/onnx/backend_suite.py [--only 'resize|pool'] [--jobs 2] [--write]

Many tests give as an input what models have as a constant: the shape of a Reshape, the axes of a sum. Where an engine
refuses a model because a shape depends on such an input, it is made a constant of the test's value, and tried again.

Tests run in processes of their own, so that one that crashes or hangs is a line of the result, too. `--write`
keeps what is refused in tests/onnx/refused.txt, and the table by operators in docs/onnx.md. `--check` fails where a
test is refused that is not in the list, or passes that is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.loader import load_model_tests

ROOT = Path(__file__).resolve().parents[2]
REFUSED = ROOT / "tests" / "onnx" / "refused.txt"
PAGE = ROOT / "docs" / "onnx.md"
MODEL_KINDS = ("simple", "pytorch-converted", "pytorch-operator")
SECONDS = 60  # for one test

DEPENDS = re.compile(r"input \d+ \((.+?)\) whose elements depend on data")


@dataclass
class Outcome:
    name: str
    status: str  # passed, constant (passed with inputs as constants), refused, wrong, crashed
    reason: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a regular expression for names")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="keep the outcomes")
    parser.add_argument(
        "--check",
        action="store_true",
        help="what the list does not say, or says wrongly, is a failure",
    )
    options = parser.parse_args()
    cases = [case for case in all_cases() if re.search(options.only, case.name)]
    begin = time.monotonic()
    outcomes = run(cases, options.jobs, verbose=not options.check)
    print(
        dict(Counter(outcome.status for outcome in outcomes)), f"{time.monotonic() - begin:.0f} s"
    )
    if options.write:
        write(cases, outcomes)
    listed = {line.split(":")[0] for line in REFUSED.read_text().splitlines()[1:]}
    failed = [
        f"{outcome.status} {outcome.name} {outcome.reason}"
        for outcome in outcomes
        if outcome.status in ("wrong", "crashed")
        or (options.check and outcome.status == "refused" and outcome.name not in listed)
    ]
    if options.check:
        failed += stale(listed, outcomes, is_whole=not options.only)
    for text in failed:
        print("FAILED", text)
    return bool(failed)


def stale(listed: set[str], outcomes: list[Outcome], is_whole: bool) -> list[str]:
    """What the list says is refused, and is not: it passes, or the suite no longer has it."""
    passed = {each.name for each in outcomes if each.status in ("passed", "constant")}
    gone = listed - {each.name for each in outcomes} if is_whole else set()
    return [
        f"{name} {why}: write the list anew (--write)"
        for names, why in (
            (listed & passed, "passes, and is listed as refused"),
            (gone, "is no test, and is listed as refused"),
        )
        for name in sorted(names)
    ]


def all_cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = list(node_cases.collect_testcases(None))
    for kind in MODEL_KINDS:
        cases += load_model_tests(kind=kind)
    return sorted(cases, key=lambda case: case.name)


def run(cases: list[Any], jobs: int, verbose: bool = False) -> list[Outcome]:
    """All outcomes, in the order of the cases."""
    context = multiprocessing.get_context("fork")  # the cases are large, and are made in 20 s
    outcomes: dict[int, Outcome] = {}
    waiting = list(reversed(range(len(cases))))
    at_work: dict[Connection, tuple[Any, int, float]] = {}

    def start() -> None:
        ours, theirs = context.Pipe()
        worker = context.Process(target=_work, args=(theirs, cases), daemon=True)
        worker.start()
        theirs.close()
        give(ours, worker)

    def give(connection: Connection, worker: Any) -> None:
        if waiting:
            index = waiting.pop()
            connection.send(index)
            at_work[connection] = (worker, index, time.monotonic())
        else:
            connection.send(None)
            worker.join()
            connection.close()

    for _ in range(min(jobs, len(cases))):
        start()
    while at_work:
        ready = wait(list(at_work), timeout=1)
        for connection in ready:
            worker, index, _ = at_work.pop(connection)
            try:
                outcomes[index] = connection.recv()
                if verbose and outcomes[index].status not in ("passed", "constant"):
                    print(
                        outcomes[index].status,
                        outcomes[index].name,
                        outcomes[index].reason,
                        flush=True,
                    )
            except EOFError:
                worker.join()
                outcomes[index] = Outcome(cases[index].name, "crashed", f"code {worker.exitcode}")
                start()
            else:
                give(connection, worker)
        for connection, (worker, index, begin) in list(at_work.items()):
            if time.monotonic() - begin > SECONDS:
                del at_work[connection]
                worker.kill()
                outcomes[index] = Outcome(cases[index].name, "crashed", f"longer than {SECONDS} s")
                start()
    return [outcomes[index] for index in range(len(cases))]


def _work(connection: Connection, cases: list[Any]) -> None:
    while True:
        try:
            index = connection.recv()
        except EOFError:
            return
        if index is None:
            return
        connection.send(try_case(cases[index]))


def try_case(case: Any) -> Outcome:
    import kiln  # in the worker: it starts threads

    try:
        model = case.model or onnx.load(os.path.join(case.model_dir, "model.onnx"))
        sets = _data_sets(case, model)
        engine, constants = _compile(model, case.model_dir, sets[0][0])
    except kiln.KilnError as error:
        broken = isinstance(error, kiln.InternalError)
        return Outcome(case.name, "crashed" if broken else "refused", str(error))
    except Unusable as error:
        return Outcome(case.name, "refused", str(error))
    except Exception as error:  # of the suite, or of this script: to be seen
        return Outcome(case.name, "crashed", f"{type(error).__name__}: {error}")
    for inputs, expected in sets:
        given = [value for name, value in inputs if name not in constants]
        try:
            results = engine.session().run(*(np.asarray(_bits(x), order="C") for x in given))
        except kiln.KilnError as error:
            return Outcome(case.name, "wrong", f"does not run: {error}")
        for i, (got, want) in enumerate(zip(results, expected, strict=True)):
            if problem := _difference(got, want, case):
                return Outcome(case.name, "wrong", f"output {i}: {problem}")
    return Outcome(case.name, "constant" if constants else "passed")


class Unusable(Exception):
    """A test that has no tensors as inputs."""


Inputs = list[tuple[str, Any]]


def _compile(model: onnx.ModelProto, model_dir: str | None, inputs: Inputs) -> tuple[Any, set[str]]:
    import kiln

    constants: set[str] = set()
    while True:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(model_dir or folder) / "model.onnx"
            if constants or not model_dir:
                path = Path(folder) / "model.onnx"
                path.write_bytes(model.SerializeToString())
            try:
                engine = kiln.compile(path, targets=_variant(), num_threads=1)
                return kiln.load(engine), constants
            except kiln.KilnError as error:
                new = _constants_for(str(error), inputs) - constants
                if not new:
                    raise
        constants |= new
        model = _with_constants(model, new, inputs)


def _constants_for(text: str, inputs: Inputs) -> set[str]:
    """The inputs that an error asks for; where a value between is named, all that may say sizes."""
    found = DEPENDS.search(text)
    if not found:
        return set()
    if any(name == found.group(1) for name, _ in inputs):
        return {found.group(1)}
    return {
        name
        for name, value in inputs
        if value.dtype.kind in "ib" and value.ndim <= 1 and value.size <= 32
    }


def _with_constants(model: onnx.ModelProto, names: set[str], inputs: Inputs) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [value for value in result.graph.input if value.name not in names]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in inputs if name in names
    )
    return result


def _data_sets(case: Any, model: onnx.ModelProto) -> list[tuple[Inputs, list[Any]]]:
    constant = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input]
    sets = case.data_sets if case.data_sets is not None else _read_data_sets(case.model_dir)
    result = []
    for inputs, outputs in sets:
        inputs, outputs = _arrays(inputs), _arrays(outputs)
        if any(not isinstance(value, np.ndarray | np.generic) for value in [*inputs, *outputs]):
            raise Unusable("inputs or outputs that are sequences or optional")
        named = zip(
            (n for n in names if n not in constant or len(inputs) == len(names)),
            inputs,
            strict=False,
        )
        result.append(([(n, np.asarray(v)) for n, v in named if n not in constant], list(outputs)))
    return result


def _arrays(values: list[Any]) -> list[Any]:
    """Some tests have messages in the place of arrays: of types that NumPy lacks, among others."""
    return [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def _read_data_sets(folder: str) -> list[tuple[list[Any], list[Any]]]:
    result = []
    for data in sorted(Path(folder).glob("test_data_set_*")):

        def read(kind: str, data: Path = data) -> list[Any]:
            return [
                numpy_helper.to_array(onnx.load_tensor(data / f"{kind}_{i}.pb"))
                for i in range(len(list(data.glob(f"{kind}_*.pb"))))
            ]

        result.append((read("input"), read("output")))
    return result


def _bits(value: np.ndarray) -> np.ndarray:
    """NumPy has no bfloat16: Kiln takes its bits."""
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _difference(got: Any, want: Any, case: Any) -> str:
    want = np.asarray(want)
    kind = want.dtype.name
    if want.dtype.name == "bfloat16":
        got, want = np.asarray(got).view(want.dtype).astype(np.float32), want.astype(np.float32)
    got = np.asarray(got)
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{got.shape}, expected {want.dtype}{want.shape}"
    # Two steps of the format: the suite's own results are rounded after each operator.
    rtol = max(case.rtol, {"float16": 2**-9, "bfloat16": 2**-6}.get(kind, 0))
    atol = max(case.atol, {"float16": 2**-13, "bfloat16": 2**-9}.get(kind, 0))
    # Zeros of a transform are sums that cancel: the suite has the noise of NumPy's there, ours is another.
    if operator_of(case) == "DFT":
        atol = max(atol, 2**-23 * float(np.abs(want).max(initial=0)))
    try:
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""


_VARIANTS: list[str] = []


def _variant() -> str:
    """The one program that this machine takes: the others would be compiled for nothing."""
    import kiln

    if not _VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.onnx"
            x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
            y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
            graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "one", [x], [y])
            opsets = [helper.make_opsetid("", 13)]
            path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
            engine = kiln.load(kiln.compile(path))
            _VARIANTS.append(f"{engine.target}:{engine.variant}")
    return _VARIANTS[0]


def operator_of(case: Any) -> str:
    """The operator that a test of one is about."""
    if case.kind != "node":
        return ""
    names = [node.op_type for node in case.model.graph.node]
    return names[0] if len(names) == 1 else ""


def plain_reason(reason: str) -> str:
    """Without the names of a test's values."""
    return re.sub(r"^cannot import .*?: ", "", reason).splitlines()[0]


def write(cases: list[Any], outcomes: list[Outcome]) -> None:
    refused = [outcome for outcome in outcomes if outcome.status == "refused"]
    REFUSED.write_text(
        "# Tests of ONNX's backend suite that are refused, and why: written by backend_suite.py --write.\n"
        + "".join(f"{outcome.name}: {plain_reason(outcome.reason)}\n" for outcome in refused)
    )
    begin, end = "<!-- the backend suite: begin -->\n", "<!-- the backend suite: end -->\n"
    page = PAGE.read_text()
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(before + begin + table(cases, outcomes) + end + after)


def table(cases: list[Any], outcomes: list[Outcome]) -> str:
    """Markdown: what passes of each operator, and why the rest does not."""
    count = Counter(outcome.status for outcome in outcomes)
    passed = count["passed"] + count["constant"]
    lines = [
        f"onnx {onnx.__version__}: {len(outcomes)} tests, {passed} pass ({count['constant']} of them with inputs that",
        f"say shapes made constants), {count['refused']} are refused, {count['wrong'] + count['crashed']} are wrong.",
        "",
        "| operator | pass | refused | why |",
        "|---|---|---|---|",
    ]
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for case, outcome in zip(cases, outcomes, strict=True):
        groups[operator_of(case) or "(several)"].append(outcome)
    for name in sorted(groups):
        good = [each for each in groups[name] if each.status in ("passed", "constant")]
        reasons = sorted(
            {plain_reason(each.reason) for each in groups[name] if each.status == "refused"}
        )
        why = "; ".join(_cell(reason) for reason in reasons[:3])
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        lines.append(f"| {name} | {len(good)} | {len(groups[name]) - len(good)} | {why}{more} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = text.replace("|", "\\|")
    return text if len(text) <= 160 else text[:157] + "..."


if __name__ == "__main__":
    sys.exit(main())
