"""The tables that the serving layer reads, each at one fixed version."""

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
    """The tables that one run of the serving job reads, each at one fixed version."""

    versions: dict[str, int]
    """The version of each table that is read, by table name."""
    events: DataFrame
    """Rows of `events`, without the events that are set aside because they lie after the newest date."""
    newest_date: date | None
    """The newest date of the store; None without events."""
    products: DataFrame
    similar_items: DataFrame
    trends: DataFrame
    """Rows of `trends` from one time bucket, which begins at the moment `bucket`."""
    demand: DataFrame
    """Rows of `demand` from the newest DEMAND_BUCKETS time buckets.

    The column `age` is 0 for the newest bucket, 1 for the bucket before, and so on.
    """
    bucket_length: str
    """Length of a time bucket, as recorded with the table `trends`, like `10080 minutes`."""
    bucket: Column
    """First moment of the time bucket that the rows of `trends` are from."""
    when: str
    """A phrase for the time bucket of the trends, like `in the week from 2019-11-04`."""
    since: str
    """A phrase for the moment from which demand is counted, like `since 2019-09-23`."""

    @property
    def version_columns(self) -> dict[str, int]:
        """Return the table versions under the column names of `recommendations`, like `events_version`."""
        return {f"{name}_version": self.versions[name] for name in ("events", "products", "similar_items", "trends")}


def pin_views(lake: Lake, done: Commit | None = None) -> Views:
    """Choose the table versions that serving reads, and open the tables at these versions.

    Args:
        lake: The lake to read.
        done: A commit by the job `recommend`. The chosen versions are those that the job read for this commit. Without
            a commit, the newest versions are chosen.

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
    # Fall back to the table property, because the metadata of older commits lacks the bucket length.
    bucket_length = note.get("bucket") or lake[TRENDS].properties().get("bucket", "")

    def read(table: Table) -> DataFrame:
        return lake[table].read(versions[table.name])

    return newest_views(
        versions,
        events=read(EVENTS),
        newest_date=lake.newest(versions[EVENTS.name]).date,
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
    newest_date: date | None,
    products: DataFrame,
    similar_items: DataFrame,
    trends: DataFrame,
    demand: DataFrame,
    bucket_length: str,
) -> Views:
    """Select the time buckets to serve from whole tables.

    The rows of `trends` are those of the newest complete bucket. If no bucket is complete, they are those of the newest
    bucket. The rows of `demand` end at the newest bucket that has trends. If there are no trends, the newest bucket of
    `demand` takes the place of both buckets.

    Args:
        versions: The version of each table, by name.
        events: All rows of `events`.
        newest_date: The newest date of the store; None without events.
        products: All rows of `products`.
        similar_items: All rows of `similar_items`.
        trends: All rows of `trends`.
        demand: All rows of `demand`.
        bucket_length: Length of a time bucket, as recorded with `trends`, like `10080 minutes`; empty without trends.
    """
    start, newest = newest_buckets(trends)
    if newest is None:
        start = newest = demand.agg(F.max("bucket_start")).collect()[0][0]
    bucket = F.lit(start).cast("timestamp")
    length = timedelta(minutes=int(bucket_length.partition(" ")[0] or 1))
    oldest = None if newest is None else newest - (DEMAND_BUCKETS - 1) * length
    elapsed = F.unix_micros(F.lit(newest).cast("timestamp")) - F.unix_micros("bucket_start")
    age = F.floor(elapsed / F.lit(length // length.resolution)).cast("int")
    # End demand at the newest bucket of the trends, because the job `trends` commits the tables one by one.
    # If the job is between the two commits or was killed there, one table has a bucket that the other lacks.
    span = (F.lit(moment).cast("timestamp") for moment in (oldest, newest))
    recent = demand.where(F.col("bucket_start").between(*span))
    return Views(
        versions,
        events.where(F.col("event_date") <= F.lit(newest_date).cast("date")),
        newest_date,
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
    """Find the time bucket whose trends are served, and the newest time bucket.

    Args:
        trends: Rows of `trends`.

    Returns:
        The first moments of two buckets, both None if there are no trends. The first bucket is the newest complete
        bucket, or the newest bucket if no bucket is complete. The second bucket is the newest bucket, complete or not.
    """
    newest = F.max("bucket_start")
    complete, any_trend = trends.agg(F.max(F.when(F.col("complete"), F.col("bucket_start"))), newest).collect()[0]
    return complete or any_trend, any_trend


def bucket_words(start: datetime, length: str) -> str:
    """Describe a time bucket in words.

    Args:
        start: The first moment of the bucket.
        length: The bucket's length, as recorded with the table `trends`, like `10080 minutes`.

    Returns:
        A phrase like `in the week from 2019-11-04`.
    """
    if length == "10080 minutes":
        return f"in the week from {start:%Y-%m-%d}"
    return f"in the {length} from {start:%Y-%m-%d %H:%M}"


def _moment_words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}" if moment.time() == time() else f"{moment:%Y-%m-%d %H:%M}"
