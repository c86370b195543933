#!/usr/bin/env python3
"""Models in f32, bf16 and int8 beside other runtimes, in one process, taking turns; prints Markdown.

int8 is a QDQ model of onnxruntime (quantize_static, u8 by i8 for each channel), the same file for every peer. bf16 is a
module of bf16 for Kiln, and openvino's hint for an f32 model; onnxruntime has none. Batch 1, fixed sizes. One thread is
timed by the CPU time of the process, more by the clock; the least and the median of all runs.

    python benchmarks/precisions.py --models resnet50 bert --formats bf16 int8 --threads 1
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from models import MODELS_OF_BENCHMARK, Model
from report import geometric_mean, table

FORMATS = ("f32", "bf16", "int8")
PEERS = ("onnxruntime", "openvino", "kiln")
CALIBRATION_SETS = 2
PAUSE = 0.02  # until threads of a peer that spin have gone to sleep

Run = Callable[[], list[np.ndarray]]


def feeds_of(model: Model) -> list[np.ndarray]:
    return [x.numpy() for x in model.inputs(1)]


def export_onnx(model: Model, path: Path) -> None:
    with torch.no_grad():
        program = torch.export.export(model.module(True), model.inputs(1), strict=False)
        torch.onnx.export(program, dynamo=True, verbose=False).save(str(path), external_data=False)


def quantise(model: Model, source: Path, path: Path) -> None:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    names = [entry.name for entry in onnx.load(source).graph.input]
    sets = [dict(zip(names, feeds_of(model), strict=True)) for _ in range(CALIBRATION_SETS)]

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return sets.pop() if sets else None

    quantize_static(
        source,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def build(model: Model, formats: list[str], folder: Path) -> None:
    """Files that are there already are kept."""
    import kiln

    floating, integers = folder / "f32.onnx", folder / "int8.onnx"
    if not floating.exists():
        export_onnx(model, floating)
    if "int8" in formats and not integers.exists():
        quantise(model, floating, integers)
    for form in set(formats) - {"bf16"}:
        if not (folder / f"{form}.kiln").exists():
            kiln.compile(str(folder / f"{form}.onnx"), output=str(folder / f"{form}.kiln"))
    if "bf16" in formats and not (folder / "bf16.kiln").exists():
        module = model.module(True).bfloat16()
        inputs = tuple(x.bfloat16() if x.is_floating_point() else x for x in model.inputs(1))
        with torch.no_grad():
            program = torch.export.export(module, inputs, strict=False)
        torch.export.save(program, folder / "bf16.pt2")
        kiln.compile(str(folder / "bf16.pt2"), output=str(folder / "bf16.kiln"))


def onnxruntime_of(model: Model, form: str, folder: Path, threads: int) -> Run | None:
    if form == "bf16":
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(folder / f"{form}.onnx"), options, providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    feeds = dict(zip(names, feeds_of(model), strict=True))
    return lambda: session.run(None, feeds)


def openvino_of(model: Model, form: str, folder: Path, threads: int) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if form == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    source = folder / ("int8.onnx" if form == "int8" else "f32.onnx")
    compiled = openvino.Core().compile_model(str(source), "CPU", settings)
    request, feeds = compiled.create_infer_request(), feeds_of(model)

    def run() -> list[np.ndarray]:
        results = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [results[port] for port in compiled.outputs]

    return run


def kiln_of(model: Model, form: str, folder: Path, threads: int, target: str | None = None) -> Run:
    import kiln

    engine = kiln.load(str(folder / f"{form}.kiln"), target=target)
    session = engine.session(num_threads=threads)
    feeds = list(model.inputs(1))
    if form == "bf16":
        feeds = [x.bfloat16() if x.is_floating_point() else x for x in feeds]
    else:
        feeds = [x.numpy() for x in feeds]

    def run() -> list[np.ndarray]:
        outputs = session.run(*feeds)
        return list(outputs.values()) if isinstance(outputs, dict) else list(outputs)

    return run


LOADERS = {"onnxruntime": onnxruntime_of, "openvino": openvino_of}


def in_turns(runs: dict[str, Run], options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of every run. Each turn begins with one that is not timed."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
        run()
    for _ in range(options.rounds):
        for name, run in runs.items():
            time.sleep(PAUSE)
            run()
            end = time.perf_counter() + options.seconds
            while time.perf_counter() < end:
                start = clock()
                run()
                times[name].append((clock() - start) * 1e3)
    return times


def case_of(model: Model, folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    runs: dict[str, Run] = {}
    loaders = {**LOADERS, "kiln": functools.partial(kiln_of, target=options.target)}
    for form in options.formats:
        for peer in options.peers:
            try:
                run = loaders[peer](model, form, folder, options.threads)
            except Exception as error:  # noqa: BLE001 - a peer's, whatever it is
                print(f"{model.name}: {peer} {form} left out: {error}", file=sys.stderr)
                continue
            if run is not None:
                runs[f"{peer} {form}"] = run
    return in_turns(runs, options)


def cell(samples: list[float] | None) -> str:
    return "" if not samples else f"{min(samples):.2f} ({median(samples):.2f})"


def rows_of(
    name: str, times: dict[str, list[float]], options: argparse.Namespace
) -> tuple[list[list[str]], dict[str, float]]:
    """One row for each format, and the ratio of Kiln to the best peer."""
    rows, ratios = [], {}
    for form in options.formats:
        found = {peer: times.get(f"{peer} {form}") for peer in options.peers}
        ratio = ["", ""]
        others = [s for peer, s in found.items() if peer != "kiln" and s]
        if found.get("kiln") and others:
            both = [
                measure(found["kiln"]) / min(measure(s) for s in others)
                for measure in (min, median)
            ]
            ratio[0], ratios[form] = f"{both[0]:.2f} ({both[1]:.2f})", both[1]
        if found.get("kiln") and times.get("kiln f32"):
            ratio[1] = f"{median(found['kiln']) / median(times['kiln f32']):.2f}"
        rows.append([name, form, *(cell(found[peer]) for peer in options.peers), *ratio])
    return rows, ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(MODELS_OF_BENCHMARK)
    parser.add_argument("--models", nargs="+", default=["resnet50", "bert"], choices=known)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", help="Kiln's program, e.g. cpu:x86-64-v3 (held_to_avx2.py)")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each peer in each round")
    parser.add_argument("--folder", type=Path, help="where built models are kept, and found again")
    parser.add_argument("--build-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(max(options.threads, 2))
    rows: list[list[str]] = []
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="kiln-precisions-") as temporary:
        for name in options.models:
            folder = (options.folder or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            build(MODELS_OF_BENCHMARK[name], options.formats, folder)
            if options.build_only:
                continue
            times = case_of(MODELS_OF_BENCHMARK[name], folder, options)
            new_rows, found = rows_of(name, times, options)
            rows += new_rows
            for form, ratio in found.items():
                ratios.setdefault(form, []).append(ratio)
            for row in new_rows:
                print(" | ".join(row), file=sys.stderr, flush=True)
    header = ["ms, least (median)", "format", *options.peers, "Kiln / best peer", "Kiln / its f32"]
    for form, values in ratios.items():
        mean = f"**{geometric_mean(values):.2f}**"
        rows.append(["geometric mean", form, *[""] * len(options.peers), mean, ""])
    print(table(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
