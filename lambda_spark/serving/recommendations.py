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
MOST_POINTS = float(1 << 52)
"""What one item of a profile gives at most: a decayed lift has no bound, and the sum of 1,024 such fits 64 bits."""

SCORED, NEAR, STORE = range(3)
"""Why a product is in a list, best first: by its score, or to fill up with what is in demand in the profile's
categories, or in the store."""

_POSITIONS = 1 << 10
"""More than a profile has; the last one stands for none, for what lies outside."""
_STRENGTHS = 1 << 2
"""More than an event type can have."""
_ENTRY = "struct<order: double, product_id: bigint, tier: int, speaker: bigint, own: boolean>"
"""A product in a list, as `_entry` makes it."""


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
    speaks most for it, see `_speaker`), and standing, null where the user has not touched it: its position in the
    profile, its strength, and whether it may not be recommended, packed into one number."""
    # Outside the profile a product speaks for none, but it is still one that was bought.
    candidate = F.explode_outer(F.when(F.col("weight").isNotNull(), F.col("candidates")))
    each = profiles.join(F.broadcast(catalogue.neighbours), on="product_id", how="left").select(
        "user_id", "product_id", "position", "strength", "weight", "bought", "eligible", candidate.alias("candidate")
    )
    is_itself = F.col("candidate.similarity").isNull()
    repeats = settings.repeat == "own-row"
    own_points = F.col("weight") * F.lit(settings.own_weight) if repeats else F.lit(0.0)
    points = F.when(is_itself, own_points).otherwise(F.col("weight") * F.col("candidate.similarity"))
    # Not `round`, which goes by way of a decimal's text; nor `least`, of which null is none.
    points = points * F.lit(float(POINTS)) + F.lit(0.5)
    points = F.floor(F.when(points > MOST_POINTS, MOST_POINTS).otherwise(points))
    may_not_repeat = F.lit(settings.repeat == "exclude") | F.col("bought") | F.col("weight").isNull()
    is_barred = may_not_repeat | ~F.coalesce("eligible", F.lit(False))
    standing = F.coalesce("position", F.lit(_POSITIONS - 1)) + F.col("strength") * _POSITIONS
    standing += is_barred.cast("int") * (_POSITIONS * _STRENGTHS)
    return each.groupBy("user_id", F.coalesce("candidate.product_id", "product_id").alias("product_id")).agg(
        F.sum(points).alias("points"),
        F.max(F.when(points > 0, _speaker(points))).alias("speaker"),
        F.max(F.when(is_itself, standing)).alias("standing"),
    )


def _speaker(points: Column) -> Column:
    """What is greatest for the item that gives the most points, and of equal ones for the latest: the points, with the
    position in the place of their last ten bits."""
    return points.bitwiseAND(~(_POSITIONS - 1)).bitwiseOR(F.lit(_POSITIONS - 1) - F.col("position"))


def _scored(candidates: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Candidates with their score; null for those that may not be recommended."""
    growth = F.coalesce("growth", F.lit(0.0))
    score = F.col("points") / F.lit(float(POINTS)) * (F.lit(1.0) + F.lit(settings.trend_weight) * growth)
    usable = ~_is_barred() & (F.col("points") > 0)
    scored = candidates.join(F.broadcast(catalogue.growths), on="product_id", how="left").withColumn(
        "score", F.when(usable, score)
    )
    if not settings.max_per_category:
        return scored
    within = _is_within(settings.max_per_category, F.desc("score"), F.asc("product_id"))
    return _with_category_code(scored, catalogue).withColumn("score", F.when(within, F.col("score")))


def _is_barred() -> Column:
    """Whether a candidate is in the profile, or was bought, and may not be recommended."""
    return F.coalesce(F.col("standing") >= _POSITIONS * _STRENGTHS, F.lit(False))


