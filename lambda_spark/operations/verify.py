"""Promise 1, checked on a user's own lake: the maintained tables equal a recompute from `events`, row for row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.batch.demand import Buckets
from lambda_spark.batch.refresh import TREND_TABLES, compute, extent_of
from lambda_spark.ingestion.products import product_attributes
from lambda_spark.serving.inputs import pin_views
from lambda_spark.serving.refresh import for_active_users
from lambda_spark.settings import RecommendationSettings, SimilaritySettings, TrendSettings, from_recorded
from lambda_spark.speed.baskets import basket_items
from lambda_spark.speed.co_interactions import all_contributions, known_items, total_counts
from lambda_spark.speed.scores import similar_items
from lambda_spark.storage.checkpoints import APPLICATION, covered_version
from lambda_spark.storage.lake import Commit, Lake
from lambda_spark.storage.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    PRODUCTS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    USER_TRENDS,
    Table,
)

SHOWN = 10
"""Differing rows that are shown per table and side."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One table held against its recompute."""

    table: str
    rows: int
    missing: DataFrame | None
    """Rows that the recompute has and the table lacks; None where there are none."""
    surplus: DataFrame | None
    """Rows that the table has and the recompute lacks; None where there are none."""
    against: str
    """What it was held against, in words; empty where it could not be checked: its job has not finished yet."""

    @property
    def differs(self) -> bool:
        return self.missing is not None or self.surplus is not None


def verify(lake: Lake, progress: Callable[[str], None]) -> Iterator[Finding]:
    """Hold every maintained table that exists against its recompute, with the settings recorded with it."""
    newest = lake.version(EVENTS)
    for table, check in (
        (PRODUCTS, _products),
        (USER_TRENDS, _trends),
        (CO_INTERACTIONS, _co_interactions),
        (SIMILAR_ITEMS, _similar_items),
        (RECOMMENDATIONS, _recommendations),
    ):
        if lake.exists(table):
            progress(f"recomputing {table.name if table is not USER_TRENDS else 'demand and trends'}")
            findings = list(check(lake, newest))
            yield from findings or [Finding(table.name, 0, None, None, "")]


def _products(lake: Lake, newest: int) -> Iterator[Finding]:
    with lake.locks.table(PRODUCTS.name):
        done, current = lake.last_commit(PRODUCTS), lake.version(PRODUCTS)
    if done is None or "events_version" not in done.note:
        return
    version = int(done.note["events_version"])
    expected = product_attributes(lake.read(EVENTS, version))
    yield _compare(PRODUCTS, expected, lake.read(PRODUCTS, current), _against(version, newest))


def _trends(lake: Lake, newest: int) -> Iterator[Finding]:
    with lake.locks.tables(*(table.name for table in TREND_TABLES)):
        done = lake.last_commit(USER_TRENDS, job="trends")
        if done is None:
            return
        version = int(done.note["events_version"])
        versions = {table.name: _trends_of(lake, table, version) for table in TREND_TABLES}
    settings = from_recorded(TrendSettings, lake.properties(USER_TRENDS))
    events, cut = lake.read(EVENTS, version), lake.cut()
    extent = extent_of(events, cut)
    if extent is None:
        return
    is_open = F.lit(True)
    if cut is not None:
        buckets = Buckets(settings)
        is_open = F.col("bucket_start") >= F.timestamp_micros(F.lit(buckets.start(buckets.first_open(cut))))
    with compute(events, settings, extent, F.timestamp_micros(F.lit(extent.newest))) as tables:
        for table, expected in tables.by_table():
            actual = lake.read(table, versions[table.name]).where(is_open)
            yield _compare(table, expected.where(is_open), actual, _against(version, newest))


def _trends_of(lake: Lake, table: Table, events_version: int) -> int:
    """The version of a trend table that a run left which had seen this version of events: `forget` begins with the last
    of these tables, and whoever is killed between two of them leaves the first ones newer."""
    before = None
    while (commit := lake.last_commit(table, before=before, job="trends")) is not None:
        if int(commit.note["events_version"]) <= events_version:
            return commit.version
        before = commit.version
    return lake.version(table)


