"""Prints the progress of a job. Each line is a log record, with the seconds since the job started."""

from __future__ import annotations

import logging
import sys
import time

from lambda_spark.text import strip_control_characters

_STEPS = {"ingestion": "ingest", "batch": "trends", "speed": "similarity", "serving": "recommend"}
"""Name that begins a progress line, by the package that logs the line. Lines of other packages begin with no name."""


class _TerminalHandler(logging.Handler):
    """Print each log record as `[  4.4 s] step: message`."""

    def __init__(self, started: float, *, to_stderr: bool) -> None:
        super().__init__(logging.INFO)
        self._started = started
        self._to_stderr = to_stderr

    def emit(self, record: logging.LogRecord) -> None:
        folder = record.name.split(".")[1] if "." in record.name else ""
        step = f"{_STEPS[folder]}: " if folder in _STEPS else ""
        text = strip_control_characters(f"{step}{record.getMessage()}")
        stream = sys.stderr if self._to_stderr else sys.stdout
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", file=stream, flush=True)


def show_progress(started: float, *, to_stderr: bool = False) -> None:
    """Show the package's log records of level INFO and above on the terminal.

    Args:
        started: Value of `time.monotonic()` when the job started.
        to_stderr: Whether to print to the error output. Use this if a program reads the standard output.
    """
    package = logging.getLogger("lambda_spark")
    package.handlers = [_TerminalHandler(started, to_stderr=to_stderr)]
    package.setLevel(logging.INFO)
    package.propagate = False