def _lists(scored: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """One row per user: the best products in order, those that may not fill up, and the profile, latest first."""
    own = F.col("standing").isNotNull() & F.lit(settings.repeat == "own-row")
    entry = _entry(F.lit(SCORED), F.col("product_id"), F.col("score"), F.col("speaker"), own)
    position = F.col("standing").bitwiseAND(_POSITIONS - 1)
    strength = F.shiftright("standing", _POSITIONS.bit_length() - 1).bitwiseAND(_STRENGTHS - 1)
    item = F.struct(position.alias("position"), "product_id", strength.alias("strength"), _is_barred().alias("barred"))
    # Made beforehand, in code that Spark generates: within the functions that collect it would be interpreted.
    rows = scored.select(
        "user_id",
        F.when(F.col("score").isNotNull(), entry).alias("entry"),
        F.when(F.col("standing").isNotNull(), item).alias("item"),
    )
    known = rows.groupBy("user_id").agg(
        F.coalesce(F.min_by("entry", "entry", settings.k), F.array().cast(f"array<{_ENTRY}>")).alias("scored"),
        F.array_sort(F.collect_list("item")).alias("items"),
    )
    return known.select(
        "user_id",
        "scored",
        F.filter("items", lambda one: one["barred"])["product_id"].alias("barred"),
        F.filter("items", lambda one: one["position"] < _POSITIONS - 1).alias("profile"),
    )


def _entry(tier: Column, product_id: Column, score: Column, speaker: Column, own: Column) -> Column:
    """In order, the best comes first."""
    return F.struct(
        (-score).alias("order"),
        product_id.alias("product_id"),
        tier.alias("tier"),
        speaker.alias("speaker"),
        own.alias("own"),
    )


def _filled(lists: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """Per user and product that may be in its list: user_id, product_id, place (0 the best), tier, score, because_of,
    strength, own.

    A list that is short is looked up by each item of its profile, for what fills up from that item's category, and what
    is found comes together again by user.
    """
    is_short = F.size("scored") < settings.k
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
    found = F.struct("nth", F.coalesce("near", F.array().cast("array<bigint>")).alias("near"))
    rows = (
        looked_up.groupBy("user_id")
        .agg(F.any_value("list").alias("list"), F.array_sort(F.collect_list(found)).alias("found"))
        .select("user_id", "list.*", F.flatten("found.near").alias("near"))
        .crossJoin(F.broadcast(catalogue.store))
    )
    near = F.array_except("near", "unwanted")
    in_store = F.array_except("in_store", F.concat("unwanted", near))
    fills = F.concat(_fill(near, NEAR, settings), _fill(in_store, STORE, settings))
    is_short = F.size("scored") < settings.k
    entries = F.when(is_short, F.concat("scored", fills)).otherwise(F.col("scored"))
    position = F.lit(_POSITIONS - 1) - F.col("entry.speaker").bitwiseAND(_POSITIONS - 1)
    speaker = F.get("profile", position.cast("int"))
    return rows.select("user_id", "profile", F.posexplode(entries).alias("place", "entry")).select(
        "user_id",
        "entry.product_id",
        "place",
        "entry.tier",
        (-F.col("entry.order")).alias("score"),
        speaker["product_id"].alias("because_of"),
        speaker["strength"].alias("strength"),
        "entry.own",
    )


def _fill(ids: Column, tier: int, settings: RecommendationSettings) -> Column:
    """Products as entries of a list that are there to fill it up."""
    wanted = ids if settings.max_per_category else F.slice(ids, 1, settings.k)
    none = F.lit(None)
    return F.transform(
        wanted, lambda one: _entry(F.lit(tier), one, none.cast("double"), none.cast("bigint"), F.lit(False))
    )


def _ranked(filled: DataFrame, catalogue: Catalogue, settings: RecommendationSettings) -> DataFrame:
    """The best `k` of each user, with their rank."""
    if not settings.max_per_category:
        return filled.withColumn("rank", F.col("place") + 1).where(F.col("rank") <= settings.k)
    within = _is_within(settings.max_per_category, F.asc("place"))
    kept = _with_category_code(filled, catalogue).withColumn("within", within).where("within")
    rank = F.row_number().over(Window.partitionBy("user_id").orderBy("place"))
    return kept.drop("within", "category_code").withColumn("rank", rank).where(F.col("rank") <= settings.k)


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
    tier = F.col("tier")
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
