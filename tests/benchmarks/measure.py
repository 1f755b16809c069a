"""Functions that measure the time, CPU time and memory of a piece of work.

This module imports only the standard library, because the environments of the other engines run it too.
"""

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
    """Return the CPU seconds that the given processes have used so far, with all their threads."""
    ticks = 0
    for process in processes:
        # Split the line after its last parenthesis, because the process's name stands before it and may contain spaces.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def jvm_of(spark: Any) -> int:
    """Return the process id of a session's JVM."""
    return int(spark.sparkContext._jvm.ProcessHandle.current().pid())


def peak_bytes(process: int | str = "self") -> int:
    """Return the peak memory of a process so far, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measured(
    who: str, work: str, call: Callable[[], Any], cpu: Callable[[], float] = time.process_time, **more: Any
) -> Any:
    """Do a piece of work and print its figures as one line of JSON.

    Args:
        who: The name of the engine that does the work.
        work: The name of the work.
        call: The function that does the work.
        cpu: A function that returns the CPU seconds used so far.
        more: Further entries for the JSON line.

    Returns:
        The result of `call`.
    """
    began, cpu_began = time.perf_counter(), cpu()
    result = call()
    seconds, cpu_seconds = time.perf_counter() - began, cpu() - cpu_began
    figures = {"who": who, "work": work, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
    print(json.dumps({**figures, **more}), flush=True)
    return result


def print_versions(who: str, packages: Sequence[str]) -> None:
    """Print one line of JSON with the versions of the measured packages in this environment."""
    print(json.dumps({"who": who, "versions": {name: version(name) for name in packages}}), flush=True)


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that this process has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_of_children() -> int:
    """Return the largest peak memory, in bytes, among the processes that this process has started and waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def print_peak(who: str, process: int | str = "self") -> None:
    """Print one line of JSON with the peak memory of a process."""
    print(json.dumps({"who": who, "work": "all", "peak_bytes": peak_bytes(process)}), flush=True)


def bytes_read_by(process: int | str = "self") -> int:
    """Return the bytes that a process has read from files so far, from disk or from the page cache."""
    return int(Path(f"/proc/{process}/io").read_text().split("rchar:")[1].split()[0])
