"""Every operator of PyTorch's OpInfo database, in engines, against eager PyTorch.

    python tests/opinfo/sweep.py --dtypes f32,i64,bool --samples 6 --out build/opinfo.jsonl [--ops 'sort|topk']
    python tests/opinfo/sweep.py --compact tests/opinfo/outcomes.jsonl --out build/opinfo.jsonl
    python tests/opinfo/sweep.py --table docs/opinfo.md --out tests/opinfo/outcomes.jsonl

Operators are tried in processes of their own, so that one that crashes or hangs is a line of the result, too. Each
outcome is written to --out as soon as it is known; what is in there already is not tried again (remove its line, or
pass --again). --table and --compact try nothing: they write the outcomes as a page of the documentation, and with
one line for all operators that have the same, as they are kept in the repository.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import workers  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", default="f32,i64,bool")
    parser.add_argument("--ops", default="", help="a regular expression for names")
    parser.add_argument(
        "--samples", type=int, default=6, help="of each operator and dtype, at most"
    )
    workers.add_options(parser, limit=120, item="operator")
    parser.add_argument("--again", action="store_true", help="try what is in --out once more")
    parser.add_argument("--table", type=Path, help="write the outcomes in --out as Markdown")
    parser.add_argument("--compact", type=Path, help="write the outcomes in --out here, in short")
    options = parser.parse_args()
    if options.work:
        return work(options.samples)
    known = read_outcomes(options.out)
    if options.compact:
        options.compact.write_text(compact(list(known.values())))
        return 0
    if options.table:
        options.table.write_text(table(list(known.values())))
        return 0
    from one_op import all_ops, full_name

    names = sorted({full_name(op) for op in all_ops()})
    tasks = [
        (name, dtype)
        for dtype in options.dtypes.split(",")
        for name in names
        if re.search(options.ops, name)
    ]
    before = [] if options.again else [known[task] for task in tasks if task in known]
    if not options.again:
        tasks = [task for task in tasks if task not in known]
    outcomes = before + run(tasks, options)
    report(sorted(outcomes, key=lambda each: (each["dtype"], each["op"])))
    return any(each["status"] in ("wrong", "error", "crash", "hang") for each in outcomes)


def read_outcomes(path: Path | None) -> dict[tuple[str, str], dict[str, Any]]:
    """By operator and dtype; of several lines the last one counts. A line may be that of several operators."""
    return {
        (op, each["dtype"]): {**each, "op": op}
        for each in workers.read_lines(path)
        for op in each.pop("ops", None) or [each["op"]]
    }


def compact(outcomes: list[dict[str, Any]]) -> str:
    """Lines of JSON, each with what is the same for several operators; those without samples have none."""
    groups: dict[str, list[str]] = {}
    for each in sorted(outcomes, key=lambda each: (_order_of_dtype(each["dtype"]), each["op"])):
        if each["status"] != "no samples":
            rest = {key: value for key, value in each.items() if key != "op"}
            groups.setdefault(json.dumps(rest, sort_keys=True), []).append(each["op"])
    lines = [json.dumps({**json.loads(rest), "ops": ops}) for rest, ops in groups.items()]
    return "\n".join(lines) + "\n"


def work(samples: int) -> int:
    """Reads names and dtypes from stdin, and writes what came of them."""
    import torch
    from one_op import all_ops, full_name, try_op

    torch.set_num_threads(1)
    by_name = {full_name(op): op for op in all_ops()}
    workers.answer_tasks(lambda task: asdict(try_op(by_name[task[0]], task[1], samples)))
    return 0


def run(tasks: list[tuple[str, str]], options: argparse.Namespace) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--work", "--samples", str(options.samples)]
    outcomes: list[dict[str, Any]] = []
    build = commit()

    def done(task: tuple[str, str], answer: dict[str, Any]) -> None:
        outcome = {"op": task[0], "dtype": task[1], "samples": 0, "passed": 0} | answer
        outcome["build"] = build
        outcomes.append(outcome)
        workers.add_line(options.out, outcome)
        line = f"{outcome['op']} {outcome['dtype']}: {outcome['status']}"
        print(f"{len(outcomes)}/{len(tasks)} {line}", file=sys.stderr, flush=True)

    workers.run(tasks, lambda: workers.Worker(command), done, options.jobs, options.limit)
    return outcomes


def commit() -> str:
    """What was checked out as the sweep began: what was built, if the build is up to date."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


# Reasons that need no line each: what follows the operator's name, and what the operators are listed under.
KINDS = (
    (": the operator is not supported: it draws random numbers", "Random numbers"),
    (": the operator is not supported for complex tensors", "Not supported for complex numbers"),
    (": the operator is not supported", "Not supported"),
)


