"""Makes each user's list of recommendations, with reasons, from the user's profile and the catalogue.

The functions here get tables as arguments. They neither read nor write the lake.

Profiles are partitioned by user, and all other tables are broadcast. So Spark shuffles no rows after the profiles are
made. Only numbers are aggregated per user and product, because Spark aggregates numbers fast, in hash tables. Texts are
joined at the end, because the finished lists are short.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TypeVar

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.ids import ID_TYPES
from lambda_spark.serving import reasons
from lambda_spark.serving.catalogue import Catalogue
from lambda_spark.settings import RecommendationSettings
from lambda_spark.spark import ids_of

POINTS = 1_000_000_000
"""A score of 1 is this many points. Scores are summed as whole points, so that the order of summing has no effect."""
MOST_POINTS = float(1 << 52)
"""Most points that one profile item gives to one product.

Points need a limit because a similarity (a decayed lift) has no upper bound. With this limit, the sum of the points of
1,024 profile items fits 64 bits.
"""
POSITION_BITS = 10
"""Number of bits that hold a position in a profile. They replace the last bits of points when points are compared."""


class Tier(IntEnum):
    """Why a product is in a list, the best reason first."""

    SCORED = 0
    """The product has a score, which comes from the user's profile."""
    NEAR = 1
    """The product fills up the list, because it is in demand in a category of the profile."""
    STORE = 2
    """The product fills up the list, because it is in demand in the store."""


_POSITIONS = 1 << POSITION_BITS
"""Upper bound of a profile's length. The position `_POSITIONS - 1` marks a product outside the profile."""
_INTEREST_LEVELS = 1 << 2
"""Upper bound of an interest level. Each event type has one level."""
_ENTRY = "struct<order: double, product_id: {id}, tier: int, top_contributor: bigint, own: boolean>"
"""Spark type of the struct that `_entry` makes for a product in a list. `id` is the Spark type of ids."""

_Number = TypeVar("_Number", Column, float)


def _unrounded_points(contribution: _Number) -> _Number:
    """Convert into points what a profile item contributes to a product's score. The result is not yet rounded.

    Args:
        contribution: The weight of the profile item times the similarity, at least 0.

    Returns:
        The points plus a half, so that rounding down gives the nearest integer.
    """
    return contribution * float(POINTS) + 0.5


def points_of_column(contribution: Column) -> Column:
    """Turn the contributions of profile items to scores into whole points, in Spark. Null stays null."""
    points = _unrounded_points(contribution)
    # Do not use `round`, because Spark converts the number to text and back. Do not use `least`, which ignores nulls.
    return F.floor(F.when(points > MOST_POINTS, MOST_POINTS).otherwise(points))


def points_of_value(contribution: float) -> int:
    """Turn a profile item's contribution to a score into whole points, in Python as `points_of_column` in Spark."""
    return math.floor(min(_unrounded_points(contribution), MOST_POINTS))


def score_of(points: _Number, growth: _Number, trend_weight: float) -> _Number:
    """Compute a product's score, in Spark or in Python.

    Args:
        points: The sum of the points that the profile gives to the product.
        growth: The growth of the product's views in (-1, 1); 0 where its trend is steady.
        trend_weight: The setting `recommendations.trend_weight`, 0 to 1.

    Returns:
        The similarity to the profile, times 1 + trend_weight · growth.
    """
    return points / float(POINTS) * (1.0 + trend_weight * growth)


def recommend(
    profiles: DataFrame, catalogue: Catalogue, settings: RecommendationSettings, *, when: str, since: str
) -> DataFrame:
    """Make the lists of some users.

    Args:
        profiles: The users' profiles, as `profiles.profiles` returns them. A user without a profile has one row of
            nulls and gets the products most in demand.
        catalogue: The facts about products.
        settings: What may be in a list.
        when: A phrase for the time bucket that the trends are from.
        since: A phrase for the moment from which demand is counted.

    Returns:
        user_id, rank (1 the best), product_id, category_code, brand, price, reason, trend_growth in (-1, 1);
        score and because_of (the profile item that contributes most), both null where the product fills up the list.
    """
    lists = _lists(_scored(_candidates(profiles, catalogue, settings), catalogue, settings), settings)
    filled = _ranked(_filled(lists, catalogue, settings), catalogue, settings)
    return _with_reasons(filled.join(F.broadcast(catalogue.attributes), on="product_id", how="left"), when, since)


