"""The batch job: brings the demand table and the four trend tables up to date with `events`.

The job recomputes only the time buckets whose rows may have changed since the job's last run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from lambda_spark.batch.demand import (
    ATTRIBUTES,
    Buckets,
    attribute_demand,
    by_signal,
    demand_cells,
    midnight,
    product_demand,
    total_demand,
    with_previous,
)
from lambda_spark.batch.trends import trends, user_trends
from lambda_spark.newest import newest, newest_of
from lambda_spark.settings import TrendSettings, recorded
from lambda_spark.spark import run_concurrently
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import BRAND_TRENDS, CATEGORY_TRENDS, DEMAND, EVENTS, TRENDS, USER_TRENDS, Table

logger = logging.getLogger(__name__)


TREND_TABLES = (DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS)
"""Tables of the batch layer. A run writes the last table after all others, so a commit to it marks a complete run."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Times of the store's first and newest event, in epoch microseconds.

    `newest` is the time of the last event on the newest date. Events that are set aside are later (see newest.py). If
    old events have expired, `first` is instead midnight of the retention cutoff, the first date whose events are
    kept.
    """

    first: int
    newest: int


@dataclass(frozen=True, slots=True)
class TrendTables:
    """The five tables of the batch layer as DataFrames. All five cover the same time buckets."""

    demand: DataFrame
    trends: DataFrame
    category_trends: DataFrame
    brand_trends: DataFrame
    user_trends: DataFrame

    def by_table(self) -> list[tuple[Table, DataFrame]]:
        """Return each table with its DataFrame, in the order of TREND_TABLES."""
        return [(table, getattr(self, table.name)) for table in TREND_TABLES]


@dataclass(frozen=True, slots=True)
class TrendRun:
    """Summary of one run of the batch job."""

    events_version: int
    """Version of the table `events` that the run read."""
    buckets: int | None
    """Number of buckets that the run recomputed. None if it recomputed all buckets."""
    reason: str
    """Why the run recomputed these buckets, or why it recomputed none."""
    written: dict[str, int] = field(default_factory=dict)
    """Name of each table, with the version of the table after the run."""


def update_trends(
    lake: Lake, settings: TrendSettings, *, start: datetime | None = None, end: datetime | None = None
) -> TrendRun:
    """Bring the tables of the batch layer up to date with `events`.

    If `start` or `end` is given, the buckets between these times are recomputed too. The rows of frozen buckets do not
    change. A frozen bucket is one whose trends can no longer be computed, because events that they need have expired.

    Args:
        lake: The lake.
        settings: The settings of trends. If they have changed since the last run, all buckets are recomputed.
        start: Start of the time span to recompute (UTC). None stands for the first event.
        end: End of the time span to recompute (UTC, excluded). None stands for the newest event.

    Returns:
        The number of recomputed buckets, the reason, and the versions of the tables.

    Raises:
        LakeError: The lake has no table `events` yet.
    """
    with lake.locks.reader(), lake.locks.tables(*(table.name for table in TREND_TABLES)):
        return _update(lake, settings, start, end)


def _update(lake: Lake, settings: TrendSettings, start: datetime | None, end: datetime | None) -> TrendRun:
    version, retention_cutoff = lake[EVENTS].version(), lake.retention_cutoff()
    last_run = lake[USER_TRENDS].last_commit(job="trends") if lake[USER_TRENDS].exists() else None
    recompute_all = partial(_recompute_all, lake, settings, version, retention_cutoff)
    if last_run is None:
        return recompute_all("first run")
    missing = [table.name for table in TREND_TABLES if not lake[table].exists()]
    if missing:
        return recompute_all(f"{', '.join(missing)} is missing")
    # Check the settings of every table. A run with other settings may have stopped after it had written some tables.
    if not all(lake[table].has_settings(recorded(settings)) for table in TREND_TABLES):
        return recompute_all("the settings have changed")
    if last_run.note["first_event"] is None:
        return recompute_all("the first events have arrived")
    covered_version = int(last_run.note["events_version"])
    if covered_version > version:
        return recompute_all("events is older than the trends, as after a restore from a backup")
    if not lake[EVENTS].has_log_since(covered_version):
        return recompute_all("the log of events no longer reaches back to the last run")
    former_extent = Extent(last_run.note["first_event"], last_run.note["newest_event"])
    buckets = Buckets(settings)
    touched: set[int] = set()
    extent = former_extent
    reason = "requested span"
    is_new = lake[EVENTS].latest_version_with_same_rows(covered_version) < version
    if is_new:
        changes = _changes_by_bucket(lake, covered_version, version, buckets, retention_cutoff)
        events_on = lake[EVENTS].rows_by_date(version)
        new_extent = _extent_after(lake, version, events_on, former_extent, changes, retention_cutoff)
        if new_extent is None:
            return recompute_all("all events have been deleted")
        extent = new_extent
        touched = _touched_buckets(changes, events_on, buckets, former_extent, extent)
        reason = "events have been deleted" if _has_deletes(changes) else "new events"
    if start is not None or end is not None:
        touched |= _buckets_of_span(start, end, buckets, extent)
    if retention_cutoff is not None:
        touched = {number for number in touched if number >= buckets.first_open(retention_cutoff)}
    has_moved_back = extent.newest < former_extent.newest
    if not touched and not has_moved_back:
        if is_new:
            lake[USER_TRENDS].note(_commit_note(version, extent))
        return TrendRun(version, 0, "nothing new")
    logger.info(f"recomputing {len(touched)} buckets")
    recomputed = sorted(touched)
    bucket_numbers_read = sorted({number - back for number in recomputed for back in (0, 1)})
    events = (
        lake[EVENTS]
        .read(version)
        .where(
            F.col("event_date").isin(_dates_of(bucket_numbers_read, buckets))
            & buckets.start_of(F.col("event_time")).isin(buckets.starts(bucket_numbers_read))
        )
    )
    is_recomputed = F.col("bucket_start").isin(buckets.starts(recomputed))
    is_replaced = is_recomputed
    if has_moved_back:
        is_replaced |= _is_after_newest(buckets, extent, retention_cutoff)
    with compute(events, settings, extent, F.timestamp_micros(F.lit(extent.newest))) as tables:

        def replace_recomputed(table: Table, rows: DataFrame) -> None:
            lake[table].replace_where(
                _one_file_per_bucket(rows.where(is_recomputed)), is_replaced, note=_commit_note(version, extent)
            )
            logger.info(f"{table.name} written")

        _write_all(tables, replace_recomputed)
    return TrendRun(version, len(recomputed), reason, _table_versions(lake))


@contextmanager
def compute(events: DataFrame, settings: TrendSettings, extent: Extent, known_until: Column) -> Iterator[TrendTables]:
    """Compute the five tables of the batch layer from some events.

    Spark caches the intermediate results of several tables until the context ends. If the events of a bucket's previous
    bucket are missing, its demand is compared with 0. The caller must drop the rows of such a bucket.

    Args:
        events: Events of the buckets to compute, and of the bucket before each of them.
        settings: The settings of trends.
        extent: Times of the store's first and newest event. Only buckets between these times have trends. Events after
            the newest one are set aside, so they are left out.
        known_until: Time up to which events are known. A bucket that ended by this time is complete.

    Yields:
        DataFrames with the columns of the stored tables of the same names.
    """
    buckets = Buckets(settings)
    events = events.where(F.col("event_time") <= F.timestamp_micros(F.lit(extent.newest)))
    cells = demand_cells(events, buckets).persist(StorageLevel.MEMORY_AND_DISK)
    totals = total_demand(cells, buckets)
    counts = with_previous(cells, ["product_id"], buckets, newest=ATTRIBUTES).persist(StorageLevel.MEMORY_AND_DISK)
    products = by_signal(counts, ["product_id", *ATTRIBUTES])
    first_bucket, newest_bucket = (
        F.timestamp_micros(F.lit(buckets.start(buckets.number(moment)))) for moment in (extent.first, extent.newest)
    )
    compare = partial(
        trends,
        totals=totals,
        settings=settings,
        first_bucket=first_bucket,
        newest_bucket=newest_bucket,
        known_until=known_until,
    )
    product_trends = compare(products, key="product_id", attributes=ATTRIBUTES).persist(StorageLevel.MEMORY_AND_DISK)
    # Compare categories and brands in one pass. Both have few rows, so starting a Spark job takes longer than its work.
    attribute_trends = compare(attribute_demand(cells, buckets), key="value", within=["attribute"])
    attribute_trends = attribute_trends.persist(StorageLevel.MEMORY_AND_DISK)

    def trends_of(attribute: str) -> DataFrame:
        rows = attribute_trends.where(F.col("attribute") == attribute)
        return rows.drop("attribute").withColumnRenamed("value", attribute)

    tables = TrendTables(
        demand=product_demand(products),
        trends=product_trends,
        category_trends=trends_of("category_code"),
        brand_trends=trends_of("brand"),
        user_trends=user_trends(
            events, product_trends, settings, first_bucket=first_bucket, newest_bucket=newest_bucket
        ),
    )
    try:
        yield tables
    finally:
        for cached in (attribute_trends, product_trends, counts, cells):
            cached.unpersist()


def extent_of(
    events: DataFrame, retention_cutoff: date | None = None, *, newest_date: date | None = None
) -> Extent | None:
    """Find the times of the first event, and of the last event on the newest date.

    Args:
        events: All events of the store.
        retention_cutoff: Date before which events have expired. If given, midnight of this date replaces the time of
            the first event.
        newest_date: The newest date of the store. None to find this date with a query.

    Returns:
        The two times, or None if the store has no events.
    """
    newest_date = newest_date or newest_of(events).date
    first, newest = (
        events.where(F.col("event_date") <= F.lit(newest_date))
        .agg(F.unix_micros(F.min("event_time")), F.unix_micros(F.max("event_time")))
        .collect()[0]
    )
    if first is None:
        return None
    return Extent(first if retention_cutoff is None else midnight(retention_cutoff), newest)


def _recompute_all(
    lake: Lake, settings: TrendSettings, version: int, retention_cutoff: date | None, reason: str
) -> TrendRun:
    events = lake[EVENTS].read(version)
    extent = extent_of(events, retention_cutoff, newest_date=lake.newest(version).date)
    if extent is None and not lake[USER_TRENDS].exists():
        lake.create(*TREND_TABLES)
        return TrendRun(version, 0, "there are no events yet")
    logger.info(f"recomputing all buckets: {reason}")
    empty = Extent(0, 0)
    with compute(events, settings, extent or empty, F.timestamp_micros(F.lit((extent or empty).newest))) as tables:

        def replace(table: Table, rows: DataFrame) -> None:
            all_rows = _with_frozen_buckets(lake, table, rows, settings, retention_cutoff)
            lake[table].replace(
                _one_file_per_bucket(all_rows), settings=recorded(settings), note=_commit_note(version, extent)
            )
            logger.info(f"{table.name} written")

        _write_all(tables, replace)
    return TrendRun(version, None, reason, _table_versions(lake))


def _write_all(tables: TrendTables, write: Callable[[Table, DataFrame], None]) -> None:
    *others, last = tables.by_table()
    run_concurrently(*(partial(write, table, rows) for table, rows in others))
    write(*last)


def _with_frozen_buckets(
    lake: Lake, table: Table, rows: DataFrame, settings: TrendSettings, retention_cutoff: date | None
) -> DataFrame:
    """Replace the computed rows of frozen buckets by the stored rows of these buckets.

    A bucket is frozen if events that its trends need have expired. If the stored table was computed with other
    settings, the result has no rows of frozen buckets.
    """
    if retention_cutoff is None:
        return rows
    buckets = Buckets(settings)
    is_open = F.col("bucket_start") >= F.timestamp_micros(F.lit(buckets.start(buckets.first_open(retention_cutoff))))
    rows = rows.select(*table.column_names).where(is_open)
    if not lake[table].exists() or not lake[table].has_settings(recorded(settings)):
        return rows
    return rows.unionByName(lake[table].read(lake[table].version()).where(~is_open))


def _changes_by_bucket(
    lake: Lake, covered: int, version: int, buckets: Buckets, retention_cutoff: date | None
) -> list[Row]:
    """Summarise per bucket the events that were added or deleted between two versions of `events`.

    Each row has the time of the first such event, and the number of deleted events.
    """
    changes = lake[EVENTS].changes(covered, version)
    if retention_cutoff is not None:
        changes = changes.where(F.col("event_date") >= F.lit(retention_cutoff))
    return (
        changes.groupBy(buckets.start_of(F.col("event_time")).alias("bucket_start"))
        .agg(
            F.unix_micros(F.min("event_time")).alias("first"),
            F.count_if(F.col("_change_type") != "insert").alias("deletes"),
        )
        .collect()
    )


def _extent_after(
    lake: Lake,
    version: int,
    events_on: Mapping[date, int],
    before: Extent,
    changes: list[Row],
    retention_cutoff: date | None,
) -> Extent | None:
    """Return the times of the store's first and newest event after some changes, or None if no events are left."""
    if not events_on:
        return None
    newest_date = newest(events_on).date
    events = lake[EVENTS].read(version)
    if _has_deletes(changes) or (retention_cutoff is not None and before.first != midnight(retention_cutoff)):
        return extent_of(events, retention_cutoff, newest_date=newest_date)
    on_newest_date = extent_of(events.where(F.col("event_date") == F.lit(newest_date)), newest_date=newest_date)
    assert on_newest_date is not None
    return Extent(min([before.first, *(row.first for row in changes)]), on_newest_date.newest)


