"""A job's call in the tests' own session: what its process would do after its start."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession

from lambda_spark.cli.arguments import parse
from lambda_spark.cli.job import Job
from lambda_spark.settings import load_settings


def do(name: str, call: Callable[[Job], Any], spark: SparkSession, *arguments: object) -> Any:
    """Call a job with the arguments of its command line."""
    parsed = parse(name, [*map(str, arguments)])
    return call(Job(name, parsed, load_settings(parsed.conf_file, parsed.assignments), spark, time.monotonic()))
