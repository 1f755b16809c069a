"""Checks that the tables of a lake equal, row for row, a recompute from the table `events`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
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
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.table_handle import Commit
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

logger = logging.getLogger(__name__)

SHOWN = 10
"""At most this many missing rows and this many surplus rows are shown per table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of comparing one table with its recompute from `events`."""

    table: str
    rows: int
    """Number of the table's rows."""
    missing: DataFrame | None
    """Rows that the recompute has and the table lacks; None where there are none."""
    surplus: DataFrame | None
    """Rows that the table has and the recompute lacks; None where there are none."""
    against: str
    """The table versions that the recompute used, in words; empty for a table that was not checked.

    A table cannot be checked before the job that computes it has finished once.
    """

    @property
    def differs(self) -> bool:
        """Whether any row is missing or surplus."""
        return self.missing is not None or self.surplus is not None


def verify(lake: Lake, tables: Collection[Table] = ()) -> Iterator[Finding]:
    """Compare tables with a recompute from `events`, using the settings recorded with each table.

    Args:
        lake: The lake to check.
        tables: The tables to check. If empty, every table that exists is checked. The trend tables are checked
            together, because one recompute gives all of them. So are `baskets` and `co_interactions`.

    Yields:
        One finding per table. Where a job has not finished yet, its tables share one finding with an empty `against`.
    """
    newest = lake[EVENTS].version()
    for group, check in (
        ((PRODUCTS,), _products),
        (TREND_TABLES, _trends),
        ((CO_INTERACTIONS, BASKETS), _co_interactions),
        ((SIMILAR_ITEMS,), _similar_items),
        ((RECOMMENDATIONS,), _recommendations),
    ):
        table = USER_TRENDS if check is _trends else group[0]
        if lake[table].exists() and (not tables or any(one in tables for one in group)):
            logger.info(f"recomputing {table.name if table is not USER_TRENDS else 'demand and trends'}")
            findings = list(check(lake, newest))
            yield from findings or [Finding(table.name, 0, None, None, "")]


def _products(lake: Lake, newest: int) -> Iterator[Finding]:
    with lake.locks.table(PRODUCTS.name):
        done, current = lake[PRODUCTS].last_commit(), lake[PRODUCTS].version()
    if done is None or "events_version" not in done.note:
        return
    version = int(done.note["events_version"])
    expected = product_attributes(lake[EVENTS].read(version), lake.newest(version).date)
    yield _compare(PRODUCTS, expected, lake[PRODUCTS].read(current), _against(version, newest))


def _trends(lake: Lake, newest: int) -> Iterator[Finding]:
    with lake.locks.tables(*(table.name for table in TREND_TABLES)):
        done = lake[USER_TRENDS].last_commit(job="trends")
        if done is None:
            return
        version = int(done.note["events_version"])
        versions = {table.name: _trends_of(lake, table, version) for table in TREND_TABLES}
    settings = from_recorded(TrendSettings, lake[USER_TRENDS].properties())
    events, retention_cutoff = lake[EVENTS].read(version), lake.retention_cutoff()
    extent = extent_of(events, retention_cutoff, newest_date=lake.newest(version).date)
    if extent is None:
        return
    # Compare only buckets from the retention cutoff on, because older trends are never recomputed.
    is_open = F.lit(True)
    if retention_cutoff is not None:
        buckets = Buckets(settings)
        is_open = F.col("bucket_start") >= F.timestamp_micros(
            F.lit(buckets.start(buckets.first_open(retention_cutoff)))
        )
    with compute(events, settings, extent, F.timestamp_micros(F.lit(extent.newest))) as tables:
        for table, expected in tables.by_table():
            actual = lake[table].read(versions[table.name]).where(is_open)
            yield _compare(table, expected.where(is_open), actual, _against(version, newest))


def _trends_of(lake: Lake, table: Table, events_version: int) -> int:
    """Return the version of a trend table that should equal a recompute from the given version of `events`.

    This is the newest table version that the job `trends` wrote from that version of `events` or an older one. The
    table may have newer versions for two reasons. First, the job writes the trend tables one by one and may have been
    killed in between. Second, `forget` deletes rows from `user_trends` before the trend tables are computed again.
    """
    before = None
    while (commit := lake[table].last_commit(before=before, job="trends")) is not None:
        if int(commit.note["events_version"]) <= events_version:
            return commit.version
        before = commit.version
    return lake[table].version()


