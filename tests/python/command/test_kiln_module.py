"""`python -m kiln`: the folders of the C and C++ parts, and the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def module(*arguments: str, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kiln", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.parametrize(
    ("option", "file"),
    [
        ("--cmake-dir", "KilnConfig.cmake"),
        ("--include-dir", "kiln/kiln.hpp"),
        ("--lib-dir", "libkiln.so"),
    ],
)
def test_folders(option, file) -> None:
    folder = Path(module(option).strip())
    assert folder.is_absolute()
    assert (folder / file).is_file()


def test_the_version() -> None:
    import kiln

    assert module("--version").strip() == f"kiln {kiln.__version__}"


def test_anything_else_goes_to_the_command() -> None:
    assert '"aten"' in module("ops", "--json")
    assert "kiln: " in module("inspect", "/nowhere.kiln", code=1)
    module("nonsense", code=2)


def test_help_names_both() -> None:
    for text in (module("--help"), module()):
        assert "--cmake-dir" in text
        assert "compile" in text


def test_a_folder_without_the_package(tmp_path) -> None:
    import kiln

    for file in kiln.library_directory().glob("libkiln*.so*"):
        (tmp_path / file.name).symlink_to(file.resolve())
    text = module("--cmake-dir", code=1, KILN_LIBRARY_DIR=str(tmp_path))
    assert "KilnConfig.cmake" in text
    assert str(tmp_path) in text
