"""The lake: the Delta tables under one folder, their checkpoints and locks."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from datetime import date

from pyspark.sql import SparkSession

from lambda_spark.errors import LakeError, UsageError
from lambda_spark.storage.delta_log import check_log
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.locks import Locks
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import EVENTS, TABLES, Table

RETENTION_CUTOFF = "cut"
"""Property of `events` with the retention cutoff. Events before this date have expired and are rejected."""


class Lake:
    """The Delta tables under one folder. `lake[EVENTS]` is the handle of a table."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self.spark = spark
        self.files = FileSystem(spark, path)
        self.path = self.files.root
        if "`" in self.path:
            # Delta's table builder puts the path between two backticks, so a backtick in the path would end the path.
            raise UsageError(f"{self.path}: a lake's path may not have a backtick in it; name another --lake")
        self.locks = Locks(spark, self.path)

    @classmethod
    def open(cls, spark: SparkSession, path: str, *, create: bool = False) -> Lake:
        """Open the lake at a path.

        Args:
            spark: The session that reads and writes the lake.
            path: Folder of the lake, local or a URI.
            create: Whether to accept a folder that holds no lake yet.

        Raises:
            UsageError: The folder holds something else, or no lake.
            LakeError: The table `events` is gone, a table's log lost a commit, or the lake is from version 0.1.
        """
        lake = cls(spark, path)
        if not lake[EVENTS].exists():
            foreign = [name for name in lake.files.list() if not name.startswith((".", "_"))]
            if foreign and foreign[0] in TABLES:
                raise LakeError(
                    f"{lake.path}: the table events is missing, from which all others come; bring the whole lake back "
                    "from a backup, or ingest the sources again into a fresh one"
                )
            if foreign:
                raise UsageError(
                    f"{lake.path} is no lake: it holds '{foreign[0]}' and no events table; name another --lake"
                )
            if not create:
                raise UsageError(
                    f"{lake.path} is no lake yet: run `ingest` (or `run`, or `demo`) first, or name another --lake"
                )
        for table in TABLES.values():
            if lake.has_former(table):
                raise LakeError(
                    f"{lake.path} is from version 0.1, where the table {table.name} was called {table.former_name}: "
                    "stop all jobs on this lake, then rename the table with `./spark-submit.sh migrate --lake PATH`"
                )
            check_log(lake.files, table.name)
        return lake

    def __getitem__(self, table: Table) -> TableHandle:
        """Return the handle of a table, whether or not the table exists."""
        return TableHandle(self.spark, self.files, self.locks, table)

    def has_former(self, table: Table) -> bool:
        """Whether the lake holds the table under the name that it had in version 0.1."""
        return bool(table.former_name) and self.files.exists(f"{table.former_name}/_delta_log")

    def in_session(self, spark: SparkSession) -> Lake:
        """Return the same lake, with the same locks, for use with another Spark session."""
        other = copy(self)
        other.spark = spark
        return other

    def checkpoint(self, job: str, application: str) -> str:
        """Return the folder of a stream's checkpoint. Its name is the application id of the stream."""
        return f"{self.path}/_checkpoints/{job}/{application}"

    def create(self, *tables: Table, properties: Mapping[str, str] | None = None) -> None:
        """Create the tables that are missing, without rows, and record properties with each new table."""
        for table in tables:
            self[table].create(properties)

    def versions(self, *tables: Table) -> dict[str, int]:
        """Return the newest version of each table. A reader calls this once, and then reads only these versions."""
        return {table.name: self[table].version() for table in tables}

    def written_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return the newest version of each table that has changed since the versions `before`."""
        now = self.versions(*self.present())
        return {name: version for name, version in now.items() if before.get(name) != version}

    def retention_cutoff(self) -> date | None:
        """Return the date before which events have expired; None where no event has expired yet."""
        return retention_cutoff_in(self[EVENTS].properties()) if self[EVENTS].exists() else None

    def register_views(self) -> list[str]:
        """Register the newest version of each table as a temporary view; return the names."""
        for table in self.present():
            handle = self[table]
            handle.read(handle.version()).createOrReplaceTempView(table.name)
        return [table.name for table in self.present()]

    def present(self) -> list[Table]:
        """Return the tables that exist."""
        return [table for table in TABLES.values() if self[table].exists()]


def retention_cutoff_in(properties: Mapping[str, str]) -> date | None:
    """Return the retention cutoff that is recorded among the properties of `events`."""
    return date.fromisoformat(properties[RETENTION_CUTOFF]) if RETENTION_CUTOFF in properties else None
