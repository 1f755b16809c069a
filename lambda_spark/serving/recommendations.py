"""From profiles and neighbour lists to each user's list, with reasons. Pure.

Profiles are partitioned by user and everything else is broadcast, so nothing after the profiles is exchanged.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.serving.catalogue import CATEGORY_FILL_DEPTH
from lambda_spark.serving.profiles import DEEDS
from lambda_spark.settings import RecommendationSettings

POINTS = 1_000_000_000
"""Scores are summed as integers in 1e-9, so that the sum does not depend on its order."""

SCORED, RISING_NEAR, POPULAR_NEAR, RISING, POPULAR = range(5)
"""Why a product is in a list, best first: by its score, or to fill up with what is rising in the profile's categories,
in demand there, rising in the store, or in demand there."""


def recommend(
    profiles: DataFrame,
    neighbour_lists: DataFrame,
    fillers: DataFrame,
    category_fillers: DataFrame,
    settings: RecommendationSettings,
    *,
    when: str,
) -> DataFrame:
    """The lists of some users: user_id, rank, product_id, score, reason, because_of, trend_growth.

    `profiles`, `neighbour_lists`, `fillers` and `category_fillers` are what the functions of those names return; `when`
    says in words which bucket the trends are from. A user without items gets the fillers.
    """
    candidates = _candidates(profiles, neighbour_lists, settings)
    lists = _lists(_ranked(candidates, settings))
    filled = _filled(lists, fillers, category_fillers, settings)
    return _with_reasons(filled, when)


def _candidates(profiles: DataFrame, neighbour_lists: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """Per user and product that is a neighbour of the profile, or in it: points, growth and what speaks most for it."""
    own_points = F.lit(0.0) if settings.repeat != "own-row" else F.col("item.weight") * F.lit(settings.own_weight)
    itself = F.struct(
        F.col("item.product_id").alias("product_id"),
        F.lit(None).cast("string").alias("category_code"),
        F.lit(None).cast("double").alias("similarity"),
        F.lit(0.0).alias("growth"),
        F.lit(None).cast("bigint").alias("current"),
        F.lit(None).cast("bigint").alias("previous"),
    )
    neighbours = F.when(F.col("item.weight").isNotNull(), F.col("neighbours"))
    spoken_for = profiles.select("user_id", F.explode_outer("items").alias("item")).join(
        F.broadcast(neighbour_lists), on=F.col("item.product_id") == F.col("product_id"), how="left"
    )
    each = spoken_for.select(
        "user_id",
        "item",
        F.col("category").alias("profile_category"),
        F.explode(F.concat(F.array(itself), F.coalesce(neighbours, F.array().cast(_NEIGHBOURS)))).alias("candidate"),
    )
    is_itself = F.col("candidate.similarity").isNull()
    is_barred = is_itself & (F.lit(settings.repeat == "exclude") | F.col("item.bought") | F.col("item.weight").isNull())
    points = F.when(is_itself, own_points).otherwise(F.col("item.weight") * F.col("candidate.similarity"))
    points = F.round(points * F.lit(float(POINTS))).cast("bigint")
    speaker = F.struct(
        points.alias("points"), (-F.col("item.position")).alias("nearness"), "item.product_id", "item.deed"
    )
    near = F.when(
        F.col("item.position").isNotNull(), F.struct("item.position", F.col("profile_category").alias("category"))
    )
    return each.groupBy("user_id", F.col("candidate.product_id").alias("product_id")).agg(
        F.sum(points).alias("points"),
        F.max("candidate.growth").alias("growth"),
        F.max("candidate.current").alias("current"),
        F.max("candidate.previous").alias("previous"),
        F.max("candidate.category_code").alias("category_code"),
        F.bool_or(is_barred).alias("barred"),
        F.bool_or(is_itself & F.lit(settings.repeat == "own-row")).alias("own"),
        F.min(F.when(is_itself & F.col("profile_category").isNotNull(), near)).alias("near"),
        F.max(F.when(points > 0, speaker)).alias("speaker"),
    )


_NEIGHBOURS = (
    "array<struct<product_id: bigint, category_code: string, similarity: double, growth: double, current: bigint,"
    " previous: bigint>>"
)


def _ranked(candidates: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """Candidates with their score, and their place among the user's; barred ones have no place."""
    score = F.col("points") / F.lit(float(POINTS)) * (F.lit(1.0) + F.lit(settings.trend_weight) * F.col("growth"))
    usable = ~F.col("barred") & (F.col("points") > 0)
    scored = candidates.withColumns({"score": score, "usable": usable})
    best_first = [F.desc("score"), F.asc("product_id")]
    if settings.max_per_category:
        in_category = Window.partitionBy("user_id", "usable", "category_code").orderBy(*best_first)
        within = F.col("category_code").isNull() | (F.row_number().over(in_category) <= settings.max_per_category)
        scored = scored.withColumn("within", within).withColumn("usable", F.col("usable") & F.col("within"))
    place = F.row_number().over(Window.partitionBy("user_id", "usable").orderBy(*best_first))
    return scored.withColumn("place", F.when(F.col("usable") & (place <= settings.k), place))


def _lists(ranked: DataFrame) -> DataFrame:
    """One row per user: the scored products in order, those that may not fill up, and the profile's categories."""
    entry = F.struct(
        F.lit(SCORED).alias("tier"),
        F.col("place").cast("bigint").alias("place"),
        "product_id",
        "category_code",
        "growth",
        "current",
        "previous",
        "score",
        F.col("speaker.product_id").alias("because_of"),
        F.col("speaker.deed").alias("deed"),
        "own",
    )
    return ranked.groupBy("user_id").agg(
        F.array_sort(F.collect_list(F.when(F.col("place").isNotNull(), entry))).alias("scored"),
        F.collect_list(F.when(F.col("barred"), F.col("product_id"))).alias("barred"),
        F.array_sort(F.collect_list("near")).alias("near"),
    )


