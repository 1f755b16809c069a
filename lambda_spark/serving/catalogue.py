"""The catalogue: which products may be recommended, are similar, are trending, or are in demand. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from lambda_spark.serving.product_filter import predicate
from lambda_spark.settings import RecommendationSettings
from lambda_spark.storage.tables import STEADY

FILL_DEPTH = 200
"""Number of products, the most in demand in the whole store, that are available to fill up short lists."""
CATEGORY_FILL_DEPTH = 50
"""Number of products per category, the most in demand in it, that are available to fill up short lists."""

DEMAND_BUCKETS = 8
"""Number of time buckets, the newest ones, from which demand is estimated."""
_DRIFT = 0.04
"""Variance of the relative change of a product's share from one bucket to the next; the standard deviation is 20 %.

Measured with first-time visitors of real and made-up stores. More of them, or nearly as many, find a product in a list
ordered by these shares than in a list of the most popular products of all time or of the last bucket. Values from 0.03
to 0.06 do equally well.
"""


def is_eligible(spark: SparkSession, settings: RecommendationSettings) -> Column:
    """Make the condition for products that may be recommended.

    Args:
        spark: The session that parses `recommendations.filter`.
        settings: The filter, and the lists of allowed and denied products.

    Returns:
        A boolean column over `products`. Null means the same as false.

    Raises:
        UsageError: `recommendations.filter` is no condition on products.
    """
    condition = F.lit(True)
    if settings.filter:
        condition &= predicate(spark, settings.filter)
    if settings.allow_products:
        condition &= F.col("product_id").isin(*settings.allow_products)
    if settings.deny_products:
        condition &= ~F.col("product_id").isin(*settings.deny_products)
    return condition


def eligible_products(products: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """Keep the products that may be recommended.

    Returns:
        The columns of `products`.

    Raises:
        UsageError: `recommendations.filter` is no condition on products.
    """
    return products.where(is_eligible(products.sparkSession, settings))


def category() -> Column:
    """Return the key of a product's category. Products with the same key belong to the same category.

    Returns:
        `category_id` as a string, because it is finer than `category_code`; `category_code` where the id is null.
    """
    return F.coalesce(F.col("category_id").cast("string"), "category_code")


def trending_products(trends: DataFrame) -> DataFrame:
    """Keep the products whose `view` trend is not steady.

    Returns:
        product_id, direction (`rising` or `waning`), growth in (-1, 1), current and previous (views), rank.
    """
    moving = (F.col("signal") == "view") & (F.col("direction") != STEADY)
    return trends.where(moving).select("product_id", "direction", "growth", "current", "previous", "rank")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Facts about products, which are joined to profiles to make lists. Each table is small enough to broadcast."""

    neighbours: DataFrame
    """Per product: product_id, eligible (whether it may be recommended), candidates.

    `candidates` is an array of structs product_id, similarity. The first is the product itself, with a null similarity.
    Its neighbours that may be recommended follow.
    """
    growths: DataFrame
    """Per product whose trend is not steady: product_id, growth."""
    categories: DataFrame
    """Per product: product_id, category (the key that `category` makes)."""
    near: DataFrame
    """Per category: category, `near`, an array of its products most in demand, at most CATEGORY_FILL_DEPTH."""
    store: DataFrame
    """One row: `in_store`, an array of the products most in demand in the whole store, at most FILL_DEPTH."""
    attributes: DataFrame
    """Per product: product_id, category_code, brand, price, growth, direction, current, previous, events.

    growth, direction, current and previous are null where the trend is steady. `events` counts the interactions in the
    newest DEMAND_BUCKETS buckets.
    """


def catalogue(
    products: DataFrame,
    similar_items: DataFrame,
    trends: DataFrame,
    demand: DataFrame,
    settings: RecommendationSettings,
) -> Catalogue:
    """Make the catalogue from the tables that the arguments are named after.

    Args:
        products: Rows of `products`.
        similar_items: Rows of `similar_items`.
        trends: Rows of `trends`, all from one time bucket.
        demand: Rows of `demand` with the column `age` that `in_demand` needs.
        settings: Which products may be recommended.

    Raises:
        UsageError: `recommendations.filter` is no condition on products.
    """
    eligible = eligible_products(products, settings)
    trending = trending_products(trends)
    shares = in_demand(demand)
    fills = eligible.select("product_id", category().alias("category")).join(shares, on="product_id", how="inner")
    return Catalogue(
        neighbours=_neighbours(products, eligible, similar_items),
        growths=trending.select("product_id", "growth"),
        categories=products.select("product_id", category().alias("category")),
        near=first_of_each_category(fills).groupBy("category").agg(_ids_by_share().alias("near")),
        store=first_of_all(fills).agg(_ids_by_share().alias("in_store")),
        attributes=products.select("product_id", "category_code", "brand", "price")
        .join(trending.drop("rank"), on="product_id", how="left")
        .join(shares.select("product_id", "events"), on="product_id", how="left"),
    )


