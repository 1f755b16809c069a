"""Opens a job's Spark session, and has Spark helpers that several packages use."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import date
from typing import Any, TypeVar

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from lambda_spark.errors import UsageError
from lambda_spark.ids import Ids

_PARTITIONS_PER_CORE = 4
_BYTES_PER_PARTITION = 32 << 20
_MAX_PARTITIONS = 400
_SHUFFLE_PARTITIONS = "spark.sql.shuffle.partitions"

Result = TypeVar("Result")


def open_session(name: str) -> SparkSession:
    """Open the Spark session of a job that `spark-submit` has started.

    This function sets three Spark properties unless `conf/spark-defaults.conf` or the cluster sets them. The first two
    are the number of shuffle partitions and the number of partitions in which Delta reads its log. Both follow the
    number of cores. With the defaults (Spark's 200, Delta's 50), a small job spends most of its time on partitions.

    The third property turns adaptive execution off, but only on one machine. The queries do not need adaptive
    execution, because they name the tables to broadcast. Planning again after every stage cost a third of a small run
    (measured: 105 s with adaptive execution, 73 s without). On a cluster, the cluster's own setting applies.

    Args:
        name: The job's name, which becomes part of the application's name.
    """
    # Set the process's time zone to UTC, because every time in a lake is UTC and Python shows times in this zone.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # Keep PySpark from printing JSON about failed queries, because the job prints one line about a failure itself.
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
    """Set the number of shuffle partitions to suit the bytes that the following queries read.

    Queries on little data get one partition per core, because starting a partition takes longer than handling its few
    rows. Queries on more data get one partition per 32 MiB, at most 400. The function changes nothing on a cluster,
    where adaptive execution chooses the number. It also changes nothing if the user has set the number.

    Args:
        spark: The session that runs the queries.
        bytes_read: Number of bytes that the queries read.
    """
    if _is_local(spark) and not spark.sparkContext.getConf().contains(_SHUFFLE_PARTITIONS):
        partitions = max(spark.sparkContext.defaultParallelism, -(-bytes_read // _BYTES_PER_PARTITION))
        spark.conf.set(_SHUFFLE_PARTITIONS, str(min(partitions, _MAX_PARTITIONS)))


def same_partitions(spark: SparkSession, batch: DataFrame) -> None:
    """Give a micro-batch's session the number of shuffle partitions that the job's session has now.

    Otherwise the stream would use the number from its very first start, because Spark keeps that number in the
    stream's checkpoint.
    """
    batch.sparkSession.conf.set(_SHUFFLE_PARTITIONS, str(spark.conf.get(_SHUFFLE_PARTITIONS)))


def _is_local(spark: SparkSession) -> bool:
    return str(spark.sparkContext.master).startswith("local")


def run_concurrently(*calls: Callable[[], Result]) -> list[Result]:
    """Run several small functions at the same time, each in its own thread.

    A small append or query spends most of its time on planning and committing, which leave the cores idle. Each thread
    gets a copy of the caller's context. It therefore counts as a holder of the locks that the caller holds.

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


def refuse_impure(spark: SparkSession, frame: DataFrame, text: str, what: str) -> Any:
    """Refuse a Spark SQL expression whose value depends on anything but the row.

    Args:
        spark: The session that parses the text.
        frame: A DataFrame with the columns that the expression may name.
        text: The expression.
        what: Name of the expression, with which the error begins.

    Returns:
        Spark's analysed expression.

    Raises:
        UsageError: The expression has a subquery or a variable, or depends on the clock, the user or chance.
        AnalysisException: The expression names an unknown column, or has a wrong type.
        ParseException: The text is no expression.
    """
    if "${" in text:
        # Spark would replace `${…}` by the value of a variable, for example an environment variable.
        raise UsageError(f"{what}: it may not refer to a variable (${{…}})")
    if re.search(r"['\"]\s*(now|today|tomorrow|yesterday)\s*(UTC\s*)?['\"]", text, re.IGNORECASE):
        # Spark would turn a text like 'now' into the present time where a date or a time is needed.
        raise UsageError(f"{what}: it may not name a moment of the clock; write a date like date '2019-11-01'")
    analyzed = frame.select(F.expr(text).alias("value"))._jdf.queryExecution().analyzed()
    expression = analyzed.projectList().apply(0)
    catalyst: Any = spark._jvm.org.apache.spark.sql.catalyst  # type: ignore[union-attr]
    if catalyst.expressions.SubqueryExpression.hasSubquery(expression):
        raise UsageError(f"{what}: it may not have a subquery")
    if not expression.deterministic() or expression.containsPattern(catalyst.trees.TreePattern.CURRENT_LIKE()):
        raise UsageError(f"{what}: it may not depend on the clock, the user or chance")
    return expression


def literal_rows(spark: SparkSession, rows: Iterable[Mapping[str, Any]], schema: str) -> DataFrame:
    """Make a DataFrame of a few rows that the caller has in Python.

    Use this function instead of `createDataFrame`, because `createDataFrame` would start Python on the executors.

    Args:
        spark: The session.
        rows: The rows, each a mapping from column name to value.
        schema: The columns with their Spark SQL types, like `source: string, lines: bigint`.
    """
    text = json.dumps(list(rows), default=str)
    return spark.range(1).select(F.inline(F.from_json(F.lit(text), f"array<struct<{schema}>>")))


def column_constant(value: Any, kind: str) -> Column:
    """Make a column that has the same value in all rows of a micro-batch.

    Use this function instead of a literal if every micro-batch has another value. Spark writes literal numbers and
    times into the Java code that it generates. With a literal, Spark would compile new code for each micro-batch, and
    Java runs new code slowly at first. Measured in jobs that keep running: to ingest 10,000 lines took 2.6 CPU seconds
    with a literal and 2.2 without. To count the product pairs of these lines took 1.7 and 1.4.

    Args:
        value: The value.
        kind: The column's Spark SQL type.
    """
    return F.explode(F.array(F.lit(value).cast(kind)))


def ids_of(rows: DataFrame, name: str) -> Ids:
    """Return the kind of the ids in a column.

    Args:
        rows: The rows.
        name: Name of a column of product or user ids.
    """
    return "text" if isinstance(rows.schema[name].dataType, StringType) else "integer"


def smallest_dates_up_to(rows_on: Mapping[date, int], most: int) -> set[date]:
    """Choose the dates with the fewest rows, until another date would exceed a maximum number of rows in total.

    Args:
        rows_on: The number of rows of each date.
        most: The maximum for the sum of the rows of all chosen dates.
    """
    chosen: set[date] = set()
    total = 0
    for day, rows in sorted(rows_on.items(), key=lambda item: item[1]):
        total += rows
        if total > most:
            break
        chosen.add(day)
    return chosen
