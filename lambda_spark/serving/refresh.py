"""The serving job: joins the batch view (trends, demand) and the speed view (similar_items) into recommendations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.serving.catalogue import catalogue
from lambda_spark.serving.inputs import INPUTS, Views, pin_views
from lambda_spark.serving.outdated import outdated_users
from lambda_spark.serving.profiles import profiles
from lambda_spark.serving.recommendations import recommend
from lambda_spark.settings import RecommendationSettings, recorded
from lambda_spark.storage.lake import Commit, Lake
from lambda_spark.storage.tables import EVENTS, RECOMMENDATIONS

Progress = Callable[[str], None]

_USERS_PER_EVENT = 500
"""Where so many have lists for each new event it pays to find those whose lists may differ, and to keep the others'
(measured with 197 thousand users: after 20 events a tenth of them had to get others, after 1,000 half of them)."""


@dataclass(frozen=True, slots=True)
class RecommendationRun:
    """What a run did."""

    versions_read: dict[str, int]
    written: int | None
    """The version written; None where nothing had changed."""
    users: int | None = None
    """How many users' lists were made anew; None for those of all."""


def refresh(lake: Lake, settings: RecommendationSettings, *, progress: Progress) -> RecommendationRun:
    """Write the lists of all active users, unless they are up to date with the tables and the settings.

    After few new events they are made anew only for those whose lists may differ; the table is that of a full run.
    """
    with lake.locks.reader(), lake.locks.table(RECOMMENDATIONS.name):
        return _refresh(lake, settings, progress)


def _refresh(lake: Lake, settings: RecommendationSettings, progress: Progress) -> RecommendationRun:
    views = pin_views(lake)
    if is_up_to_date(lake, settings):
        return RecommendationRun(views.versions, None)
    newest = views.newest_date()
    note = {"job": "recommend", "versions": views.versions, "bucket": views.bucket_length, "newest_date": str(newest)}
    before = _before(lake, views, newest, settings)
    if before is None:
        progress("recommending for all active users")
        lake.replace(RECOMMENDATIONS, for_active_users(views, settings), settings=recorded(settings), note=note)
        return RecommendationRun(views.versions, lake.version(RECOMMENDATIONS))
    progress("looking for users whose lists may differ")
    lists = lake.read(RECOMMENDATIONS, lake.version(RECOMMENDATIONS))
    span = before.versions[EVENTS.name], views.versions[EVENTS.name]
    touched = lake.changes(EVENTS, *span) if span[0] < span[1] else views.events.limit(0)
    active_since = _active_since(newest, settings)
    users = outdated_users(before, views, lists, touched, settings, active_since=active_since)
    users = users.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        count = users.count()
        progress(f"recommending for {count:,} users")
        theirs = views.events.join(F.broadcast(users), on="user_id", how="left_semi")
        anew = lists_for(profiles(theirs, settings, active_since=active_since), views, settings)
        kept = _stamped(lists.join(F.broadcast(users), on="user_id", how="left_anti"), views)
        lake.replace(RECOMMENDATIONS, anew.unionByName(kept), settings=recorded(settings), note=note)
    finally:
        users.unpersist()
    return RecommendationRun(views.versions, lake.version(RECOMMENDATIONS), count)


def _before(lake: Lake, views: Views, newest: date | None, settings: RecommendationSettings) -> Views | None:
    """What the last run saw, where its lists are still there and most of them as they were: not where much is new, nor
    where the newest date or the bucket is another, by which all weights and words change."""
    done = _last_run(lake, settings)
    if done is None or not lake.is_same(RECOMMENDATIONS, done.version) or done.note.get("newest_date") != str(newest):
        return None
    versions = done.note["versions"]
    if any(versions[name] > version for name, version in views.versions.items()):
        return None
    new, listed = (
        lake.rows_appended(EVENTS, versions[EVENTS.name]),
        lake.rows_appended(RECOMMENDATIONS, done.version - 1),
    )
    if new is None or listed is None or new * _USERS_PER_EVENT > listed / settings.k:
        return None
    before = pin_views(lake, done)
    is_alike = (before.bucket_length, before.when, before.since) == (views.bucket_length, views.when, views.since)
    return before if is_alike else None


def is_up_to_date(lake: Lake, settings: RecommendationSettings) -> bool:
    """Whether the lists that are written are those of the tables as they are now and of these settings."""
    done = _last_run(lake, settings)
    return done is not None and all(lake.is_same(table, done.note["versions"][table.name]) for table in INPUTS)


def _last_run(lake: Lake, settings: RecommendationSettings) -> Commit | None:
    """The commit of the lists that are written, where they are of these settings."""
    if not lake.exists(RECOMMENDATIONS) or not lake.has_recorded(RECOMMENDATIONS, recorded(settings)):
        return None
    return lake.last_commit(RECOMMENDATIONS, job="recommend")


def for_active_users(views: Views, settings: RecommendationSettings) -> DataFrame:
    """The lists of every user with an interaction in the last `active_days`. Columns as in `recommendations`."""
    since = _active_since(views.newest_date(), settings)
    return lists_for(profiles(views.events, settings, active_since=since), views, settings)


def _active_since(newest: date | None, settings: RecommendationSettings) -> Column:
    return F.date_sub(F.lit(newest).cast("date"), settings.active_days - 1)


def lists_for(users: DataFrame, views: Views, settings: RecommendationSettings) -> DataFrame:
    """The lists of some users, given by their profiles; a user whose row has nulls has none."""
    known = catalogue(views.products, views.similar_items, views.trends, views.demand, settings)
    lists = recommend(users, known, settings, when=views.when, since=views.since)
    return _stamped(lists, views)


def _stamped(lists: DataFrame, views: Views) -> DataFrame:
    versions = {name: F.lit(version).cast("bigint") for name, version in views.version_columns.items()}
    return lists.withColumns(versions).select(*RECOMMENDATIONS.column_names)
