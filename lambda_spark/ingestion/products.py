"""Newest known attributes of each product, computed by pure functions: events in, product rows out."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.storage.tables import PRODUCTS

ATTRIBUTES = {
    "category_id": "category_id_time",
    "category_code": "category_code_time",
    "brand": "brand_time",
    "price": "price_time",
}
"""Each attribute of a product, with the column for the time of the event that gave its value."""


def product_attributes(events: DataFrame) -> DataFrame:
    """Find the newest value of each attribute per product.

    Null values are ignored. Of two equally new values the greater one is kept.

    Args:
        events: Events with `product_id`, `event_time` and the attributes.

    Returns:
        One row per product, with the columns of `products`. Each attribute has a column with the time of
        its event; `first_seen` and `last_seen` are the times of the product's first and last event (UTC).
    """
    # Group by the attributes first, because Spark then uses a hash table. With a text as the aggregated value, Spark
    # would sort all events.
    combinations = events.groupBy("product_id", *ATTRIBUTES).agg(
        F.min("event_time").alias("first_seen"), F.max("event_time").alias("last_seen")
    )
    newest = [F.max(F.when(F.col(name).isNotNull(), F.struct("last_seen", name))).alias(name) for name in ATTRIBUTES]
    return _columns(
        combinations.groupBy("product_id").agg(
            *newest, F.min("first_seen").alias("first_seen"), F.max("last_seen").alias("last_seen")
        )
    )


def newest_products(known: DataFrame, new: DataFrame) -> DataFrame:
    """Merge two tables of product attributes.

    The result does not depend on the order of merges. Merging the same rows twice changes nothing.

    Args:
        known: Rows with the columns of `products`.
        new: Rows that `product_attributes` returned.

    Returns:
        One row per product of either table, with the columns of `products`.
    """
    newest = [
        F.max(F.when(F.col(name).isNotNull(), F.struct(F.col(time).alias("last_seen"), name))).alias(name)
        for name, time in ATTRIBUTES.items()
    ]
    return _columns(
        known.unionByName(new)
        .groupBy("product_id")
        .agg(*newest, F.min("first_seen").alias("first_seen"), F.max("last_seen").alias("last_seen"))
    )


def _columns(grouped: DataFrame) -> DataFrame:
    """Split each attribute, a struct of `last_seen` and the value, into the two columns of `products`."""

    def column(name: str) -> Column:
        if name in ATTRIBUTES:
            return F.col(name).getField(name).alias(name)
        attribute = name.removesuffix("_time")
        return F.col(attribute).getField("last_seen").alias(name) if attribute in ATTRIBUTES else F.col(name)

    return grouped.select(*(column(name) for name in PRODUCTS.column_names))
