"""The lake: the only place that writes Delta tables, and where jobs read them.

A commit carries a note in its metadata: what it covers (versions read, micro-batch, source offset), written in the same
transaction as its rows. The settings that a table was computed with are table properties.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import unquote

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError, UsageError
from lambda_spark.storage.delta_log import (
    check_log,
    commit_note,
    commit_numbers,
    newest_with_same_rows,
    rows_written,
    table_bytes,
    table_properties,
)
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.locks import Locks
from lambda_spark.storage.tables import EVENTS, TABLES, Table

PROPERTY_PREFIX = "lambda_spark."
CUT = "cut"
"""Property of `events`: the lake's cut date. What is older has expired, and is no longer taken in."""

_RETENTION = "delta.deletedFileRetentionDuration"
_LOG_RETENTION = "delta.logRetentionDuration"
_LOG_HOURS = 720
"""How far back Delta keeps a table's log unless it is told otherwise."""
_VACUUM = {
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    # Spark lists folders with as many tasks as this says, by default 10,000, which takes minutes on a few cores.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
}

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
            check_log(lake.files, table.name)
        return lake

    def in_session(self, spark: SparkSession) -> Lake:
        """The same lake, with the same locks, for a session with other settings."""
        other = copy(self)
        other.spark = spark
        return other

    def location(self, table: Table) -> str:
        return f"{self.path}/{table.name}"

    def checkpoint(self, job: str, application: str) -> str:
        """Where a stream keeps its checkpoint. The application id is part of it: the two live and die together."""
        return f"{self.path}/_checkpoints/{job}/{application}"

    def exists(self, table: Table) -> bool:
        """Whether a table has a commit: a job killed while it created one leaves a log without any."""
        return bool(commit_numbers(self.files, table.name))

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
            if not self.exists(table):
                # What a killed job left of the table's log would be taken for a table.
                self.files.delete(f"{table.name}/_delta_log")
            builder.partitionedBy(*table.partition_by).execute()

    def version(self, table: Table) -> int:
        """The newest version. Raises LakeError where the table does not exist."""
        commits = commit_numbers(self.files, table.name)
        if not commits:
            raise LakeError(f"{self.path} has no table {table.name} yet: run `{table.job}` first")
        return commits[-1]

    def versions(self, *tables: Table) -> dict[str, int]:
        """The newest version of each table, for a reader to pin once at its start."""
        return {table.name: self.version(table) for table in tables}

    def written_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """The newest versions of the tables that have newer ones than these."""
        now = self.versions(*self.present())
        return {name: version for name, version in now.items() if before.get(name) != version}

    def size(self, table: Table) -> int:
        """The bytes of a table's data files now, as far as its log says; 0 where there is no table."""
        commits = commit_numbers(self.files, table.name)
        return table_bytes(self.files, table.name, commits[-1]) if commits else 0

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """The rows of a table, in its declared columns, at a version or as it is now.

        A version is read where its rows lie today: compaction moves them to other files, and a vacuum removes the old.
        """
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", self.newest_alike(table, version))
        return reader.load(self.location(table)).select(*table.column_names)

    def is_same(self, table: Table, since: int) -> bool:
        """Whether no row of a table has changed since a version."""
        return self.newest_alike(table, since) == self.version(table)

    def newest_alike(self, table: Table, version: int) -> int:
        """The newest version with the rows of this one."""
        return newest_with_same_rows(self.files, table.name, version)

    def has_log_since(self, table: Table, version: int) -> bool:
        """Whether the log still has every commit after a version; Delta deletes those that are a month old."""
        return commit_numbers(self.files, table.name)[0] <= version + 1

    def rows_appended(self, table: Table, after: int) -> int | None:
        """How many rows came after a version; None where the log no longer says it, or more happened than that."""
        if not self.has_log_since(table, after):
            return None
        rows = [rows_written(self.files, table.name, version) for version in range(after + 1, self.version(table) + 1)]
        return None if None in rows else sum(filter(None, rows))

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

    def append(self, table: Table, rows: DataFrame, *, note: Note) -> None:
        """Append some rows, in one commit."""
        writer = rows.select(*table.column_names).write.format("delta").mode("append")
        with self.locks.table(table.name):
            writer.option("userMetadata", json.dumps(note)).save(self.location(table))

    def append_batch(self, table: Table, rows: DataFrame, *, application: str, batch_id: int, note: Note) -> int | None:
        """Append the rows of one micro-batch, unless this application has written the batch before; returns how many,
        None where it had, or where the commit does not say.

        The commit's own note is the ledger. Delta's transaction ids would do the same, but to ask for one Delta
        aggregates the table's whole log at every append (measured: 0.4 s without, 1.4 s with it).
        """
        with self.locks.table(table.name):
            done = self.last_commit(table, application=application)
            if done is not None and int(done.note["batch_id"]) >= batch_id:
                return None
            entry = {"application": application, "batch_id": batch_id, **note}
            self.append(table, rows, note=entry)
            if self._note_unless_noted(table, entry):
                return 0
            return rows_written(self.files, table.name, self.version(table))

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
            self._note_unless_noted(table, note)

    def overwrite(self, table: Table, rows: DataFrame, *, note: Note) -> None:
        """Replace all rows, in one commit; what is recorded with the table stays."""
        writer = rows.select(*table.column_names).write.format("delta").mode("overwrite")
        with self.locks.table(table.name):
            writer.option("userMetadata", json.dumps(note)).save(self.location(table))
            self._note_unless_noted(table, note)

    def rewrite_dates(
        self,
        table: Table,
        rows: DataFrame,
        dates: Iterable[date],
        *,
        note: Note,
        same_rows: bool = False,
        once: tuple[str, int] | None = None,
    ) -> None:
        """Put these rows in the place of all that lie on some dates, in one commit.

        `same_rows` says that they mean the same as those before. `once` is an application id and a version, under which
        the commit is made at most once.
        """
        writer = rows.select(*table.column_names).write.format("delta").mode("overwrite")
        writer = writer.option("replaceWhere", f"event_date in ({_literals(dates)})").option(
            "dataChange", not same_rows
        )
        if once is not None:
            writer = writer.option("txnAppId", once[0]).option("txnVersion", once[1])
        with self.locks.table(table.name):
            writer.option("userMetadata", json.dumps(note)).save(self.location(table))

    def delete(self, table: Table, condition: Column, *, note: Note) -> None:
        """Take the rows out that fulfil a condition; without any there is no commit."""
        with self.locks.table(table.name), self._noted(note):
            DeltaTable.forPath(self.spark, self.location(table)).delete(condition)

    def delete_keys(self, table: Table, keys: DataFrame, *, note: Note) -> None:
        """Take the rows out whose value is in the one column of `keys`; no value gets into the log."""
        (name,) = keys.columns
        target = DeltaTable.forPath(self.spark, self.location(table)).alias("target")
        merge = target.merge(keys.distinct().alias("gone"), f"target.{name} = gone.{name}").whenMatchedDelete()
        with self.locks.table(table.name), self._noted(note):
            merge.execute()

    def compact(self, table: Table, dates: Iterable[date] | None, *, note: Note) -> None:
        """Put the rows of small files into large ones (on some dates); no row changes."""
        optimize = DeltaTable.forPath(self.spark, self.location(table)).optimize()
        if dates is not None:
            optimize = optimize.where(f"event_date in ({_literals(dates)})")
        with self.locks.table(table.name), self._noted(note):
            optimize.executeCompaction()

    def vacuum(self, table: Table, retention: timedelta) -> None:
        """Delete the files that no version within the retention needs."""
        location, hours = self.location(table), math.ceil(retention / timedelta(hours=1))
        # Delta takes 0 as an argument, and everything else from the table.
        kept = {_RETENTION: f"interval {hours} hours", _LOG_RETENTION: f"interval {max(hours, _LOG_HOURS)} hours"}
        unsaid = {_RETENTION: "interval 168 hours", _LOG_RETENTION: f"interval {_LOG_HOURS} hours"}
        found = self._all_properties(table)
        with self.locks.table(table.name), self._configured(_VACUUM):
            if hours and any(found.get(name, unsaid[name]) != value for name, value in kept.items()):
                self._set_properties(table, kept)
            vacuumed = DeltaTable.forPath(self.spark, location)
            vacuumed.vacuum() if hours else vacuumed.vacuum(0)

    def restore(self, table: Table, version: int, *, note: Note) -> None:
        """Bring the rows and properties of a version back. The log keeps the notes of all that came after."""
        with self.locks.table(table.name), self._noted(note):
            DeltaTable.forPath(self.spark, self.location(table)).restoreToVersion(version)

    def note(self, table: Table, note: Note) -> None:
        """A commit that only says something about the table as it is."""
        rows = self.read(table).limit(0)
        with self.locks.table(table.name):
            writer = rows.write.format("delta").mode("append").option("userMetadata", json.dumps(note))
            # Delta leaves out a commit in which there is nothing, but for a transaction's number.
            writer = writer.option("txnAppId", f"{PROPERTY_PREFIX}note").option("txnVersion", self.version(table) + 1)
            writer.save(self.location(table))

    def _note_unless_noted(self, table: Table, note: Note) -> bool:
        """Where nothing was and nothing came Delta makes no commit, and what was noted of it would be lost; says
        whether it was so."""
        if self.note_of(table, self.version(table)) == note:
            return False
        self.note(table, note)
        return True

    def data_files(self, table: Table, version: int) -> list[str]:
        """The files of exactly this version, as paths below the table."""
        rows = self.spark.read.format("delta").option("versionAsOf", version).load(self.location(table))
        return sorted(unquote(uri).partition(f"{self.location(table)}/")[2] for uri in rows.inputFiles())

    @contextmanager
    def _noted(self, note: Note) -> Iterator[None]:
        """For what has no writer with options: Delta takes the note from the session."""
        with self._configured({"spark.databricks.delta.commitInfo.userMetadata": json.dumps(note)}):
            yield

    @contextmanager
    def _configured(self, settings: Mapping[str, str]) -> Iterator[None]:
        before = {key: self.spark.conf.get(key, None) for key in settings}
        for key, value in settings.items():
            self.spark.conf.set(key, value)
        try:
            yield
        finally:
            for key, former in before.items():
                self.spark.conf.unset(key) if former is None else self.spark.conf.set(key, former)

    def cut(self) -> date | None:
        """The lake's cut date; None where nothing has expired yet."""
        return cut_in(self.properties(EVENTS)) if self.exists(EVENTS) else None

    def properties(self, table: Table) -> dict[str, str]:
        """What the jobs recorded with a table: the settings it was computed with, and its stream's application id."""
        return {
            key.removeprefix(PROPERTY_PREFIX): value
            for key, value in self._all_properties(table).items()
            if key.startswith(PROPERTY_PREFIX)
        }

    def _all_properties(self, table: Table) -> dict[str, str]:
        """Those of jobs and those of Delta."""
        properties = table_properties(self.files, table.name, self.version(table))
        if properties is None:
            # SHOW TBLPROPERTIES redacts what looks like a secret: a topic's name with `token` in it, an id with `url`.
            [detail] = DeltaTable.forPath(self.spark, self.location(table)).detail().select("properties").collect()
            properties = dict(detail.properties)
        return properties

    def has_recorded(self, table: Table, settings: Mapping[str, str]) -> bool:
        """Whether a table was computed with these settings."""
        properties = self.properties(table)
        return all(properties.get(key) == text for key, text in settings.items())

    def set_properties(self, table: Table, properties: Mapping[str, str]) -> None:
        with self.locks.table(table.name):
            self._set_properties(table, _prefixed(properties))

    def _set_properties(self, table: Table, properties: Mapping[str, str]) -> None:
        pairs = ", ".join(f"{_sql_text(key)} = {_sql_text(value)}" for key, value in properties.items())
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

    def note_of(self, table: Table, version: int) -> Note | None:
        """What the job that wrote a version noted."""
        return commit_note(self.files, table.name, version)

    def register_views(self) -> list[str]:
        """Make every table of the lake a temporary view by its name, all pinned now; returns the names."""
        for table in self.present():
            self.read(table, self.version(table)).createOrReplaceTempView(table.name)
        return [table.name for table in self.present()]

    def present(self) -> list[Table]:
        return [table for table in TABLES.values() if self.exists(table)]


def cut_in(properties: Mapping[str, str]) -> date | None:
    """The cut date that is recorded with `events`."""
    return date.fromisoformat(properties[CUT]) if CUT in properties else None


def _delta_properties(table: Table) -> dict[str, str]:
    return {"delta.dataSkippingStatsColumns": ",".join(table.statistics), **table.properties}


def _prefixed(properties: Mapping[str, str]) -> dict[str, str]:
    return {f"{PROPERTY_PREFIX}{key}": value for key, value in properties.items()}


def _literals(dates: Iterable[date]) -> str:
    return ", ".join(f"date'{day:%Y-%m-%d}'" for day in sorted(dates))


def _sql_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
