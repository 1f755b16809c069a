"""The Spark session of a job."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import date
from typing import Any, TypeVar

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

_PARTITIONS_PER_CORE = 4
_BYTES_PER_PARTITION = 32 << 20
_MOST_PARTITIONS = 400
_SHUFFLE_PARTITIONS = "spark.sql.shuffle.partitions"

Result = TypeVar("Result")


def open_session(name: str) -> SparkSession:
    """The session of the `spark-submit` that runs this process.

    What `conf/spark-defaults.conf` or the cluster leave open is set by the number of cores: Spark's 200 shuffle
    partitions and Delta's 50 for a snapshot cost most of a small job's time. On one machine a plan runs as it was made:
    to plan again after every stage cost a third of a small run (measured: 105 s to 73 s), and the queries here name
    what is to be broadcast. On a cluster that stays as the cluster has it.
    """
    # Python shows a timestamp in its process's zone; every time here is UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # PySpark logs a failed query as JSON on the terminal; the job says it in one line, and the trace is in the log.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    spark = SparkSession.builder.appName(f"lambda-spark {name}").getOrCreate()
    configured = spark.sparkContext.getConf()
    cores, is_local = spark.sparkContext.defaultParallelism, _is_local(spark)
    fitting = {
        _SHUFFLE_PARTITIONS: str(cores if is_local else _PARTITIONS_PER_CORE * cores),
        "spark.databricks.delta.snapshotPartitions": str(cores),
    }
    if is_local:
        fitting["spark.sql.adaptive.enabled"] = "false"
    for key, value in fitting.items():
        if not configured.contains(key):
            spark.conf.set(key, value)
    return spark


def fit_partitions(spark: SparkSession, read: int) -> None:
    """On one machine: as many shuffle partitions as cores, or more for a step that reads many bytes.

    Each partition of a small step costs more than its rows; on a cluster Spark's adaptive execution sees to it. What
    the user has set stays.
    """
    if _is_local(spark) and not spark.sparkContext.getConf().contains(_SHUFFLE_PARTITIONS):
        fitting = max(spark.sparkContext.defaultParallelism, -(-read // _BYTES_PER_PARTITION))
        spark.conf.set(_SHUFFLE_PARTITIONS, str(min(fitting, _MOST_PARTITIONS)))


def same_partitions(spark: SparkSession, batch: DataFrame) -> None:
    """Have the steps of a micro-batch shuffle as the session does now; a stream keeps the number of its first start."""
    batch.sparkSession.conf.set(_SHUFFLE_PARTITIONS, str(spark.conf.get(_SHUFFLE_PARTITIONS)))


def _is_local(spark: SparkSession) -> bool:
    return str(spark.sparkContext.master).startswith("local")


def side_by_side(*calls: Callable[[], Result]) -> list[Result]:
    """Do some small things at the same time; returns what each returns, or raises what one raised once all are done.

    Most of a small append or query is planning and committing, which leaves the cores idle. Each goes on in a thread
    with a copy of this context, and so with the locks held here.
    """
    with ThreadPoolExecutor(len(calls)) as threads:
        begun = [threads.submit(copy_context().run, call) for call in calls]
    return [one.result() for one in begun]


def literal_rows(spark: SparkSession, rows: Iterable[Mapping[str, Any]], schema: str) -> DataFrame:
    """A few rows as a DataFrame, without `createDataFrame`, which would start Python on the executors."""
    text = json.dumps(list(rows), default=str)
    return spark.range(1).select(F.inline(F.from_json(F.lit(text), f"array<struct<{schema}>>")))


def varying(value: Any, kind: str) -> Column:
    """A value that is another in each micro-batch, for a column of its own.

    A literal number or time Spark writes into the code that it generates: all of that would be compiled again, and
    again be interpreted at first (measured, of jobs that stay up: for 10,000 lines 2.6 instead of 2.2 CPU seconds, for
    their pairs 1.7 instead of 1.4).
    """
    return F.explode(F.array(F.lit(value).cast(kind)))


def dates_with_few(rows_on: Mapping[date, int], most: int) -> set[date]:
    """As many of the dates as have no more than so many rows together, those with the fewest first."""
    few: set[date] = set()
    total = 0
    for day, rows in sorted(rows_on.items(), key=lambda item: item[1]):
        total += rows
        if total > most:
            break
        few.add(day)
    return few
