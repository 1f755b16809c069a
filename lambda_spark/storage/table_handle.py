"""Handle of one Delta table of a lake. All jobs read and write Delta tables through this module.

Each commit has a note, which is a JSON object in the commit's metadata. The note says which input the job had
processed: the versions that it read, its micro-batch and its offset in the source. Delta writes the note and the rows
in one transaction. Table properties record the settings with which a job computed the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import unquote

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError
from lambda_spark.ids import IDS, Ids, ids_in
from lambda_spark.settings import renamed_settings
from lambda_spark.storage import delta_log
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.locks import Locks
from lambda_spark.storage.tables import Table

PROPERTY_PREFIX = "lambda_spark."

_RETENTION = "delta.deletedFileRetentionDuration"
_LOG_RETENTION = "delta.logRetentionDuration"
_DEFAULT_RETENTION_HOURS = 168
_DEFAULT_LOG_RETENTION_HOURS = 720
_VACUUM = {
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    # Maximum number of tasks in which Spark lists a table's folders. With the default of 10,000 tasks, listing takes
    # minutes on a few cores.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
}

Note = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """A version of a table, and the note (a JSON object) that a job stored in the commit of this version."""

    version: int
    note: Note


class TableHandle:
    """Reads and writes one table of a lake. For example, `lake[EVENTS]` returns the handle of the table `events`."""

    def __init__(
        self, spark: SparkSession, files: FileSystem, locks: Locks, table: Table, ids: Callable[[], Ids]
    ) -> None:
        self._spark = spark
        self._files = files
        self._locks = locks
        self._ids = ids
        self.table = table
        self.name = table.name
        self.location = f"{files.root}/{table.name}"

    # --- State -------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the table exists, which means that its log has a commit.

        A log without commits is no table. A job leaves such a log when it is killed while it creates the table.
        """
        return bool(self._commit_numbers())

    def version(self) -> int:
        """Return the number of the table's newest version.

        Raises:
            LakeError: The table does not exist.
        """
        commits = self._commit_numbers()
        if not commits:
            raise LakeError(f"{self._files.root} has no table {self.name} yet: run `{self.table.job}` first")
        return commits[-1]

    def size(self) -> int:
        """Return the total size of the table's data files in bytes, from the table's log. 0 if there is no table."""
        commits = self._commit_numbers()
        return delta_log.table_bytes(self._files, self.name, commits[-1]) if commits else 0

    def unchanged_since(self, version: int) -> bool:
        """Whether no row of the table has changed since a version."""
        return self.latest_version_with_same_rows(version) == self.version()

    def latest_version_with_same_rows(self, version: int) -> int:
        """Return the newest version that has the same rows as the given version."""
        return delta_log.latest_version_with_same_rows(self._files, self.name, version)

    def rows_by_date(self, version: int) -> dict[date, int]:
        """Count the rows of each event date in one version of the table. `event_date` must partition the table.

        The numbers come from the statistics in the table's log, so that no data file is read. If the log lacks the
        number of rows of a file, the rows are counted.
        """
        rows = self._read(version)
        files = delta_log.files_of(rows).select(
            F.element_at("partitionValues", F.lit("event_date")).cast("date").alias("event_date"),
            F.get_json_object("stats", "$.numRecords").cast("bigint").alias("rows"),
            F.coalesce("deletionVector.cardinality", F.lit(0)).alias("deleted"),
        )
        counts = files.groupBy("event_date").agg(
            F.sum(F.col("rows") - F.col("deleted")).alias("rows"),
            F.count_if(F.col("rows").isNull()).alias("uncounted"),
        )
        found = counts.collect()
        if any(row.uncounted for row in found):
            found = rows.groupBy("event_date").agg(F.count("*").alias("rows")).collect()
        return {row.event_date: row.rows for row in found if row.rows}

    def has_log_since(self, version: int) -> bool:
        """Whether the log still has every commit after a version. Delta deletes old log files after a month."""
        return self._commit_numbers()[0] <= version + 1

    def note_of(self, version: int) -> Note | None:
        """Return the note (a JSON object) that a job stored in a version's commit. None if it stored none."""
        return delta_log.commit_note(self._files, self.name, version)

    def last_commit(self, *, before: int | None = None, **wanted: Any) -> Commit | None:
        """Find the newest commit whose note (a JSON object in its metadata) has the wanted entries.

        Args:
            before: Only commits older than this version count. None means that all commits count.
            wanted: Entries that the note must have.

        Returns:
            The commit. None if the log has no commit with these entries.
        """
        for version in reversed(self._commit_numbers()):
            if before is not None and version >= before:
                continue
            note = self.note_of(version)
            if note and all(note.get(key) == value for key, value in wanted.items()):
                return Commit(version, note)
        return None

    def properties(self) -> dict[str, str]:
        """Return the properties that jobs recorded with the table, like settings or a stream's application id."""
        recorded = {
            key.removeprefix(PROPERTY_PREFIX): value
            for key, value in self._all_properties().items()
            if key.startswith(PROPERTY_PREFIX)
        }
        return renamed_settings(self.table.settings_section, recorded)

    def has_settings(self, settings: Mapping[str, str]) -> bool:
        """Whether a job computed the table with these settings."""
        properties = self.properties()
        return all(properties.get(key) == text for key, text in settings.items())

    def data_files(self, version: int) -> list[str]:
        """List the data files of one version of the table, as paths relative to the table's folder."""
        rows = self._spark.read.format("delta").option("versionAsOf", version).load(self.location)
        return sorted(unquote(uri).partition(f"{self.location}/")[2] for uri in rows.inputFiles())

    # --- Reading -----------------------------------------------------------------------------------------------------

    def read(self, version: int | None = None) -> DataFrame:
        """Read the table's rows in its declared columns.

        Args:
            version: The version to read, or None for the newest. If a later version has the same rows, that version is
                read instead. The files of the older one may be gone, because compaction moves rows to other files and
                a vacuum then deletes the old files.
        """
        rows = self._read(version)
        present = set(rows.columns)
        # A table that an earlier version of the project wrote may lack new columns. Their values are null.
        return rows.select(
            *(
                F.col(column.name) if column.name in present else F.lit(None).cast(column.type).alias(column.name)
                for column in self.table.columns
            )
        )

    def changes(self, after: int, until: int) -> DataFrame:
        """Read the rows that changed in the versions after `after`, up to and with `until`.

        Returns:
            The table's columns, and Delta's columns `_change_type` and `_commit_version`.
        """
        return (
            self._spark.read.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", after + 1)
            .option("endingVersion", until)
            .load(self.location)
        )

    def stream(self, *, max_bytes: int) -> DataFrame:
        """Read the table as a stream, from its first row on. Commits that change or delete rows are skipped.

        Args:
            max_bytes: Maximum size of the files that one micro-batch reads, in bytes.
        """
        return (
            self._spark.readStream.format("delta")
            .option("skipChangeCommits", "true")
            .option("maxBytesPerTrigger", max_bytes)
            .load(self.location)
        )

    # --- Writing, each in one commit ---------------------------------------------------------------------------------

    def create(self, properties: Mapping[str, str] | None = None) -> None:
        """Create the table without rows, and record properties with it.

        A table that exists keeps its rows and properties. Columns that it lacks are added. If the properties record a
        kind of ids, the ids of a new table are of that kind. Otherwise they are of the lake's kind.
        """
        if self.exists():
            self._add_new_columns()
            return
        recorded = properties or {}
        ids = ids_in(recorded) if IDS in recorded else self._ids()
        builder = DeltaTable.createIfNotExists(self._spark).location(self.location).comment(self.table.comment)
        for column in self.table.columns_for(ids):
            builder = builder.addColumn(column.name, column.type, comment=column.comment)
        for key, value in {**self._delta_properties(), **_prefixed(recorded)}.items():
            builder = builder.property(key, value)
        with self._lock():
            if not self.exists():
                # Delete a log without commits, which a killed job may have left. Delta would take it for a table.
                self._files.delete(f"{self.name}/_delta_log")
            builder.partitionedBy(*self.table.partition_by).execute()

    def _add_new_columns(self) -> None:
        """Add the columns that a table of an earlier version of the project lacks."""
        present = self._spark.read.format("delta").load(self.location).columns
        missing = [column for column in self.table.columns if column.name not in present]
        if missing:
            added = ", ".join(f"{column.name} {column.type}" for column in missing)
            with self._lock():
                self._spark.sql(f"alter table delta.`{self.location}` add columns ({added})")

    def append(self, rows: DataFrame, *, note: Note) -> None:
        """Append rows to the table in one commit, with a note about the input."""
        writer = rows.select(*self.table.column_names).write.format("delta").mode("append")
        with self._lock():
            writer.option("userMetadata", json.dumps(note)).save(self.location)

    def append_batch(self, rows: DataFrame, *, application: str, batch_id: int, note: Note) -> int | None:
        """Append the rows of one micro-batch, unless the same stream has already written this micro-batch.

        The notes in the commits' metadata tell which micro-batches are written. Delta's transaction ids could tell the
        same, but they are slow. To look up an id, Delta aggregates the table's whole log at every append. An append
        took 0.4 s without transaction ids and 1.4 s with them.

        Returns:
            The number of rows written. None if the micro-batch had been written before, or if the commit does not
                record the number.
        """
        with self._lock():
            done = self.last_commit(application=application)
            if done is not None and int(done.note["batch_id"]) >= batch_id:
                return None
            entry = {"application": application, "batch_id": batch_id, **note}
            self.append(rows, note=entry)
            if self._note_unless_noted(entry):
                return 0
            return delta_log.rows_written(self._files, self.name, self.version())

    def replace(self, rows: DataFrame, *, settings: Mapping[str, str], note: Note) -> None:
        """Replace all rows of the table, and the settings that are recorded with the table."""
        commented = [
            F.col(column.name).cast(column.type).alias(column.name, metadata={"comment": column.comment})
            for column in self.table.columns_for(self._ids())
        ]
        writer = rows.select(*commented).writeTo(f"delta.`{self.location}`").using("delta")
        writer = writer.tableProperty("comment", self.table.comment).option("userMetadata", json.dumps(note))
        for key, value in {**self._delta_properties(), **_prefixed(settings)}.items():
            writer = writer.tableProperty(key, value)
        if self.table.partition_by:
            writer = writer.partitionedBy(*(F.col(name) for name in self.table.partition_by))
        with self._lock():
            writer.createOrReplace()

    def replace_where(self, rows: DataFrame, condition: Column, *, note: Note) -> None:
        """Replace the rows that fulfil a condition with new rows. The new rows must fulfil the condition too."""
        writer = rows.select(*self.table.column_names).writeTo(f"delta.`{self.location}`")
        with self._lock():
            writer.option("userMetadata", json.dumps(note)).overwrite(condition)
            self._note_unless_noted(note)

    def overwrite(self, rows: DataFrame, *, note: Note) -> None:
        """Replace all rows of the table, and keep the table's properties."""
        writer = rows.select(*self.table.column_names).write.format("delta").mode("overwrite")
        with self._lock():
            writer.option("userMetadata", json.dumps(note)).save(self.location)
            self._note_unless_noted(note)

    def rewrite_dates(
        self,
        rows: DataFrame,
        dates: Iterable[date],
        *,
        note: Note,
        same_rows: bool = False,
        once: tuple[str, int] | None = None,
    ) -> None:
        """Replace all rows whose event date is among the given dates.

        Args:
            rows: The new rows of these dates.
            dates: Values of the column `event_date`.
            note: JSON object to store in the metadata of the commit.
            same_rows: Whether the new rows mean the same as the old rows. If so, streams that read the table skip the
                commit.
            once: An application id and a number. Delta makes at most one commit for each such pair.
        """
        writer = rows.select(*self.table.column_names).write.format("delta").mode("overwrite")
        writer = writer.option("replaceWhere", f"event_date in ({_literals(dates)})").option(
            "dataChange", not same_rows
        )
        if once is not None:
            writer = writer.option("txnAppId", once[0]).option("txnVersion", once[1])
        with self._lock():
            writer.option("userMetadata", json.dumps(note)).save(self.location)

    def truncate(self, properties: Mapping[str, str]) -> None:
        """Delete all rows of the table, and record the given properties in place of those recorded before."""
        self.replace(self.read().limit(0), settings=properties, note={})

    def delete(self, condition: Column, *, note: Note) -> None:
        """Delete the rows that fulfil a condition. If no row fulfils the condition, Delta makes no commit."""
        with self._lock(), self._noted(note):
            DeltaTable.forPath(self._spark, self.location).delete(condition)

    def delete_keys(self, keys: DataFrame, *, note: Note) -> None:
        """Delete the rows whose key is in `keys`, a DataFrame with one column.

        Delta's log does not record the keys, because they come from a DataFrame and not from a condition.
        """
        (name,) = keys.columns
        target = DeltaTable.forPath(self._spark, self.location).alias("target")
        merge = target.merge(keys.distinct().alias("gone"), f"target.{name} = gone.{name}").whenMatchedDelete()
        with self._lock(), self._noted(note):
            merge.execute()

    def compact(self, dates: Iterable[date] | None, *, note: Note) -> None:
        """Merge the table's small files into large files, without a change of rows. None means all dates."""
        optimize = DeltaTable.forPath(self._spark, self.location).optimize()
        if dates is not None:
            optimize = optimize.where(f"event_date in ({_literals(dates)})")
        with self._lock(), self._noted(note):
            optimize.executeCompaction()

    def vacuum(self, retention: timedelta) -> None:
        """Delete the table's files that no version within the retention period needs."""
        hours = math.ceil(retention / timedelta(hours=1))
        # Pass only a retention of 0 hours as an argument. Delta reads any other retention from the table's properties.
        intervals = {_RETENTION: hours, _LOG_RETENTION: max(hours, _DEFAULT_LOG_RETENTION_HOURS)}
        defaults = {_RETENTION: _DEFAULT_RETENTION_HOURS, _LOG_RETENTION: _DEFAULT_LOG_RETENTION_HOURS}
        properties = self._all_properties()
        with self._lock(), self._configured(_VACUUM):
            differs = (properties.get(key, _interval(defaults[key])) != _interval(intervals[key]) for key in intervals)
            if hours and any(differs):
                self._set_properties({key: _interval(hours) for key, hours in intervals.items()})
            vacuumed = DeltaTable.forPath(self._spark, self.location)
            vacuumed.vacuum() if hours else vacuumed.vacuum(0)

    def restore(self, version: int, *, note: Note) -> None:
        """Bring back the rows and properties of an earlier version. All later commits stay in the log."""
        with self._lock(), self._noted(note):
            DeltaTable.forPath(self._spark, self.location).restoreToVersion(version)

    def set_properties(self, properties: Mapping[str, str]) -> None:
        """Record properties with the table."""
        with self._lock():
            self._set_properties(_prefixed(properties))

    def note(self, note: Note) -> None:
        """Make a commit that changes no row and only stores a note (a JSON object) in its metadata."""
        rows = self.read().limit(0)
        with self._lock():
            writer = rows.write.format("delta").mode("append").option("userMetadata", json.dumps(note))
            # Set a transaction number, because Delta skips a commit without any action. The number counts as an action.
            writer = writer.option("txnAppId", f"{PROPERTY_PREFIX}note").option("txnVersion", self.version() + 1)
            writer.save(self.location)

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def _read(self, version: int | None) -> DataFrame:
        reader = self._spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", self.latest_version_with_same_rows(version))
        return reader.load(self.location)

    def _commit_numbers(self) -> list[int]:
        return delta_log.commit_numbers(self._files, self.name)

    def _lock(self) -> AbstractContextManager[None]:
        return self._locks.table(self.name)

    def _note_unless_noted(self, note: Note) -> bool:
        """Store the note in a commit of its own if the write before made no commit.

        Delta makes no commit for a write that adds and removes no rows.

        Returns:
            Whether the note got a commit of its own.
        """
        if self.note_of(self.version()) == note:
            return False
        self.note(note)
        return True

    @contextmanager
    def _noted(self, note: Note) -> Iterator[None]:
        """Make Delta store a note, a JSON object, in the commits of the `with` body.

        The note goes through the Spark configuration. Some of Delta's operations accept no writer options.
        """
        with self._configured({"spark.databricks.delta.commitInfo.userMetadata": json.dumps(note)}):
            yield

    @contextmanager
    def _configured(self, settings: Mapping[str, str]) -> Iterator[None]:
        before = {key: self._spark.conf.get(key, None) for key in settings}
        for key, value in settings.items():
            self._spark.conf.set(key, value)
        try:
            yield
        finally:
            for key, former in before.items():
                self._spark.conf.unset(key) if former is None else self._spark.conf.set(key, former)

    def _all_properties(self) -> dict[str, str]:
        """Return all properties of the table, both those that jobs recorded and Delta's own."""
        properties = delta_log.table_properties(self._files, self.name, self.version())
        if properties is None:
            # Avoid SHOW TBLPROPERTIES, because Spark hides values in its answer that look like a secret. One example is
            # a topic with `token` in its name.
            [detail] = DeltaTable.forPath(self._spark, self.location).detail().select("properties").collect()
            properties = dict(detail.properties)
        return properties

    def _set_properties(self, properties: Mapping[str, str]) -> None:
        pairs = ", ".join(f"{_sql_text(key)} = {_sql_text(value)}" for key, value in properties.items())
        self._spark.sql(f"ALTER TABLE delta.`{self.location}` SET TBLPROPERTIES ({pairs})")

    def _delta_properties(self) -> dict[str, str]:
        return {"delta.dataSkippingStatsColumns": ",".join(self.table.statistics), **self.table.properties}


def _prefixed(properties: Mapping[str, str]) -> dict[str, str]:
    return {f"{PROPERTY_PREFIX}{key}": value for key, value in properties.items()}


def _interval(hours: int) -> str:
    return f"interval {hours} hours"


def _literals(dates: Iterable[date]) -> str:
    return ", ".join(f"date'{day:%Y-%m-%d}'" for day in sorted(dates))


def _sql_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
