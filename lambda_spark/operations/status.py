"""How a lake is: its tables, how far each step is behind, what its streams and jobs did last. Reads only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.storage.checkpoints import APPLICATION, covered_version
from lambda_spark.storage.delta_log import appends_rows, commit_numbers, commit_time
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BASKETS,
    BRAND_TRENDS,
    CATEGORY_TRENDS,
    CO_INTERACTIONS,
    DEMAND,
    EVENTS,
    INGESTED_FILES,
    JOB_RUNS,
    PRODUCTS,
    RECOMMENDATIONS,
    TRENDS,
    USER_TRENDS,
    Table,
)

_RECENT = 20
"""Micro-batches whose seconds are told."""
_AT_ONCE = 4
"""Tables asked at a time: a small query leaves the cores idle for most of its time."""

_NEWEST = {
    PRODUCTS.name: "last_seen",
    BASKETS.name: "event_date",
    CO_INTERACTIONS.name: "event_date",
    **{table.name: "bucket_start" for table in (DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS)},
}
"""Table: the column that says how new its newest row is, in the events' time."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """A table as its newest version is."""

    table: str
    version: int
    written_at: datetime
    rows: int
    bytes: int
    """Size of the files of this version."""
    files: int
    newest: datetime | None
    """Event time of what is newest in it (for a bucket or a date, its beginning); None where rows have none."""


@dataclass(frozen=True, slots=True)
class StepStatus:
    """How far a step is behind `events`."""

    step: str
    events_version: int
    """The version of `events` that it has taken in."""
    lag_seconds: float
    """How long the oldest events which it has not taken in have been waiting; 0 where there are none."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream's latest micro-batches."""

    stream: str
    last_batch_at: datetime
    seconds: float
    """Median seconds of the latest micro-batches."""
    worst_seconds: float
    messages_behind: int | None
    """Messages in Kafka that had not been read after the last one; None for a stream of something else."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's last run that ended by itself."""

    job: str
    started_at: datetime
    seconds: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Status:
    lake: str
    at: datetime
    lines: int
    """Lines and messages ever read."""
    rejected: int
    """Those that became a rejected event."""
    tables: list[TableStatus]
    steps: list[StepStatus]
    streams: list[StreamStatus]
    jobs: list[JobStatus]

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.lines if self.lines else 0.0


def status(lake: Lake, now: datetime) -> Status:
    """Everything above, at one moment; `now` in UTC."""
    with ThreadPoolExecutor(_AT_ONCE) as asked:
        tables = list(asked.map(lambda table: _table(lake, table), lake.present()))
    account = lake.read(INGESTED_FILES, lake.version(INGESTED_FILES))
    total = account.agg(F.sum("lines").alias("lines"), F.sum("rejected").alias("rejected")).collect()[0]
    runs = lake.read(JOB_RUNS) if lake.exists(JOB_RUNS) else None
    return Status(
        lake=lake.path,
        at=now,
        lines=total.lines or 0,
        rejected=total.rejected or 0,
        tables=tables,
        steps=_steps(lake, now),
        streams=_streams(runs) if runs is not None else [],
        jobs=_jobs(runs) if runs is not None else [],
    )


def _table(lake: Lake, table: Table) -> TableStatus:
    version = lake.version(table)
    detail = lake.spark.sql(f"describe detail delta.`{lake.location(table)}`").collect()[0]
    rows = lake.read(table, version)
    newest = None
    if table == EVENTS:
        # The newest time is in the newest partition; which that is, is known without reading a file.
        date = rows.agg(F.max("event_date")).collect()[0][0]
        newest = rows.where(F.col("event_date") == F.lit(date)).agg(F.max("event_time")).collect()[0][0]
    elif table.name in _NEWEST:
        newest = rows.agg(F.max(F.col(_NEWEST[table.name]).cast("timestamp"))).collect()[0][0]
    return TableStatus(
        table.name, version, detail.lastModified, rows.count(), detail.sizeInBytes, detail.numFiles, newest
    )


def _steps(lake: Lake, now: datetime) -> list[StepStatus]:
    """Each derived step by the version of `events` that its last commit notes."""
    covered: list[tuple[str, Table, Callable[[dict[str, Any]], object]]] = [
        ("trends", USER_TRENDS, lambda note: note["events_version"]),
        ("similarity", CO_INTERACTIONS, _taken_in),
        ("recommend", RECOMMENDATIONS, lambda note: note["versions"][EVENTS.name]),
    ]
    found = []
    for step, table, version_of in covered:
        if not lake.exists(table):
            continue
        if table is CO_INTERACTIONS:
            # Also what an upkeep noted after it took rows out.
            done = lake.last_commit(table, application=lake.properties(table)[APPLICATION])
        else:
            done = lake.last_commit(table, job=step)
        if done is not None:
            version = int(str(version_of(done.note)))
            found.append(StepStatus(step, version, _waiting_seconds(lake, version, now)))
    return found


def _taken_in(note: dict[str, Any]) -> int:
    """The last version of `events` that similarity has taken in as a whole."""
    covered = covered_version(note)
    return covered if covered is not None else int(note["offset"]["reservoirVersion"]) - 1


def _waiting_seconds(lake: Lake, version: int, now: datetime) -> float:
    """How long the oldest rows after a version of `events` have been there."""
    for later in commit_numbers(lake.files, EVENTS.name):
        if later > version and appends_rows(lake.files, EVENTS.name, later):
            return max(0.0, (now - commit_time(lake.files, EVENTS.name, later)).total_seconds())
    return 0.0


def _streams(runs: DataFrame) -> list[StreamStatus]:
    batches = runs.where(F.col("batch_id").isNotNull())
    newest_first = Window.partitionBy("job").orderBy(F.desc("started_at"))
    recent = batches.withColumn("number", F.row_number().over(newest_first)).where(F.col("number") <= _RECENT)
    found = F.array_sort(F.collect_list(F.struct("number", "started_at", "seconds", "messages_behind")))
    last = recent.groupBy("job").agg(found.alias("recent")).orderBy("job")
    return [
        StreamStatus(
            row.job,
            row.recent[0].started_at,
            sorted(batch.seconds for batch in row.recent)[len(row.recent) // 2],
            max(batch.seconds for batch in row.recent),
            row.recent[0].messages_behind,
        )
        for row in last.collect()
    ]


def _jobs(runs: DataFrame) -> list[JobStatus]:
    newest: Column = F.max_by(F.struct("started_at", "seconds", "outcome"), "started_at")
    rows = runs.where(F.col("batch_id").isNull()).groupBy("job").agg(newest.alias("last")).orderBy("job").collect()
    return [JobStatus(row.job, row.last.started_at, row.last.seconds, row.last.outcome) for row in rows]
