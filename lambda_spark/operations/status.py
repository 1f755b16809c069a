"""Status of a lake: its tables, how far each job lags behind `events`, and the latest runs. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.newest import SetAside
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
    INGESTION_LOG,
    JOB_RUNS,
    PRODUCTS,
    RECOMMENDATIONS,
    TRENDS,
    USER_TRENDS,
    Table,
)

_RECENT = 20
"""The durations of this many latest micro-batches of a stream are summarised."""
_AT_ONCE = 4
"""Number of tables queried in parallel, because one small query leaves the cores idle most of the time."""

_NEWEST = {
    PRODUCTS.name: "last_seen",
    BASKETS.name: "event_date",
    CO_INTERACTIONS.name: "event_date",
    **{table.name: "bucket_start" for table in (DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS)},
}
"""The column that holds the event time of a row, by table name. Its maximum is the time of the newest row."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """Size and times of a table's newest version."""

    table: str
    version: int
    written_at: datetime
    """When the table was last modified (UTC)."""
    rows: int
    bytes: int
    """Size of the files of this version."""
    files: int
    newest: datetime | None
    """Event time of the newest row, or the start of its date or time bucket; None if rows have no event time.

    Of `events`, the time of the newest event that is not set aside.
    """


@dataclass(frozen=True, slots=True)
class StepStatus:
    """How far a job (`trends`, `similarity` or `recommend`) is behind the table `events`."""

    step: str
    events_version: int
    """The newest version of `events` whose rows the job has all processed."""
    lag_seconds: float
    """Seconds since the oldest unprocessed events arrived; 0 where all events are processed."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Summary of a stream's latest micro-batches."""

    stream: str
    last_batch_at: datetime
    """Start of the last micro-batch (UTC)."""
    seconds: float
    """Median duration of the latest micro-batches."""
    worst_seconds: float
    """Duration of the slowest of these micro-batches."""
    messages_behind: int | None
    """Messages in Kafka still unread after the last micro-batch; None for a stream that reads no topic."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Last run of a job. Runs that were killed do not count."""

    job: str
    started_at: datetime
    seconds: float
    outcome: str
    """`done` or `failed`."""


@dataclass(frozen=True, slots=True)
class Status:
    """Status of a whole lake."""

    lake: str
    """Path of the lake."""
    at: datetime
    """When the status was taken (UTC)."""
    lines: int
    """Number of lines and Kafka messages that the lake has ever read."""
    rejected: int
    """Number of the lines and Kafka messages that became a rejected event."""
    tables: list[TableStatus]
    steps: list[StepStatus]
    streams: list[StreamStatus]
    jobs: list[JobStatus]
    set_aside: SetAside | None = None
    """The events that count nowhere yet, because they are few and long after all others; None without such events."""

    @property
    def rejected_share(self) -> float:
        """Share of the lines that were rejected, in [0, 1]; 0 where no line was read."""
        return self.rejected / self.lines if self.lines else 0.0


def status(lake: Lake, now: datetime) -> Status:
    """Take the status of a lake.

    Args:
        lake: The lake to look at.
        now: The present time, with its time zone. Lags are measured up to this time.

    Raises:
        LakeError: The table `ingestion_log` is missing.
    """
    newest = lake.newest(lake[EVENTS].version())
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        tables = list(threads.map(lambda table: _table(lake, table, newest.date), lake.present()))
    account = lake[INGESTION_LOG].read(lake[INGESTION_LOG].version())
    total = account.agg(F.sum("lines").alias("lines"), F.sum("rejected").alias("rejected")).collect()[0]
    runs = lake[JOB_RUNS].read() if lake[JOB_RUNS].exists() else None
    return Status(
        lake=lake.path,
        at=now,
        lines=total.lines or 0,
        rejected=total.rejected or 0,
        tables=tables,
        steps=_steps(lake, now),
        streams=_streams(runs) if runs is not None else [],
        jobs=_jobs(runs) if runs is not None else [],
        set_aside=newest.set_aside,
    )


def _table(lake: Lake, table: Table, newest_date: date | None) -> TableStatus:
    version = lake[table].version()
    detail = lake.spark.sql(f"describe detail delta.`{lake[table].location}`").collect()[0]
    rows = lake[table].read(version)
    newest = None
    if table == EVENTS:
        # Read only the partition of the newest date, which Delta's log gives alone.
        newest = rows.where(F.col("event_date") == F.lit(newest_date)).agg(F.max("event_time")).collect()[0][0]
    elif table.name in _NEWEST:
        newest = rows.agg(F.max(F.col(_NEWEST[table.name]).cast("timestamp"))).collect()[0][0]
    return TableStatus(
        table.name, version, detail.lastModified, rows.count(), detail.sizeInBytes, detail.numFiles, newest
    )


def _steps(lake: Lake, now: datetime) -> list[StepStatus]:
    """Find how far each job is behind `events`, from the metadata of the job's last commit."""
    covered: list[tuple[str, Table, Callable[[dict[str, Any]], object]]] = [
        ("trends", USER_TRENDS, lambda note: note["events_version"]),
        ("similarity", CO_INTERACTIONS, _processed_version),
        ("recommend", RECOMMENDATIONS, lambda note: note["versions"][EVENTS.name]),
    ]
    steps = []
    for step, table, version_of in covered:
        if not lake[table].exists():
            continue
        if table is CO_INTERACTIONS:
            # Search by application id, not by job, because `maintain` and `forget` add commits too. After they deleted
            # rows, their commit records the version of `events` that this table includes.
            done = lake[table].last_commit(application=lake[table].properties()[APPLICATION])
        else:
            done = lake[table].last_commit(job=step)
        if done is not None:
            version = int(str(version_of(done.note)))
            steps.append(StepStatus(step, version, _waiting_seconds(lake, version, now)))
    return steps


def _processed_version(note: dict[str, Any]) -> int:
    """Return the version of `events` up to which the job `similarity` has processed every row."""
    covered = covered_version(note)
    return covered if covered is not None else int(note["offset"]["reservoirVersion"]) - 1


def _waiting_seconds(lake: Lake, version: int, now: datetime) -> float:
    """Return for how many seconds events have been waiting for a job.

    The job has processed `events` up to the given version. The wait began with the first later commit that appended
    rows. Without such a commit the wait is 0 seconds.
    """
    for later in commit_numbers(lake.files, EVENTS.name):
        if later > version and appends_rows(lake.files, EVENTS.name, later):
            return max(0.0, (now - commit_time(lake.files, EVENTS.name, later)).total_seconds())
    return 0.0


def _streams(runs: DataFrame) -> list[StreamStatus]:
    """Summarise the latest micro-batches of each stream in `job_runs`."""
    batches = runs.where(F.col("batch_id").isNotNull())
    newest_first = Window.partitionBy("job").orderBy(F.desc("started_at"))
    recent = batches.withColumn("number", F.row_number().over(newest_first)).where(F.col("number") <= _RECENT)
    batch_list = F.array_sort(F.collect_list(F.struct("number", "started_at", "seconds", "messages_behind")))
    last = recent.groupBy("job").agg(batch_list.alias("recent")).orderBy("job")
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
    """Find the last run of each job in `job_runs`."""
    newest: Column = F.max_by(F.struct("started_at", "seconds", "outcome"), "started_at")
    rows = runs.where(F.col("batch_id").isNull()).groupBy("job").agg(newest.alias("last")).orderBy("job").collect()
    return [JobStatus(row.job, row.last.started_at, row.last.seconds, row.last.outcome) for row in rows]
