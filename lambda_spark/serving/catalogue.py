"""What recommending needs to know of products: which may be recommended, are similar, rise, or are in demand. Pure."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.batch.trends import STEADY
from lambda_spark.serving.predicate import predicate
from lambda_spark.settings import RecommendationSettings

FILL_DEPTH = 200
"""Products held ready, of each kind, to fill lists that similarity leaves short."""
CATEGORY_FILL_DEPTH = 50
"""Products in demand held ready per category."""


def eligible_products(products: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """The products that may be recommended, with the columns of `products`."""
    chosen = products
    if settings.filter:
        chosen = chosen.where(predicate(products.sparkSession, settings.filter))
    if settings.allow:
        chosen = chosen.where(F.col("product_id").isin(*settings.allow))
    if settings.deny:
        chosen = chosen.where(~F.col("product_id").isin(*settings.deny))
    return chosen


def category() -> Column:
    """What says that two products are of a kind: the category number, finer than the path, or the path."""
    return F.coalesce(F.col("category_id").cast("string"), "category_code")


def moving_products(trends: DataFrame) -> DataFrame:
    """Products whose `view` trend is not steady: product_id, direction, growth, current, previous, rank."""
    moving = (F.col("signal") == "view") & (F.col("direction") != STEADY)
    return trends.where(moving).select("product_id", "direction", "growth", "current", "previous", "rank")


def neighbour_lists(products: DataFrame, eligible: DataFrame, similar_items: DataFrame, moving: DataFrame) -> DataFrame:
    """Per product its category and its neighbours: product_id, category, neighbours (array of structs product_id,
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
    return products.select("product_id", category().alias("category")).join(lists, on="product_id", how="left")


def fillers(eligible: DataFrame, moving: DataFrame, demand: DataFrame) -> DataFrame:
    """One row with two arrays of structs (place, product_id, category, category_code, growth, current, previous):
    `rising`, by trend rank, and `popular`, by views in the bucket; both then by product id, and at most FILL_DEPTH
    long.

    `demand` has one bucket's rows of the `demand` table.
    """
    known = _in_demand(eligible, moving, demand)
    rising = known.where(F.col("direction") == "rising").withColumn("place", F.col("rank").cast("bigint"))
    popular = known.where(F.col("views") > 0).withColumn("place", -F.col("views"))
    return _first(rising, "rising").crossJoin(F.broadcast(_first(popular, "popular")))


def category_fillers(eligible: DataFrame, moving: DataFrame, demand: DataFrame) -> DataFrame:
    """Per category its products in demand: category, `near` (array of structs as in `fillers`), by views in the bucket,
    then product id, at most CATEGORY_FILL_DEPTH long; place is 1 for the first."""
    most_viewed = Window.partitionBy("category").orderBy(F.desc("views"), F.asc("product_id"))
    return (
        _in_demand(eligible, moving, demand)
        .where((F.col("views") > 0) & F.col("category").isNotNull())
        .withColumn("place", F.row_number().over(most_viewed).cast("bigint"))
        .where(F.col("place") <= CATEGORY_FILL_DEPTH)
        .groupBy("category")
        .agg(F.array_sort(F.collect_list(_entry())).alias("near"))
    )


def _in_demand(eligible: DataFrame, moving: DataFrame, demand: DataFrame) -> DataFrame:
    views = demand.where(F.col("signal") == "view").select("product_id", F.col("events").alias("views"))
    return (
        eligible.select("product_id", category().alias("category"), "category_code")
        .join(moving, on="product_id", how="left")
        .join(views, on="product_id", how="left")
    )


def _first(products: DataFrame, name: str) -> DataFrame:
    first = products.orderBy("place", "product_id").limit(FILL_DEPTH)
    return first.agg(F.array_sort(F.collect_list(_entry())).alias(name))


def _entry() -> Column:
    return F.struct(
        "place",
        "product_id",
        "category",
        "category_code",
        F.coalesce("growth", F.lit(0.0)).alias("growth"),
        F.coalesce("current", "views").alias("current"),
        "previous",
    )
