"""The console script `kiln`: runs the native command that the wheel carries."""

import os
import sys
from pathlib import Path


def main() -> None:
    command = Path(__file__).parent / "bin" / "kiln"
    os.execv(command, [str(command), *sys.argv[1:]])
