"""Runs a job in the tests' own Spark session, in the same way as the job's process does after its start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession

from lambda_spark.cli.arguments import parse, settings_of
from lambda_spark.cli.job import Job
from lambda_spark.cli.progress import show_progress


def do(name: str, call: Callable[[Job], Any], spark: SparkSession, *arguments: object) -> Any:
    """Run a job in this process with the arguments of a command line."""
    parsed = parse(name, [*map(str, arguments)])
    settings, started = settings_of(parsed), time.monotonic()
    show_progress(started)
    try:
        return call(Job(name, parsed, settings, spark, started))
    finally:
        # Undo `show_progress`, so that pytest's `caplog` sees log records.
        package = logging.getLogger("lambda_spark")
        package.handlers, package.propagate = [], True
        package.setLevel(logging.NOTSET)
