"""Configures and builds a CMake project that uses Kiln, as a user would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOOLS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
# Nothing of this process: what a program needs has to be found by itself.
CLEAN = {"PATH": "/usr/bin:/bin"}


def output_of(command: list[object], *, code: int = 0, env: dict[str, str] | None = None) -> str:
    """Standard output and error of a command that has to end with the given code."""
    done = subprocess.run(
        [str(word) for word in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, f"{command} gave {done.returncode}\n{done.stdout}"
    return done.stdout


def kiln_module(*arguments: object) -> str:
    return output_of([sys.executable, "-m", "kiln", *arguments]).strip()


def build_project(source: Path, build: Path, *options: str) -> Path:
    """Configures and builds; warnings of the compiler are errors."""
    cmake = shutil.which("cmake", path=TOOLS)
    assert cmake, "cmake is not installed: run make setup"
    flags = [f"-DCMAKE_{language}_FLAGS=-Wall -Wextra -Werror" for language in ("C", "CXX")]
    settings = ["-DCMAKE_BUILD_TYPE=Release", "--no-warn-unused-cli", *flags, *options]
    env = os.environ | {"PATH": TOOLS}
    output_of([cmake, "-S", source, "-B", build, "-G", "Ninja", *settings], env=env)
    output_of([cmake, "--build", build], env=env)
    return build


def needed_libraries(binary: Path) -> set[str]:
    """The libraries that a binary names, without those that these need."""
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", output_of(["readelf", "-d", binary])))


def loaded_libraries(binary: Path) -> set[str]:
    """All libraries that the loader would bring in; none may be missing."""
    listing = output_of(["ldd", binary], env=CLEAN)
    assert "not found" not in listing, listing
    return {line.split()[0].rsplit("/", 1)[-1] for line in listing.splitlines()}
