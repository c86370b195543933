"""`python -m kiln`: where the C and C++ parts lie. Anything else goes to the command `kiln`.

cmake -S . -B build -DKiln_DIR="$(python -m kiln --cmake-dir)"
"""

from __future__ import annotations

import sys
from pathlib import Path

from kiln import command, library_directory

USAGE = """\
usage: python -m kiln --cmake-dir | --include-dir | --lib-dir
       python -m kiln ARGUMENTS OF THE COMMAND kiln

  --cmake-dir    prints the folder with KilnConfig.cmake, for find_package(Kiln)
  --include-dir  prints the folder with kiln/kiln.h and kiln/kiln.hpp
  --lib-dir      prints the folder with libkiln_runtime.so and libkiln.so

Anything else goes to the command kiln:
"""


def holding(folder: Path, file: str) -> Path:
    """The folder, as an absolute path; FileNotFoundError unless it holds the file."""
    if not (folder / file).is_file():
        raise FileNotFoundError(
            f"got {folder} without {file}, expected the folder of an installed wheel or of a build"
        )
    return folder.resolve()


def cmake_directory() -> Path:
    return holding(library_directory() / "cmake" / "Kiln", "KilnConfig.cmake")


def include_directory() -> Path:
    """The wheel's own; in a source tree, the one that the sources are built with."""
    package = Path(__file__).parent
    inside = package / "include"
    return holding(inside if inside.is_dir() else package.parents[1] / "include", "kiln/kiln.h")


def runtime_directory() -> Path:
    return holding(library_directory(), "libkiln_runtime.so")


DIRECTORIES = {
    "--cmake-dir": cmake_directory,
    "--include-dir": include_directory,
    "--lib-dir": runtime_directory,
}


def main(arguments: list[str]) -> None:
    if len(arguments) == 1 and arguments[0] in DIRECTORIES:
        try:
            print(DIRECTORIES[arguments[0]]())
        except FileNotFoundError as error:
            sys.exit(f"kiln: {error}")
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, flush=True)
    command.main(arguments or ["--help"])


if __name__ == "__main__":
    main(sys.argv[1:])
