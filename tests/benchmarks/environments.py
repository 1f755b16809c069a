"""The environments of the benchmark's other sides: each its own, made once from pinned packages."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from tests.sessions import PROJECT

HERE = Path(__file__).parent
KEPT_IN = PROJECT / ".venv" / "benchmark"


def python_of(name: str) -> Path:
    """The interpreter of an environment, `single-machine` or `spark-peers`, made where it is missing or out of date."""
    requirements = HERE / f"requirements-{name}.txt"
    folder = KEPT_IN / name
    python, stamp = folder / "bin" / "python", folder / "requirements.stamp"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        print(f"benchmark: installing {requirements.name} into {folder.relative_to(PROJECT)}", file=sys.stderr)
        venv.create(folder, clear=True, symlinks=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_bytes(requirements.read_bytes())
    return python
