"""Architectures of torch.nn, transformers, timm and diffusers, each in one engine, against eager PyTorch.

    python tests/architectures/sweep.py --out build/architectures.jsonl [--names 'bert|swin'] [--again]
    python tests/architectures/sweep.py --out build/architectures.jsonl --table docs/architectures.md

`make test-architectures` does both, after installing timm and diffusers into build/architectures. Each is tried with
fixed sizes and with a dynamic batch (and length, of sequences), in a process of its own kind. What is in --out already
is not tried again, unless --again: then what did not pass is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "build" / "architectures"
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests")]
import workers  # noqa: E402

STATUSES = ["pass", "refused", "wrong", "error", "crash", "hang", "not exported", "not run"]
FORMS = ("static", "dynamic")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default="", help="a regular expression for package/name")
    workers.add_options(parser, limit=300, item="architecture")
    parser.add_argument("--again", action="store_true", help="try what did not pass once more")
    parser.add_argument("--table", type=Path, help="write the outcomes in --out as Markdown")
    options = parser.parse_args()
    if options.work:
        return work()
    known = {(each["name"], each["form"]): each for each in workers.read_lines(options.out)}
    if options.table:
        options.table.write_text(table(known))
        return 0
    names = [name for name in all_architectures() if re.search(options.names, name)]
    tasks = [(name, form) for name in names for form in FORMS]
    is_done = {t for t, each in known.items() if each["status"] == "pass" or not options.again}

    def done(task: tuple[str, str], answer: dict[str, Any]) -> None:
        known[task] = {"name": task[0], "form": task[1]} | answer
        workers.add_line(options.out, known[task])
        reasons = "; ".join(answer.get("reasons", {}))
        print(task[0], task[1], answer["status"], answer.get("error", ""), reasons, flush=True)

    tasks = [task for task in tasks if task not in is_done]
    workers.run(tasks, start_worker, done, options.jobs, options.limit)
    report([known[name, form] for name in names for form in FORMS])
    return any(each["status"] in ("wrong", "error", "crash", "hang") for each in known.values())


def start_worker() -> workers.Worker:
    return workers.Worker([sys.executable, __file__, "--work"], {"MALLOC_PERTURB_": "90"})


def all_architectures() -> dict[str, Any]:
    """By package and name. Packages that are not installed are left out."""
    if PACKAGES.exists():
        sys.path.append(str(PACKAGES))
        define_torchvision_operators()
    import of_torch

    found = of_torch.architectures()
    for package in ("transformers", "timm", "diffusers"):
        try:
            __import__(package)
        except ImportError as error:
            print(f"without {package}: {error}", file=sys.stderr)
            continue
        found += __import__(f"of_{package}").architectures()
    return {f"{each.package}/{each.name}": each for each in found}


def define_torchvision_operators() -> None:
    """torchvision's library is for another torch; its Python part, which timm imports, asks for these operators."""
    import torch

    global _library
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def work() -> int:
    import torch
    from compare import compare

    torch.set_num_threads(1)
    architectures = all_architectures()
    workers.answer_tasks(lambda task: compare(architectures[task[0]], task[1] == "dynamic"))
    return 0


def report(outcomes: list[dict[str, Any]]) -> None:
    for form in FORMS:
        counts = Counter(each["status"] for each in outcomes if each["form"] == form)
        print(form, ", ".join(f"{status}: {number}" for status, number in counts.items()))
    reasons: dict[str, set[str]] = {}
    for each in outcomes:
        if each["status"] != "pass":
            for reason in each["reasons"]:
                reasons.setdefault(f"{each['status']}: {reason[:160]}", set()).add(each["name"])
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1]))[:60]:
        print(f"{len(names):4} {reason} ({', '.join(sorted(names)[:3])})")


def table(known: dict[tuple[str, str], dict[str, Any]]) -> str:
    static, dynamic = FORMS
    names = [name for name, form in known if form == static and (name, dynamic) in known]
    names = [name for name in names if known[name, static]["status"] != "not run"]
    exported = [n for n in names if known[n, "static"]["status"] not in ("not exported", "not run")]
    passed = {form: sum(known[name, form]["status"] == "pass" for name in names) for form in FORMS}
    lines = [
        "# Architectures in one engine",
        "",
        "Written by `make test-architectures` (tests/architectures/sweep.py). Every architecture has few and narrow",
        "layers and random weights, is compiled with `require_full_compilation=True`, and is compared with eager",
        "PyTorch in f32: with fixed sizes, and with a dynamic batch (and length, of sequences) at the lowest, the",
        "usual and the highest sizes. A number is the relative error of the worst result; at most 1e-5 passes.",
        "",
        f"{len(names)} architectures; in one engine with fixed sizes {passed['static']}, "
        f"with dynamic ones {passed['dynamic']}.",
        "",
        "| architecture | fixed sizes | dynamic sizes |",
        "|---|---|---|",
    ]
    for name in exported:
        lines.append(f"| {name} | {' | '.join(_cell(known[name, form]) for form in FORMS)} |")
    lines += [
        "",
        "## What torch.export itself does not export",
        "",
        "| architecture | sizes | reason |",
        "|---|---|---|",
    ]
    for name in names:
        for form in FORMS:
            if known[name, form]["status"] == "not exported":
                lines.append(f"| {name} | {form} | {_reason(known[name, form])} |")
    return "\n".join(lines) + "\n"


def _cell(outcome: dict[str, Any]) -> str:
    if outcome["status"] == "pass":
        return f"{outcome['error']:.1e}"
    if outcome["status"] == "not exported":
        return "not exported"
    return f"{outcome['status']}: {_reason(outcome)}"


def _reason(outcome: dict[str, Any]) -> str:
    text = "; ".join(sorted(outcome["reasons"]))
    return re.sub(r"\s+", " ", text).replace("|", "\\|")[:200]


if __name__ == "__main__":
    sys.exit(main())
