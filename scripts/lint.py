#!/usr/bin/env python3
"""Checks the rules of docs/style.md over the whole tree; prints every finding and fails if there is one.

scripts/lint.py [--build build/release] [check ...]     all checks, or those named
scripts/lint.py --fix format ops_page                   rewrites sources, and the page made of the op table
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
CODE_FOLDERS = ["src", "include", "tools", "tests", "benchmarks", "examples"]

# What a folder may include, itself aside; the folders are in the order of processing.
COMPILE_SIDE = ["support", "ir", "import", "passes", "plan", "engine", "backends", "compiler"]
ALLOWED_INCLUDES: dict[str, list[str]] = {
    "support": [],
    "engine": ["support"],
    "ir": ["support"],
    "import": ["ir", "support"],
    "passes": ["ir", "support"],
    "plan": ["ir", "passes", "support"],
    "backends/reference": ["ir", "support"],
    "backends/common": ["plan", "ir", "engine", "support", "backends/backend.h"],
    "backends/cpu/compile": [
        "backends/common",
        "plan",
        "ir",
        "engine",
        "support",
        "backends/backend.h",
    ],
    "backends/backend.h": ["plan", "engine", "ir", "support"],
    "backends/executable.h": ["engine", "support"],
    "backends/device_library.h": ["backends/executable.h"],
    "backends/cpu/device": ["backends/executable.h", "engine", "support"],
    "backends/stub/code.h": ["support"],
    "backends/stub/compile": [
        "backends/stub/code.h",
        "backends/common",
        "plan",
        "ir",
        "engine",
        "support",
        "backends/backend.h",
    ],
    "backends/stub/device": ["backends/stub/code.h", "backends/executable.h", "engine", "support"],
    "backends/cuda/call.h": ["support"],
    "backends/cuda/compile": [
        *("backends/cuda/call.h", "backends/common", "plan", "ir", "engine", "support"),
        *("backends/backend.h", "backends/cuda/device/driver_api.h"),
    ],
    "backends/cuda/device": [
        *("backends/cuda/call.h", "backends/device_library.h", "backends/executable.h"),
        *("engine", "support"),
    ],
    "runtime": ["backends/executable.h", "engine", "support"],
    "runtime/device_library.cpp": ["runtime", "backends/device_library.h", "support"],
    "runtime/devices.cpp": ["runtime", "backends/cpu/device"],
    "compiler": COMPILE_SIDE,
    "capi": [
        *("compiler", "import", "runtime", "engine", "support"),
        *("ir/ops.def", "passes/passes.def", "plan/passes/passes.def"),
    ],
    "capi/kernels.cpp": ["capi", "backends/cpu/device/custom_kernels.h", "support"],
    "torch": ["support"],
    "torch/aoti/devices.cpp": ["runtime/devices.h", "backends/cuda/device/executable.h"],
}
# Headers that only these folders may include.
CONFINED_HEADERS = {
    r"llvm/|llvm-c/": ["src/backends/cpu/compile", "tests/cpu"],
    r"torch/|ATen/|c10/": ["src/torch", "tests/torch", "examples/cpp", "benchmarks/formats"],
    r"simdjson": ["src/import"],
    r"protozero/": ["src/import/onnx"],
    r"flatbuffers/": ["src/engine"],
    r"CLI/": ["tools"],
}
# The same for Python: what the modules of a package may import, the package itself aside. A row for "torch_tensorrt" is
# about the modules at its top, which the packages in it stand on; rows for single modules are for those that join them.
TORCH_SIDE = ["kiln", "torch_tensorrt"]
FRONT_END = [
    *TORCH_SIDE,
    "torch_tensorrt.dynamo",
    "torch_tensorrt.dynamo.backend",
    "torch_tensorrt.dynamo.conversion",
    "torch_tensorrt.dynamo.lowering",
    "torch_tensorrt.dynamo.runtime",
    "torch_tensorrt.formats",
    "torch_tensorrt.runtime",
    "torch_tensorrt.ts",
    "torch_tensorrt._compile",
    "torch_tensorrt._convert",
    "torch_tensorrt.dynamo.__init__",
    "torch_tensorrt.dynamo._exporter",
]
ALLOWED_IMPORTS: dict[str, list[str]] = {
    "kiln": [],
    "torch_tensorrt": TORCH_SIDE,
    "torch_tensorrt.runtime": [*TORCH_SIDE, "torch_tensorrt.dynamo._settings"],
    "torch_tensorrt.dynamo": [
        *TORCH_SIDE,
        "torch_tensorrt.dynamo.conversion",
        "torch_tensorrt.dynamo.lowering",
        "torch_tensorrt.runtime",
    ],
    "torch_tensorrt.dynamo.conversion": [
        *TORCH_SIDE,
        "torch_tensorrt.dynamo",
        "torch_tensorrt.dynamo.lowering",
    ],
    "torch_tensorrt.dynamo.lowering": [
        *TORCH_SIDE,
        "torch_tensorrt.dynamo",
        "torch_tensorrt.dynamo.conversion",
    ],
    "torch_tensorrt.dynamo.backend": [*TORCH_SIDE, "torch_tensorrt.dynamo"],
    "torch_tensorrt.formats": [
        *TORCH_SIDE,
        "torch_tensorrt.runtime",
        "torch_tensorrt.dynamo",
        "torch_tensorrt.dynamo.backend",
    ],
    "torch_tensorrt.dynamo._exporter": [
        *TORCH_SIDE,
        "torch_tensorrt.dynamo",
        "torch_tensorrt.formats",
    ],
    "torch_tensorrt.dynamo.runtime": [
        *TORCH_SIDE,
        "torch_tensorrt.dynamo",
        "torch_tensorrt.formats",
        "torch_tensorrt.runtime",
    ],
    "torch_tensorrt.ts": [
        *TORCH_SIDE,
        "torch_tensorrt.dynamo",
        "torch_tensorrt.dynamo.__init__",
        "torch_tensorrt.formats",
        "torch_tensorrt.runtime",
    ],
    "torch_tensorrt.__init__": FRONT_END,
    "torch_tensorrt._compile": FRONT_END,
    "torch_tensorrt._convert": FRONT_END,
    "torch_tensorrt.dynamo.__init__": FRONT_END,
}
# Imports inside functions, by module, each with its reason.
LATE_IMPORTS: dict[str, dict[str, str]] = {
    "torch_tensorrt.dynamo._progress": {"rich": "need not be installed"},
    "torch_tensorrt.dynamo.backend._capture": {
        "functorch": "takes long to import",
        "torch._dynamo": "takes long to import",
    },
    "torch_tensorrt.formats.aoti.compilations": {"torch._inductor": "takes long to import"},
    "torch_tensorrt.formats.aoti.compile": {"torch._inductor": "takes long to import"},
    "torch_tensorrt.formats.aoti.gpu": {"torch.utils.cpp_extension": "takes long to import"},
}
MAX_FILE_LINES = 1000
MAX_FUNCTION_LINES = 80
MAX_PARAMETERS = 6


@dataclass
class Options:
    build: Path
    fix: bool


Findings = Iterator[str]
CHECKS: dict[str, Callable[[Options], Findings]] = {}


def check(function: Callable[[Options], Findings]) -> Callable[[Options], Findings]:
    CHECKS[function.__name__] = function
    return function


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_files(*suffixes: str, folders: list[str] = CODE_FOLDERS) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and path.is_file()
    )


def python_files() -> list[Path]:
    folders = ["python", "scripts", "benchmarks", "examples", "tests"]
    return [
        path
        for path in code_files(".py", folders=folders)
        if not {"lib", "bin"} & set(path.relative_to(ROOT).parts)
    ]


def output_lines(command: list[str]) -> list[str]:
    """The lines a failing command printed; none when it succeeded."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    return (done.stdout + done.stderr).strip().splitlines() or [f"{command[0]} failed"]


