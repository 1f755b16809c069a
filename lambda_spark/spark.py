"""Opens a job's Spark session, and holds helpers for Spark that several packages use."""

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
_MAX_PARTITIONS = 400
_SHUFFLE_PARTITIONS = "spark.sql.shuffle.partitions"

Result = TypeVar("Result")


def open_session(name: str) -> SparkSession:
    """Open the session of the `spark-submit` that runs this process.

    Three Spark properties are set here unless `conf/spark-defaults.conf` or the cluster sets them. The number of
    shuffle partitions and the number of Delta's snapshot partitions follow the number of cores. With Spark's default of
    200 and Delta's of 50, a small job spends most of its time on partitions. On one machine, adaptive execution is
    turned off: the queries themselves name the tables to broadcast, and planning again after every stage cost a third
    of a small run (measured: 105 s with adaptive execution, 73 s without). On a cluster, the cluster decides.

    Args:
        name: The job's name, which becomes part of the application's name.
    """
    # Set the process's time zone, in which Python shows timestamps, to UTC, because every time in a lake is UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # Keep PySpark from printing JSON about failed queries: the job prints one line, and the log has the stack trace.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    spark = SparkSession.builder.appName(f"lambda-spark {name}").getOrCreate()
    configured = spark.sparkContext.getConf()
    cores, is_local = spark.sparkContext.defaultParallelism, _is_local(spark)
    properties = {
        _SHUFFLE_PARTITIONS: str(cores if is_local else _PARTITIONS_PER_CORE * cores),
        "spark.databricks.delta.snapshotPartitions": str(cores),
    }
    if is_local:
        properties["spark.sql.adaptive.enabled"] = "false"
    for key, value in properties.items():
        if not configured.contains(key):
            spark.conf.set(key, value)
    return spark


def fit_partitions(spark: SparkSession, bytes_read: int) -> None:
    """Set the number of shuffle partitions by the bytes that a step of a job reads, on one machine only.

    A small step gets as many partitions as there are cores, because each partition costs more time than its few rows.
    A step that reads many bytes gets more partitions. On a cluster, adaptive execution chooses the number. A number
    that the user has set is not changed.

    Args:
        spark: The session that runs the step.
        bytes_read: Bytes that the step reads.
    """
    if _is_local(spark) and not spark.sparkContext.getConf().contains(_SHUFFLE_PARTITIONS):
        partitions = max(spark.sparkContext.defaultParallelism, -(-bytes_read // _BYTES_PER_PARTITION))
        spark.conf.set(_SHUFFLE_PARTITIONS, str(min(partitions, _MAX_PARTITIONS)))


def same_partitions(spark: SparkSession, batch: DataFrame) -> None:
    """Set the number of shuffle partitions in a micro-batch's session to the number that the job's session has now.

    Otherwise a stream would always use the number of its very first start, which Spark keeps in the checkpoint.
    """
    batch.sparkSession.conf.set(_SHUFFLE_PARTITIONS, str(spark.conf.get(_SHUFFLE_PARTITIONS)))


def _is_local(spark: SparkSession) -> bool:
    return str(spark.sparkContext.master).startswith("local")


def run_concurrently(*calls: Callable[[], Result]) -> list[Result]:
    """Run some small calls at the same time.

    Planning and committing take most of the time of a small append or query, and leave the cores idle. Each call runs
    in a thread with a copy of the caller's context, and so holds the locks that the caller holds.

    Args:
        calls: Functions without arguments.

    Returns:
        The results, in the order of the calls.

    Raises:
        Exception: The error of the first call that failed, raised after all calls have ended.
    """
    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(copy_context().run, call) for call in calls]
    return [future.result() for future in futures]


def literal_rows(spark: SparkSession, rows: Iterable[Mapping[str, Any]], schema: str) -> DataFrame:
    """Make a DataFrame of a few rows.

    Use this instead of `createDataFrame`, which would start Python on the executors.

    Args:
        spark: The session.
        rows: The rows, as values by column name.
        schema: The columns, like `source: string, lines: bigint`.
    """
    text = json.dumps(list(rows), default=str)
    return spark.range(1).select(F.inline(F.from_json(F.lit(text), f"array<struct<{schema}>>")))


def column_constant(value: Any, kind: str) -> Column:
    """Make a column that has one value in all rows, where each micro-batch has another value.

    Use this instead of a literal, because Spark writes literal numbers and times into the code that it generates. With
    a literal, each micro-batch would compile that code again, and Java would interpret it at first. Measured in jobs
    that keep running, in CPU seconds with a literal and without: 2.6 and 2.2 to ingest 10,000 lines, 1.7 and 1.4 to
    count their product pairs.

    Args:
        value: The value.
        kind: The column's Spark SQL type.
    """
    return F.explode(F.array(F.lit(value).cast(kind)))


def smallest_dates_up_to(rows_on: Mapping[date, int], most: int) -> set[date]:
    """Choose the dates with the fewest rows, as many as together stay within a maximum number of rows.

    Args:
        rows_on: The number of rows of each date.
        most: The maximum number of rows of all chosen dates together.
    """
    chosen: set[date] = set()
    total = 0
    for day, rows in sorted(rows_on.items(), key=lambda item: item[1]):
        total += rows
        if total > most:
            break
        chosen.add(day)
    return chosen
