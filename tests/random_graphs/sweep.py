"""Random models in engines, against eager PyTorch.

    python tests/random_graphs/sweep.py --seeds 0:1000 --out build/random_graphs.jsonl
    python tests/random_graphs/sweep.py --show 17            # the program of a seed
    python tests/random_graphs/sweep.py --shrink 17          # the smallest program found that fails as it does

Each seed is a model (generate.py), compiled in a process of its own kind, so that one that crashes or hangs is a line
of the result, too. Seeds that are in --out are not tried again. What fails is shrunk and printed as a program.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import workers  # noqa: E402

BAD = ("wrong", "error", "crash", "hang")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0:100", help="from:to")
    workers.add_options(parser, limit=120, item="model")
    parser.add_argument("--again", action="store_true", help="try only what failed in --out")
    parser.add_argument("--show", type=int, help="print the program of a seed")
    parser.add_argument("--shrink", type=int, help="print the smallest program that fails alike")
    parser.add_argument("--seconds", type=float, default=120, help="for --shrink")
    options = parser.parse_args()
    if options.work:
        return work()
    known = {each["seed"]: each for each in workers.read_lines(options.out)}
    if options.show is not None or options.shrink is not None:
        return show(options, known)
    low, high = map(int, options.seeds.split(":"))
    tasks: list[dict[str, Any]] = [{"seed": i} for i in range(low, high) if i not in known]
    if options.again:
        tasks = [
            {key: each[key] for key in ("seed", "graph") if key in each}
            for each in known.values()
            if each["status"] in BAD
        ]

    def done(task: dict[str, Any], answer: dict[str, Any]) -> None:
        outcome = task | answer
        if answer["status"] in BAD:
            reasons = "; ".join(answer["reasons"])
            print(f"{answer['status'].upper()} {task['seed']}: {reasons}", flush=True)
        known[task["seed"]] = outcome
        workers.add_line(options.out, outcome)

    workers.run(tasks, start_worker, done, options.jobs, options.limit)
    report(list(known.values()))
    return any(each["status"] in BAD for each in known.values())


def graph_of(task: dict[str, Any]) -> str:
    from generate import generate

    return task["graph"] if "graph" in task else generate(task["seed"]).to_json()


def start_worker() -> workers.Worker:
    # Memory that nobody wrote is not zero: what reads it gives wrong numbers.
    return workers.Worker([sys.executable, __file__, "--work"], {"MALLOC_PERTURB_": "90"})


def work() -> int:
    """Reads seeds, or graphs as JSON text, and writes what came of them."""
    import torch
    from check import check
    from graph import from_json

    torch.set_num_threads(1)

    def answer(task: dict[str, Any]) -> dict[str, Any]:
        graph = graph_of(task)
        outcome = check(from_json(graph))
        # Seeds mean other models once operators are added.
        return outcome | {"graph": graph} if outcome["status"] in BAD else outcome

    workers.answer_tasks(answer)
    return 0


def show(options: argparse.Namespace, known: dict[int, dict[str, Any]]) -> int:
    from graph import Graph, from_json
    from shrink import shrink

    seed = options.show if options.shrink is None else options.shrink
    task = {"seed": seed}
    if "graph" in known.get(seed, {}):
        task["graph"] = known[seed]["graph"]
    graph = from_json(graph_of(task))
    if options.shrink is None:
        print(graph.program(f"Seed {seed}."))
        return 0
    worker = start_worker()

    def check(candidate: Graph) -> dict[str, Any]:
        nonlocal worker
        answer = worker.ask({"graph": candidate.to_json()}, options.limit)
        if answer["status"] in ("crash", "hang"):
            worker = start_worker()
        return answer

    outcome = check(graph)
    if outcome["status"] in BAD:
        graph = shrink(graph, outcome, check, options.seconds)
        outcome = check(graph)
    worker.end()
    note = "; ".join([outcome["status"], *outcome["reasons"]]).replace("\n", " ")
    print(graph.program(f"Seed {seed}: {note}"))
    return outcome["status"] in BAD


def report(outcomes: list[dict[str, Any]]) -> None:
    for status, number in sorted(Counter(each["status"] for each in outcomes).items()):
        print(f"{status}: {number}")
    reasons: Counter[str] = Counter()
    for each in outcomes:
        if each["status"] in ("refused", "not exported"):
            reasons.update({f"{each['status']}: {reason[:150]}": 1 for reason in each["reasons"]})
    for reason, number in reasons.most_common(40):
        print(f"{number:5} {reason}")


if __name__ == "__main__":
    sys.exit(main())
