"""Profiles: the latest distinct products of a user, which speak for the user. Pure."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.settings import RecommendationSettings

DEEDS = {"view": "viewed", "cart": "put into the cart", "purchase": "bought"}
"""Event type: the word for it in a reason, from the weakest sign of interest to the strongest."""


def strength(event_type: Column) -> Column:
    """How strong a sign of interest an event type is, from 1; 0 where it is none."""
    return F.array_position(F.array(*(F.lit(name) for name in DEEDS)), event_type)


def profiles(events: DataFrame, settings: RecommendationSettings, *, active_since: Column | None = None) -> DataFrame:
    """Per user what it touched: user_id and `items`, an array of structs with the user's profile, latest first, and
    after it the products that the user bought but that are not in the profile.

    An item has position (0 the latest; null outside the profile), product_id, deed (its strongest event type), weight
    (that type's weight times profile_decay to the power of the position; null outside) and bought. With
    `active_since` (a date), only users with an interaction since then. Rows are partitioned by user.
    """
    touched = (
        events.where(F.col("event_type").isin(*DEEDS))
        .select("user_id", "product_id", "event_time", strength(F.col("event_type")).alias("strength"))
        .repartition("user_id")
        .groupBy("user_id", "product_id")
        .agg(F.max("event_time").alias("latest"), F.max("strength").alias("strength"))
    )
    by_user = touched.groupBy("user_id").agg(
        F.max("latest").alias("latest"),
        F.array_sort(
            F.collect_list(
                F.struct(
                    (-F.unix_micros("latest")).alias("recency"),
                    "product_id",
                    F.col("strength").cast("int").alias("strength"),
                )
            )
        ).alias("items"),
    )
    if active_since is not None:
        by_user = by_user.where(F.to_date("latest") >= active_since)
    weights = F.array(F.lit(settings.view_weight), F.lit(settings.cart_weight), F.lit(settings.purchase_weight))
    deeds = F.array(*(F.lit(name) for name in DEEDS))
    purchase = F.lit(len(DEEDS))

    def item(touch: Column, position: Column) -> Column:
        in_profile = position < settings.profile_items
        weight = F.element_at(weights, touch["strength"]) * F.pow(F.lit(settings.profile_decay), position)
        return F.struct(
            F.when(in_profile, position).alias("position"),
            touch["product_id"].alias("product_id"),
            F.element_at(deeds, touch["strength"]).alias("deed"),
            F.when(in_profile, weight).alias("weight"),
            (touch["strength"] == purchase).alias("bought"),
        )

    items = F.filter(F.transform("items", item), lambda one: one["position"].isNotNull() | one["bought"])
    return by_user.select("user_id", items.alias("items"))
