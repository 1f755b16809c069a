"""Makes separate Python environments for programs that tests run, such as other engines and a scheduler."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from tests.sessions import PROJECT

KEPT_IN = PROJECT / ".venv" / "others"


def python_of(requirements: Path) -> Path:
    """Make or renew the Python environment for a `requirements-NAME.txt`, and return its interpreter."""
    folder = KEPT_IN / requirements.stem.removeprefix("requirements-")
    python, stamp = folder / "bin" / "python", folder / "requirements.stamp"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        print(f"installing {requirements.name} into {folder.relative_to(PROJECT)}", file=sys.stderr)
        venv.create(folder, clear=True, symlinks=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_bytes(requirements.read_bytes())
    return python