# ---- Format ----


@check
def format(options: Options) -> Findings:
    """clang-format for C++ (version 19, so that all agree), ruff for Python."""
    sources = [str(path) for path in code_files(".h", ".hpp", ".cpp", ".c")]
    mode = ["-i"] if options.fix else ["--dry-run", "--Werror"]
    for line in output_lines(["clang-format-19", *mode, *sources]):
        if "error:" in line:
            yield f"{relative(Path(line.split(':')[0]))}: not in the project's format"
    python = [str(path) for path in python_files()]
    ruff = ["ruff", "format", "-q"] + ([] if options.fix else ["--check"])
    for line in output_lines([*ruff, *python]):
        yield f"ruff format: {line}"
    if options.fix:
        output_lines(["ruff", "check", "-q", "--fix", *python])


@check
def ruff(_: Options) -> Findings:
    """Python: ruff's checks, as pyproject.toml selects them."""
    yield from output_lines(
        ["ruff", "check", "-q", "--output-format", "concise", *map(str, python_files())]
    )


# ---- Architecture ----


def folder_of(path: str) -> str:
    """The longest key of ALLOWED_INCLUDES that a path relative to src/ lies in."""
    fitting = [key for key in ALLOWED_INCLUDES if path == key or path.startswith(key + "/")]
    return max(fitting, key=len, default="")


