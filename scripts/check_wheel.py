"""Checks a wheel: what is in it, and that it works in new virtual environments.

scripts/check_wheel.py dist/torch_kiln-*.whl [--python COMMAND ...]

The first environment has the Python of this one, and its torch (linked, not installed again): there
a model is compiled and saved, and loaded in a new process. Each --python gets an environment with
NumPy alone, where the package `kiln` compiles and runs the same model.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = [
    "kiln/__main__.py",
    "kiln/bin/kiln",
    "kiln/include/kiln/kiln.h",
    "kiln/include/kiln/kiln.hpp",
    "kiln/lib/cmake/Kiln/KilnConfig.cmake",
    "kiln/lib/cmake/Kiln/KilnConfigVersion.cmake",
    "kiln/lib/cmake/Kiln/KilnTargets.cmake",
    "kiln/lib/libkiln.so",
    "kiln/lib/libkiln_cuda.so",
    "kiln/lib/libkiln_runtime.so",
    "kiln/lib/libkiln_torch.so",
    "kiln/py.typed",
    "torch_tensorrt/__init__.py",
    "torch_tensorrt/py.typed",
]
# What else is built when its sources are there.
OPTIONAL = {"src/torch/aoti": ["kiln/lib/libkiln_aoti.so"]}
# What every Linux that manylinux speaks of has; torch brings its own.
SYSTEM_LIBRARIES = {
    "ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6",
    "libpthread.so.0", "librt.so.1", "libstdc++.so.6",
}  # fmt: skip
TORCH_LIBRARIES = {"libtorch_cpu.so", "libtorch.so", "libc10.so"}
MAX_GLIBC = (2, 36)  # Debian 12

MAKE_MODEL = """
import sys, torch, torch_tensorrt
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.GELU()).eval()
x = torch_tensorrt.Input(min_shape=(1, 16), opt_shape=(4, 16), max_shape=(8, 16), name="input")
compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[x])
torch_tensorrt.save(compiled, sys.argv[1] + "/model.ep", arg_inputs=[x])
batch = torch.export.Dim("batch", min=1, max=8)
program = torch.export.export(model, (torch.ones(2, 16),), dynamic_shapes=({0: batch},))
torch.export.save(program, sys.argv[1] + "/model.pt2")
torch.save(model(torch.ones(3, 16)).detach(), sys.argv[1] + "/expected.pt")
(model(torch.ones(3, 16)).detach().numpy()).tofile(sys.argv[1] + "/expected.f32")
"""
LOAD_MODEL = """
import sys, torch, torch_tensorrt
expected = torch.load(sys.argv[1] + "/expected.pt")
for load in (torch_tensorrt.load, torch.export.load):
    got = load(sys.argv[1] + "/model.ep").module()(torch.ones(3, 16))
    torch.testing.assert_close(got, expected)
"""
# Also: that nothing of Kiln, and no simdjson, comes from outside the environment.
RUN_KILN = """
import sys, pathlib, numpy, kiln
assert "torch" not in sys.modules
session = kiln.load(kiln.compile(sys.argv[1] + "/model.pt2")).session()
(got,) = session.run(numpy.ones((3, 16), numpy.float32))
expected = numpy.fromfile(sys.argv[1] + "/expected.f32", numpy.float32).reshape(3, 8)
numpy.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
maps = [line.split()[-1] for line in open("/proc/self/maps") if "/" in line]
ours = {path for path in maps if "kiln" in pathlib.Path(path).name or "simdjson" in path}
assert len(ours) >= 3, ours
assert not any("libkiln_cuda" in path for path in ours), ours
assert all(path.startswith(sys.prefix) for path in ours), ours
"""
# The library for GPUs is found, and is of this build: what is missing then, if anything, is NVIDIA's.
LOAD_FOR_GPU = """
import sys, kiln
try:
    engine = kiln.compile(sys.argv[1] + "/model.pt2", targets=["cuda:sm_90"])
except kiln.KilnError as error:
    sys.exit(0 if "NVRTC" in str(error) else str(error))
try:
    kiln.load(engine)
except kiln.UnsupportedError as error:
    assert "libkiln_cuda" not in str(error), error