def _candidates(profiles: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Sum the points of each product that a user touched, or that is similar to a product of the user's profile.

    Returns:
        user_id, product_id, points;
        top_contributor: the profile item that gives most points, as the number that `_top_contributor` makes;
        packed_flags: one number that encodes the product's position in the profile, its interest_level, and whether it
        may not be recommended; null where the user did not touch the product.
    """
    # Explode the candidates of profile items only. A bought product outside the profile gives other products no points.
    # The row of the bought product stays all the same, because the row keeps the product out of the list.
    candidate = F.explode_outer(F.when(F.col("weight").isNotNull(), F.col("candidates")))
    each = profiles.join(F.broadcast(catalogue.neighbours), on="product_id", how="left").select(
        "user_id",
        "product_id",
        "position",
        "interest_level",
        "weight",
        "bought",
        "eligible",
        candidate.alias("candidate"),
    )
    is_itself = F.col("candidate.similarity").isNull()
    repeats = settings.repeat == "boost"
    to_itself = F.col("weight") * F.lit(settings.repeat_weight) if repeats else F.lit(0.0)
    to_neighbour = F.col("weight") * F.col("candidate.similarity")
    points = points_of_column(F.when(is_itself, to_itself).otherwise(to_neighbour))
    may_not_repeat = F.lit(settings.repeat == "exclude") | F.col("bought") | F.col("weight").isNull()
    is_barred = may_not_repeat | ~F.coalesce("eligible", F.lit(False))
    packed_flags = F.coalesce("position", F.lit(_POSITIONS - 1)) + F.col("interest_level") * _POSITIONS
    packed_flags += is_barred.cast("int") * (_POSITIONS * _INTEREST_LEVELS)
    return each.groupBy("user_id", F.coalesce("candidate.product_id", "product_id").alias("product_id")).agg(
        F.sum(points).alias("points"),
        F.max(F.when(points > 0, _top_contributor(points))).alias("top_contributor"),
        F.max(F.when(is_itself, packed_flags)).alias("packed_flags"),
    )


def _top_contributor(points: Column) -> Column:
    """Encode a profile item's points and position as one number. The item that gives most points has the greatest.

    The last POSITION_BITS bits hold `_POSITIONS - 1` minus the position. So of items with equal points the latest wins.
    """
    return points.bitwiseAND(~(_POSITIONS - 1)).bitwiseOR(F.lit(_POSITIONS - 1) - F.col("position"))


def _scored(candidates: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Add a score to each candidate product. The score is null where the product may not be in the list."""
    score = score_of(F.col("points"), F.coalesce("growth", F.lit(0.0)), settings.trend_weight)
    usable = ~_is_barred() & (F.col("points") > 0)
    scored = candidates.join(F.broadcast(catalogue.growths), on="product_id", how="left").withColumn(
        "score", F.when(usable, score)
    )
    if not settings.max_per_category:
        return scored
    within = _is_within(settings.max_per_category, F.desc("score"), F.asc("product_id"))
    return _with_category_code(scored, catalogue).withColumn("score", F.when(within, F.col("score")))


def _is_barred() -> Column:
    """Whether a product that the user touched may not be recommended."""
    return F.coalesce(F.col("packed_flags") >= _POSITIONS * _INTEREST_LEVELS, F.lit(False))


def _lists(scored: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """Collect each user's scored products and profile into one row.

    Returns:
        user_id;
        scored: the best products, as structs that `_entry` makes, the best first;
        barred: ids of products that the user touched and that may not be recommended;
        profile: structs of position, product_id, interest_level and barred, the latest product first.
    """
    own = F.col("packed_flags").isNotNull() & F.lit(settings.repeat == "boost")
    entry = _entry(F.lit(int(Tier.SCORED)), F.col("product_id"), F.col("score"), F.col("top_contributor"), own)
    position = F.col("packed_flags").bitwiseAND(_POSITIONS - 1)
    interest_level = F.shiftright("packed_flags", POSITION_BITS).bitwiseAND(_INTEREST_LEVELS - 1)
    item = F.struct(
        position.alias("position"), "product_id", interest_level.alias("interest_level"), _is_barred().alias("barred")
    )
    # Make the structs in this select, before they are collected. Spark compiles the expressions of a select, but slowly
    # interprets those inside a collecting function.
    rows = scored.select(
        "user_id",
        F.when(F.col("score").isNotNull(), entry).alias("entry"),
        F.when(F.col("packed_flags").isNotNull(), item).alias("item"),
    )
    empty = F.array().cast(f"array<{_ENTRY.format(id=ID_TYPES[ids_of(scored, 'product_id')])}>")
    collected = rows.groupBy("user_id").agg(
        F.coalesce(F.min_by("entry", "entry", settings.list_length), empty).alias("scored"),
        F.array_sort(F.collect_list("item")).alias("items"),
    )
    return collected.select(
        "user_id",
        "scored",
        F.filter("items", lambda item: item["barred"])["product_id"].alias("barred"),
        F.filter("items", lambda item: item["position"] < _POSITIONS - 1).alias("profile"),
    )


def _entry(tier: Column, product_id: Column, score: Column, top_contributor: Column, own: Column) -> Column:
    """Make the struct that stands for a product in a list. The struct of the best product sorts first."""
    return F.struct(
        (-score).alias("order"),
        product_id.alias("product_id"),
        tier.alias("tier"),
        top_contributor.alias("top_contributor"),
        own.alias("own"),
    )


def _filled(lists: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Fill up short lists. Each gets more products than it needs, and `_ranked` cuts the surplus off.

    A user with a short list gets one row per profile item. Each row is joined to the products most in demand in the
    item's category. The rows are then grouped by user again.

    Returns:
        One row per user and product that may be in the user's list: user_id, product_id, place (0 for the best), tier,
        score, because_of (the profile item that gives most points), interest_level (of that item), own (whether the
        profile holds the product and repeats are boosted).
    """
    is_short = F.size("scored") < settings.list_length
    unwanted = F.concat("barred", "scored.product_id")
    looked_up = (
        lists.select(
            "user_id",
            F.struct("scored", unwanted.alias("unwanted"), "profile").alias("list"),
            F.posexplode_outer(F.when(is_short, F.col("profile.product_id"))).alias("nth", "of_product"),
        )
        .join(
            F.broadcast(catalogue.categories.withColumnRenamed("product_id", "of_product")),
            on="of_product",
            how="left",
        )
        .join(F.broadcast(catalogue.near), on="category", how="left")
    )
    empty = F.array().cast(f"array<{ID_TYPES[ids_of(catalogue.categories, 'product_id')]}>")
    near_item = F.struct("nth", F.coalesce("near", empty).alias("near"))
    rows = (
        looked_up.groupBy("user_id")
        .agg(F.any_value("list").alias("list"), F.array_sort(F.collect_list(near_item)).alias("near_items"))
        .select("user_id", "list.*", F.flatten("near_items.near").alias("near"))
        .crossJoin(F.broadcast(catalogue.store))
    )
    near = F.array_except("near", "unwanted")
    in_store = F.array_except("in_store", F.concat("unwanted", near))
    fills = F.concat(_fill(near, Tier.NEAR, settings), _fill(in_store, Tier.STORE, settings))
    is_short = F.size("scored") < settings.list_length
    entries = F.when(is_short, F.concat("scored", fills)).otherwise(F.col("scored"))
    position = F.lit(_POSITIONS - 1) - F.col("entry.top_contributor").bitwiseAND(_POSITIONS - 1)
    top_contributor = F.get("profile", position.cast("int"))
    return rows.select("user_id", "profile", F.posexplode(entries).alias("place", "entry")).select(
        "user_id",
        "entry.product_id",
        "place",
        "entry.tier",
        (-F.col("entry.order")).alias("score"),
        top_contributor["product_id"].alias("because_of"),
        top_contributor["interest_level"].alias("interest_level"),
        "entry.own",
    )


def _fill(ids: Column, tier: Tier, settings: RecommendationSettings) -> Column:
    """Turn product ids into list entries without a score, to fill up a list."""
    fills = ids if settings.max_per_category else F.slice(ids, 1, settings.list_length)
    null = F.lit(None)
    return F.transform(
        fills,
        lambda product_id: _entry(F.lit(int(tier)), product_id, null.cast("double"), null.cast("bigint"), F.lit(False)),
    )


def _ranked(filled: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Keep the `list_length` best products of each user, and add their ranks."""
    if not settings.max_per_category:
        return filled.withColumn("rank", F.col("place") + 1).where(F.col("rank") <= settings.list_length)
    within = _is_within(settings.max_per_category, F.asc("place"))
    kept = _with_category_code(filled, catalogue).withColumn("within", within).where("within")
    rank = F.row_number().over(Window.partitionBy("user_id").orderBy("place"))
    return kept.drop("within", "category_code").withColumn("rank", rank).where(F.col("rank") <= settings.list_length)


def _with_category_code(rows: DataFrame, catalogue: Catalogue) -> DataFrame:
    codes = catalogue.attributes.select("product_id", "category_code")
    return rows.join(F.broadcast(codes), on="product_id", how="left")


def _is_within(most: int, *order: Column) -> Column:
    """Whether a product is among the user's first `most` products of its category, or has no category."""
    in_category = Window.partitionBy("user_id", "category_code").orderBy(*order)
    return F.col("category_code").isNull() | (F.row_number().over(in_category) <= most)


def _with_reasons(ranked: DataFrame, when: str, since: str) -> DataFrame:
    """Select the columns of the recommendations, with the reason in words."""
    tier = F.col("tier")
    is_scored = tier == int(Tier.SCORED)
    is_rising = F.col("direction") == "rising"
    words = F.array(*(F.lit(word) for word in reasons.INTERACTION_WORDS.values()))
    because = reasons.as_column(
        reasons.BECAUSE, word=F.element_at(words, F.col("interest_level")), product_id=F.col("because_of")
    )
    category = F.coalesce("category_code", F.lit(reasons.UNNAMED_CATEGORY))
    in_category = reasons.as_column(reasons.IN_CATEGORY, category=category)
    place = F.when(tier == int(Tier.NEAR), in_category).otherwise(F.lit(""))
    has_more_views = F.col("current") > F.col("previous")
    rising = reasons.as_column(
        reasons.RISING,
        rising=F.when(has_more_views, F.lit(reasons.MORE_VIEWS)).otherwise(F.lit(reasons.MORE_SHARE)),
        place=place,
        previous=F.col("previous"),
        current=F.col("current"),
        when=F.lit(when),
    )
    in_demand = reasons.as_column(reasons.IN_DEMAND, place=place, events=F.col("events"), since=F.lit(since))
    reason = (
        F.when(is_scored & F.col("own"), F.lit(reasons.STILL_INTERESTED))
        .when(is_scored & is_rising, reasons.as_column(reasons.BECAUSE_AND_RISING, because=because, rising=rising))
        .when(is_scored, because)
        .when(is_rising, rising)
        .otherwise(in_demand)
    )
    return ranked.select(
        "user_id",
        "rank",
        "product_id",
        "category_code",
        "brand",
        "price",
        "score",
        reason.alias("reason"),
        "because_of",
        F.coalesce("growth", F.lit(0.0)).alias("trend_growth"),
    )
