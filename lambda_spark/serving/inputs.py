"""The tables that serving reads, each pinned at one version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError
from lambda_spark.serving.catalogue import DEMAND_BUCKETS
from lambda_spark.storage.lake import Commit, Lake
from lambda_spark.storage.tables import DEMAND, EVENTS, PRODUCTS, SIMILAR_ITEMS, TRENDS, USER_TRENDS, Table

INPUTS = (EVENTS, PRODUCTS, SIMILAR_ITEMS, TRENDS, DEMAND)


@dataclass(frozen=True, slots=True)
class Views:
    """The tables that a run reads, each pinned at one version."""

    versions: dict[str, int]
    events: DataFrame
    products: DataFrame
    similar_items: DataFrame
    trends: DataFrame
    """Of one bucket."""
    demand: DataFrame
    """Of the newest buckets, with `age`, how many buckets before the newest."""
    bucket_length: str
    """The setting as it is recorded with the trends."""
    bucket: Column
    """First moment of the bucket that trends are from."""
    when: str
    """The bucket of the trends, in words."""
    since: str
    """From when on demand is counted, in words."""

    def newest_date(self) -> date | None:
        """The newest event's."""
        return self.events.agg(F.max("event_date")).collect()[0][0]  # type: ignore[no-any-return]

    @property
    def version_columns(self) -> dict[str, int]:
        """What a row of `recommendations` says of them."""
        return {f"{name}_version": self.versions[name] for name in ("events", "products", "similar_items", "trends")}


def pin_views(lake: Lake, done: Commit | None = None) -> Views:
    """Pin what there is now (or what a commit of this job read), and the newest bucket: of the trends, else of demand.

    Raises LakeError where one of the jobs before this one has not run.
    """
    for table, job in ((EVENTS, "ingest"), (USER_TRENDS, "trends"), (SIMILAR_ITEMS, "similarity")):
        if not lake.exists(table):
            raise LakeError(f"{table.name} is missing in {lake.path}: run `{job}` first (or `run`, which does all)")
    read_then = done.note if done is not None else {}
    versions = read_then.get("versions") or lake.versions(*INPUTS)
    # An older commit has not noted it.
    bucket_length = read_then.get("bucket") or lake.properties(TRENDS).get("bucket", "")

    def read(table: Table) -> DataFrame:
        return lake.read(table, versions[table.name])

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
    """What serving needs of whole tables."""
    start, newest = newest_buckets(trends)
    if newest is None:
        start = newest = demand.agg(F.max("bucket_start")).collect()[0][0]
    bucket = F.lit(start).cast("timestamp")
    length = timedelta(minutes=int(bucket_length.partition(" ")[0] or 1))
    oldest = None if newest is None else newest - (DEMAND_BUCKETS - 1) * length
    elapsed = F.unix_micros(F.lit(newest).cast("timestamp")) - F.unix_micros("bucket_start")
    age = F.floor(elapsed / F.lit(length // length.resolution)).cast("int")
    # Between two commits of `trends`, or where it was killed there, one of the two has a bucket that the other has not.
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
    """First moments of the newest complete bucket that has trends, else of the newest, and of the newest; None where
    there are none."""
    newest = F.max("bucket_start")
    complete, any_trend = trends.agg(F.max(F.when(F.col("complete"), F.col("bucket_start"))), newest).collect()[0]
    return complete or any_trend, any_trend


def bucket_words(start: datetime, length: str) -> str:
    """A bucket in words, like `in the week from 2019-11-04`; its length as recorded with the trends."""
    if length == "10080 minutes":
        return f"in the week from {start:%Y-%m-%d}"
    return f"in the {length} from {start:%Y-%m-%d %H:%M}"


def _moment_words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}" if moment.time() == time() else f"{moment:%Y-%m-%d %H:%M}"