def _filled(
    lists: DataFrame, fillers: DataFrame, category_fillers: DataFrame, settings: RecommendationSettings
) -> DataFrame:
    """Every list brought to `k` products where there are as many: one row per user and product, with its rank.

    A list that is short becomes a row per category of its profile, each with what is in demand there; the first of
    them, or the only row, also has the rest.
    """
    is_short = F.size("scored") < settings.k
    near = F.when(is_short, F.col("near")).otherwise(F.slice("near", 1, 0))
    rows = (
        lists.select(
            "user_id", "scored", "barred", is_short.alias("is_short"), F.posexplode_outer(near).alias("nth", "of")
        )
        .withColumn("category", F.col("of.category"))
        .join(F.broadcast(category_fillers), on="category", how="left")
        .crossJoin(F.broadcast(fillers))
    )
    in_category = F.filter("rising", lambda one: one["category"].eqNullSafe(F.col("category")))
    # By the profile's order, then by demand.
    nearness = F.col("of.position").cast("bigint") * F.lit(CATEGORY_FILL_DEPTH)
    no_more = F.slice("scored", 1, 0)
    of_category = F.when(
        F.col("category").isNotNull(),
        F.concat(
            _fill(in_category, RISING_NEAR), _fill(F.coalesce("near", F.slice("popular", 1, 0)), POPULAR_NEAR, nearness)
        ),
    )
    of_store = F.when(F.col("is_short"), F.concat(_fill(F.col("rising"), RISING), _fill(F.col("popular"), POPULAR)))
    first = F.when(F.coalesce("nth", F.lit(0)) == 0, F.concat("scored", F.coalesce(of_store, no_more)))
    all_entries = rows.select(
        "user_id", F.explode(F.concat(F.coalesce(first, no_more), F.coalesce(of_category, no_more))).alias("entry")
    )
    order = ["tier", "place", "product_id"]
    once = Window.partitionBy("user_id", "product_id").orderBy(*order)
    distinct = (
        all_entries.select("user_id", "entry.*").withColumn("time", F.row_number().over(once)).where(F.col("time") == 1)
    )
    if settings.max_per_category:
        same_category = Window.partitionBy("user_id", "category_code").orderBy(*order)
        within = F.col("category_code").isNull() | (F.col("nth") <= settings.max_per_category)
        distinct = distinct.withColumn("nth", F.row_number().over(same_category)).where(within)
    rank = F.row_number().over(Window.partitionBy("user_id").orderBy(*order))
    return distinct.withColumn("rank", rank).where(F.col("rank") <= settings.k)


def _fill(products: Column, tier: int, place_after: Column | None = None) -> Column:
    """Products that may fill up a list, as its entries; null products are none."""

    def entry(one: Column) -> Column:
        return F.struct(
            F.lit(tier).alias("tier"),
            (one["place"] + (F.lit(0) if place_after is None else place_after)).cast("bigint").alias("place"),
            one["product_id"].alias("product_id"),
            one["category_code"].alias("category_code"),
            one["growth"].alias("growth"),
            one["current"].alias("current"),
            one["previous"].alias("previous"),
            F.lit(None).cast("double").alias("score"),
            F.lit(None).cast("bigint").alias("because_of"),
            F.lit(None).cast("string").alias("deed"),
            F.lit(False).alias("own"),
        )

    return F.transform(F.filter(products, lambda one: ~F.array_contains("barred", one["product_id"])), entry)


def _with_reasons(filled: DataFrame, when: str) -> DataFrame:
    deeds = F.create_map(*(F.lit(word) for pair in DEEDS.items() for word in pair))
    counts = F.concat(
        F.col("previous").cast("string"), F.lit(" → "), F.col("current").cast("string"), F.lit(f" views {when}")
    )
    # In a store that shrinks a product may rise, that is gain a share, and have lost views.
    rising = F.when(F.col("current") > F.col("previous"), F.lit("rising")).otherwise(F.lit("rising in share"))
    demand = F.concat(F.col("current").cast("string"), F.lit(f" views {when}"))
    place = F.coalesce("category_code", F.lit("the category"))
    because = F.concat(F.lit("because you "), deeds[F.col("deed")], F.lit(" "), F.col("because_of").cast("string"))
    reason = (
        F.when((F.col("tier") == SCORED) & F.col("own"), F.lit("still interested?"))
        .when(
            (F.col("tier") == SCORED) & F.col("previous").isNotNull(),
            F.concat(because, F.lit("; "), rising, F.lit(": "), counts),
        )
        .when(F.col("tier") == SCORED, because)
        .when(
            F.col("tier") == RISING_NEAR,
            F.concat(rising, F.lit(" in "), place, F.lit(", where you looked: "), counts),
        )
        .when(
            F.col("tier") == POPULAR_NEAR,
            F.concat(F.lit("in demand in "), place, F.lit(", where you looked: "), demand),
        )
        .when(F.col("tier") == RISING, F.concat(rising, F.lit(": "), counts))
        .otherwise(F.concat(F.lit("in demand: "), demand))
    )
    return filled.select(
        "user_id",
        "rank",
        "product_id",
        "score",
        reason.alias("reason"),
        "because_of",
        F.col("growth").alias("trend_growth"),
    )