def _has_deletes(changes: list[Row]) -> bool:
    return any(row.deletes for row in changes)


def _touched_buckets(
    changes: list[Row], events_on: Mapping[date, int], buckets: Buckets, before: Extent, extent: Extent
) -> set[int]:
    """Return the numbers of the buckets to recompute after events were added or deleted.

    These buckets are:

    - Each bucket with added or deleted events, and the bucket after it, because trends compare the two buckets.
    - The former newest bucket and the bucket after it, because both may be complete now.
    - The buckets of all dates after the former newest date, and the bucket after each of them, because events that had
      been set aside may count now.
    - The present newest bucket. It may no longer be complete, and it may hold events that are set aside now.
    - If the first event has changed, the former and the new first bucket, because the first bucket has no trends.

    Other buckets without events need no recomputing. A bucket has rows only if events fall in it or in the bucket
    before it.
    """
    if not changes and extent == before:
        return set()
    newest_bucket = buckets.number(extent.newest)
    changed = {buckets.number(row.first) for row in changes} | {buckets.number(before.newest)}
    for day in events_on:
        if before.newest < midnight(day) <= extent.newest:
            changed |= set(
                range(buckets.number(midnight(day)), buckets.number(midnight(day + timedelta(days=1)) - 1) + 1)
            )
    touched = changed | {number + 1 for number in changed} | {newest_bucket}
    if extent.first != before.first:
        touched |= {buckets.number(before.first), buckets.number(extent.first)}
    return {number for number in touched if number <= newest_bucket}


