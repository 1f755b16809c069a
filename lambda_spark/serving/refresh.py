"""The serving job: joins the batch view (trends, demand) and the speed view (similar_items) into recommendations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError
from lambda_spark.lake import Commit, Lake
from lambda_spark.serving.catalogue import DEMAND_BUCKETS, catalogue
from lambda_spark.serving.profiles import profiles
from lambda_spark.serving.recommendations import recommend
from lambda_spark.settings import RecommendationSettings, recorded
from lambda_spark.tables import DEMAND, EVENTS, PRODUCTS, RECOMMENDATIONS, SIMILAR_ITEMS, TRENDS, USER_TRENDS, Table

Progress = Callable[[str], None]

_INPUTS = (EVENTS, PRODUCTS, SIMILAR_ITEMS, TRENDS, DEMAND)


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

    @property
    def version_columns(self) -> dict[str, int]:
        """What a row of `recommendations` says of them."""
        return {f"{name}_version": self.versions[name] for name in ("events", "products", "similar_items", "trends")}


@dataclass(frozen=True, slots=True)
class RecommendationRun:
    """What a run did."""

    versions_read: dict[str, int]
    written: int | None
    """The version written; None where nothing had changed."""


def pin_views(lake: Lake, done: Commit | None = None) -> Views:
    """Pin what there is now (or what a commit of this job read), and the newest bucket: of the trends, else of demand.

    Raises LakeError where one of the jobs before this one has not run.
    """
    for table, job in ((EVENTS, "ingest"), (USER_TRENDS, "trends"), (SIMILAR_ITEMS, "similarity")):
        if not lake.exists(table):
            raise LakeError(f"{table.name} is missing in {lake.path}: run `{job}` first (or `run`, which does all)")
    read_then = done.note if done is not None else {}
    versions = read_then.get("versions") or lake.versions(*_INPUTS)
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
    # Between two commits of `trends`, or where it was killed there, demand has a bucket that trends have not.
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


def refresh(lake: Lake, settings: RecommendationSettings, *, progress: Progress) -> RecommendationRun:
    """Write the lists of all active users, unless they are up to date with the tables and the settings."""
    with lake.locks.reader(), lake.locks.table(RECOMMENDATIONS.name):
        return _refresh(lake, settings, progress)


def _refresh(lake: Lake, settings: RecommendationSettings, progress: Progress) -> RecommendationRun:
    views = pin_views(lake)
    if is_up_to_date(lake, settings):
        return RecommendationRun(views.versions, None)
    progress("recommending for all active users")
    rows = for_active_users(views, settings)
    note = {"job": "recommend", "versions": views.versions, "bucket": views.bucket_length}
    lake.replace(RECOMMENDATIONS, rows, settings=recorded(settings), note=note)
    return RecommendationRun(views.versions, lake.version(RECOMMENDATIONS))


def is_up_to_date(lake: Lake, settings: RecommendationSettings) -> bool:
    """Whether the lists that are written are those of the tables as they are now and of these settings."""
    if not lake.exists(RECOMMENDATIONS):
        return False
    done = lake.last_commit(RECOMMENDATIONS, job="recommend")
    if done is None or not all(lake.is_same(table, done.note["versions"][table.name]) for table in _INPUTS):
        return False
    return lake.has_recorded(RECOMMENDATIONS, recorded(settings))


def for_active_users(views: Views, settings: RecommendationSettings) -> DataFrame:
    """The lists of every user with an interaction in the last `active_days`. Columns as in `recommendations`."""
    newest = views.events.agg(F.max("event_date")).collect()[0][0]
    since = F.date_sub(F.lit(newest).cast("date"), settings.active_days - 1)
    return lists_for(profiles(views.events, settings, active_since=since), views, settings)


def lists_for(users: DataFrame, views: Views, settings: RecommendationSettings) -> DataFrame:
    """The lists of some users, given by their profiles; a user whose row has nulls has none."""
    known = catalogue(views.products, views.similar_items, views.trends, views.demand, settings)
    lists = recommend(users, known, settings, when=views.when, since=views.since)
    versions = {name: F.lit(version).cast("bigint") for name, version in views.version_columns.items()}
    return lists.withColumns(versions).select(*RECOMMENDATIONS.column_names)


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
