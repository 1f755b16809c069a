"""The newest known attributes of products. Pure: events in, product rows out."""

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
"""Attribute: the column that holds the time of the event it is from."""


def product_attributes(events: DataFrame) -> DataFrame:
    """Per product the newest value of each attribute that is not null, and when it was first and last seen.

    Each value comes with its time; of two equally new ones the greater counts. Columns as in `products`.
    """
    # First with the texts as keys, for which Spark has a hash table; a text as an aggregate would sort all events.
    alike = events.groupBy("product_id", *ATTRIBUTES).agg(
        F.min("event_time").alias("first_seen"), F.max("event_time").alias("last_seen")
    )
    newest = [F.max(F.when(F.col(name).isNotNull(), F.struct("last_seen", name))).alias(name) for name in ATTRIBUTES]
    return _columns(
        alike.groupBy("product_id").agg(
            *newest, F.min("first_seen").alias("first_seen"), F.max("last_seen").alias("last_seen")
        )
    )


def newest_products(known: DataFrame, new: DataFrame) -> DataFrame:
    """Two tables of product attributes as one, in any order and however often. Columns as in `products`."""
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
    """Attributes as structs (last_seen, value) to the columns of `products`."""

    def column(name: str) -> Column:
        if name in ATTRIBUTES:
            return F.col(name).getField(name).alias(name)
        attribute = name.removesuffix("_time")
        return F.col(attribute).getField("last_seen").alias(name) if attribute in ATTRIBUTES else F.col(name)

    return grouped.select(*(column(name) for name in PRODUCTS.column_names))
