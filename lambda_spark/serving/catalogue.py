"""What recommending needs to know of products: which may be recommended, are similar, rise, or are in demand. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from lambda_spark.serving.product_filter import predicate
from lambda_spark.settings import RecommendationSettings
from lambda_spark.storage.tables import STEADY

FILL_DEPTH = 200
"""Products in demand held ready to fill lists that similarity leaves short."""
CATEGORY_FILL_DEPTH = 50
"""And of each category."""

DEMAND_BUCKETS = 8
"""The newest buckets, which say what is in demand."""
_DRIFT = 0.04
"""Variance of what a product's share of demand moves by from bucket to bucket, relative to itself: 20 % of it. Of
real and made-up stores' first-time visitors more find something in a list by shares so followed than among the most
popular of all times or of the last bucket, or nearly as many; from 0.03 to 0.06 alike."""


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
    """Per category: category, `near`, an array of its products that are most in demand, at most CATEGORY_FILL_DEPTH."""
    store: DataFrame
    """One row: `in_store`, an array of the products that are most in demand, at most FILL_DEPTH."""
    attributes: DataFrame
    """Per product: product_id, category_code, brand, price, growth, direction, current, previous (null where steady),
    events (interactions in the newest buckets)."""


def catalogue(
    products: DataFrame,
    similar_items: DataFrame,
    trends: DataFrame,
    demand: DataFrame,
    settings: RecommendationSettings,
) -> Catalogue:
    """All of it, from the tables of those names; `trends` with one bucket's rows, `demand` as `in_demand` takes it."""
    eligible = eligible_products(products, settings)
    moving = moving_products(trends)
    wanted = in_demand(demand)
    known = eligible.select("product_id", category().alias("category")).join(wanted, on="product_id", how="inner")
    return Catalogue(
        neighbours=_neighbours(products, eligible, similar_items),
        growths=moving.select("product_id", "growth"),
        categories=products.select("product_id", category().alias("category")),
        near=first_of_each_category(known).groupBy("category").agg(_ids_by_share().alias("near")),
        store=first_of_all(known).agg(_ids_by_share().alias("in_store")),
        attributes=products.select("product_id", "category_code", "brand", "price")
        .join(moving.drop("rank"), on="product_id", how="left")
        .join(wanted.select("product_id", "events"), on="product_id", how="left"),
    )


def in_demand(demand: DataFrame) -> DataFrame:
    """How much products are wanted: product_id, events (in all of the buckets), share (of all demand, now).

    `demand` has the rows of the newest DEMAND_BUCKETS buckets with their `age`, 0 the newest. What is known of a share
    is a gamma distribution: its mean, and its variance relative to the mean squared. In a bucket it drifts, by less
    where the bucket is not over, and is corrected by the events counted there, which are Poisson (the dynamic model of
    West, Harrison and Migon, JASA 1985): so few events are averaged over all of the buckets, and many say by themselves
    what is wanted now.
    """
    ages = range(DEMAND_BUCKETS)
    by_age = [F.sum(F.when(F.col("age") == age, F.col("events")).otherwise(0)) for age in ages]
    products = demand.groupBy("product_id").agg(
        F.sum("events").alias("events"),
        *(count.alias(f"events_{age}") for age, count in zip(ages, by_age, strict=True)),
    )
    totals = demand.agg(*(total.alias(f"total_{age}") for age, total in zip(ages, by_age, strict=True)))
    total = reduce(Column.__add__, (F.col(f"total_{age}") for age in ages))
    buckets = reduce(Column.__add__, (F.signum(f"total_{age}") for age in ages))
    known = products.crossJoin(
        F.broadcast(totals.withColumns({"total": total, "mean_total": total / buckets}))
    ).withColumns({"share": F.col("events") / F.col("total"), "variance": F.lit(1.0)})
    for age in reversed(ages):
        count, total = F.col(f"events_{age}"), F.col(f"total_{age}")
        variance = F.col("variance") + _DRIFT * total / F.col("mean_total")
        correction = (1 + variance * count) / (1 + variance * F.col("share") * total)
        known = known.withColumns({"share": F.col("share") * correction, "variance": variance / (1 + variance * count)})
    return known.select("product_id", "events", "share")


def usable_neighbours(similar_items: DataFrame, eligible: DataFrame) -> DataFrame:
    """The neighbours by views that may be recommended: product_id, similar_product_id, score."""
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
    """Of products with their share the FILL_DEPTH that are most in demand."""
    return products.orderBy(*_most_wanted_first()).limit(FILL_DEPTH)


def first_of_each_category(products: DataFrame) -> DataFrame:
    """Of products with their share and category the CATEGORY_FILL_DEPTH of each that are most in demand."""
    place = F.row_number().over(Window.partitionBy("category").orderBy(*_most_wanted_first()))
    placed = products.where(F.col("category").isNotNull()).withColumn("place", place)
    return placed.where(F.col("place") <= CATEGORY_FILL_DEPTH).drop("place")


def _most_wanted_first() -> tuple[Column, Column]:
    return F.desc("share"), F.asc("product_id")


def _ids_by_share() -> Column:
    return F.array_sort(F.collect_list(F.struct((-F.col("share")).alias("place"), "product_id")))["product_id"]
