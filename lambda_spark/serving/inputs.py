"""The tables that serving reads, each pinned at one version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError
from lambda_spark.serving.catalogue import DEMAND_BUCKETS
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.table_handle import Commit
from lambda_spark.storage.tables import DEMAND, EVENTS, PRODUCTS, SIMILAR_ITEMS, TRENDS, USER_TRENDS, Table

INPUTS = (EVENTS, PRODUCTS, SIMILAR_ITEMS, TRENDS, DEMAND)


@dataclass(frozen=True, slots=True)
class Views:
    """The tables that a run reads, each pinned at one version."""

    versions: dict[str, int]
    """The pinned version of each table, by the table's name."""
    events: DataFrame
    products: DataFrame
    similar_items: DataFrame
    trends: DataFrame
    """Rows of one time bucket, which begins at `bucket`."""
    demand: DataFrame
    """Rows of the newest DEMAND_BUCKETS buckets, with `age`: 0 for the newest bucket, 1 for the one before, etc."""
    bucket_length: str
    """The setting `trends.bucket`, as it is recorded with the trends, like `10080 minutes`."""
    bucket: Column
    """First moment of the time bucket that the trends are from."""
    when: str
    """A phrase for that bucket, like `in the week from 2019-11-04`."""
    since: str
    """A phrase for the moment from which demand is counted, like `since 2019-09-23`."""

    def newest_date(self) -> date | None:
        """Return the date of the newest event; None without events."""
        return self.events.agg(F.max("event_date")).collect()[0][0]  # type: ignore[no-any-return]

    @property
    def version_columns(self) -> dict[str, int]:
        """Return the versions as the columns of `recommendations`, like `events_version`."""
        return {f"{name}_version": self.versions[name] for name in ("events", "products", "similar_items", "trends")}


def pin_views(lake: Lake, done: Commit | None = None) -> Views:
    """Pin the tables of a lake.

    Args:
        lake: The lake to read.
        done: A commit by the job `recommend`. The tables are pinned at the versions that the job read for it. None
            pins the newest versions.

    Raises:
        LakeError: A job that must run before `recommend` has not run.
    """
    # The job `trends` writes `user_trends` last, so this table exists only if the job has run to its end.
    for table, job in ((EVENTS, "ingest"), (USER_TRENDS, "trends"), (SIMILAR_ITEMS, "similarity")):
        if not lake[table].exists():
            raise LakeError(
                f"the table {table.name} is missing in {lake.path}: run `{job}` first (or `run`, which runs all jobs)"
            )
    note = done.note if done is not None else {}
    versions = note.get("versions") or lake.versions(*INPUTS)
    # Fall back to the table's property, because the metadata of older commits has no bucket length.
    bucket_length = note.get("bucket") or lake[TRENDS].properties().get("bucket", "")

    def read(table: Table) -> DataFrame:
        return lake[table].read(versions[table.name])

    return newest_views(
        versions,
        events=read(EVENTS),
        products=read(PRODUCTS),
        similar_items=read(SIMILAR_ITEMS),
        trends=read(TRENDS),
        demand=read(DEMAND),
        bucket_length=bucket_length,
    )


def newest_views(
    versions: dict[str, int],
    *,
    events: DataFrame,
    products: DataFrame,
    similar_items: DataFrame,
    trends: DataFrame,
    demand: DataFrame,
    bucket_length: str,
) -> Views:
    """Make the views from whole tables, by selecting the time buckets to serve.

    `trends` keeps the newest complete bucket, or the newest one if none is complete. `demand` ends at the newest bucket
    that has trends. Without any trends, the newest bucket of `demand` is used for both.

    Args:
        versions: The version of each table, by name.
        events: All rows of `events`.
        products: All rows of `products`.
        similar_items: All rows of `similar_items`.
        trends: All rows of `trends`.
        demand: All rows of `demand`.
        bucket_length: The setting `trends.bucket` as it is recorded, like `10080 minutes`; empty without trends.
    """
    start, newest = newest_buckets(trends)
    if newest is None:
        start = newest = demand.agg(F.max("bucket_start")).collect()[0][0]
    bucket = F.lit(start).cast("timestamp")
    length = timedelta(minutes=int(bucket_length.partition(" ")[0] or 1))
    oldest = None if newest is None else newest - (DEMAND_BUCKETS - 1) * length
    elapsed = F.unix_micros(F.lit(newest).cast("timestamp")) - F.unix_micros("bucket_start")
    age = F.floor(elapsed / F.lit(length // length.resolution)).cast("int")
    # End demand at the newest bucket of the trends, because the job commits `demand` and `trends` one after the other.
    # Between the two commits, or after a kill at that point, one table has a bucket that the other lacks.
    span = (F.lit(moment).cast("timestamp") for moment in (oldest, newest))
    recent = demand.where(F.col("bucket_start").between(*span))
    return Views(
        versions,
        events,
        products,
        similar_items,
        trends.where(F.col("bucket_start") == bucket),
        recent.withColumn("age", age),
        bucket_length,
        bucket,
        bucket_words(start, bucket_length) if start else "",
        f"since {_moment_words(oldest)}" if oldest else "",
    )


def newest_buckets(trends: DataFrame) -> tuple[datetime | None, datetime | None]:
    """Find the bucket that trends are served from, and the newest bucket.

    Args:
        trends: Rows of `trends`.

    Returns:
        The first moments of two buckets, both None without trends: of the newest complete bucket that has trends (or
        of the newest bucket if none is complete), and of the newest bucket, complete or not.
    """
    newest = F.max("bucket_start")
    complete, any_trend = trends.agg(F.max(F.when(F.col("complete"), F.col("bucket_start"))), newest).collect()[0]
    return complete or any_trend, any_trend


def bucket_words(start: datetime, length: str) -> str:
    """Describe a time bucket in words.

    Args:
        start: The first moment of the bucket.
        length: The bucket's length as it is recorded with the trends, like `10080 minutes`.

    Returns:
        A phrase like `in the week from 2019-11-04`.
    """
    if length == "10080 minutes":
        return f"in the week from {start:%Y-%m-%d}"
    return f"in the {length} from {start:%Y-%m-%d %H:%M}"


def _moment_words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}" if moment.time() == time() else f"{moment:%Y-%m-%d %H:%M}"
