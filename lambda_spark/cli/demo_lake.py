"""How `demo` clears the lake of an earlier demo. No job may clear any other lake."""

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
"""Property of `events` that marks a lake as made by a demo."""


def clear_demo_lake(spark: SparkSession, path: str, locks: ExitStack, jobs: Iterable[str]) -> bool:
    """Delete the tables and checkpoints of a lake that a demo made.

    Args:
        spark: The session.
        path: Folder of the lake.
        locks: Takes the locks of the jobs, and holds them until it is closed.
        jobs: Names of the jobs that must not run meanwhile.

    Returns:
        Whether there was a lake.

    Raises:
        UsageError: No demo made the lake.
        JobRunningError: One of the jobs is running on the lake.
    """
    lake = Lake(spark, path)
    if not lake[EVENTS].exists():
        return False
    # Read the property from the files of Delta's log, because Delta would cache the table that is about to be deleted.
    if first_properties(lake.files, EVENTS.name).get(f"{PROPERTY_PREFIX}made_by") != "demo":
        raise UsageError(f"{lake.path} was not made by a demo, so it stays as it is; name another --lake")
    for job in jobs:
        locks.enter_context(lake.locks.job(job))
    # Delete `events` last, because its property marks the lake as a demo's. After an interruption the next demo can
    # then clear the rest.
    former_names = [table.former_name for table in TABLES.values() if table.former_name]
    for name in (*former_names, *(name for name in TABLES if name != EVENTS.name), "_checkpoints", EVENTS.name):
        lake.files.delete(name)
    return True
