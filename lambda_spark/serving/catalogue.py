"""What recommending needs to know of products: which may be recommended, are similar, rise, or are in demand. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from lambda_spark.batch.trends import STEADY
from lambda_spark.serving.predicate import predicate
from lambda_spark.settings import RecommendationSettings

FILL_DEPTH = 200
"""Products held ready, of each kind, to fill lists that similarity leaves short."""
CATEGORY_FILL_DEPTH = 50
"""Products in demand held ready per category."""


def is_eligible(spark: SparkSession, settings: RecommendationSettings) -> Column:
    """Whether a row of `products` may be recommended; null, like false, where it may not."""
    condition = F.lit(True)
    if settings.filter:
        condition &= predicate(spark, settings.filter)
    if settings.allow:
        condition &= F.col("product_id").isin(*settings.allow)
    if settings.deny:
        condition &= ~F.col("product_id").isin(*settings.deny)
    return condition


def eligible_products(products: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """The products that may be recommended, with the columns of `products`."""
    return products.where(is_eligible(products.sparkSession, settings))


def category() -> Column:
    """What says that two products are of a kind: the category number, finer than the path, or the path."""
    return F.coalesce(F.col("category_id").cast("string"), "category_code")


def moving_products(trends: DataFrame) -> DataFrame:
    """Products whose `view` trend is not steady: product_id, direction, growth, current, previous, rank."""
    moving = (F.col("signal") == "view") & (F.col("direction") != STEADY)
    return trends.where(moving).select("product_id", "direction", "growth", "current", "previous", "rank")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What recommending needs to know of products. Each is broadcast."""

    neighbours: DataFrame
    """Per product: product_id, eligible (whether it may be recommended), candidates: an array of structs product_id,
    similarity: first itself, with null, then its neighbours that may be recommended."""
    growths: DataFrame
    """Of products whose trend is not steady: product_id, growth."""
    categories: DataFrame
    """Per product: product_id, category (what says that two are of a kind)."""
    near: DataFrame
    """Per category two arrays of its products: category, `near_rising`, `near_popular`, ordered as in `store` and at
    most CATEGORY_FILL_DEPTH long."""
    store: DataFrame
    """One row with two arrays of products: `rising`, by trend rank, and `popular`, by views in the bucket; both then by
    product id, and at most FILL_DEPTH long."""
    attributes: DataFrame
    """Per product: product_id, category_code, brand, price, growth, direction, current, previous (null where steady),
    views (in the bucket)."""


def catalogue(
    products: DataFrame,
    similar_items: DataFrame,
    trends: DataFrame,
    demand: DataFrame,
    settings: RecommendationSettings,
) -> Catalogue:
    """All of it, from the tables of those names; `trends` and `demand` with one bucket's rows."""
    eligible = eligible_products(products, settings)
    moving = moving_products(trends)
    views = demand.where(F.col("signal") == "view").select("product_id", F.col("events").alias("views"))
    known = (
        eligible.select("product_id", category().alias("category"))
        .join(moving.select("product_id", "direction", "rank"), on="product_id", how="left")
        .join(views, on="product_id", how="left")
    )
    rising = known.where(F.col("direction") == "rising").withColumn("worth", -F.col("rank").cast("bigint"))
    popular = known.where(F.col("views") > 0).withColumn("worth", F.col("views"))
    return Catalogue(
        neighbours=_neighbours(products, eligible, similar_items),
        growths=moving.select("product_id", "growth"),
        categories=products.select("product_id", category().alias("category")),
        near=_first_by_category(rising, "near_rising").join(
            _first_by_category(popular, "near_popular"), on="category", how="full"
        ),
        store=_first(rising, "rising").crossJoin(F.broadcast(_first(popular, "popular"))),
        attributes=products.select("product_id", "category_code", "brand", "price")
        .join(moving.drop("rank"), on="product_id", how="left")
        .join(views, on="product_id", how="left"),
    )


def _neighbours(products: DataFrame, eligible: DataFrame, similar_items: DataFrame) -> DataFrame:
    candidates = eligible.select(F.col("product_id").alias("similar_product_id"))
    lists = (
        similar_items.where(F.col("relation") == "viewed")
        .join(F.broadcast(candidates), on="similar_product_id", how="left_semi")
        .groupBy("product_id")
        .agg(F.collect_list(_candidate(F.col("similar_product_id"), F.col("score"))).alias("neighbours"))
    )
    itself = F.array(_candidate(F.col("product_id"), F.lit(None).cast("double")))
    return (
        products.select("product_id")
        .join(eligible.select("product_id", F.lit(True).alias("eligible")), on="product_id", how="left")
        .join(lists, on="product_id", how="left")
        .select(
            "product_id",
            F.coalesce("eligible", F.lit(False)).alias("eligible"),
            F.when(F.col("neighbours").isNull(), itself).otherwise(F.concat(itself, "neighbours")).alias("candidates"),
        )
    )


def _candidate(product_id: Column, similarity: Column) -> Column:
    return F.struct(product_id.alias("product_id"), similarity.alias("similarity"))


def _first_by_category(products: DataFrame, name: str) -> DataFrame:
    best_first = Window.partitionBy("category").orderBy(F.desc("worth"), F.asc("product_id"))
    return (
        products.where(F.col("category").isNotNull())
        .withColumn("place", F.row_number().over(best_first))
        .where(F.col("place") <= CATEGORY_FILL_DEPTH)
        .groupBy("category")
        .agg(_ids_by_worth().alias(name))
    )


def _first(products: DataFrame, name: str) -> DataFrame:
    return products.orderBy(F.desc("worth"), F.asc("product_id")).limit(FILL_DEPTH).agg(_ids_by_worth().alias(name))


def _ids_by_worth() -> Column:
    return F.array_sort(F.collect_list(F.struct((-F.col("worth")).alias("place"), "product_id")))["product_id"]
