"""The console script `kiln`: runs the native command that the wheel carries."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from kiln.cuda import tell_library_folders


def main(arguments: list[str] | None = None) -> NoReturn:
    tell_library_folders()
    command = Path(__file__).parent / "bin" / "kiln"
    os.execv(command, [str(command), *(sys.argv[1:] if arguments is None else arguments)])
