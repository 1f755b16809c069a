"""The catalogue: which products may be recommended, are similar, are trending, or are in demand.

The functions here get tables as arguments. They neither read nor write the lake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.ids import Id
from lambda_spark.serving.product_filter import predicate
from lambda_spark.settings import RecommendationSettings
from lambda_spark.spark import ids_of
from lambda_spark.storage.tables import STEADY

FILL_DEPTH = 200
"""Number of products that are ready to fill up short lists: those most in demand in the whole store."""
CATEGORY_FILL_DEPTH = 50
"""Number of products per category that are ready to fill up short lists: those most in demand in the category."""

DEMAND_BUCKETS = 8
"""Demand is estimated from this number of newest time buckets."""
_DRIFT = 0.04
"""How much a product's share of demand varies from one time bucket to the next.

The number is the variance of the share's relative change. It corresponds to a standard deviation of 20 %.

The number was tested on the first-time visitors of real and made-up stores. It was compared with lists of the most
popular products, either of all time or of the last bucket. With lists ordered by the estimated shares, at least nearly
as many visitors found a product. Values from 0.03 to 0.06 do equally well.
"""


def is_eligible(products: DataFrame, settings: RecommendationSettings) -> Column:
    """Make the condition for products that may be recommended.

    Args:
        products: Rows of `products`.
        settings: The filter, and the lists of allowed and denied products.

    Returns:
        A boolean column over `products`. Null counts as false.

    Raises:
        UsageError: The setting `recommendations.filter` is no condition on products, or a listed product id is no whole
            number, although the lake's ids are whole numbers.
    """
    condition = F.lit(True)
    if settings.filter:
        condition &= predicate(products.sparkSession, settings.filter, ids_of(products, "product_id"))
    if settings.allow_products:
        condition &= F.col("product_id").isin(*_listed(products, settings.allow_products, "allow_products"))
    if settings.deny_products:
        condition &= ~F.col("product_id").isin(*_listed(products, settings.deny_products, "deny_products"))
    return condition


def _listed(products: DataFrame, texts: Sequence[str], name: str) -> list[Id]:
    """Convert the product ids of a setting to the kind of the ids of `products`."""
    if ids_of(products, "product_id") == "text":
        return list(texts)
    numbers: list[Id] = []
    for text in texts:
        try:
            numbers.append(int(text))
        except ValueError:
            raise UsageError(
                f"recommendations.{name} must list whole numbers, as the ids of this lake are, not '{text}'"
            ) from None
    return numbers


def eligible_products(products: DataFrame, settings: RecommendationSettings) -> DataFrame:
    """Keep the products that may be recommended.

    Returns:
        The columns of `products`.

    Raises:
        UsageError: `recommendations.filter` is no condition on products.
    """
    return products.where(is_eligible(products, settings))


def category() -> Column:
    """Return the key of a product's category. Products with the same key belong to the same category.

    Returns:
        `category_id` as a string, because the ids divide products more finely than `category_code`. Where the id is
        null, the key is `category_code`.
    """
    return F.coalesce(F.col("category_id").cast("string"), "category_code")


def trending_products(trends: DataFrame) -> DataFrame:
    """Keep the products whose `view` views are rising or waning.

    Returns:
        product_id, direction (`rising` or `waning`), growth in (-1, 1), current and previous (views), rank.
    """
    moving = (F.col("signal") == "view") & (F.col("direction") != STEADY)
    return trends.where(moving).select("product_id", "direction", "growth", "current", "previous", "rank")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Facts about products, which are joined to profiles to make lists. Each table is small enough to broadcast."""

    neighbours: DataFrame
    """One row per product: product_id, eligible (whether the product may be recommended), candidates.

    `candidates` is an array of structs with product_id and similarity. The first struct is the product itself, with a
    null similarity. The other structs are the similar products that may be recommended.
    """
    growths: DataFrame
    """One row per product whose views are rising or waning: product_id, growth."""
    categories: DataFrame
    """One row per product: product_id, category (the key that the function `category` makes)."""
    near: DataFrame
    """One row per category: category, near (at most CATEGORY_FILL_DEPTH products, those most in demand in it)."""
    store: DataFrame
    """A single row: in_store (at most FILL_DEPTH products, those most in demand in the whole store)."""
    attributes: DataFrame
    """One row per product: product_id, category_code, brand, price, growth, direction, current, previous, events.

    growth, direction, current and previous are null where the product's views are steady. `events` counts the product's
    interactions in the newest DEMAND_BUCKETS time buckets.
    """


def catalogue(
    products: DataFrame,
    similar_items: DataFrame,
    trends: DataFrame,
    demand: DataFrame,
    settings: RecommendationSettings,
) -> Catalogue:
    """Make the catalogue from rows of five tables.

    Args:
        products: Rows of `products`.
        similar_items: Rows of `similar_items`.
        trends: Rows of `trends`, all from one time bucket.
        demand: Rows of `demand`, with the column `age` as described at `in_demand`.
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

    A gamma distribution models the product's share. The function tracks the distribution's mean, and its variance
    relative to the squared mean. The function goes through the time buckets from the oldest to the newest. Each bucket
    first adds variance, and a bucket that is not over yet adds less. The product's events in the bucket, modelled as
    Poisson, then correct the mean and the variance.

    With few events, a product's estimated share is an average over all buckets. With many events, the estimated share
    follows the newest buckets.

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
    """Keep the pairs of products viewed together whose second product may be recommended.

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
    """Keep the CATEGORY_FILL_DEPTH products most in demand in each category.

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
    """Collect product ids into an array, ordered by the products' share of demand, the largest first."""
    return F.array_sort(F.collect_list(F.struct((-F.col("share")).alias("place"), "product_id")))["product_id"]
