"""Lets the `demo` job delete the lake that an earlier demo made. No job deletes any other lake."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from pyspark.sql import SparkSession

from lambda_spark.errors import UsageError
from lambda_spark.storage.delta_log import first_properties
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.table_handle import PROPERTY_PREFIX
from lambda_spark.storage.tables import EVENTS, TABLES

MADE_BY_DEMO = {"made_by": "demo"}
"""Property of the table `events` that marks the lake as made by the `demo` job."""


def clear_demo_lake(spark: SparkSession, path: str, locks: ExitStack, jobs: Iterable[str]) -> bool:
    """Delete all tables and checkpoints of a lake that the `demo` job made.

    Args:
        spark: The session.
        path: Folder of the lake.
        locks: The stack that holds the jobs' locks until the caller closes the stack.
        jobs: Names of the jobs that must not run during the deletion.

    Returns:
        Whether there was a lake to delete.

    Raises:
        UsageError: The lake was not made by a demo.
        JobRunningError: One of the jobs is running on the lake.
    """
    lake = Lake(spark, path)
    if not lake[EVENTS].exists():
        return False
    # Read the property from the files of Delta's log. If Delta read it, Delta would cache a table that is deleted next.
    if first_properties(lake.files, EVENTS.name).get(f"{PROPERTY_PREFIX}made_by") != "demo":
        raise UsageError(f"{lake.path} was not made by a demo, so it stays as it is; name another --lake")
    for job in jobs:
        locks.enter_context(lake.locks.job(job))
    # Delete `events` last, because its property marks the lake as made by a demo. If the deletion is interrupted, the
    # next demo can then delete the remaining tables.
    former_names = [table.former_name for table in TABLES.values() if table.former_name]
    for name in (*former_names, *(name for name in TABLES if name != EVENTS.name), "_checkpoints", EVENTS.name):
        lake.files.delete(name)
    return True