maps = open("/proc/self/maps").read()
assert sys.prefix in maps and "/libkiln_cuda.so" in maps, maps
"""


def output_of(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"check_wheel: FAILED: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


# ---- Contents ----


def check_name(wheel: Path, contents: zipfile.ZipFile) -> Iterator[str]:
    """One wheel for every Python 3 and one platform."""
    pattern = r"torch_kiln-[^-]+-py3-none-(linux|manylinux_\d+_\d+)_x86_64"
    if not re.fullmatch(pattern, wheel.stem):
        yield f"got the name {wheel.name}, expected torch_kiln-VERSION-py3-none-linux_x86_64.whl"
    (metadata,) = [name for name in contents.namelist() if name.endswith(".dist-info/WHEEL")]
    text = contents.read(metadata).decode()
    if "Root-Is-Purelib: false" not in text or "Tag: py3-none-" not in text:
        yield f"{metadata} says\n{text}"


def check_files(contents: zipfile.ZipFile) -> Iterator[str]:
    names = set(contents.namelist())
    optional = [
        name for source, files in OPTIONAL.items() if (ROOT / source).is_dir() for name in files
    ]
    for name in [*REQUIRED, *optional]:
        if name not in names:
            yield f"{name} is missing"
    for name in names:
        if not name.startswith(("kiln/", "torch_tensorrt/", "torch_kiln-")):
            yield f"{name} does not belong into the wheel"
        if name.endswith((".pyc", ".cpp", ".o")):
            yield f"{name} does not belong into the wheel"
        if name.endswith(".cmake") and str(ROOT) in contents.read(name).decode():
            yield f"{name} names the folder it was built in"


def check_binary(path: Path, bundled: set[str]) -> Iterator[str]:
    dynamic = output_of("readelf", "-d", path)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    foreign = needed - SYSTEM_LIBRARIES - bundled
    if "torch" in path.name or "aoti" in path.name:
        foreign -= TORCH_LIBRARIES
    if foreign:
        yield f"{path.name} needs {', '.join(sorted(foreign))}, which not every system has"
    found = re.search(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", dynamic)
    if needed & bundled and (not found or not found[1].startswith("$ORIGIN")):
        yield f"{path.name} does not look for libraries beside itself"
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", output_of("objdump", "-T", path))
    newest = max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))
    if newest > MAX_GLIBC:
        yield f"{path.name} needs glibc {newest}, expected at most {MAX_GLIBC}"


def check_contents(wheel: Path, folder: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as contents:
        problems = [*check_name(wheel, contents), *check_files(contents)]
        contents.extractall(folder)
    binaries = [*folder.glob("kiln/lib/*.so*"), folder / "kiln" / "bin" / "kiln"]
    bundled = {path.name for path in binaries}
    for path in binaries:
        problems += check_binary(path, bundled)
    return problems


# ---- Environments ----


def make_environment(folder: Path, python: str, wheel: Path) -> Path:
    """The Python of a new virtual environment with the wheel, and without what it depends on."""
    output_of(python, "-m", "venv", folder)
    inside = folder / "bin" / "python"
    output_of(inside, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    return inside


def link_packages(python: Path) -> None:
    """Links what is installed beside this script's Python, Kiln excepted."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    source = Path(output_of(sys.executable, "-c", where).strip())
    target = Path(output_of(python, "-c", where).strip())
    for entry in source.iterdir():
        own = "kiln" in entry.name or entry.name.startswith(("torch_tensorrt", "__editable__"))
        if not own and entry.suffix != ".pth" and not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)


def check_with_torch(folder: Path, wheel: Path) -> None:
    python = make_environment(folder / "torch", sys.executable, wheel)
    link_packages(python)
    for script in (MAKE_MODEL, LOAD_MODEL, RUN_KILN, LOAD_FOR_GPU):
        output_of(python, "-I", "-c", script, folder)
    package = output_of(python, "-I", "-m", "kiln", "--cmake-dir").strip()
    build = folder / "example"
    source = ROOT / "examples" / "cpp" / "runtime"
    cmake = Path(sys.executable).parent / "cmake"
    output_of(cmake, "-S", source, "-B", build, f"-DKiln_DIR={package}")
    output_of(cmake, "--build", build)
    output_of(folder / "torch/bin/kiln", "compile", folder / "model.pt2", "-o", folder / "m.kiln")
    output_of(build / "run_engine", folder / "m.kiln", "2")


def check_with_numpy(folder: Path, python: str, wheel: Path) -> None:
    inside = make_environment(Path(tempfile.mkdtemp(dir=folder)), python, wheel)
    output_of(inside, "-m", "pip", "install", "-q", "numpy")
    output_of(inside, "-I", "-c", RUN_KILN, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", action="append", default=[], help="another Python to try")
    arguments = parser.parse_args()
    wheel = arguments.wheel.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if problems := check_contents(wheel, folder / "contents"):
            sys.exit("check_wheel: FAILED\n  " + "\n  ".join(problems))
        print(f"check_wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB: contents in order")
        check_with_torch(folder, wheel)
        print(f"check_wheel: works in a new environment with {sys.version.split()[0]} and torch")
        for python in arguments.python:
            check_with_numpy(folder, python, wheel)
            print(f"check_wheel: works with {output_of(python, '--version').strip()} and NumPy")


if __name__ == "__main__":
    main()
