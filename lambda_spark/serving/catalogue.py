"""What recommending needs to know of products: which may be recommended, are similar, rise, or are in demand. Pure."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.settings import RecommendationSettings

FILL_DEPTH = 200
"""Products held ready, of each kind, to fill lists that similarity leaves short."""


def eligible_products(products: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """The products that may be recommended, with the columns of `products`."""
    chosen = products
    if settings.filter:
        chosen = chosen.where(F.expr(settings.filter))
    if settings.allow:
        chosen = chosen.where(F.col("product_id").isin(*settings.allow))
    if settings.deny:
        chosen = chosen.where(~F.col("product_id").isin(*settings.deny))
    return chosen


def moving_products(trends: DataFrame) -> DataFrame:
    """Products whose `view` trend is not steady: product_id, direction, growth, current, previous, rank."""
    moving = (F.col("signal") == "view") & (F.col("direction") != "steady")
    return trends.where(moving).select("product_id", "direction", "growth", "current", "previous", "rank")


def neighbour_lists(products: DataFrame, eligible: DataFrame, similar_items: DataFrame, moving: DataFrame) -> DataFrame:
    """Per product its category and its neighbours: product_id, category_code, neighbours (array of structs product_id,
    category_code, similarity, growth, current, previous); the neighbours are those that may be recommended, and the
    last two are null where the product does not rise."""
    rises = F.col("direction") == "rising"
    candidates = eligible.join(moving, on="product_id", how="left").select(
        F.col("product_id").alias("similar_product_id"),
        "category_code",
        "growth",
        F.when(rises, F.col("current")).alias("current"),
        F.when(rises, F.col("previous")).alias("previous"),
    )
    lists = (
        similar_items.where(F.col("relation") == "viewed")
        .join(candidates, on="similar_product_id", how="inner")
        .groupBy("product_id")
        .agg(
            F.collect_list(
                F.struct(
                    F.col("similar_product_id").alias("product_id"),
                    "category_code",
                    F.col("score").alias("similarity"),
                    F.coalesce("growth", F.lit(0.0)).alias("growth"),
                    "current",
                    "previous",
                )
            ).alias("neighbours")
        )
    )
    return products.select("product_id", "category_code").join(lists, on="product_id", how="left")


def fillers(eligible: DataFrame, moving: DataFrame, demand: DataFrame) -> DataFrame:
    """One row with two arrays of structs (product_id, category_code, growth, current, previous): `rising`, by trend
    rank, and `popular`, by views in the bucket; both then by product id, and at most FILL_DEPTH long.

    `demand` has one bucket's rows of the `demand` table.
    """
    views = demand.where(F.col("signal") == "view").select("product_id", F.col("events").alias("views"))
    known = (
        eligible.join(moving, on="product_id", how="left")
        .join(views, on="product_id", how="left")
        .select("product_id", "category_code", "direction", "growth", "current", "previous", "rank", "views")
    )
    rising = known.where(F.col("direction") == "rising").withColumn("place", F.col("rank").cast("bigint"))
    popular = known.where(F.col("views") > 0).withColumn("place", -F.col("views"))
    return _as_array(rising, "rising").crossJoin(F.broadcast(_as_array(popular, "popular")))


def _as_array(products: DataFrame, name: str) -> DataFrame:
    first = products.orderBy("place", "product_id").limit(FILL_DEPTH)
    entry = F.struct(
        "place",
        "product_id",
        "category_code",
        F.coalesce("growth", F.lit(0.0)).alias("growth"),
        F.coalesce("current", "views").alias("current"),
        "previous",
    )
    return first.agg(F.array_sort(F.collect_list(entry)).alias(name))
