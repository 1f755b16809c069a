"""The batch job: brings demand and the four trend tables up to date with `events`, recomputing only what can differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
from lambda_spark.settings import TrendSettings, recorded
from lambda_spark.spark import side_by_side
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import BRAND_TRENDS, CATEGORY_TRENDS, DEMAND, EVENTS, TRENDS, USER_TRENDS, Table

Progress = Callable[[str], None]

TREND_TABLES = (DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS)
"""The last one is written after all others: its note says that a run is done."""


@dataclass(frozen=True, slots=True)
class Extent:
    """First and newest event of the store, in epoch microseconds."""

    first: int
    newest: int


@dataclass(frozen=True, slots=True)
class TrendTables:
    """The five tables of the batch layer as DataFrames, for the same buckets."""

    demand: DataFrame
    trends: DataFrame
    category_trends: DataFrame
    brand_trends: DataFrame
    user_trends: DataFrame

    def by_table(self) -> list[tuple[Table, DataFrame]]:
        return [(table, getattr(self, table.name)) for table in TREND_TABLES]


@dataclass(frozen=True, slots=True)
class TrendRun:
    """What a run did."""

    events_version: int
    buckets: int | None
    """How many buckets were recomputed; None for all of them."""
    reason: str
    written: dict[str, int] = field(default_factory=dict)
    """Table: the version written."""


def refresh(
    lake: Lake,
    settings: TrendSettings,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    progress: Progress,
) -> TrendRun:
    """Bring the tables up to date, or recompute the buckets that touch a span of time (`end` excluded).

    Buckets that a cut date has frozen stay as they are.
    """
    with lake.locks.reader(), lake.locks.tables(*(table.name for table in TREND_TABLES)):
        return _refresh(lake, settings, start, end, progress)


def _refresh(
    lake: Lake, settings: TrendSettings, start: datetime | None, end: datetime | None, progress: Progress
) -> TrendRun:
    version, cut = lake.version(EVENTS), lake.cut()
    done = lake.last_commit(USER_TRENDS, job="trends") if lake.exists(USER_TRENDS) else None
    recompute_all = partial(_recompute_all, lake, settings, version, cut, progress)
    if done is None:
        return recompute_all("first run")
    missing = [table.name for table in TREND_TABLES if not lake.exists(table)]
    if missing:
        return recompute_all(f"{', '.join(missing)} is missing")
    # All are asked: a run with other settings may have been stopped after some of them.
    if not all(lake.has_recorded(table, recorded(settings)) for table in TREND_TABLES):
        return recompute_all("the settings have changed")
    if done.note["first_event"] is None:
        return recompute_all("first events")
    covered = int(done.note["events_version"])
    if covered > version:
        return recompute_all("events is older than what was computed, as from a backup")
    if not lake.has_log_since(EVENTS, covered):
        return recompute_all("what came since the last run is no longer in the log of events")
    before = Extent(done.note["first_event"], done.note["newest_event"])
    buckets = Buckets(settings)
    touched: set[int] = set()
    extent = before
    reason = "asked for"
    is_new = lake.newest_alike(EVENTS, covered) < version
    if is_new:
        changes = _changes_by_bucket(lake, covered, version, buckets, cut)
        after = _extent_after(lake, version, before, changes, cut)
        if after is None:
            return recompute_all("all events have been taken out")
        extent = after
        touched = _touched(changes, buckets, before, extent)
        reason = "events have been taken out" if _has_deletes(changes) else "new events"
    if start is not None or end is not None:
        touched |= _span(start, end, buckets, extent)
    if cut is not None:
        touched = {number for number in touched if number >= buckets.first_open(cut)}
    if not touched:
        if is_new:
            lake.note(USER_TRENDS, _note(version, extent))
        return TrendRun(version, 0, "nothing new")
    progress(f"{len(touched)} buckets to recompute")
    compared = sorted(touched)
    needed = sorted({number - back for number in compared for back in (0, 1)})
    events = lake.read(EVENTS, version).where(
        F.col("event_date").isin(_dates(needed, buckets))
        & buckets.start_of(F.col("event_time")).isin(buckets.starts(needed))
    )
    in_span = F.col("bucket_start").isin(buckets.starts(compared))
    with compute(events, settings, extent, F.timestamp_micros(F.lit(extent.newest))) as tables:

        def replace_in_span(table: Table, rows: DataFrame) -> None:
            lake.replace_where(table, _packed(rows.where(in_span)), in_span, note=_note(version, extent))
            progress(f"{table.name} written")

        _write_all(tables, replace_in_span)
    return TrendRun(version, len(compared), reason, _versions(lake))


@contextmanager
def compute(events: DataFrame, settings: TrendSettings, extent: Extent, known_until: Column) -> Iterator[TrendTables]:
    """The five tables for the buckets of some events; what they share is cached for as long as the context lasts.

    Buckets whose predecessor's events are not among `events` are compared with nothing; the caller leaves them out.
    """
    buckets = Buckets(settings)
    cells = demand_cells(events, buckets).persist(StorageLevel.MEMORY_AND_DISK)
    totals = total_demand(cells, buckets)
    counts = with_previous(cells, ["product_id"], buckets, newest=ATTRIBUTES).persist(StorageLevel.MEMORY_AND_DISK)
    products = by_signal(counts, ["product_id", *ATTRIBUTES])
    first_bucket, newest_bucket = (
        F.timestamp_micros(F.lit(buckets.start(buckets.number(moment)))) for moment in (extent.first, extent.newest)
    )
    judge = partial(
        trends,
        totals=totals,
        settings=settings,
        first_bucket=first_bucket,
        newest_bucket=newest_bucket,
        known_until=known_until,
    )
    product_trends = judge(products, key="product_id", attributes=ATTRIBUTES).persist(StorageLevel.MEMORY_AND_DISK)
    # Both in one pass: they are few, and most of the work is to plan and to begin.
    attribute_trends = judge(attribute_demand(cells, buckets), key="value", within=["attribute"])
    attribute_trends = attribute_trends.persist(StorageLevel.MEMORY_AND_DISK)

    def trends_of(attribute: str) -> DataFrame:
        of_it = attribute_trends.where(F.col("attribute") == attribute)
        return of_it.drop("attribute").withColumnRenamed("value", attribute)

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
        for kept in (attribute_trends, product_trends, counts, cells):
            kept.unpersist()


def extent_of(events: DataFrame, cut: date | None = None) -> Extent | None:
    """First and newest event, or None where there are no events. With a cut date the store begins there."""
    first, newest = events.agg(F.unix_micros(F.min("event_time")), F.unix_micros(F.max("event_time"))).collect()[0]
    if first is None:
        return None
    return Extent(first if cut is None else midnight(cut), newest)


def _recompute_all(
    lake: Lake, settings: TrendSettings, version: int, cut: date | None, progress: Progress, reason: str
) -> TrendRun:
    events = lake.read(EVENTS, version)
    extent = extent_of(events, cut)
    if extent is None and not lake.exists(USER_TRENDS):
        lake.create(*TREND_TABLES)
        return TrendRun(version, 0, "there are no events yet")
    progress(f"all buckets to recompute: {reason}")
    nothing = Extent(0, 0)
    with compute(events, settings, extent or nothing, F.timestamp_micros(F.lit((extent or nothing).newest))) as tables:

        def replace(table: Table, rows: DataFrame) -> None:
            kept = _with_frozen(lake, table, rows, settings, cut)
            lake.replace(table, _packed(kept), settings=recorded(settings), note=_note(version, extent))
            progress(f"{table.name} written")

        _write_all(tables, replace)
    return TrendRun(version, None, reason, _versions(lake))


def _write_all(tables: TrendTables, write: Callable[[Table, DataFrame], None]) -> None:
    *others, last = tables.by_table()
    side_by_side(*(partial(write, table, rows) for table, rows in others))
    write(*last)


def _with_frozen(lake: Lake, table: Table, rows: DataFrame, settings: TrendSettings, cut: date | None) -> DataFrame:
    """All rows of a recompute, and those that a cut date has frozen, where they are of the same settings."""
    if cut is None:
        return rows
    buckets = Buckets(settings)
    is_open = F.col("bucket_start") >= F.timestamp_micros(F.lit(buckets.start(buckets.first_open(cut))))
    rows = rows.select(*table.column_names).where(is_open)
    if not lake.exists(table) or not lake.has_recorded(table, recorded(settings)):
        return rows
    return rows.unionByName(lake.read(table, lake.version(table)).where(~is_open))


def _changes_by_bucket(lake: Lake, covered: int, version: int, buckets: Buckets, cut: date | None) -> list[Row]:
    """What came to `events` and was taken out after a version: per bucket its first and newest event and `deletes`."""
    changes = lake.changes(EVENTS, covered, version)
    if cut is not None:
        changes = changes.where(F.col("event_date") >= F.lit(cut))
    return (
        changes.groupBy(buckets.start_of(F.col("event_time")).alias("bucket_start"))
        .agg(
            F.unix_micros(F.min("event_time")).alias("first"),
            F.unix_micros(F.max("event_time")).alias("newest"),
            F.count_if(F.col("_change_type") != "insert").alias("deletes"),
        )
        .collect()
    )


def _extent_after(lake: Lake, version: int, before: Extent, changes: list[Row], cut: date | None) -> Extent | None:
    """The store's extent after some changes; None where no events are left."""
    if _has_deletes(changes) or (cut is not None and before.first != midnight(cut)):
        return extent_of(lake.read(EVENTS, version), cut)
    first = min([before.first, *(row.first for row in changes)])
    return Extent(first, max([before.newest, *(row.newest for row in changes)]))


