"""examples/cpp/runtime and examples/c: engines in C++ and C, with libkiln_runtime and nothing else."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from building import (
    CLEAN,
    ROOT,
    build_project,
    kiln_module,
    loaded_libraries,
    needed_libraries,
    output_of,
)

# The C library's: there is no other.
SYSTEM_LIBRARIES = {"linux-vdso.so.1", "libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}
CXX_LIBRARIES = {"libstdc++.so.6", "libgcc_s.so.1"}
PROGRAMS = {"cpp": "cpp/runtime", "c": "c"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with classifier.pt2, classifier.kiln and, by the command, from_command.kiln."""
    folder = tmp_path_factory.mktemp("models")
    output_of([sys.executable, ROOT / "examples" / "02_deploy_without_python.py", folder])
    kiln_module(
        "compile", folder / "classifier.pt2", "-o", folder / "from_command.kiln",
        "--shape", "image=1..8..32,3,32,32",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What `cmake --install` makes, moved to another place."""
    cmake = Path(sys.executable).parent / "cmake"
    folder = tmp_path_factory.mktemp("install")
    build = Path(kiln_module("--lib-dir")).parent
    if not (build / "cmake_install.cmake").is_file():
        pytest.skip("Kiln is used from a wheel: there is no build to install")
    output_of([cmake, "--install", build, "--prefix", folder / "first"])
    return (folder / "first").rename(folder / "moved")


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request, tmp_path_factory) -> Path:
    package = f"-DKiln_DIR={kiln_module('--cmake-dir')}"
    source = ROOT / "examples" / PROGRAMS[request.param]
    build = build_project(source, tmp_path_factory.mktemp(request.param), package)
    return build / "run_engine"


def expected(folder: Path, batch: int) -> torch.Tensor:
    image = torch.arange(batch * 3 * 32 * 32, dtype=torch.float64).sin().float()
    module = torch.export.load(folder / "classifier.pt2").module()
    with torch.no_grad():
        return module(image.reshape(batch, 3, 32, 32))


def check_output(text: str, wanted: torch.Tensor) -> None:
    header, *values = text.splitlines()
    assert header.endswith(f" [{', '.join(map(str, wanted.shape))}]")
    got = torch.tensor([float(value) for value in values]).reshape(wanted.shape)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["classifier.kiln", "from_command.kiln"])
@pytest.mark.parametrize("batch", [1, 5])
def test_gives_what_pytorch_gives(models, program, engine, batch) -> None:
    text = output_of([program, models / engine, batch], env=CLEAN)
    check_output(text, expected(models, batch))


def test_says_what_is_wrong(models, program, tmp_path) -> None:
    text = output_of([program, models / "classifier.kiln", 33], env=CLEAN, code=1)
    assert 'input "image" dim 0: got 33, expected 1..32' in text
    assert "usage" in output_of([program], env=CLEAN, code=2)
    (tmp_path / "foreign.kiln").write_bytes(b"not an engine" * 10)
    assert "run_engine: " in output_of([program, tmp_path / "foreign.kiln"], env=CLEAN, code=1)


def test_links_the_runtime_and_nothing_else(program) -> None:
    library = Path(kiln_module("--lib-dir")) / "libkiln_runtime.so"
    # A wheel holds no symbolic links, so that its libraries have one name.
    runtime = "libkiln_runtime.so.0" if library.is_symlink() else "libkiln_runtime.so"
    assert runtime in needed_libraries(program)
    assert loaded_libraries(program) <= SYSTEM_LIBRARIES | CXX_LIBRARIES | {runtime}
    assert loaded_libraries(library) <= SYSTEM_LIBRARIES


def test_an_installed_tree_may_be_moved(models, installed, tmp_path) -> None:
    prefix = f"-DCMAKE_PREFIX_PATH={installed}"
    build = build_project(ROOT / "examples" / "cpp" / "runtime", tmp_path / "build", prefix)
    text = output_of([build / "run_engine", models / "classifier.kiln", 3], env=CLEAN)
    check_output(text, expected(models, 3))
    assert str(installed) in output_of(["ldd", build / "run_engine"], env=CLEAN)
    for file in (installed / "lib" / "cmake" / "Kiln").iterdir():
        text = file.read_text()
        assert str(ROOT) not in text, f"{file} names the folder of the sources"
        assert str(installed.with_name("first")) not in text, f"{file} is not relocatable"


def test_the_compiler_component(models, installed, tmp_path) -> None:
    """Kiln::compiler carries Kiln::runtime: a program that compiles and runs names it alone."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(compile_and_run LANGUAGES CXX)\n"
        "find_package(Kiln 0.1 REQUIRED COMPONENTS compiler)\n"
        "add_executable(compile_and_run main.cpp)\n"
        "target_link_libraries(compile_and_run PRIVATE Kiln::compiler)\n"
    )
    (tmp_path / "main.cpp").write_text(
        "#include <kiln/kiln.hpp>\n"
        "#include <cstdio>\n"
        "int main(int, char** argv) {\n"
        "  const kiln::Bytes bytes = kiln::Model::open_file(argv[1]).compile();\n"
        "  std::puts(kiln::Engine::load_memory(bytes.span()).input(0).name);\n"
        "}\n"
    )
    build = build_project(tmp_path, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    text = output_of([build / "compile_and_run", models / "classifier.pt2"], env=CLEAN)
    assert text.strip() == "image"


@pytest.mark.parametrize(
    ("request_line", "message"),
    [
        ("find_package(Kiln 0.1 REQUIRED COMPONENTS nonsense)", "nonsense"),
        ("find_package(Kiln 7.0 REQUIRED)", "7.0"),
    ],
)
def test_the_package_refuses(tmp_path, request_line, message) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.25)\nproject(x LANGUAGES C)\n{request_line}\n"
    )
    with pytest.raises(AssertionError, match=message):
        build_project(tmp_path, tmp_path / "build", f"-DKiln_DIR={kiln_module('--cmake-dir')}")


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is not installed")
def test_pkg_config(models, installed, tmp_path) -> None:
    env = CLEAN | {"PKG_CONFIG_PATH": str(installed / "lib" / "pkgconfig")}
    flags = output_of(["pkg-config", "--cflags", "--libs", "kiln_runtime"], env=env).split()
    source = ROOT / "examples" / "c" / "run_engine.c"
    library = f"-Wl,-rpath,{installed / 'lib'}"
    output_of(["cc", "-std=c99", source, "-o", tmp_path / "run", *flags, library, "-lm"])
    text = output_of([tmp_path / "run", models / "classifier.kiln", 2], env=CLEAN)
    check_output(text, expected(models, 2))
