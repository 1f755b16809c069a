"""Pure functions that find the newest known attributes (such as brand and price) of each product in the events."""

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
"""Attributes of a product. Each maps to the column with the time of the event that the attribute's value is from."""


def product_attributes(events: DataFrame) -> DataFrame:
    """Find the newest value of each attribute per product.

    Null values are ignored. If two values are equally new, the greater one is kept.

    Args:
        events: Events with `product_id`, `event_time` and the attributes.

    Returns:
        One row per product, with the columns of the `products` table. Each attribute has a column with the time of the
        event that its value is from. `first_seen` and `last_seen` are the times of the product's first and last event
        (UTC).
    """
    # First group the events by product and attributes, because Spark uses a hash table for such a grouping. Without
    # this grouping, Spark would aggregate texts, and would sort all events for that.
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

    Several tables can be merged in any order with the same result. Merging the same rows twice changes nothing.

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
    """Split the struct of each attribute into two columns of the `products` table: the value and its time."""

    def column(name: str) -> Column:
        if name in ATTRIBUTES:
            return F.col(name).getField(name).alias(name)
        attribute = name.removesuffix("_time")
        return F.col(attribute).getField("last_seen").alias(name) if attribute in ATTRIBUTES else F.col(name)

    return grouped.select(*(column(name) for name in PRODUCTS.column_names))
