"""Environments of their own for what is only set beside this project: other engines, a scheduler. Each is made once."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from tests.sessions import PROJECT

KEPT_IN = PROJECT / ".venv" / "others"


def python_of(requirements: Path) -> Path:
    """The interpreter of the environment for a `requirements-NAME.txt`, made where it is missing or out of date."""
    folder = KEPT_IN / requirements.stem.removeprefix("requirements-")
    python, stamp = folder / "bin" / "python", folder / "requirements.stamp"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        print(f"installing {requirements.name} into {folder.relative_to(PROJECT)}", file=sys.stderr)
        venv.create(folder, clear=True, symlinks=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_bytes(requirements.read_bytes())
    return python