def _co_interactions(lake: Lake, newest: int) -> Iterator[Finding]:
    # Pinned together, between two micro-batches: what the newest note covers is in both.
    with lake.locks.tables(BASKETS.name, CO_INTERACTIONS.name):
        done = _newest_whole_commit(lake)
        versions = lake.versions(BASKETS, CO_INTERACTIONS)
    if done is None:
        return
    version = covered_version(done.note)
    assert version is not None
    window = int(lake.properties(CO_INTERACTIONS)["window"])
    items = basket_items(lake.read(EVENTS, version))
    taken_in = F.col("batch_id") <= int(done.note["batch_id"])
    baskets = known_items(lake.read(BASKETS, versions[BASKETS.name]).where(taken_in))
    yield _compare(BASKETS, items, baskets, _against(version, newest))
    counts = total_counts(lake.read(CO_INTERACTIONS, versions[CO_INTERACTIONS.name]).where(taken_in))
    yield _compare(CO_INTERACTIONS, all_contributions(items, window=window), counts, _against(version, newest))


def _similar_items(lake: Lake, newest: int) -> Iterator[Finding]:
    done = lake.last_commit(SIMILAR_ITEMS, job="similarity")
    if done is None:
        return
    version = int(done.note["co_interactions_version"])
    settings = from_recorded(SimilaritySettings, lake.properties(SIMILAR_ITEMS))
    counts = lake.read(CO_INTERACTIONS, version)
    date = counts.agg(F.max("event_date")).collect()[0][0]
    current = lake.version(CO_INTERACTIONS)
    is_older = not lake.is_same(CO_INTERACTIONS, version)
    against = f"co_interactions v{version}" + (f" (v{current} not yet taken in)" if is_older else "")
    yield _compare(
        SIMILAR_ITEMS, similar_items(counts, settings, newest=date), lake.read(SIMILAR_ITEMS, done.version), against
    )


def _recommendations(lake: Lake, newest: int) -> Iterator[Finding]:
    done = lake.last_commit(RECOMMENDATIONS, job="recommend")
    if done is None:
        return
    settings = from_recorded(RecommendationSettings, lake.properties(RECOMMENDATIONS))
    views = pin_views(lake, done)
    yield _compare(
        RECOMMENDATIONS,
        for_active_users(views, settings),
        lake.read(RECOMMENDATIONS, done.version),
        _against(views.versions["events"], newest),
    )


def _newest_whole_commit(lake: Lake) -> Commit | None:
    """The newest commit that covers whole versions of `events`."""
    application = lake.properties(CO_INTERACTIONS)[APPLICATION]
    before: int | None = None
    while True:
        done = lake.last_commit(CO_INTERACTIONS, before=before, application=application)
        if done is None or covered_version(done.note) is not None:
            return done
        before = done.version


def _against(version: int, newest: int) -> str:
    return f"events v{version}" + (f" ({newest - version} newer versions not yet taken in)" if newest > version else "")


def _compare(table: Table, expected: DataFrame, actual: DataFrame, against: str) -> Finding:
    """Both sides as multisets: how often each row stands in one and not in the other."""
    names = [name for name in table.column_names if name in expected.columns and name in actual.columns]
    sides = expected.select(*names, F.lit(1).alias("side")).unionByName(actual.select(*names, F.lit(-1).alias("side")))
    counted = (
        sides.groupBy(*names)
        .agg(F.sum("side").alias("balance"), F.count_if(F.col("side") == -1).alias("held"))
        .persist()
    )
    totals = counted.agg(
        F.coalesce(F.sum("held"), F.lit(0)).alias("rows"),
        F.count_if(F.col("balance") > 0).alias("missing"),
        F.count_if(F.col("balance") < 0).alias("surplus"),
    ).collect()[0]
    finding = Finding(
        table.name,
        totals["rows"],
        counted.where(F.col("balance") > 0).select(*names) if totals["missing"] else None,
        counted.where(F.col("balance") < 0).select(*names) if totals["surplus"] else None,
        against,
    )
    if not finding.differs:
        counted.unpersist()
    return finding
