"""The serving job. It joins the batch view (trends, demand) and the speed view (similar_items) into recommendations."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.serving.catalogue import catalogue
from lambda_spark.serving.inputs import INPUTS, Views, pin_views
from lambda_spark.serving.profiles import profiles
from lambda_spark.serving.recommendations import recommend
from lambda_spark.settings import RecommendationSettings, recorded
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import RECOMMENDATIONS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecommendationRun:
    """What a run of the job `recommend` read and wrote."""

    versions_read: dict[str, int]
    written: int | None
    """The version of `recommendations` that the run wrote; None if the lists were up to date."""


def update_recommendations(lake: Lake, settings: RecommendationSettings) -> RecommendationRun:
    """Write the lists of all active users, unless they are up to date with the tables and the settings.

    Args:
        lake: The lake to read and write.
        settings: Which users get a list, and which products may be in a list.

    Raises:
        LakeError: A table that serving reads is missing.
        UsageError: `recommendations.filter` is no condition on products.
    """
    with lake.locks.reader(), lake.locks.table(RECOMMENDATIONS.name):
        views = pin_views(lake)
        if is_up_to_date(lake, settings):
            return RecommendationRun(views.versions, None)
        logger.info("recommending for all active users")
        note = {"job": "recommend", "versions": views.versions, "bucket": views.bucket_length}
        lake[RECOMMENDATIONS].replace(for_active_users(views, settings), settings=recorded(settings), note=note)
        return RecommendationRun(views.versions, lake[RECOMMENDATIONS].version())


def is_up_to_date(lake: Lake, settings: RecommendationSettings) -> bool:
    """Whether the written lists were made with these settings and from the present rows of the tables."""
    if not lake[RECOMMENDATIONS].exists() or not lake[RECOMMENDATIONS].has_settings(recorded(settings)):
        return False
    done = lake[RECOMMENDATIONS].last_commit(job="recommend")
    return done is not None and all(lake[table].unchanged_since(done.note["versions"][table.name]) for table in INPUTS)


def for_active_users(views: Views, settings: RecommendationSettings) -> DataFrame:
    """Make the list of every user with an interaction in the last `active_days` days.

    Returns:
        The columns of `recommendations`.
    """
    since = F.date_sub(F.lit(views.newest_date).cast("date"), settings.active_days - 1)
    return lists_for(profiles(views.events, settings, active_since=since), views, settings)


def lists_for(users: DataFrame, views: Views, settings: RecommendationSettings) -> DataFrame:
    """Make the lists of some users.

    Args:
        users: The users' profiles, as `profiles` returns them. A user without a profile has one row of nulls.
        views: The tables that serving reads.
        settings: What may be in a list.

    Returns:
        The columns of `recommendations`.
    """
    known = catalogue(views.products, views.similar_items, views.trends, views.demand, settings)
    lists = recommend(users, known, settings, when=views.when, since=views.since)
    versions = {name: F.lit(version).cast("bigint") for name, version in views.version_columns.items()}
    return lists.withColumns(versions).select(*RECOMMENDATIONS.column_names)
