"""Pure functions that group events into baskets.

A `viewed` basket holds the products of one visitor in one session on one UTC date. A `bought` basket holds the products
that one visitor bought on one UTC date.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import INTERACTIONS
from lambda_spark.ids import whole_basket
from lambda_spark.spark import ids_of

BASKET = ["user_id", "user_session", "event_date", "relation"]
"""Columns that identify a basket.

`user_id` must stay first, because Spark sorts fastest if the first column has the most distinct values.
"""

EVENT_COLUMNS = ["event_date", "event_time", "event_type", "product_id", "user_id", "user_session"]
"""Columns of `events` that are needed to make baskets."""

VIEWED, BOUGHT = "viewed", "bought"
"""The two values of the column `relation`, which says what kind of basket a row belongs to."""


def basket_rows(events: DataFrame) -> DataFrame:
    """Turn each interaction into one row per basket that the interaction belongs to.

    A `viewed` basket holds all interactions of a user's session on one date. A `bought` basket holds the purchases of a
    user on one date. So a purchase belongs to two baskets. A guest has no user id, so both baskets are of the session.

    Args:
        events: The columns of EVENT_COLUMNS.

    Returns:
        event_date, relation, user_id, user_session, product_id and first_time (the time of the event). user_session is
        `''` in a user's `bought` baskets and for events without a session. user_id is 0, or `''` where ids are texts,
        for guests. Neither is null, because a join finds no nulls.
    """
    is_purchase = F.col("event_type") == "purchase"
    relations = F.when(is_purchase, F.array(F.lit(VIEWED), F.lit(BOUGHT))).otherwise(F.array(F.lit(VIEWED)))
    user = F.coalesce("user_id", F.lit(whole_basket(ids_of(events, "user_id"))))
    has_session = (F.col("relation") == VIEWED) | F.col("user_id").isNull()
    session = F.when(has_session, F.coalesce("user_session", F.lit(""))).otherwise(F.lit(""))
    return (
        events.where(F.col("event_type").isin(*INTERACTIONS))
        .select(
            "event_date", "user_id", "user_session", "product_id", "event_time", F.explode(relations).alias("relation")
        )
        .select(
            "event_date",
            "relation",
            user.alias("user_id"),
            session.alias("user_session"),
            "product_id",
            F.col("event_time").alias("first_time"),
        )
    )


def basket_items(events: DataFrame) -> DataFrame:
    """Find the distinct products of each basket.

    Args:
        events: The columns of EVENT_COLUMNS.

    Returns:
        One row per basket and product, with the columns of `basket_rows`, partitioned by date and user. first_time is
        the time of the product's first event in the basket.
    """
    return (
        basket_rows(events)
        .repartition("event_date", "user_id")
        .groupBy(*BASKET, "product_id")
        .agg(F.min("first_time").alias("first_time"))
    )
