"""Trends: each bucket's demand against the bucket before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.batch.demand import Buckets, interactions
from lambda_spark.settings import TrendSettings


def growth(current: Column, previous: Column) -> Column:
    """Damped relative change, in (-1, 1): (c - p) / (c + p + 1). The trend value of the original project."""
    return (current - previous) / (current + previous + F.lit(1))


def z_score(current: Column, previous: Column, total: Column, previous_total: Column) -> Column:
    """Change of a share in standard deviations: (c - n·p) / √(n·p·(1 - p)), n = c + previous, p = T / (T + T_previous).

    Given n events of a product in two buckets and no change of its share, the number that falls into the second is
    binomial (n, p): the normal approximation of the conditional test of two Poisson counts (Przyborowski and Wilenski,
    Biometrika 31, 1940). 0 where a total is 0.
    """
    n = current + previous
    p = F.try_divide(total, total + previous_total)
    z = (current - n * p) / F.sqrt(n * p * (F.lit(1) - p))
    return F.when((total > 0) & (previous_total > 0), z).otherwise(F.lit(0.0))


def trends(
    demand: DataFrame,
    totals: DataFrame,
    key: str,
    settings: TrendSettings,
    *,
    first_bucket: Column,
    newest_bucket: Column,
    known_until: Column,
    attributes: Sequence[str] = (),
) -> DataFrame:
    """Compare each bucket with the one before it; a key missing from either counts 0 there.

    `demand` has bucket_start, signal, the key, events, and the attributes as structs (last_time, value); `totals` has
    bucket_start, signal and events. Buckets after `first_bucket` and up to `newest_bucket` get rows; a bucket is
    complete when it had ended at `known_until`. Returned are bucket_start, signal, the key, the attributes' newest
    values, and the figures of the `trends` table.
    """
    buckets = Buckets(settings)
    keys = ["bucket_start", "signal", key]
    compared = (
        _with_previous(demand, buckets, keys, attributes)
        .where((F.col("bucket_start") > first_bucket) & (F.col("bucket_start") <= newest_bucket))
        .join(
            F.broadcast(
                _with_previous(totals, buckets, ["bucket_start", "signal"]).select(
                    "bucket_start", "signal", F.col("current").alias("total"), F.col("previous").alias("previous_total")
                )
            ),
            on=["bucket_start", "signal"],
            how="inner",
        )
    )
    current, previous = F.col("current"), F.col("previous")
    change = current - previous
    is_trend = (F.abs("change") >= settings.min_change) & (F.abs("z_score") >= settings.min_z)
    figures = compared.select(
        *keys,
        *(F.col(name)["value"].alias(name) for name in attributes),
        "current",
        "previous",
        change.alias("change"),
        growth(current, previous).alias("growth"),
        z_score(current, previous, F.col("total"), F.col("previous_total")).alias("z_score"),
        F.try_divide(F.lit(100) * change, previous).alias("change_pct"),
    ).withColumn(
        "direction",
        F.when(is_trend & (F.col("z_score") > 0), "rising")
        .when(is_trend & (F.col("z_score") < 0), "waning")
        .otherwise("steady"),
    )
    same = Window.partitionBy("bucket_start", "signal", "direction")
    strongest_first = same.orderBy(F.desc(F.abs("z_score")), F.desc(F.abs("change")), F.asc(key))
    moves = F.col("direction") != "steady"
    return figures.select(
        "*",
        F.when(moves, F.try_divide(F.lit(100) * F.abs("change"), F.sum(F.abs("change")).over(same))).alias("trend_pct"),
        F.when(moves, F.row_number().over(strongest_first)).alias("rank"),
        (buckets.next(F.col("bucket_start")) <= known_until).alias("complete"),
    )


def user_trends(events: DataFrame, product_trends: DataFrame, settings: TrendSettings) -> DataFrame:
    """Per bucket and user the percent of interactions with products that were rising, and waning, by the
    interaction's signal.

    Columns as in `user_trends`; only buckets that `product_trends` has.
    """
    trending = product_trends.where(F.col("direction") != "steady").select(
        "bucket_start", "signal", "product_id", "direction"
    )
    compared_buckets = product_trends.select("bucket_start").distinct()
    interacted = interactions(events).select(
        Buckets(settings).start_of(F.col("event_time")).alias("bucket_start"),
        F.col("event_type").alias("signal"),
        "product_id",
        "user_id",
    )

    def percent(direction: str) -> Column:
        return F.lit(100) * F.count_if(F.col("direction") == direction) / F.count("*")

    return (
        interacted.join(F.broadcast(compared_buckets), on="bucket_start", how="left_semi")
        .join(F.broadcast(trending), on=["bucket_start", "signal", "product_id"], how="left")
        .groupBy("bucket_start", "user_id")
        .agg(
            F.count("*").alias("interactions"),
            percent("rising").alias("rising_pct"),
            percent("waning").alias("waning_pct"),
        )
    )


def _with_previous(demand: DataFrame, buckets: Buckets, keys: list[str], attributes: Sequence[str] = ()) -> DataFrame:
    """Every key of a bucket or of the one before it, with `current` and `previous` events and the newest attributes.

    A bucket's rows, moved on by one bucket, are the next one's `previous`: one aggregation, no join.
    """
    current = demand.select(
        *keys, *attributes, F.col("events").alias("current"), F.lit(0).cast("bigint").alias("previous")
    )
    moved = [buckets.next(F.col(name)).alias(name) if name == "bucket_start" else F.col(name) for name in keys]
    previous = demand.select(
        *moved, *attributes, F.lit(0).cast("bigint").alias("current"), F.col("events").alias("previous")
    )
    return (
        current.union(previous)
        .groupBy(*keys)
        .agg(
            F.sum("current").alias("current"),
            F.sum("previous").alias("previous"),
            *(F.max(name).alias(name) for name in attributes),
        )
    )
