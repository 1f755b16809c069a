"""The lake: the Delta tables in one folder, with the streams' checkpoints and the jobs' locks."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from datetime import date

from pyspark.sql import SparkSession

from lambda_spark.errors import LakeError, UsageError
from lambda_spark.ids import Ids, ids_in
from lambda_spark.newest import Newest, newest
from lambda_spark.storage.delta_log import check_log
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.locks import Locks
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import EVENTS, TABLES, Table

RETENTION_CUTOFF = "cut"
"""Name of the property of table `events` that holds the retention cutoff, a date.

Events before the retention cutoff have expired, so ingestion rejects them.
"""


class Lake:
    """The Delta tables in one folder. For example, `lake[EVENTS]` returns the handle of the table `events`."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self.spark = spark
        self.files = FileSystem(spark, path)
        self.path = self.files.root
        if "`" in self.path:
            # Refuse a backtick, because Delta's table builder puts the path between two backticks. A backtick inside
            # the path would end the path too early.
            raise UsageError(f"{self.path}: a lake's path may not have a backtick in it; name another --lake")
        self.locks = Locks(spark, self.path)

    @classmethod
    def open(cls, spark: SparkSession, path: str, *, create: bool = False) -> Lake:
        """Open the lake at a path.

        Args:
            spark: The session that reads and writes the lake.
            path: Folder of the lake, as a local path or a URI.
            create: Whether to accept an empty or missing folder, in which a new lake can begin.

        Raises:
            UsageError: The folder holds other files and no lake. Or the folder holds no lake yet, and `create` is
                false.
            LakeError: The table `events` is missing, a table's log has lost a commit, or the lake is from version 0.1.
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
        return TableHandle(self.spark, self.files, self.locks, table, lambda: self.ids)

    @property
    def ids(self) -> Ids:
        """The kind of the product and user ids, as recorded with the table `events`. `integer` without that table."""
        return ids_in(self[EVENTS].properties()) if self[EVENTS].exists() else "integer"

    def has_former(self, table: Table) -> bool:
        """Whether the lake holds the table under the name that it had in version 0.1."""
        return bool(table.former_name) and self.files.exists(f"{table.former_name}/_delta_log")

    def in_session(self, spark: SparkSession) -> Lake:
        """Return an object for the same lake, with the same locks, that uses another Spark session."""
        other = copy(self)
        other.spark = spark
        return other

    def checkpoint(self, job: str, application: str) -> str:
        """Return the path of a stream's checkpoint. The folder's name is the application id of the stream."""
        return f"{self.path}/_checkpoints/{job}/{application}"

    def create(self, *tables: Table, properties: Mapping[str, str] | None = None) -> None:
        """Create those of the given tables that do not exist yet. New tables have no rows, but the given properties."""
        for table in tables:
            self[table].create(properties)

    def versions(self, *tables: Table) -> dict[str, int]:
        """Return the newest version of each given table.

        A job that reads several tables calls this method once and then reads only these versions. So writes by other
        jobs do not change what the job sees.
        """
        return {table.name: self[table].version() for table in tables}

    def written_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return the newest version of each table that is new or has another version than in `before`."""
        now = self.versions(*self.present())
        return {name: version for name, version in now.items() if before.get(name) != version}

    def newest(self, events_version: int) -> Newest:
        """Find the newest date of the store, and the events that are set aside, at one version of `events`."""
        return newest(self[EVENTS].rows_by_date(events_version))

    def retention_cutoff(self) -> date | None:
        """Return the date before which events have expired. None if no event has expired yet."""
        return retention_cutoff_in(self[EVENTS].properties()) if self[EVENTS].exists() else None

    def register_views(self) -> list[str]:
        """Register the newest version of each table as a temporary view in Spark, and return the views' names."""
        for table in self.present():
            handle = self[table]
            handle.read(handle.version()).createOrReplaceTempView(table.name)
        return [table.name for table in self.present()]

    def present(self) -> list[Table]:
        """Return the declared tables that exist in this lake."""
        return [table for table in TABLES.values() if self[table].exists()]


def retention_cutoff_in(properties: Mapping[str, str]) -> date | None:
    """Return the retention cutoff from the properties of the table `events`. None if they have no cutoff."""
    return date.fromisoformat(properties[RETENTION_CUTOFF]) if RETENTION_CUTOFF in properties else None