def _has_deletes(changes: list[Row]) -> bool:
    return any(row.deletes for row in changes)


def _touched(changes: list[Row], buckets: Buckets, before: Extent, extent: Extent) -> set[int]:
    """The buckets whose rows can differ after some changes.

    Those are the buckets of the changes, the one after each, all from the newest one before to the newest one after and
    the next (they may be complete now, or no longer), and the first one before and after (it has no rows while nothing
    precedes it). Buckets without events on either side have no rows.
    """
    if not changes and extent == before:
        return set()
    changed = {buckets.number(row.first) for row in changes}
    newest = sorted((buckets.number(before.newest), buckets.number(extent.newest)))
    touched = changed | {number + 1 for number in changed}
    touched |= {buckets.number(before.newest), buckets.number(before.newest) + 1}
    if extent.newest < before.newest:
        touched |= set(range(newest[0], newest[1] + 1))
    if extent.first != before.first:
        touched |= {buckets.number(before.first), buckets.number(extent.first)}
    return {number for number in touched if number <= newest[1]}


def _span(start: datetime | None, end: datetime | None, buckets: Buckets, extent: Extent) -> set[int]:
    first = extent.first if start is None else max(extent.first, _micros(start))
    last = extent.newest if end is None else min(extent.newest, _micros(end) - 1)
    return set(range(buckets.number(first), buckets.number(last) + 1))


def _micros(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)


def _dates(numbers: Iterable[int], buckets: Buckets) -> list[date]:
    """The UTC dates that some buckets lie on, for the events' partitions."""
    dates = set()
    for number in numbers:
        day = datetime.fromtimestamp(buckets.start(number) / 1_000_000, UTC).date()
        last = datetime.fromtimestamp((buckets.start(number + 1) - 1) / 1_000_000, UTC).date()
        while day <= last:
            dates.add(day)
            day += timedelta(days=1)
    return sorted(dates)


def _packed(rows: DataFrame) -> DataFrame:
    """One file per bucket, sorted as it is asked for."""
    return rows.repartition("bucket_start")


def _note(version: int, extent: Extent | None) -> dict[str, object]:
    first, newest = (None, None) if extent is None else (extent.first, extent.newest)
    return {"job": "trends", "events_version": version, "first_event": first, "newest_event": newest}


def _versions(lake: Lake) -> dict[str, int]:
    return lake.versions(*TREND_TABLES)
