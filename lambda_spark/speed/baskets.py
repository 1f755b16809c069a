"""Baskets: what one visitor touched in one session on one UTC date. Pure."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import INTERACTIONS

BASKET = ["user_id", "user_session", "event_date", "relation"]
"""What identifies a basket. Spark sorts by the first of several columns faster than by the others: here by that which
differs most."""

EVENT_COLUMNS = ["event_date", "event_time", "event_type", "product_id", "user_id", "user_session"]
"""What a basket needs of an event."""

VIEWED, BOUGHT = "viewed", "bought"


def touches(events: DataFrame) -> DataFrame:
    """Every interaction as an item of its baskets: event_date, relation, user_id, user_session, product_id, first_time.

    A `viewed` basket holds every interaction of a session, a `bought` one the purchases of a user on a date. The
    session is `''` where an event has none, never null: a join on null finds nothing.
    """
    is_purchase = F.col("event_type") == "purchase"
    relations = F.when(is_purchase, F.array(F.lit(VIEWED), F.lit(BOUGHT))).otherwise(F.array(F.lit(VIEWED)))
    session = F.when(F.col("relation") == VIEWED, F.coalesce("user_session", F.lit(""))).otherwise(F.lit(""))
    return (
        events.where(F.col("event_type").isin(*INTERACTIONS))
        .select(
            "event_date", "user_id", "user_session", "product_id", "event_time", F.explode(relations).alias("relation")
        )
        .select(
            "event_date",
            "relation",
            "user_id",
            session.alias("user_session"),
            "product_id",
            F.col("event_time").alias("first_time"),
        )
    )


def basket_items(events: DataFrame) -> DataFrame:
    """The distinct items of each basket, with the columns of `touches`. Rows are partitioned by date and user."""
    return (
        touches(events)
        .repartition("event_date", "user_id")
        .groupBy(*BASKET, "product_id")
        .agg(F.min("first_time").alias("first_time"))
    )
