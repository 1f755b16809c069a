"""From profiles and the catalogue to each user's list, with reasons. Pure.

Profiles are partitioned by user and everything else is broadcast, so nothing after the profiles is exchanged. What is
summed per user and candidate are numbers only, which Spark aggregates in hash tables; words come to the lists when they
are short.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.serving.catalogue import Catalogue
from lambda_spark.serving.profiles import DEEDS
from lambda_spark.settings import RecommendationSettings

POINTS = 1_000_000_000
"""Scores are summed as integers in 1e-9, so that the sum does not depend on its order."""

SCORED, NEAR, STORE = range(3)
"""Why a product is in a list, best first: by its score, or to fill up with what is in demand in the profile's
categories, or in the store."""

_POSITIONS = 1 << 10
"""More than a profile has."""
_PLACES = 1 << 20
"""More than a list has."""


def recommend(
    profiles: DataFrame, catalogue: Catalogue, settings: RecommendationSettings, *, when: str, since: str
) -> DataFrame:
    """The lists of some users: user_id, rank, product_id, category_code, brand, price, score, reason, because_of,
    trend_growth.

    `profiles` is as the function of that name returns it; a user whose row has nulls gets what fills lists up. `when`
    says in words which bucket the trends are from, `since` from when on demand is counted.
    """
    lists = _lists(_scored(_candidates(profiles, catalogue, settings), catalogue, settings), settings)
    filled = _ranked(_filled(lists, catalogue, settings), catalogue, settings)
    return _with_reasons(filled.join(F.broadcast(catalogue.attributes), on="product_id", how="left"), when, since)


def _candidates(profiles: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Per user and product that is a neighbour of the profile, or in it: points, speaker (which item of the profile
    speaks most for it, see `_speaker`), barred, own, and its own position and strength."""
    # Outside the profile a product speaks for none, but it is still one that was bought.
    candidate = F.explode_outer(F.when(F.col("weight").isNotNull(), F.col("candidates")))
    each = profiles.join(F.broadcast(catalogue.neighbours), on="product_id", how="left").select(
        "user_id", "product_id", "position", "strength", "weight", "bought", "eligible", candidate.alias("candidate")
    )
    is_itself = F.col("candidate.similarity").isNull()
    repeats = settings.repeat == "own-row"
    own_points = F.col("weight") * F.lit(settings.own_weight) if repeats else F.lit(0.0)
    points = F.when(is_itself, own_points).otherwise(F.col("weight") * F.col("candidate.similarity"))
    # Not `round`, which goes by way of a decimal's text.
    points = F.floor(points * F.lit(float(POINTS)) + F.lit(0.5))
    may_not_repeat = F.lit(settings.repeat == "exclude") | F.col("bought") | F.col("weight").isNull()
    is_barred = may_not_repeat | ~F.coalesce("eligible", F.lit(False))
    return each.groupBy("user_id", F.coalesce("candidate.product_id", "product_id").alias("product_id")).agg(
        F.sum(points).alias("points"),
        F.max(F.when(points > 0, _speaker(points))).alias("speaker"),
        F.bool_or(is_itself & is_barred).alias("barred"),
        F.bool_or(is_itself & F.lit(repeats)).alias("own"),
        F.min(F.when(is_itself, F.col("position"))).alias("position"),
        F.max(F.when(is_itself, F.col("strength"))).alias("strength"),
    )


def _speaker(points: Column) -> Column:
    """What is greatest for the item that gives the most points, and of equal ones for the latest: the points, with the
    position in the place of their last ten bits."""
    return points.bitwiseAND(~(_POSITIONS - 1)).bitwiseOR(F.lit(_POSITIONS - 1) - F.col("position"))


