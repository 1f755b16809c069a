"""Profiles: each user's latest distinct products, from which the user's list is made.

The functions here get tables as arguments. They neither read nor write the lake.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.serving.reasons import INTERACTION_WORDS
from lambda_spark.settings import RecommendationSettings


def interest_level(event_type: Column) -> Column:
    """Rank an event type by the interest that it shows.

    Args:
        event_type: An event type, like `view`.

    Returns:
        The position of the event type in INTERACTION_WORDS: 1 for the weakest interest, 0 for a type not in there.
    """
    level = F.lit(0)
    for number, name in enumerate(INTERACTION_WORDS, 1):
        level = F.when(event_type == name, F.lit(number)).otherwise(level)
    return level


def profiles(events: DataFrame, settings: RecommendationSettings, *, active_since: Column | None = None) -> DataFrame:
    """Make each user's profile, and add the bought products that the profile lacks.

    Args:
        events: Rows of `events`.
        settings: The length of a profile, and the weights of its items.
        active_since: A date. Users without an interaction on or after this date get no rows. None keeps all users.

    Returns:
        One row per user and product, partitioned by user.
        user_id;
        position: the product's place in the profile, 0 for the latest product; null outside the profile;
        product_id;
        interest_level: the strongest interest that the user showed in the product, as `interest_level` ranks it;
        weight: the event type's weight times profile_decay to the power of the position; null outside the profile;
        bought: whether the user purchased the product.
    """
    touched = (
        events.where(F.col("event_type").isin(*INTERACTION_WORDS) & F.col("user_id").isNotNull())
        .select("user_id", "product_id", "event_time", interest_level(F.col("event_type")).alias("interest_level"))
        .repartition("user_id")
        .groupBy("user_id", "product_id")
        .agg(F.max("event_time").alias("latest"), F.max("interest_level").alias("interest_level"))
    )
    latest_first = Window.partitionBy("user_id").orderBy(F.desc("latest"), F.asc("product_id"))
    place = F.row_number().over(latest_first) - F.lit(1)
    placed = touched.withColumns({"place": place, "last_seen": F.first("latest").over(latest_first)})
    if active_since is not None:
        placed = placed.where(F.to_date("last_seen") >= active_since)
    weights = F.array(F.lit(settings.view_weight), F.lit(settings.cart_weight), F.lit(settings.purchase_weight))
    weight = F.element_at(weights, F.col("interest_level")) * F.pow(F.lit(settings.profile_decay), F.col("place"))
    is_inside = F.col("place") < settings.profile_items
    return placed.select(
        "user_id",
        F.when(is_inside, F.col("place")).alias("position"),
        "product_id",
        "interest_level",
        F.when(is_inside, weight).alias("weight"),
        (F.col("interest_level") == len(INTERACTION_WORDS)).alias("bought"),
    ).where(F.col("position").isNotNull() | F.col("bought"))
