#!/usr/bin/env python3
"""Compares the ways of saving: size, time and memory of saving, time of loading, cost of a call.

Every figure is taken in a process of its own. A call adds two tensors of 4 x 16, on one thread, so that what is timed
is the way to the engine; saving and loading are timed with an engine of about 400 MB. In C++, packages are loaded
from the folder that they unpack to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import timeit
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from report import table

FORMATS = ("operator", "ep", "ep, torch.export.load", "ts", "pt2", "kiln")
OUTPUT_FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
LAYERS, WIDTH = 6, 4096


class Add(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def large_model() -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))


def ending(form: str) -> str:
    return form.split(",")[0]


def save_as(form: str, module: Any, inputs: list[torch.Tensor], path: Path) -> None:
    import torch_tensorrt

    if form == "kiln":
        path.write_bytes(module.engine_0.numpy().data)
    else:
        output_format = OUTPUT_FORMATS[ending(form)]
        torch_tensorrt.save(module, path, output_format=output_format, arg_inputs=inputs)


def compiled(module: torch.nn.Module, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
    import torch_tensorrt

    return torch_tensorrt.compile(
        module.eval(), ir="dynamo", arg_inputs=inputs, require_full_compilation=True
    )


def small_inputs() -> list[torch.Tensor]:
    return [torch.randn(4, 16), torch.randn(4, 16)]


def load_from(form: str, path: Path) -> Callable[..., Any]:
    if form == "kiln":
        import kiln

        session = kiln.load(path).session(num_threads=torch.get_num_threads())
        return lambda *inputs: session.run(*(x.numpy() for x in inputs))
    if form == "ts":
        return torch.jit.load(path)
    if form == "pt2":
        return torch._inductor.aoti_load_package(str(path))
    if form == "ep":
        import torch_tensorrt

        return torch_tensorrt.load(path)
    return torch.export.load(path).module()


def import_for(form: str) -> None:
    """What loading needs, so that it is not timed with it."""
    if form == "kiln":
        import kiln as kiln
    elif form == "pt2":
        import torch._inductor.package as package  # noqa: F401 - loaded ahead of the clock
    else:
        import torch_tensorrt as torch_tensorrt


def microseconds_per_call(function: Callable[[], Any]) -> float:
    function()
    with torch.no_grad():
        number = 10_000
        return min(timeit.repeat(function, number=number, repeat=9)) / number * 1e6


def measure_call(form: str, folder: Path) -> dict[str, float]:
    inputs = small_inputs()
    if form == "operator":
        module = compiled(Add(), inputs)
        call = next(n for n in module.graph.nodes if "execute_engine" in str(n.target))
        engine, spec = module.engine_0, call.args[2]
        operator = torch.ops.kiln.execute_engine.default
        return {"call_us": microseconds_per_call(lambda: operator(inputs, engine, spec))}
    import_for(form)
    function = load_from(form, folder / f"small.{ending(form)}")
    return {"call_us": microseconds_per_call(lambda: function(*inputs))}


def memory_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def measure_save(form: str, folder: Path) -> dict[str, float]:
    """Of the large engine: seconds, and memory beyond what the compiled module has already."""
    inputs = [torch.randn(2, WIDTH)]
    module = compiled(large_model(), inputs)
    path = folder / f"large.{ending(form)}"
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, start = memory_mb("VmRSS"), time.perf_counter()
    save_as(form, module, inputs, path)
    seconds = time.perf_counter() - start
    size = module.engine_0.numel() / 1e6
    return {
        "engine_mb": size,
        "file_mb": path.stat().st_size / 1e6,
        "save_s": seconds,
        "save_memory": (memory_mb("VmHWM") - before) / size,
    }


def measure_load(form: str, folder: Path) -> dict[str, float]:
    import_for(form)
    before, start = memory_mb("VmRSS"), time.perf_counter()
    function = load_from(form, folder / f"large.{ending(form)}")
    seconds = time.perf_counter() - start
    resident = memory_mb("VmRSS") - before
    start = time.perf_counter()
    function(torch.randn(2, WIDTH))
    first = time.perf_counter() - start
    return {"load_ms": seconds * 1e3, "load_mb": resident, "first_call_ms": first * 1e3}


def build_cpp(folder: Path) -> Path:
    import kiln

    libraries = kiln.library_directory()
    options = [
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
        f"-DKiln_DIR={libraries / 'cmake' / 'Kiln'}",
        f"-DKILN_TORCH_LIBRARY={libraries / 'libkiln_torch.so'}",
    ]
    source, build = Path(__file__).parent / "formats", folder / "build"
    for command in (
        ["cmake", "-G", "Ninja", "-S", source, "-B", build, *options],
        ["cmake", "--build", build],
    ):
        subprocess.run(command, check=True, stdout=sys.stderr)
    return build / "call"


def measure_cpp(program: Path, path: Path, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Milliseconds to load, and microseconds per call (0 for a large model)."""
    command = [program, path, *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"formats: {path.name} in C++ failed:\n{done.stderr}")
    load, call = map(float, done.stdout.split())
    return load, call


