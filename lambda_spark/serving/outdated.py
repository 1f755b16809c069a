"""Whose lists may no longer be what the views say: the users that a later run has to recommend for again. Pure.

A list comes from the user's own events, from what the products of the profile say of themselves and of others, from
what is shown of the products in it, and from what fills it up. Each is compared between the views of two runs.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.serving.catalogue import category, eligible_products, is_eligible, moving_products, usable_neighbours
from lambda_spark.serving.inputs import Views
from lambda_spark.settings import RecommendationSettings
from lambda_spark.storage.tables import DEMAND, PRODUCTS, SIMILAR_ITEMS, TRENDS

_SHOWN = ("category_code", "brand", "price")
_SHOWN_OF_TRENDS = ("direction", "growth", "current", "previous")


def outdated_users(
    before: Views,
    now: Views,
    lists: DataFrame,
    touched: DataFrame,
    settings: RecommendationSettings,
    *,
    active_since: Column,
) -> DataFrame:
    """The users whose lists may differ between two views of the same newest date and buckets: user_id, each once.

    `lists` has the rows of `recommendations` of the first views; `touched`, with a user_id, the users whose events are
    not the same in both. All others' lists are row for row the same.
    """
    changed = {name for name in now.versions if before.versions[name] != now.versions[name]}
    found = [touched.select("user_id")]
    if changed & {PRODUCTS.name, SIMILAR_ITEMS.name, TRENDS.name}:
        speaking = _saying_other(before, now, changed, settings)
        found.append(now.events.join(F.broadcast(speaking), on="product_id", how="left_semi").select("user_id"))
        shown = _differing(_shown(before), _shown(now), "product_id")
        found.append(lists.join(F.broadcast(shown), on="product_id", how="left_semi").select("user_id"))
    if changed & {PRODUCTS.name, DEMAND.name}:
        active = now.events.where(F.col("event_date") >= active_since).select("user_id").distinct()
        found.append(active.join(_full(lists, settings), on="user_id", how="left_anti"))
    return reduce(DataFrame.union, found).distinct()


def _saying_other(before: Views, now: Views, changed: set[str], settings: RecommendationSettings) -> DataFrame:
    """The products that say something else, of themselves or of others, to the profiles they are in: product_id."""
    found = [
        _differing(_themselves(before, settings), _themselves(now, settings), "product_id"),
        _differing(_neighbours(before, settings), _neighbours(now, settings), "product_id"),
    ]
    # What weighs a candidate: its growth, and how many of its category may be in a list.
    moved = [_differing(_growth(before), _growth(now), "product_id")]
    if settings.max_per_category and PRODUCTS.name in changed:
        moved.append(_differing(_category_code(before), _category_code(now), "product_id"))
    candidates = reduce(DataFrame.union, moved).withColumnRenamed("product_id", "similar_product_id")
    found.append(candidates.select("similar_product_id"))
    found.append(
        now.similar_items.join(F.broadcast(candidates), on="similar_product_id", how="left_semi").select("product_id")
    )
    return reduce(DataFrame.union, found).distinct()


def _themselves(views: Views, settings: RecommendationSettings) -> DataFrame:
    eligible = is_eligible(views.products.sparkSession, settings)
    return views.products.select("product_id", category().alias("category"), eligible.alias("eligible"))


def _neighbours(views: Views, settings: RecommendationSettings) -> DataFrame:
    return usable_neighbours(views.similar_items, eligible_products(views.products, settings))


def _growth(views: Views) -> DataFrame:
    return moving_products(views.trends).select("product_id", "growth")


def _category_code(views: Views) -> DataFrame:
    return views.products.select("product_id", "category_code")


def _shown(views: Views) -> DataFrame:
    moving = moving_products(views.trends).select("product_id", *_SHOWN_OF_TRENDS)
    return views.products.select("product_id", *_SHOWN).join(moving, on="product_id", how="left")


def _full(lists: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """The users whose lists nothing fills up: user_id."""
    return lists.where(F.col("score").isNotNull() & (F.col("rank") == settings.k)).select("user_id")


def _differing(before: DataFrame, now: DataFrame, key: str) -> DataFrame:
    """The keys of the rows that only one of the two has."""
    sides = before.withColumn("side", F.lit(-1)).unionByName(now.withColumn("side", F.lit(1)))
    rows = sides.groupBy(*before.columns).agg(F.sum("side").alias("balance"))
    return rows.where(F.col("balance") != 0).select(key)
