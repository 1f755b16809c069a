"""Time, CPU and memory of one piece of work. Needs nothing but Python: the peers' environments run it too."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def cpu_seconds_of(*processes: int | str) -> float:
    """CPU time of some processes so far, in seconds, of all their threads."""
    ticks = 0
    for process in processes:
        # The name of a process may hold spaces; it ends with the last parenthesis.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def jvm_of(spark: Any) -> int:
    """The process of a session's JVM."""
    return int(spark.sparkContext._jvm.ProcessHandle.current().pid())


def peak_bytes(process: int | str = "self") -> int:
    """The most memory that a process has held so far."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measured(
    who: str, work: str, call: Callable[[], Any], cpu: Callable[[], float] = time.process_time, **more: Any
) -> Any:
    """Do a piece of work and print its figures, and what more is to be said, as a line of JSON; returns what the work
    returned."""
    began, cpu_began = time.perf_counter(), cpu()
    result = call()
    seconds, cpu_seconds = time.perf_counter() - began, cpu() - cpu_began
    figures = {"who": who, "work": work, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
    print(json.dumps({**figures, **more}), flush=True)
    return result


def print_versions(who: str, packages: Sequence[str]) -> None:
    """Print as a line of JSON what was measured, by the packages that this environment has."""
    print(json.dumps({"who": who, "versions": {name: version(name) for name in packages}}), flush=True)


def cpu_of_children() -> float:
    """CPU time of the processes that this one has started and waited for, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_of_children() -> int:
    """The most memory that one of the processes which this one has started and waited for has held."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def print_peak(who: str, process: int | str = "self") -> None:
    """Print as a line of JSON what a process has held at most."""
    print(json.dumps({"who": who, "work": "all", "peak_bytes": peak_bytes(process)}), flush=True)


def bytes_read_by(process: int | str = "self") -> int:
    """What a process has read from files so far, from the disk or from its cache."""
    return int(Path(f"/proc/{process}/io").read_text().split("rchar:")[1].split()[0])