def unpacked(path: Path) -> Path:
    """A package as a folder, which is loaded without being extracted first."""
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return next(folder.iterdir())


def measure_in_cpp(form: str, folder: Path, program: Path) -> dict[str, float]:
    if form not in ("ts", "pt2", "kiln"):
        return {}
    large = folder / f"large.{form}"
    if form == "pt2":
        large = unpacked(large)
    return {
        "cpp_call_us": measure_cpp(program, folder / f"small.{form}", (4, 16, 2))[1],
        "cpp_load_ms": measure_cpp(program, large, (2, WIDTH, 1))[0],
    }


STAGES = {"call": measure_call, "save": measure_save, "load": measure_load}


def in_process(stage: str, form: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--stage", stage, "--format", form, "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"formats: {stage} of {form} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(folder: Path) -> dict[str, dict[str, float]]:
    inputs = small_inputs()
    module = compiled(Add(), inputs)
    results: dict[str, dict[str, float]] = {}
    program = build_cpp(folder)
    for form in FORMATS:
        print(f"formats: {form}", file=sys.stderr, flush=True)
        results[form] = {}
        if form != "operator":
            save_as(form, module, inputs, folder / f"small.{ending(form)}")
            results[form] |= in_process("save", form, folder)
            results[form] |= in_process("load", form, folder)
        results[form] |= in_process("call", form, folder)
        results[form] |= measure_in_cpp(form, folder, program)
    return results


def markdown(results: dict[str, dict[str, float]]) -> str:
    columns = {
        "call_us": ("us per call", "{:.1f}"),
        "engine_mb": ("engine MB", "{:.1f}"),
        "file_mb": ("file MB", "{:.1f}"),
        "save_s": ("save s", "{:.2f}"),
        "save_memory": ("memory of saving / engine", "{:.2f}"),
        "load_ms": ("load ms", "{:.0f}"),
        "load_mb": ("memory of loading MB", "{:.0f}"),
        "first_call_ms": ("first call ms", "{:.0f}"),
        "cpp_call_us": ("C++: us per call", "{:.1f}"),
        "cpp_load_ms": ("C++: load ms", "{:.1f}"),
    }
    rows = [
        [
            form,
            *(
                text.format(values[key]) if key in values else "–"
                for key, (_, text) in columns.items()
            ),
        ]
        for form, values in results.items()
    ]
    return table(["", *(title for title, _ in columns.values())], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--format", choices=FORMATS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.stage:
        print(json.dumps(STAGES[options.stage](options.format, options.folder)))
        return 0
    with tempfile.TemporaryDirectory(prefix="kiln-formats-") as name:
        print(markdown(measure_all(Path(name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
