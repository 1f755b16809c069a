"""Runs a job from its command line to its exit code.

The module reads the options and settings, opens the session, and prints the summary or one line about a failure.
"""

from __future__ import annotations

import argparse
import logging
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

from lambda_spark.cli.arguments import parse, reads_kafka, settings_of
from lambda_spark.cli.progress import show_progress
from lambda_spark.cli.run_log import RunLog
from lambda_spark.errors import JobRunningError, LambdaSparkError, advice_for, root_cause
from lambda_spark.settings import Settings
from lambda_spark.spark import fit_partitions, open_session
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS
from lambda_spark.text import strip_control_characters

logger = logging.getLogger(__name__)

# Collect the classes of Delta's conflict errors one by one, because they share no base class of their own.
_CONFLICTS = tuple(getattr(delta_exceptions, name) for name in delta_exceptions.__all__)
_MAX_STARTS = 3
"""Maximum number of times that a job starts its work, if Delta refuses the commit of each earlier attempt."""


@dataclass(slots=True)
class Job:
    """A running job: its command line, its settings and its session."""

    name: str
    arguments: argparse.Namespace
    settings: Settings
    spark: SparkSession
    started: float
    """Value of `time.monotonic()` when the job started."""
    is_process: bool = False
    """Whether the job is a process of its own. Only the run of such a job is recorded in `job_runs`."""
    runs: RunLog | None = None
    summary_lines: list[str] = field(default_factory=list)
    """Lines of the summary that this kind of job adds, before the versions and the duration."""

    def lake(self, *, create: bool = False) -> Lake:
        """Open the lake that the command line names, and set the number of shuffle partitions by the size of `events`.

        Args:
            create: Whether to create the lake if there is none.

        Raises:
            UsageError: The folder holds something else than a lake, or there is no lake.
            LakeError: A table is missing or damaged.
        """
        lake = Lake.open(self.spark, self.arguments.lake, create=create)
        fit_partitions(self.spark, lake[EVENTS].size())
        return lake

    def record(self, lake: Lake) -> Lake:
        """Start to record this run in the table `job_runs`, if the job is a process of its own.

        Returns:
            The lake that was passed in.
        """
        if self.is_process and self.runs is None:
            self.runs = RunLog(lake, self.name)
        return lake

    def sources(self) -> list[str]:
        """Return the event files and folders of the command line, or without any the setting `ingest.source`."""
        named: list[str] = self.arguments.sources
        return named or ([self.settings.ingest.source] if self.settings.ingest.source else [])

    @property
    def reads_kafka(self) -> bool:
        """Whether the command line asks the job to read a Kafka topic."""
        return reads_kafka(self.arguments)

    def summary(self, lines: Iterable[str], *, read: Mapping[str, int], written: Mapping[str, int]) -> None:
        """Print what the job did and how long it took.

        Args:
            lines: Lines that this kind of job adds. They are printed first.
            read: The version of each table that the job read, by the table's name.
            written: The newest version of each table that the job wrote, by the table's name.
        """
        self.summary_lines = [strip_control_characters(line) for line in lines]
        print()
        for line in self.summary_lines:
            print(line)
        print(f"read:    {_versions(read)}")
        print(f"written: {_versions(written)}")
        print(f"{self.name} took {time.monotonic() - self.started:.1f} s", flush=True)


def run_job(name: str, call: Callable[[Job], int | None]) -> NoReturn:
    """Run a job as a process, from its command line to its exit code.

    Args:
        name: Name of the job.
        call: Does the job's work. It returns the exit code, or None for 0.
    """
    started = time.monotonic()
    code = 0
    job: Job | None = None
    try:
        arguments = parse(name, sys.argv[1:])
        settings = settings_of(arguments)
        spark = open_session(name)
        install_signal_handlers(name)
        show_progress(started, to_stderr=getattr(arguments, "json", False))
        job = Job(name, arguments, settings, spark, started, is_process=True)
        code = call_with_conflict_retry(call, job)
        _record_outcome(job, "done", "\n".join(job.summary_lines))
    except LambdaSparkError as error:
        code = error.exit_code
        _report_failure(f"{name}: {error}")
        if not isinstance(error, JobRunningError):
            _record_outcome(job, "failed", str(error))
    except KeyboardInterrupt:
        code = 130
        _report_failure(f"{name}: stopped")
    except (Exception, Py4JError) as error:
        code = 1
        description = _describe_failure(error)
        _report_failure(f"{name} failed: {description}")
        _record_outcome(job, "failed", description)
    # End without sys.exit, because sys.exit would wait for the callback threads of a stopped stream. Nothing is lost,
    # because the job has committed all its writes.
    sys.stdout.flush()
    os._exit(code)


def call_with_conflict_retry(call: Callable[[Job], int | None], job: Job) -> int:
    """Do a job's work, and start the work again if another writer has changed the tables that the job read.

    Delta refuses the job's commit after such a change. Jobs exclude each other by locks, so the other writer is no job
    but, for instance, a user's shell. To start again is safe, because every job can also start again after it was
    killed.

    Args:
        call: Does the job's work. It returns the exit code, or None for 0.
        job: The job, passed to `call`.

    Returns:
        The exit code.
    """
    for starts_left in reversed(range(_MAX_STARTS)):
        try:
            return call(job) or 0
        except _CONFLICTS:
            if not starts_left:
                raise
            logger.info("another writer changed these tables meanwhile; starting again")
    raise AssertionError("unreachable")


def _describe_failure(error: Exception) -> str:
    """Describe an unexpected error in one line, and add advice if the cause is known."""
    cause = root_cause(error)
    advice = advice_for(f"{cause}\n{error}")
    if advice:
        return f"{cause}; {advice}"
    if isinstance(error, Py4JJavaError):
        # Use the Java cause. The text of this error begins with the name of a Java call, which tells users nothing.
        return cause
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _record_outcome(job: Job | None, outcome: str, detail: str) -> None:
    """Record in `job_runs` how the run ended. If recording fails, only print that, so the exit code stays the same."""
    if job is None or job.runs is None:
        return
    try:
        job.runs.finish(outcome, detail)
    except (Exception, Py4JError) as error:
        print(
            strip_control_characters(f"{job.name}: this run is not recorded in job_runs: {root_cause(error)}"),
            file=sys.stderr,
        )


def install_signal_handlers(name: str) -> None:
    """End the process at once on SIGINT (Ctrl-C) and SIGTERM. Users end a job that keeps running by Ctrl-C.

    The handler does not close the Spark session, because Ctrl-C in a terminal also interrupts Spark's own process.
    Rows that are committed stay in the lake.

    Args:
        name: Name of the job, for the message.
    """

    def stop(number: int, frame: object) -> None:
        print(f"\n{name}: stopped; what is committed stays, and the next start continues from there", flush=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _report_failure(line: str) -> None:
    """Print a failure in one line for the user, and write its stack trace to the job's log file."""
    line = strip_control_characters(line)
    log = os.environ.get("LAMBDA_SPARK_LOG")
    if log:
        try:
            os.makedirs(os.path.dirname(log), exist_ok=True)
            with open(log, "a", encoding="utf-8") as file:
                trace = "\n".join(map(strip_control_characters, traceback.format_exc().splitlines()))
                file.write(f"{line}\n{trace}\n")
            line = f"{line}\n(details: {strip_control_characters(log)})"
        except OSError as error:
            line = f"{line}\n(no details could be written to {strip_control_characters(log)}: {error.strerror})"
    print(line, file=sys.stderr, flush=True)


def _versions(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} v{version}" for name, version in versions.items()) or "nothing"