def included_headers(path: Path) -> Iterator[tuple[int, str]]:
    pattern = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := pattern.match(line):
            yield number, match[1]


@check
def includes(_: Options) -> Findings:
    """No folder includes one to its right in the flow; foreign headers stay in their folder."""
    for path in code_files(".h", ".cpp", ".def", folders=["src"]):
        inside = path.relative_to(ROOT / "src").as_posix()
        own = folder_of(inside)
        if not own:
            yield f"src/{inside}: its folder has no row in ALLOWED_INCLUDES of scripts/lint.py"
            continue
        for number, header in included_headers(path):
            if not (ROOT / "src" / header).is_file():
                continue
            allowed = any(
                header == entry or header.startswith(entry + "/")
                for entry in [own, *ALLOWED_INCLUDES[own]]
            )
            if not allowed:
                yield f"src/{inside}:{number}: {own} may not include {header}"
    for path in code_files(".h", ".hpp", ".cpp"):
        name = relative(path)
        for number, header in included_headers(path):
            for pattern, homes in CONFINED_HEADERS.items():
                if re.match(pattern, header) and not any(
                    name.startswith(home + "/") for home in homes
                ):
                    yield f"{name}:{number}: {header} may only be included in {', '.join(homes)}"


def python_modules() -> dict[str, Path]:
    """The modules of the packages by name: "torch_tensorrt.dynamo.__init__" for a package's own file."""
    root = ROOT / "python"
    paths = [path for path in python_files() if path.is_relative_to(root)]
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}


def imported_names(node: ast.AST) -> list[str]:
    """What an import statement names, from the outside in: "torch_tensorrt.dynamo.compile"."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def module_named(name: str, modules: dict[str, Path]) -> str:
    """The module that gives a name: itself, a package's file, or the module that has it; "" for a foreign one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        prefix = ".".join(parts[:count])
        for candidate in (prefix, f"{prefix}.__init__"):
            if candidate in modules:
                return candidate
    return ""


def row_of(module: str) -> str:
    """The longest key of ALLOWED_IMPORTS that a module lies in."""
    fitting = [key for key in ALLOWED_IMPORTS if module == key or module.startswith(key + ".")]
    return max(fitting, key=len, default="")


def import_cycle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first again at the end; none if there are none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges[module]):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


def late_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                for name in imported_names(node):
                    yield node.lineno, name


@check
def imports(_: Options) -> Findings:
    """Python: no package imports what its row does not allow, no circles, no imports in functions without a reason."""
    modules = python_modules()
    edges: dict[str, set[str]] = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        own = row_of(module)
        edges[module] = set()
        for node in ast.walk(tree):
            for name in imported_names(node):
                target = module_named(name, modules)
                if not target or target == module:
                    continue
                edges[module].add(target)
                if not {row_of(target), target} & {own, *ALLOWED_IMPORTS[own]}:
                    yield f"{relative(path)}:{node.lineno}: {own} may not import {target}"
        reasons = LATE_IMPORTS.get(module, {})
        for line, name in late_imports(tree):
            if not any(name == entry or name.startswith(entry + ".") for entry in reasons):
                yield (
                    f"{relative(path)}:{line}: {name} is imported inside a function: import it at the top, or give "
                    "the reason in LATE_IMPORTS of scripts/lint.py"
                )
    if cycle := import_cycle(edges):
        yield f"python: modules import each other in a circle: {' -> '.join(cycle)}"


@check
def public_headers(_: Options) -> Findings:
    """Tools and examples see what users see: include/kiln, and no file of src/."""
    for path in code_files(".h", ".cpp", ".c", folders=["tools", "examples"]):
        for number, header in included_headers(path):
            if (ROOT / "src" / header).is_file():
                yield f"{relative(path)}:{number}: {header} is not a public header"


# ---- Size ----


@check
def file_sizes(_: Options) -> Findings:
    """No file above the hard limit; the median and the 90th percentile are reported."""
    files = code_files(".cpp", ".h", ".hpp", folders=["src", "include", "tools"]) + [
        path for path in python_files() if relative(path).startswith("python/")
    ]
    sizes = {path: len(path.read_text().splitlines()) for path in files}
    sources = [size for path, size in sizes.items() if path.suffix == ".cpp"]
    if len(sources) > 1:
        p90 = quantiles(sources, n=10)[-1]
        print(f"  {len(sources)} sources: median {median(sources):.0f} lines, p90 {p90:.0f}")
    for path, size in sizes.items():
        if size > MAX_FILE_LINES:
            yield f"{relative(path)}: got {size} lines, expected at most {MAX_FILE_LINES}"


