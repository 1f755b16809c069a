"""The frame of every job: arguments → settings → session → one call → a summary, or one line about a failure."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from delta import exceptions as delta_exceptions
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.sql import SparkSession

from lambda_spark.cli.arguments import parse, reads_kafka
from lambda_spark.cli.run_log import RunLog
from lambda_spark.errors import JobRunningError, LambdaSparkError, reason_of, way_out
from lambda_spark.settings import Settings, load_settings
from lambda_spark.spark import fit_partitions, open_session
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS
from lambda_spark.text import clean

# They have no class in common.
_CONFLICTS = tuple(getattr(delta_exceptions, name) for name in delta_exceptions.__all__)
_STARTS = 3


@dataclass(slots=True)
class Job:
    """What a job's one call gets."""

    name: str
    arguments: argparse.Namespace
    settings: Settings
    spark: SparkSession
    started: float
    is_process: bool = False
    """Whether it is a process of its own, whose runs are noted, and not a part of another one."""
    runs: RunLog | None = None
    told: list[str] = field(default_factory=list)
    """The lines of its summary."""

    def lake(self, *, create: bool = False) -> Lake:
        lake = Lake.open(self.spark, self.arguments.lake, create=create)
        lake.locks.say = self.say
        fit_partitions(self.spark, lake.size(EVENTS))
        return lake

    def record(self, lake: Lake) -> Lake:
        """Have what this process does from now on noted in the lake's `job_runs`."""
        if self.is_process and self.runs is None:
            self.runs = RunLog(lake, self.name)
        return lake

    def sources(self) -> list[str]:
        named: list[str] = self.arguments.sources
        return named or ([self.settings.ingest.source] if self.settings.ingest.source else [])

    @property
    def reads_kafka(self) -> bool:
        return reads_kafka(self.arguments)

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {clean(text)}", flush=True)

    def step(self, step: str) -> Callable[[str], None]:
        """Progress of one step of several."""
        return lambda text: self.say(f"{step}: {text}")

    def summary(self, lines: Iterable[str], *, read: Mapping[str, int], written: Mapping[str, int]) -> None:
        """What was done: the job's own lines, then the table versions read and written, and the seconds."""
        self.told = [clean(line) for line in lines]
        print()
        for line in self.told:
            print(line)
        print(f"read:    {_versions(read)}")
        print(f"written: {_versions(written)}")
        print(f"{self.name} took {time.monotonic() - self.started:.1f} s", flush=True)


def run_job(name: str, call: Callable[[Job], int | None]) -> NoReturn:
    """Run a job as a process, from its command line to its exit code."""
    started = time.monotonic()
    code = 0
    job: Job | None = None
    try:
        arguments = parse(name, sys.argv[1:])
        settings = load_settings(arguments.conf_file, arguments.assignments)
        spark = open_session(name)
        _stop_at_once_when_told(name)
        job = Job(name, arguments, settings, spark, started, is_process=True)
        code = call_until_written(call, job)
        _note(job, "done", "\n".join(job.told))
    except LambdaSparkError as error:
        code = error.exit_code
        _fail(f"{name}: {error}")
        if not isinstance(error, JobRunningError):
            _note(job, "failed", str(error))
    except KeyboardInterrupt:
        code = 130
        _fail(f"{name}: stopped")
    except (Exception, Py4JError) as error:
        code = 1
        line = _in_one_line(error)
        _fail(f"{name} failed: {line}")
        _note(job, "failed", line)
    # Not sys.exit: a stopped stream's callback threads must not hold the process, and all is committed.
    sys.stdout.flush()
    os._exit(code)


def call_until_written(call: Callable[[Job], int | None], job: Job) -> int:
    """A job's exit code. Where another writer (a shell, say: the jobs hold locks) has changed what it had read, and
    Delta refused its commit, it starts again, as it does when it was killed."""
    for left in reversed(range(_STARTS)):
        try:
            return call(job) or 0
        except _CONFLICTS:
            if not left:
                raise
            job.say("something else has written to these tables meanwhile; starting again")
    raise AssertionError("unreachable")


def _in_one_line(error: Exception) -> str:
    """What failed: the cause and the way out where that is known, else the first line of what was said."""
    cause = reason_of(error)
    advice = way_out(f"{cause}\n{error}")
    if advice:
        return f"{cause}; {advice}"
    if isinstance(error, Py4JJavaError):
        # Its own text begins with the call that failed, which says nothing.
        return cause
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _note(job: Job | None, outcome: str, detail: str) -> None:
    """Note how a run ended; that this failed is no failure of the job."""
    if job is None or job.runs is None:
        return
    try:
        job.runs.finish(outcome, detail)
    except (Exception, Py4JError) as error:
        print(clean(f"{job.name}: this run is not in job_runs: {reason_of(error)}"), file=sys.stderr)


def _stop_at_once_when_told(name: str) -> None:
    """Ctrl-C is how a job that stays up ends.

    The terminal stops Spark at the same moment, so there is no session left to close; all that is committed stays.
    """

    def stop(number: int, frame: object) -> None:
        print(f"\n{name}: stopped; what is committed stays, and the next start goes on from there", flush=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _fail(line: str) -> None:
    """One line for the user; the trace goes to the log."""
    line = clean(line)
    log = os.environ.get("LAMBDA_SPARK_LOG")
    if log:
        try:
            os.makedirs(os.path.dirname(log), exist_ok=True)
            with open(log, "a", encoding="utf-8") as file:
                trace = "\n".join(map(clean, traceback.format_exc().splitlines()))
                file.write(f"{line}\n{trace}\n")
            line = f"{line}\n(details: {clean(log)})"
        except OSError as error:
            line = f"{line}\n(no details: {clean(log)}: {error.strerror})"
    print(line, file=sys.stderr, flush=True)


def _versions(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} v{version}" for name, version in versions.items()) or "nothing"
