"""Pure functions that find the newest known attributes (such as brand and price) of each product in the events."""

from __future__ import annotations

from datetime import date

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


def product_attributes(events: DataFrame, newest_date: date | None) -> DataFrame:
    """Find the newest value of each attribute per product.

    Null values are ignored. If two values are equally new, the greater one is kept. Events after the store's newest
    date are set aside: they say something about a product only if the product has no other events. A product whose
    events are all set aside still gets its row, so that every product of `events` has one.

    Args:
        events: Events with `product_id`, `event_time`, `event_date` and the attributes.
        newest_date: The newest date of the store. None if the store has no events.

    Returns:
        One row per product, with the columns of the `products` table. Each attribute has a column with the time of the
        event that its value is from. `first_seen` and `last_seen` are the times of the product's first and last event
        (UTC).
    """
    # First group the events by product and attributes, because Spark uses a hash table for such a grouping. Without
    # this grouping, Spark would aggregate texts, and would sort all events for that.
    combinations = events.groupBy("product_id", _is_set_aside("event_date", newest_date), *ATTRIBUTES).agg(
        F.min("event_time").alias("first_seen"), F.max("event_time").alias("last_seen")
    )
    newest = [F.max(F.when(F.col(name).isNotNull(), F.struct("last_seen", name))).alias(name) for name in ATTRIBUTES]
    return _columns(
        combinations.groupBy("product_id", "is_set_aside").agg(
            *newest, F.min("first_seen").alias("first_seen"), F.max("last_seen").alias("last_seen")
        )
    )


def newest_products(known: DataFrame, new: DataFrame, newest_date: date | None) -> DataFrame:
    """Merge two tables of product attributes.

    Several tables can be merged in any order with the same result. Merging the same rows twice changes nothing.

    Args:
        known: Rows with the columns of `products`. A date that counted or was set aside for these rows must still do
            so, because the rows do not tell what an event that was left out had said.
        new: Rows that `product_attributes` returned.
        newest_date: The newest date of the store. None if the store has no events.

    Returns:
        One row per product of either table, with the columns of `products`.
    """
    newest = [
        F.max(F.when(F.col(name).isNotNull(), F.struct(F.col(time).alias("last_seen"), name))).alias(name)
        for name, time in ATTRIBUTES.items()
    ]
    return _columns(
        known.unionByName(new)
        .groupBy("product_id", _is_set_aside("last_seen", newest_date))
        .agg(*newest, F.min("first_seen").alias("first_seen"), F.max("last_seen").alias("last_seen"))
    )


def _is_set_aside(moment: str, newest_date: date | None) -> Column:
    """Return the column `is_set_aside`: whether a date or time lies after the newest date of the store."""
    is_after = F.lit(False) if newest_date is None else F.to_date(moment) > F.lit(newest_date)
    return is_after.alias("is_set_aside")


def _columns(grouped: DataFrame) -> DataFrame:
    """Split the struct of each attribute into two columns of the `products` table: the value and its time.

    Of the two rows that a product can have, the row with `is_set_aside` is dropped.
    """

    def column(name: str) -> Column:
        if name in ATTRIBUTES:
            return F.col(name).getField(name).alias(name)
        attribute = name.removesuffix("_time")
        return F.col(attribute).getField("last_seen").alias(name) if attribute in ATTRIBUTES else F.col(name)

    best = grouped.groupBy("product_id").agg(F.min_by(F.struct(*grouped.columns), "is_set_aside").alias("best"))
    return best.select("best.*").select(*(column(name) for name in PRODUCTS.column_names))
