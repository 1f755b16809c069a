"""The batch job: brings demand and the four trend tables up to date with `events`, recomputing only what can differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.batch.demand import Buckets, attribute_demand, demand_cells, product_demand, total_demand
from lambda_spark.batch.trends import trends, user_trends
from lambda_spark.lake import Lake
from lambda_spark.settings import TrendSettings, recorded
from lambda_spark.tables import BRAND_TRENDS, CATEGORY_TRENDS, DEMAND, EVENTS, TRENDS, USER_TRENDS, Table

Progress = Callable[[str], None]

TREND_TABLES = (DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS)
"""In the order they are written: the last one's note says that a run is done."""


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
    """Bring the tables up to date, or recompute the buckets that touch a span of time (`end` excluded)."""
    version = lake.version(EVENTS)
    done = lake.last_commit(USER_TRENDS, job="trends") if lake.exists(USER_TRENDS) else None
    if done is None:
        return _recompute_all(lake, settings, version, "first run", progress)
    missing = [table.name for table in TREND_TABLES if not lake.exists(table)]
    if missing:
        return _recompute_all(lake, settings, version, f"{', '.join(missing)} is missing", progress)
    # All are asked: a run with other settings may have been stopped after some of them.
    if not all(lake.has_recorded(table, recorded(settings)) for table in TREND_TABLES):
        return _recompute_all(lake, settings, version, "the settings have changed", progress)
    covered = int(done.note["events_version"])
    before = Extent(done.note["first_event"], done.note["newest_event"])
    buckets = Buckets(settings)
    touched: set[int] = set()
    extent = before
    if version != covered:
        changes = lake.changes(EVENTS, covered, version)
        if changes.where(F.col("_change_type") != "insert").limit(1).collect():
            return _recompute_all(lake, settings, version, "events have been taken out", progress)
        touched, extent = _touched(changes, buckets, before)
    if start is not None or end is not None:
        touched |= _span(start, end, buckets, extent)
    if not touched:
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
        for table, rows in tables.by_table():
            lake.replace_where(table, _packed(rows.where(in_span)), in_span, note=_note(version, extent))
            progress(f"{table.name} written")
    return TrendRun(version, len(compared), "new events", _versions(lake))


@contextmanager
def compute(events: DataFrame, settings: TrendSettings, extent: Extent, known_until: Column) -> Iterator[TrendTables]:
    """The five tables for the buckets of some events; what they share is cached for as long as the context lasts.

    Buckets whose predecessor's events are not among `events` are compared with nothing; the caller leaves them out.
    """
    buckets = Buckets(settings)
    cells = demand_cells(events, buckets).persist(StorageLevel.MEMORY_AND_DISK)
    products = product_demand(cells)
    totals = total_demand(products)
    compare = partial(
        trends,
        totals=totals,
        settings=settings,
        first_bucket=F.timestamp_micros(F.lit(buckets.start(buckets.number(extent.first)))),
        newest_bucket=F.timestamp_micros(F.lit(buckets.start(buckets.number(extent.newest)))),
        known_until=known_until,
    )
    product_trends = compare(products, key="product_id", attributes=["category_code", "brand"])
    product_trends = product_trends.persist(StorageLevel.MEMORY_AND_DISK)
    tables = TrendTables(
        demand=products.where(F.col("events") > 0),
        trends=product_trends,
        category_trends=compare(attribute_demand(cells, "category_code"), key="category_code"),
        brand_trends=compare(attribute_demand(cells, "brand"), key="brand"),
        user_trends=user_trends(events, product_trends, settings),
    )
    try:
        yield tables
    finally:
        product_trends.unpersist()
        cells.unpersist()


def extent_of(events: DataFrame) -> Extent | None:
    """First and newest event, or None where there are no events."""
    first, newest = events.agg(F.unix_micros(F.min("event_time")), F.unix_micros(F.max("event_time"))).collect()[0]
    return None if first is None else Extent(first, newest)


def _recompute_all(lake: Lake, settings: TrendSettings, version: int, reason: str, progress: Progress) -> TrendRun:
    events = lake.read(EVENTS, version)
    extent = extent_of(events)
    if extent is None:
        lake.create(DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS)
        return TrendRun(version, 0, "there are no events yet")
    progress(f"all buckets to recompute: {reason}")
    with compute(events, settings, extent, F.timestamp_micros(F.lit(extent.newest))) as tables:
        for table, rows in tables.by_table():
            lake.replace(table, _packed(rows), settings=recorded(settings), note=_note(version, extent))
            progress(f"{table.name} written")
    return TrendRun(version, None, reason, _versions(lake))


def _touched(changes: DataFrame, buckets: Buckets, before: Extent) -> tuple[set[int], Extent]:
    """The buckets whose rows can differ after some new events, and the store's new extent.

    Those are the buckets of the new events, the one after each, the former newest one (it may be complete now) and
    the one after it, and the former first one if it now has a predecessor. Buckets without events on either side have
    no rows.
    """
    rows = (
        changes.groupBy(buckets.start_of(F.col("event_time")).alias("bucket_start"))
        .agg(F.unix_micros(F.min("event_time")).alias("first"), F.unix_micros(F.max("event_time")).alias("newest"))
        .collect()
    )
    if not rows:
        return set(), before
    extent = Extent(min(before.first, *(row.first for row in rows)), max(before.newest, *(row.newest for row in rows)))
    changed = {buckets.number(row.first) for row in rows}
    former_newest = buckets.number(before.newest)
    touched = changed | {number + 1 for number in changed} | {former_newest, former_newest + 1}
    if extent.first < before.first:
        touched.add(buckets.number(before.first))
    return {number for number in touched if number <= buckets.number(extent.newest)}, extent


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


def _note(version: int, extent: Extent) -> dict[str, object]:
    return {"job": "trends", "events_version": version, "first_event": extent.first, "newest_event": extent.newest}


def _versions(lake: Lake) -> dict[str, int]:
    return lake.versions(*TREND_TABLES)