def _is_after_newest(buckets: Buckets, extent: Extent, retention_cutoff: date | None) -> Column:
    """Return the condition for stored rows that must vanish because the newest event lies before their bucket.

    The rows of frozen buckets stay.
    """
    numbers = [buckets.number(extent.newest)]
    if retention_cutoff is not None:
        numbers.append(buckets.first_open(retention_cutoff) - 1)
    return F.col("bucket_start") > F.timestamp_micros(F.lit(buckets.start(max(numbers))))


def _buckets_of_span(start: datetime | None, end: datetime | None, buckets: Buckets, extent: Extent) -> set[int]:
    first = extent.first if start is None else max(extent.first, _micros(start))
    last = extent.newest if end is None else min(extent.newest, _micros(end) - 1)
    return set(range(buckets.number(first), buckets.number(last) + 1))


def _micros(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)


def _dates_of(numbers: Iterable[int], buckets: Buckets) -> list[date]:
    """Return the UTC dates that the given buckets overlap. Only these date partitions of `events` must be read."""
    dates = set()
    for number in numbers:
        day = datetime.fromtimestamp(buckets.start(number) / 1_000_000, UTC).date()
        last = datetime.fromtimestamp((buckets.start(number + 1) - 1) / 1_000_000, UTC).date()
        while day <= last:
            dates.add(day)
            day += timedelta(days=1)
    return sorted(dates)


def _one_file_per_bucket(rows: DataFrame) -> DataFrame:
    """Repartition rows by bucket, so that Spark writes one file per bucket."""
    return rows.repartition("bucket_start")


def _commit_note(version: int, extent: Extent | None) -> dict[str, object]:
    first, newest = (None, None) if extent is None else (extent.first, extent.newest)
    return {"job": "trends", "events_version": version, "first_event": first, "newest_event": newest}


def _table_versions(lake: Lake) -> dict[str, int]:
    return lake.versions(*TREND_TABLES)