def _scored(candidates: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Candidates with their score; null for those that may not be recommended."""
    growth = F.coalesce("growth", F.lit(0.0))
    score = F.col("points") / F.lit(float(POINTS)) * (F.lit(1.0) + F.lit(settings.trend_weight) * growth)
    usable = ~F.col("barred") & (F.col("points") > 0)
    scored = candidates.join(F.broadcast(catalogue.growths), on="product_id", how="left").withColumn(
        "score", F.when(usable, score)
    )
    if not settings.max_per_category:
        return scored
    within = _is_within(settings.max_per_category, F.desc("score"), F.asc("product_id"))
    return _with_category_code(scored, catalogue).withColumn("score", F.when(within, F.col("score")))


def _lists(scored: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """One row per user: the best products in order, those that may not fill up, and the profile, latest first."""
    best_first = Window.partitionBy("user_id").orderBy(F.desc("score"), F.asc("product_id"))
    placed = scored.withColumn("place", F.when(F.col("score").isNotNull(), F.row_number().over(best_first)))
    is_listed = F.col("place") <= settings.k
    order = _order(SCORED, F.lit(0), F.col("place"))
    entry = F.struct(order.alias("order"), "product_id", "score", "speaker", "own")
    item = F.struct("position", "product_id", "strength")
    return (
        placed.where(is_listed | F.col("barred") | F.col("position").isNotNull())
        .groupBy("user_id")
        .agg(
            F.array_sort(F.collect_list(F.when(is_listed, entry))).alias("scored"),
            F.collect_list(F.when(F.col("barred"), F.col("product_id"))).alias("barred"),
            F.array_sort(F.collect_list(F.when(F.col("position").isNotNull(), item))).alias("profile"),
        )
    )


def _filled(lists: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Per user and product that may be in its list: user_id, product_id, order (the smallest is the best), score,
    because_of, strength, own.

    A list that is short becomes a row per item of its profile, each with what fills up from that item's category; the
    first of them, or the only row, also has the rest.
    """
    is_short = F.size("scored") < settings.k
    rows = (
        lists.select(
            "user_id",
            "scored",
            F.concat("barred", "scored.product_id").alias("unwanted"),
            "profile",
            is_short.alias("is_short"),
            F.posexplode_outer(F.when(is_short, F.col("profile"))).alias("nth", "of"),
        )
        .join(
            F.broadcast(catalogue.categories.withColumnRenamed("product_id", "of_product")),
            on=F.col("of.product_id") == F.col("of_product"),
            how="left",
        )
        .join(F.broadcast(catalogue.near), on="category", how="left")
        .crossJoin(F.broadcast(catalogue.store))
    )

    store, near = _fills(settings)
    is_first = F.coalesce("nth", F.lit(0)) == 0
    entries = (
        F.when(is_first & F.col("is_short"), F.concat("scored", store, near))
        .when(is_first, F.col("scored"))
        .otherwise(near)
    )
    position = F.lit(_POSITIONS - 1) - F.col("entry.speaker").bitwiseAND(_POSITIONS - 1)
    speaker = F.get("profile", position.cast("int"))
    return (
        rows.select("user_id", "profile", F.explode(entries).alias("entry"))
        .select(
            "user_id",
            "entry.product_id",
            "entry.order",
            "entry.score",
            speaker["product_id"].alias("because_of"),
            speaker["strength"].alias("strength"),
            "entry.own",
        )
        .groupBy("user_id", "product_id")
        .agg(
            F.min("order").alias("order"),
            F.max("score").alias("score"),
            F.max("because_of").alias("because_of"),
            F.max("strength").alias("strength"),
            F.bool_or("own").alias("own"),
        )
    )


def _fill(product_id: Column, order: Column) -> Column:
    """An entry of a list that is there to fill it up."""
    return F.struct(
        order.alias("order"),
        product_id.alias("product_id"),
        F.lit(None).cast("double").alias("score"),
        F.lit(None).cast("bigint").alias("speaker"),
        F.lit(False).alias("own"),
    )


def _fills(settings: RecommendationSettings) -> tuple[Column, Column]:
    """What fills up a list, as arrays of entries: from the store, and from the category of one item of the profile."""

    def entries(ids: Column, tier: int, position: Column) -> Column:
        left = F.array_except(ids, "unwanted")
        wanted = left if settings.max_per_category else F.slice(left, 1, settings.k)
        return F.transform(wanted, lambda product, place: _fill(product, _order(tier, position, place)))

    nothing, none = F.array().cast("array<bigint>"), F.lit(0)
    near = entries(F.coalesce("near", nothing), NEAR, F.coalesce("of.position", none))
    return entries(F.col("in_store"), STORE, none), near


def _order(tier: int, position: Column, place: Column) -> Column:
    """By tier, then the profile's position, then place, as one number: what `_tier` takes apart."""
    return (F.lit(tier * _POSITIONS).cast("bigint") + position) * F.lit(_PLACES) + place


def _tier(order: Column) -> Column:
    return F.floor(order / F.lit(_POSITIONS * _PLACES))


def _ranked(filled: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """The best `k` of each user, with their rank."""
    if settings.max_per_category:
        within = _is_within(settings.max_per_category, F.asc("order"))
        filled = _with_category_code(filled, catalogue).withColumn("within", within)
        filled = filled.where("within").drop("within", "category_code")
    rank = F.row_number().over(Window.partitionBy("user_id").orderBy("order"))
    return filled.withColumn("rank", rank).where(F.col("rank") <= settings.k)


def _with_category_code(rows: DataFrame, catalogue: Catalogue) -> DataFrame:
    codes = catalogue.attributes.select("product_id", "category_code")
    return rows.join(F.broadcast(codes), on="product_id", how="left")


def _is_within(most: int, *order: Column) -> Column:
    """Whether a user's product is among the first so many of its category, or has none."""
    in_category = Window.partitionBy("user_id", "category_code").orderBy(*order)
    return F.col("category_code").isNull() | (F.row_number().over(in_category) <= most)


def _with_reasons(ranked: DataFrame, when: str, since: str) -> DataFrame:
    deeds = F.element_at(F.array(*(F.lit(word) for word in DEEDS.values())), F.col("strength"))
    because = F.concat(F.lit("because you "), deeds, F.lit(" "), F.col("because_of").cast("string"))
    # In a store that shrinks a product may rise, that is gain a share, and have lost views.
    rising = F.when(F.col("current") > F.col("previous"), F.lit("rising")).otherwise(F.lit("rising in share"))
    rises = F.col("direction") == "rising"
    counts = F.concat(
        F.lit(": "), F.col("previous").cast("string"), F.lit(" → "), F.col("current").cast("string"),
        F.lit(f" views {when}"),
    )  # fmt: skip
    tier = _tier(F.col("order"))
    where = F.concat(F.lit(" in "), F.coalesce("category_code", F.lit("the category")), F.lit(", where you looked"))
    place = F.when(tier == NEAR, where).otherwise(F.lit(""))
    demand = F.concat(F.lit(": "), F.col("events").cast("string"), F.lit(f" interactions {since}"))
    reason = (
        F.when((tier == SCORED) & F.col("own"), F.lit("still interested?"))
        .when((tier == SCORED) & rises, F.concat(because, F.lit("; "), rising, counts))
        .when(tier == SCORED, because)
        .when(rises, F.concat(rising, place, counts))
        .otherwise(F.concat(F.lit("in demand"), place, demand))
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