@check
def function_sizes(_: Options) -> Findings:
    """No function above the hard limits of lines and parameters; pipelines and the C API's parameters are exempt."""
    import lizard

    lengths = []
    files = code_files(".cpp", folders=["src", "tools"]) + [
        path
        for path in python_files()
        if relative(path).startswith(("python/", "scripts/", "benchmarks/"))
    ]
    for result in lizard.analyze_files([str(path) for path in files], threads=2):
        name = relative(Path(result.filename))
        for function in result.function_list:
            lines = function.end_line - function.start_line + 1
            lengths.append(lines)
            where = f"{name}:{function.start_line}: {function.name}"
            if lines > MAX_FUNCTION_LINES and not name.endswith("pipeline.cpp"):
                yield f"{where} has {lines} lines, expected at most {MAX_FUNCTION_LINES}"
            parameters = len(function.parameters)
            public_c = function.name.startswith(("kiln_", "AOTInductor"))
            is_python = name.endswith(".py")
            if parameters > MAX_PARAMETERS and not public_c and not is_python:
                yield f"{where} has {parameters} parameters, expected at most {MAX_PARAMETERS}"
    if len(lengths) > 1:
        p90 = quantiles(lengths, n=10)[-1]
        print(f"  {len(lengths)} functions: median {median(lengths):.0f} lines, p90 {p90:.0f}")


# ---- Completeness ----


@check
def to_dos(_: Options) -> Findings:
    """An open point is an issue with a number, or nothing."""
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
    own = Path(__file__).resolve()
    for path in code_files(".h", ".hpp", ".cpp", ".c", ".def") + python_files():
        if path == own:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := pattern.search(line):
                yield f"{relative(path)}:{number}: a bare {match[1]}"


@check
def listed_sources(_: Options) -> Findings:
    """Every source is built and every C++ test is registered: some CMake file of its folder (or above) names it."""
    for path in code_files(".cpp", ".c", folders=["src", "tools", "tests", "benchmarks"]):
        listing = ""
        for folder in [path.parent, *path.parent.parents]:
            for file in [folder / "CMakeLists.txt", *sorted(folder.glob("*.cmake"))]:
                listing += file.read_text() if file.is_file() else ""
            if folder == ROOT:
                break
        if not re.search(rf"\b{re.escape(path.name)}\b|\b{re.escape(path.stem)}\b", listing):
            yield f"{relative(path)}: in no CMakeLists.txt"


@check
def op_coverage(_: Options) -> Findings:
    """Every op of the table has a reference evaluation, its own or its kind's, and a conformance case."""

    def text_of(folder: str, suffix: str) -> str:
        return "\n".join(path.read_text() for path in sorted((ROOT / folder).rglob(suffix)))

    reference = text_of("src/backends/reference", "*.cpp")
    conformance = text_of("tests/conformance", "*.ir")
    table = (ROOT / "src/ir/ops.def").read_text()
    for op, kind in re.findall(r"^KILN_OP\((\w+), (\w+),", table, flags=re.MULTILINE):
        if op == "custom":  # its kernels are the user's: tests/capi/custom_kernels_test.cpp
            continue
        if not re.search(rf"\b{op}\b|OpKind::{kind}\b", reference):
            yield f"src/ir/ops.def: {op} lacks an evaluation in src/backends/reference"
        if not re.search(rf"\b{op}\b", conformance):
            yield f"src/ir/ops.def: {op} lacks a case in tests/conformance"


@check
def pass_coverage(_: Options) -> Findings:
    """A pass is one file of its name, and has a golden test."""
    for stage, folder in [("passes", "passes"), ("plan", "plan/passes")]:
        table = ROOT / "src" / folder / "passes.def"
        tests = "\n".join(
            path.read_text() for path in sorted((ROOT / "tests" / stage).rglob("*.*"))
        )
        for name in re.findall(r"^KILN_\w*PASS\((\w+),", table.read_text(), flags=re.MULTILINE):
            if not (table.parent / f"{name}.cpp").is_file():
                yield f"src/{folder}/passes.def: {name} has no src/{folder}/{name}.cpp"
            if name not in tests:
                yield f"src/{folder}/passes.def: {name} has no test in tests/{stage}"


@check
def links(_: Options) -> Findings:
    """Relative links of the documentation lead somewhere."""
    for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            if not (path.parent / target).exists():
                yield f"{relative(path)}: the link to {target} leads nowhere"