def in_demand(demand: DataFrame) -> DataFrame:
    """Estimate each product's present share of demand.

    A product's share is modelled by a gamma distribution, given by its mean and by its variance relative to the squared
    mean. Each step to a newer bucket adds variance, and less of it if that bucket is not over yet. The product's events
    in the bucket, modelled as Poisson, then correct mean and variance. So the share of a product with few events is an
    average over all the buckets, and that of a product with many events follows the newest buckets.

    Args:
        demand: Rows of `demand` of the newest DEMAND_BUCKETS buckets, with `age`, 0 for the newest bucket.

    Returns:
        product_id, events (interactions in all of these buckets), share (the fraction of the
        store's demand that the product has now).

    Source:
        The dynamic model of West, Harrison and Migon, JASA 1985.
    """
    ages = range(DEMAND_BUCKETS)
    events_by_age = [F.sum(F.when(F.col("age") == age, F.col("events")).otherwise(0)) for age in ages]
    products = demand.groupBy("product_id").agg(
        F.sum("events").alias("events"),
        *(count.alias(f"events_{age}") for age, count in zip(ages, events_by_age, strict=True)),
    )
    totals = demand.agg(*(total.alias(f"total_{age}") for age, total in zip(ages, events_by_age, strict=True)))
    total = reduce(Column.__add__, (F.col(f"total_{age}") for age in ages))
    buckets = reduce(Column.__add__, (F.signum(f"total_{age}") for age in ages))
    estimates = products.crossJoin(
        F.broadcast(totals.withColumns({"total": total, "mean_total": total / buckets}))
    ).withColumns({"share": F.col("events") / F.col("total"), "variance": F.lit(1.0)})
    for age in reversed(ages):
        count, total = F.col(f"events_{age}"), F.col(f"total_{age}")
        variance = F.col("variance") + _DRIFT * total / F.col("mean_total")
        correction = (1 + variance * count) / (1 + variance * F.col("share") * total)
        estimates = estimates.withColumns(
            {"share": F.col("share") * correction, "variance": variance / (1 + variance * count)}
        )
    return estimates.select("product_id", "events", "share")


def usable_neighbours(similar_items: DataFrame, eligible: DataFrame) -> DataFrame:
    """Keep the pairs of the relation `viewed` whose similar product may be recommended.

    Args:
        similar_items: Rows of `similar_items`.
        eligible: The products that may be recommended.

    Returns:
        product_id, similar_product_id, score.
    """
    candidates = eligible.select(F.col("product_id").alias("similar_product_id"))
    return (
        similar_items.where(F.col("relation") == "viewed")
        .join(F.broadcast(candidates), on="similar_product_id", how="left_semi")
        .select("product_id", "similar_product_id", "score")
    )


def _neighbours(products: DataFrame, eligible: DataFrame, similar_items: DataFrame) -> DataFrame:
    lists = (
        usable_neighbours(similar_items, eligible)
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


def first_of_all(products: DataFrame) -> DataFrame:
    """Keep the FILL_DEPTH products most in demand.

    Args:
        products: Products with the `share` that `in_demand` returns.

    Returns:
        The columns of `products`, at most FILL_DEPTH rows.
    """
    return products.orderBy(*_largest_share_first()).limit(FILL_DEPTH)


def first_of_each_category(products: DataFrame) -> DataFrame:
    """Keep the CATEGORY_FILL_DEPTH products most in demand of each category.

    Args:
        products: Products with their `category` and the `share` that `in_demand` returns.

    Returns:
        The columns of `products`, at most CATEGORY_FILL_DEPTH rows per category. Products without a category are left
        out.
    """
    place = F.row_number().over(Window.partitionBy("category").orderBy(*_largest_share_first()))
    placed = products.where(F.col("category").isNotNull()).withColumn("place", place)
    return placed.where(F.col("place") <= CATEGORY_FILL_DEPTH).drop("place")


def _largest_share_first() -> tuple[Column, Column]:
    return F.desc("share"), F.asc("product_id")


def _ids_by_share() -> Column:
    """Collect product ids into an array, the largest share first."""
    return F.array_sort(F.collect_list(F.struct((-F.col("share")).alias("place"), "product_id")))["product_id"]