def _co_interactions(lake: Lake, newest: int) -> Iterator[Finding]:
    # Hold both tables' locks while the versions are chosen, so that no micro-batch is under way. Otherwise one table
    # could lack rows of the newest micro-batch.
    with lake.locks.tables(BASKETS.name, CO_INTERACTIONS.name):
        done = _newest_whole_commit(lake)
        versions = lake.versions(BASKETS, CO_INTERACTIONS)
    if done is None:
        return
    version = covered_version(done.note)
    assert version is not None
    window = int(lake[CO_INTERACTIONS].properties()["window"])
    items = basket_items(lake[EVENTS].read(version))
    is_covered = F.col("batch_id") <= int(done.note["batch_id"])
    baskets = known_items(lake[BASKETS].read(versions[BASKETS.name]).where(is_covered))
    yield _compare(BASKETS, items, baskets, _against(version, newest))
    counts = total_counts(lake[CO_INTERACTIONS].read(versions[CO_INTERACTIONS.name]).where(is_covered))
    yield _compare(CO_INTERACTIONS, all_contributions(items, window=window), counts, _against(version, newest))


def _similar_items(lake: Lake, newest: int) -> Iterator[Finding]:
    done = lake[SIMILAR_ITEMS].last_commit(job="similarity")
    if done is None or "events_version" not in done.note:
        return
    version = int(done.note["co_interactions_version"])
    settings = from_recorded(SimilaritySettings, lake[SIMILAR_ITEMS].properties())
    counts = lake[CO_INTERACTIONS].read(version)
    newest_date = lake.newest(int(done.note["events_version"])).date
    current = lake[CO_INTERACTIONS].version()
    is_older = not lake[CO_INTERACTIONS].unchanged_since(version)
    against = f"co_interactions v{version}" + (f" (v{current} not yet processed)" if is_older else "")
    yield _compare(
        SIMILAR_ITEMS,
        similar_items(counts, settings, newest=newest_date),
        lake[SIMILAR_ITEMS].read(done.version),
        against,
    )


def _recommendations(lake: Lake, newest: int) -> Iterator[Finding]:
    done = lake[RECOMMENDATIONS].last_commit(job="recommend")
    if done is None:
        return
    settings = from_recorded(RecommendationSettings, lake[RECOMMENDATIONS].properties())
    views = pin_views(lake, done)
    yield _compare(
        RECOMMENDATIONS,
        for_active_users(views, settings),
        lake[RECOMMENDATIONS].read(done.version),
        _against(views.versions["events"], newest),
    )


def _newest_whole_commit(lake: Lake) -> Commit | None:
    """Find the newest commit of `co_interactions` that includes only whole versions of `events`; None without one.

    Not every commit does so, because a micro-batch may end in the middle of a version of `events`.
    """
    application = lake[CO_INTERACTIONS].properties()[APPLICATION]
    before: int | None = None
    while True:
        done = lake[CO_INTERACTIONS].last_commit(before=before, application=application)
        if done is None or covered_version(done.note) is not None:
            return done
        before = done.version


def _against(version: int, newest: int) -> str:
    return f"events v{version}" + (
        f" ({newest - version} newer versions not yet processed)" if newest > version else ""
    )


def _compare(table: Table, expected: DataFrame, actual: DataFrame, against: str) -> Finding:
    """Compare two tables, ignoring the order of rows. Count how much more often each row occurs in one table."""
    names = [name for name in table.column_names if name in expected.columns and name in actual.columns]
    sides = expected.select(*names, F.lit(1).alias("side")).unionByName(actual.select(*names, F.lit(-1).alias("side")))
    counted = (
        sides.groupBy(*names)
        .agg(F.sum("side").alias("balance"), F.count_if(F.col("side") == -1).alias("actual"))
        .persist()
    )
    totals = counted.agg(
        F.coalesce(F.sum("actual"), F.lit(0)).alias("rows"),
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
