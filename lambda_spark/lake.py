"""The lake: the only place that reads and writes Delta tables.

A commit carries a note in its metadata: what it covers (versions read, micro-batch, source offset), written in the same
transaction as its rows. The settings that a table was computed with are table properties.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError, UsageError
from lambda_spark.operations.delta_log import check_log, commit_note, commit_numbers
from lambda_spark.operations.files import FileSystem
from lambda_spark.operations.locks import Locks
from lambda_spark.tables import EVENTS, TABLES, Table

PROPERTY_PREFIX = "lambda_spark."

Note = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """A version of a table and the note that its job left there."""

    version: int
    note: Note


class Lake:
    """The Delta tables under one folder."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self.spark = spark
        self.files = FileSystem(spark, path)
        self.path = self.files.root
        if "`" in self.path:
            # Delta's own builder writes the path between two of them.
            raise UsageError(f"{self.path}: a lake's path may not have a backtick in it; name another --lake")
        self.locks = Locks(spark, self.path)

    @classmethod
    def open(cls, spark: SparkSession, path: str, *, create: bool = False) -> Lake:
        """The lake at a path; with `create`, a missing one is begun.

        Raises UsageError where the folder holds something else or no lake, LakeError where `events` is gone or a
        table's log lost a commit.
        """
        lake = cls(spark, path)
        if not lake.exists(EVENTS):
            foreign = [name for name in lake.files.list() if not name.startswith((".", "_"))]
            if foreign and foreign[0] in TABLES:
                raise LakeError(
                    f"{lake.path}: the table events is missing, from which all others come; bring it back from a "
                    "backup, or ingest the sources again into a fresh lake"
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
            check_log(lake.files, table.name)
        return lake

    def location(self, table: Table) -> str:
        return f"{self.path}/{table.name}"

    def checkpoint(self, job: str, application: str) -> str:
        """Where a stream keeps its checkpoint. The application id is part of it: the two live and die together."""
        return f"{self.path}/_checkpoints/{job}/{application}"

    def exists(self, table: Table) -> bool:
        return self.files.exists(f"{table.name}/_delta_log")

    def create(self, *tables: Table, properties: Mapping[str, str] | None = None) -> None:
        """Those of the tables that are missing, empty, with what is to be recorded with them."""
        for table in tables:
            if not self.exists(table):
                self._create(table, properties or {})

    def _create(self, table: Table, properties: Mapping[str, str]) -> None:
        builder = DeltaTable.createIfNotExists(self.spark).location(self.location(table)).comment(table.comment)
        for column in table.columns:
            builder = builder.addColumn(column.name, column.type, comment=column.comment)
        for key, value in {**_delta_properties(table), **_prefixed(properties)}.items():
            builder = builder.property(key, value)
        with self.locks.table(table.name):
            builder.partitionedBy(*table.partition_by).execute()

    def version(self, table: Table) -> int:
        """The newest version. Raises LakeError where the table does not exist."""
        commits = commit_numbers(self.files, table.name)
        if not commits:
            raise LakeError(f"{self.path} has no table {table.name} yet")
        return commits[-1]

    def versions(self, *tables: Table) -> dict[str, int]:
        """The newest version of each table, for a reader to pin once at its start."""
        return {table.name: self.version(table) for table in tables}

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """The rows of a table, in its declared columns, at a version or as it is now."""
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.load(self.location(table)).select(*table.column_names)

    def changes(self, table: Table, after: int, until: int) -> DataFrame:
        """The rows that changed after one version and until another, with `_change_type` and `_commit_version`."""
        return (
            self.spark.read.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", after + 1)
            .option("endingVersion", until)
            .load(self.location(table))
        )

    def stream(self, table: Table, *, max_bytes: int) -> DataFrame:
        """The rows of a table from its first on, as a stream of what is appended."""
        return (
            self.spark.readStream.format("delta")
            .option("skipChangeCommits", "true")
            .option("maxBytesPerTrigger", max_bytes)
            .load(self.location(table))
        )

    def append(self, table: Table, rows: DataFrame, *, application: str, batch_id: int, note: Note) -> None:
        """Append the rows of one micro-batch. A batch that this application has written before is skipped by Delta."""
        with self.locks.table(table.name):
            (
                rows.select(*table.column_names)
                .write.format("delta")
                .mode("append")
                .option("txnAppId", application)
                .option("txnVersion", batch_id)
                .option("userMetadata", json.dumps({"application": application, "batch_id": batch_id, **note}))
                .save(self.location(table))
            )

    def replace(self, table: Table, rows: DataFrame, *, settings: Mapping[str, str], note: Note) -> None:
        """Replace all rows and the recorded settings, in one commit."""
        commented = [
            F.col(column.name).cast(column.type).alias(column.name, metadata={"comment": column.comment})
            for column in table.columns
        ]
        writer = rows.select(*commented).writeTo(f"delta.`{self.location(table)}`").using("delta")
        writer = writer.tableProperty("comment", table.comment).option("userMetadata", json.dumps(note))
        for key, value in {**_delta_properties(table), **_prefixed(settings)}.items():
            writer = writer.tableProperty(key, value)
        if table.partition_by:
            writer = writer.partitionedBy(*(F.col(name) for name in table.partition_by))
        with self.locks.table(table.name):
            writer.createOrReplace()

    def replace_where(self, table: Table, rows: DataFrame, condition: Column, *, note: Note) -> None:
        """Replace the rows that fulfil a condition, in one commit. All new rows must fulfil it too."""
        writer = rows.select(*table.column_names).writeTo(f"delta.`{self.location(table)}`")
        with self.locks.table(table.name):
            writer.option("userMetadata", json.dumps(note)).overwrite(condition)

    def overwrite(self, table: Table, rows: DataFrame, *, note: Note) -> None:
        """Replace all rows, in one commit; what is recorded with the table stays."""
        writer = rows.select(*table.column_names).write.format("delta").mode("overwrite")
        with self.locks.table(table.name):
            writer.option("userMetadata", json.dumps(note)).save(self.location(table))

    def properties(self, table: Table) -> dict[str, str]:
        """What the jobs recorded with a table: the settings it was computed with, and its stream's application id."""
        rows = self.spark.sql(f"SHOW TBLPROPERTIES delta.`{self.location(table)}`").collect()
        return {row.key.removeprefix(PROPERTY_PREFIX): row.value for row in rows if row.key.startswith(PROPERTY_PREFIX)}

    def has_recorded(self, table: Table, settings: Mapping[str, str]) -> bool:
        """Whether a table was computed with these settings."""
        properties = self.properties(table)
        return all(properties.get(key) == text for key, text in settings.items())

    def set_properties(self, table: Table, properties: Mapping[str, str]) -> None:
        pairs = ", ".join(f"{_sql_text(key)} = {_sql_text(value)}" for key, value in _prefixed(properties).items())
        with self.locks.table(table.name):
            self.spark.sql(f"ALTER TABLE delta.`{self.location(table)}` SET TBLPROPERTIES ({pairs})")

    def empty(self, table: Table, properties: Mapping[str, str]) -> None:
        """Take all rows out and record properties, in one commit."""
        self.replace(table, self.read(table).limit(0), settings=properties, note={})

    def last_commit(self, table: Table, *, before: int | None = None, **wanted: Any) -> Commit | None:
        """The newest commit (older than a version) that carries a note with the wanted entries, or None."""
        for version in reversed(commit_numbers(self.files, table.name)):
            if before is not None and version >= before:
                continue
            note = commit_note(self.files, table.name, version)
            if note and all(note.get(key) == value for key, value in wanted.items()):
                return Commit(version, note)
        return None

    def register_views(self) -> list[str]:
        """Make every table of the lake a temporary view by its name, all pinned now; returns the names."""
        for table in self.present():
            self.read(table, self.version(table)).createOrReplaceTempView(table.name)
        return [table.name for table in self.present()]

    def present(self) -> list[Table]:
        return [table for table in TABLES.values() if self.exists(table)]


def _delta_properties(table: Table) -> dict[str, str]:
    return {"delta.dataSkippingStatsColumns": ",".join(table.statistics), **table.properties}


def _prefixed(properties: Mapping[str, str]) -> dict[str, str]:
    return {f"{PROPERTY_PREFIX}{key}": value for key, value in properties.items()}


def _sql_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
