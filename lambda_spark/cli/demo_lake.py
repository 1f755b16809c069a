"""The lake of a demo, the only one that a job may replace."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from pyspark.sql import SparkSession

from lambda_spark.errors import UsageError
from lambda_spark.storage.delta_log import first_properties
from lambda_spark.storage.lake import PROPERTY_PREFIX, Lake
from lambda_spark.storage.tables import EVENTS, TABLES

MADE_BY_DEMO = {"made_by": "demo"}


def clear_demo_lake(spark: SparkSession, path: str, locks: ExitStack, jobs: Iterable[str]) -> bool:
    """Delete the tables and checkpoints of a lake that a demo made; False where there is nothing yet.

    Raises UsageError for a lake that was made otherwise, and JobRunningError where a job is at work on it.
    """
    lake = Lake(spark, path)
    if not lake.exists(EVENTS):
        return False
    # Read from the log's files: Delta would remember the table that is about to go.
    if first_properties(lake.files, EVENTS.name).get(f"{PROPERTY_PREFIX}made_by") != "demo":
        raise UsageError(f"{lake.path} is a lake that no demo made, and stays as it is; name another --lake")
    for job in jobs:
        locks.enter_context(lake.locks.job(job))
    # `events` says whose lake it is: last, so that the next demo goes on with what this one leaves when interrupted.
    for name in (*(name for name in TABLES if name != EVENTS.name), "_checkpoints", EVENTS.name):
        lake.files.delete(name)
    return True