def ops_page_text(command: Path) -> str:
    listing = subprocess.run([command, "ops", "--json"], capture_output=True, text=True, check=True)
    ops = json.loads(listing.stdout)
    overloads: dict[str, list[str]] = {}
    for target in ops["aten"]:
        name, _, overload = target.rpartition(".")
        overloads.setdefault(name, []).append(overload)
    lines = [
        "# Operators",
        "",
        "Written by `make format` from what the compiler says (`kiln ops`). What PyTorch's own samples of every",
        "operator give, and why some are refused, is in [opinfo.md](opinfo.md).",
        "",
        f"## PyTorch operators that can be compiled: {len(ops['aten'])}",
        "",
        "`kiln ops model.pt2` says which nodes of a model cannot be compiled, and why.",
        "",
        "| operator | overloads |",
        "|---|---|",
        *[f"| `{name}` | {', '.join(found)} |" for name, found in overloads.items()],
        "",
        f"## Ops of the IR: {len(ops['ops'])}",
        "",
        "| op | meaning |",
        "|---|---|",
        *[
            "| `{name}` | {summary} |".format(**op).replace(" |x| ", " \\|x\\| ")
            for op in ops["ops"]
        ],
    ]
    return "\n".join(lines) + "\n"


@check
def ops_page(options: Options) -> Findings:
    """docs/ops.md lists what the compiler supports."""
    command, page = options.build / "bin/kiln", ROOT / "docs/ops.md"
    if not command.is_file():
        yield f"{command} is missing: build first"
        return
    text = ops_page_text(command)
    if options.fix:
        page.write_text(text)
    elif not page.is_file() or page.read_text() != text:
        yield "docs/ops.md is not what the compiler supports: run make format"


# ---- clang-tidy ----


def project_dependencies(build: Path) -> dict[Path, list[Path]]:
    """For every compiled source of the project: the project's files that it includes, itself first."""
    listing = subprocess.run(
        ["ninja", "-C", str(build), "-t", "deps"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[Path, list[Path]] = {}
    for block in listing.split("\n\n"):
        paths = [(build / line.strip()).resolve() for line in block.splitlines()[1:]]
        own = [path for path in paths if path.is_relative_to(ROOT) and path.exists()]
        if own:
            found[own[0]] = own
    return found


def tidy_stale(build: Path) -> dict[Path, Path]:
    """Sources that changed (or what they include, or the rules) since they were found clean, with their stamps."""
    rules = ROOT / ".clang-tidy"
    stale = {}
    for source, used in sorted(project_dependencies(build).items()):
        stamp = build / "tidy" / relative(source).replace("/", "__")
        newest = max(path.stat().st_mtime for path in [rules, *used])
        clean = stamp.is_file() and stamp.stat().st_mtime >= newest
        if relative(source).startswith(("src/", "tools/")) and not clean:
            stale[source] = stamp
    return stale


def tidy_file(build: Path, source: Path, stamp: Path) -> list[str]:
    start = time.time()
    lines = output_lines(["clang-tidy-19", "-p", str(build), "--quiet", str(source)])
    if not lines:
        stamp.touch()
        os.utime(stamp, (start, start))
    return [line.removeprefix(f"{ROOT}/") for line in lines if re.search(r"(warning|error):", line)]


@check
def tidy(options: Options) -> Findings:
    """Naming and a few bug checks of .clang-tidy, on what changed since it was last found clean."""
    if not (options.build / "compile_commands.json").is_file():
        yield f"{options.build}/compile_commands.json is missing: build first"
        return
    (options.build / "tidy").mkdir(exist_ok=True)
    stale = tidy_stale(options.build)
    if stale:
        print(f"  {len(stale)} files")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda item: tidy_file(options.build, *item), stale.items())
        yield from dict.fromkeys(line for lines in results for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--fix", action="store_true", help="rewrite what can be rewritten")
    parser.add_argument("checks", nargs="*", metavar="check", help=", ".join(CHECKS))
    arguments = parser.parse_args()
    unknown = set(arguments.checks) - set(CHECKS)
    if unknown:
        parser.error(f"got {', '.join(sorted(unknown))}, expected some of {', '.join(CHECKS)}")
    for tool in ["clang-format-19", "clang-tidy-19", "ruff"]:
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not installed: run make setup")

    options = Options(arguments.build.resolve(), arguments.fix)
    failed = []
    for name in arguments.checks or CHECKS:
        start = time.monotonic()
        print(f"lint: {name}")
        findings = list(dict.fromkeys(CHECKS[name](options)))
        for finding in findings:
            print(f"  {finding}")
        if findings:
            failed.append(f"{name} ({len(findings)}, {time.monotonic() - start:.1f} s)")
    if failed:
        print(f"lint FAILED: {', '.join(failed)}")
        return 1
    print("lint passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
