"""Profiles: the latest distinct products of a user, which speak for the user. Pure."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.settings import RecommendationSettings

DEEDS = {"view": "viewed", "cart": "put into the cart", "purchase": "bought"}
"""Event type: the word for it in a reason, from the weakest sign of interest to the strongest."""


def strength(event_type: Column) -> Column:
    """How strong a sign of interest an event type is, from 1; 0 where it is none."""
    found = F.lit(0)
    for number, name in enumerate(DEEDS, 1):
        found = F.when(event_type == name, F.lit(number)).otherwise(found)
    return found


def profiles(events: DataFrame, settings: RecommendationSettings, *, active_since: Column | None = None) -> DataFrame:
    """Per user its profile, and the products that it bought but that are not in there: user_id, position (0 the latest;
    null outside the profile), product_id, strength (of its strongest event type), weight (that type's weight times
    profile_decay to the power of the position; null outside), bought.

    With `active_since` (a date), only users with an interaction since then. Rows are partitioned by user.
    """
    touched = (
        events.where(F.col("event_type").isin(*DEEDS))
        .select("user_id", "product_id", "event_time", strength(F.col("event_type")).alias("strength"))
        .repartition("user_id")
        .groupBy("user_id", "product_id")
        .agg(F.max("event_time").alias("latest"), F.max("strength").alias("strength"))
    )
    latest_first = Window.partitionBy("user_id").orderBy(F.desc("latest"), F.asc("product_id"))
    place = F.row_number().over(latest_first) - F.lit(1)
    placed = touched.withColumns({"place": place, "last_seen": F.first("latest").over(latest_first)})
    if active_since is not None:
        placed = placed.where(F.to_date("last_seen") >= active_since)
    weights = F.array(F.lit(settings.view_weight), F.lit(settings.cart_weight), F.lit(settings.purchase_weight))
    weight = F.element_at(weights, F.col("strength")) * F.pow(F.lit(settings.profile_decay), F.col("place"))
    is_inside = F.col("place") < settings.profile_items
    return placed.select(
        "user_id",
        F.when(is_inside, F.col("place")).alias("position"),
        "product_id",
        "strength",
        F.when(is_inside, weight).alias("weight"),
        (F.col("strength") == len(DEEDS)).alias("bought"),
    ).where(F.col("position").isNotNull() | F.col("bought"))
