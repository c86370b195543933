"""A virtual environment that has PyTorch and what it needs, and nothing of this project."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import venv
from pathlib import Path


def make(folder: Path) -> Path:
    """Makes the environment out of symbolic links; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    for name in _closure("torch"):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return python


def _closure(name: str) -> set[str]:
    """A distribution and those that it requires, as far as they are installed."""
    found: set[str] = set()
    left = [name]
    while left:
        each = left.pop()
        try:
            distribution = importlib.metadata.distribution(each)
        except importlib.metadata.PackageNotFoundError:
            continue
        if each not in found:
            found.add(each)
            required = [line for line in distribution.requires or () if "extra ==" not in line]
            left += [re.match(r"[\w.-]+", line)[0] for line in required]
    return found