def table(outcomes: list[dict[str, Any]]) -> str:
    """A page of the documentation: numbers by dtype, and what does not pass by reason."""
    dtypes = sorted({each["dtype"] for each in outcomes}, key=_order_of_dtype)
    statuses = ["pass", "refused", "wrong", "error", "crash", "hang", "not exported", "random"]
    lines = [
        "# PyTorch's own samples of every operator",
        "",
        "Written by `python tests/opinfo/sweep.py --table docs/opinfo.md --out tests/opinfo/outcomes.jsonl`; those",
        "outcomes are what sweeps wrote, and `--compact` made short. Each sample of OpInfo is a model of its own,",
        "which has to be one engine and give what eager PyTorch gives; a few samples of each operator and dtype",
        "are taken.",
        "An operator passes if all its samples do: within some units in the last place of eager's result, or",
        "no further than that from eager's in more digits. *Not exported*: torch.export itself refuses, or",
        "PyTorch's run of what it exported is not eager's either; *random*: no two runs of eager PyTorch agree.",
        "Operators without samples of a dtype are not counted.",
        "*Build*: the commit that was tried, or how many there were.",
        "",
        "| dtype | build | samples of each | " + " | ".join(statuses) + " |",
        "|---" * (len(statuses) + 3) + "|",
    ]
    for dtype in dtypes:
        of_dtype = [each for each in outcomes if each["dtype"] == dtype]
        counts = Counter(each["status"] for each in of_dtype)
        most = max(each["samples"] for each in of_dtype)
        builds = sorted({each.get("build", "unknown") for each in of_dtype})
        build = f"`{builds[0]}`" if len(builds) == 1 else f"{len(builds)} builds"
        lines.append(
            f"| {dtype} | {build} | {most} | " + " | ".join(str(counts[s]) for s in statuses) + " |"
        )
    kinds, by_reason = _reasons(outcomes)
    lines += ["", "## What does not pass", ""]
    for _, title in KINDS:
        lines += [f"**{title}**: " + _names(kinds[title]) + ".", ""]
    lines += ["| reason | dtypes | operators |", "|---|---|---|"]
    for reason, found in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        of = sorted({dtype for _, dtype in found}, key=_order_of_dtype)
        ops = _names({op for op, _ in found})
        lines.append(f"| {reason} | {'all' if of == dtypes else ' '.join(of)} | {ops} |")
    lines += ["", "## What passes with every dtype that it has samples of", ""]
    failed = {each["op"] for each in outcomes if each["status"] not in HARMLESS}
    passed = {each["op"] for each in outcomes if each["status"] == "pass"} - failed
    lines.append(_names(passed))
    return "\n".join(lines) + "\n"


HARMLESS = ("pass", "no samples", "random")


def _reasons(
    outcomes: list[dict[str, Any]],
) -> tuple[dict[str, set[str]], dict[str, set[tuple[str, str]]]]:
    """ATen's operators by kind, and operators with their dtypes by other reasons."""
    kinds: dict[str, set[str]] = {title: set() for _, title in KINDS}
    others: dict[str, set[tuple[str, str]]] = {}
    for each in outcomes:
        if each["status"] in HARMLESS:
            continue
        for reason in each["reasons"] or {each["status"]: 1}:
            for text, title in KINDS:
                if text in reason:
                    kinds[title].add(reason.split(text)[0].removesuffix(".default"))
                    break
            else:
                others.setdefault(_general(reason), set()).add((each["op"], each["dtype"]))
    return kinds, others


def _order_of_dtype(dtype: str) -> int:
    from one_op import DTYPES

    return list(DTYPES).index(dtype)


def _names(ops: set[str]) -> str:
    return ", ".join(f"`{op}`" for op in sorted(ops))


def _general(reason: str) -> str:
    """A reason without what differs from sample to sample."""
    reason = re.sub(r"depends on .*?: engines", "depends on data: engines", reason)
    # Types and numbers of samples; the dtypes have a column.
    reason = re.sub(r"\b(got|for|dtype) [iu]\d+\b(?!\[)", r"\1 integers", reason)
    reason = re.sub(r"dtype torch\.(?:b?float\d*)\b", "a dtype", reason)
    reason = re.sub(r"\b(?:[iuf]\d+|bf16|bool|float64|float32)\[[^\]]*\]", "a tensor", reason)
    reason = re.sub(r"\bgetitem_\d+", "getitem", re.sub(r"\[\d[\d, ]*\]", "a shape", reason))
    reason = re.sub(r"FakeTensor\(.*", "", re.sub(r"0x[0-9a-f]+", "", reason))
    reason = re.sub(r"\(?\bu\d+\b\)?", "a size", reason)
    return reason.replace("|", "\\|").replace("\n", " ")[:160]


def report(outcomes: list[dict[str, Any]]) -> None:
    for status, number in sorted(Counter(each["status"] for each in outcomes).items()):
        print(f"{status}: {number}")
    for each in outcomes:
        if each["status"] in ("wrong", "error", "crash", "hang"):
            print(
                f"{each['status'].upper()} {each['op']} {each['dtype']}: {'; '.join(each['reasons'])}"
            )
    refused: Counter[str] = Counter()
    for each in outcomes:
        refused.update({reason: 1 for reason in each["reasons"] if each["status"] == "refused"})
    for reason, number in refused.most_common(60):
        print(f"{number:4} {reason}")


if __name__ == "__main__":
    sys.exit(main())
